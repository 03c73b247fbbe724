package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/websocket"
)

// soakOrigin plays the third-party tool of the soak: it does what each request's order says, and checks what arrives.
type soakOrigin struct {
	doorman  *doorman
	findings *findings
	addrs    [soakPorts]string
	servers  []*http.Server
	whole    wholeAnswers
	requests atomic.Int64
	refused  atomic.Int64 // answers 401 to tokens that were revoked
}

// wholeAnswers knows which of the last answers the clients have had, to the last byte. A client may leave then, though the origin has not ended its
// stream of HTTP/2, and cannot any more.
type wholeAnswers [1 << 12]atomic.Uint64

// had is what a client says of its answer.
func (a *wholeAnswers) had(id uint64) { a[id%uint64(len(a))].Store(id) }

// hears waits a second at most for a client to say it.
func (a *wholeAnswers) hears(id uint64) bool {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if a[id%uint64(len(a))].Load() == id {
			return true
		}
	}
	return false
}

// soakPieces is how large the pieces of an answer are that drips, or that has no length.
const soakPieces = 8 << 10

// rudeIdle is how long the rude listener keeps a connection that is idle.
const rudeIdle = 30 * time.Millisecond

func (o *soakOrigin) listen(p pki) error {
	cert, err := tls.LoadX509KeyPair(p.LeafCert, p.LeafKey)
	if err != nil {
		return fmt.Errorf("reading the origin's certificate: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/token", o.doorman.tokens)
	for port := range soakPorts {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listening as the origin: %w", err)
		}
		o.addrs[port] = l.Addr().String()
		server := &http.Server{
			Handler:           o,
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
			Protocols:         port.protocols(),
			ReadHeaderTimeout: time.Minute,
			IdleTimeout:       time.Hour,
			ErrorLog:          log.New(io.Discard, "", 0), // of connections that clients break off
		}
		switch port {
		case portRude:
			server.IdleTimeout = rudeIdle
		case portTokens:
			server.Handler = mux
		}
		o.servers = append(o.servers, server)
		go func() { _ = server.ServeTLS(l, "", "") }()
	}
	return nil
}

func (o *soakOrigin) close() {
	for _, server := range o.servers {
		_ = server.Close()
	}
}

// ServeHTTP serves /CREDENTIAL/KIND?o=ORDER.
func (o *soakOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	name, kind, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	key, known := soakKeyNamed(name)
	order, err := readOrder(r.URL.Query())
	if !known || err != nil {
		o.findings.add("origin: %s of %s: %v", kind, name, err)
		http.NotFound(w, r)
		return
	}
	w.Header().Set(soakID, strconv.FormatUint(order.ID, 10))
	good, err := o.doorman.admit(key, r)
	switch {
	case err != nil:
		o.findings.add("origin: %s of %s: %v", kind, name, err)
		w.WriteHeader(http.StatusForbidden)
	case !good:
		o.unauthorized(w, r, order)
	case kind == soakSocket:
		websocket.Server{Handler: echo}.ServeHTTP(w, r)
	default:
		o.serve(w, r, order, kind)
	}
}

// soakSocket is the kind of a request that becomes a WebSocket, behind which everything comes back.
const soakSocket = "websocket"

func echo(conn *websocket.Conn) {
	_, _ = io.Copy(conn, conn)
}

func (o *soakOrigin) unauthorized(w http.ResponseWriter, r *http.Request, order *order) {
	o.refused.Add(1)
	_, _ = io.Copy(io.Discard, r.Body) // or it could not be sent again
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	w.Header().Set("Content-Length", strconv.Itoa(len(order.refusal())))
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(order.refusal())
}

func (o *soakOrigin) serve(w http.ResponseWriter, r *http.Request, order *order, kind string) {
	if !order.Early {
		if err := order.arrived(r); err != nil {
			if !order.Loose {
				o.findings.add("origin: %s by %s: the request's body: %v", kind, r.Proto, err)
			}
			return
		}
	}
	if order.Pause > 0 && !wait(r, order.Pause) || order.Cut == cutAll {
		panic(http.ErrAbortHandler)
	}
	err := order.answer(w, r)
	if err != nil && !order.Loose && !o.whole.hears(order.ID) {
		o.findings.add("origin: %s by %s: the answer: %v", kind, r.Proto, err)
	}
}

// arrived checks the request's body and what stands behind it.
func (o *order) arrived(r *http.Request) error {
	if err := verify(r.Body, o.up()); err != nil {
		return err
	}
	if got, want := r.Trailer.Get(soakTrailer), o.trailer(); o.Sent && got != want {
		return fmt.Errorf("trailer %q, want %q", got, want)
	}
	return nil
}

func (o *order) trailer() string { return "behind " + strconv.FormatUint(o.ID, 10) }

func wait(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (o *order) answer(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	for i := range o.Hints {
		h.Set("Link", fmt.Sprintf("</style-%d.css>; rel=preload", i))
		w.WriteHeader(http.StatusEarlyHints)
	}
	h.Del("Link")
	h.Set("Content-Type", "application/octet-stream")
	if !o.Chunked && o.hasBody() {
		h.Set("Content-Length", strconv.Itoa(o.Down))
	}
	if o.Trailers {
		h.Set("Trailer", soakTrailer)
	}
	if o.Close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(o.status())
	if err := o.write(w, r); err != nil {
		return err
	}
	if o.Trailers {
		h.Set(soakTrailer, o.trailer())
	}
	return nil
}

func (o *order) write(w http.ResponseWriter, r *http.Request) error {
	body := o.down()
	if r.Method == http.MethodHead || !o.hasBody() || len(body) == 0 {
		return nil
	}
	if o.Cut == cutBody {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if !o.Chunked && o.Drip == 0 {
		_, err := w.Write(body)
		return err
	}
	for piece := range slices.Chunk(body, soakPieces) {
		if o.Drip > 0 && !wait(r, o.Drip) {
			return errors.New("the connection ended before it")
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		if body = body[len(piece):]; len(body) == 0 {
			break // it goes with the answer's end
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	return nil
}
