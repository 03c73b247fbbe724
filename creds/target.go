package creds

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Target is where a request goes, in canonical form: compare it as it is.
type Target struct {
	Scheme string // "https", "sftp" or "http"
	Host   string // lower-case ASCII (IDNA), no trailing dot; an IP address without brackets
	Port   uint16 // never 0
	Path   string // as on the wire, from the first "/"; no query
}

// Authority returns host:port, with brackets around an IPv6 address.
func (t Target) Authority() string {
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// Origin returns scheme://host:port, the port always included.
func (t Target) Origin() string { return t.Scheme + "://" + t.Authority() }

// String returns the URL without its query.
func (t Target) String() string { return t.Origin() + t.Path }

// URL returns the URL without its query as people write it: without the port
// when it is https's own. An sftp URL always shows its port.
func (t Target) URL() string {
	if t.Scheme != string(HTTPS) || t.Port != 443 {
		return t.String()
	}
	if strings.Contains(t.Host, ":") {
		return t.Scheme + "://[" + t.Host + "]" + t.Path
	}
	return t.Scheme + "://" + t.Host + t.Path
}

// TargetError says why a URL or an authority is not one that pillion sends
// requests to. It never repeats the input, which may hold a password.
type TargetError struct{ Problem string }

func (e *TargetError) Error() string { return e.Problem }

func badTarget(problem string) error { return &TargetError{Problem: problem} }

// defaultPorts are the ports of a URL that names none.
var defaultPorts = map[string]uint16{"https": 443, "http": 80, "sftp": 22}

// ParseTarget reads a full URL, as a person or a client writes it. Query and
// fragment are dropped: they never choose a credential.
func ParseTarget(rawURL string) (Target, error) {
	u, err := splitURL(rawURL)
	if err != nil {
		return Target{}, err
	}
	return u.target()
}

// urlParts is a URL cut at its delimiters, nothing decoded or checked. net/url
// would decode and forgive what must be seen here as it was written.
type urlParts struct {
	scheme, authority, path, query, fragment string
	hasQuery, hasFragment                    bool
}

func splitURL(raw string) (urlParts, error) {
	var u urlParts
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return u, badTarget("has no scheme: write the whole URL, such as https://host/ or sftp://host:22/")
	}
	u.scheme = strings.ToLower(scheme)
	if _, known := defaultPorts[u.scheme]; !known {
		return u, badTarget("has a scheme other than https, http and sftp")
	}
	rest, u.fragment, u.hasFragment = strings.Cut(rest, "#")
	rest, u.query, u.hasQuery = strings.Cut(rest, "?")
	u.authority, u.path = rest, "/"
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		u.authority, u.path = rest[:slash], rest[slash:]
	}
	return u, nil
}

func (u urlParts) target() (Target, error) {
	host, port, err := ParseAuthority(u.authority, defaultPorts[u.scheme])
	if err != nil {
		return Target{}, err
	}
	for i := range len(u.path) {
		if c := u.path[i]; c <= ' ' || c == 0x7f {
			return Target{}, badTarget("holds a space or a control character in its path: percent-encode it")
		}
	}
	return Target{Scheme: u.scheme, Host: host, Port: port, Path: u.path}, nil
}

// ParseAuthority reads the host[:port] of a request and returns the host in
// canonical form. With defaultPort 0 the port must be there.
//
// It is strict, because whatever it forgives may be read as another host by
// what comes after us: no user info, no path, no escape, no zone, no IPv4
// address but the dotted one. It does not allocate for a host that is
// canonical already, which is what nearly every client sends.
func ParseAuthority(authority string, defaultPort uint16) (host string, port uint16, err error) {
	if err := checkAuthorityBytes(authority); err != nil {
		return "", 0, err
	}
	host, portText, hasPort, err := splitAuthority(authority)
	if err != nil {
		return "", 0, err
	}
	port = defaultPort
	if hasPort {
		if port, err = parsePort(portText); err != nil {
			return "", 0, err
		}
	}
	if port == 0 {
		return "", 0, badTarget("the port is missing: write host:port")
	}
	if authority[0] == '[' {
		host, err = canonicalIPv6(host)
	} else {
		host, err = canonicalName(host)
	}
	if err != nil {
		return "", 0, err
	}
	return host, port, nil
}

// maxAuthority leaves room for a name of 253 characters in its longest Unicode
// form. IDNA's time grows with the square of the length, so it is checked first.
const maxAuthority = 1024

func checkAuthorityBytes(authority string) error {
	if authority == "" {
		return badTarget("the host is missing")
	}
	if len(authority) > maxAuthority {
		return badTarget("has a host longer than 253 characters")
	}
	for i := range len(authority) {
		switch c := authority[i]; {
		case c == '@':
			return badTarget("holds a user name or password before an @: remove it")
		case c == '/' || c == '?' || c == '#':
			return badTarget("holds a path, query or fragment where only host and port belong")
		case c == '%':
			return badTarget("holds a % in the host: neither percent-encoding nor IPv6 zones belong there")
		case c <= ' ' || c == 0x7f:
			return badTarget("holds a space or a control character in the host")
		case c == '\\':
			return badTarget("holds a backslash in the host")
		}
	}
	return nil
}

// splitAuthority cuts the port off. Brackets are taken away from the host, so
// the caller looks at authority[0] to know that they were there.
func splitAuthority(authority string) (host, port string, hasPort bool, err error) {
	if authority[0] == '[' {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", "", false, badTarget("has a [ without its ]")
		}
		host, rest := authority[1:end], authority[end+1:]
		if rest == "" {
			return host, "", false, nil
		}
		if rest[0] != ':' {
			return "", "", false, badTarget("has text between the ] and the port")
		}
		return host, rest[1:], true, nil
	}
	colon := strings.IndexByte(authority, ':')
	if colon < 0 {
		return authority, "", false, nil
	}
	if strings.IndexByte(authority[colon+1:], ':') >= 0 {
		return "", "", false, badTarget("has more than one colon: an IPv6 address stands in brackets, such as [2001:db8::1]:443")
	}
	return authority[:colon], authority[colon+1:], true, nil
}

func parsePort(text string) (uint16, error) {
	if text == "" || text[0] < '1' || text[0] > '9' { // no sign, no leading zero, no 0
		return 0, badTarget("the port is not a number from 1 to 65535")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, badTarget("the port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

func canonicalIPv6(text string) (string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", badTarget("has something other than an IPv6 address in brackets")
	}
	var buf [64]byte
	if canonical := addr.AppendTo(buf[:0]); string(canonical) != text {
		return string(canonical), nil
	}
	return text, nil
}

func canonicalName(host string) (string, error) {
	if !isASCII(host) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil || !utf8.ValidString(host) { // idna replaces invalid bytes
			return "", badTarget("has a host that is not a valid international domain name")
		}
		host = ascii // checked below as any other: what looked foreign may have been mapped to digits or dots
	}
	host = strings.ToLower(strings.TrimSuffix(host, ".")) // both return what is canonical as it is
	if err := checkName(host); err != nil {
		return "", err
	}
	return host, nil
}

// checkName accepts DNS names, with the underscore that some intranets have,
// and dotted IPv4 addresses. Whatever ends in a number is an address to some
// resolvers (127.1, 0x7f.1, 2130706433), so it must be one in canonical form.
func checkName(host string) error {
	if host == "" {
		return badTarget("the host is missing")
	}
	if len(host) > 253 {
		return badTarget("has a host longer than 253 characters")
	}
	last := host
	for rest, more := host, true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if err := checkLabel(last); err != nil {
			return err
		}
	}
	if !isNumber(last) {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err != nil || !addr.Is4() {
		return badTarget("has a host that ends in a number: an IPv4 address is written as four decimal numbers, such as 192.0.2.1")
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" {
		return badTarget("has an empty part in the host (a dot too many)")
	}
	if len(label) > 63 {
		return badTarget("has a part longer than 63 characters in the host")
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return badTarget("has a part of the host that begins or ends with a hyphen")
	}
	for i := range len(label) {
		if c := label[i]; !isLowerAlnum(c) && c != '-' && c != '_' {
			return badTarget("holds a character in the host that no host name has")
		}
	}
	return nil
}

// isNumber is the question of the WHATWG URL standard's "ends in a number".
func isNumber(label string) bool {
	digits, hex := label, false
	if strings.HasPrefix(label, "0x") {
		digits, hex = label[2:], true
	}
	for i := range len(digits) {
		c := digits[i]
		if !(c >= '0' && c <= '9' || hex && c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

func isLowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
