package main

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// share is a kind of errand, and how often it is run beside the others.
type share struct {
	often int
	make  func() errand
}

// draw takes one of them, with a number of its own.
func draw(shares []share) errand {
	total := 0
	for _, s := range shares {
		total += s.often
	}
	at := rand.N(total)
	for _, s := range shares {
		if at -= s.often; at < 0 {
			e := s.make()
			e.ID = errands.Add(1) * 8 // bodies are those of the numbers behind it, too
			return e
		}
	}
	panic("unreachable")
}

var errands atomic.Uint64

// keyOf draws one of these credentials.
func keyOf(names ...string) soakKey {
	key, ok := soakKeyNamed(names[rand.N(len(names))])
	if !ok {
		panic("no such key")
	}
	return key
}

func anyKey() soakKey {
	return keyOf("static", "static", "basic", "header", "query", "oauth", "oauth", "rotated", "both", "both", "both-oauth", "only2", "only2-oauth")
}

func plainKey() soakKey { return keyOf("static", "basic", "header", "query", "rotated") }

func get(kind string, key soakKey, o order) errand {
	takesAuthorization := key.Kind != keyHeader && key.Kind != keyQuery
	return errand{order: o, kind: kind, key: key, method: http.MethodGet, own: takesAuthorization && rand.N(4) == 0}
}

func post(kind string, key soakKey, o order) errand {
	e := get(kind, key, o)
	e.method = []string{http.MethodPost, http.MethodPost, http.MethodPut, http.MethodPatch}[rand.N(4)]
	return e
}

const (
	small = 1 << 10
	large = 100 << 10
	huge  = 512 << 10
)

// usual is what connectors send all day, and what a tool may answer to it: all of it within what the fast engine takes over HTTP/1.1.
var usual = []share{
	{30, func() errand { return get("get", anyKey(), order{Down: small}) }},
	{8, func() errand { return get("get-large", anyKey(), order{Down: large}) }},
	{14, func() errand { return post("post", anyKey(), order{Up: small, Down: 200}) }},
	{6, func() errand { return post("post-large", anyKey(), order{Up: large, Down: 20}) }},
	{4, func() errand { return get("chunks-down", anyKey(), order{Down: 20_000, Chunked: true}) }},
	{4, func() errand {
		e := post("chunks-up", plainKey(), order{Up: 10_000, Down: 20})
		e.unknown = true
		return e
	}},
	{3, func() errand { e := get("head", anyKey(), order{Down: 5000}); e.method = http.MethodHead; return e }},
	{2, func() errand {
		e := get("delete", anyKey(), order{Status: 204})
		e.method = http.MethodDelete
		return e
	}},
	{2, func() errand { return get("not-modified", anyKey(), order{Status: 304}) }},
	{2, func() errand { return get("early-hints", anyKey(), order{Down: small, Hints: 1 + rand.N(3)}) }},
	{2, func() errand { return get("trailers-down", anyKey(), order{Down: 3000, Trailers: true, Chunked: true}) }},
	{2, func() errand { return get("close", plainKey(), order{Down: small, Close: true}) }},
	{2, func() errand { return get("rude", keyOf("rude"), order{Down: small}) }},
	{1, func() errand {
		return get("slow-tool", anyKey(), order{Down: 30_000, Pause: 200 * time.Millisecond, Drip: 100 * time.Millisecond})
	}},
	{1, func() errand {
		return post("early-answer", keyOf("static", "basic", "both"), order{Status: 413, Up: large, Down: 300, Early: true})
	}},
	{1, func() errand {
		return get("error", anyKey(), order{Status: []int{400, 403, 404, 409, 429, 500, 503}[rand.N(7)], Down: 300})
	}},
	// Not with a token: pillion would take it for the token's end, get another, and not do so again for half a minute.
	{1, func() errand { return get("unauthorized", plainKey(), order{Status: 401, Down: 300}) }},
	{1, func() errand { return get("refused", keyOf("refused"), order{Down: 300}) }},
}

// unusual is what the fast engine hands over to net/http.
var unusual = []share{
	{4, func() errand { e := post("continue", anyKey(), order{Up: small, Down: 20}); e.expect = true; return e }},
	{2, func() errand {
		e := post("continue-large", anyKey(), order{Up: large, Down: 20})
		e.expect = true
		return e
	}},
	{1, func() errand {
		e := post("continue-not", keyOf("static", "basic"), order{Status: 417, Up: small, Down: 20, Early: true})
		e.expect = true
		return e
	}},
	{2, func() errand {
		e := post("trailers-up", anyKey(), order{Up: 4000, Down: 20, Sent: true})
		e.unknown = true
		return e
	}},
	{2, func() errand { return get("get", anyKey(), order{Down: small}) }},
}

// broken is what an origin may do wrong.
var broken = []share{
	{2, func() errand {
		return get(soakCutShort, keyOf("static", "both", "only2"), order{Down: large, Cut: cutBody, Chunked: rand.N(2) == 0})
	}},
	{1, func() errand {
		return get(soakHangup, keyOf("static", "both", "only2"), order{Down: large, Cut: cutAll})
	}},
	{1, func() errand { return get(soakNowhere, soakKey{Name: "nobody"}, order{}) }},
}

// leisurely is sent, or read, by clients that take their time.
var leisurely = []share{
	{2, func() errand {
		e := get("slow-reader", anyKey(), order{Down: huge})
		e.slow = 60 * time.Millisecond
		return e
	}},
	{1, func() errand {
		e := post("slow-writer", anyKey(), order{Up: large, Down: 20})
		e.slow = 100 * time.Millisecond
		return e
	}},
	{1, func() errand {
		e := post("slow-chunks-up", plainKey(), order{Up: large, Down: 20})
		e.slow, e.unknown = 100*time.Millisecond, true
		return e
	}},
}

// abandoned is left by its client.
var abandoned = []share{
	{1, func() errand {
		e := post("left-writing", anyKey(), order{Up: large, Down: 20, Loose: true})
		e.leave = leaveWriting
		return e
	}},
	{1, func() errand {
		e := get("left-waiting", anyKey(), order{Down: small, Pause: 3 * time.Second, Loose: true})
		e.leave = leaveWaiting
		return e
	}},
	{2, func() errand {
		e := get("left-reading", anyKey(), order{Down: huge, Loose: true, Drip: time.Duration(rand.N(2)) * 20 * time.Millisecond})
		e.leave = leaveReading
		return e
	}},
}

// isLeft tells the kinds whose end is the client's affair.
func isLeft(kind string) bool {
	return slices.Contains([]string{"left-writing", "left-waiting", "left-reading", "knock"}, kind)
}
