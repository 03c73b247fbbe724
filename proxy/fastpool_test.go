package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const getRoot = "GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"

// A tool that speaks HTTP/2 alone is asked by net/http, from the first request on,
// and once more when it is time to see whether it still does. Some refuse HTTP/1.1
// by an alert; a server of Go's agrees to nothing instead, and then hangs up.
func TestFastLeavesToolsOfHTTP2ToNetHTTP(t *testing.T) {
	for _, alert := range []bool{true, false} {
		t.Run(fmt.Sprintf("alert %v", alert), func(t *testing.T) { testHTTP2Only(t, alert) })
	}
}

func testHTTP2Only(t *testing.T, alert bool) {
	r := newRig(t)
	only := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, req.Proto+" "+req.Header.Get("Authorization"))
	}))
	only.TLS = &tls.Config{GetCertificate: r.origin.TLS.GetCertificate, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !alert || slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil //nolint:nilnil // the configuration itself
		}
		return &tls.Config{GetCertificate: r.origin.TLS.GetCertificate, NextProtos: []string{"other"}}, nil
	}}
	only.EnableHTTP2 = true
	only.Config.Protocols = new(http.Protocols)
	only.Config.Protocols.SetHTTP2(true)
	only.StartTLS()
	defer only.Close()
	config := r.server.config.Load()
	config.Guard.Resolve["tool.example"] = addrPort(only.Listener.Addr())
	r.set(bearer("tool", "https://tool.example/"), bearer("other", "https://tool.example/"))
	for range 3 {
		resp, err := r.client("tool:").Get("https://tool.example/") // one of two, by its name
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != "HTTP/2.0 Bearer "+toolToken {
			t.Errorf("status %d, %q", resp.StatusCode, body)
		}
		if e := r.entry(); e.Status != 200 || e.Credential != "tool" {
			t.Errorf("the log says %+v", e)
		}
		forgetHTTP2Only(config.pool)
	}
	r.set(bearer("tool", "https://tool.example/")) // whose series alone are left
	if n := r.metric("pillion_injections_total", "result", "ok"); n != 3 {
		t.Errorf("%v injections are counted", n)
	}
}

// forgetHTTP2Only lets the time pass for which a tool is believed.
func forgetHTTP2Only(p *toolPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tool := range p.tools {
		tool.http2Only = time.Time{}
	}
}

// A connection that the tool has closed meanwhile is not used; one that it closes
// just then is replaced, once, where a request may be sent twice.
func TestFastConnectionsThatEnd(t *testing.T) {
	r := newRig(t)
	opened := closingAfter(t, r)
	w := r.toTool()
	for n := 1; n <= 3; n++ {
		resp := w.ask(getRoot)
		if body := w.body(resp); body != fmt.Sprintf("connection %d", n) || resp.StatusCode != 200 {
			t.Errorf("request %d: status %d, %q", n, resp.StatusCode, body)
		}
	}
	if n := len(opened); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// The same for clients of HTTP/2, whose requests have a body for net/http even where
// they have none.
func TestHTTP2OverConnectionsThatEnd(t *testing.T) {
	r := newRig(t)
	opened := closingAfter(t, r)
	w := r.http2("tool.example:443", "tool.example")
	for n := 1; n <= 3; n++ {
		resp := w.answer(w.get())
		body, _ := io.ReadAll(resp.Body)
		if string(body) != fmt.Sprintf("connection %d", n) || resp.StatusCode != 200 {
			t.Errorf("request %d: status %d, %q", n, resp.StatusCode, body)
		}
	}
	if n := len(opened); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// A client that leaves with the whole answer in hand has lost nothing, even if the
// tool's stream has not ended yet.
func TestAnswersThatAreWholeBeforeTheirEnd(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.Fast = false }) // whose connection to the tool is HTTP/2
	body := strings.Repeat("all of it", 10_000)
	left := make(chan struct{})
	r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
		close(left)
	})
	w := r.toTool()
	if got := w.body(w.ask(getRoot)); got != body {
		t.Errorf("%d bytes of %d", len(got), len(body))
	}
	_ = w.conn.Close()
	<-left
	if e := r.entry(); e.Error != "" || e.Status != http.StatusOK || e.Out != int64(len(body)) {
		t.Errorf("the log says %+v", e)
	}
}

// An answer that comes before the body says that the connection ends: what is still to
// come of the body has no place to go, and no request may be sent behind it.
func TestEarlyAnswersEndTheConnection(t *testing.T) {
	for _, fast := range []bool{true, false} {
		r := newRig(t, func(_ *Server, c *Config) { c.Fast = fast })
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			if req.ContentLength == 5 {
				_, _ = io.Copy(io.Discard, req.Body)
			}
			_ = http.NewResponseController(w).EnableFullDuplex() // or the body would be read first
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		})
		w := r.toTool()
		resp := w.ask("POST / HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 1000000\r\n\r\npart of it")
		if body := w.body(resp); resp.StatusCode != http.StatusRequestEntityTooLarge || body != "too large\n" || !resp.Close {
			t.Errorf("fast %v: status %d, %q, close %v", fast, resp.StatusCode, body, resp.Close)
		}
		w = r.toTool()
		resp = w.ask("POST / HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 5\r\n\r\nwhole")
		if body := w.body(resp); body != "too large\n" || resp.Close {
			t.Errorf("fast %v: with the whole body: %q, close %v", fast, body, resp.Close)
		}
	}
}

// closingAfter is a tool that takes one request a connection without saying so: it
// answers, and ends the connection when the next request comes.
func closingAfter(t *testing.T, r *rig) chan struct{} {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.origin.TLS.GetCertificate, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	opened := make(chan struct{}, 100)
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				opened <- struct{}{}
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nconnection %d", n)
				_, _ = http.ReadRequest(in) // never answered
			}()
		}
	}()
	r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(l.Addr())
	return opened
}
