package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds/credstest"
)

// another: the server's key is not the pinned one. The client reads both, and the
// server sees nobody log in.
func (l *sftpLab) another(t *testing.T) {
	shown := l.openssh.HostKeys[0]
	pinned := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"ed25519"}}).HostKeys[0]
	l.set(t, l.openssh, "wrong", "sftp://wrong.example:22/", pinned)
	before := l.openssh.Log()
	out, err := l.shell(t, l.home(t, nil), "sftp -F $CONFIG -b batch wrong")
	if err == nil || !strings.Contains(out, fingerprint(t, shown)) || !strings.Contains(out, fingerprint(t, pinned)) {
		t.Errorf("%v: the client does not read both fingerprints:\n%s", err, out)
	}
	l.shellFails(t, "$PILLION credential test wrong", "set the fingerprint to: "+shown)
	said := strings.TrimPrefix(l.openssh.Log(), before)
	if !strings.Contains(said, "Connection from") {
		t.Errorf("the server was not reached: %s", said)
	}
	for _, attempt := range []string{l.openssh.Username, "assword", "Accepted", "Failed", "Invalid user"} {
		if strings.Contains(said, attempt) {
			t.Errorf("the server saw an attempt to log in (%s):\n%s", attempt, said)
		}
	}
}

func fingerprint(t *testing.T, key string) string {
	t.Helper()
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(public)
}

// uploads sends a file of its own with that credential.
func (l *sftpLab) uploads(t *testing.T, name string) {
	t.Helper()
	content := random(1_000_000)
	to := fmt.Sprintf("to-%x", rand.Uint64())
	if out, err := l.shell(t, l.home(t, content), "echo put up "+to+" | sftp -F $CONFIG -b - "+name); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
	server := l.openssh
	if name == "globex" {
		server = l.globex
	}
	arrived(t, server, to, content)
}

// shellFails runs what must not work, and say want.
func (l *sftpLab) shellFails(t *testing.T, command, want string) string {
	t.Helper()
	out, err := l.shell(t, t.TempDir(), command)
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("%s: %v, want %s\n%s", command, err, want, out)
	}
	return out
}

// pins: each good form leads to the server, each bad one is refused with what to
// write instead, when it is stored.
func (l *sftpLab) pins(t *testing.T) {
	ed25519, rsa := l.openssh.HostKeys[0], l.openssh.HostKeys[2]
	set := func(pin string) string {
		return "echo secret | $PILLION credential set pins --url sftp://pins.example:22/ --username u --password-file - --host-key '" + pin + "'"
	}
	for _, good := range []string{
		ed25519 + " with a comment", "  " + strings.Replace(ed25519, " ", "   ", 1) + "  ", "pins.example " + ed25519, strings.Fields(ed25519)[1],
		fingerprint(t, ed25519), fingerprint(t, rsa), rsa + "\n" + ed25519, "256 " + fingerprint(t, ed25519) + " root@server (ED25519)",
	} {
		l.set(t, l.openssh, "pins", "sftp://pins.example:22/", good)
		l.uploads(t, "pins")
	}
	kind, blob, _ := strings.Cut(ed25519, " ")
	for bad, want := range map[string]string{
		"": "is required",
		"da:47:93:b4:3a:90:5b:50:1f:20:a8:f9:b7:a1:d0:e1":     "is an MD5 hash, which is not accepted; paste the server's public key as one line",
		"MD5:da:47:93:b4:3a:90:5b:50:1f:20:a8:f9:b7:a1:d0:e1": "is an MD5 hash",
		kind: "", kind + " " + blob[:len(blob)-9]: "", kind + " not*base64": "", "ssh-rsa " + blob: "", "rsa-sha2-256 " + blob: "",
		"other.example " + ed25519: "is a line of another host: the credential is for pins.example", "SHA256:short": "", "ssh-dss " + blob: "", "ssh-ed25519-cert-v01@openssh.com " + blob: "",
		"@cert-authority * " + ed25519: "", "-----BEGIN OPENSSH PRIVATE KEY-----": "",
	} {
		if out := l.shellFails(t, set(bad), want); strings.Contains(out, "PRIVATE KEY") && strings.Contains(out, "BEGIN") {
			t.Errorf("a private key is echoed: %s", out)
		}
	}
}

// denied: each operation that the policy does not list is refused at once and in
// order, and not seen by the server.
func (l *sftpLab) denied(t *testing.T) {
	kept := filepath.Join(l.openssh.Home, "kept")
	if err := os.WriteFile(kept, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(kept)
	l.reload(t, ", allow: [write]")
	defer l.reload(t, "")
	for _, command := range []string{"rm kept", "get kept", "ls", "rename kept gone", "rmdir ."} {
		out, err := l.shell(t, l.home(t, nil), "echo '"+command+"' | sftp -F $CONFIG -b - acme")
		if !strings.Contains(out, "denied") { // ls leaves it at the words
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	if text, err := os.ReadFile(kept); string(text) != "kept" {
		t.Errorf("the file on the server: %q, %v", text, err)
	}
	l.uploads(t, "acme")
}

// onlySFTP: shells, commands, forwarding, agents and other subsystems are refused.
func (l *sftpLab) onlySFTP(t *testing.T) {
	before := l.openssh.Log()
	client, err := ssh.Dial("tcp", l.listen, &ssh.ClientConfig{User: "acme", HostKeyCallback: ssh.InsecureIgnoreHostKey()}) //nolint:gosec // a test of something else
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, ask := range map[string]func(*ssh.Session) error{
		"shell":      func(s *ssh.Session) error { return s.Shell() },
		"exec":       func(s *ssh.Session) error { return s.Run("id") },
		"scp":        func(s *ssh.Session) error { return s.Run("scp -t .") },
		"subsystem":  func(s *ssh.Session) error { return s.RequestSubsystem("netconf") },
		"terminal":   func(s *ssh.Session) error { return s.RequestPty("xterm", 24, 80, nil) },
		"agent":      func(s *ssh.Session) error { return asked(s.SendRequest("auth-agent-req@openssh.com", true, nil)) },
		"X11":        func(s *ssh.Session) error { return asked(s.SendRequest("x11-req", true, nil)) },
		"a variable": func(s *ssh.Session) error { return s.Setenv("LD_PRELOAD", "x") },
	} {
		session, err := client.NewSession()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if ask(session) == nil {
			t.Errorf("%s: allowed", name)
		}
		session.Close()
	}
	for _, to := range []string{"127.0.0.1:22", l.metrics, l.openssh.Addr, "other.example:22"} {
		if c, err := client.Dial("tcp", to); err == nil {
			c.Close()
			t.Errorf("a port is forwarded to %s", to)
		}
	}
	if listener, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		listener.Close()
		t.Error("a port is forwarded to the client")
	}
	if said := strings.TrimPrefix(l.openssh.Log(), before); strings.Contains(said, "Connection from") {
		t.Errorf("the server was reached: %s", said)
	}
	conn, err := net.Dial("tcp", l.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(40 * time.Second))
	_, _ = conn.Write(bytes.Repeat([]byte("garbage "), 10_000))
	for buf := make([]byte, 4096); err == nil; _, err = conn.Read(buf) {
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a client of garbage is kept")
	}
	l.uploads(t, "acme")
}

func asked(ok bool, err error) error {
	if err == nil && !ok {
		return errors.New("refused")
	}
	return err
}

// What is killed in the middle of an upload.
const (
	killServer = iota
	killGateway
	killClient
	kills
)

// killed uploads, and kills at a random moment: a client that was told that its
// file is complete was told the truth, and any other file is a prefix.
func (l *sftpLab) killed(t *testing.T, what int) {
	t.Helper()
	content := random(6 << 20)
	home := l.home(t, content)
	to := filepath.Join(l.openssh.Home, "to")
	_ = os.Remove(to)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "sftp", "-F", l.published("ssh_config"), "-b", "batch", "acme")
	client.Dir = home
	var out bytes.Buffer
	client.Stdout, client.Stderr, client.WaitDelay = &out, &out, time.Second
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	var err error
	at := rand.Int64N(int64(len(content)) * 11 / 10) // some come too late
	for over := false; !over; {
		select {
		case err = <-ended:
			over = true
		case <-time.After(200 * time.Microsecond): // the file's size tells nobody by itself
			if info, statErr := os.Stat(to); statErr != nil || info.Size() < at {
				continue
			}
			switch what {
			case killServer:
				l.openssh.KillSessions()
			case killGateway:
				_ = l.process.Kill()
				for l.process.Signal(syscall.Signal(0)) == nil { // it holds its locks until it is gone
					time.Sleep(time.Millisecond)
				}
			case killClient:
				_ = client.Process.Kill()
			}
			err, over = <-ended, true
		}
	}
	if what == killGateway {
		l.start(l.whole)
	}
	got, readErr := os.ReadFile(to)
	switch {
	case readErr != nil && err != nil && errors.Is(readErr, os.ErrNotExist): // killed before its first write
	case readErr != nil:
		t.Fatal(readErr)
	case err == nil && !bytes.Equal(got, content):
		t.Errorf("the client was told that its file is complete, and %d bytes of %d are there", len(got), len(content))
	case !bytes.HasPrefix(content, got):
		t.Errorf("what is there (%d bytes) is no prefix", len(got))
	}
	if err != nil && what != killClient && !regexp.MustCompile(`onnection|pillion|Broken pipe`).MatchString(out.String()) {
		t.Errorf("the client is not told why: %v\n%s", err, out.String())
	}
}

// TestSoakSFTPKills: 200 uploads of which each has something killed under it.
func TestSoakSFTPKills(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak; TestSFTP has a shorter form
	}
	l := newSFTPLab(t)
	for i := range 200 {
		l.killed(t, i%kills)
	}
}
