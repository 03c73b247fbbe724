package proxy

import (
	"bytes"

	"golang.org/x/net/http/httpguts"
)

// field is one header field. Both parts point into the buffer that it was read
// to.
type field struct{ name, value []byte }

// maxFields bounds what the fast engine reads of one head; with more it is handed
// over.
const maxFields = 64

// requestHead is the head of an HTTP/1.1 request in the subset that the fast
// engine takes: whatever is unusual is left to gate.go and net/http, which judge
// it by the whole grammar. All of it is narrower than checkHead, which
// FuzzFastHead holds it to.
type requestHead struct {
	size      int // with its empty line
	method    string
	authority []byte // of an absolute-form target; nil for the origin form
	target    []byte // path and query
	host      []byte
	proxyAuth []byte
	length    int64 // of the body; 0: none
	chunked   bool
	closing   bool    // Connection: close
	fields    []field // end to end ones, without Host and framing
}

// plainMethods are the methods of the fast engine, and of nearly every client.
var plainMethods = [...]string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"}

// parse reads a whole head, up to and including its empty line. It reports whether
// the head is in the subset; if not, nothing in h means anything.
func (h *requestHead) parse(head []byte) bool {
	*h = requestHead{size: len(head), fields: h.fields[:0]}
	line, rest, ok := cutLine(head)
	if !ok || !h.line(line) {
		return false
	}
	var seen requestSeen
	for {
		if line, rest, ok = cutLine(rest); !ok {
			return false
		}
		if len(line) == 0 {
			break
		}
		if !h.field(line, &seen) {
			return false
		}
	}
	return len(rest) == 0 && seen.host && !(seen.length && h.chunked)
}

// requestSeen are the fields that stand once at most.
type requestSeen struct{ host, length, connection, proxyAuth bool }

// line takes the request line: METHOD SP TARGET SP HTTP/1.1.
func (h *requestHead) line(line []byte) bool {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return false
	}
	for _, m := range plainMethods {
		if string(method) == m {
			h.method = m
		}
	}
	target, ok := bytes.CutSuffix(rest, []byte(" HTTP/1.1"))
	if !ok || h.method == "" {
		return false
	}
	if after, absolute := bytes.CutPrefix(target, []byte("http://")); absolute {
		slash := bytes.IndexByte(after, '/')
		if slash < 1 {
			return false
		}
		h.authority, target = after[:slash], after[slash:]
		if !plainAuthority(h.authority) {
			return false
		}
	}
	h.target = target
	return plainTarget(target)
}

// plainAuthority reports whether authority is a name, or an IPv4 address, and perhaps
// a port. Whether it may be asked for is decided where it is aimed at.
func plainAuthority(authority []byte) bool {
	name, port, ported := bytes.Cut(authority, []byte(":"))
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(name) > 0 && ported == (len(port) > 0)
}

// plainTarget reports whether target is a path, with or without a query, in
// printable ASCII, which every parser reads the same way. Whether it may be sent
// is decided where it is matched.
func plainTarget(target []byte) bool {
	if len(target) == 0 || target[0] != '/' || len(target) > 1 && target[1] == '/' {
		return false
	}
	query := false
	for i, c := range target {
		switch {
		case c <= ' ' || c >= 0x7f || c == '#':
			return false
		case c == '?':
			query = true
		case c == '%' && !query && (len(target) < i+3 || !isHex(target[i+1]) || !isHex(target[i+2])):
			return false
		}
	}
	return true
}

// field takes one field line. It returns false for what the engine does not know
// how to pass on.
func (h *requestHead) field(line []byte, seen *requestSeen) bool {
	name, value, ok := splitField(line)
	if !ok {
		return false
	}
	switch len(name) {
	case len("te"):
		if equalFold(name, "te") {
			return false
		}
	case len("host"):
		if equalFold(name, "host") {
			h.host = value
			return once(&seen.host) && plainAuthority(value)
		}
	case len("expect"):
		if equalFold(name, "expect") {
			return false
		}
	case len("upgrade"): // and "trailer"
		if equalFold(name, "upgrade") || equalFold(name, "trailer") {
			return false
		}
	case len("connection"): // and "keep-alive", "user-agent"
		if len(value) == 0 && equalFold(name, "user-agent") {
			return true // as net/http does
		}
		if equalFold(name, "connection") {
			h.closing = equalFold(value, "close")
			return once(&seen.connection) && (h.closing || equalFold(value, "keep-alive"))
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			h.length, ok = plainLength(value)
			return ok && once(&seen.length)
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			return once(&h.chunked) && equalFold(value, "chunked")
		}
	case len("proxy-authorization"):
		if equalFold(name, "proxy-authorization") {
			h.proxyAuth = value
			return once(&seen.proxyAuth)
		}
	}
	if isHopByHopBytes(name) {
		return true
	}
	if len(h.fields) == maxFields {
		return false
	}
	h.fields = append(h.fields, field{name, value})
	return true
}

func once(seen *bool) bool {
	first := !*seen
	*seen = true
	return first
}

// splitField cuts a field line, without its line end, into name and value: a token
// and a colon, and no control character.
func splitField(line []byte) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, nil, false
	}
	name, value = line[:colon], line[colon+1:]
	for _, c := range name {
		if !tokenBytes[c] {
			return nil, nil, false
		}
	}
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, false
		}
	}
	return name, value, true
}

// tokenBytes are the bytes of a token (RFC 9110 section 5.6.2).
var tokenBytes = func() (table [256]bool) {
	for c := range 0x80 {
		table[c] = httpguts.IsTokenRune(rune(c))
	}
	return table
}()

// maxLengthDigits keeps a length, and a sum of lengths, far from overflow.
const maxLengthDigits = 17

func plainLength(value []byte) (int64, bool) {
	if len(value) == 0 || len(value) > maxLengthDigits {
		return 0, false
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// isHopByHopBytes is isHopByHop for a name in any case.
func isHopByHopBytes(name []byte) bool {
	switch len(name) {
	case len("te"):
		return equalFold(name, "te")
	case len("trailer"):
		return equalFold(name, "trailer") || equalFold(name, "upgrade")
	case len("connection"):
		return equalFold(name, "connection") || equalFold(name, "keep-alive")
	case len("http2-settings"):
		return equalFold(name, "http2-settings")
	case len("proxy-connection"):
		return equalFold(name, "proxy-connection")
	case len("transfer-encoding"):
		return equalFold(name, "transfer-encoding")
	case len("proxy-authenticate"):
		return equalFold(name, "proxy-authenticate")
	case len("proxy-authorization"):
		return equalFold(name, "proxy-authorization")
	case len("proxy-authentication-info"):
		return equalFold(name, "proxy-authentication-info")
	}
	return false
}

// owns reports whether a field that a client sends, in any case and with
// underscores as CGI writes them, is the one that the credential sets.
func owns(name string, sent []byte) bool {
	if len(sent) != len(name) {
		return false
	}
	for i, c := range sent {
		if foldByte(c) != foldByte(name[i]) && (c != '_' || name[i] != '-') {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
