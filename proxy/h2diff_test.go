package proxy

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// h2Request is a request of the corpus as a client of HTTP/2 sends it.
type h2Request struct {
	fields  []string
	body    []string
	trailer []string
}

// asHTTP2 translates what TestFastDifferentialRequests sends, as far as HTTP/2 has words
// for it: the first request of text, its lines and its body.
func asHTTP2(text string) (rq h2Request, ok bool) {
	head, body, ok := strings.Cut(text, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	method, target, found := strings.Cut(lines[0], " TARGET")
	target, isHTTP := strings.CutSuffix(target, " HTTP/1.1")
	if !ok || !found || !isHTTP || method == "" {
		return rq, false
	}
	rq.fields = []string{":method: " + method, ":scheme: https", ":path: " + target}
	chunked := false
	length := ""
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return rq, false
		}
		name, value = asciiLower(name), strings.Trim(value, " \t")
		switch name {
		case "host":
			if value == "" {
				return rq, false // TestH2Conformance has that, too
			}
			rq.fields = append(rq.fields[:3:3], append([]string{":authority: " + value}, rq.fields[3:]...)...)
			continue
		case "transfer-encoding":
			chunked = true
			continue
		case "content-length":
			length = value
		}
		rq.fields = append(rq.fields, name+": "+value)
	}
	named := strings.Count(asciiLower(head), "content-length")
	switch {
	case named > 0 && (chunked || named > 1 || length != strconv.Itoa(len(body))):
		return rq, false // TestH2Conformance has what differs here
	case chunked:
		var end int
		if body, _, end = dechunk(body); end < 0 {
			return rq, false
		}
		if strings.Contains(text, "X-T: 1\r\n\r\n") {
			rq.trailer = []string{"x-t: 1", "x-u: 2"}
		}
	case length == "":
		body = ""
	}
	for len(body) > 0 { // an empty body ends with the head
		n := min(len(body), 9000)
		rq.body = append(rq.body, body[:n])
		body = body[n:]
	}
	return rq, true
}

// send sends rq, and returns what came of it.
func (rq *h2Request) send(t *testing.T, r *rig) []told {
	p := r.peer(t)
	defer p.conn.Close()
	p.greet()
	p.enc.SetMaxDynamicTableSize(0)
	block := p.fields(rq.fields...)
	p.inPieces(1, len(rq.body)+len(rq.trailer) == 0, 16000, block)
	for n, piece := range rq.body {
		p.data(1, n == len(rq.body)-1 && rq.trailer == nil, piece)
	}
	if rq.trailer != nil {
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields(rq.trailer...))
	}
	a := p.answer(1)
	if a.status == 0 || a.status == 400 || a.status == 431 {
		return []told{{Err: "refused"}} // by the one as malformed, in words or without, by the other as something else
	}
	d := tell(a.String(), "", a.header, strings.NewReader(string(a.body)), &a.trailer)
	return []told{d}
}

// The corpus of requests once more, a part of it unless PILLION_SOAK is set, over HTTP/2: the tool and the client see the same
// by both engines.
func TestH2DifferentialRequests(t *testing.T) {
	t.Parallel()
	var corpus []h2Request
	every := 4
	if os.Getenv("PILLION_SOAK") != "" {
		every = 1
	}
	for n, text := range requestCorpus() {
		if rq, ok := asHTTP2(text); ok && n%every == 0 {
			corpus = append(corpus, rq)
		}
	}
	if len(corpus) < 300 {
		t.Fatalf("%d requests are too few", len(corpus))
	}
	fast, reference := engineRigs(t, patient)
	for _, r := range []*rig{fast, reference} {
		echoing(r)
		echo := r.origin.handler
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			req.Header.Del("Content-Length") // the engine often knows one that the client has not said
			echo(w, req)
		})
	}
	var different, served atomic.Int64
	inParallel(len(corpus), func(n int) {
		rq := &corpus[n]
		a, b := alike(func() []told { return rq.send(t, fast) }, func() []told { return rq.send(t, reference) })
		served.Add(int64(strings.Count(b, `"Line":"200"`)))
		if a != b && different.Add(1) <= 20 {
			a, b = around(a, b)
			t.Errorf("%.300q, body %.100q\nthe fast engine: %s\nnet/http: %s", rq.fields, rq.body, a, b)
		}
	})
	if served.Load() < 150 {
		t.Errorf("only %d of %d were served", served.Load(), len(corpus))
	}
	if n, m := len(fast.origin.requests()), len(reference.origin.requests()); n > m {
		t.Errorf("the tool saw %d requests by the fast engine, %d by net/http", n, m)
	}
	t.Logf("%d cases, %d served, %d different", len(corpus), served.Load(), different.Load())
}
