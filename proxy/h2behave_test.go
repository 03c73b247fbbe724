package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// h2Client is net/http's client, over HTTP/2.
func (r *rig) h2Client(t *testing.T) *http.Client {
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}),
		TLSClientConfig: &tls.Config{RootCAs: r.roots}, DisableCompression: true, Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (p *h2Peer) ask(id uint32, fields ...string) *h2Answer {
	p.get(id, fields...)
	return p.answer(id)
}

// Bodies of all sizes arrive whole, whatever the windows.
func TestH2Sizes(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 4095, 4096, 16366, 16375, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20}
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		for _, window := range []uint32{1, 1000, 65535, 1 << 30} {
			p := r.peer(t)
			p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
			id := uint32(1)
			for _, kind := range []string{"bytes", "chunked"} {
				for _, size := range sizes {
					if size > int(window)*100 { // each window is a frame, and one back
						continue
					}
					a := p.ask(id, fmt.Sprintf(":path: /%s/%d/%d", kind, size, id))
					if a.status != 200 || a.reset != "" || !bytes.Equal(a.body, pattern(int(id), size)) {
						t.Fatalf("%s of %d bytes by a window of %d: %v, %d bytes", kind, size, window, a, len(a.body))
					}
					if got, want := a.header.Get("Content-Length"), fmt.Sprint(size); kind == "bytes" && got != want {
						t.Errorf("%d bytes have a Content-Length of %s", size, got)
					}
					id += 2
				}
			}
		}
		client := r.h2Client(t)
		for _, size := range append(sizes, 20<<20) {
			for _, length := range []int64{-1, int64(size)} {
				b := pattern(size, size)
				req, _ := http.NewRequest("POST", "https://tool.example/sum", io.NopCloser(bytes.NewReader(b)))
				req.ContentLength = length
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if want := fmt.Sprintf("%d %x <nil>", size, sha256.Sum256(b)); !strings.HasPrefix(string(got), want) || resp.ProtoMajor != 2 {
					t.Errorf("%s: the tool got %s, want %s", resp.Proto, got, want)
				}
			}
		}
		resp, err := client.Get(fmt.Sprintf("https://tool.example/bytes/%d/7", 20<<20))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, pattern(7, 20<<20)) {
			t.Errorf("20 MiB down: %d bytes, %v", len(got), err)
		}
	}, patient)
}

// What tools answer besides a body.
func TestH2Answers(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, tool *h2Tool) {
		p := r.peer(t)
		p.greet()
		if a := p.ask(1, ":path: /hints"); len(a.early) != 1 || a.early[0] != 103 || string(a.body) != "after hints" {
			t.Errorf("103: %v %v %q", a, a.early, a.body)
		}
		for announced := range 2 {
			if a := p.ask(uint32(3+2*announced), fmt.Sprintf(":path: /trailers/%d", announced)); a.trailer.Get("X-Sum") != "42" || string(a.body) != "body" {
				t.Errorf("trailers, announced %d: %v %q %v", announced, a, a.body, a.trailer)
			}
		}
		id := uint32(101)
		for _, row := range []struct{ method, path, status, length string }{
			{"HEAD", "/bytes/1000/1", "200", "1000"}, {"HEAD", "/chunked/10/1", "200", ""},
			{"GET", "/status/204", "204", ""}, {"GET", "/status/304", "304", ""}, {"HEAD", "/status/304", "304", ""}, {"GET", "/status/200/0", "200", "0"}, {"POST", "/status/404", "404", "0"},
		} {
			a := p.ask(id, ":method: "+row.method, ":path: "+row.path)
			if a.String() != row.status || len(a.body) != 0 || a.header.Get("Content-Length") != row.length {
				t.Errorf("%s %s: %v, %q, %v", row.method, row.path, a, a.body, a.header)
			}
			id += 2
		}
		if a := p.ask(201, ":path: /seen", "cookie: a=b", "cookie: c=d"); string(a.body) != "|[a=b; c=d]|map[]" {
			t.Errorf("cookies: %s", a.body)
		}
		p.post(203, ":path: /seen", "trailer: x-sum")
		p.data(203, false, "body")
		p.frame(http2.FrameHeaders, h2Whole|h2End, 203, p.fields("x-sum: 42", "x-other: 1"))
		if a := p.answer(203); string(a.body) != "body|[]|map[X-Sum:[42]]" {
			t.Errorf("trailers of a request: %s", a.body)
		}
		p.post(205, ":path: /seen", "expect: 100-continue")
		var e h2Events
		p.read(&e, func() bool { return len(e.of(205).early) > 0 || e.of(205).ended })
		p.data(205, true, "body")
		if a := p.answer(205); len(e.of(205).early) != 1 || e.of(205).early[0] != 100 || string(a.body) != "body|[]|map[]" {
			t.Errorf("100-continue: %v, %s", e.of(205).early, a.body)
		}
		if a := p.ask(207, ":path: /break"); a.ended || a.reset == "" {
			t.Errorf("an answer that breaks off: %v", a)
		}
		p.get(209, ":path: /events")
		var events h2Events
		for _, want := range []string{"one", "onetwo"} {
			p.read(&events, func() bool { return len(events.of(209).body) >= len(want) })
			if got := events.of(209); string(got.body) != want || got.ended {
				t.Errorf("at once: %q", got.body)
			}
			tool.on <- struct{}{}
		}
		if a := p.answer(209); string(a.body) != "end" {
			t.Errorf("then: %q", a.body)
		}
		p.post(211, ":path: /early")
		p.data(211, false, "a beginning")
		p.read(&e, func() bool { return e.of(211).reset != "" || e.closed })
		if a := e.of(211); !a.ended || a.status != 413 || string(a.body) != "too large" || a.reset != "NO_ERROR" {
			t.Errorf("an early answer: %v %q, reset %q", a, a.body, a.reset)
		}
		if a := p.ask(213); a.status != 200 { // the connection is as good as before
			t.Errorf("behind all of that: %v", a)
		}
	}, patient)
}

// A client that gives up a request ends it at the tool.
func TestH2Cancel(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, tool *h2Tool) {
		p := r.peer(t)
		p.greet()
		p.get(1, ":path: /hold/asked")
		p.post(3, ":path: /hold/upload", "content-length: 100")
		p.data(3, false, "part")
		p.get(5, ":path: /amid")
		for range 3 {
			<-tool.held
		}
		for id := uint32(1); id < 6; id += 2 {
			p.frame(http2.FrameRSTStream, 0, id, u32(8))
		}
		for range 3 {
			select {
			case <-tool.left:
			case <-time.After(h2Patience):
				t.Fatal("the tool is still at work")
			}
		}
		if a := p.ask(7); a.status != 200 {
			t.Errorf("behind that: %v", a)
		}
		p.get(9, ":path: /hold/left")
		<-tool.held
		_ = p.conn.Close()
		select {
		case <-tool.left:
		case <-time.After(h2Patience):
			t.Fatal("the client has left, and the tool is still at work")
		}
	}, patient)
}

// Many streams at once do not mix up.
func TestH2ManyStreams(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("PILLION_SOAK") != "" {
		rounds = 200
	}
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		client := r.h2Client(t)
		for round := range rounds {
			inParallelN(250, 250, func(n int) {
				seed := round*1000 + n
				dice := rand.New(rand.NewPCG(uint64(seed), 2))
				size := dice.IntN(1 << (3 + dice.IntN(15)))
				if n%3 > 0 {
					resp, err := client.Get(fmt.Sprintf("https://tool.example/%s/%d/%d", []string{"bytes", "chunked"}[n%2], size, seed))
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, pattern(seed, size)) {
						t.Errorf("%d: %d bytes of %d, %v", n, len(b), size, err)
					}
					return
				}
				b := pattern(seed, size)
				resp, err := client.Post("https://tool.example/sum", "x/y", bytes.NewReader(b))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if got, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(got), fmt.Sprintf("%d %x <nil>", size, sha256.Sum256(b))) {
					t.Errorf("%d: the tool got %s, %v", n, got, err)
				}
			})
		}
	}, patient)
}

// inParallelN is inParallel by so many.
func inParallelN(n, workers int, f func(int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range workers {
		all.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// A client that has as many streams open as it may, and opens another for each that
// ends, is never refused.
func TestH2FullHouse(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		p := r.peer(t)
		p.greet()
		next := uint32(1)
		for ; next < 2*h2MaxStreams; next += 2 {
			p.get(next)
		}
		ended := map[uint32]bool{}
		var e h2Events
		p.read(&e, func() bool {
			for id, a := range e.streams {
				if a.reset != "" {
					t.Errorf("stream %d: %v", id, a)
				}
				if a.ended && !ended[id] {
					ended[id] = true
					if next < 2000 {
						p.get(next)
						next += 2
					}
				}
				if a.ended {
					delete(e.streams, id)
				}
			}
			return len(ended) == 1000 || t.Failed()
		})
		if len(ended) != 1000 {
			t.Errorf("%d answers of 1000: %s", len(ended), e.first)
		}
	}, patient)
}

// Small answers that follow each other without a pause leave a large one its turn.
func TestH2Fairness(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, _ *h2Tool) {
		client := r.h2Client(t)
		ctx, stop := context.WithCancel(context.Background())
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		for range 100 {
			all.Go(func() {
				for ctx.Err() == nil {
					if resp, err := client.Get("https://tool.example/bytes/100/1"); err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
				}
			})
		}
		begin := time.Now()
		resp, err := client.Get("https://tool.example/bytes/5000000/1")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		t.Logf("%d bytes in %v", n, time.Since(begin))
		if n != 5_000_000 || time.Since(begin) > h2Patience {
			t.Errorf("%d bytes in %v: %v", n, time.Since(begin), err)
		}
	}, patient)
}

// Shutdown lets requests end that are under way, and tells the client to begin no more.
func TestH2Shutdown(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, r *rig, tool *h2Tool) {
		p := r.peer(t)
		p.greet()
		p.get(1, ":path: /events")
		var e h2Events
		p.read(&e, func() bool { return len(e.of(1).body) >= 3 })
		done := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), h2Patience)
			defer cancel()
			done <- r.server.Shutdown(ctx)
		}()
		p.read(&e, func() bool { return e.goAway != "" })
		if e.goAway != "NO_ERROR" {
			t.Errorf("GOAWAY %q while a request is under way", e.goAway)
		}
		tool.on <- struct{}{}
		tool.on <- struct{}{}
		p.read(&e, func() bool { return e.closed })
		if a := e.of(1); a.status != 200 || string(a.body) != "onetwoend" || !a.ended {
			t.Errorf("it ended with %v, %q", a, a.body)
		}
		if err := <-done; err != nil || e.hung {
			t.Errorf("Shutdown: %v, hung %v", err, e.hung)
		}
	}, patient)
}

// GOAWAY of a client ends the connection with its last stream.
func TestH2ClientGoesAway(t *testing.T) {
	t.Parallel()
	fast, _ := engineRigs(t, patient)
	p := fast.peer(t)
	p.greet()
	p.post(1)
	p.note(p.fr.WriteGoAway(0, http2.ErrCodeNo, nil))
	p.data(1, true, "x")
	var e h2Events
	p.read(&e, func() bool { return e.closed })
	if a := e.of(1); a.status != 200 || !a.ended || e.hung {
		t.Errorf("%v, hung: %v", a, e.hung)
	}
}

// proxy.fast: off, in the middle of a connection, takes the next requests elsewhere.
func TestH2Reload(t *testing.T) {
	t.Parallel()
	fast, _ := engineRigs(t, patient)
	p := fast.peer(t)
	p.greet()
	p.get(1, ":path: /")
	if a := p.answer(1); a.status != 200 {
		t.Fatal(a)
	}
	config := fast.server.config.Load().Config
	config.Fast = false
	fast.server.Configure(config)
	if a := p.ask(3); a.status != 200 || string(a.body) != "hello from the tool" {
		t.Errorf("%v %q", a, a.body)
	}
}
