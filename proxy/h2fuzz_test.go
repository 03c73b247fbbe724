package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Reading is the reading side of a connection, with nobody on the other: streams are
// opened and never begun, what it would write stays in memory.
func h2Reading() *h2Conn {
	c := &h2Conn{s: &Server{}, sock: &socket{}, streams: map[uint32]*h2Stream{}, room: h2Window, name: "tool.example", authority: "tool.example:443"}
	c.framer = http2.NewFramer(nil, &c.feed)
	c.block.begin()
	c.framer.SetMaxReadFrameSize(h2MaxFrame)
	c.h2Out.begin()
	return c
}

// read takes data in pieces, as step does, until a fault of the connection.
func (c *h2Conn) read(data, cuts []byte) error {
	c.in = relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	c.r, c.w = 0, 0
	defer func() {
		relayBuffers.Put(c.in)
		c.in = nil
	}()
	for i := 0; len(data) > 0; i++ {
		size := len(data)
		if len(cuts) > 0 {
			size = min(size, int(cuts[i%len(cuts)])+1)
		}
		n := copy((*c.in)[c.w:], data[:size])
		c.w += n
		data = data[n:]
		if err := c.consume(); err != nil {
			return err
		}
	}
	return nil
}

// tell says what came of it.
func (c *h2Conn) tell(err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v last %d leaving %v room %d window %d initial %d out %q\n", err, c.last, c.leaving, c.room, c.window, c.initial, c.out)
	for _, st := range c.waiting {
		fmt.Fprintf(&b, "%d: %+v bad %v odd %v reset %v ended %v declared %d got %d window %d body", st.id, st.head, st.bad, st.odd, st.peerReset, st.ended, st.declared, st.got, st.window)
		for _, p := range st.body.queue {
			fmt.Fprintf(&b, "%s", (*p.buf)[p.from:p.to])
		}
		fmt.Fprintf(&b, " trailers %v host %q target %q", st.trailers, st.rq.host, st.rq.target)
		for _, f := range st.rq.fields {
			fmt.Fprintf(&b, " %q %q", f.name, f.value)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (c *h2Conn) drop() {
	for _, st := range c.waiting {
		st.remove()
	}
}

// noSettings is an empty SETTINGS frame.
const noSettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// FuzzH2Frames: whatever bytes a client sends, the reading side comes to the same in
// one piece and in many, and every request that it opens is one that x/net's framer
// reads, with the same fields.
func FuzzH2Frames(f *testing.F) {
	for n, seed := range h2Seeds() {
		c := h2Reading()
		if _ = c.read([]byte(http2.ClientPreface+noSettings+seed), nil); len(c.waiting) == 0 {
			f.Fatalf("seed %d opens no stream", n)
		}
		c.drop()
		f.Add([]byte(seed), []byte{7})
		f.Add([]byte(seed), []byte{})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		data = append([]byte(http2.ClientPreface+noSettings), data...)
		whole, pieces := h2Reading(), h2Reading()
		defer whole.drop()
		defer pieces.drop()
		a, b := whole.tell(whole.read(data, nil)), pieces.tell(pieces.read(data, cuts))
		if a != b && len(data) < relayBuffer/2 {
			a, b := around(a, b)
			t.Fatalf("in one piece: %s\nin many: %s", a, b)
		}
		checkAgainstFramer(t, data[len(http2.ClientPreface):], whole)
	})
}

// checkAgainstFramer reads the frames with x/net's own, header blocks included.
func checkAgainstFramer(t *testing.T, frames []byte, c *h2Conn) {
	t.Helper()
	framer := http2.NewFramer(io.Discard, bytes.NewReader(frames))
	framer.SetMaxReadFrameSize(h2MaxFrame)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.ReadMetaHeaders.SetMaxStringLength(maxHead)
	framer.MaxHeaderListSize = maxHead
	read := map[uint32]*h2Head{}
	for {
		frame, err := framer.ReadFrame()
		if _, ok := errors.AsType[http2.StreamError](err); ok {
			continue
		}
		if err != nil {
			break
		}
		if f, ok := frame.(*http2.MetaHeadersFrame); ok && read[f.StreamID] == nil {
			read[f.StreamID] = headOf(f)
		}
	}
	for _, st := range c.waiting {
		want := read[st.id]
		if want == nil {
			t.Fatalf("x/net reads no request on stream %d: %+v", st.id, st.head)
		}
		got := st.head
		if got.truncated && want.truncated {
			continue
		}
		if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", *want); a != b {
			t.Fatalf("stream %d is %s, and by x/net %s", st.id, a, b)
		}
	}
}

func headOf(f *http2.MetaHeadersFrame) *h2Head {
	h := &h2Head{
		method: f.PseudoValue("method"), path: f.PseudoValue("path"), scheme: f.PseudoValue("scheme"), authority: f.PseudoValue("authority"),
		pseudo: len(f.PseudoFields()), truncated: f.Truncated,
	}
	h.fields = append(h.fields, f.RegularFields()...)
	return h
}

// h2Seeds are streams of frames behind the client's preface and its SETTINGS.
func h2Seeds() []string {
	frames := func(write func(fr *http2.Framer, block func(fields ...string) []byte)) string {
		var out, block bytes.Buffer
		fr, enc := http2.NewFramer(&out, nil), hpack.NewEncoder(&block)
		fr.AllowIllegalWrites = true
		write(fr, func(fields ...string) []byte {
			block.Reset()
			for i := 0; i+1 < len(fields); i += 2 {
				_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: i%6 == 4}) // into memory
			}
			return bytes.Clone(block.Bytes())
		})
		return out.String()
	}
	get := []string{":method", "GET", ":scheme", "https", ":authority", "tool.example", ":path", "/a?b", "accept", "*/*", "x-long", strings.Repeat("v", 300)}
	open := func(fr *http2.Framer, id uint32, end bool, b []byte) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndStream: end, EndHeaders: true, PadLength: uint8(id % 3)})
	}
	return []string{
		frames(func(fr *http2.Framer, block func(...string) []byte) {
			open(fr, 1, true, block(get...))
			open(fr, 3, true, block(append(get, "cookie", "a", "cookie", "b")...))
		}),
		frames(func(fr *http2.Framer, block func(...string) []byte) {
			open(fr, 1, false, block(append(get, "content-length", "5")...))
			_ = fr.WriteDataPadded(1, false, []byte("he"), []byte{0, 0})
			_ = fr.WriteData(1, false, []byte("llo"))
			open(fr, 1, true, block("x-trailer", "t"))
		}),
		frames(func(fr *http2.Framer, block func(...string) []byte) {
			b := block(get...)
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:20], EndStream: true, Priority: http2.PriorityParam{Weight: 3}})
			_ = fr.WriteContinuation(1, false, b[20:40])
			_ = fr.WriteContinuation(1, true, b[40:])
			_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
		}),
		frames(func(fr *http2.Framer, block func(...string) []byte) {
			_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
			_ = fr.WriteWindowUpdate(0, 1000)
			open(fr, 1, true, block(":method", "CONNECT", ":authority", "tool.example:443"))
			_ = fr.WriteWindowUpdate(1, 1000)
			_ = fr.WritePing(false, [8]byte{1})
			_ = fr.WritePriority(3, http2.PriorityParam{})
			_ = fr.WriteRawFrame(0x77, 1, 1, []byte("unknown"))
			_ = fr.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
		}),
		frames(func(fr *http2.Framer, block func(...string) []byte) {
			open(fr, 1, true, block(append(get, "X-Upper", "v")...))
			open(fr, 3, true, block(append(get, ":path", "/late")...))
			open(fr, 5, true, block(append(get, "te", "trailers", "connection", "close", "host", "x")...))
			open(fr, 2, true, block(get...))
		}),
	}
}

// FuzzH2Fields: what is written of an answer's fields, x/net reads back.
func FuzzH2Fields(f *testing.F) {
	f.Add("Content-Type", "text/html", 200, int64(0))
	f.Add("X-Mixed-Case", strings.Repeat("long", 100), 418, int64(1)<<40)
	f.Add("server", "", 304, int64(127))
	f.Fuzz(func(t *testing.T, name, value string, status int, length int64) {
		status, length = 100+int(uint(status)%900), max(0, length)
		b := appendHpackStatus(nil, status)
		b = appendHpackField(b, []byte(name), []byte(value))
		b = appendHpackLength(b, length)
		got, err := hpack.NewDecoder(4096, nil).DecodeFull(b)
		want := []hpack.HeaderField{{Name: ":status", Value: fmt.Sprint(status)}, {Name: asciiLower(name), Value: value}, {Name: "content-length", Value: fmt.Sprint(length)}}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %q, %v; want %q", b, got, err, want)
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = foldByte(b[i])
	}
	return string(b)
}
