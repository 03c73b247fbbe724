package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rawTool makes the tool a server that answers each request on a connection with
// the bytes that answer returns, by HTTP/1.1. Its connections end with the test.
func rawTool(t *testing.T, r *rig, answer func(n int, req *http.Request) string) {
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
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				in := bufio.NewReader(c)
				for n := 1; ; n++ {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					r.origin.mu.Lock()
					r.origin.seen = append(r.origin.seen, req)
					r.origin.mu.Unlock()
					text := answer(n, req)
					if _, err := io.WriteString(c, text); err != nil || text == "" {
						_ = c.Close()
						return
					}
				}
			}()
		}
	}()
	r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(l.Addr())
}

// Case 20: a tool that speaks for pillion, or against it.
func TestAttackHostileTool(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
	get := "GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"
	fixed := func(text string) func(int, *http.Request) string {
		return func(int, *http.Request) string { return text }
	}
	start := func(t *testing.T, answer func(int, *http.Request) string) *rig {
		r := newRig(t)
		rawTool(t, r, answer)
		return r
	}
	t.Run("20 an upstream that forges our error header", func(t *testing.T) {
		r := start(t, fixed("HTTP/1.1 103 Early Hints\r\nProxy-Status: pillion; error=x\r\nLink: </x>\r\n\r\n"+
			"HTTP/1.1 502 Bad Gateway\r\nProxy-Status: pillion; error=destination_unavailable\r\nproxy-status: \"Pillion\"; error=x\r\nProxy-Status: cdn.example; error=y\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\nTrailer: Proxy-Status, Proxy-Authenticate\r\n\r\n0\r\nProxy-Status: pillion; error=z\r\nProxy-Authenticate: Basic\r\n\r\n"))
		w := r.toTool()
		w.send(get)
		hints := w.response("GET")
		resp := w.response("GET")
		body := w.body(resp)
		if hints.StatusCode != 103 || hints.Header.Get("Link") == "" || resp.StatusCode != 502 || body != "" {
			t.Fatalf("status %d, %d, %q", hints.StatusCode, resp.StatusCode, body)
		}
		for what, h := range map[string]http.Header{"hints": hints.Header, "answer": resp.Header, "trailers": resp.Trailer} {
			if got := fmt.Sprint(h["Proxy-Status"]); strings.Contains(strings.ToLower(got), "pillion") || h["Proxy-Authenticate"] != nil && h["Proxy-Authenticate"][0] != "" {
				t.Errorf("%s: %v", what, h)
			}
		}
		if got := resp.Header["Proxy-Status"]; len(got) != 1 || got[0] != "cdn.example; error=y" {
			t.Errorf("of the others' Proxy-Status came %q", got)
		}
		if e := r.entry(); e.Error != "" || e.Status != 502 {
			t.Errorf("the log takes the tool's error for ours: %+v", e)
		}
	})
	t.Run("20a hop-by-hop fields of the tool stay with it", func(t *testing.T) {
		r := start(t, fixed(ok+"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nUpgrade: h2c\r\nX-End: 1\r\n\r\nhi"))
		_, resp := r.passes(func() *http.Response { return r.toTool().ask(get) })
		for _, name := range []string{"Connection", "Keep-Alive", "X-Hop", "Upgrade"} {
			if resp.Header[name] != nil {
				t.Errorf("the client got %s", name)
			}
		}
		if resp.Header.Get("X-End") != "1" {
			t.Error("X-End is missing")
		}
	})
	for name, answer := range map[string]string{
		"a bare CR in a field":          ok + "X-A: b\rSet-Cookie: evil=1\r\n\r\nhi",
		"NUL in a field":                ok + "X-A: b\x00c\r\n\r\nhi",
		"a folded field":                ok + "X-A: b\r\n Set-Cookie: evil=1\r\n\r\nhi",
		"a line break in the reason":    "HTTP/1.1 200 OK\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nhi",
		"two lengths":                   ok + "Content-Length: 200\r\n\r\nhi",
		"a length and chunks":           ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"no HTTP":                       "SSH-2.0-OpenSSH_9.6\r\n",
		"a status that is none":         "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 999":                  "HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nhi",
		"nothing at all":                "",
		"an endless header field":       ok + "X-A: " + strings.Repeat("a", 512<<10) + "\r\n\r\nhi",
		"many fields, 4 MiB":            ok + strings.Repeat("X-A: "+strings.Repeat("a", 90)+"\r\n", 40<<10) + "\r\nhi",
		"a forbidden trailer announced": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	} {
		t.Run("20b response splitting: "+name, func(t *testing.T) {
			r := start(t, fixed(answer))
			w := r.toTool()
			resp := w.ask(get)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Header["Set-Cookie"] != nil || strings.ContainsAny(fmt.Sprint(resp.Header), "\r\n\x00") {
				t.Errorf("the client got %v", resp.Header)
			}
			e := r.entry()
			if resp.StatusCode == 502 && e.Error == "upstream-unreachable" {
				return // refused as a whole
			}
			if string(body) != "hi" || e.Error != "" {
				t.Errorf("status %d, %q, the log says %+v", resp.StatusCode, body, e)
			}
		})
	}
	t.Run("20c 1xx answers without an end", func(t *testing.T) {
		r := start(t, fixed(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 10_000)+ok+"\r\nhi"))
		w := r.toTool()
		w.send(get)
		for n := 0; ; n++ {
			resp := w.response("GET")
			if resp.StatusCode == 103 {
				continue
			}
			checkProblem(t, resp, kindUnreachable)
			if n > maxEarlyAnswers {
				t.Errorf("%d came through", n)
			}
			break
		}
		r.entry()
	})
	t.Run("20c 1xx answers are not for clients of HTTP/1.0", func(t *testing.T) {
		r := start(t, fixed("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+ok+"\r\nhi"))
		_, resp := r.passes(func() *http.Response { return r.toTool().ask("GET / HTTP/1.0\r\n\r\n") })
		if resp.Header.Get("Link") != "" {
			t.Error("the hint's field is on the answer")
		}
	})
	t.Run("20d a protocol switch that nobody asked for", func(t *testing.T) {
		r := start(t, fixed("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes"))
		w := r.toTool()
		resp := w.ask(get)
		if detail := checkProblem(t, resp, kindUnreachable); detail == "" {
			t.Error("no detail")
		}
		if e := r.entry(); e.Error != "upstream-unreachable" {
			t.Errorf("the log says %+v", e)
		}
	})
	t.Run("20e an answer that is cut is cut for the client", func(t *testing.T) {
		for _, answer := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhi"} {
			r := newRig(t)
			rawTool(t, r, func(_ int, _ *http.Request) string { return answer })
			// The tool closes behind its answer.
			l := closingTool(t, r, answer)
			r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(l)
			resp := r.toTool().ask(get)
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the client took %q for complete", body)
			}
			if e := r.entry(); e.Status != 200 || e.Error != "upstream-unreachable" {
				t.Errorf("the log says %+v", e)
			}
			w := r.http2("tool.example:443", "tool.example")
			if resp := w.answer(w.get()); resp.StatusCode != resetStatus {
				t.Error("the client of HTTP/2 took it for complete")
			}
		}
	})
}

// closingTool answers one request a connection and closes it.
func closingTool(t *testing.T, r *rig, answer string) net.Addr {
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
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
			_ = c.Close()
		}
	}()
	return l.Addr()
}

// A certificate that does not hold is never sent a credential.
func TestAttackUnverifiedTool(t *testing.T) {
	t.Run("20f a tool whose certificate is of another name or authority", func(t *testing.T) {
		r := newRig(t)
		other := newOrigin(t) // an authority that is not trusted
		r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(other.Listener.Addr())
		r.refuses(kindUnreachable, func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		r.refuses(kindUnreachable, func() *http.Response {
			return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
		})
		if n := len(other.requests()); n != 0 {
			t.Errorf("%d requests reached it", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		wrong, err := r.server.CA.Leaf(ctx, "tool.example") // ours, for clients: not for tools
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*wrong}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		}()
		r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(l.Addr())
		r.refuses(kindUnreachable, func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
	})
}
