package proxy

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"pillion/creds"
)

// aim finds out where a request wants to go, by the way that it came in.
func (s *Server) aim(x *exchange, r *http.Request) error {
	if err := checkHTTP2(r); err != nil {
		return err
	}
	var err error
	switch t := tunnelOf(r.Context()); {
	case t != nil:
		err = x.aimTunnel(t, r)
	case r.URL.IsAbs():
		err = s.aimProxy(x, r)
	default:
		err = s.aimBaseURL(x, r)
	}
	if err != nil {
		return err
	}
	return checkMethod(r)
}

// checkMethod refuses what would reflect the credential back to the client, and
// what asks for another tunnel inside one.
func checkMethod(r *http.Request) error {
	switch strings.ToUpper(r.Method) { // some servers take any case
	case "TRACE", "TRACK", http.MethodConnect:
		return &problem{kind: kindMethodRefused, detail: r.Method + " is refused: it would give the credential back, or lead around the choice of one."}
	}
	if r.RequestURI == "*" {
		return badRequest("OPTIONS * names no path")
	}
	return nil
}

// checkHTTP2 holds a request of HTTP/2 to what checkHead asks of HTTP/1. A space
// in its method or path would end that part early where we write HTTP/1 to the
// tool, and net/http lets it pass; and it overlooks a Host beside :authority.
func checkHTTP2(r *http.Request) error {
	if r.ProtoMajor != 2 {
		return nil
	}
	if !isToken([]byte(r.Method)) {
		return badRequest("the method is not a token")
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host {
		return badRequest("Host and :authority differ")
	}
	return checkRequestTarget([]byte(r.Method), []byte(r.RequestURI))
}

// aimTunnel holds a tunnelled request to the target of its CONNECT: Host,
// absolute form and SNI must say the same.
func (x *exchange) aimTunnel(t *tunnel, r *http.Request) error {
	x.chosen = t.chosen
	x.target = creds.Target{Scheme: "https", Host: t.host, Port: t.port, Path: x.path}
	x.entry.Host = hostField(x.target)
	if t.serverName != "" && !sameHost(t.serverName, t.host) {
		return t.misdirected("the TLS server name is %q", t.serverName)
	}
	if r.URL.IsAbs() && r.URL.Scheme != "https" {
		return t.misdirected("the request says %s://", r.URL.Scheme)
	}
	for _, authority := range []string{r.Host, r.URL.Host} {
		if authority == "" {
			continue
		}
		host, port, err := creds.ParseAuthority(authority, 443)
		if err != nil {
			return badRequest("the host of the request is not a host name (%v)", err)
		}
		if host != t.host || port != t.port {
			return t.misdirected("the request says %q", authority)
		}
	}
	return nil
}

func (t *tunnel) misdirected(format string, args ...any) error {
	return &problem{kind: kindMisdirected, detail: fmt.Sprintf("CONNECT asked for %s, but %s. One tunnel serves one host.",
		t.authority(), fmt.Sprintf(format, args...))}
}

// sameHost compares a TLS server name with a canonical host.
func sameHost(name, host string) bool {
	canonical, _, err := creds.ParseAuthority(name, 443)
	return err == nil && canonical == host
}

// aimProxy takes the absolute form. http:// means https:// wherever a credential
// asks for it, and port 80 then means 443: a credential never travels in the
// clear. The request's Host field is ignored, as RFC 9112 section 3.2.2 says.
func (s *Server) aimProxy(x *exchange, r *http.Request) error {
	chosen, err := s.proxyUser(r)
	if err != nil {
		return err
	}
	x.chosen = chosen
	if r.URL.User != nil {
		return badRequest("the URL holds a user name: remove it, pillion knows the credential")
	}
	defaultPort := uint16(80)
	switch r.URL.Scheme {
	case "https":
		defaultPort = 443
	case "http":
	default:
		return badRequest("the URL's scheme is %q instead of http or https", r.URL.Scheme)
	}
	host, port, err := creds.ParseAuthority(r.URL.Host, defaultPort)
	if err != nil {
		return badRequest("the host of the URL is not a host name (%v)", err)
	}
	x.target = creds.Target{Scheme: "https", Host: host, Port: port, Path: x.path}
	if r.URL.Scheme == "http" {
		x.plain = &creds.Target{Scheme: "http", Host: host, Port: port, Path: x.path}
		if port == 80 {
			x.target.Port = 443
		}
	}
	x.entry.Host = hostField(x.target)
	return nil
}

// proxyUser reads Proxy-Authorization: the user names a credential ("-" and ""
// name none), the password is the client token, where one is asked for.
func (s *Server) proxyUser(r *http.Request) (string, error) {
	return s.chosen(r.Header.Get("Proxy-Authorization"))
}

func (s *Server) chosen(proxyAuthorization string) (string, error) {
	user, password, given := proxyBasic(proxyAuthorization)
	if token := s.config.Load().ClientToken; !token.IsZero() {
		if !given || subtle.ConstantTimeCompare([]byte(password), []byte(token.Reveal())) != 1 {
			return "", &problem{kind: kindProxyAuth, detail: "This proxy asks for its client token: set HTTP_PROXY=http://-:TOKEN@HOST:PORT, with a credential's name in place of - to choose that one."}
		}
	}
	if user == "-" {
		user = ""
	}
	return user, nil
}

func proxyBasic(field string) (user, password string, ok bool) {
	scheme, encoded, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain), ":")
}

const basePrefix = "/c/"

// aimBaseURL takes /c/NAME/rest for clients that know no proxy. It is open to
// any web page in a browser of this machine, so whatever a browser adds to a
// request of a page is a reason to refuse, and Host must be the listener.
func (s *Server) aimBaseURL(x *exchange, r *http.Request) error {
	if !s.config.Load().BaseURL {
		return badRequest("this is a proxy: set HTTP_PROXY and HTTPS_PROXY to it (\"pillion env\" prints them), or switch proxy.base_url on")
	}
	if err := fromBrowser(r); err != nil {
		return err
	}
	if _, err := s.proxyUser(r); err != nil {
		return err
	}
	name, rest, ok := strings.Cut(strings.TrimPrefix(x.path, basePrefix), "/")
	if !strings.HasPrefix(x.path, basePrefix) || !ok {
		return badRequest("the path is not " + basePrefix + "NAME/...")
	}
	c, ok := s.Table().ByName(name)
	if !ok || c.Protocol != creds.HTTPS {
		return &problem{kind: kindNoCredential, detail: fmt.Sprintf("There is no HTTPS credential called %q.", name)}
	}
	target, err := creds.ParseTarget(c.URL)
	if err != nil {
		return errors.Join(creds.ErrStoreUnavailable, err)
	}
	x.chosen = name
	x.path = strings.TrimSuffix(target.Path, "/") + "/" + rest
	target.Path = x.path
	x.target = target
	x.entry.Host, x.entry.Path = hostField(target), x.path
	return nil
}

func fromBrowser(r *http.Request) error {
	refused := func(why string) error {
		return &problem{kind: kindForbiddenClient, detail: "The base URL is not for web pages: " + why + "."}
	}
	if _, ok := r.Header["Origin"]; ok {
		return refused("the request has an Origin field")
	}
	for name := range r.Header {
		// Browsers send the whole family. Node's fetch sends Sec-Fetch-Mode alone,
		// and is what the base URL is for.
		if strings.HasPrefix(name, "Sec-Fetch-") && name != "Sec-Fetch-Mode" {
			return refused("the request has a " + name + " field")
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !isListener(r.Host, local) {
		return refused("its Host is not the address of the listener")
	}
	return nil
}

// isListener reports whether a Host field names the address that was connected
// to: by number, or as localhost.
func isListener(host string, local net.Addr) bool {
	addr, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != fmt.Sprint(addr.Port()) {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap() == addr.Addr().Unmap()
}
