package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/token"
)

// Case 62: secrets of every kind go through the proxy, which serves, refuses and
// fails; then all that it wrote is searched. cmd/pillion does the same with the
// built program.
func TestAttackLeaks(t *testing.T) {
	t.Run("62 planted secrets are in no log, metric or problem document", func(t *testing.T) {
		provider := credstest.NewProvider(t)
		provider.ClientSecret = credstest.Canary("client-secret").Reveal()
		provider.Answer(credstest.ReplyToken(credstest.Canary("access-token").Reveal(), 3600))
		clientToken := credstest.Canary("client-token")
		var keeper *token.Keeper
		r := newRig(t, func(s *Server, c *Config) {
			keeper = &token.Keeper{HTTP: provider.Transport()}
			s.Authorizer = keeper
			c.ClientToken, c.BaseURL = clientToken, true
		})
		secret := func(kind string) creds.Secret { return credstest.Canary(kind) }
		broken := func(kind string) creds.Secret { return creds.NewSecret(secret(kind).Reveal() + "\r\nX: y") }
		one := func(name string, a creds.AuthorizationType, change func(*creds.Credential)) *creds.Credential {
			c := &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: "https://tool.example/" + name + "/", Authorization: a}
			change(c)
			return c
		}
		oauth := provider.Credential("oauth")
		oauth.URL = "https://tool.example/oauth/"
		names := []string{"bearer", "basic", "key", "query", "header", "broken-token", "broken-header", "oauth", "twice"}
		r.set(
			one("bearer", creds.Bearer, func(c *creds.Credential) { c.Token = secret("token") }),
			one("basic", creds.Basic, func(c *creds.Credential) { c.Username, c.Password = "u", secret("password") }),
			one("key", creds.APIKey, func(c *creds.Credential) { c.APIKeyHeader, c.APIKey = "X-Api-Key", secret("api-key-header") }),
			one("query", creds.APIKey, func(c *creds.Credential) { c.APIKeyQuery, c.APIKey = "k", secret("api-key-query") }),
			one("header", creds.None, func(c *creds.Credential) {
				c.Headers = []creds.Header{{Name: "X-Account", Value: secret("static-header")}}
			}),
			one("broken-token", creds.Bearer, func(c *creds.Credential) { c.Token = broken("broken-token") }),
			one("broken-header", creds.None, func(c *creds.Credential) {
				c.Headers = []creds.Header{{Name: "X-Account", Value: broken("broken-header")}}
			}),
			one("twice", creds.Bearer, func(c *creds.Credential) { c.Token = secret("twice-1") }),
			func() *creds.Credential {
				c := one("twice-2", creds.Bearer, func(c *creds.Credential) { c.Token = secret("twice-2") })
				c.URL = "https://tool.example/twice/"
				return c
			}(),
			oauth,
		)
		var answers, arrived strings.Builder
		read := func(resp *http.Response) {
			_ = resp.Header.Write(&answers)
			_, _ = io.Copy(&answers, resp.Body)
			e := r.entry()
			fmt.Fprintf(&answers, "%+v\n", e)
		}
		auth := "Proxy-Authorization: Basic " + basicOf("-:"+clientToken.Reveal()) + "\r\n"
		noise := "Authorization: " + secret("clients-own").Reveal() + "\r\nCookie: " + secret("cookie").Reveal() + "\r\nX-Trace: " + secret("field").Reveal() + "\r\n"
		query := "?a=" + secret("query").Reveal()
		ask := func(name, target string) {
			read(r.dial().ask("GET http://" + target + "/" + name + "/" + query + " HTTP/1.1\r\nHost: x\r\n" + auth + noise + "\r\n"))
			read(r.dial().ask("GET /c/" + name + "/" + query + " HTTP/1.1\r\nHost: " + r.addr + "\r\n" + auth + noise + "\r\n"))
			w := r.dial()
			if resp := w.ask("CONNECT " + target + ":443 HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n"); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			inner := r.inside(w, target)
			read(inner.ask("GET /" + name + "/" + query + " HTTP/1.1\r\nHost: " + target + "\r\n" + noise + "\r\n"))
		}
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) { _, _ = io.Copy(io.Discard, req.Body) })
		for _, name := range append(names, "nothing") {
			ask(name, "tool.example")
		}
		ask("bearer", "evil.example")
		r.origin.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		provider.Answer(credstest.ReplyError(400, "invalid_client", secret("error-description").Reveal()))
		ask("oauth", "tool.example")
		ask("basic", "tool.example")
		keeper.Forget(oauth)
		ask("oauth", "tool.example") // no token at all
		for _, req := range r.origin.requests() {
			_ = req.Header.Write(&arrived)
			arrived.WriteString(req.RequestURI + "\n")
		}
		r.origin.Close()
		ask("bearer", "tool.example")
		for _, text := range []string{
			"GET http://tool.example/bearer/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic " + basicOf("-:"+secret("wrong-token").Reveal()) + "\r\n\r\n",
			"GET http://u:" + secret("userinfo").Reveal() + "@tool.example/ HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
			"GET http:u:" + secret("opaque").Reveal() + "@tool.example HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
			"CONNECT u:" + secret("connect-userinfo").Reveal() + "@tool.example:443 HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
			"CONNECT u:" + secret("connect-path").Reveal() + "/tool.example:443 HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: " + secret("folded").Reveal() + "\r\n folded\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nX-" + secret("name").Reveal() + "\x01: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: u:" + secret("host").Reveal() + "@x\r\n" + auth + "\r\n",
			"GET /" + query + "#" + secret("fragment").Reveal() + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"SECRET" + secret("method").Reveal() + "\x01 / HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			read(r.dial().ask(text))
		}
		var metrics strings.Builder
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			metrics.WriteString(family.String())
		}
		for where, text := range map[string]string{"the log": r.logText.String(), "the metrics": metrics.String(), "the answers and entries": answers.String()} {
			if len(text) < 1000 {
				t.Errorf("%s: only %d bytes to search", where, len(text))
			}
			for _, found := range credstest.Canaries([]byte(text)) {
				t.Errorf("%s: a planted secret has leaked: %s", where, found)
			}
		}
		// The control: where they belong, they are found.
		all := strings.Join(credstest.Canaries([]byte(arrived.String())), "\n")
		for _, kind := range []string{"token", "password", "api-key-header", "api-key-query", "static-header", "access-token", "cookie", "query", "field"} {
			if !strings.Contains(all, kind+" ") {
				t.Errorf("the tool got no %s", kind)
			}
		}
		if strings.Contains(all, "client-token") || strings.Contains(all, "client-secret") {
			t.Errorf("the tool got a secret that is not meant for it")
		}
	})
}
