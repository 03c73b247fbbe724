package creds

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Where a path chooses the credential, two programs that read it differently
// would send one tenant's credential to another: "/a/..;/b" is below /a to one
// server and below /b to the next. Such a path is refused, not guessed at. The
// path itself is forwarded byte for byte either way.

// AmbiguousPathError says that a path can be read in more than one way on a
// host whose credentials are chosen by path.
type AmbiguousPathError struct {
	Target  Target
	Problem string // "holds a dot segment"
}

func (e *AmbiguousPathError) Error() string {
	return fmt.Sprintf("the path of the request to %s %s, and on this host the path chooses the credential: send it in its plain form", e.Target.Origin(), e.Problem)
}

const (
	pathBadEscape = "holds a % that is not followed by two hexadecimal digits"
	pathEncoded   = "is percent-encoded more than four times over"
	pathNotUTF8   = "is not valid UTF-8 once decoded"
	pathControl   = "holds a control character"
	pathBackslash = "holds a backslash"
	pathEmpty     = "holds an empty segment (//)"
	pathDot       = "holds a dot segment (/./ or /../)"
	pathRelative  = "does not begin with a slash"
	pathOther     = "belongs to another credential once it is decoded"
	pathParameter = "holds an encoded slash beside a path parameter (;)"
)

// plainPath reports whether a path can be read in one way only, by looking at
// each byte once. No is not a verdict: barePath then looks closely.
func plainPath(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ' || c >= 0x7f || c == '%' || c == '\\' || c == ';':
			return false
		case c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.'):
			return false
		}
	}
	return path != "" && path[0] == '/'
}

// barePath returns path fully decoded and without path parameters (";x"): of all
// readings the one that the most prefixes match. Prefixes hold none of % ; ? #,
// so decoding a path and cutting its segments can only add to the prefixes that
// match it; if this reading selects the same credential as path itself, all in
// between do (decoded once, cut before decoding, cut at an encoded "?"). A
// problem is why there is no second opinion on path worth having.
func barePath(path string) (bare, problem string) {
	if path == "" || path[0] != '/' {
		return "", pathRelative
	}
	decoded, problem := decodeFully(path)
	if problem != "" {
		return "", problem
	}
	if !utf8.ValidString(decoded) {
		return "", pathNotUTF8
	}
	for i := range len(decoded) {
		switch c := decoded[i]; {
		case c < ' ' || c == 0x7f:
			return "", pathControl
		case c == '\\':
			return "", pathBackslash
		}
	}
	if strings.IndexByte(decoded, ';') >= 0 && strings.Count(decoded, "/") != strings.Count(path, "/") {
		return "", pathParameter // whether the slash ends the parameter depends on what is done first
	}
	return withoutParameters(decoded)
}

// maxDecoding is how many layers of percent-encoding are looked through. Clients
// produce one, proxies that meddle two.
const maxDecoding = 4

func decodeFully(path string) (decoded, problem string) {
	for layer := range maxDecoding + 1 { // the last one finds nothing left to decode
		next, stray := decodeOnce(path)
		if stray && layer == 0 { // some servers know escapes of their own, such as %u002e
			return "", pathBadEscape
		}
		if next == path {
			return path, ""
		}
		path = next
	}
	return "", pathEncoded
}

// decodeOnce takes one layer of percent-encoding away. A stray % stays, as it
// does where "%25" stood for the sign itself.
func decodeOnce(path string) (decoded string, stray bool) {
	first := strings.IndexByte(path, '%')
	if first < 0 {
		return path, false
	}
	var b strings.Builder
	b.WriteString(path[:first])
	for i := first; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if high, low := unhex(path[i+1]), unhex(path[i+2]); high >= 0 && low >= 0 {
				b.WriteByte(byte(high<<4 | low))
				i += 2
				continue
			}
		}
		stray = stray || path[i] == '%'
		b.WriteByte(path[i])
	}
	return b.String(), stray
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// parameterMarks end the part of a decoded segment that every server reads alike.
const parameterMarks = ";?#"

func withoutParameters(path string) (bare, problem string) {
	hasParameter := strings.ContainsAny(path, parameterMarks)
	var b strings.Builder
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		name := segment
		if mark := strings.IndexAny(segment, parameterMarks); mark >= 0 {
			name = segment[:mark]
		}
		switch {
		case name == "." || name == "..":
			return "", pathDot
		case name == "" && more: // the last one is empty after a closing slash
			return "", pathEmpty
		}
		if hasParameter {
			b.WriteByte('/')
			b.WriteString(name)
		}
	}
	if !hasParameter {
		return path, ""
	}
	return b.String(), ""
}
