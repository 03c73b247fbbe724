package proxy

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/token"
)

// oauthRig is a rig whose one credential gets its tokens from a provider.
func oauthRig(t *testing.T) (*rig, *credstest.Provider) {
	t.Helper()
	provider := credstest.NewProvider(t)
	r := newRig(t, func(s *Server, _ *Config) {
		s.Authorizer = &token.Keeper{HTTP: provider.Transport()}
	})
	r.set(provider.Credential("tool"))
	return r, provider
}

// refusesToken answers 401 with a body to the token, and 200 to any other.
func refusesToken(bad ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		for _, b := range bad {
			if req.Header.Get("Authorization") == "Bearer "+b {
				w.Header().Set("Www-Authenticate", `Bearer error="invalid_token"`)
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, "no: "+b)
				return
			}
		}
		_, _ = w.Write(append([]byte("got "), body...))
	}
}

// Cases 30 and 31, the pipeline's half: what a 401 of the tool leads to.
func TestAttackUnauthorized(t *testing.T) {
	for _, way := range []string{tunnelH1, tunnelH2, plain} {
		send := func(r *rig, body string) *http.Response {
			r.t.Helper()
			switch way {
			case tunnelH1:
				return r.toTool().ask("POST /x HTTP/1.1\r\nHost: tool.example\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body)
			case plain:
				return r.dial().ask("POST http://tool.example/x HTTP/1.1\r\nHost: x\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body)
			}
			w := r.http2("tool.example:443", "tool.example")
			id := w.head(false, ":method: POST", ":scheme: https", ":authority: tool.example", ":path: /x")
			for len(body) > 0 {
				n := min(len(body), 16<<10)
				w.must(w.framer.WriteData(id, n == len(body), []byte(body[:n])))
				body = body[n:]
			}
			return w.answer(id)
		}
		t.Run("30 upstream 401: one forced refresh and one retry, "+way, func(t *testing.T) {
			r, provider := oauthRig(t)
			r.origin.handle(refusesToken("token-1"))
			resp := send(r, "hello")
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 200 || string(body) != "got hello" {
				t.Errorf("status %d, %q", resp.StatusCode, body)
			}
			if n := len(r.origin.requests()); n != 2 || provider.Calls() != 2 {
				t.Errorf("%d requests to the tool, %d for tokens; want 2 and 2", n, provider.Calls())
			}
			r.entry()
		})
		t.Run("31 a 401 after the retry is returned, "+way, func(t *testing.T) {
			r, provider := oauthRig(t)
			r.origin.handle(refusesToken("token-1", "token-2"))
			resp := send(r, "hello")
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 401 || string(body) != "no: token-2" || resp.Header.Get("Www-Authenticate") == "" {
				t.Errorf("status %d, %q", resp.StatusCode, body)
			}
			if n := len(r.origin.requests()); n != 2 || provider.Calls() != 2 {
				t.Errorf("%d requests to the tool, %d for tokens; want 2 and 2", n, provider.Calls())
			}
			r.entry()
			// And the next request does not refresh again: that would be a storm.
			if resp := send(r, "hello"); resp.StatusCode != 401 || provider.Calls() != 2 {
				t.Errorf("status %d, %d token requests", resp.StatusCode, provider.Calls())
			}
			if n := r.metric("pillion_upstream_unauthorized_total", "credential", "tool"); n < 3 {
				t.Errorf("%v answers 401 were counted", n)
			}
		})
		t.Run("30 a body that cannot be replayed: the original 401 with its body, "+way, func(t *testing.T) {
			r, provider := oauthRig(t)
			r.origin.handle(refusesToken("token-1"))
			resp := send(r, strings.Repeat("x", maxReplay+1))
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 401 || string(body) != "no: token-1" {
				t.Errorf("status %d, %q", resp.StatusCode, body)
			}
			if n := len(r.origin.requests()); n != 1 || provider.Calls() != 1 {
				t.Errorf("%d requests to the tool, %d for tokens; want 1 and 1", n, provider.Calls())
			}
		})
		for _, status := range []int{403, 429, 400, 500} {
			t.Run("31 "+itoa(status)+" never refreshes, "+way, func(t *testing.T) {
				r, provider := oauthRig(t)
				r.origin.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
				if resp := send(r, "hello"); resp.StatusCode != status {
					t.Errorf("status %d", resp.StatusCode)
				}
				if n := len(r.origin.requests()); n != 1 || provider.Calls() != 1 {
					t.Errorf("%d requests to the tool, %d for tokens; want 1 and 1", n, provider.Calls())
				}
			})
		}
	}
	t.Run("30 static credentials get one try", func(t *testing.T) {
		r := newRig(t)
		r.origin.handle(refusesToken(toolToken))
		if resp := r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"); resp.StatusCode != 401 {
			t.Errorf("status %d", resp.StatusCode)
		}
		if n := len(r.origin.requests()); n != 1 {
			t.Errorf("%d requests reached the tool", n)
		}
	})
	t.Run("30 the refresh fails: the original 401 with its body", func(t *testing.T) {
		r, provider := oauthRig(t)
		r.origin.handle(refusesToken("token-1"))
		provider.Next(credstest.ReplyToken("token-1", 3600), credstest.ReplyError(400, "invalid_grant", "canary"))
		resp := r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n")
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 401 || string(body) != "no: token-1" {
			t.Errorf("status %d, %q", resp.StatusCode, body)
		}
	})
	t.Run("35 no token: refused, nothing without one reaches the tool", func(t *testing.T) {
		r, provider := oauthRig(t)
		provider.Answer(credstest.Reply(503, "text/html", "<html>canary"))
		e := r.refuses(kindTokenUnavailable, func() *http.Response {
			return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\nAuthorization: mine\r\n\r\n")
		})
		if strings.Contains(e.Detail, "canary") {
			t.Errorf("the detail quotes the token endpoint: %s", e.Detail)
		}
	})
}

// Case 39: changes of the table are seen inside open tunnels.
func TestAttackEditsInsideOpenTunnels(t *testing.T) {
	open := map[string]func(r *rig) func() *http.Response{
		tunnelH1: func(r *rig) func() *http.Response {
			w := r.toTool()
			return func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") }
		},
		tunnelH2: func(r *rig) func() *http.Response {
			w := r.http2("tool.example:443", "tool.example")
			return func() *http.Response { return w.answer(w.get()) }
		},
		plain: func(r *rig) func() *http.Response {
			w := r.dial()
			return func() *http.Response { return w.ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n") }
		},
	}
	for way, open := range open {
		t.Run("39 an edited secret is used by the next request inside an open tunnel, "+way, func(t *testing.T) {
			r := newRig(t)
			ask := open(r)
			r.passes(ask)
			edited := bearer("tool", "https://tool.example/")
			edited.Token = creds.NewSecret("edited-token")
			r.set(edited)
			if seen, _ := r.passes(ask); seen.Header.Get("Authorization") != "Bearer edited-token" {
				t.Errorf("the tool got %q", seen.Header["Authorization"])
			}
		})
		t.Run("39 a removed credential is refused inside an open tunnel, "+way, func(t *testing.T) {
			r := newRig(t)
			ask := open(r)
			r.passes(ask)
			r.set()
			r.refuses(kindNoCredential, ask)
		})
		t.Run("39 a second credential for the URL makes it ambiguous inside an open tunnel, "+way, func(t *testing.T) {
			r := newRig(t)
			ask := open(r)
			r.passes(ask)
			r.set(bearer("tool", "https://tool.example/"), bearer("other", "https://tool.example/"))
			r.refuses(kindAmbiguous, ask)
		})
		t.Run("39 a store that may not serve any more refuses inside an open tunnel, "+way, func(t *testing.T) {
			var storeErr error
			r := newRig(t, func(s *Server, _ *Config) { s.StoreErr = func() error { return storeErr } })
			ask := open(r)
			r.passes(ask)
			storeErr = creds.ErrStoreUnavailable
			r.refuses(kindStoreUnavailable, ask)
		})
	}
	t.Run("39 a tunnel that was spliced before its target had a credential", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.Tunnel = true })
		w := r.dial()
		if resp := w.ask("CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		c := r.wire(tls.Client(w.conn, &tls.Config{RootCAs: r.origin.roots, ServerName: "evil.example"}))
		r.set(bearer("evil", "https://evil.example/"))
		// The client speaks to the tool itself: it gets nothing from us, now or then.
		resp := c.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
		if got := r.origin.requests()[0].Header["Authorization"]; resp.StatusCode != 200 || got != nil {
			t.Errorf("status %d, the tool got %q", resp.StatusCode, got)
		}
	})
}
