package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzFastHead: what the fast engine takes is taken by the gate and by net/http as
// well, and read in the same way: line, host, framing, fields.
func FuzzFastHead(f *testing.F) {
	for _, seed := range headSeeds {
		f.Add([]byte(seed))
	}
	for _, text := range requestCorpus()[:400] {
		f.Add([]byte(strings.ReplaceAll(text, "TARGET", "http://tool.example")))
	}
	for _, found := range []string{"GET http:// / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1\r\nHost:\"\r\n\r\n", "GET http://:A/ HTTP/1.1\r\nHost:\r\n\r\n"} {
		f.Add([]byte(found))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		i := bytes.Index(data, headEnd)
		if i < 0 {
			return
		}
		head := data[:i+len(headEnd)]
		var h requestHead
		if !h.parse(head) {
			return
		}
		framing, err := checkHead(head)
		if err != nil || framing.opaque || framing.chunked != h.chunked || framing.length != h.length {
			t.Fatalf("the gate: %+v, %v; the fast engine: %+v", framing, err, h)
		}
		req, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), len(head)+16))
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		target := string(h.target)
		if h.authority != nil {
			target = "http://" + string(h.authority) + target
		}
		if req.Method != h.method || req.RequestURI != target || req.Proto != "HTTP/1.1" {
			t.Errorf("net/http reads %s %s %s", req.Method, req.RequestURI, req.Proto)
		}
		if h.authority == nil && req.Host != string(h.host) {
			t.Errorf("net/http reads the host %q, the engine %q", req.Host, h.host)
		}
		path, query := wirePath(req.RequestURI)
		if got, rest, _ := strings.Cut(string(h.target), "?"); got != path || rest != query {
			t.Errorf("the path is %q and %q", got, rest)
		}
		if req.Close != h.closing {
			t.Errorf("net/http says closing: %v", req.Close)
		}
		x := newExchange(req)
		want := sortedFields(requestHeader(x, req))
		got := http.Header{}
		for _, field := range h.fields {
			got.Add(string(field.name), string(field.value))
		}
		want = slices.DeleteFunc(want, func(f string) bool { return strings.HasPrefix(f, "Content-Length: ") })
		if got := sortedFields(got); !slices.Equal(got, want) {
			t.Errorf("the engine passes on %q, net/http %q", got, want)
		}
	})
}

// notingSink is a client that notes what it gets.
type notingSink struct {
	hints   int
	status  int
	fields  http.Header
	length  int64
	body    []byte
	trailer http.Header
	ended   bool
}

func (s *notingSink) begin(a *toolAnswer) {
	s.status, s.length, s.fields = a.status, a.length, http.Header{}
	for _, f := range a.fields {
		s.fields.Add(string(f.name), string(f.value))
	}
}

func (s *notingSink) note(a *toolAnswer, b []byte, last bool) {
	s.body = append(s.body, b...)
	if s.ended = last; last {
		s.trailer = http.Header{}
		for _, f := range a.trailers {
			s.trailer.Add(string(f.name), string(f.value))
		}
	}
}

// noting is a notingSink as toolAsk sees it: one that also writes over the rooms.
type noting struct {
	notingSink
	k *toolAsk
}

func (n *noting) early(*toolAnswer) error { n.hints++; return nil }

func (n *noting) data(b []byte, from, to int, last bool) error {
	n.note(&n.k.answer, b[from:to], last)
	for i := max(0, from-roomBefore); i < from; i++ {
		b[i] = '!'
	}
	for i := to; i < to+roomAfter; i++ {
		b[i] = '!'
	}
	return nil
}

// relayed runs an answer through the machine, in pieces as cuts says, and then ends
// the connection.
func relayed(data, cuts []byte, method string) (*noting, *toolAsk) {
	k := &toolAsk{method: method, onHead: func(*toolAnswer) bool { return false }}
	n := &noting{k: k}
	k.sink = n
	k.reset(nil)
	buf := make([]byte, 4096) // small, so that it is often full
	k.buf = &buf
	k.rewind()
	for i := 0; len(data) > 0; i++ {
		size := len(data)
		if len(cuts) > 0 {
			size = min(size, int(cuts[i%len(cuts)])+1)
		}
		size = min(size, len(buf)-roomAfter-k.w)
		copy(buf[k.w:], data[:size])
		k.w += size
		data = data[size:]
		if k.consume() {
			return n, k
		}
		if k.w == len(buf)-roomAfter && k.full() || k.state != askHead && len(cuts) > 0 && cuts[i%len(cuts)]%3 == 0 && k.flush() {
			return n, k
		}
	}
	k.end(io.EOF)
	return n, k
}

// FuzzFastAnswer: whatever the pieces, an answer that the machine relays is what
// net/http reads, and one that is cut is never taken for whole.
func FuzzFastAnswer(f *testing.F) {
	for n, text := range answerCorpus() {
		if len(text) < 10_000 {
			f.Add([]byte(text), []byte{byte(n)}, n%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		whole, k := relayed(data, nil, method)
		pieces, l := relayed(data, cuts, method)
		if k.outcome != l.outcome && len(data) < 3000 {
			t.Fatalf("outcome %d whole, %d in pieces (%v, %v)", k.outcome, l.outcome, k.err, l.err)
		}
		for _, n := range []*noting{whole, pieces} {
			k := n.k
			if k.outcome != askDone {
				if n.ended {
					t.Fatalf("outcome %d, and yet the client's answer has ended", k.outcome)
				}
				continue
			}
			checkAgainstNet(t, data, method, n)
		}
	})
}

func checkAgainstNet(t *testing.T, data []byte, method string, n *noting) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(data))
	var resp *http.Response
	var err error
	for early := 0; ; early++ {
		if resp, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			t.Fatalf("net/http: %v", err)
		}
		if resp.StatusCode >= 200 {
			break
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || !n.ended {
		t.Fatalf("net/http reads %q, %v; ended %v", body, err, n.ended)
	}
	if resp.StatusCode != n.status || !bytes.Equal(body, n.body) {
		t.Errorf("net/http reads %d %q, the engine %d %q", resp.StatusCode, body, n.status, n.body)
	}
	h, trailers := http.Header{}, http.Header{}
	toolsFields(h, resp.Header)
	delete(h, "Content-Length")
	toolsFields(trailers, resp.Trailer)
	delete(trailers, "Content-Length")
	maps.DeleteFunc(h, func(_ string, v []string) bool { return len(v) == 0 })
	if got, want := fmt.Sprint(sortedFields(n.fields)), fmt.Sprint(sortedFields(h)); got != want {
		t.Errorf("the engine passes on %s, net/http %s", got, want)
	}
	if got, want := fmt.Sprint(sortedFields(n.trailer)), fmt.Sprint(sortedFields(trailers)); got != want {
		t.Errorf("the engine's trailers: %s, net/http's: %s", got, want)
	}
}

// FuzzFastUpload: a chunked body comes to the same whatever its pieces, and ends
// where the reference reader sees it end.
func FuzzFastUpload(f *testing.F) {
	for _, seed := range chunkSeeds {
		f.Add([]byte(seed), []byte{1})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		want, _, end := dechunk(string(data))
		rq := &fastRequest{}
		rq.chunked = true
		u := &upload{rq: rq}
		buf := make([]byte, 2048)
		u.buf = &buf
		u.from, u.to, u.raw, u.w = roomBefore, roomBefore, roomBefore, roomBefore
		var got []byte
		var err error
		rest := data
		for i := 0; len(rest) > 0 && err == nil && !u.whole(); i++ {
			size := min(len(rest), len(buf)-roomAfter-u.w)
			if len(cuts) > 0 {
				size = min(size, int(cuts[i%len(cuts)])+1)
			}
			copy(buf[u.w:], rest[:size])
			u.w += size
			rest = rest[size:]
			if err = u.decode(); err == nil && !u.whole() {
				got = append(got, buf[u.from:u.to]...)
				u.from, u.to, u.raw, u.w = roomBefore, roomBefore, roomBefore, roomBefore
			}
		}
		if !u.whole() || err != nil {
			if end >= 0 {
				t.Fatalf("the reference reads %q up to %d, the upload: %v", want, end, err)
			}
			return
		}
		got = append(got, buf[u.from:u.to]...)
		if at := len(data) - len(rest) - (u.w - u.raw); end != at || string(got) != want {
			t.Fatalf("the reference reads %q up to %d, the upload %q up to %d", want, end, got, at)
		}
	})
}
