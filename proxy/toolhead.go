package proxy

import (
	"bytes"
	"net/http"
)

// toolAnswer is the head of a tool's answer as it goes on to a client of whatever
// protocol: end-to-end fields alone. Their bytes are the reading buffer's.
type toolAnswer struct {
	status   int
	fields   []field
	length   int64   // of the body; -1: it says itself where it ends
	bodyless bool    // HEAD, 204, 304: length is then a field like others
	trailers []field // behind the body, once that has ended

	chunked bool // how the tool delimits it
	closing bool // the tool will not take another request on this connection
}

// parse reads a whole head of an answer to method, up to and including its empty
// line, in the subset that the fast engine relays. Whatever else net/http would
// accept (a folded line, a bare LF, HTTP/1.0, announced trailers) it leaves to
// net/http: false.
func (a *toolAnswer) parse(head []byte, method string) bool {
	*a = toolAnswer{length: -1, fields: a.fields[:0], trailers: a.trailers[:0]}
	line, rest, ok := cutLine(head)
	if !ok || !a.line(line) {
		return false
	}
	var seen answerSeen
	for {
		if line, rest, ok = cutLine(rest); !ok {
			return false
		}
		if len(line) == 0 {
			break
		}
		if !a.field(line, &seen) {
			return false
		}
	}
	if len(rest) > 0 || a.chunked && seen.length {
		return false
	}
	if seen.connection != nil {
		a.dropListed(seen.connection)
	}
	a.bodyless = method == http.MethodHead || a.status == http.StatusNoContent || a.status == http.StatusNotModified || a.status < 200
	return true
}

type answerSeen struct {
	length, encoding bool
	connection       []byte
}

// line takes the status line: HTTP/1.1 SP 3DIGIT SP reason.
func (a *toolAnswer) line(line []byte) bool {
	status, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(status) < 3 || len(status) > 3 && status[3] != ' ' {
		return false
	}
	for _, c := range status[:3] {
		if c < '0' || c > '9' {
			return false
		}
		a.status = 10*a.status + int(c-'0')
	}
	for _, c := range status[3:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return a.status >= 100 && a.status <= 599
}

func (a *toolAnswer) field(line []byte, seen *answerSeen) bool {
	name, value, ok := splitField(line)
	if !ok {
		return false
	}
	switch len(name) {
	case len("trailer"):
		if equalFold(name, "trailer") {
			return false
		}
	case len("connection"):
		if equalFold(name, "connection") {
			if seen.connection != nil {
				return false
			}
			seen.connection = value
			if seen.connection == nil {
				seen.connection = []byte{}
			}
			return true
		}
	case len("proxy-status"):
		if equalFold(name, "proxy-status") && containsFold(value, "pillion") {
			return true // only pillion speaks for pillion
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			a.length, ok = plainLength(value)
			return ok && once(&seen.length)
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			a.chunked = true
			return once(&seen.encoding) && equalFold(value, "chunked")
		}
	}
	if isHopByHopBytes(name) {
		return true
	}
	if len(a.fields) == maxFields {
		return false
	}
	a.fields = append(a.fields, field{name, value})
	return true
}

// dropListed takes out what the Connection field names, and remembers "close".
func (a *toolAnswer) dropListed(list []byte) {
	for member := range bytes.SplitSeq(list, []byte(",")) {
		member, _, _ = bytes.Cut(member, []byte(";"))
		member = bytes.Trim(member, " \t")
		if equalFold(member, "close") {
			a.closing = true
		}
		kept := a.fields[:0]
		for _, f := range a.fields {
			if !bytes.EqualFold(f.name, member) {
				kept = append(kept, f)
			}
		}
		a.fields = kept
	}
}

// containsFold reports whether b holds an ASCII string in lower case.
func containsFold(b []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(b); i++ {
		if equalFold(b[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}

// trailer reads the section behind a chunked body, which chunkScanner has judged,
// up to its empty line. What only a header may hold is left out.
func (a *toolAnswer) trailer(section []byte) {
	for len(section) > 0 {
		line, rest, ok := cutLine(section)
		if !ok || len(line) == 0 {
			return
		}
		section = rest
		name, value, ok := splitField(line)
		if !ok || isHopByHopBytes(name) || equalFold(name, "content-length") ||
			equalFold(name, "proxy-status") && containsFold(value, "pillion") {
			continue
		}
		a.trailers = append(a.trailers, field{name, value})
	}
}
