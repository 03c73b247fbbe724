package sftpgw

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// The command lines that users are told, word for word. $KH is the published
// known_hosts, $CONFIG the ssh_config, $PORT the gateway's port and $PROXY its
// HTTP side. Each puts the file "up" to the server under the name "to".
var clientCommands = []struct{ name, needs, command string }{
	{"sftp by name", "sftp", `sftp -o UserKnownHostsFile=$KH -P $PORT -b batch acme@127.0.0.1`},
	{"sftp by host", "sftp", `sftp -o UserKnownHostsFile=$KH -P $PORT -b batch sftp.acme.example@127.0.0.1`},
	{"sftp by host and port", "sftp", `sftp -o UserKnownHostsFile=$KH -P $PORT -o User=sftp.acme.example:22 -b batch 127.0.0.1`},
	{"sftp by URL", "sftp", `sftp -o UserKnownHostsFile=$KH -b batch sftp://sftp.acme.example%3A22@127.0.0.1:$PORT/`},
	{"sftp by localhost", "sftp", `sftp -o UserKnownHostsFile=$KH -P $PORT -b batch acme@localhost`},
	{"sftp by CONNECT, nc", "nc.openbsd", `sftp -o UserKnownHostsFile=$KH -o "ProxyCommand=nc.openbsd -X connect -x $PROXY %h %p" -b batch sftp.acme.example`},
	{"sftp by CONNECT, ncat", "ncat", `sftp -o UserKnownHostsFile=$KH -o "ProxyCommand=ncat --proxy $PROXY --proxy-type http %h %p" -b batch sftp.acme.example`},
	{"sftp by jump", "sftp", `sftp -F $CONFIG -b batch sftp://files.globex.example:2222/`},
	{"sftp by jump, port from ssh_config", "sftp", `sftp -F $CONFIG -b batch files.globex.example`},
	{"sftp by ssh_config", "sftp", `sftp -F $CONFIG -b batch acme`},
	{"scp", "scp", `scp -o UserKnownHostsFile=$KH -P $PORT up acme@127.0.0.1:to`},
	{"curl", "curl", `curl -sS -T up sftp://acme@127.0.0.1:$PORT/~/to`},
	{"curl by host and port", "curl", `curl -sS -T up sftp://sftp.acme.example%3A22@127.0.0.1:$PORT/~/to`},
	{"curl by CONNECT", "curl", `curl -sS -x http://$PROXY -T up sftp://sftp.acme.example/~/to`},
	{"curl by ALL_PROXY", "curl", `ALL_PROXY=http://$PROXY curl -sS -T up sftp://sftp.acme.example/~/to`},
	{"lftp", "lftp", `lftp -c "set sftp:connect-program 'ssh -a -x -o UserKnownHostsFile=$KH'; open -u acme, -p $PORT sftp://127.0.0.1; put up -o to"`},
	{"lftp by ssh_config", "lftp", `lftp -c "set sftp:connect-program 'ssh -a -x -F $CONFIG'; open sftp://acme; put up -o to"`},
	{"rclone", "rclone", `rclone copyto up ":sftp,host=127.0.0.1,port=$PORT,user=acme,pass=$(rclone obscure x),known_hosts_file=$KH:to"`},
	{"paramiko", "/usr/bin/python3", `/usr/bin/python3 -c "
import paramiko
c = paramiko.SSHClient()
c.load_host_keys('$KH')
c.connect('127.0.0.1', $PORT, username='acme', password='x', look_for_keys=False, allow_agent=False)
c.open_sftp().put('up', 'to')
c.close()"`},
}

func TestClients(t *testing.T) {
	uploads(t, credstest.StartSSHD(t, credstest.SSHDOptions{}), func(string) bool { return true })
}

// The main ones against a server that speaks SFTP of another make.
func TestClientsOverProFTPD(t *testing.T) {
	main := []string{"sftp by name", "sftp by jump", "scp", "curl", "curl by CONNECT", "lftp", "rclone", "paramiko"}
	uploads(t, credstest.StartProFTPD(t), func(name string) bool { return slices.Contains(main, name) })
}

// uploads runs the clients, and compares what arrives with what was sent.
func uploads(t *testing.T, server *credstest.SSHD, wanted func(name string) bool) {
	t.Helper()
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"), r.credential(server, "globex", "files.globex.example:2222"))
	proxy := connectProxy(t, r)
	ran := 0
	for _, row := range clientCommands {
		if !wanted(row.name) {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			if _, err := exec.LookPath(row.needs); err != nil {
				t.Skip(err)
			}
			ran++
			t.Cleanup(func() { os.Remove(filepath.Join(server.Home, "to")) })
			dir := clientDir(t, r)
			content := make([]byte, 300_000)
			_, _ = rand.Read(content)
			write(t, filepath.Join(dir, "up"), content)
			write(t, filepath.Join(dir, "batch"), []byte("put up to\n"))
			out, err := r.run(t, dir, proxy, row.command)
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, r.log)
			}
			got, err := os.ReadFile(filepath.Join(server.Home, "to"))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes of %d arrived, %v\n%s", len(got), len(content), err, out)
			}
		})
	}
	for _, line := range r.log.wait(t, "sftp session", ran) {
		if line["error"] != "" || line["credential"] == "" {
			t.Error(line)
		}
	}
	confirmed := 0
	for _, line := range r.log.wait(t, "sftp file", ran) {
		if line["error"] == "" && line["bytes"] == 300_000.0 && strings.HasSuffix(line["path"].(string), "to") {
			confirmed++
		}
	}
	if confirmed != ran {
		t.Errorf("%d files of %d are logged as confirmed:\n%s", confirmed, ran, r.log)
	}
}

// clientDir is a client's home: with our key among its known hosts, as curl and
// lftp look for it there.
func clientDir(t *testing.T, r *rig) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(filepath.Join(r.dir, KnownHostsFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".ssh", "known_hosts"), known)
	return dir
}

// run runs a client's command line in its home.
func (r *rig) run(t *testing.T, dir, proxy, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "PROXY=" + proxy, fmt.Sprintf("PORT=%d", r.port),
		"KH=" + filepath.Join(r.dir, KnownHostsFile), "CONFIG=" + filepath.Join(r.dir, SSHConfigFile)}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return string(out), err
}

// connectProxy answers CONNECT as the proxy does, and hands the rest over.
func connectProxy(t *testing.T, r *rig) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				in := bufio.NewReader(c)
				request, err := http.ReadRequest(in)
				if err != nil || request.Method != http.MethodConnect {
					c.Close()
					return
				}
				host, port, _ := creds.ParseAuthority(request.RequestURI, 0)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				r.ServeConn(context.Background(), readAhead{c, in}, Target{Host: host, Port: port})
			}()
		}
	}()
	return l.Addr().String()
}

type readAhead struct {
	net.Conn
	in *bufio.Reader
}

func (r readAhead) Read(p []byte) (int, error) { return r.in.Read(p) }

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What each client shows when there is no session: the sentence, but for curl,
// which has an exit code alone.
func TestClientsShowWhy(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, func(r *rig) { r.StoreErr = func() error { return creds.ErrStoreUnavailable } })
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"), r.credential(server, "globex", "files.globex.example:2222"))
	proxy := connectProxy(t, r)
	for _, row := range clientCommands {
		t.Run(row.name, func(t *testing.T) {
			if _, err := exec.LookPath(row.needs); err != nil {
				t.Skip(err)
			}
			dir := clientDir(t, r)
			write(t, filepath.Join(dir, "up"), []byte("anything"))
			write(t, filepath.Join(dir, "batch"), []byte("put up to\n"))
			begin := time.Now()
			out, err := r.run(t, dir, proxy, row.command)
			want := "pillion: the credential store does not answer, so no credential may be used."
			if strings.HasPrefix(row.name, "curl") {
				want = "curl: (79)"
			}
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%v: %s", err, out)
			}
			if strings.Contains(out, "globex") && !strings.Contains(row.command, "globex") {
				t.Errorf("another credential is named: %s", out)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			t.Logf("%s", out)
		})
	}
	if log := server.Log(); strings.Contains(log, "Connection from") {
		t.Errorf("the server was reached: %s", log)
	}
}
