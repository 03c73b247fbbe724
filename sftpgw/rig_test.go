package sftpgw

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/credstest"
)

// rig is a gateway with a listener, and names that lead to servers on loopback.
type rig struct {
	*Server
	port  uint16
	log   *lines
	dir   string // the publish folder
	table atomic.Pointer[creds.Table]
	hosts sync.Map // "host:port" of a credential -> address
}

// newRig starts a gateway. change, if not nil, is called before it is used.
func newRig(t *testing.T, change func(*rig)) *rig {
	t.Helper()
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{log: &lines{}, dir: t.TempDir()}
	r.table.Store(creds.NewTable(nil))
	metrics := NewMetrics(prometheus.NewRegistry())
	r.Server = &Server{
		Table: r.table.Load, Dial: r.dial, HostKey: key, Metrics: metrics,
		Log: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(r)
	}
	l := listen(t)
	r.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what a test left open is cut
		_ = r.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
		credstest.FindCanaries(t, []byte(r.log.String()))
	})
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial is the guard of a rig: it knows the hosts of the test alone.
func (r *rig) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	mapped, ok := r.hosts.Load(addr)
	if !ok {
		return nil, fmt.Errorf("the test has no server %s", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, mapped.(string))
}

// use makes these the credentials, and publishes their names.
func (r *rig) use(t *testing.T, credentials ...*creds.Credential) {
	t.Helper()
	for _, c := range credentials {
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	old := r.table.Swap(creds.NewTable(credentials))
	r.Metrics.Follow(old, r.table.Load())
	if err := Publish(r.dir, r.published()); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) published() Published {
	return Published{
		HostKey: r.HostKey.PublicKey(), Table: r.table.Load(),
		Listener: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.port),
	}
}

// credential is one for the server, under a host of its own.
func (r *rig) credential(s *credstest.SSHD, name, authority string) *creds.Credential {
	c := s.Credential(name)
	c.URL = "sftp://" + authority + "/"
	r.hosts.Store(authority, s.Addr)
	return c
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns the lines with that message when there are n of them.
func (l *lines) wait(t *testing.T, message string, n int) []map[string]any {
	t.Helper()
	var found []map[string]any
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		found = nil
		for line := range strings.Lines(l.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("a log line is not JSON: %s", line)
			}
			if fields["msg"] == message {
				found = append(found, fields)
			}
		}
		if len(found) >= n {
			return found
		}
	}
	t.Fatalf("not %d lines %q:\n%s", n, message, l.String())
	return nil
}
