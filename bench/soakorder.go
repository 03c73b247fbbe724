package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// order is what a request of the soak asks of the origin. It travels in the request's query, so that both ends know what the other has to see, and
// whatever is lost, added, mixed up or answered by somebody else is noticed by one of them.
type order struct {
	ID       uint64        // which bytes the bodies are made of
	Status   int           `json:",omitempty"` // of the answer; 0: 200
	Down     int           `json:",omitempty"` // bytes of the answer's body
	Chunked  bool          `json:",omitempty"` // without a length said ahead
	Trailers bool          `json:",omitempty"` // behind it
	Hints    int           `json:",omitempty"` // answers 103 before it
	Pause    time.Duration `json:",omitempty"` // before its head
	Drip     time.Duration `json:",omitempty"` // between its pieces
	Close    bool          `json:",omitempty"` // the connection ends with it
	Cut      string        `json:",omitempty"` // breaks off: cutBody or cutAll
	Up       int           `json:",omitempty"` // bytes of the request's body
	Sent     bool          `json:",omitempty"` // trailers come behind it
	Early    bool          `json:",omitempty"` // answered before it is read
	Loose    bool          `json:",omitempty"` // the client may leave at any time
}

// Where an origin breaks off.
const (
	cutBody = "body" // in the middle of its answer
	cutAll  = "all"  // before it
)

// What the soak's own fields are called.
const (
	soakID      = "X-Soak-Id"
	soakTrailer = "X-Soak-Trailer"
)

// maxSoakBody bounds the bodies of the soak.
const maxSoakBody = 1 << 20

// noise is what bodies are pieces of: random, so that no two pieces are alike.
var noise = func() []byte {
	b := make([]byte, 2*maxSoakBody)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// pieceOf returns the n bytes that belong to an ID.
func pieceOf(id uint64, n int) []byte {
	at := int(id * 4099 % maxSoakBody)
	return noise[at : at+n]
}

// down is the answer's body. The request's is made of another ID, so that one cannot stand for the other.
func (o *order) down() []byte { return pieceOf(o.ID, o.Down) }
func (o *order) up() []byte   { return pieceOf(o.ID+1, o.Up) }

// refusal is the body of the 401 that an origin answers to a token that it has revoked.
func (o *order) refusal() []byte { return pieceOf(o.ID+2, 401) }

func (o *order) status() int {
	if o.Status == 0 {
		return http.StatusOK
	}
	return o.Status
}

// hasBody tells the answers that may have one.
func (o *order) hasBody() bool {
	return o.status() != http.StatusNoContent && o.status() != http.StatusNotModified
}

// query is how the order travels.
func (o *order) query() string {
	text, err := json.Marshal(o)
	if err != nil { // plain values: cannot happen
		panic(err)
	}
	return "o=" + url.QueryEscape(string(text))
}

func readOrder(query url.Values) (*order, error) {
	o := new(order)
	if err := json.Unmarshal([]byte(query.Get("o")), o); err != nil {
		return nil, fmt.Errorf("reading an order: %w", err)
	}
	if o.Down < 0 || o.Down > maxSoakBody || o.Up < 0 || o.Up > maxSoakBody {
		return nil, fmt.Errorf("an order of %d and %d bytes", o.Down, o.Up)
	}
	return o, nil
}

// different is a body that is not what it should be.
type different struct {
	at, want int // bytes that were right, and how many there should be
	err      error
}

func (d *different) Error() string {
	if d.err != nil {
		return fmt.Sprintf("a body of %d bytes broke off at %d: %v", d.want, d.at, d.err)
	}
	return fmt.Sprintf("a body of %d bytes is another one from byte %d on", d.want, d.at)
}

func (d *different) Unwrap() error { return d.err }

// verify reads all of r, which has to be want, byte for byte. A *different with an error is a body that broke off and was right until then.
func verify(r io.Reader, want []byte) error {
	buf := make([]byte, 32<<10)
	at := 0
	for {
		n, err := r.Read(buf)
		if n > len(want)-at || !bytes.Equal(buf[:n], want[at:at+n]) {
			return &different{at: at, want: len(want)}
		}
		at += n
		switch {
		case err == io.EOF && at == len(want): //nolint:errorlint // io.Reader's own
			return nil
		case err == io.EOF: //nolint:errorlint // likewise
			return &different{at: at, want: len(want)}
		case err != nil:
			return &different{at: at, want: len(want), err: err}
		}
	}
}
