package sftpgw

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/creds/credstest"
)

// client logs in to the gateway as any client does that has nothing.
func (r *rig) client(t *testing.T, user string, methods ...ssh.AuthMethod) *ssh.Client {
	t.Helper()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	return r.over(t, c, user, methods...)
}

func (r *rig) addr() string { return "127.0.0.1:" + itoa(r.port) }

func (r *rig) over(t *testing.T, c net.Conn, user string, methods ...ssh.AuthMethod) *ssh.Client {
	t.Helper()
	conn, channels, requests, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{
		User: user, Auth: methods, HostKeyCallback: ssh.FixedHostKey(r.HostKey.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { client.Close() })
	return client
}

// put uploads by pkg/sftp.
func put(t *testing.T, c *ssh.Client, path, content string) {
	t.Helper()
	if err := tryPut(c, path, content); err != nil {
		t.Fatal(err)
	}
}

func tryPut(c *ssh.Client, path, content string) error {
	s, err := sftp.NewClient(c)
	if err != nil {
		return err
	}
	defer s.Close()
	f, err := s.Create(path)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	return errors.Join(err, f.Close())
}

func holds(t *testing.T, server *credstest.SSHD, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(server.Home, path)); err != nil || string(got) != content {
		t.Errorf("%s holds %q, %v; want %q", path, got, err, content)
	}
}

// acme is a gateway with one credential for one server.
func acme(t *testing.T, change func(*rig)) (*rig, *credstest.SSHD) {
	t.Helper()
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, change)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	return r, server
}

func TestAnyLoginOfAClientWillDo(t *testing.T) {
	r, server := acme(t, nil)
	key, err := ssh.ParsePrivateKey([]byte(server.Key.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	interactive := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		asked = len(questions) > 0
		return nil, nil
	})
	for name, methods := range map[string][]ssh.AuthMethod{
		"none": nil, "password": {ssh.Password("anything")}, "key": {ssh.PublicKeys(key)}, "keyboard": {interactive},
	} {
		put(t, r.client(t, "acme", methods...), name, name)
		holds(t, server, name, name)
	}
	if asked {
		t.Error("a question was asked")
	}
	if log := server.Log(); strings.Count(log, "Accepted password for "+server.Username) != 4 {
		t.Error(log)
	}
}

// ATTACKS.md 60: what is not the subsystem sftp is refused, and the connection
// goes on.
func TestNothingButSFTP(t *testing.T) {
	r, server := acme(t, nil)
	c := r.client(t, "acme")
	for _, kind := range []string{"x11", "auth-agent@openssh.com", "forwarded-tcpip", "tun@openssh.com", "direct-streamlocal@openssh.com", "nonsense"} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Error(kind, "is opened")
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "no-more-sessions@openssh.com", "hostkeys-prove-00@openssh.com"} {
		if ok, _, err := c.SendRequest(kind, true, ssh.Marshal(struct {
			Host string
			Port uint32
		}{"127.0.0.1", 0})); ok || err != nil {
			t.Error(kind, ok, err)
		}
	}
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	text := func(s string) []byte { return ssh.Marshal(struct{ Text string }{s}) }
	for _, row := range []struct {
		kind    string
		payload []byte
	}{
		{"exec", text("id")}, {"exec", text("scp -t .")}, {"shell", nil}, {"pty-req", nil}, {"env", nil}, {"auth-agent-req@openssh.com", nil},
		{"x11-req", nil}, {"subsystem", text("netconf")}, {"subsystem", text("sftp\x00")}, {"subsystem", nil}, {"subsystem", []byte{0xff, 0xff, 0xff, 0xff}},
		{"signal", text("KILL")}, {"nonsense", bytes.Repeat([]byte{1}, 30000)},
	} {
		if ok, err := ch.SendRequest(row.kind, true, row.payload); ok || err != nil {
			t.Errorf("%s %q: %v, %v", row.kind, row.payload, ok, err)
		}
	}
	if strings.Contains(server.Log(), "Connection from") {
		t.Error("the server was reached without need")
	}
	put(t, c, "after", "all that")
	holds(t, server, "after", "all that")
}

// A jump leads to credentials' targets, and nowhere else.
func TestJumpsLeadToTargetsOnly(t *testing.T) {
	r, server := acme(t, nil)
	c := r.client(t, "somebody")
	for _, addr := range []string{server.Addr, r.addr(), "sftp.acme.example:2222", "other.example:22", "169.254.169.254:80", "[::1]:22", "127.0.0.1:65535"} {
		if inner, err := c.Dial("tcp", addr); err == nil {
			inner.Close()
			t.Error("a jump to", addr)
		} else if !strings.Contains(err.Error(), "pillion: no credential") {
			t.Error(err)
		}
	}
	for _, payload := range [][]byte{nil, {1}, ssh.Marshal(direct{"sftp.acme.example", 65536 + 22, "", 0}), ssh.Marshal(direct{"sftp.acme.example", 0, "", 0}), ssh.Marshal(direct{"sftp.acme.example/", 22, "", 0}), ssh.Marshal(direct{"a@sftp.acme.example", 22, "", 0})} {
		if _, _, err := c.OpenChannel("direct-tcpip", payload); err == nil {
			t.Errorf("a jump to %q", payload)
		}
	}
	first, err := c.Dial("tcp", "SFTP.acme.example.:22")
	if err != nil {
		t.Fatal(err)
	}
	inner := r.over(t, first, "root")
	if _, err := inner.Dial("tcp", "sftp.acme.example:22"); err == nil || !strings.Contains(err.Error(), "one jump") {
		t.Error("a jump within a jump:", err)
	}
	put(t, inner, "up", "jumped")
	holds(t, server, "up", "jumped")
	inner.Close()
	line := r.log.wait(t, "sftp session", 12) // eleven jumps were refused
	if last := line[len(line)-1]; last["via"] != "jump" || last["host"] != "sftp.acme.example:22" || last["user"] != "root" || last["credential"] != "acme" {
		t.Error(last)
	}
}

func TestListenerOfOneCredential(t *testing.T) {
	r, server := acme(t, nil)
	for _, name := range []string{"acme", "gone"} {
		l := listen(t)
		served := make(chan error, 1)
		go func() { served <- r.ServeFor(l, name) }()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = tryPut(r.over(t, c, "whoever"), name, name)
		if name == "acme" {
			if err != nil {
				t.Error(err)
			}
			holds(t, server, name, name)
		} else if err == nil || !strings.Contains(err.Error(), "pillion: this port is for the credential gone, which does not exist") {
			t.Error(err)
		}
		l.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

func TestSessionsOfOneConnectionShareTheServers(t *testing.T) {
	r, server := acme(t, func(r *rig) { r.MaxSessions = 4 })
	c := r.client(t, "acme")
	var open []*sftp.Client
	for range 4 {
		s, err := sftp.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if _, err := sftp.NewClient(c); err == nil || !strings.Contains(err.Error(), "too many sessions") {
		t.Error("a fifth session:", err)
	}
	if r.InFlight() != 4 || r.Idle() != 0 {
		t.Error(r.InFlight(), r.Idle())
	}
	for _, s := range open {
		s.Close()
	}
	r.log.wait(t, "sftp session", 4)
	put(t, c, "fifth", "x")
	if log := server.Log(); strings.Count(log, "Accepted password") != 1 {
		t.Error(log)
	}
}

// Servers allow few sessions a connection (MaxSessions): a second one is made.
func TestMoreSessionsThanAServersConnectionTakes(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "MaxSessions 2"})
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	c := r.client(t, "acme")
	for range 5 {
		s, err := sftp.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Getwd(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Count(server.Log(), "Accepted password"); got != 3 {
		t.Errorf("%d connections", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	r, server := acme(t, func(r *rig) { r.MaxConns = 2 })
	first := r.client(t, "acme")
	r.client(t, "acme")
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if said, err := io.ReadAll(c); string(said) != "pillion: too many connections are open: try again later.\r\n" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
	if line := r.log.wait(t, "sftp session", 1)[0]; line["error"] != kindOverloaded {
		t.Error(line)
	}
	first.Close()
	_ = first.Wait()
	for range 100 { // until the gateway has noticed
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		hello := make([]byte, 4)
		if _, err := io.ReadFull(c, hello); err == nil && string(hello) == "SSH-" {
			c.Close()
			return
		}
		c.Close()
	}
	t.Error("the place is not free again", server.Addr)
}

func TestForbiddenClients(t *testing.T) {
	r, _ := acme(t, func(r *rig) { r.Allow = func(net.Conn) error { return errors.New("uid 12 is not listed") } })
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "SSH-2.0-early\r\n")
	if said, err := io.ReadAll(c); string(said) != "pillion: this client may not use the gateway.\r\n" || err != nil {
		t.Errorf("%q, %v", said, err)
	}
	if line := r.log.wait(t, "sftp session", 1)[0]; line["error"] != kindForbiddenClient || line["detail"] != "uid 12 is not listed" {
		t.Error(line)
	}
}

// Garbage before and after the banner ends one connection, and nothing else.
func TestGarbage(t *testing.T) {
	r, server := acme(t, func(r *rig) { r.HandshakeTimeout = 300 * time.Millisecond })
	for name, said := range map[string]string{
		"nothing at all":   "",
		"HTTP":             "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"an old version":   "SSH-1.5-x\r\n",
		"after the banner": "SSH-2.0-x\r\n" + strings.Repeat("\xff", 70000),
		"a huge packet":    "SSH-2.0-x\r\n\xff\xff\xff\xff\x04",
		"a short packet":   "SSH-2.0-x\r\n\x00\x00\x00\x01\x00",
		"an endless line":  "SSH-2.0-" + strings.Repeat("x", 100000),
		"many lines":       strings.Repeat("hello\r\n", 10000),
		"a banner alone":   "SSH-2.0-x\r\n",
		"zeroes":           strings.Repeat("\x00", 100000),
	} {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, said) }()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		c.Close()
	}
	put(t, r.client(t, "acme"), "after", "garbage")
	holds(t, server, "after", "garbage")
}

// Who opens a session and asks for nothing is not waited for.
func TestSilentSessionsEnd(t *testing.T) {
	r, _ := acme(t, func(r *rig) { r.HandshakeTimeout, r.IdleTimeout = 200*time.Millisecond, 200*time.Millisecond })
	c := r.client(t, "acme")
	ch, _, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := c.Wait(); err == nil {
		t.Error("an idle connection ends with a message")
	}
	if r.InFlight() != 0 {
		t.Error(r.InFlight())
	}
}

func TestDrainAndShutdown(t *testing.T) {
	r, server := acme(t, nil)
	idle, busy := r.client(t, "acme"), r.client(t, "acme")
	s, err := sftp.NewClient(busy)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Create("long")
	if err != nil {
		t.Fatal(err)
	}
	r.Drain()
	_ = idle.Wait() // ends at once
	put(t, r.client(t, "acme"), "late", "an upload while draining")
	holds(t, server, "late", "an upload while draining")
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(context.Background()) }()
	for r.isClosed() == false { // until it has begun
		time.Sleep(time.Millisecond)
	}
	if _, err := io.WriteString(f, "goes on"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Error("did not wait for a session:", err)
	default:
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	holds(t, server, "long", "goes on")
	_ = busy.Wait()
	if _, err := net.Dial("tcp", r.addr()); err == nil {
		t.Error("it still listens")
	}
}

func TestShutdownCutsAtItsEnd(t *testing.T) {
	r, _ := acme(t, nil)
	c := r.client(t, "acme")
	s, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Create("cut")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := io.WriteString(f, "x"); err == nil {
		t.Error("a write to nobody is confirmed")
	}
	if line := r.log.wait(t, "sftp session", 1)[0]; line["error"] == "" {
		t.Error(line)
	}
	if line := r.log.wait(t, "sftp file", 1)[0]; line["error"] == "" || line["path"] != "cut" {
		t.Error(line)
	}
}

// ATTACKS.md 55: the wrong key is noticed before anything of ours is said, and
// the client reads both fingerprints.
func TestWrongHostKey(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	other := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, nil)
	c := r.credential(server, "acme", "sftp.acme.example:22")
	c.HostKeys = other.HostKeys[:1]
	r.use(t, c)
	err := tryPut(r.client(t, "acme"), "up", "secret")
	pins, _ := creds.ParseHostKeys([]string{server.HostKeys[0], other.HostKeys[0]}, "", 0)
	if err == nil || !strings.Contains(err.Error(), pins[0].SHA256) || !strings.Contains(err.Error(), pins[1].SHA256) {
		t.Error(err)
	}
	if log := server.Log(); !strings.Contains(log, "Connection from") || strings.Contains(log, "for "+server.Username) || strings.Contains(log, "user") {
		t.Errorf("a login was tried: %s", log)
	}
	if line := r.log.wait(t, "sftp session", 1)[0]; line["error"] != dialHostKey || line["credential"] != "acme" {
		t.Error(line)
	}
}

// A server that is the gateway itself: by the guard, by its key.
func TestLoop(t *testing.T) {
	r := newRig(t, nil)
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(r.HostKey.PublicKey())))
	c := &creds.Credential{
		Name: "acme", Protocol: creds.SFTP, URL: "sftp://sftp.acme.example:22/", Authorization: creds.Basic,
		Username: "me", Password: credstest.Canary("sftp-password"), HostKeys: []string{key},
	}
	r.hosts.Store("sftp.acme.example:22", r.addr())
	r.use(t, c)
	err := tryPut(r.client(t, "acme"), "up", "x")
	if err == nil || !strings.Contains(err.Error(), "pillion") {
		t.Error(err)
	}
	if lines := r.log.wait(t, "sftp session", 1); len(lines) != 1 || lines[0]["error"] != dialLoop {
		t.Error(lines)
	}
}

func TestExpiredPasswordIsTold(t *testing.T) {
	for name, o := range map[string]credstest.SSHDOptions{"keyboard-interactive": {PAM: true, Expired: true}, "password": {Expired: true, PAM: true, Config: "PasswordAuthentication yes\nKbdInteractiveAuthentication no"}} {
		t.Run(name, func(t *testing.T) {
			server := credstest.StartSSHD(t, o)
			r := newRig(t, nil)
			r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
			dir := clientDir(t, r)
			write(t, filepath.Join(dir, "up"), []byte("anything"))
			write(t, filepath.Join(dir, "batch"), []byte("put up to\n"))
			for _, row := range clientCommands {
				if row.name != "sftp by name" && row.name != "scp" && row.name != "paramiko" && row.name != "lftp" {
					continue
				}
				out, err := r.run(t, dir, "", row.command)
				if err == nil || !strings.Contains(out, "pillion: ") || !strings.Contains(strings.ToLower(out), "password") {
					t.Errorf("%s: %v: %s", row.name, err, out)
				}
				t.Logf("%s: %s", row.name, out)
			}
			line := r.log.wait(t, "sftp session", 1)[0]
			t.Log(line)
		})
	}
}
