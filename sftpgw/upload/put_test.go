package upload

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/sftpgw"
)

// lab is a gateway before a real server. cut ends the next connections to the
// server when so many bytes have gone to it; 0: never.
type lab struct {
	*testing.T
	gateway *sftpgw.Server
	server  *credstest.SSHD
	addr    string
	cut     atomic.Int64
	policy  atomic.Uint32
}

func newLab(t *testing.T, start func(testing.TB) *credstest.SSHD) *lab {
	t.Helper()
	l := &lab{T: t, server: start(t)}
	key, err := sftpgw.LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table := creds.NewTable([]*creds.Credential{l.server.Credential("acme")})
	l.gateway = &sftpgw.Server{
		Table: func() *creds.Table { return table }, HostKey: key, Dial: l.dial,
		Log: slog.New(slog.DiscardHandler), Metrics: sftpgw.NewMetrics(prometheus.NewRegistry()),
		Policy: func() sftpgw.Policy { return sftpgw.Policy(l.policy.Load()) }, //nolint:gosec // a byte
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- l.gateway.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = l.gateway.Shutdown(ctx)
		<-served
	})
	return l
}

func openSSH(t testing.TB) *credstest.SSHD {
	return credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"ed25519"}})
}

func (l *lab) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil || l.cut.Load() == 0 {
		return conn, err
	}
	c := &shortConn{Conn: conn}
	c.left.Store(l.cut.Load())
	return c, nil
}

// shortConn ends after so many bytes.
type shortConn struct {
	net.Conn
	left atomic.Int64
}

func (c *shortConn) Write(p []byte) (int, error) {
	if c.left.Add(int64(-len(p))) < 0 {
		c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (l *lab) connect(user string) (*Session, error) {
	l.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		l.Fatal(err)
	}
	s, err := Connect(l.Context(), conn, user, ssh.FixedHostKey(l.gateway.HostKey.PublicKey()))
	if err == nil {
		l.Cleanup(s.Close)
	}
	return s, err
}

func (l *lab) put(source, target string) (Result, error) {
	l.Helper()
	s, err := l.connect("acme")
	if err != nil {
		l.Fatal(err)
	}
	defer s.Close()
	return s.Put(l.Context(), File{Source: source, Target: target})
}

// source is a file of random content.
func (l *lab) source(size int) (path string, content []byte) {
	l.Helper()
	content = make([]byte, size)
	_, _ = crand.Read(content)
	path = filepath.Join(l.TempDir(), "up")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		l.Fatal(err)
	}
	return path, content
}

// has checks that the server's directory holds exactly these files, "to" with content.
func (l *lab) has(content []byte, names ...string) {
	l.Helper()
	entries, err := os.ReadDir(l.server.Home)
	if err != nil {
		l.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if strings.Join(found, " ") != strings.Join(names, " ") {
		l.Errorf("the server has %q, want %q", found, names)
	}
	if got, err := os.ReadFile(filepath.Join(l.server.Home, "to")); content != nil && (err != nil || !bytes.Equal(got, content)) {
		l.Errorf("%d bytes of %d arrived, %v", len(got), len(content), err)
	}
}

func TestPut(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *credstest.SSHD{"OpenSSH": openSSH, "ProFTPD": credstest.StartProFTPD} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, start)
			for _, size := range []int{0, 1, chunk, chunk + 1, 3*chunk*window + 17} {
				source, content := l.source(size)
				if result, err := l.put(source, "to"); err != nil || result.Size != int64(size) || result.Resumed != 0 {
					t.Errorf("%d bytes: %+v, %v", size, result, err)
				}
				l.has(content, "to")
			}
		})
	}
}

func TestPutIsCutAndGoesOn(t *testing.T) {
	l := newLab(t, openSSH)
	for range 5 {
		t.Run("59 a put that is cut, and the next one", func(t *testing.T) {
			source, content := l.source(12 << 20)
			before, _ := os.ReadFile(filepath.Join(l.server.Home, "to")) // of the last round
			for _, after := range []int64{5<<20 + rand.Int64N(6<<20), 200_000} {
				l.cut.Store(after)
				if _, err := l.put(source, "to"); err == nil || !strings.Contains(err.Error(), "closed the connection") {
					t.Fatalf("a cut: %v", err)
				}
			}
			if now, _ := os.ReadFile(filepath.Join(l.server.Home, "to")); !bytes.Equal(now, before) {
				t.Fatal("a file that was cut stands under its name")
			}
			l.cut.Store(0)
			result, err := l.put(source, "to")
			if err != nil || result.Resumed == 0 || result.Resumed%chunk != 0 {
				t.Errorf("%+v, %v", result, err)
			}
			l.has(content, "to")
		})
	}
}

// TestPutNeverGoesOnWithAnother: a source that changed begins anew.
func TestPutNeverGoesOnWithAnother(t *testing.T) {
	l := newLab(t, openSSH)
	source, content := l.source(6 << 20)
	l.cut.Store(5 << 20)
	if _, err := l.put(source, "to"); err == nil {
		t.Fatal("it was not cut")
	}
	l.cut.Store(0)
	content[0]++
	if err := os.WriteFile(source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(source, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	result, err := l.put(source, "to")
	if err != nil || result.Resumed != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if got, err := os.ReadFile(filepath.Join(l.server.Home, "to")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestPutWithoutPosixRename: with a policy the session has no extensions, and an
// older file is removed first.
func TestPutWithoutPosixRename(t *testing.T) {
	l := newLab(t, openSSH)
	l.policy.Store(uint32(sftpgw.AllowWrite | sftpgw.AllowRemove | sftpgw.AllowRename))
	for range 2 {
		source, content := l.source(100_000)
		if _, err := l.put(source, "to"); err != nil {
			t.Fatal(err)
		}
		l.has(content, "to")
	}
	l.policy.Store(uint32(sftpgw.AllowRead))
	source, _ := l.source(100_000)
	if _, err := l.put(source, "to"); err == nil || !strings.Contains(err.Error(), "permits no new file") {
		t.Error(err)
	}
}

func TestPutSaysWhatIsWrong(t *testing.T) {
	l := newLab(t, openSSH)
	source, _ := l.source(10)
	if _, err := l.put(source, "nowhere/to"); err == nil || err.Error() != "the server has no directory nowhere" {
		t.Error(err)
	}
	if _, err := l.put(filepath.Join(t.TempDir(), "nothing"), "to"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// No session: the gateway's own sentence.
	s, err := l.connect("nobody.example:22")
	if err == nil {
		_, err = s.IsDir("in")
	}
	if want := "no SFTP credential is named"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if s, err = l.connect("acme"); err != nil {
		t.Fatal(err)
	}
	source, _ = l.source(20 << 20)
	_, err = s.Put(ctx, File{Source: source, Target: "to", Progress: func(confirmed, _ int64) {
		if confirmed > 1<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || !s.Lost() {
		t.Errorf("interrupted: %v, lost %t", err, s.Lost())
	}
}
