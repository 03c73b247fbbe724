package proxy

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// maxHead bounds a request's line and header fields together.
const maxHead = 64 << 10

// framing is what the head of an HTTP/1 request says about the bytes behind it.
type framing struct {
	length  int64 // Content-Length, when the body is neither chunked nor opaque
	chunked bool
	opaque  bool // CONNECT or a WebSocket handshake (isWebSocket agrees): no requests follow
}

// checkHead judges the head of an HTTP/1 request, up to and including its empty
// line, by a stricter grammar than net/http's (RFC 9112 without its tolerances):
// lines end in CRLF, nothing is folded, Content-Length and Transfer-Encoding
// stand once and never together, Host stands once. Whatever two parsers could
// read in two ways is refused here, before anybody acts on it. A head that
// passes is one that net/http accepts.
func checkHead(head []byte) (framing, error) {
	line, rest, ok := cutLine(head)
	if !ok {
		return framing{}, badRequest("a line does not end in CR LF")
	}
	method, http11, err := checkRequestLine(line)
	if err != nil {
		return framing{}, err
	}
	return checkFields(rest, http11, string(method) == "CONNECT")
}

func checkRequestLine(line []byte) (method []byte, http11 bool, err error) {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || !isToken(method) {
		return nil, false, badRequest("the request line does not begin with a method")
	}
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(target) == 0 {
		return nil, false, badRequest("the request line is not METHOD SP TARGET SP VERSION")
	}
	switch string(version) {
	case "HTTP/1.1":
		http11 = true
	case "HTTP/1.0":
	case "HTTP/2.0":
		return nil, false, badRequest("HTTP/2 was not negotiated on this connection: offer h2 by ALPN inside CONNECT")
	default:
		return nil, false, badRequest("the protocol version is not HTTP/1.1 or HTTP/1.0")
	}
	return method, http11, checkRequestTarget(method, target)
}

func checkRequestTarget(method, target []byte) error {
	for _, c := range target {
		if c <= ' ' || c == 0x7f || c == '#' {
			return badRequest("the request target has a space, a control character or a fragment")
		}
	}
	if target[0] == '/' {
		path, _, _ := bytes.Cut(target, []byte("?"))
		if !validEscapes(path) {
			return badRequest("the path has a percent sign that does not begin an escape")
		}
		return nil
	}
	uri := string(target)
	if string(method) == "CONNECT" {
		uri = "http://" + uri
	}
	if _, err := url.ParseRequestURI(uri); err != nil {
		return badRequest("the request target is not a URL")
	}
	return nil
}

func validEscapes(path []byte) bool {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		if len(path) < i+3 || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return false
		}
		path = path[i+3:]
	}
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// fieldCounts says how often the fields stood that must not stand twice, and
// whether the two halves of a WebSocket handshake did.
type fieldCounts struct {
	host, length, encoding, upgrade int
	toWebSocket, connectionUpgrade  bool
}

func checkFields(rest []byte, http11, isConnect bool) (framing, error) {
	var f framing
	var n fieldCounts
	for {
		line, next, ok := cutLine(rest)
		if !ok {
			return f, badRequest("a line does not end in CR LF")
		}
		if len(line) == 0 {
			break
		}
		rest = next
		if err := f.field(line, &n); err != nil {
			return f, err
		}
	}
	f.opaque = isConnect || n.connectionUpgrade && n.upgrade == 1 && n.toWebSocket
	switch {
	case n.host > 1, n.host == 0 && http11:
		return f, badRequest("Host stands %d times instead of once", n.host)
	case n.length > 1:
		return f, badRequest("Content-Length stands %d times", n.length)
	case n.encoding > 1:
		return f, badRequest("Transfer-Encoding stands %d times", n.encoding)
	case n.encoding == 1 && n.length == 1:
		return f, badRequest("Content-Length and Transfer-Encoding stand together")
	case n.encoding == 1 && !http11:
		return f, badRequest("HTTP/1.0 knows no Transfer-Encoding")
	case f.opaque && (f.chunked || f.length > 0):
		return f, badRequest("CONNECT and WebSocket handshakes have no body")
	}
	return f, nil
}

func (f *framing) field(line []byte, n *fieldCounts) error {
	if line[0] == ' ' || line[0] == '\t' {
		return badRequest("a header field is folded over two lines")
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) {
		return badRequest("a header field does not begin with a name and a colon")
	}
	value = bytes.Trim(value, " \t")
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return badRequest("the value of %s has a control character", name)
		}
	}
	switch {
	case equalFold(name, "host"):
		n.host++
		if !httpguts.ValidHostHeader(string(value)) {
			return badRequest("Host is not a host name")
		}
	case equalFold(name, "content-length"):
		n.length++
		return f.contentLength(value)
	case equalFold(name, "transfer-encoding"):
		n.encoding++
		if !equalFold(value, "chunked") {
			return badRequest("the only Transfer-Encoding is chunked")
		}
		f.chunked = true
	case equalFold(name, "expect"):
		if len(value) > 0 && !equalFold(value, "100-continue") {
			return badRequest("the only expectation is 100-continue")
		}
	case equalFold(name, "upgrade"):
		n.upgrade++
		n.toWebSocket = equalFold(value, "websocket")
	case equalFold(name, "connection"):
		n.connectionUpgrade = n.connectionUpgrade || hasToken([]string{string(value)}, "upgrade")
	case equalFold(name, "trailer"):
		return checkTrailerNames(value)
	}
	return nil
}

// checkTrailerNames refuses trailers that would change the framing: net/http
// would answer them by itself.
func checkTrailerNames(value []byte) error {
	for name := range bytes.SplitSeq(value, []byte(",")) {
		name = bytes.Trim(name, " \t")
		if equalFold(name, "transfer-encoding") || equalFold(name, "content-length") || equalFold(name, "trailer") {
			return badRequest("%s cannot be a trailer", name)
		}
	}
	return nil
}

func (f *framing) contentLength(value []byte) error {
	for _, c := range value {
		if c < '0' || '9' < c {
			return badRequest("Content-Length is not a number")
		}
	}
	length, err := strconv.ParseInt(string(value), 10, 63)
	if err != nil {
		return badRequest("Content-Length is not a number")
	}
	f.length = length
	return nil
}

// cutLine splits b behind its first CRLF. A CR or LF that stands alone ends
// nothing: it makes ok false, or stays in the line for checkFields to find.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return len(b) > 0
}

// equalFold compares b with an ASCII string in lower case, without allocating.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func badRequest(format string, args ...any) error {
	return &problem{kind: kindBadRequest, detail: "The request is malformed: " + fmt.Sprintf(format, args...) + "."}
}
