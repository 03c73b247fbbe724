package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"pillion/creds"
)

func quick(s *Server, _ *Config) {
	s.timeouts = timeouts{head: 400 * time.Millisecond, stall: 400 * time.Millisecond, handshake: time.Second}
}

// Case 53: clients that are slow, large or many.
func TestAttackSlowClients(t *testing.T) {
	r := newRig(t, quick)
	for _, way := range []string{tunnelH1, plain} {
		open, prefix := (*rig).toTool, ""
		if way == plain {
			open, prefix = (*rig).dial, "http://tool.example"
		}
		t.Run("53 a slow header, "+way, func(t *testing.T) {
			r.use(t)
			w := open(r)
			r.refuses(kindBadRequest, func() *http.Response { return w.ask("GET " + prefix + "/ HTTP/1.1\r\nHost: tool.exam") })
			w.closed()
		})
		t.Run("53 a slow header behind a request that was served, "+way, func(t *testing.T) {
			r.use(t)
			w := open(r)
			r.passes(func() *http.Response { return w.ask("GET " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
			r.refuses(kindBadRequest, func() *http.Response { return w.ask("G") })
			w.closed()
		})
		t.Run("53 a header that drips, "+way, func(t *testing.T) {
			r.use(t)
			w := open(r)
			done := make(chan struct{})
			go func() {
				defer close(done)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				_, err := io.WriteString(w.conn, "GET "+prefix+"/ HTTP/1.1\r\nHost: tool.example\r\n")
				for err == nil { // each byte in time, the whole never
					<-tick.C
					_, err = io.WriteString(w.conn, "X-A: b\r\n")
				}
			}()
			checkProblem(t, w.response("GET"), kindBadRequest)
			r.entry()
			<-done
		})
		for name, framing := range map[string]string{"length": "Content-Length: 100", "chunks": "Transfer-Encoding: chunked"} {
			t.Run("53 a slow body by "+name+", "+way, func(t *testing.T) {
				r.use(t)
				broken := make(chan error, 1)
				r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
					_, err := io.Copy(io.Discard, req.Body)
					broken <- err
				})
				defer r.origin.handle(nil)
				w := open(r)
				checkProblem(t, w.ask("POST "+prefix+"/ HTTP/1.1\r\nHost: tool.example\r\n"+framing+"\r\n\r\n5\r\nhello\r\n"), kindBadRequest)
				w.closed()
				if e := r.entry(); e.Error != "bad-request" || !strings.Contains(e.Detail, "in time") {
					t.Errorf("the log says %+v", e)
				}
				if err := <-broken; err == nil {
					t.Error("the tool took the body for complete")
				}
			})
		}
		t.Run("53 a client that reads no answer, "+way, func(t *testing.T) {
			r.use(t)
			r.origin.handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, zeros{}) })
			defer r.origin.handle(nil)
			w := open(r)
			w.send("GET " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\n\r\n")
			if e := r.entry(); e.Error != "client-gone" || e.Status != 200 {
				t.Errorf("the log says %+v", e)
			}
		})
	}
	t.Run("53 a slow handshake in a tunnel", func(t *testing.T) {
		r.use(t)
		for _, first := range []string{"", "\x16", "\x16\x03\x01"} {
			w := r.dial()
			if resp := w.ask("CONNECT tool.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			w.send(first)
			w.closed()
			if first != "" {
				r.entry()
			}
		}
		eventually(t, "the tunnels are counted out", func() bool { return r.metric("pillion_tunnels_open", "", "") == 0 })
	})
	t.Run("53 an idle connection ends without a word", func(t *testing.T) {
		r.use(t)
		w := r.dial() // net/http's limit of the first header is our head time-out
		w.closed()
		if n := len(r.entries); n != 0 {
			t.Errorf("%d log entries", n)
		}
	})
}

// Case 53: what is too large.
func TestAttackLargeHeads(t *testing.T) {
	r := newRig(t)
	for _, way := range []string{tunnelH1, plain} {
		open, prefix := (*rig).toTool, ""
		if way == plain {
			open, prefix = (*rig).dial, "http://tool.example"
		}
		for name, part := range map[string]string{
			"one field":   "X-A: " + strings.Repeat("a", 32<<20),
			"many fields": strings.Repeat("X-A: "+strings.Repeat("a", 100)+"\r\n", 300_000),
			"no colon":    strings.Repeat("a", 32<<20),
		} {
			t.Run("53 a 32 MiB header, "+name+", "+way, func(t *testing.T) {
				r.use(t)
				w := open(r)
				go func() { _, _ = io.WriteString(w.conn, "GET "+prefix+"/ HTTP/1.1\r\nHost: tool.example\r\n"+part) }()
				r.refuses(kindHeadTooLarge, func() *http.Response { return w.response("GET") })
			})
		}
		t.Run("53 a 32 MiB request line, "+way, func(t *testing.T) {
			r.use(t)
			w := open(r)
			go func() { _, _ = io.WriteString(w.conn, "GET "+prefix+"/"+strings.Repeat("a", 32<<20)) }()
			r.refuses(kindHeadTooLarge, func() *http.Response { return w.response("GET") })
		})
		t.Run("53 a header of just under 64 KiB passes, "+way, func(t *testing.T) {
			r.use(t)
			w := open(r)
			text := "GET " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nX-A: "
			text += strings.Repeat("a", maxHead-len(text)-4) + "\r\n\r\n"
			r.passes(func() *http.Response { return w.ask(text) })
			w = open(r)
			r.refuses(kindHeadTooLarge, func() *http.Response { return w.ask(strings.Replace(text, "X-A", "X-AA", 1)) })
		})
	}
	t.Run("53 a large header, "+tunnelH2, func(t *testing.T) {
		r.use(t)
		w := r.http2("tool.example:443", "tool.example")
		var fields []string
		for range 20 {
			fields = append(fields, "x-a: "+strings.Repeat("a", 15<<10))
		}
		w.hpack.SetMaxDynamicTableSize(0)
		id := uint32(1)
		block := w.fields(append([]string{":method: GET", ":scheme: https", ":authority: tool.example", ":path: /"}, fields...))
		go func() {
			f := http2.NewFramer(w.conn, nil)
			first := true
			for len(block) > 0 {
				n := min(len(block), 16<<10)
				if first {
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: true, EndHeaders: n == len(block)})
				} else {
					_ = f.WriteContinuation(id, n == len(block), block[:n])
				}
				block, first = block[n:], false
			}
		}()
		resp := w.answer(id)
		if resp.StatusCode != 431 && resp.StatusCode != resetStatus {
			t.Errorf("status %d", resp.StatusCode)
		}
		if n := len(r.entries); n != 0 {
			t.Errorf("%d log entries", n)
		}
	})
	t.Run("53b requests without a pause do not keep what was read", func(t *testing.T) {
		// Heads of 100 bytes, in pieces that end amid one.
		head := "GET / HTTP/1.1\r\nHost: tool.example\r\nX-A: "
		head += strings.Repeat("a", 100-len(head)-4) + "\r\n\r\n"
		g := &gate{Conn: &endless{text: head}, times: &timeouts{}, refuse: func(_ *gate, err error) { t.Error(err) }}
		p := make([]byte, 64)
		largest := 0
		for range 1 << 18 {
			if _, err := g.Read(p); err != nil {
				t.Fatal(err)
			}
			largest = max(largest, cap(g.buf))
		}
		if largest > 16<<10 {
			t.Errorf("the buffer grew to %d bytes", largest)
		}
	})
}

// endless is a connection on which text comes for ever.
type endless struct {
	net.Conn
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[e.at%len(e.text)]
		e.at++
	}
	return len(p), nil
}

func (*endless) SetReadDeadline(time.Time) error { return nil }

// panicky is an Authorizer with a fault.
type panicky struct{}

func (panicky) Authorize(context.Context, *creds.Credential) (*creds.Authorization, error) {
	panic(errors.New("canary-panic " + toolToken))
}

func (panicky) Refused(context.Context, *creds.Credential, string) (*creds.Authorization, error) {
	panic("canary-panic")
}

func TestAttackPanic(t *testing.T) {
	ask := map[string]func(r *rig) *http.Response{
		tunnelH1: func(r *rig) *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") },
		tunnelH2: func(r *rig) *http.Response {
			w := r.http2("tool.example:443", "tool.example")
			return w.answer(w.get())
		},
		plain: func(r *rig) *http.Response {
			return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
		},
	}
	for way, ask := range ask {
		t.Run("53 a panic in a handler, "+way, func(t *testing.T) {
			var on sync.Map
			r := newRig(t, func(s *Server, _ *Config) { s.Authorizer = switched{s.Authorizer, &on} })
			on.Store("panic", true)
			r.refuses(kindInternal, func() *http.Response { return ask(r) })
			on.Delete("panic")
			r.passes(func() *http.Response { return ask(r) }) // the process goes on
			text := r.logText.String()
			if strings.Contains(text, "canary-panic") || strings.Contains(text, toolToken) {
				t.Error("the log quotes the panic's value")
			}
			if !strings.Contains(text, "attack_limit_test.go") {
				t.Error("the log does not say where it was")
			}
			if n := strings.Count(text, `"msg":"request"`); n != 2 {
				t.Errorf("%d request lines for 2 requests", n)
			}
			if n := r.metric("pillion_requests_in_flight", "", ""); n != 0 {
				t.Errorf("%v requests are still counted as under way", n)
			}
		})
	}
}

// switched panics while it is told to.
type switched struct {
	Authorizer
	on *sync.Map
}

func (s switched) Authorize(ctx context.Context, c *creds.Credential) (*creds.Authorization, error) {
	if _, on := s.on.Load("panic"); on {
		return panicky{}.Authorize(ctx, c)
	}
	return s.Authorizer.Authorize(ctx, c)
}

func TestAttackManyConnections(t *testing.T) {
	t.Run("53 a cap on tunnels", func(t *testing.T) {
		r := newRig(t, func(s *Server, _ *Config) { s.MaxTunnels = 2 })
		first, _ := r.toTool(), r.toTool()
		w := r.dial()
		r.refuses(kindOverloaded, func() *http.Response { return w.ask("CONNECT tool.example:443 HTTP/1.1\r\nHost: x\r\n\r\n") })
		w.closed()
		r.passes(func() *http.Response { return first.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		_ = first.conn.Close()
		eventually(t, "the tunnel is counted out", func() bool { return r.metric("pillion_tunnels_open", "", "") == 1 })
		third := r.toTool()
		r.passes(func() *http.Response { return third.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
	})
	t.Run("53a HTTP/2 rapid reset", func(t *testing.T) {
		r := newRig(t, func(s *Server, _ *Config) { s.OnEntry = nil })
		r.origin.handle(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		w := r.http2("tool.example:443", "tool.example")
		go func() {
			for {
				if _, err := w.framer.ReadFrame(); err != nil {
					return
				}
			}
		}()
		before := runtime.NumGoroutine()
		most := 0
		for n := range 2000 {
			w.stream += 2
			id := w.stream - 1
			block := bytes.Clone(w.fields([]string{":method: GET", ":scheme: https", ":authority: tool.example", ":path: /"}))
			err := w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
			if err == nil {
				err = w.framer.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			if err != nil {
				break // net/http has had enough
			}
			if n%100 == 0 {
				most = max(most, runtime.NumGoroutine())
			}
		}
		if most > before+2000 {
			t.Errorf("%d goroutines", most)
		}
		_ = w.conn.Close()
		defer func() {
			if t.Failed() {
				t.Logf("%d requests and %v tunnels are under way", r.server.InFlight(), r.metric("pillion_tunnels_open", "", ""))
			}
		}()
		eventually(t, "nothing is under way", func() bool {
			return r.server.InFlight() == 0 && r.metric("pillion_tunnels_open", "", "") == 0
		})
		r.origin.handle(nil)
		if resp := r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	t.Run("53c no goroutine stays behind", func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			select {
			case <-release:
			case <-req.Context().Done():
			}
		})
		r.server.config.Load().closeIdle()
		before := runtime.NumGoroutine()
		for n := range 40 {
			conns := []string{
				"GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n",                                                                   // waits for the tool
				"POST / HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 100\r\n\r\nhello",                                      // amid an upload
				"POST / HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",                            // amid a chunk
				"GET / HTTP/1.1\r\nHost: tool.example\r\n\r\nGET / HTTP/1.1\r\nHost: tool.ex",                                    // amid the next header
				"GET / HTTP/1.1\r\nHost: tool.example\r\nHost: x\r\n\r\n",                                                        // refused
				"GET / HTTP/1.1\r\nHost: tool.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes that come early", // a WebSocket that is not answered
				"GE", "", "\x00",
			}
			w := r.toTool()
			w.send(conns[n%len(conns)])
			_ = w.conn.(*tls.Conn).NetConn().Close()
			p := r.dial()
			p.send(strings.Replace(conns[n%len(conns)], " / ", " http://tool.example/ ", 1))
			_ = p.conn.Close()
		}
		w := r.http2("tool.example:443", "tool.example")
		for range 20 {
			w.get()
		}
		_ = w.conn.Close()
		close(release)
		eventually(t, fmt.Sprintf("about %d goroutines, as before", before), func() bool {
			for len(r.entries) > 0 {
				<-r.entries
			}
			r.server.config.Load().closeIdle()
			return runtime.NumGoroutine() <= before+3 && r.server.InFlight() == 0
		})
		if n := r.metric("pillion_tunnels_open", "", ""); n != 0 {
			t.Errorf("%v tunnels are still counted", n)
		}
	})
}
