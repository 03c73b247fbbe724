package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The tests attack_*_test.go are the catalogue of docs/attacks.md: the name of a
// sub-test begins with the number of its case.

// The ways in by which a stranger's bytes arrive.
const (
	tunnelH1 = "tunnel h1"
	tunnelH2 = "tunnel h2"
	plain    = "plain"
)

// use makes t the test that r reports to, until t ends.
func (r *rig) use(t *testing.T) {
	outer := r.t
	r.t = t
	t.Cleanup(func() { r.t = outer })
}

// refuses runs act, which sends one request and returns its answer, and checks
// what must be true of each refusal: a problem document of that kind, one log
// entry, one count, and nothing at the tool.
func (r *rig) refuses(want *kind, act func() *http.Response) Entry {
	r.t.Helper()
	arrived, counted := len(r.origin.requests()), r.metric("pillion_refusals_total", "error", want.name)
	checkProblem(r.t, act(), want)
	e := r.entry()
	if e.Status != want.status || e.Error != want.name || e.Detail == "" {
		r.t.Errorf("the log says %+v, want %s", e, want.name)
	}
	r.settled(want, arrived, counted)
	return e
}

func (r *rig) settled(want *kind, arrived int, counted float64) {
	r.t.Helper()
	if n := len(r.entries); n != 0 {
		r.t.Errorf("%d more log entries: %+v", n, <-r.entries)
	}
	if got := r.metric("pillion_refusals_total", "error", want.name); got != counted+1 {
		r.t.Errorf("pillion_refusals_total{error=%q} went from %v to %v", want.name, counted, got)
	}
	if n := len(r.origin.requests()) - arrived; n != 0 {
		r.t.Errorf("%d requests reached the tool", n)
	}
}

// passes runs act and checks that the tool answered its one request.
func (r *rig) passes(act func() *http.Response) (*http.Request, *http.Response) {
	r.t.Helper()
	arrived := len(r.origin.requests())
	resp := act()
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil || resp.StatusCode != 200 {
		r.t.Fatalf("status %d %s, %v: %s", resp.StatusCode, resp.Status, err, body)
	}
	if e := r.entry(); e.Error != "" || e.Status != 200 || e.Credential == "" {
		r.t.Errorf("the log says %+v", e)
	}
	seen := r.origin.requests()
	if len(seen) != arrived+1 {
		r.t.Fatalf("%d requests reached the tool", len(seen)-arrived)
	}
	return seen[len(seen)-1], resp
}

// metric reads one series.
func (r *rig) metric(name, label, value string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if label == "" {
				return m.GetGauge().GetValue()
			}
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	r.t.Fatalf("there is no series %s{%s=%q}", name, label, value)
	return 0
}

// eventually waits for what happens behind an answer, such as a gauge going back.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// toTool opens a tunnel to tool.example for HTTP/1.1.
func (r *rig) toTool() *wire {
	r.t.Helper()
	return r.tunnel("tool.example:443", "tool.example", "http/1.1")
}

// ask sends text and reads the answer to it.
func (w *wire) ask(text string) *http.Response {
	w.t.Helper()
	w.send(text)
	method, _, _ := strings.Cut(text, " ")
	return w.response(method)
}

// wire2 is a connection of HTTP/2 on which a test writes the frames itself.
type wire2 struct {
	*wire
	framer *http2.Framer
	hpack  *hpack.Encoder
	block  bytes.Buffer
	stream uint32
}

// http2 opens a tunnel with HTTP/2 inside.
func (r *rig) http2(authority, serverName string) *wire2 {
	r.t.Helper()
	w := &wire2{wire: r.tunnel(authority, serverName, "h2")}
	w.send(http2.ClientPreface)
	w.framer = http2.NewFramer(w.conn, w.r)
	w.framer.AllowIllegalWrites = true
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.hpack = hpack.NewEncoder(&w.block)
	w.must(w.framer.WriteSettings())
	return w
}

func (w *wire2) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// head opens a stream with the fields, given as "name: value".
func (w *wire2) head(end bool, fields ...string) uint32 {
	w.t.Helper()
	w.stream += 2
	id := w.stream - 1
	w.must(w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.fields(fields), EndHeaders: true, EndStream: end}))
	return id
}

func (w *wire2) fields(fields []string) []byte {
	w.t.Helper()
	w.block.Reset()
	for _, field := range fields {
		name, value, ok := strings.Cut(field[1:], ": ")
		if !ok {
			w.t.Fatalf("no field: %q", field)
		}
		w.must(w.hpack.WriteField(hpack.HeaderField{Name: field[:1] + name, Value: value}))
	}
	return w.block.Bytes()
}

// get opens and ends a stream for a GET of / of tool.example, but for the fields
// that replace or follow its pseudo-header fields.
func (w *wire2) get(fields ...string) uint32 {
	w.t.Helper()
	all := []string{":method: GET", ":scheme: https", ":authority: tool.example", ":path: /"}
	for _, field := range fields {
		name, _, _ := strings.Cut(field[1:], ": ")
		replaced := false
		for i := range all {
			if strings.HasPrefix(all[i], field[:1]+name+": ") && field[0] == ':' {
				all[i], replaced = field, true
			}
		}
		if !replaced {
			all = append(all, field)
		}
	}
	return w.head(true, all...)
}

// reset is the answer to a stream that net/http broke off: no status.
const resetStatus = 0

// answer reads until the stream ends. A stream or connection that is broken off
// has status 0, and the reason as its Status.
func (w *wire2) answer(id uint32) *http.Response {
	w.t.Helper()
	resp := &http.Response{Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Trailer: http.Header{}}
	var body bytes.Buffer
	done := func() *http.Response {
		resp.Body = io.NopCloser(&body)
		return resp
	}
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			if resp.StatusCode == 0 {
				resp.Status = err.Error()
				return done()
			}
			w.t.Fatalf("reading stream %d: %v", id, err)
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.must(w.framer.WriteSettingsAck())
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				resp.Status = "GOAWAY " + f.ErrCode.String()
				return done()
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				if resp.StatusCode == 0 || f.ErrCode != http2.ErrCodeNo {
					resp.StatusCode, resp.Status = resetStatus, "RST_STREAM "+f.ErrCode.String()
				}
				return done()
			}
		case *http2.DataFrame:
			if f.StreamID == id {
				body.Write(f.Data())
				w.must(w.framer.WriteWindowUpdate(0, uint32(max(1, len(f.Data())))))
			}
			if f.StreamID == id && f.StreamEnded() {
				return done()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			into := resp.Header
			if resp.StatusCode >= 200 {
				into = resp.Trailer
			}
			for _, field := range f.Fields {
				if field.Name == ":status" {
					_, err := fmt.Sscan(field.Value, &resp.StatusCode)
					w.must(err)
				} else {
					into.Add(field.Name, field.Value)
				}
			}
			if f.StreamEnded() {
				return done()
			}
		}
	}
}

// cut checks that a stream or connection was broken off, with nothing at the
// tool. net/http judges the frames: there is no request to log.
func (r *rig) cut(act func() *http.Response) {
	r.t.Helper()
	arrived := len(r.origin.requests())
	if resp := act(); resp.StatusCode != resetStatus {
		body, _ := io.ReadAll(resp.Body)
		r.t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if n := len(r.origin.requests()) - arrived; n != 0 {
		r.t.Errorf("%d requests reached the tool", n)
	}
}

// http2Trailer ends a stream with fields behind its body.
func http2Trailer(id uint32, block []byte) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true}
}

func itoa(n int) string { return fmt.Sprint(n) }
