package sftpgw

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// ATTACKS.md 59: the server is killed in the middle of an upload. Whoever tries
// again by itself ends with the whole file; the others say that it is not
// stored, and what is there is a prefix.
func TestServerKilledInMidUpload(t *testing.T) {
	content := make([]byte, 48<<20)
	_, _ = rand.Read(content)
	for _, row := range []struct {
		client  string
		retries bool
		says    string
	}{
		{"sftp by name", false, "pillion: sftp.acme.example:22 "},
		{"sftp by jump", false, "pillion: files.globex.example:2222 "},
		{"scp", false, "pillion: sftp.acme.example:22 "},
		{"curl", false, "curl: ("},
		{"curl by CONNECT", false, "curl: ("},
		{"paramiko", false, "Error"},
		{"lftp", true, ""},
		{"rclone", true, ""},
	} {
		t.Run(row.client, func(t *testing.T) {
			t.Parallel()
			server := credstest.StartSSHD(t, credstest.SSHDOptions{})
			r := newRig(t, nil)
			r.use(t, r.credential(server, "acme", "sftp.acme.example:22"), r.credential(server, "globex", "files.globex.example:2222"))
			dir := clientDir(t, r)
			write(t, filepath.Join(dir, "up"), content)
			write(t, filepath.Join(dir, "batch"), []byte("put up to\n"))
			to := filepath.Join(server.Home, "to")
			ended, killed := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(killed)
				for !grown(to, 4<<20) { // the file is what tells
					select {
					case <-ended:
						return
					case <-time.After(time.Millisecond):
					}
				}
				server.KillSessions()
			}()
			command := commandOf(t, row.client)
			begin := time.Now()
			out, err := r.run(t, dir, connectProxy(t, r), strings.Replace(command, `lftp -c "`, `lftp -c "set net:reconnect-interval-base 1; `, 1))
			close(ended)
			<-killed
			got, _ := os.ReadFile(to)
			if row.retries {
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%v, %d bytes of %d: %s", err, len(got), len(content), out)
				}
			} else {
				if err == nil || !strings.Contains(out, row.says) {
					t.Errorf("%v: %s", err, out)
				}
				if len(got) == len(content) || !bytes.HasPrefix(content, got) {
					t.Errorf("%d bytes are there, which are no prefix", len(got))
				}
			}
			if took := time.Since(begin); took > 45*time.Second {
				t.Error("it took", took)
			}
			t.Log(len(got), time.Since(begin), out)
			line := r.log.wait(t, "sftp session", 1)[0]
			if line["error"] != kindLost {
				t.Error(line)
			}
			file := r.log.wait(t, "sftp file", 1)[0]
			if file["error"] == "" || int(file["bytes"].(float64)) > len(got) && !row.retries {
				t.Error(file)
			}
		})
	}
}

func grown(path string, size int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() >= size
}

// commandOf is the command line of that name.
func commandOf(t *testing.T, name string) string {
	t.Helper()
	for _, row := range clientCommands {
		if row.name != name {
			continue
		}
		if _, err := exec.LookPath(row.needs); err != nil {
			t.Skip(err)
		}
		return row.command
	}
	t.Fatal("no client " + name)
	return ""
}
