package sftpgw

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds/credstest"
)

// faultyConn is a server's connection that fails when so many bytes have been
// sent to it.
type faultyConn struct {
	net.Conn
	left  atomic.Int64
	fault func(*faultyConn)
	once  sync.Once
	hole  chan struct{} // closed by Close: what hangs ends
	deaf  atomic.Bool
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if c.left.Add(int64(-len(p))) < 0 {
		c.once.Do(func() { c.fault(c) })
	}
	if c.deaf.Load() {
		<-c.hole
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.deaf.Load() {
		<-c.hole
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *faultyConn) Close() error {
	select {
	case <-c.hole:
	default:
		close(c.hole)
	}
	return c.Conn.Close()
}

// failAfter makes a gateway whose next connection to a server fails so.
func failAfter(r *rig, after *atomic.Int64, fault func(*faultyConn)) {
	dial := r.Dial
	r.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		faulty := &faultyConn{Conn: conn, fault: fault, hole: make(chan struct{})}
		faulty.left.Store(after.Load())
		return faulty, nil
	}
}

// put uploads by OpenSSH's sftp, and returns what it printed and how it ended.
func (r *rig) put(t *testing.T, name, source, target string) (string, error) {
	t.Helper()
	batch := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(batch, []byte("put "+source+" "+target+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sftp", "-o", "UserKnownHostsFile="+filepath.Join(r.dir, "known_hosts"),
		"-P", strconv.Itoa(int(r.port)), "-b", batch, name+"@127.0.0.1").CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("sftp hangs: %s", out)
	}
	return string(out), err
}

// 59: every upload that is cut is reported to the client, and leaves a prefix of
// the file, however it is cut.
func TestCutUploads(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	var after atomic.Int64
	var kills sync.WaitGroup
	faults := []func(*faultyConn){
		func(c *faultyConn) { c.Conn.Close() },
		func(c *faultyConn) { _ = c.Conn.(*net.TCPConn).SetLinger(0); c.Conn.Close() },
		func(*faultyConn) { kills.Go(server.KillSessions) },
	}
	t.Cleanup(kills.Wait) // after the rig's end, before the server's
	var fault atomic.Int64
	r := newRig(t, func(r *rig) {
		failAfter(r, &after, func(c *faultyConn) { faults[fault.Load()](c) })
	})
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	content := random(8 << 20)
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for run := range 25 {
		fault.Store(int64(run % len(faults)))
		after.Store(64<<10 + rand.Int64N(6<<20))
		target := fmt.Sprintf("cut-%d", run)
		out, err := r.put(t, "acme", source, target)
		if told[target] = err == nil; told[target] {
			// The processes were killed late; but then the file must be whole.
			if stored, err := os.ReadFile(filepath.Join(server.Home, target)); err != nil || !bytes.Equal(stored, content) {
				t.Errorf("run %d: the client was told that all is well, and %d bytes are stored", run, len(stored))
			}
			continue
		}
		if !strings.Contains(out, "pillion: sftp.acme.example:22 ") || !strings.Contains(out, "what it has not confirmed is not stored.") {
			t.Errorf("run %d: the client saw %q", run, out)
		}
		for deadline := time.Now().Add(10 * time.Second); len(server.Sessions()) > 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond) // sshd tells nobody when the last write of a session is done
		}
		stored, err := os.ReadFile(filepath.Join(server.Home, target))
		if err != nil && after.Load() > 1<<20 {
			t.Errorf("run %d: %v", run, err)
		}
		if !bytes.HasPrefix(content, stored) {
			t.Errorf("run %d: %d bytes that are no prefix", run, len(stored))
		}
	}
	whole := 0
	for _, line := range r.log.wait(t, "sftp file", 25) {
		name := filepath.Base(line["path"].(string))
		if told[name] {
			whole++
		}
		if told[name] && line["error"] != "" {
			t.Errorf("the client was told that all is well, and the log says %v", line)
		}
		stored, err := os.Stat(filepath.Join(server.Home, name))
		if err == nil && float64(stored.Size()) < line["bytes"].(float64) {
			t.Errorf("%v bytes are logged as confirmed, %d are stored", line["bytes"], stored.Size())
		}
	}
	if whole > 5 {
		t.Errorf("%d of 25 were not cut", whole)
	}
}

// A server that is there no more, though nothing says so, is found out by
// questions without answers.
func TestBlackHole(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	var after atomic.Int64
	after.Store(1 << 20)
	r := newRig(t, func(r *rig) {
		failAfter(r, &after, func(c *faultyConn) { c.deaf.Store(true) })
		r.begin()
		r.dialer.keepalive = 50 * time.Millisecond
	})
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, random(16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	out, err := r.put(t, "acme", source, "lost")
	if err == nil || !strings.Contains(out, "sftp.acme.example:22 has not answered for 200ms; what it has not confirmed is not stored.") {
		t.Errorf("%v: %s", err, out)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
}

// Questions that are answered end nothing, and neither do those that wait in a
// queue while other answers come.
func TestKeepaliveOfIdleServer(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	d := bareDialer()
	d.keepalive = 250 * time.Millisecond // a busy machine may hold an answer back for three times as long
	u, err := d.dial(t.Context(), server.Credential("acme"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	before := u.net.reads.Load()
	const answers = 2 * keepaliveMisses
	for deadline := time.Now().Add(20 * time.Second); u.net.reads.Load() < before+answers && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-u.ended:
		t.Errorf("ended: %s", u.reason())
	default:
	}
	if n := u.net.reads.Load() - before; n < answers {
		t.Errorf("%d answers", n)
	}
}

// A server whose SFTP ends before its first word is refused like one that
// cannot be reached.
func TestSubsystemThatEnds(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "ForceCommand exit 7\n"})
	said := startTalkingServer(t, "WARNING: Your password has expired.\r\n")
	for addr, want := range map[string]string{
		server.Addr: "ended the session with exit status 7 before it began: perhaps the password has expired",
		said.addr:   "ended the session with exit status 1 (it says: WARNING: Your password has expired.).",
	} {
		r := newRig(t, nil)
		c := server.Credential("acme")
		if addr == said.addr {
			c = said.credential(credstest.Canary("talked-password"))
		}
		c.URL = "sftp://sftp.acme.example:22/"
		r.hosts.Store("sftp.acme.example:22", addr)
		r.use(t, c)
		source := filepath.Join(t.TempDir(), "source")
		if err := os.WriteFile(source, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := r.put(t, "acme", source, "x")
		if err == nil || !strings.Contains(out, "pillion: sftp.acme.example:22 "+want) {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// startTalkingServer lets everybody in, says why there is no SFTP, and exits.
func startTalkingServer(t *testing.T, words string) *promptServer {
	t.Helper()
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(key)
	p := &promptServer{key: key}
	p.addr = answering(t, func(_ int, conn net.Conn) {
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for channel := range channels {
			ch, requests, err := channel.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := range requests {
					_ = r.Reply(true, nil)
					_, _ = io.WriteString(ch.Stderr(), words)
					_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 1})
					ch.Close()
				}
			}()
		}
	})
	return p
}

// Both sides exchange new keys in mid-transfer, several times.
func TestRekey(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "RekeyLimit 16M\n"})
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	size := 256 << 20
	if testing.Short() {
		size = 48 << 20
	}
	dir := t.TempDir()
	content := random(size)
	if err := os.WriteFile(filepath.Join(dir, "source"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	batch := fmt.Sprintf("put %s/source copy\nget copy %s/back\n", dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "batch"), []byte(batch), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sftp", "-o", "RekeyLimit=16M", "-o", "UserKnownHostsFile="+filepath.Join(r.dir, "known_hosts"),
		"-P", strconv.Itoa(int(r.port)), "-b", filepath.Join(dir, "batch"), "acme@127.0.0.1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{filepath.Join(server.Home, "copy"), filepath.Join(dir, "back")} {
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// Extensions are the server's own: the list is the same as without us.
func TestExtensionsAreTheServers(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	bare, err := ssh.Dial("tcp", server.Addr, &ssh.ClientConfig{
		User: server.Username, Auth: []ssh.AuthMethod{ssh.Password(server.Password.Reveal())}, HostKeyCallback: ssh.FixedHostKey(keyLine(t, server.HostKeys[0])), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	want, got := versionOf(t, bare), versionOf(t, r.sshClient(t, "acme"))
	if !bytes.Equal(want, got) || !bytes.Contains(got, []byte("posix-rename@openssh.com")) {
		t.Errorf("VERSION is %q, directly %q", got, want)
	}
}

// rawSession is a client's channel with the subsystem, for packets of our own.
func rawSession(t *testing.T, client *ssh.Client) ssh.Channel {
	t.Helper()
	ch, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); err != nil || !ok {
		t.Fatalf("subsystem: %v, %v", ok, err)
	}
	return ch
}

func versionOf(t *testing.T, client *ssh.Client) []byte {
	t.Helper()
	ch := rawSession(t, client)
	defer ch.Close()
	if _, err := ch.Write([]byte{0, 0, 0, 5, pktInit, 0, 0, 0, 3}); err != nil {
		t.Fatal(err)
	}
	packet, err := readPacket(ch)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}
