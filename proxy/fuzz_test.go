package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"
)

var headSeeds = []string{
	"GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n",
	"GET http://tool.example/a?b HTTP/1.0\r\n\r\n",
	"POST /x HTTP/1.1\r\nhost:tool.example\r\nContent-Length: 5\r\n\r\n",
	"POST /%2e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X, Y\r\nExpect: 100-continue\r\n\r\n",
	"CONNECT tool.example:443 HTTP/1.1\r\nHost: tool.example\r\n\r\n",
	"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade;x\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
	"connect / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET mailto:x HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n",
}

// FuzzCheckHead: what checkHead takes, net/http reads in the same way: one
// request, with the same line, host and framing.
func FuzzCheckHead(f *testing.F) {
	for _, seed := range headSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		i := bytes.Index(data, headEnd)
		if i < 0 {
			return
		}
		head := data[:i+len(headEnd)]
		got, err := checkHead(head)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.kind != kindBadRequest {
				t.Errorf("the error is no bad-request: %v", err)
			}
			return
		}
		const behind = "GET /next HTTP/1.1\r\n"
		in := bufio.NewReaderSize(bytes.NewReader(append(bytes.Clone(head), behind...)), len(head)+len(behind)+16)
		req, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http does not take it: %v", err)
		}
		line, _, _ := strings.Cut(string(head), "\r\n")
		if line != req.Method+" "+req.RequestURI+" "+req.Proto {
			t.Errorf("net/http read the line %q", line)
		}
		if rest, _ := in.Peek(len(behind)); string(rest) != behind {
			t.Errorf("net/http left %q behind the head", rest)
		}
		if chunked := slices.Equal(req.TransferEncoding, []string{"chunked"}); chunked != got.chunked || len(req.TransferEncoding) > 1 {
			t.Errorf("net/http: %q, we: chunked %v", req.TransferEncoding, got.chunked)
		}
		if !got.chunked && req.ContentLength != got.length {
			t.Errorf("net/http: length %d, we: %d", req.ContentLength, got.length)
		}
		if want := req.Method == "CONNECT" || isWebSocket(req); got.opaque != want {
			t.Errorf("opaque is %v, and should be %v", got.opaque, want)
		}
		if hosts := hostLines(head); !req.URL.IsAbs() && len(hosts) == 1 && req.Method != "CONNECT" && req.Host != hosts[0] {
			t.Errorf("net/http: Host %q, we: %q", req.Host, hosts[0])
		}
		checkServersRules(t, req, head)
	})
}

// checkServersRules repeats what http.Server asks beyond http.ReadRequest: what
// it refuses it would answer itself, without us.
func checkServersRules(t *testing.T, req *http.Request, head []byte) {
	t.Helper()
	if hosts := hostLines(head); len(hosts) > 1 || len(hosts) == 0 && req.ProtoAtLeast(1, 1) || len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]) {
		t.Errorf("http.Server refuses the Host fields %q", hosts)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			t.Errorf("http.Server refuses the field %q", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				t.Errorf("http.Server refuses the value %q", v)
			}
		}
	}
	if expect := req.Header.Get("Expect"); expect != "" && !httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue") {
		t.Errorf("http.Server answers Expect: %q", expect)
	}
}

func hostLines(head []byte) (hosts []string) {
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "host") {
			hosts = append(hosts, strings.Trim(value, " \t"))
		}
	}
	return hosts
}

// scripted is a connection whose reads are cut, and interrupted, as cuts says.
type scripted struct {
	net.Conn
	data []byte
	cuts []byte
	n    int
	busy func() bool // whether net/http may interrupt: it does so while a handler answers
}

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	size := len(p)
	if len(c.cuts) > 0 {
		cut := int(c.cuts[c.n%len(c.cuts)])
		c.n++
		if cut == 0xff && c.busy() {
			return 0, os.ErrDeadlineExceeded
		}
		size = min(size, cut+1)
	}
	n := copy(p[:size], c.data)
	c.data = c.data[n:]
	return n, nil
}

func (*scripted) SetReadDeadline(time.Time) error { return nil }

// through is net/http's side of a gate: it reads, is interrupted, and comes back.
type through struct {
	g      *gate
	pushed []byte // read ahead of its turn
}

func (r *through) Read(p []byte) (int, error) {
	if len(r.pushed) > 0 {
		n := copy(p, r.pushed)
		r.pushed = r.pushed[n:]
		return n, nil
	}
	_ = r.g.SetReadDeadline(time.Unix(1, 0))
	defer func() { _ = r.g.SetReadDeadline(time.Time{}) }()
	for {
		if n, err := r.g.Read(p); n > 0 || !isTimeout(err) {
			return n, err
		}
	}
}

// seenRequest is a request and its body, as read by one or the other side.
type seenRequest struct{ line, host, body, trailer string }

// readThrough is what net/http gets through a gate.
func readThrough(data, cuts []byte) (seen []seenRequest, refused int) {
	conn := &scripted{data: data, cuts: cuts}
	g := &gate{Conn: conn, times: &timeouts{head: time.Hour, stall: time.Hour}, refuse: func(*gate, error) { refused++ }}
	conn.busy = g.busy.Load
	r := &through{g: g}
	in := bufio.NewReader(r)
	for n := 0; ; n++ {
		if _, err := in.Peek(4); err != nil && n > 0 {
			return seen, refused // as net/http does behind a first request
		}
		req, err := http.ReadRequest(in)
		if err != nil {
			return seen, refused
		}
		body, err := io.ReadAll(req.Body)
		one := seenRequest{line: req.Method + " " + req.RequestURI, host: req.Host, body: string(body), trailer: fmt.Sprint(req.Trailer)}
		if err != nil {
			one.body = "broken"
			return append(seen, one), refused
		}
		seen = append(seen, one)
		if req.Method == "CONNECT" || isWebSocket(req) {
			rest, _ := io.ReadAll(in)
			return append(seen, seenRequest{body: "opaque " + string(rest)}), refused
		}
		if len(cuts) > 0 && cuts[0]%2 == 1 && in.Buffered() == 0 && len(r.pushed) == 0 {
			var ahead [1]byte // net/http's look at whether the client is still there
			if n, _ := r.Read(ahead[:]); n > 0 {
				r.pushed = []byte{ahead[0]}
			}
		}
		g.busy.Store(false)
	}
}

// readReference reads the same by looking at all of it at once, in the plainest
// way that there is.
func readReference(data []byte) (seen []seenRequest, refused int) {
	for len(data) > 0 {
		i := strings.Index(string(data), "\r\n\r\n")
		if i < 0 || i+4 > maxHead {
			if checkPartialHead(data[:min(len(data), maxHead+1)]) != nil {
				refused++
			}
			return seen, refused
		}
		head := data[:i+4]
		f, err := checkHead(head)
		if err != nil {
			return seen, refused + 1
		}
		req, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), len(head)+16))
		if err != nil {
			return append(seen, seenRequest{line: "net/http: " + err.Error()}), refused
		}
		one := seenRequest{line: req.Method + " " + req.RequestURI, host: req.Host, trailer: fmt.Sprint(req.Trailer)}
		data = data[i+4:]
		switch {
		case f.opaque:
			return append(seen, one, seenRequest{body: "opaque " + string(data)}), refused
		case f.chunked:
			body, trailer, n := dechunk(string(data))
			if n < 0 {
				one.body = "broken"
				return append(seen, one), refused
			}
			for name := range trailer {
				if req.Trailer == nil {
					req.Trailer = http.Header{}
				}
				req.Trailer[name] = trailer[name]
			}
			one.body, one.trailer = body, fmt.Sprint(req.Trailer)
			data = data[n:]
		case int64(len(data)) < f.length:
			one.body = "broken"
			return append(seen, one), refused
		default:
			one.body, data = string(data[:f.length]), data[f.length:]
		}
		seen = append(seen, one)
	}
	return seen, refused
}

// dechunk takes a chunked body from the front of s. n is -1 where there is none.
func dechunk(s string) (body string, trailer http.Header, n int) {
	whole := len(s)
	excess := 0
	line := func() (string, bool) {
		text, rest, ok := strings.Cut(s, "\r\n")
		s = rest
		return text, ok && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
	}
	for {
		text, ok := line()
		size, extension, extended := strings.Cut(text, ";")
		length, err := strconv.ParseUint(size, 16, 60)
		if !ok || err != nil || len(size) > maxChunkDigits || len(extension) > maxChunkLine-1 {
			return "", nil, -1
		}
		overhead := len(size) + 2
		if extended {
			overhead = len(text) + 3 // its CR counts
		}
		if excess = max(0, excess+overhead-16-2*int(min(length, 1<<40))); excess > maxExcess {
			return "", nil, -1
		}
		if length == 0 {
			break
		}
		if uint64(len(s)) < length+2 || s[length:length+2] != "\r\n" {
			return "", nil, -1
		}
		body += s[:length]
		s = s[length+2:]
	}
	trailer = http.Header{}
	before := len(s)
	for {
		text, ok := line()
		if !ok || before-len(s) > maxTrailers+1 {
			return "", nil, -1
		}
		if text == "" {
			return body, trailer, whole - len(s)
		}
		name, value, ok := strings.Cut(text, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return "", nil, -1
		}
		trailer.Add(name, strings.Trim(value, " \t"))
	}
}

var gateSeeds = []struct{ data, cuts string }{
	{headSeeds[0] + headSeeds[0], "\x00"},
	{headSeeds[2] + "hello" + headSeeds[0], "\x03\xff\x07"},
	{headSeeds[3] + "5;a=b\r\nhello\r\n0\r\nX: 1\r\nY: 2\r\nZ: 3\r\n\r\n" + headSeeds[0], "\xff\x01"},
	{headSeeds[0] + headSeeds[8] + "0\r\n\r\n" + headSeeds[0], "\x01\xff"},
	{headSeeds[5] + "\x81\x00raw", "\x05"},
	{headSeeds[4] + "\x16\x03\x01", "\x09\xff\xff"},
	{headSeeds[0] + "\r\n" + headSeeds[0], "\x13"},
	{"GET / HTTP/1.1\nHost: a\n\n", "\x01"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "\xff"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhel", ""},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", "\x00"},
}

// FuzzGate: whatever the cuts and interruptions, net/http gets from a gate the
// requests that the reference reader finds, and no other.
func FuzzGate(f *testing.F) {
	for _, seed := range gateSeeds {
		f.Add([]byte(seed.data), []byte(seed.cuts))
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		if len(cuts) > 0 && !slices.ContainsFunc(cuts, func(c byte) bool { return c != 0xff }) {
			cuts = append(cuts, 0) // or nothing would ever arrive
		}
		want, wantRefused := readReference(data)
		for _, how := range [][]byte{nil, cuts} {
			got, refused := readThrough(data, how)
			if !slices.Equal(got, want) || refused != wantRefused {
				t.Fatalf("cut by %x:\n got %q, refused %d\nwant %q, refused %d", how, got, refused, want, wantRefused)
			}
		}
	})
}

var chunkSeeds = []string{
	"0\r\n\r\n",
	"5\r\nhello\r\n0\r\n\r\nGET",
	"5;a=\"b\"\r\nhello\r\n00\r\nX: y\r\n\r\n",
	"A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n",
	"5\nhello\r\n0\r\n\r\n",
	"fffffffffffffff\r\nx",
	"1;" + strings.Repeat("x", 300) + "\r\na\r\n0\r\n\r\n",
}

// FuzzChunks: a body that the scanner takes ends for net/http at the same byte
// and holds the same data; cuts change nothing.
func FuzzChunks(f *testing.F) {
	for _, seed := range chunkSeeds {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		var whole, cuts chunkScanner
		n, err := whole.scan(data)
		at, rest := 0, data
		var cutErr error
		for len(rest) > 0 && cutErr == nil && !cuts.done() {
			piece := rest[:min(len(rest), int(cut)%7+1)]
			var used int
			used, cutErr = cuts.scan(piece)
			at += used
			rest = rest[used:]
		}
		if at != n || (err == nil) != (cutErr == nil) || whole.done() != cuts.done() {
			t.Fatalf("whole: %d, %v, %v; in pieces: %d, %v, %v", n, err, whole.done(), at, cutErr, cuts.done())
		}
		if !whole.done() {
			return
		}
		plain, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("net/http's chunked reader: %v", err)
		}
		const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		in := bufio.NewReaderSize(io.MultiReader(strings.NewReader(head), bytes.NewReader(data)), len(head)+len(data)+4096)
		req, err := http.ReadRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil || !bytes.Equal(body, plain) {
			t.Fatalf("net/http reads %q and %q, %v", body, plain, err)
		}
		behind, _ := io.ReadAll(in)
		if end := len(data) - len(behind); end != n {
			t.Errorf("the body ends at %d for us, at %d for net/http", n, end)
		}
	})
}

var querySeeds = []struct{ query, name, value string }{
	{"", "api_key", "secret"},
	{"a=b&api_key=x&c", "api_key", "s&=+%"},
	{"api%5Fkey=x&&API_KEY", "api_key", ""},
	{"a;api_key=x&%zz=1&b=%", "api_key", "s"},
	{"+=1&%20=2", " ", "s"},
}

// FuzzSetQuery: exactly one parameter of ours, and the others byte for byte.
func FuzzSetQuery(f *testing.F) {
	for _, seed := range querySeeds {
		f.Add(seed.query, seed.name, seed.value)
	}
	f.Fuzz(func(t *testing.T, query, name, value string) {
		if name == "" {
			return
		}
		got := setQuery(query, name, value)
		values, _ := url.ParseQuery(got)
		ours := 0
		for key, list := range values {
			if strings.EqualFold(key, name) {
				ours += len(list)
			}
		}
		if ours != 1 || values.Get(name) != value {
			t.Errorf("setQuery(%q, %q, %q) = %q", query, name, value, got)
		}
		kept := strings.Split(got, "&")
		kept = kept[:len(kept)-1]
		for part := range strings.SplitSeq(query, "&") {
			if len(kept) > 0 && part == kept[0] {
				kept = kept[1:]
				continue
			}
			if part != "" && !strings.Contains(strings.ToLower(unescaped(part)), strings.ToLower(name)) && !hasFoldedForm(name) {
				t.Errorf("setQuery(%q, %q) lost %q: %q", query, name, part, got)
			}
		}
		if len(kept) > 0 {
			t.Errorf("setQuery(%q, %q) made up %q", query, name, kept)
		}
	})
}

func unescaped(part string) string {
	var b strings.Builder
	for piece := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == ';' || r == '=' }) {
		if plain, err := url.QueryUnescape(piece); err == nil {
			b.WriteString(plain + "\n")
		}
	}
	return b.String()
}

// hasFoldedForm tells names whose case is not ASCII's: ToLower and EqualFold
// disagree about some.
func hasFoldedForm(name string) bool { return !isASCII(name) || strings.ContainsAny(name, "kKsS") }

var wirePathSeeds = []string{
	"/", "/a?b", "*", "http://tool.example", "http://tool.example?x=/y", "https://tool.example:443/a/%2e//b?c?d",
	"HTTP://u:p@tool.example//x", "/http://evil.example/", "http:opaque", "http:///x", "/?", "//a//b",
}

// FuzzWirePath: path and query are those that net/http parsed, but as they stood.
func FuzzWirePath(f *testing.F) {
	for _, seed := range wirePathSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if uri == "" || checkRequestTarget([]byte("GET"), []byte(uri)) != nil {
			return
		}
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			t.Fatalf("net/url does not take %q: %v", uri, err)
		}
		path, query := wirePath(uri)
		if uri == "*" || u.Opaque != "" || u.IsAbs() && u.Host == "" {
			return // refused: names no host or no path
		}
		plain, err := url.PathUnescape(path)
		if want := u.Path; err != nil || plain != want && (want != "" || plain != "/") {
			t.Errorf("wirePath(%q): path %q, net/url: %q, %v", uri, path, want, err)
		}
		if query != u.RawQuery {
			t.Errorf("wirePath(%q): query %q, net/url: %q", uri, query, u.RawQuery)
		}
		if !strings.HasSuffix(uri, path+"?"+query) && !strings.HasSuffix(uri, path) && path != "/" {
			t.Errorf("wirePath(%q): %q and %q do not stand in it", uri, path, query)
		}
	})
}

func TestSeedsOfFuzzTargetsAreThere(t *testing.T) {
	for name, n := range map[string]int{
		"FuzzCheckHead": len(headSeeds), "FuzzGate": len(gateSeeds), "FuzzChunks": len(chunkSeeds),
		"FuzzFastHead": len(requestCorpus()), "FuzzFastAnswer": len(answerCorpus()), "FuzzFastUpload": len(chunkSeeds),
		"FuzzSetQuery": len(querySeeds), "FuzzWirePath": len(wirePathSeeds),
	} {
		if n == 0 {
			t.Errorf("%s has no seeds", name)
		}
	}
	accepted := 0
	for _, seed := range headSeeds {
		if _, err := checkHead([]byte(seed)); err == nil {
			accepted++
		}
	}
	if accepted < 5 {
		t.Errorf("only %d heads are taken: the property is hardly tried", accepted)
	}
}
