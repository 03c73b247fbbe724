package proxy

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"pillion/creds"
)

// isHopByHop reports whether a field belongs to one connection (RFC 9110 section
// 7.6.1) or to us as a proxy: such fields do not go on to the other side.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// dropHopByHop leaves in h what is meant for the other side: also without the
// fields that its Connection field lists.
func dropHopByHop(h http.Header) {
	listed := h["Connection"]
	for name := range h {
		if isHopByHop(name) || len(listed) > 0 && hasToken(listed, name) {
			delete(h, name)
		}
	}
}

// requestHeader is what goes upstream of the client's fields, before inject. It
// is r.Header itself, changed: net/http has no more use for it, and a copy would
// be one tenth of all that a request allocates.
func requestHeader(x *exchange, r *http.Request) http.Header {
	h := r.Header
	trailers := hasToken(h["Te"], "trailers")
	dropHopByHop(h)
	if trailers {
		h["Te"] = []string{"trailers"} // gRPC asks for it; the only member that HTTP/2 knows
	}
	if x.webSocket {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or net/http adds its own
	}
	return h
}

// inject sets what the credential owns, in place of whatever the client sent
// under the same names: its own Authorization, an API key of its own, twice.
func inject(out *http.Request, a *creds.Authorization) {
	for i := range a.Headers {
		field := &a.Headers[i]
		dropSpellings(out.Header, field.Name)
		out.Header[field.Name] = []string{field.Value.Reveal()}
	}
	cleanTrailer(out.Trailer, a)
	for i := range a.Query {
		out.URL.RawQuery = setQuery(out.URL.RawQuery, a.Query[i].Name, a.Query[i].Value.Reveal())
	}
}

// dropSpellings removes fields that many servers take for the one called name:
// CGI and WSGI write X-Api-Key and X_Api_Key the same way.
func dropSpellings(h http.Header, name string) {
	for sent := range h {
		if strings.IndexByte(sent, '_') >= 0 && strings.EqualFold(strings.ReplaceAll(sent, "_", "-"), name) {
			delete(h, sent)
		}
	}
}

// cleanTrailer takes out of a trailer section what only a header may hold, and
// what the credential owns: some servers merge trailers into the header. It is
// called before the request is sent, for the names that it announces, and when
// its body has ended, for those that came.
func cleanTrailer(trailer http.Header, a *creds.Authorization) {
	if trailer == nil {
		return
	}
	dropHopByHop(trailer)
	for _, name := range [...]string{"Host", "Content-Length", "Authorization", "Cookie", "Expect"} {
		delete(trailer, name)
	}
	if a == nil {
		return
	}
	for i := range a.Headers {
		delete(trailer, a.Headers[i].Name)
		dropSpellings(trailer, a.Headers[i].Name)
	}
}

// setQuery puts name=value in the place of every parameter called name, however
// it was escaped or cased. The rest of the query stays as it was, byte for byte.
func setQuery(query, name, value string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(query, "&") {
		if part == "" || holdsParameter(part, name) {
			continue
		}
		b.WriteString(part)
		b.WriteByte('&')
	}
	b.WriteString(url.QueryEscape(name))
	b.WriteByte('=')
	b.WriteString(url.QueryEscape(value))
	return b.String()
}

// holdsParameter also looks behind semicolons, which some servers take for "&".
func holdsParameter(part, name string) bool {
	for pair := range strings.SplitSeq(part, ";") {
		key, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(key); err == nil && strings.EqualFold(plain, name) {
			return true
		}
	}
	return false
}

// isWebSocket reports whether r asks to become a WebSocket (RFC 6455 section
// 4.1). Every other upgrade (h2c, TLS/1.0) is dropped as RFC 9110 section 7.8
// allows: the request goes on as an ordinary one.
func isWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && hasToken(r.Header["Connection"], "upgrade") &&
		len(r.Header["Upgrade"]) == 1 && strings.EqualFold(r.Header["Upgrade"][0], "websocket")
}

// hasToken reports whether a comma-separated list field has the member token.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for member := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(member, ";")
			if strings.EqualFold(textproto.TrimString(name), token) {
				return true
			}
		}
	}
	return false
}

// toolsFields copies the fields of the tool's answer that are meant for the
// client. A Proxy-Status member that claims to be ours is dropped: only pillion
// speaks for pillion.
func toolsFields(dst, src http.Header) {
	listed := src["Connection"]
	for name, values := range src {
		if isHopByHop(name) || len(listed) > 0 && hasToken(listed, name) {
			continue
		}
		if name == "Proxy-Status" {
			values = withoutOurs(values)
		}
		if len(values) > 0 {
			dst[name] = values
		}
	}
}

// responseHeader is the head of the answer.
func responseHeader(dst http.Header, resp *http.Response) {
	toolsFields(dst, resp.Header)
	for _, name := range [...]string{"Date", "Content-Type"} {
		if _, ok := dst[name]; !ok {
			dst[name] = nil // or net/http makes one up
		}
	}
}

func withoutOurs(values []string) []string {
	var kept []string
	for _, v := range values {
		if !strings.Contains(strings.ToLower(v), "pillion") {
			kept = append(kept, v)
		}
	}
	return kept
}
