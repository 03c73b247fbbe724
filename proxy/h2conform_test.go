package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// h2Case is a clause of RFC 9113, or of RFC 7541, and what may come of a client that
// keeps or breaks it.
type h2Case struct {
	section, name string
	act           func(p *h2Peer)
	// want is what may come of it, split by |: "GOAWAY code", "RST_STREAM code", a
	// status (of the stream that is judged, else of 1), "closed" without a word, or "ok": nothing but the answer to
	// a PING behind it.
	want string
	net  string // what net/http may do besides
}

// The conformance cases, as h2spec has them, for both engines. A fault of the
// connection ends it; after one of a stream it must still serve another.
func TestH2Conformance(t *testing.T) {
	t.Parallel()
	cases := slices.Concat(h2ConnectionCases, h2FrameCases, h2StreamCases, h2HeaderCases, h2HpackCases)
	fast, reference := engineRigs(t, patient)
	for _, r := range []*rig{fast, reference} {
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(w, "hello from the tool")
		})
	}
	inParallel(2*len(cases), func(n int) {
		c, r, engine, want := cases[n/2], fast, engineFast, cases[n/2].want
		if n%2 == 1 {
			r, engine, want = reference, engineNet, c.want+"|"+c.net
		}
		allowed := strings.Split(want, "|")
		got := c.outcome(t, r, want)
		for again := 0; got == "closed" && again < 3 && !slices.Contains(allowed, got); again++ {
			got = c.outcome(t, r, want) // what the other side does not read any more wipes out its last words
		}
		if !slices.Contains(allowed, got) {
			t.Errorf("%s %s, by %s: %s, want %s", c.section, c.name, engine, got, want)
		}
	})
	if strings.Contains(fast.logText.String(), `"msg":"fault"`) {
		t.Error("the engine panicked")
	}
	for _, req := range fast.origin.requests() {
		if got := req.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+toolToken {
			t.Errorf("%s reached the tool with Authorization %q", req.RequestURI, got)
		}
	}
}

// patient gives a slow machine time.
func patient(s *Server, _ *Config) { s.timeouts = timeouts{} }

func (c *h2Case) outcome(t *testing.T, r *rig, want string) string {
	p := r.peer(t)
	p.judged = 1
	c.act(p)
	p.ping()
	var e h2Events
	p.read(&e, func() bool {
		if e.first != "" {
			return true
		}
		if a := e.of(p.judged); a.ended {
			e.say(a.String())
		} else if e.pongs > 0 && strings.Contains(want, "ok") {
			e.say("ok")
		}
		return e.first != ""
	})
	switch {
	case e.hung:
		return "nothing within the time"
	case e.first == "closed" || strings.HasPrefix(e.first, "GOAWAY"):
		p.read(&e, func() bool { return e.closed })
		if e.hung {
			return e.first + ", and no end of the connection"
		}
		return e.first
	}
	const another = 1001
	p.get(another)
	p.read(&e, func() bool { return e.of(another).ended || e.of(another).reset != "" || e.goAway != "" })
	if got := e.of(another); got.status != 200 {
		return fmt.Sprintf("%s, and of another request %v, %s %s", e.first, got, e.goAway, p.err)
	}
	return e.first
}

func nuls(n int) string { return strings.Repeat("\x00", n) }

func setting(id http2.SettingID, value uint32) string {
	return string([]byte{byte(id >> 8), byte(id), byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)})
}

func u32(n uint32) string { return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) }

const (
	goProtocol = "GOAWAY PROTOCOL_ERROR"
	goSize     = "GOAWAY FRAME_SIZE_ERROR"
	goFlow     = "GOAWAY FLOW_CONTROL_ERROR"
	goHpack    = "GOAWAY COMPRESSION_ERROR"
	goClosed   = "GOAWAY STREAM_CLOSED"
	goCalm     = "GOAWAY ENHANCE_YOUR_CALM"
	rstProto   = "RST_STREAM PROTOCOL_ERROR"
	rstFlow    = "RST_STREAM FLOW_CONTROL_ERROR"
	rstSize    = "RST_STREAM FRAME_SIZE_ERROR"
	rstClosed  = "RST_STREAM STREAM_CLOSED"
	rstRefused = "RST_STREAM REFUSED_STREAM"
)

var h2ConnectionCases = []h2Case{
	{"3.4", "preface", func(p *h2Peer) { p.greet() }, "ok", ""},
	{"3.4", "a request right behind the preface", func(p *h2Peer) { p.greet(); p.get(1) }, "200", ""},
	{"3.4", "HTTP/1.1 instead", func(p *h2Peer) { p.bytes("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") }, goProtocol + "|closed", ""},
	{"3.4", "PRI with another ending", func(p *h2Peer) { p.bytes("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n") }, goProtocol + "|closed", ""},
	{"3.4", "nothing but zeros", func(p *h2Peer) { p.bytes(nuls(100)) }, goProtocol + "|closed", ""},
	{"3.4", "PING first", func(p *h2Peer) { p.bytes(http2.ClientPreface); p.ping() }, goProtocol + "|closed", ""},
	{"3.4", "HEADERS first", func(p *h2Peer) { p.bytes(http2.ClientPreface); p.get(1) }, goProtocol + "|closed", ""},
	{"3.4", "DATA first", func(p *h2Peer) { p.bytes(http2.ClientPreface); p.data(1, true, "x") }, goProtocol + "|closed", ""},
	{"3.4", "an unknown frame first", func(p *h2Peer) { p.bytes(http2.ClientPreface); p.frame(0x77, 0, 0, "x") }, goProtocol + "|closed", ""},
	{"3.4", "SETTINGS that acknowledge first", func(p *h2Peer) { p.bytes(http2.ClientPreface); p.frame(http2.FrameSettings, 1, 0, "") }, goProtocol + "|closed", ""},
	{"3.4", "preface byte by byte", func(p *h2Peer) {
		for _, c := range http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" {
			p.bytes(string(c))
		}
		p.get(1)
	}, "200", ""},

	{"4.1", "unknown type", func(p *h2Peer) { p.greet(); p.frame(0x42, 0xff, 0, "whatever"); p.get(1) }, "200", ""},
	{"4.1", "unknown type on a stream", func(p *h2Peer) { p.greet(); p.frame(0x42, 0xff, 7, "whatever"); p.get(1) }, "200", ""},
	{"4.1", "unknown flags of PING", func(p *h2Peer) { p.greet(); p.frame(http2.FramePing, 0xfe, 0, nuls(8)) }, "ok", ""},
	{"4.1", "reserved bit of a stream's number", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole, 1|1<<31, p.fields(with(":method: POST")...))
		p.frame(http2.FrameData, h2End, 1|1<<31, "x")
	}, "200", goProtocol},
	{"4.2", "DATA of the largest size", func(p *h2Peer) { p.greet(); p.post(1); p.data(1, true, nuls(16384)) }, "200", ""},
	{"4.2", "DATA one longer", func(p *h2Peer) { p.greet(); p.post(1); p.data(1, true, nuls(16385)) }, goSize + "|" + rstSize, "200"},
	{"4.2", "HEADERS one longer", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields(with("x-long: "+zeroes(22000))...)+nuls(17000))
	}, goSize, goHpack + "|" + goProtocol + "|closed"},
	{"4.2", "a frame of 16 MiB announced", func(p *h2Peer) { p.greet(); p.bytes("\xff\xff\xff\x00\x00\x00\x00\x00\x01") }, goSize, ""},
	{"4.3", "an unknown field index", func(p *h2Peer) { p.greet(); p.frame(http2.FrameHeaders, h2Whole|h2End, 1, "\xbf\xff\xff\x7f") }, goHpack, ""},
	{"4.3", "PRIORITY amid a header block", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		p.frame(http2.FramePriority, 0, 1, u32(0)+"\x10")
		p.frame(http2.FrameContinuation, h2Whole, 1, "")
	}, goProtocol, ""},
	{"4.3", "HEADERS of another stream amid a header block", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		p.get(3)
	}, goProtocol, ""},
	{"4.3", "an unknown type amid a header block", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		p.frame(0x42, 0, 1, "")
		p.frame(http2.FrameContinuation, h2Whole, 1, "")
	}, goProtocol, ""},

	{"5.5", "a setting nobody knows", func(p *h2Peer) { p.greet(http2.Setting{ID: 0x7777, Val: 1 << 31}); p.get(1) }, "200", ""},

	{"6.5", "SETTINGS with values of all kinds", func(p *h2Peer) {
		p.greet(http2.Setting{ID: 1, Val: 0}, http2.Setting{ID: 2, Val: 0}, http2.Setting{ID: 3, Val: 0}, http2.Setting{ID: 4, Val: 1 << 20}, http2.Setting{ID: 5, Val: 1<<24 - 1}, http2.Setting{ID: 6, Val: 1 << 20})
		p.get(1)
	}, "200", ""},
	{"6.5", "SETTINGS ACK with a payload", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 1, 0, nuls(6)) }, goSize, ""},
	{"6.5", "SETTINGS ACK that nobody waits for", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameSettings, 1, 0, "")
		p.frame(http2.FrameSettings, 1, 0, "")
	}, "ok", goProtocol},
	{"6.5", "SETTINGS on a stream", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 1, setting(4, 1)) }, goProtocol, ""},
	{"6.5", "SETTINGS of 5 bytes", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 0, nuls(5)) }, goSize, ""},
	{"6.5.2", "ENABLE_PUSH 2", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 0, setting(2, 2)) }, goProtocol, ""},
	{"6.5.2", "INITIAL_WINDOW_SIZE 2^31", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 0, setting(4, 1<<31)) }, goFlow, ""},
	{"6.5.2", "MAX_FRAME_SIZE 16383", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 0, setting(5, 16383)) }, goProtocol, ""},
	{"6.5.2", "MAX_FRAME_SIZE 2^24", func(p *h2Peer) { p.greet(); p.frame(http2.FrameSettings, 0, 0, setting(5, 1<<24)) }, goProtocol, ""},
	{"6.5.3", "the last of two values counts", func(p *h2Peer) {
		p.greet(http2.Setting{ID: 4, Val: 0}, http2.Setting{ID: 4, Val: 100})
		p.get(1)
	}, "200", goProtocol},
	{"6.7", "PING ACK that nobody waits for", func(p *h2Peer) { p.greet(); p.frame(http2.FramePing, 1, 0, nuls(8)) }, "ok", ""},
	{"6.7", "PING on a stream", func(p *h2Peer) { p.greet(); p.frame(http2.FramePing, 0, 1, nuls(8)) }, goProtocol, ""},
	{"6.7", "PING of 6 bytes", func(p *h2Peer) { p.greet(); p.frame(http2.FramePing, 0, 0, nuls(6)) }, goSize, ""},
	{"6.8", "GOAWAY on a stream", func(p *h2Peer) { p.greet(); p.frame(http2.FrameGoAway, 0, 1, nuls(8)) }, goProtocol, ""},
	{"6.8", "GOAWAY of 7 bytes", func(p *h2Peer) { p.greet(); p.frame(http2.FrameGoAway, 0, 0, nuls(7)) }, goSize, ""},
}

func zeroes(n int) string { return strings.Repeat("0", n) }
