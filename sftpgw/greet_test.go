package sftpgw

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// OpenSSH gets AES-GCM though it prefers other ciphers, unless it was told to
// take none of it.
func TestCipherOfOpenSSH(t *testing.T) {
	r := newRig(t, nil)
	for options, want := range map[string]string{
		"":                                     "aes128-gcm@openssh.com",
		"-c aes256-gcm@openssh.com":            "aes256-gcm@openssh.com",
		"-c aes256-ctr":                        "aes256-ctr",
		"-c aes192-ctr,aes128-gcm@openssh.com": "aes128-gcm@openssh.com",
	} {
		arguments := []string{"-v", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + filepath.Join(r.dir, "known_hosts"), "-p", strconv.Itoa(int(r.port))}
		r.use(t)
		arguments = append(arguments, strings.Fields(options)...)
		out, _ := exec.Command("ssh", append(arguments, "nobody@127.0.0.1", "true")...).CombinedOutput() // a command is refused, after the key exchange
		found := regexp.MustCompile(`server->client cipher: (\S+)`).FindStringSubmatch(string(out))
		if found == nil || found[1] != want {
			t.Errorf("%q: %q, want %s\n%s", options, found, want, out)
		}
	}
}

// What is no SSH, in any pieces, is left to x/crypto, which refuses it.
func TestGreetGarbage(t *testing.T) {
	r := newRig(t, nil)
	for _, input := range []string{
		"", "\n", "GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2\r\n\xff\xff\xff\xff\x14\x14",
		"SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x00\x08\x14\x14aaaaaa", "SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x00\x20\x04\x14aaaaaaaaaaaaaaaa\xff\xff\xff\xffaaaaaaaaaa",
		"SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x00\x00\x04\x14", strings.Repeat("x", 1000), "SSH-1.5-x\n",
	} {
		conn := dialTCP(t, r)
		if _, err := conn.Write([]byte(input)); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWrite()
		readToEnd(t, conn)
	}
	r.use(t)
}

func dialTCP(t *testing.T, r *rig) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(r.port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// readToEnd fails when the other side does not end the connection.
func readToEnd(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}
