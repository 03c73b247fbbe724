package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// The promise: the connector sends nothing, the tool gets the authorization.
func TestInjectsInEveryWayIn(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.BaseURL = true })
	for _, u := range []string{
		"https://tool.example/api/x?y=1&y=%20",
		"http://tool.example/api/x?y=1&y=%20",
		"http://" + r.addr + "/c/tool/api/x?y=1&y=%20",
	} {
		client := r.client("")
		if strings.Contains(u, r.addr) {
			client = http.DefaultClient // base URL mode is for clients that know no proxy
		}
		resp, err := client.Get(u)
		if err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "hello from the tool" {
			t.Errorf("%s: status %d, %q", u, resp.StatusCode, body)
		}
		seen := r.origin.requests()
		got := seen[len(seen)-1]
		if got.Header.Get("Authorization") != "Bearer "+toolToken {
			t.Errorf("%s: the tool got Authorization %q", u, got.Header["Authorization"])
		}
		if got.RequestURI != "/api/x?y=1&y=%20" || got.Host != "tool.example" {
			t.Errorf("%s: the tool got %s of %s", u, got.RequestURI, got.Host)
		}
		e := r.entry()
		if e.Credential != "tool" || e.Host != "tool.example" || e.Path != "/api/x" || e.Status != 200 || e.Out != int64(len(body)) || e.Error != "" {
			t.Errorf("%s: the log says %+v", u, e)
		}
	}
	if strings.Contains(r.logText.String(), toolToken) {
		t.Error("the log holds the token")
	}
}

func TestHTTP2OnBothSides(t *testing.T) {
	r := newRig(t)
	client := r.client("")
	client.Transport.(*http.Transport).Protocols = new(http.Protocols)
	client.Transport.(*http.Transport).Protocols.SetHTTP2(true)
	resp, err := client.Post("https://tool.example/up", "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	toTool := 2
	if engine() == engineFast {
		toTool = 1 // by choice: it costs less
	}
	if seen := r.origin.requests(); resp.ProtoMajor != 2 || len(seen) != 1 || seen[0].ProtoMajor != toTool {
		t.Errorf("client spoke %s, the tool %v", resp.Proto, seen[0].Proto)
	}
	if e := r.entry(); e.Protocol != "HTTP/2.0" || e.In != 4 {
		t.Errorf("the log says %+v", e)
	}
	if resp := r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if seen := r.origin.requests(); seen[1].ProtoMajor != toTool {
		t.Errorf("the client spoke HTTP/1.1, the tool %s", seen[1].Proto)
	}
}

func TestRefusesWhatHasNoCredential(t *testing.T) {
	r := newRig(t)
	for _, u := range []string{"https://evil.example/", "http://evil.example/", "https://tool.example:8443/"} {
		resp, err := r.client("").Get(u)
		if err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		length := resp.ContentLength
		checkProblem(t, resp, kindNoCredential)
		if e := r.entry(); e.Status != 403 || e.Error != "no-credential" || e.Out != length || length <= 0 {
			t.Errorf("%s: the log says %+v, the answer has %d bytes", u, e, length)
		}
		if resp, err = r.client("").Head(u); err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		resp.Body.Close()
		if e := r.entry(); e.Status != 403 || e.Out != 0 {
			t.Errorf("HEAD %s: the log says %+v", u, e)
		}
	}
	if n := len(r.origin.requests()); n != 0 {
		t.Errorf("%d requests reached the tool", n)
	}
}

func TestTunnelPolicyPassesUnmatchedOnUntouched(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.Tunnel = true })
	client := r.client("")
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = r.origin.roots // the tool's own certificate
	resp, err := client.Get("https://evil.example/x")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := r.origin.requests()[0].Header.Get("Authorization"); resp.StatusCode != 200 || got != "" {
		t.Errorf("status %d, the tool got Authorization %q", resp.StatusCode, got)
	}
}

// While no credentials can be read nobody knows which targets have one: nothing is
// passed on untouched.
func TestTunnelPolicyWithoutAStore(t *testing.T) {
	r := newRig(t, func(s *Server, c *Config) {
		c.Tunnel = true
		s.StoreErr = func() error { return creds.ErrStoreUnavailable }
	})
	r.set()
	for _, target := range []string{"https://tool.example/", "http://tool.example/"} {
		resp, err := r.client("").Get(target)
		if err != nil {
			t.Fatal(err)
		}
		checkProblem(t, resp, kindStoreUnavailable)
	}
	if n := len(r.origin.requests()); n != 0 {
		t.Errorf("%d requests reached the tool", n)
	}
}

func TestTellsASecondCredentialByTheProxyUser(t *testing.T) {
	r := newRig(t)
	r.set(bearer("one", "https://tool.example/"), bearer("two", "https://tool.example/"))
	resp, err := r.client("").Get("https://tool.example/")
	if err != nil {
		t.Fatal(err)
	}
	if detail := checkProblem(t, resp, kindAmbiguous); !strings.Contains(detail, "one, two") {
		t.Errorf("the detail does not name them: %s", detail)
	}
	r.entry()
	for _, scheme := range []string{"https", "http"} {
		resp, err = r.client("two").Get(scheme + "://tool.example/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if e := r.entry(); resp.StatusCode != 200 || e.Credential != "two" {
			t.Errorf("status %d, the log says %+v", resp.StatusCode, e)
		}
	}
}

func TestWebSocketKeepsEarlyBytes(t *testing.T) {
	r := newRig(t)
	r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nauth=%q;", req.Header.Get("Authorization"))
		_, _ = io.Copy(c, rw)
	})
	for name, w := range map[string]*wire{"tunnel": r.tunnel("tool.example:443", "tool.example"), "plain": r.dial()} {
		target := "/ws"
		if name == "plain" {
			target = "http://tool.example/ws"
		}
		w.send("GET " + target + " HTTP/1.1\r\nHost: tool.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
		resp := w.response("GET")
		if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" {
			t.Fatalf("%s: status %d %v", name, resp.StatusCode, resp.Header)
		}
		want := fmt.Sprintf("auth=%q;early", "Bearer "+toolToken)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(w.r, got); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		_ = w.conn.Close()
		if e := r.entry(); e.Status != 101 || e.In != 5 {
			t.Errorf("%s: the log says %+v", name, e)
		}
	}
}

// An event is seen within 100 ms of being sent. The origin sends the next one only
// after this one was read: one that is held back for more would never come. The
// median is judged, since a busy machine may pause anybody.
func TestEventIsSeenAtOnce(t *testing.T) {
	const events, most = 21, 100 * time.Millisecond
	r := newRig(t)
	next := make(chan struct{})
	r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range events {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	for _, u := range []string{"https://tool.example/events", "http://tool.example/events"} {
		resp, err := r.client("").Get(u)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var delays []time.Duration
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				sent, _ := strconv.ParseInt(text, 10, 64)
				delays = append(delays, time.Since(time.Unix(0, sent)))
				next <- struct{}{}
			}
		}
		if len(delays) != events {
			t.Fatalf("%s: %d events", u, len(delays))
		}
		slices.Sort(delays)
		t.Logf("%s: an event is seen after %s (median), %s (worst)", u, delays[events/2], delays[events-1])
		if delays[events/2] > most {
			t.Errorf("%s: events are seen after %s", u, delays[events/2])
		}
	}
}

func TestPassesEarlyHintsAndTrailers(t *testing.T) {
	r := newRig(t)
	r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, req.Body)
		w.Header().Set("X-Sum", "of "+req.Trailer.Get("X-Client"))
	})
	req, _ := http.NewRequest(http.MethodPost, "https://tool.example/", io.MultiReader(strings.NewReader("abc")))
	req.Trailer = http.Header{"X-Client": {"yes"}}
	hints := ""
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints += fmt.Sprint(code, h.Get("Link"))
		return nil
	}}
	resp, err := r.client("").Do(req.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(body) != "abc" || resp.Trailer.Get("X-Sum") != "of yes" || hints != "103</x>; rel=preload" {
		t.Errorf("body %q, trailer %v, hints %q", body, resp.Trailer, hints)
	}
	if resp.Header.Get("Link") != "" {
		t.Error("the hint's field is on the answer")
	}
}

func TestClientAbortCancelsUpstream(t *testing.T) {
	r := newRig(t)
	began, cancelled := make(chan struct{}), make(chan struct{})
	r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
		close(began)
		<-req.Context().Done()
		close(cancelled)
	})
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://tool.example/", nil)
	go func() { <-began; cancel() }()
	if _, err := r.client("").Do(req); err == nil {
		t.Error("the request was answered")
	}
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("the tool was not told")
	}
	if e := r.entry(); e.Error != "client-gone" {
		t.Errorf("the log says %+v", e)
	}
}

func TestDrainEndsConnections(t *testing.T) {
	r := newRig(t)
	w := r.tunnel("tool.example:443", "tool.example")
	r.server.Drain()
	w.send("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n")
	resp := w.response("GET")
	w.body(resp)
	if !resp.Close {
		t.Error("the answer does not close the connection")
	}
	w.closed()
}

// Over HTTP/2 neither draining nor a refusal ends the connection: GOAWAY would lose
// what the client sends at the same moment.
func TestDrainKeepsHTTP2Connections(t *testing.T) {
	r := newRig(t)
	client := r.client("")
	client.Transport.(*http.Transport).Protocols = new(http.Protocols)
	client.Transport.(*http.Transport).Protocols.SetHTTP2(true)
	send := func(path string) (status int, reused bool) {
		t.Helper()
		trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
		req, err := http.NewRequestWithContext(trace, http.MethodPost, "https://tool.example"+path, strings.NewReader("a body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode, reused
	}
	if status, _ := send("/"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	r.server.Drain()
	if status, reused := send("/"); status != http.StatusOK || !reused {
		t.Errorf("while draining: status %d, on the same connection %t", status, reused)
	}
	r.set() // no credential: refused, its body unread
	if status, reused := send("/"); status != http.StatusForbidden || !reused {
		t.Errorf("refused: status %d, on the same connection %t", status, reused)
	}
	if _, reused := send("/"); !reused {
		t.Error("behind a refusal: another connection")
	}
}
