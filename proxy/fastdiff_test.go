package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// told is a request as the tool saw it, or an answer as the client did: all that
// must not depend on the engine.
type told struct {
	Line, Host, Body string
	Fields, Trailers []string
	Err              string
}

func tell(line, host string, h http.Header, body io.Reader, trailer *http.Header) told {
	b, err := io.ReadAll(body)
	d := told{Line: line, Host: host, Body: string(b), Fields: sortedFields(h), Trailers: sortedFields(*trailer)}
	if err != nil {
		d.Err, d.Body = "cut", "" // how much of it came is a matter of time
	}
	return d
}

func sortedFields(h http.Header) []string {
	var all []string
	for name, values := range h {
		if name == "Date" { // of problem documents: the second may change between two engines
			continue
		}
		for _, v := range values {
			all = append(all, name+": "+v)
		}
	}
	slices.Sort(all)
	return all
}

// echoing makes the rig's tool answer with what it saw.
func echoing(r *rig) {
	r.origin.Config.ErrorLog = nil
	r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
		seen := tell(req.Method+" "+req.RequestURI, req.Host, req.Header, req.Body, &req.Trailer)
		w.Header()["Date"] = nil
		if req.Method == http.MethodHead {
			return
		}
		_ = json.NewEncoder(w).Encode(seen)
	})
}

// engineRigs are the two engines, each before a tool of its own.
func engineRigs(t *testing.T, change ...func(*Server, *Config)) (fast, net *rig) {
	with := func(on bool) *rig {
		return newRig(t, append([]func(*Server, *Config){func(s *Server, c *Config) {
			c.Fast = on
			s.OnEntry = nil
			s.timeouts = timeouts{head: 400 * time.Millisecond, stall: 400 * time.Millisecond, handshake: 10 * time.Second}
		}}, change...)...)
	}
	fast, net = with(true), with(false)
	for _, r := range []*rig{fast, net} { // what HTTP/2 does to fields on the way to the tool is not the engines' doing
		r.server.config.Load().transport.Protocols = new(http.Protocols)
		r.server.config.Load().transport.Protocols.SetHTTP1(true)
	}
	log.SetOutput(io.Discard) // net/http says what it thinks of the tools' answers
	return fast, net
}

const sentinel = "GET TARGET/sentinel HTTP/1.1\r\nHost: tool.example\r\nConnection: close\r\n\r\n"

// answersTo sends text and then a last request, in pieces as cuts says, and returns
// every answer until the connection ends.
func (r *rig) answersTo(c net.Conn, text, prefix string, cuts []byte) []told {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	all := strings.ReplaceAll(text+sentinel, "TARGET", prefix)
	go func() {
		for n := 0; len(all) > 0; n++ {
			size := len(all)
			if len(cuts) > 0 {
				size = min(size, int(cuts[n%len(cuts)])+1)
			}
			if _, err := io.WriteString(c, all[:size]); err != nil {
				return // the proxy has had enough
			}
			all = all[size:]
		}
	}()
	var methods []string
	for before := range strings.SplitSeq(text+sentinel, " TARGET") {
		methods = append(methods, before[max(0, len(before)-4):])
	}
	var answers []told
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		method := "GET"
		if n < len(methods) && methods[n] == "HEAD" {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				answers = append(answers, told{Err: "no end"})
			}
			return answers
		}
		answers = append(answers, tell(resp.Status, "", resp.Header, resp.Body, &resp.Trailer))
		if resp.StatusCode < 200 {
			n--
		}
	}
}

// seenBy makes what two engines told comparable: fields alike whatever their order.
func seenBy(answers []told) string {
	b, _ := json.Marshal(answers) // strings alone
	return string(b)
}

// alike asks both engines, some more times where they differ: of answers that race,
// such as one to a body that breaks off, net/http gives now this one, now that.
func alike(fast, reference func() []told) (a, b string) {
	for range 4 {
		done := make(chan string)
		go func() { done <- seenBy(fast()) }()
		b = seenBy(reference())
		if a = <-done; a == b {
			break
		}
	}
	return a, b
}

func (r *rig) saw(uri string) (n int) {
	for _, req := range r.origin.requests() {
		if req.RequestURI == uri {
			n++
		}
	}
	return n
}

// around shortens two texts to where they begin to differ.
func around(a, b string) (string, string) {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string {
		return fmt.Sprintf("%d bytes, ...%q", len(s), s[max(0, i-120):min(len(s), i+120)])
	}
	return cut(a), cut(b)
}

// The promise of the fast engine: whatever a client sends, the tool and the client
// see what they see with net/http alone, or a refusal where that refuses.
func TestFastDifferentialRequests(t *testing.T) {
	t.Parallel()
	corpus := requestCorpus()
	if len(corpus) < 2000 {
		t.Fatalf("%d cases are not the 2,000 that were promised", len(corpus))
	}
	fast, reference := engineRigs(t)
	echoing(fast)
	echoing(reference)
	var different, served atomic.Int64
	inParallel(len(corpus), func(n int) {
		text := corpus[n]
		dial := func(r *rig) []told {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return nil
			}
			return r.answersTo(c, text, "http://tool.example", nil)
		}
		a, b := alike(func() []told { return dial(fast) }, func() []told { return dial(reference) })
		served.Add(int64(strings.Count(b, `"Line"`)))
		if a != b && different.Add(1) <= 20 {
			a, b = around(a, b)
			t.Errorf("to %.200q\nthe fast engine: %s\nnet/http: %s", text, a, b)
		}
	})
	// net/http begins requests whose body then turns out malformed; the engine often
	// knows before.
	n, m := len(fast.origin.requests()), len(reference.origin.requests())
	if n > m {
		t.Errorf("the tool saw %d requests by the fast engine, %d by net/http", n, m)
	}
	// A few of the dice make two honest requests of it.
	if n, m := fast.saw("/smuggled"), reference.saw("/smuggled"); n > m {
		t.Errorf("the tool saw /smuggled %d times by the fast engine, %d by net/http", n, m)
	}
	t.Logf("%d cases, %d answers, %d of them different", len(corpus), served.Load(), different.Load())
}

// The same inside tunnels, and cut into pieces of all sizes.
func TestFastDifferentialSplits(t *testing.T) {
	t.Parallel()
	fast, reference := engineRigs(t, func(s *Server, _ *Config) {
		s.timeouts = timeouts{} // nothing here waits for one, but a busy machine may be late
	})
	echoing(fast)
	echoing(reference)
	texts := []string{
		"GET TARGET/1 HTTP/1.1\r\nHost: tool.example\r\nX-A: b\r\n\r\n",
		"POST TARGET/2 HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 31\r\n\r\n0123456789GET / HTTP/1.1\r\nHost:",
		"POST TARGET/3 HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n000a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
		"PUT TARGET/4 HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET TARGET/5 HTTP/1.1\r\nHost: tool.example\r\n\r\n",
	}
	whole := strings.Join(texts, "")
	var cases [][]byte
	for n := range len(whole) - 1 { // in two, at every byte
		if n < 256 {
			cases = append(cases, []byte{byte(n), 255, 255, 255, 255, 255})
		}
	}
	for size := range 40 {
		cases = append(cases, []byte{byte(size)})
	}
	ways := map[string]func(r *rig) (net.Conn, string){
		plain:    func(r *rig) (net.Conn, string) { return r.dial().conn, "http://tool.example" },
		tunnelH1: func(r *rig) (net.Conn, string) { return r.toTool().conn, "" },
	}
	for way, open := range ways {
		c, prefix := open(reference)
		want := seenBy(reference.answersTo(c, whole, prefix, nil))
		if strings.Count(want, `"Line":"200 OK"`) != 6 {
			t.Fatalf("%s: net/http answers %s", way, want)
		}
		for n, cuts := range cases {
			if way == tunnelH1 && n%4 != 0 {
				continue
			}
			c, prefix := open(fast)
			if got := seenBy(fast.answersTo(c, whole, prefix, cuts)); got != want {
				t.Fatalf("%s, cut by %v:\nthe fast engine: %s\nnet/http: %s", way, cuts, got, want)
			}
		}
	}
}

// A tool that answers what it likes is understood alike, and does not mix up the
// answers of the requests behind it.
func TestFastDifferentialAnswers(t *testing.T) {
	t.Parallel()
	corpus := answerCorpus()
	fast, reference := engineRigs(t)
	toolOfAnswers(t, fast, corpus)
	toolOfAnswers(t, reference, corpus)
	var different atomic.Int64
	inParallel(len(corpus), func(n int) {
		method := "GET"
		if n%3 == 2 {
			method = "HEAD"
		}
		text := fmt.Sprintf("%s TARGET/%d HTTP/1.1\r\nHost: tool.example\r\n\r\n", method, n)
		ask := func(r *rig) []told {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return nil
			}
			return r.answersTo(c, text, "http://tool.example", nil)
		}
		a, b := alike(func() []told { return ask(fast) }, func() []told { return ask(reference) })
		if a != b && different.Add(1) <= 20 {
			a, b = around(a, b)
			t.Errorf("%s, answered by %.200q\nthe fast engine: %s\nnet/http: %s", method, corpus[n], a, b)
		}
	})
	t.Logf("%d answers, %d different", len(corpus), different.Load())
}

// inParallel calls f with 0 to n-1, from a few goroutines.
func inParallel(n int, f func(int)) {
	var next atomic.Int64
	done := make(chan struct{})
	const workers = 32 // most of them wait for a time-out
	for range workers {
		go func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
}

// toolOfAnswers answers a request for /N by the Nth of answers, and any other in
// order. It ends the connection behind an answer that another could not follow.
func toolOfAnswers(t *testing.T, r *rig, answers []string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.origin.TLS.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					var n int
					if _, err := fmt.Sscanf(req.URL.Path, "/%d", &n); err != nil {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")
						continue
					}
					_, _ = io.WriteString(c, answers[n])
					if !bytes.HasSuffix([]byte(answers[n]), []byte("\r\nContent-Length: 2\r\n\r\nhi")) {
						return
					}
				}
			}()
		}
	}()
	r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(l.Addr())
}
