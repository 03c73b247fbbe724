package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

const getRoot = "GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"

// A tool that speaks HTTP/2 alone is asked by net/http, from the first request on.
func TestFastLeavesToolsOfHTTP2ToNetHTTP(t *testing.T) {
	r := newRig(t)
	only := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, req.Proto+" "+req.Header.Get("Authorization"))
	}))
	only.TLS = &tls.Config{GetCertificate: r.origin.TLS.GetCertificate, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil //nolint:nilnil // the configuration itself
		}
		// Of "h2" alone crypto/tls makes an exception for clients of HTTP/1.1.
		return &tls.Config{GetCertificate: r.origin.TLS.GetCertificate, NextProtos: []string{"other"}}, nil
	}}
	only.EnableHTTP2 = true
	only.StartTLS()
	defer only.Close()
	r.server.config.Load().Guard.Resolve["tool.example"] = addrPort(only.Listener.Addr())
	for range 2 {
		resp, err := r.client("").Get("https://tool.example/")
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
	}
	if n := r.metric("pillion_injections_total", "result", "ok"); n != 2 {
		t.Errorf("%v injections are counted", n)
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

// closingAfter is a tool that takes one request a connection without saying so: it
// answers, and ends the connection when the next request comes.
func closingAfter(t *testing.T, r *rig) chan struct{} {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.origin.TLS.GetCertificate})
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
