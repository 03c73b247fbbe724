package proxy

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pillion/creds"
)

// Case 14: whatever two parsers could read in two ways.
func TestAttackFraming(t *testing.T) {
	r := newRig(t)
	ways := map[string]func() (*wire, string){
		tunnelH1: func() (*wire, string) { return r.toTool(), "/" },
		plain:    func() (*wire, string) { return r.dial(), "http://tool.example/" },
	}
	for _, row := range []struct{ name, head, body string }{
		{"14 duplicate Host", "Host: tool.example\r\nHost: tool.example\r\n", ""},
		{"14 two different Hosts", "Host: tool.example\r\nHost: evil.example\r\n", ""},
		{"14 no Host", "", ""},
		{"14 CL+TE", "Host: tool.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: tool.example\r\n\r\n"},
		{"14 TE+CL", "Host: tool.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"},
		{"14 double CL", "Host: tool.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n", "ab"},
		{"14 double CL, equal", "Host: tool.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "a"},
		{"14 CL list", "Host: tool.example\r\nContent-Length: 1, 1\r\n", "a"},
		{"14 CL with a sign", "Host: tool.example\r\nContent-Length: +1\r\n", "a"},
		{"14 CL in hexadecimal", "Host: tool.example\r\nContent-Length: 0x1\r\n", "a"},
		{"14 CL beyond 63 bits", "Host: tool.example\r\nContent-Length: 18446744073709551617\r\n", "a"},
		{"14 empty CL", "Host: tool.example\r\nContent-Length:\r\n", "a"},
		{"14 double TE", "Host: tool.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"},
		{"14 TE list", "Host: tool.example\r\nTransfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"},
		{"14 TE identity", "Host: tool.example\r\nTransfer-Encoding: identity\r\n", ""},
		{"14 TE with a vertical tab", "Host: tool.example\r\nTransfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"},
		{"14 TE with a space before the colon", "Host: tool.example\r\nTransfer-Encoding : chunked\r\n", "0\r\n\r\n"},
		{"14 obs-fold", "Host: tool.example\r\nX-A: b\r\n c\r\n", ""},
		{"14 obs-fold in TE", "Host: tool.example\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"},
		{"14 a field before the first", " X-A: b\r\nHost: tool.example\r\n", ""},
		{"14 a bare LF", "Host: tool.example\nX-A: b\r\n", ""},
		{"14 a bare CR in a value", "Host: tool.example\r\nX-A: b\rX-B: c\r\n", ""},
		{"14 NUL in a value", "Host: tool.example\r\nX-A: b\x00\r\n", ""},
		{"14 a field without a colon", "Host: tool.example\r\nX-A\r\n", ""},
		{"14 a field without a name", "Host: tool.example\r\n: b\r\n", ""},
		{"14 a Trailer that changes the framing", "Host: tool.example\r\nTransfer-Encoding: chunked\r\nTrailer: X, content-length\r\n", "0\r\n\r\n"},
		{"14 a WebSocket handshake with a body", "Host: tool.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", "abc"},
	} {
		for way, open := range ways {
			t.Run(row.name+", "+way, func(t *testing.T) {
				r.use(t)
				w, target := open()
				r.refuses(kindBadRequest, func() *http.Response {
					return w.ask("POST " + target + " HTTP/1.1\r\n" + row.head + "\r\n" + row.body)
				})
				w.closed() // and no answer to what was smuggled
			})
		}
	}
	for _, row := range []struct{ name, line string }{
		{"14 two spaces in the request line", "GET  / HTTP/1.1"},
		{"14 a tab in the request line", "GET\t/ HTTP/1.1"},
		{"14 a space in the target", "GET /a b HTTP/1.1"},
		{"14 HTTP/0.9", "GET /"},
		{"14 HTTP/1.2", "GET / HTTP/1.2"},
		{"14 HTTP/01.1", "GET / HTTP/01.1"},
		{"14 lower-case http", "GET / http/1.1"},
		{"14 a method that is no token", "GE(T / HTTP/1.1"},
		{"14 a request line that is TLS", "\x16\x03\x01\x02\x00\x01\x00\x01"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r.use(t)
			w := r.toTool()
			r.refuses(kindBadRequest, func() *http.Response { return w.ask(row.line + "\r\nHost: tool.example\r\n\r\n") })
			w.closed()
		})
	}
	chunkHead := "Host: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, row := range []struct{ name, body string }{
		{"14 a chunk extension with a bare LF", "5;a\nb\r\nhello\r\n0\r\n\r\n"},
		{"14 a chunk extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"},
		{"14 a chunk extension without an end", "5;" + strings.Repeat("a", 300) + "\r\nhello\r\n0\r\n\r\n"},
		{"14 mostly chunk extensions", strings.Repeat("1;"+strings.Repeat("a", 250)+"\r\nx\r\n", 100) + "0\r\n\r\n"},
		{"14 a chunk size line that ends in LF", "5\nhello\r\n0\r\n\r\n"},
		{"14 chunk data that ends in LF", "5\r\nhello\n0\r\n\r\n"},
		{"14 a chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"},
		{"14 a negative chunk size", "-5\r\nhello\r\n0\r\n\r\n"},
		{"14 a chunk size of 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"},
		{"14 a chunk size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"},
		{"14 a chunk size with a space before it", " 5\r\nhello\r\n0\r\n\r\n"},
		{"14 a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"},
		{"14 a trailer without a colon", "5\r\nhello\r\n0\r\nX\r\n\r\n"},
		{"14 endless trailers", "5\r\nhello\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 90)+"\r\n", 100) + "\r\n"},
	} {
		for way, open := range ways {
			t.Run(row.name+", "+way, func(t *testing.T) {
				r.use(t)
				complete := make(chan bool, 1)
				r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
					_, err := io.Copy(io.Discard, req.Body)
					complete <- err == nil
				})
				defer r.origin.handle(nil)
				arrived := len(r.origin.requests())
				w, target := open()
				checkProblem(t, w.ask("POST "+target+" HTTP/1.1\r\n"+chunkHead+row.body+"GET /smuggled HTTP/1.1\r\nHost: tool.example\r\n\r\n"), kindBadRequest)
				w.closed()
				if e := r.entry(); e.Error != "bad-request" {
					t.Errorf("the log says %+v", e)
				}
				// A body is passed on as it comes: its beginning may have reached the
				// tool, which must then see it break off.
				for _, req := range r.origin.requests()[arrived:] {
					if req.URL.Path == "/smuggled" || <-complete {
						t.Errorf("the tool took %s for complete", req.URL.Path)
					}
				}
			})
		}
	}
	t.Run("14b a malformed request behind a good one waits for its turn", func(t *testing.T) {
		for range 20 {
			r.use(t)
			arrived := len(r.origin.requests())
			w := r.toTool()
			w.send("GET /good HTTP/1.1\r\nHost: tool.example\r\n\r\nGET /bad HTTP/1.1\r\nHost: tool.example\r\nHost: tool.example\r\n\r\n")
			if body := w.body(w.response("GET")); body != "hello from the tool" {
				t.Fatalf("the first answer is %q", body)
			}
			checkProblem(t, w.response("GET"), kindBadRequest)
			w.closed()
			if e := r.entry(); e.Path != "/good" || e.Status != 200 {
				t.Errorf("the log says %+v", e)
			}
			if e := r.entry(); e.Error != "bad-request" {
				t.Errorf("the log says %+v", e)
			}
			for _, req := range r.origin.requests()[arrived:] {
				if req.URL.Path == "/bad" {
					t.Fatal("the malformed request reached the tool")
				}
			}
		}
	})
	t.Run("14 h2 fields that are malformed", func(t *testing.T) {
		for _, field := range []string{"x-a: b\r\nX-Smuggled: y", "x-a: b\x00", "X-Upper: b", "x a: b", ":authority: tool.example"} {
			r.use(t)
			w := r.http2("tool.example:443", "tool.example")
			r.cut(func() *http.Response {
				if field[0] == ':' { // twice
					return w.answer(w.head(true, ":method: GET", ":scheme: https", ":authority: tool.example", field, ":path: /"))
				}
				return w.answer(w.get(field))
			})
		}
		if n := len(r.entries); n != 0 {
			t.Errorf("%d log entries: net/http ends these streams itself", n)
		}
	})
	t.Run("14 h2 fields of HTTP/1's framing", func(t *testing.T) {
		arrived := len(r.origin.requests())
		for _, field := range []string{"transfer-encoding: chunked", "connection: keep-alive", "upgrade: websocket"} {
			r.use(t)
			w := r.http2("tool.example:443", "tool.example")
			if resp := w.answer(w.get(field)); resp.StatusCode != 400 && resp.StatusCode != resetStatus {
				t.Errorf("%s: status %d", field, resp.StatusCode)
			}
		}
		if n := len(r.origin.requests()) - arrived; n != 0 {
			t.Errorf("%d such requests were passed on", n)
		}
	})
}

// Cases 16, 17 and 21: what the client sends in the credential's place.
func TestAttackHeaders(t *testing.T) {
	r := newRig(t)
	key := &creds.Credential{Name: "key", Protocol: creds.HTTPS, URL: "https://tool.example/key/", Authorization: creds.APIKey,
		APIKeyHeader: "X-Api-Key", APIKey: creds.NewSecret("our-key"), Headers: []creds.Header{{Name: "Cookie", Value: creds.NewSecret("session=ours")}}}
	query := &creds.Credential{Name: "query", Protocol: creds.HTTPS, URL: "https://tool.example/query/", Authorization: creds.APIKey, APIKeyQuery: "api_key", APIKey: creds.NewSecret("our key&")}
	none := &creds.Credential{Name: "none", Protocol: creds.HTTPS, URL: "https://tool.example/none/", Authorization: creds.None}
	r.set(bearer("tool", "https://tool.example/"), key, query, none)
	ways := map[string]func(path string, fields ...string) *http.Response{
		tunnelH1: func(path string, fields ...string) *http.Response {
			return r.toTool().ask("GET " + path + " HTTP/1.1\r\nHost: tool.example\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
		},
		tunnelH2: func(path string, fields ...string) *http.Response {
			w := r.http2("tool.example:443", "tool.example")
			sent := []string{":path: " + path}
			for _, f := range fields {
				name, value, _ := strings.Cut(f, ": ")
				if name = strings.ToLower(name); name != "connection" && name != "proxy-connection" { // HTTP/2 has neither
					sent = append(sent, name+": "+value)
				}
			}
			return w.answer(w.get(sent...))
		},
		plain: func(path string, fields ...string) *http.Response {
			return r.dial().ask("GET http://tool.example" + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(fields, "", ""), "\r\n"))
		},
	}
	ours := "Bearer " + toolToken
	for _, row := range []struct {
		name, path string
		fields     []string
		want       map[string][]string // nil: must not be there
		uri        string
	}{
		{"16 Authorization in any case, twice", "/", []string{"authorization: Basic evil", "AUTHORIZATION: Bearer evil"}, map[string][]string{"Authorization": {ours}}, "/"},
		{"16 an X-Api-Key beside ours", "/key/", []string{"x-api-key: evil", "X-API-KEY: evil"}, map[string][]string{"X-Api-Key": {"our-key"}}, "/key/"},
		{"16 a Cookie beside ours", "/key/", []string{"Cookie: session=evil", "Cookie: b=c"}, map[string][]string{"Cookie": {"session=ours"}}, "/key/"},
		{"16a X_Api_Key, which CGI takes for the same", "/key/", []string{"X_Api_Key: evil", "x_api-key: evil"}, map[string][]string{"X-Api-Key": {"our-key"}, "X_api_key": nil, "X_api-Key": nil}, "/key/"},
		{"16 an Authorization where the credential owns another field stays", "/key/", []string{"Authorization: mine"}, map[string][]string{"Authorization": {"mine"}}, "/key/"},
		{"16 an API key in the query, twice and escaped", "/query/?a=%2F&api_key=evil&api%5Fkey=evil&API_KEY=evil&c;api_key=evil&b", nil, nil, "/query/?a=%2F&b&api_key=our+key%26"},
		{"16 Proxy-Authorization", "/", []string{"Proxy-Authorization: Basic LTp4", "Proxy-Connection: keep-alive"}, map[string][]string{"Proxy-Authorization": nil, "Proxy-Connection": nil, "Authorization": {ours}, "Via": nil, "X-Forwarded-For": nil, "Forwarded": nil}, "/"},
		{"17 Connection: authorization", "/", []string{"Connection: authorization", "Authorization: evil"}, map[string][]string{"Authorization": {ours}, "Connection": nil}, "/"},
		{"17 Connection: x-api-key, cookie", "/key/", []string{"Connection: x-api-key, Cookie"}, map[string][]string{"X-Api-Key": {"our-key"}, "Cookie": {"session=ours"}, "Connection": nil}, "/key/"},
		{"17a Connection: host, content-length, user-agent", "/", []string{"Connection: host, content-length, user-agent, te", "User-Agent: x"}, map[string][]string{"Authorization": {ours}}, "/"},
		{"21 type None leaks nothing of the client's Proxy-Authorization", "/none/", []string{"Proxy-Authorization: Basic LTpzZWNyZXQ=", "Authorization: mine"}, map[string][]string{"Proxy-Authorization": nil, "Authorization": {"mine"}}, "/none/"},
		{"21 type None listed by Connection", "/none/", []string{"Connection: proxy-authorization", "Proxy-Authorization: Basic LTpzZWNyZXQ="}, map[string][]string{"Proxy-Authorization": nil, "Authorization": nil}, "/none/"},
	} {
		for way, ask := range ways {
			t.Run(row.name+", "+way, func(t *testing.T) {
				r.use(t)
				seen, _ := r.passes(func() *http.Response { return ask(row.path, slices.Clone(row.fields)...) })
				for name, want := range row.want {
					if got := seen.Header[name]; !slices.Equal(got, want) {
						t.Errorf("the tool got %s %q, want %q", name, got, want)
					}
				}
				if seen.RequestURI != row.uri || seen.Host != "tool.example" {
					t.Errorf("the tool got %s of %s", seen.RequestURI, seen.Host)
				}
			})
		}
	}
	t.Run("17 Connection: Upgrade, authorization", func(t *testing.T) {
		for way, ask := range ways {
			if way == tunnelH2 {
				continue // knows no Upgrade
			}
			r.use(t)
			r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Got: %q\r\n\r\n", req.Header["Authorization"])
			})
			resp := ask("/", "Connection: Upgrade, authorization", "Upgrade: websocket", "Authorization: evil")
			if got := resp.Header.Get("X-Got"); resp.StatusCode != 101 || got != fmt.Sprintf("%q", []string{ours}) {
				t.Errorf("%s: status %d, the tool got %s", way, resp.StatusCode, got)
			}
			if seen := r.origin.requests(); len(seen[len(seen)-1].Header["Connection"]) != 1 || seen[len(seen)-1].Header.Get("Connection") != "Upgrade" {
				t.Errorf("%s: the tool got Connection %q", way, seen[len(seen)-1].Header["Connection"])
			}
			r.origin.handle(nil)
			r.entry()
		}
	})
	t.Run("16b trailers that carry Authorization", func(t *testing.T) {
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = fmt.Fprint(w, req.Trailer)
		})
		defer r.origin.handle(nil)
		chunked := "Transfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization, Cookie, X-Api-Key\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nAuthorization: evil\r\nProxy-Authorization: evil\r\nHost: evil.example\r\nCookie: evil\r\nX_Api_Key: evil\r\nX-Api-Key: evil\r\n\r\n"
		ask := map[string]func() *http.Response{
			tunnelH1: func() *http.Response {
				return r.toTool().ask("POST /key/ HTTP/1.1\r\nHost: tool.example\r\n" + chunked)
			},
			plain: func() *http.Response {
				return r.dial().ask("POST http://tool.example/key/ HTTP/1.1\r\nHost: x\r\n" + chunked)
			},
			tunnelH2: func() *http.Response {
				w := r.http2("tool.example:443", "tool.example")
				id := w.head(false, ":method: POST", ":scheme: https", ":authority: tool.example", ":path: /key/", "trailer: X-Sum, Authorization, Cookie, X-Api-Key")
				w.must(w.framer.WriteData(id, false, []byte("a")))
				w.must(w.framer.WriteHeaders(http2Trailer(id, w.fields([]string{"x-sum: 1", "x-api-key: evil"}))))
				return w.answer(id)
			},
		}
		for way, ask := range ask {
			r.use(t)
			seen, resp := r.passes(ask)
			body, _ := io.ReadAll(resp.Body)
			if string(body) != "map[X-Sum:[1]]" {
				t.Errorf("%s: the tool got the trailers %s", way, body)
			}
			if seen.Header.Get("X-Api-Key") != "our-key" {
				t.Errorf("%s: the tool got %v", way, seen.Header)
			}
		}
	})
}

// Case 18: what would reflect the credential.
func TestAttackMethods(t *testing.T) {
	r := newRig(t)
	for _, method := range []string{"TRACE", "TRACK", "trace", "Track", "connect"} {
		t.Run("18 "+method, func(t *testing.T) {
			r.use(t)
			r.refuses(kindMethodRefused, func() *http.Response { return r.toTool().ask(method + " / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
			r.refuses(kindMethodRefused, func() *http.Response {
				return r.dial().ask(method + " http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
			})
			w := r.http2("tool.example:443", "tool.example")
			r.refuses(kindMethodRefused, func() *http.Response { return w.answer(w.get(":method: " + method)) })
		})
	}
}

// Case 19: a credential that would end its header line early.
func TestAttackControlCharactersInSecrets(t *testing.T) {
	r := newRig(t)
	for _, c := range []string{"\r\nX-Smuggled: 1", "\n", "\x00", "\r"} {
		t.Run(fmt.Sprintf("19 a token with %q", c), func(t *testing.T) {
			r.use(t)
			bad := bearer("tool", "https://tool.example/")
			bad.Token = creds.NewSecret("canary-token" + c)
			r.set(bad)
			e := r.refuses(kindTokenUnavailable, func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
			if strings.Contains(e.Detail+r.logText.String(), "canary-token") {
				t.Error("the log quotes the token")
			}
		})
		t.Run(fmt.Sprintf("19 a static header with %q", c), func(t *testing.T) {
			r.use(t)
			bad := bearer("tool", "https://tool.example/")
			bad.Headers = []creds.Header{{Name: "X-Account", Value: creds.NewSecret("canary-header" + c)}}
			r.set(bad)
			r.refuses(kindTokenUnavailable, func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		})
		t.Run(fmt.Sprintf("19 an API key in the query with %q is escaped", c), func(t *testing.T) {
			r.use(t)
			r.set(&creds.Credential{Name: "query", Protocol: creds.HTTPS, URL: "https://tool.example/", Authorization: creds.APIKey, APIKeyQuery: "k", APIKey: creds.NewSecret("a" + c)})
			seen, _ := r.passes(func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
			if got := seen.URL.Query()["k"]; len(got) != 1 || got[0] != "a"+c {
				t.Errorf("the tool got %q", got)
			}
		})
		t.Run(fmt.Sprintf("19 a password with %q is one base64 text", c), func(t *testing.T) {
			r.use(t)
			r.set(&creds.Credential{Name: "basic", Protocol: creds.HTTPS, URL: "https://tool.example/", Authorization: creds.Basic, Username: "u", Password: creds.NewSecret("p" + c)})
			seen, _ := r.passes(func() *http.Response { return r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
			if got := seen.Header.Get("Authorization"); got != "Basic "+base64.StdEncoding.EncodeToString([]byte("u:p"+c)) {
				t.Errorf("the tool got %q", got)
			}
		})
	}
}

// Case 22: a redirect is the client's to follow, or not.
func TestAttackRedirects(t *testing.T) {
	r := newRig(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{"https://evil.example/x", "https://tool.example:8443/x", "http://tool.example/x", "//evil.example/x"} {
			t.Run(fmt.Sprintf("22 %d to %s", status, location), func(t *testing.T) {
				r.use(t)
				r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", location)
					w.WriteHeader(status)
					_, _ = io.WriteString(w, "over there")
				})
				defer r.origin.handle(nil)
				arrived := len(r.origin.requests())
				w2 := r.http2("tool.example:443", "tool.example")
				for _, resp := range []*http.Response{
					r.toTool().ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"),
					r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n"),
					w2.answer(w2.get()),
				} {
					body, _ := io.ReadAll(resp.Body)
					if resp.StatusCode != status || resp.Header.Get("Location") != location || string(body) != "over there" {
						t.Errorf("status %d, Location %q, %q", resp.StatusCode, resp.Header.Get("Location"), body)
					}
					if e := r.entry(); e.Status != status || e.Error != "" {
						t.Errorf("the log says %+v", e)
					}
				}
				if n := len(r.origin.requests()) - arrived; n != 3 {
					t.Errorf("%d requests reached the tool, want 3", n)
				}
			})
		}
	}
}
