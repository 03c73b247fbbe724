package proxy

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
)

// Cases 1 to 7 and 12: whose credential is it, when the parts of a request name
// different hosts? The target of the tunnel's, or nobody's.
func TestAttackOtherHostInsideTunnel(t *testing.T) {
	r := newRig(t)
	r.set(bearer("tool", "https://tool.example/"), bearer("tool-8443", "https://tool.example:8443/"), bearer("evil", "https://evil.example/"))
	for _, row := range []struct {
		name       string
		authority  string
		serverName string
		request    string // of HTTP/1
		fields     string // of HTTP/2, joined by "|"; "": has no such form
		want       *kind
	}{
		{"1 CONNECT A, inner Host B", "tool.example:443", "tool.example", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", ":authority: evil.example", kindMisdirected},
		{"2 CONNECT A, SNI B", "tool.example:443", "evil.example", "GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n", ":authority: tool.example", kindMisdirected},
		{"2 CONNECT A, SNI B, Host B", "tool.example:443", "evil.example", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", ":authority: evil.example", kindMisdirected},
		{"2 CONNECT A, no SNI, Host B", "tool.example:443", "", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", ":authority: evil.example", kindMisdirected},
		{"3 inner absolute-form B", "tool.example:443", "tool.example", "GET https://evil.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n", ":path: https://evil.example/", kindMisdirected},
		{"3 inner absolute-form B, Host B", "tool.example:443", "tool.example", "GET https://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "", kindMisdirected},
		{"4 inner http:// form", "tool.example:443", "tool.example", "GET http://tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n", ":path: http://tool.example/", kindMisdirected},
		{"4 inner form of another scheme", "tool.example:443", "tool.example", "GET ftp://tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n", "", kindMisdirected},
		{"6 CONNECT A:8443, Host A", "tool.example:8443", "tool.example", "GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n", ":authority: tool.example", kindMisdirected},
		{"7 CONNECT A:443, Host A:22", "tool.example:443", "tool.example", "GET / HTTP/1.1\r\nHost: tool.example:22\r\n\r\n", ":authority: tool.example:22", kindMisdirected},
		{"9 h2 :authority A, Host B inside CONNECT A", "tool.example:443", "tool.example", "", "host: evil.example", kindBadRequest},
	} {
		if row.request != "" {
			t.Run(row.name+", "+tunnelH1, func(t *testing.T) {
				r.use(t)
				w := r.tunnel(row.authority, row.serverName, "http/1.1")
				r.refuses(row.want, func() *http.Response { return w.ask(row.request) })
			})
		}
		if row.fields != "" {
			t.Run(row.name+", "+tunnelH2, func(t *testing.T) {
				r.use(t)
				w := r.http2(row.authority, row.serverName)
				r.refuses(row.want, func() *http.Response { return w.answer(w.get(strings.Split(row.fields, "|")...)) })
			})
		}
	}

	t.Run("5 plaintext in CONNECT :443", func(t *testing.T) {
		r.use(t)
		w := r.dial()
		if resp := w.ask("CONNECT tool.example:443 HTTP/1.1\r\nHost: tool.example:443\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		r.refuses(kindBadRequest, func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		w.closed()
	})
	t.Run("12 keep-alive tunnel: first request to A, second with Host B", func(t *testing.T) {
		r.use(t)
		w := r.toTool()
		r.passes(func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		r.refuses(kindMisdirected, func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n") })
		// The framing was sound: the tunnel goes on serving its own host.
		r.passes(func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
	})
	t.Run("12 keep-alive tunnel h2: first request to A, second with :authority B", func(t *testing.T) {
		r.use(t)
		w := r.http2("tool.example:443", "tool.example")
		r.passes(func() *http.Response { return w.answer(w.get()) })
		r.refuses(kindMisdirected, func() *http.Response { return w.answer(w.get(":authority: evil.example")) })
		r.passes(func() *http.Response { return w.answer(w.get()) })
	})
	t.Run("12a a TLS session of tunnel A resumed in tunnel B", func(t *testing.T) {
		r.use(t)
		cache := tls.NewLRUClientSessionCache(4)
		open := func(authority, serverName string) *wire {
			w := r.dial()
			if resp := w.ask("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n"); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			// One cache key for both: this client would resume anything anywhere.
			c := tls.Client(w.conn, &tls.Config{RootCAs: r.roots, ServerName: serverName, ClientSessionCache: oneKey{cache}})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			return r.wire(c)
		}
		r.passes(func() *http.Response {
			return open("tool.example:443", "tool.example").ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n")
		})
		w := open("evil.example:443", "tool.example")
		r.refuses(kindMisdirected, func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
	})
}

// oneKey is a session cache that knows no hosts.
type oneKey struct{ tls.ClientSessionCache }

func (c oneKey) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }
func (c oneKey) Put(_ string, s *tls.ClientSessionState)    { c.ClientSessionCache.Put("", s) }

// Cases 8 and 13: the spellings of a host.
func TestAttackHostSpellings(t *testing.T) {
	r := newRig(t)
	same, other, bad := (*kind)(nil), kindMisdirected, kindBadRequest
	rows := []struct {
		name   string
		host   string
		tunnel *kind // nil: it is tool.example
		plain  *kind
	}{
		{"8 Host with user:pw@", "user:pw@tool.example", bad, bad},
		{"8 Host with user:pw@ of another", "tool.example:443@evil.example", bad, bad},
		{"8 Host with a path", "tool.example/admin", bad, kindNoCredential},
		{"8 Host with ?", "tool.example?x=", bad, same},
		{"8 Host with #", "tool.example#", bad, bad},
		{"8 Host with a space", "tool.example evil.example", bad, bad},
		{"8 Host with NUL", "tool.example\x00.evil.example", bad, bad},
		{"8 Host with a bare CR", "tool.example\rX-Y: z", bad, bad},
		{"8 Host with a backslash", `tool.example\.evil.example`, bad, bad},
		{"8 Host with %2e", "tool%2eexample", bad, bad},
		{"8 Host in brackets", "[tool.example]", bad, bad},
		{"8 Host with half a bracket", "[tool.example", bad, bad},
		{"8 Host with an IPv6 zone", "[fe80::1%25lo]", bad, bad},
		{"8 Host with a bare IPv6 address", "::1", bad, bad},
		{"8 Host with an empty label", "tool..example", bad, bad},
		{"8 Host with port 0", "tool.example:0", bad, bad},
		{"8 Host with port 65979, which is 443 in 16 bits", "tool.example:65979", bad, bad},
		{"8 Host with port +443", "tool.example:+443", bad, bad},
		{"8 Host with an empty port", "tool.example:", bad, bad},
		{"8 Host in hexadecimal", "0x7f.0.0.1", bad, bad},
		{"8 Host as one number", "2130706433", bad, bad},
		{"8 Host that is a homograph, Cyrillic o", "t\u043e\u043el.example", other, kindNoCredential},
		{"8 Host that is a homograph in punycode", "xn--tl-jlcb.example", other, kindNoCredential},
		{"8 Host in full-width letters", "\uff54\uff4f\uff4f\uff4c.example", same, same},
		{"8 Host with a trailing dot", "tool.example.", same, same},
		{"8 Host with two trailing dots", "tool.example..", bad, bad},
		{"13 host case", "TOOL.eXample", same, same},
		{"13 host with its own port", "tool.example:443", same, same},
		{"13 all three", "Tool.Example.:443", same, same},
	}
	plainExtra := map[string]*kind{
		"8 Host with a path": same, // http://tool.example/admin/ is a path
	}
	for _, row := range rows {
		t.Run(row.name+", "+tunnelH1, func(t *testing.T) {
			r.use(t)
			want := row.tunnel
			if !isASCII(row.host) {
				want = bad // HTTP/1 fields of hosts are ASCII
			}
			w := r.toTool()
			ask := func() *http.Response { return w.ask("GET /x HTTP/1.1\r\nHost: " + row.host + "\r\n\r\n") }
			check(r, want, ask)
		})
		t.Run(row.name+", "+tunnelH2, func(t *testing.T) {
			r.use(t)
			w := r.http2("tool.example:443", "tool.example")
			ask := func() *http.Response { return w.answer(w.get(":authority: " + row.host)) }
			if strings.ContainsAny(row.host, "\x00\r") || engine() == engineNet && strings.Contains(row.host, "@") {
				r.cut(ask)
				return
			}
			check(r, row.tunnel, ask)
		})
		t.Run(row.name+", "+plain, func(t *testing.T) {
			r.use(t)
			want := row.plain
			if special, ok := plainExtra[row.name]; ok {
				want = special
			}
			w := r.dial()
			check(r, want, func() *http.Response {
				return w.ask("GET http://" + row.host + "/ HTTP/1.1\r\nHost: tool.example\r\n\r\n")
			})
		})
		if row.tunnel != bad || strings.Contains(row.host, ":443") {
			continue // nothing that CONNECT would refuse
		}
		t.Run(row.name+", CONNECT", func(t *testing.T) {
			r.use(t)
			w := r.dial()
			r.refuses(bad, func() *http.Response {
				return w.ask("CONNECT " + row.host + ":443 HTTP/1.1\r\nHost: tool.example\r\n\r\n")
			})
			w.closed()
		})
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7f }) < 0
}

// check is refuses, or passes for nil.
func check(r *rig, want *kind, act func() *http.Response) {
	r.t.Helper()
	if want == nil {
		if seen, _ := r.passes(act); seen.Host != "tool.example" {
			r.t.Errorf("the tool got Host %q", seen.Host)
		}
		return
	}
	r.refuses(want, act)
}

// Cases 10 and 11: near misses of a host, and of a scheme.
func TestAttackNearMisses(t *testing.T) {
	r := newRig(t)
	r.set(bearer("snow", "https://example.service-now.com/"), bearer("tool-8443", "https://tool.example:8443/"))
	for _, row := range []struct{ name, host, port string }{
		{"10 evil-service-now.com", "evil-service-now.com", "443"},
		{"10 x.service-now.com.evil.com", "example.service-now.com.evil.com", "443"},
		{"10 the parent domain", "service-now.com", "443"},
		{"10 a subdomain", "x.example.service-now.com", "443"},
		{"10 a prefix of the name", "example.service-now.co", "443"},
		{"11 a URL without a port means the default port only", "example.service-now.com", "8443"},
		{"11 port 80", "example.service-now.com", "80"},
		{"11 a URL with a port means that port only", "tool.example", "443"},
	} {
		t.Run(row.name+", "+tunnelH1, func(t *testing.T) {
			r.use(t)
			w := r.tunnel(row.host+":"+row.port, row.host, "http/1.1")
			r.refuses(kindNoCredential, func() *http.Response {
				return w.ask("GET / HTTP/1.1\r\nHost: " + row.host + ":" + row.port + "\r\n\r\n")
			})
		})
		t.Run(row.name+", "+tunnelH2, func(t *testing.T) {
			r.use(t)
			w := r.http2(row.host+":"+row.port, row.host)
			r.refuses(kindNoCredential, func() *http.Response { return w.answer(w.get(":authority: " + row.host + ":" + row.port)) })
		})
		if row.port == "80" {
			continue // http:// and port 80 is asked for as https:// and port 443: see the next test
		}
		t.Run(row.name+", "+plain, func(t *testing.T) {
			r.use(t)
			w := r.dial()
			r.refuses(kindNoCredential, func() *http.Response {
				return w.ask("GET http://" + row.host + ":" + row.port + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			})
		})
	}
	t.Run("11 a credential for https is never used over http", func(t *testing.T) {
		r.use(t)
		seen, _ := r.passes(func() *http.Response {
			return r.dial().ask("GET http://example.service-now.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
		})
		if seen.TLS == nil || seen.TLS.ServerName != "example.service-now.com" {
			t.Errorf("the tool was not asked by TLS: %+v", seen.TLS)
		}
	})
	t.Run("11 nor where unmatched targets are passed on", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.Tunnel = true })
		r.set(bearer("tool-8443", "https://tool.example:8443/"))
		plainOrigin := plainServer(t)
		r.server.config.Load().Guard.Resolve["plain.example"] = plainOrigin.addr
		resp := r.dial().ask("GET http://plain.example/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic dG9vbDp4\r\nAuthorization: mine\r\n\r\n")
		// The proxy user named a credential: that one, or nothing.
		checkProblem(t, resp, kindNoCredential)
		r.entry()
		resp = r.dial().ask("GET http://plain.example/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic LTp4\r\nAuthorization: mine\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		got := <-plainOrigin.seen
		if got.Get("Authorization") != "mine" || got.Get("Proxy-Authorization") != "" {
			t.Errorf("the target got %v", got)
		}
	})
}

// Case 9: what leads out of a tunnel.
func TestAttackWaysOutOfATunnel(t *testing.T) {
	r := newRig(t)
	t.Run("9 nested CONNECT, "+tunnelH1, func(t *testing.T) {
		r.use(t)
		for _, target := range []string{"evil.example:443", "tool.example:443"} {
			w := r.toTool()
			want := kindMethodRefused
			if target != "tool.example:443" {
				want = kindMisdirected
			}
			r.refuses(want, func() *http.Response {
				return w.ask("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\nGET / HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
			})
			w.closed() // what follows a CONNECT is nobody's request
		}
	})
	t.Run("9 nested CONNECT, "+tunnelH2, func(t *testing.T) {
		r.use(t)
		w := r.http2("tool.example:443", "tool.example")
		r.refuses(kindMethodRefused, func() *http.Response {
			return w.answer(w.head(true, ":method: CONNECT", ":authority: tool.example:443"))
		})
	})
	t.Run("9 extended CONNECT of RFC 8441", func(t *testing.T) {
		r.use(t)
		w := r.http2("tool.example:443", "tool.example")
		r.cut(func() *http.Response {
			return w.answer(w.head(true, ":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: tool.example", ":path: /"))
		})
	})
	t.Run("9 OPTIONS *", func(t *testing.T) {
		r.use(t)
		w := r.toTool()
		r.refuses(kindBadRequest, func() *http.Response { return w.ask("OPTIONS * HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
		w2 := r.http2("tool.example:443", "tool.example")
		r.refuses(kindBadRequest, func() *http.Response { return w2.answer(w2.get(":method: OPTIONS", ":path: *")) })
		r.refuses(kindBadRequest, func() *http.Response { return r.dial().ask("OPTIONS * HTTP/1.1\r\nHost: tool.example\r\n\r\n") })
	})
	t.Run("9 h2 preface where h2 was not negotiated", func(t *testing.T) {
		r.use(t)
		for _, w := range []*wire{r.toTool(), r.dial()} {
			r.refuses(kindBadRequest, func() *http.Response { return w.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") })
			w.closed()
		}
	})
	t.Run("9 h2c upgrade is dropped, not forwarded", func(t *testing.T) {
		r.use(t)
		w := r.toTool()
		seen, _ := r.passes(func() *http.Response {
			return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		})
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if seen.Header[name] != nil {
				t.Errorf("the tool got %s: %q", name, seen.Header[name])
			}
		}
	})
	t.Run("9a half a WebSocket handshake does not open the gate", func(t *testing.T) {
		for _, half := range []string{"Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"} {
			r.use(t)
			w := r.toTool()
			r.passes(func() *http.Response { return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\n" + half + "\r\n") })
			r.refuses(kindBadRequest, func() *http.Response {
				return w.ask("POST / HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
			})
		}
	})
	t.Run("9a a WebSocket handshake that was not accepted ends the connection", func(t *testing.T) {
		r.use(t)
		w := r.toTool()
		_, resp := r.passes(func() *http.Response {
			return w.ask("GET / HTTP/1.1\r\nHost: tool.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: tool.example\r\n\r\n")
		})
		if !resp.Close {
			t.Error("the answer does not close the connection")
		}
		w.closed()
	})
}

// Case 15: where a path chooses the credential.
func TestAttackPaths(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.BaseURL = true })
	r.set(bearer("tenant-a", "https://tool.example/api/"), bearer("tenant-b", "https://tool.example/b/"), bearer("whole", "https://evil.example/"))
	ways := map[string]func(path string) *http.Response{
		tunnelH1: func(p string) *http.Response {
			return r.toTool().ask("GET " + p + " HTTP/1.1\r\nHost: tool.example\r\n\r\n")
		},
		tunnelH2: func(p string) *http.Response {
			w := r.http2("tool.example:443", "tool.example")
			return w.answer(w.get(":path: " + p))
		},
		plain: func(p string) *http.Response {
			return r.dial().ask("GET http://tool.example" + p + " HTTP/1.1\r\nHost: x\r\n\r\n")
		},
		"base URL": func(p string) *http.Response {
			return r.dial().ask("GET /c/tenant-a" + strings.TrimPrefix(p, "/api") + " HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n")
		},
	}
	for _, row := range []struct {
		name, path string
		want       *kind
	}{
		{"15 dot segments", "/api/../b/x", kindBadRequest},
		{"15 %2e%2e", "/api/%2e%2e/b/x", kindBadRequest},
		{"15 %252e%252e", "/api/%252e%252e/b/x", kindBadRequest},
		{"15 ..;", "/api/..;/b/x", kindBadRequest},
		{"15 ..%2f", "/api/..%2fb/x", kindBadRequest},
		{"15 ..%5c", "/api/..%5cb/x", kindBadRequest},
		{"15 a backslash", `/api/..\b/x`, kindBadRequest},
		{"15 double slash", "/api//../b", kindBadRequest},
		{"15 a bad escape", "/api/%zz", kindBadRequest},
		{"15 a fragment", "/api/#/../b", kindBadRequest},
		{"15 a dot segment at the end", "/api/..", kindBadRequest},
		{"15 %00", "/api/%00", kindBadRequest},
	} {
		for way, ask := range ways {
			t.Run(row.name+", "+way, func(t *testing.T) {
				r.use(t)
				if way == tunnelH2 && engine() == engineNet && strings.Contains(row.path, "%zz") {
					r.cut(func() *http.Response { return ask(row.path) }) // net/http's own judgement
					return
				}
				r.refuses(row.want, func() *http.Response { return ask(row.path) })
			})
		}
	}
	for way, ask := range ways {
		if way == "base URL" {
			continue // it cannot ask for another path than its credential's
		}
		t.Run("15 /apix is not below /api, "+way, func(t *testing.T) {
			r.use(t)
			r.refuses(kindNoCredential, func() *http.Response { return ask("/apix/y") })
		})
	}
	for _, path := range []string{"/api/a;b=c/%E2%82%AC/%7e~/x?q=/../&r=%2e%2e", "/api/", "/api/x?", "/api/a+b%20c?x=a b|c"} {
		path = strings.ReplaceAll(path, "a b|", "a%20b|")
		for way, ask := range ways {
			t.Run("15 the raw path is forwarded byte for byte, "+way+" "+path, func(t *testing.T) {
				r.use(t)
				seen, _ := r.passes(func() *http.Response { return ask(path) })
				if seen.RequestURI != path {
					t.Errorf("the tool got %s", seen.RequestURI)
				}
			})
		}
	}
	t.Run("15 where no path is part of a rule it is the tool's business", func(t *testing.T) {
		r.use(t)
		for _, path := range []string{"/a/../b", "//x//y", "/%2e%2e/..;/x", "/a//b?", "/?", "//"} {
			seen, _ := r.passes(func() *http.Response {
				return r.tunnel("evil.example:443", "evil.example").ask("GET " + path + " HTTP/1.1\r\nHost: evil.example\r\n\r\n")
			})
			if seen.RequestURI != path {
				t.Errorf("the tool got %s for %s", seen.RequestURI, path)
			}
		}
	})
	t.Run("15a spaces in :path and :method never reach the tool's request line", func(t *testing.T) {
		r.use(t)
		for _, field := range []string{":path: /api/x HTTP/1.0", ":path: /api/x\tHTTP/1.0", ":method: GET /b/x", ":path: api", ":path: /api/\u00a0 x"} {
			w := r.http2("tool.example:443", "tool.example")
			resp := w.answer(w.get(field))
			if resp.StatusCode == resetStatus {
				continue // net/http's own judgement
			}
			checkProblem(t, resp, kindBadRequest)
			r.entry()
		}
		if n := len(r.entries); n != 0 {
			t.Errorf("%d more entries", n)
		}
	})
	t.Run("15 a base URL of an unknown name", func(t *testing.T) {
		r.use(t)
		for _, path := range []string{"/c/nobody/x", "/c/../c/tenant-a/x", "/c/tenant-a", "/c//x", "/", "/c/tenant%2da/x"} {
			want := kindNoCredential
			if path == "/" || path == "/c/tenant-a" {
				want = kindBadRequest
			}
			r.refuses(want, func() *http.Response {
				return r.dial().ask("GET " + path + " HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n")
			})
		}
	})
}
