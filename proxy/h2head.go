package proxy

import (
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// parse makes the head of a request (RFC 9113 section 8.3) one that the fast engine
// knows, as far as it is in the engine's subset, and finds out whether it is. Its error
// ends the stream; what a person should read about is left in bad.
func (st *h2Stream) parse() error {
	f, rq := &st.head, st.rq
	rq.x = exchange{entry: Entry{Time: time.Now(), Protocol: "HTTP/2.0", Host: st.c.name}}
	st.declared = -1
	if f.truncated {
		st.bad = &problem{kind: kindHeadTooLarge, detail: "The request's header is larger than 64 KiB."}
		return nil
	}
	connect := f.method == http.MethodConnect
	wellFormed := f.path != "" && (f.scheme == "https" || f.scheme == "http")
	if connect {
		wellFormed = f.path == "" && f.scheme == "" && f.authority != ""
	}
	if f.method == "" || !wellFormed || f.protocol {
		return st.fault(http2.ErrCodeProtocol)
	}
	x := &rq.x
	x.entry.Method = f.method
	x.path, x.query, _ = strings.Cut(f.path, "?")
	x.entry.Path = x.path
	arena := rq.in[:0]
	rq.requestHead = requestHead{fields: rq.fields[:0]}
	for _, m := range plainMethods {
		if f.method == m {
			rq.requestHead.method = m
		}
	}
	arena, rq.target = keep(arena, f.path)
	arena, rq.host = keep(arena, f.authority)
	st.odd = rq.requestHead.method == "" || !plainTarget(rq.target)
	return st.parseFields(arena)
}

// keep copies s behind arena.
func keep(arena []byte, s string) (longer, kept []byte) {
	n := len(arena)
	arena = append(arena, s...)
	return arena, arena[n:len(arena):len(arena)]
}

func (st *h2Stream) parseFields(arena []byte) error {
	rq := st.rq
	var cookie []byte
	for _, f := range st.head.fields {
		take, bad := st.field(f.Name, f.Value)
		if bad != nil {
			st.bad = problemOf(bad)
			return nil
		}
		if !take {
			continue
		}
		if f.Name == "cookie" {
			if cookie != nil {
				cookie = append(cookie, "; "...) // RFC 9113 section 8.2.3
			}
			cookie = append(cookie, f.Value...)
			continue
		}
		if st.odd = st.odd || len(rq.fields) == maxFields-1; st.odd {
			continue // net/http gets the fields as they came
		}
		var name, value []byte
		arena, name = keep(arena, f.Name)
		arena, value = keep(arena, strings.Trim(f.Value, " \t"))
		canonical(name)
		rq.fields = append(rq.fields, field{name, value})
	}
	if cookie != nil {
		rq.fields = append(rq.fields, field{[]byte("Cookie"), cookie})
	}
	if st.ended && st.declared > 0 {
		return st.fault(http2.ErrCodeProtocol)
	}
	return nil
}

// canonical writes a field's name as tools of HTTP/1.1 know it.
func canonical(name []byte) {
	upper := true
	for i, c := range name {
		if upper && 'a' <= c && c <= 'z' {
			name[i] = c - ('a' - 'A')
		}
		upper = c == '-'
	}
}

// field judges one field. take says whether it goes on to the tool as it is.
func (st *h2Stream) field(name, value string) (take bool, bad error) {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false, badRequest("HTTP/2 has no field %s", name)
	case "te":
		if value != "trailers" && value != "" || st.head.count(name) > 1 {
			return false, badRequest("over HTTP/2 TE is trailers or nothing, and stands once")
		}
		st.odd = st.odd || value != ""
	case "host", "expect", "trailer":
		st.odd = true
	case "content-length":
		length, ok := plainLength([]byte(value))
		if !ok || st.declared >= 0 && length != st.declared {
			return false, badRequest("Content-Length is not a number")
		}
		st.declared = length
	case "user-agent":
		return value != "", nil
	default:
		return !isHopByHopBytes([]byte(name)), nil
	}
	return false, nil
}

// isFast finds out whether the request goes by the fast engine, and where.
func (st *h2Stream) isFast() bool {
	c, rq := st.c, st.rq
	config := st.s.config.Load()
	if st.odd || !config.Fast || config.UpstreamProxy != nil || len(rq.host) == 0 || !equalFold(rq.host, c.name) && !equalFold(rq.host, c.authority) {
		return false
	}
	rq.config = config
	x := &rq.x
	x.chosen, x.target = c.tunnel.chosen, c.target
	x.target.Path = x.path
	st.tool = c.toolOf(config)
	if !st.probe(rq) {
		return false
	}
	st.takeBody()
	return true
}

// toolOf is the tool of all of the connection's requests.
func (c *h2Conn) toolOf(config *running) *tool {
	t := c.tool.Load()
	if t == nil || t.pool != config.pool {
		t = config.pool.of(&c.target)
		c.tool.Store(t)
	}
	return t
}

// takeBody decides on how the tool gets the body: with the head, if all of it has come
// and is small.
func (st *h2Stream) takeBody() {
	c, rq := st.c, st.rq
	c.lock.Lock()
	defer c.lock.Unlock()
	switch {
	case st.ended:
		rq.length = st.got
		if st.got <= maxRecord {
			rq.body = st.body.whole()
		}
	case st.declared >= 0:
		rq.length = st.declared
	default:
		rq.chunked = true
	}
}
