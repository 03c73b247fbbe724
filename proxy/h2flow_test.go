package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"pillion/creds"
)

// pong reads until all that was sent before has been seen.
func (p *h2Peer) pong(e *h2Events) {
	before := e.pongs
	p.ping()
	p.readAs(e, false, func() bool { return e.pongs > before })
}

// Windows of answers: of a stream, of the connection, below 0, and at 0 for good.
func TestH2ClientWindows(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		p := r.peer(t)
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
		var e h2Events
		p.get(1, ":path: /bytes/100/1")
		p.readAs(&e, false, func() bool { return len(e.of(1).body) >= 3 })
		p.frame(http2.FrameSettings, 0, 0, setting(4, 0)) // the window is now -3
		p.frame(http2.FrameWindowUpdate, 0, 1, u32(3))
		p.pong(&e)
		if n := len(e.of(1).body); n != 3 {
			t.Errorf("%d bytes by a window of 3", n)
		}
		p.frame(http2.FrameWindowUpdate, 0, 1, u32(1))
		p.readAs(&e, false, func() bool { return len(e.of(1).body) > 3 })
		if n := len(e.of(1).body); n != 4 {
			t.Errorf("%d bytes by a window of 4", n)
		}
		p.frame(http2.FrameSettings, 0, 0, setting(4, 50))
		p.readAs(&e, false, func() bool { return len(e.of(1).body) >= 54 })
		p.pong(&e)
		if n := len(e.of(1).body); n != 54 {
			t.Errorf("%d bytes by a window of 54", n)
		}
		p.frame(http2.FrameSettings, 0, 0, setting(4, 1<<20))
		p.readAs(&e, false, func() bool { return e.of(1).ended })
		if !bytes.Equal(e.of(1).body, pattern(1, 100)) {
			t.Errorf("%q", e.of(1).body)
		}
		// 100 bytes are gone of 65,535; 50 streams share the rest.
		for id := uint32(3); id < 103; id += 2 {
			p.get(id, fmt.Sprintf(":path: /bytes/5000/%d", id))
		}
		total := func() (n int) {
			for _, a := range e.streams {
				n += len(a.body)
			}
			return n
		}
		p.readAs(&e, false, func() bool { return total() >= 65_535 })
		p.pong(&e)
		if total() != 65_535 {
			t.Errorf("%d bytes by a connection's window of 65,535", total())
		}
		p.frame(http2.FrameRSTStream, 0, 101, u32(8)) // whose share, if any, is lost
		p.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<20))
		for id := uint32(3); id < 101; id += 2 {
			p.readAs(&e, false, func() bool { return e.of(id).ended || e.of(id).reset != "" })
			if a := e.of(id); !bytes.Equal(a.body, pattern(int(id), 5000)) {
				t.Errorf("stream %d: %v, %d bytes", id, a, len(a.body))
			}
		}
		// A window of 0, and then the end of patience.
		p.frame(http2.FrameSettings, 0, 0, setting(4, 0))
		p.get(201, ":path: /bytes/5000/1")
		p.pong(&e)
		p.frame(http2.FrameRSTStream, 0, 201, u32(8))
		if a := p.ask(203, ":path: /status/200/0"); a.status != 200 {
			t.Errorf("behind that: %v", a)
		}
	}, patient)
}

// waiting is an Authorizer that takes its time, so that nobody reads a body.
type waiting struct{ Authorizer }

func (waiting) Authorize(ctx context.Context, _ *creds.Credential) (*creds.Authorization, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A client that sends more than our windows take is stopped: a stream of 256 KiB, a
// connection of 1 MiB.
func TestH2OurWindows(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		for _, row := range []struct {
			streams, frames int // of 16 KiB each
			want            string
		}{
			{1, 16, "ok"}, {1, 17, rstFlow}, {5, 12, "ok"}, {6, 12, goFlow},
		} {
			p := r.peer(t)
			p.greet()
			for n := range row.streams {
				p.post(uint32(1 + 2*n))
				for range row.frames {
					p.data(uint32(1+2*n), false, nuls(16384))
				}
			}
			p.ping()
			var e h2Events
			p.readAs(&e, false, func() bool {
				if e.pongs > 0 && row.want == "ok" {
					e.say("ok")
				}
				return e.first != ""
			})
			if e.first != row.want && !(row.want == goFlow && (e.first == "closed" || e.first == rstFlow)) { // wiped out, or as net/http does
				t.Errorf("%d streams of %d frames: %s, want %s", row.streams, row.frames, e.first, row.want)
			}
			_ = p.conn.Close()
		}
	}, patient, func(s *Server, _ *Config) { s.Authorizer = waiting{} })
}

// Answers to frames that a client does not read do not pile up.
func TestH2Unread(t *testing.T) {
	t.Parallel()
	fast, _ := engineRigs(t, patient)
	for name, flood := range map[string]func(p *h2Peer, n int){
		"PING":     func(p *h2Peer, _ int) { p.ping() },
		"SETTINGS": func(p *h2Peer, _ int) { p.frame(http2.FrameSettings, 0, 0, "") },
		"malformed HEADERS": func(p *h2Peer, n int) {
			p.frame(http2.FrameHeaders, h2Whole|h2End, uint32(1001+2*n), "\x82")
		},
		"DATA of closed streams": func(p *h2Peer, n int) { p.frame(http2.FrameData, 0, uint32(1+2*(n%100)), "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := fast.peer(t)
			_ = p.conn.SetDeadline(time.Now().Add(4 * h2Patience))
			p.greet()
			p.get(999)
			p.answer(999)
			n := 0
			for p.err == nil && n < 10_000_000 {
				var b writeOnly
				for s := onPaper(&b); b.Len() < 60_000; n++ {
					flood(s, n)
				}
				p.bytes(b.String())
			}
			if ne, ok := p.err.(net.Error); p.err == nil || ok && ne.Timeout() {
				t.Errorf("%d frames, and nobody minds: %v", n, p.err)
			}
		})
	}
}

// The heads of many answers may be large, and a client slow, and yet it may say what it
// likes meanwhile.
func TestH2LargeHeads(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		p := r.peer(t)
		p.greet()
		const streams = 60
		for id := uint32(1); id < 2*streams; id += 2 {
			p.get(id, ":path: /head/40000")
		}
		eventually(t, "the tool has answered", func() bool { return len(r.origin.requests()) >= streams/2 })
		for range 100 {
			p.ping()
			time.Sleep(time.Millisecond) // the pace of a client that is not in a hurry
		}
		var e h2Events
		for id := uint32(1); id < 2*streams; id += 2 {
			p.read(&e, func() bool { return e.of(id).ended || e.first != "" })
			if a := e.of(id); string(a.body) != "hello" || len(a.header.Get("X-Large")) != 40000 {
				t.Fatalf("stream %d: %v, %s %s", id, a, e.first, e.goAway)
			}
		}
	}, patient)
}

// A client that does not read is cut, and so is its request at the tool; one that does
// not send its body is told.
func TestH2Stalls(t *testing.T) {
	t.Parallel()
	fast, _ := engineRigs(t) // a stall is 400 ms
	tool := newH2Tool()
	fast.origin.handle(tool.serve)
	t.Run("an upload", func(t *testing.T) {
		p := fast.peer(t)
		p.greet()
		p.post(1, ":path: /hold/upload")
		p.data(1, false, "part")
		if a := p.answer(1); a.status != 400 || !strings.Contains(string(a.body), "did not arrive in time") {
			t.Errorf("%v %s", a, a.body)
		}
		<-tool.held
		<-tool.left
	})
	t.Run("a window of 0", func(t *testing.T) {
		p := fast.peer(t)
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.get(1, ":path: /amid")
		select {
		case <-tool.left:
		case <-time.After(h2Patience):
			t.Error("the tool's request goes on")
		}
	})
	t.Run("a connection that is not read", func(t *testing.T) {
		p := fast.peer(t)
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		p.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<30))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for id := uint32(1); id < 100; id += 2 {
			p.get(id, ":path: /endless")
		}
		eventually(t, "the requests end", func() bool {
			return tool.endless.Load() > 0 && fast.metric("pillion_requests_in_flight", "", "") == 0
		})
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 100<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
	for name, begin := range map[string]func(*h2Peer){
		"a head without an end":                   func(*h2Peer) {},
		"a head without an end, beside a request": func(p *h2Peer) { p.get(1, ":path: /hold/head"); <-tool.held },
	} {
		t.Run(name, func(t *testing.T) {
			p := fast.peer(t)
			p.greet()
			begin(p)
			var e h2Events
			p.pong(&e) // settings are acknowledged: nothing may come amid a head
			p.frame(http2.FrameHeaders, h2End, 3, h2Static)
			p.read(&e, func() bool { return e.closed })
			if e.hung || e.goAway != http2.ErrCodeNo.String() {
				t.Errorf("it hangs %v, GOAWAY %q", e.hung, e.goAway)
			}
		})
	}
	t.Run("no preface", func(t *testing.T) {
		p := fast.peer(t)
		p.bytes(http2.ClientPreface[:10])
		var e h2Events
		p.read(&e, func() bool { return e.closed })
		if e.hung {
			t.Error("it hangs")
		}
	})
}

// A client whose heads all end in time is not cut, even if each packet of it brings the
// end of one and the beginning of the next.
func TestH2HeadsAcrossPackets(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *Server, _ *Config) { s.timeouts = timeouts{head: 1500 * time.Millisecond, stall: time.Minute} })
	tool := newH2Tool()
	r.origin.handle(tool.serve)
	p := r.peer(t)
	p.greet()
	p.get(1, ":path: /hold/heads")
	<-tool.held
	p.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<30))
	var e h2Events
	p.pong(&e) // settings are acknowledged: nothing may come amid a head
	var b writeOnly
	paper := onPaper(&b)
	begin := time.Now()
	for id := uint32(3); time.Since(begin) < 2*r.server.timeouts.head+200*time.Millisecond; id += 2 {
		paper.frame(http2.FrameHeaders, h2Whole|h2End, id, h2Static)
		p.bytes(string(b.Next(b.Len() - (frameHeader+len(h2Static))/2)))
		if id > 3 {
			if p.readAs(&e, false, func() bool { return e.closed || e.of(id-2).ended || e.of(id-2).reset != "" }); e.of(id-2).status != 200 {
				t.Fatalf("after %s: %s, %s", time.Since(begin), e.of(id-2), e.first)
			}
			r.entry()
		}
	}
}

// Frames may come in any pieces, and many at once.
func TestH2Splits(t *testing.T) {
	t.Parallel()
	fast, _ := engineRigs(t, patient)
	fast.origin.handle(newH2Tool().serve)
	var b writeOnly
	s := onPaper(&b)
	s.greet()
	s.get(1)
	s.post(3, ":path: /seen", "cookie: a=b", "x-long: "+strings.Repeat("v", 100))
	s.data(3, false, "hello ")
	s.data(3, true, "world")
	s.inPieces(5, true, 7, s.fields(with(":path: /bytes/10/5")...))
	s.post(7, ":path: /seen", "trailer: x-t")
	s.frame(http2.FrameHeaders, h2Whole|h2End, 7, s.fields("x-t: 1"))
	session := bytes.Clone(b.Bytes())
	var cuts [][]byte
	for n := range min(len(session), 250) {
		cuts = append(cuts, []byte{byte(n), 255, 255, 255, 255})
	}
	for size := range 12 {
		cuts = append(cuts, []byte{byte(size)})
	}
	inParallel(len(cuts), func(n int) {
		p := fast.peer(t)
		p.pieces(session, cuts[n])
		var e h2Events
		p.read(&e, func() bool { return e.of(1).ended && e.of(3).ended && e.of(5).ended && e.of(7).ended || e.first != "" })
		got := fmt.Sprintf("%s|%s|%x|%s", e.of(1).body, e.of(3).body, e.of(5).body, e.of(7).body)
		if want := fmt.Sprintf("hello from the tool|hello world|[a=b]|map[]|%x||[]|map[X-T:[1]]", pattern(5, 10)); got != want {
			t.Errorf("cut by %v: %s, %s %s", cuts[n], got, e.first, e.goAway)
		}
	})
}
