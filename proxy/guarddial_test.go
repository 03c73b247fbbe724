package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestDialAny runs over fake connections in fake time.
func TestDialAny(t *testing.T) {
	const v6, v6b, v4, v4b = "[2001:db8::1]:443", "[2001:db8::2]:443", "192.0.2.1:443", "192.0.2.2:443"
	errRefused := errors.New("refused")
	for _, row := range []struct {
		name    string
		targets []string
		silent  []string // never answer
		refuse  []string // at once
		timeout time.Duration
		want    string // "" for an error
		after   time.Duration
	}{
		{name: "the first", targets: []string{v6, v4}, want: v6},
		{name: "the other family at once where the first refuses", targets: []string{v6, v4}, refuse: []string{v6}, want: v4},
		{name: "the other family beside a silent one", targets: []string{v6, v4}, silent: []string{v6}, want: v4, after: fallbackDelay},
		{name: "the next of one family", targets: []string{v4, v4b}, refuse: []string{v4}, want: v4b},
		{name: "a silent one leaves time for the next", targets: []string{v4, v4b}, silent: []string{v4}, timeout: 10 * time.Second, want: v4b, after: 5 * time.Second},
		{name: "all refuse", targets: []string{v6, v6b, v4}, refuse: []string{v6, v6b, v4}},
		{name: "all are silent", targets: []string{v6, v4}, silent: []string{v6, v4}, timeout: 10 * time.Second, after: 10 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var targets []netip.AddrPort
				for _, target := range row.targets {
					targets = append(targets, netip.MustParseAddrPort(target))
				}
				var opened []*fakeConn
				dial := func(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
					switch {
					case slices.Contains(row.silent, target.String()):
						<-ctx.Done()
						return nil, ctx.Err()
					case slices.Contains(row.refuse, target.String()):
						return nil, errRefused
					}
					conn := &fakeConn{target: target.String()}
					opened = append(opened, conn)
					return conn, nil
				}
				ctx := t.Context()
				if row.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.timeout)
					defer cancel()
				}
				start := time.Now()
				conn, err := dialAny(ctx, targets, 0, dial)
				if took := time.Since(start); took != row.after {
					t.Errorf("took %s, want %s", took, row.after)
				}
				synctest.Wait()
				if row.want == "" {
					if err == nil {
						t.Error("connected")
					}
					return
				}
				if err != nil || conn.(*fakeConn).target != row.want {
					t.Errorf("got %v, %v, want %s", conn, err, row.want)
				}
				for _, c := range opened {
					if c.closed == (c == conn) {
						t.Errorf("%s: closed %v", c.target, c.closed)
					}
				}
			})
		})
	}
	t.Run("a late connection is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			slow := &fakeConn{target: v6}
			conn, err := dialAny(t.Context(), []netip.AddrPort{netip.MustParseAddrPort(v6), netip.MustParseAddrPort(v4)}, 0,
				func(_ context.Context, target netip.AddrPort) (net.Conn, error) {
					if target.Addr().Is6() {
						time.Sleep(time.Second) // fake time
						return slow, nil
					}
					return &fakeConn{target: v4}, nil
				})
			if err != nil || conn.(*fakeConn).target != v4 {
				t.Fatalf("got %v, %v", conn, err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if !slow.closed {
				t.Error("the late one stays open")
			}
		})
	})
}

type fakeConn struct {
	net.Conn
	target string
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }
