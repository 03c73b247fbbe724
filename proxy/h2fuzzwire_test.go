package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// FuzzH2Wire, beside FuzzH2Frames with all of the engine and a tool: whatever comes behind the preface, and in whatever pieces, the engine
// neither panics nor hangs, and what reaches the tool is a request of one of the header
// blocks, with our Authorization.
func FuzzH2Wire(f *testing.F) {
	for _, seed := range h2CaseSeeds() {
		f.Add(seed, []byte{255}, false)
		f.Add(seed, []byte{3, 0, 20}, false)
	}
	f.Add([]byte("\x01\x05\x01\x11"+h2Static+"\x00\x01\x01\x05hello"), []byte{}, true)
	log.SetOutput(io.Discard)
	r := newRig(f, func(s *Server, c *Config) {
		c.Fast = true
		s.OnEntry = nil
		s.timeouts = timeouts{head: 2 * time.Second, stall: 2 * time.Second}
	})
	r.origin.Config.ErrorLog = log.New(io.Discard, "", 0)
	blocks, requests := 0, 0
	f.Fuzz(func(t *testing.T, data, cuts []byte, framed bool) {
		if framed {
			data = h2Framed(data)
		}
		if len(data) > 100_000 {
			return
		}
		blocks += headerFrames(data)
		p := r.peer(t)
		p.greet()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			p.pieces(data, cuts)
			p.bytes("\x00\x00\x08\x06\x00\x00\x00\x00\x00probing!")
		}()
		p.drainUntilQuiet()
		_ = p.conn.SetWriteDeadline(time.Unix(1, 0))
		<-sent
		_ = p.conn.SetWriteDeadline(time.Time{})
		_ = p.conn.(*tls.Conn).NetConn().(interface{ CloseWrite() error }).CloseWrite()
		_ = p.conn.SetReadDeadline(time.Now().Add(h2Patience))
		if _, err := io.Copy(io.Discard, p.conn); err != nil && os.IsTimeout(err) {
			t.Fatal("the connection does not end")
		}
		requests += r.judge(t)
		if requests > blocks {
			t.Fatalf("%d requests of %d header blocks", requests, blocks)
		}
	})
}

// h2CaseSeeds is what the conformance cases send.
func h2CaseSeeds() (seeds [][]byte) {
	for _, list := range [][]h2Case{h2ConnectionCases, h2FrameCases, h2StreamCases, h2HeaderCases, h2HpackCases} {
		for _, c := range list {
			var b writeOnly
			c.act(onPaper(&b))
			if text, ok := strings.CutPrefix(b.String(), http2.ClientPreface); ok && len(text) < 20_000 {
				seeds = append(seeds, []byte(text))
			}
		}
	}
	return seeds
}

// writeOnly is a connection to nobody.
type writeOnly struct {
	net.Conn
	bytes.Buffer
}

func (w *writeOnly) Write(p []byte) (int, error) { return w.Buffer.Write(p) }
func (w *writeOnly) Read([]byte) (int, error)    { return 0, io.EOF }

// h2Framed makes frames of data: a type, flags, a stream, a length, that many bytes.
func h2Framed(data []byte) []byte {
	var b []byte
	for len(data) >= 4 {
		n := min(int(data[3]), len(data)-4)
		b = append(b, 0, 0, byte(n), data[0]%12, data[1], 0, 0, 0, data[2]%16)
		b = append(b, data[4:4+n]...)
		data = data[4+n:]
	}
	return b
}

// headerFrames counts them.
func headerFrames(data []byte) (n int) {
	for len(data) >= frameHeader {
		if http2.FrameType(data[3]) == http2.FrameHeaders {
			n++
		}
		size := frameHeader + int(data[0])<<16 + int(data[1])<<8 + int(data[2])
		data = data[min(size, len(data)):]
	}
	return n
}

// pieces writes data in pieces as cuts says, a TLS record each.
func (p *h2Peer) pieces(data, cuts []byte) {
	for n := 0; len(data) > 0 && p.err == nil; n++ {
		size := len(data)
		if len(cuts) > 0 && n < 200 {
			size = min(size, int(cuts[n%len(cuts)])+1)
		}
		p.bytes(string(data[:size]))
		data = data[size:]
	}
}

// drainUntilQuiet reads until the probe is answered, or nothing has come for a moment.
func (p *h2Peer) drainUntilQuiet() {
	in := bufio.NewReader(p.conn)
	for {
		_ = p.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := in.Peek(1); err != nil {
			return
		}
		b, _ := in.Peek(in.Buffered())
		if bytes.Contains(b, []byte("probing!")) {
			return
		}
		_, _ = in.Discard(len(b))
	}
}

// judge looks at what reached the tool and the log, and forgets it. It returns how many
// requests did.
func (r *rig) judge(t *testing.T) int {
	r.origin.mu.Lock()
	seen := r.origin.seen
	r.origin.seen = nil
	r.origin.mu.Unlock()
	for _, req := range seen {
		if got := req.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+toolToken {
			t.Errorf("%s %q reached the tool with Authorization %q", req.Method, req.RequestURI, got)
		}
		if req.Host != "tool.example" || !isToken([]byte(req.Method)) || req.Method == http.MethodTrace || req.Method == http.MethodConnect {
			t.Errorf("%s %q reached the tool for %q", req.Method, req.RequestURI, req.Host)
		}
	}
	r.logText.mu.Lock()
	defer r.logText.mu.Unlock()
	if text := r.logText.b.String(); strings.Contains(text, `"msg":"fault"`) {
		t.Errorf("the engine panicked: %s", text)
	}
	r.logText.b.Reset()
	return len(seen)
}
