package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Peer is a client of HTTP/2 that may send whatever it likes, and says what came
// of it. Unlike wire2 it belongs to no test: many run at once.
type h2Peer struct {
	conn  net.Conn
	fr    *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
	err   error // the first of writing: the other side may have had enough

	judged uint32 // of TestH2Conformance: the stream whose answer counts
}

const h2Patience = 30 * time.Second

// peer opens a tunnel to tool.example for HTTP/2. Nothing is said in it.
func (r *rig) peer(t testing.TB) *h2Peer {
	t.Helper()
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(h2Patience))
	if _, err = io.WriteString(raw, "CONNECT tool.example:443 HTTP/1.1\r\nHost: tool.example:443\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReaderSize(raw, 16), nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("CONNECT: %+v, %v", resp, err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: r.roots, ServerName: "tool.example", NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p := &h2Peer{conn: c}
	p.fr = http2.NewFramer(c, bufio.NewReader(c))
	p.fr.AllowIllegalWrites = true
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.MaxHeaderListSize = 1 << 20
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

// onPaper is a peer whose frames go into b.
func onPaper(b *writeOnly) *h2Peer {
	p := &h2Peer{conn: b, fr: http2.NewFramer(b, b)}
	p.fr.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	return p
}

// greet sends the client's preface.
func (p *h2Peer) greet(settings ...http2.Setting) {
	p.bytes(http2.ClientPreface)
	p.note(p.fr.WriteSettings(settings...))
}

func (p *h2Peer) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *h2Peer) bytes(s string) {
	_, err := io.WriteString(p.conn, s)
	p.note(err)
}

// frame sends a frame, right or wrong.
func (p *h2Peer) frame(kind http2.FrameType, flags http2.Flags, id uint32, payload string) {
	p.note(p.fr.WriteRawFrame(kind, flags, id, []byte(payload)))
}

// fields makes a header block. A field is "name: value".
func (p *h2Peer) fields(fields ...string) string {
	p.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f[1:], ": ")
		_ = p.enc.WriteField(hpack.HeaderField{Name: f[:1] + name, Value: value}) // into memory
	}
	return p.block.String()
}

var h2Get = []string{":method: GET", ":scheme: https", ":authority: tool.example", ":path: /"}

// with is the head of a GET of /, or of what fields say instead or besides.
func with(fields ...string) []string {
	all := append([]string(nil), h2Get...)
	for _, f := range fields {
		name, _, _ := strings.Cut(f[1:], ": ")
		known := false
		for i := range all {
			if f[0] == ':' && strings.HasPrefix(all[i], ":"+name+": ") {
				all[i], known = f, true
			}
		}
		if !known {
			all = append(all, f)
		}
	}
	return all
}

const (
	h2End   = http2.FlagHeadersEndStream // the same bit ends DATA
	h2Whole = http2.FlagHeadersEndHeaders
)

// get sends such a head as stream id, and ends it.
func (p *h2Peer) get(id uint32, fields ...string) {
	p.frame(http2.FrameHeaders, h2Whole|h2End, id, p.fields(with(fields...)...))
}

// post begins one that has a body.
func (p *h2Peer) post(id uint32, fields ...string) {
	p.frame(http2.FrameHeaders, h2Whole, id, p.fields(with(append([]string{":method: POST"}, fields...)...)...))
}

func (p *h2Peer) data(id uint32, end bool, body string) {
	p.note(p.fr.WriteData(id, end, []byte(body)))
}

// ping asks for a sign that all before it has been read.
func (p *h2Peer) ping() { p.note(p.fr.WritePing(false, [8]byte{'p', 'r', 'o', 'b', 'e'})) }

// h2Answer is what has come of one stream.
type h2Answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
	early   []int // statuses of 1xx answers
	ended   bool
	reset   string // the code of RST_STREAM
}

func (a *h2Answer) String() string {
	switch {
	case a.reset != "" && !a.ended:
		return "RST_STREAM " + a.reset
	case a.ended:
		return strconv.Itoa(a.status)
	}
	return "nothing"
}

// h2Events is all that has come of a connection.
type h2Events struct {
	streams map[uint32]*h2Answer
	goAway  string // the code
	pongs   int
	closed  bool
	hung    bool
	first   string // the first thing that was not an answer
}

func (e *h2Events) of(id uint32) *h2Answer {
	a := e.streams[id]
	if a == nil {
		a = &h2Answer{header: http.Header{}, trailer: http.Header{}}
		e.streams[id] = a
	}
	return a
}

func (e *h2Events) say(what string) {
	if e.first == "" {
		e.first = what
	}
}

// read takes frames until enough says so, or the connection ends. It acknowledges
// settings, and lets the other side send as much again.
func (p *h2Peer) read(e *h2Events, enough func() bool) { p.readAs(e, true, enough) }

func (p *h2Peer) readAs(e *h2Events, credit bool, enough func() bool) {
	if e.streams == nil {
		e.streams = map[uint32]*h2Answer{}
	}
	for !enough() {
		f, err := p.fr.ReadFrame()
		if err != nil {
			e.closed = true
			e.hung = errors.Is(err, os.ErrDeadlineExceeded)
			e.say("closed")
			return
		}
		p.take(e, f, credit)
	}
}

func (p *h2Peer) take(e *h2Events, f http2.Frame, credit bool) {
	a := e.of(f.Header().StreamID)
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			p.note(p.fr.WriteSettingsAck())
		}
	case *http2.PingFrame:
		if f.IsAck() {
			e.pongs++
		}
	case *http2.GoAwayFrame:
		e.goAway = f.ErrCode.String()
		if f.ErrCode != http2.ErrCodeNo {
			e.say("GOAWAY " + e.goAway)
		}
	case *http2.RSTStreamFrame:
		a.reset = f.ErrCode.String()
		e.say("RST_STREAM " + a.reset)
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		a.ended = f.StreamEnded()
		if n := f.Header().Length; n > 0 && credit {
			p.note(p.fr.WriteWindowUpdate(0, n))
			if !a.ended {
				p.note(p.fr.WriteWindowUpdate(f.StreamID, n))
			}
		}
	case *http2.MetaHeadersFrame:
		a.head(f)
	}
}

func (a *h2Answer) head(f *http2.MetaHeadersFrame) {
	into := a.header
	if status := f.PseudoValue("status"); status == "" {
		into = a.trailer
	} else if n, _ := strconv.Atoi(status); n < 200 {
		a.early = append(a.early, n)
		return
	} else {
		a.status = n
	}
	for _, field := range f.RegularFields() {
		into.Add(field.Name, field.Value)
	}
	a.ended = f.StreamEnded()
}

// answer reads until stream id has ended.
func (p *h2Peer) answer(id uint32) *h2Answer {
	var e h2Events
	p.read(&e, func() bool { a := e.streams[id]; return a != nil && (a.ended || a.reset != "") })
	if a := e.streams[id]; a != nil {
		return a
	}
	return &h2Answer{reset: fmt.Sprintf("the connection: %s %s", e.first, e.goAway)}
}

// pattern is n bytes that look nowhere the same.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1 //nolint:gosec // any will do
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
