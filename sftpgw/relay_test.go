package sftpgw

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"pillion/creds/credstest"
)

// sftpClient is a client of the gateway, by pkg/sftp.
func (r *rig) sftpClient(t testing.TB, name string, options ...sftp.ClientOption) *sftp.Client {
	t.Helper()
	conn := r.sshClient(t, name)
	client, err := sftp.NewClient(conn, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (r *rig) sshClient(t testing.TB, name string) *ssh.Client {
	t.Helper()
	conn, err := ssh.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(r.port))), &ssh.ClientConfig{
		User: name, HostKeyCallback: ssh.FixedHostKey(r.HostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

func TestRelayUpAndDown(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	client := r.sftpClient(t, "acme", sftp.UseConcurrentWrites(true))
	content := random(20<<20 + 17)
	f, err := client.Create("up")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(server.Home, "up"))
	if err != nil || !bytes.Equal(stored, content) {
		t.Fatalf("stored %d bytes, %v; sent %d", len(stored), err, len(content))
	}
	f, err = client.Open("up")
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(back, content) {
		t.Fatalf("read %d bytes, %v", len(back), err)
	}
	f.Close()
	client.Close()
	r.log.wait(t, "sftp file", 1)
	t.Log(r.log.String())
}
