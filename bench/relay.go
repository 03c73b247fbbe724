package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// proxyConfig is what the bench tells the proxies of its own (floor, goproxy) on standard input.
type proxyConfig struct {
	Listen, Metrics   string
	Origin            map[string]string // CONNECT authority -> where it listens
	CACert, CAKey     string
	LeafCert, LeafKey string
	Authorization     string
}

// relay is the floor: what it costs to end TLS, to begin TLS and to copy between, with no HTTP in it. It cannot inject, so its client sends the
// header itself; no proxy that terminates TLS can be cheaper, and the distance to it is what HTTP, matching, injecting and logging cost.
//
// Connections to the origin are pooled by authority and protocol and given back when the client closes. A relay cannot know that an answer is whole;
// it may be pooled here only because the load generator never leaves in the middle of one.
type relay struct {
	server, client *tls.Config
	origin         map[string]string

	mu   sync.Mutex
	idle map[string][]*tls.Conn
}

// serveFloor is the subcommand "floor".
func serveFloor(stdin io.Reader) error {
	decoder := json.NewDecoder(stdin)
	var c proxyConfig
	if err := decoder.Decode(&c); err != nil {
		return fmt.Errorf("reading the relay's configuration: %w", err)
	}
	leaf, err := tls.LoadX509KeyPair(c.LeafCert, c.LeafKey)
	if err != nil {
		return fmt.Errorf("reading the relay's certificate: %w", err)
	}
	roots, err := readPool(c.CACert)
	if err != nil {
		return err
	}
	r := &relay{
		// The curves are pillion's towards clients: the post-quantum offer costs a fifth more a handshake and protects nothing on loopback.
		server: &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1", "h2"}, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}},
		client: &tls.Config{RootCAs: roots, ServerName: originName, ClientSessionCache: tls.NewLRUClientSessionCache(64)},
		origin: c.Origin,
		idle:   make(map[string][]*tls.Conn),
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening as the relay: %w", err)
	}
	if err := serveAllocations(c.Metrics); err != nil {
		return err
	}
	go r.serve(l)
	_, err = io.Copy(io.Discard, io.MultiReader(decoder.Buffered(), stdin))
	return err
}

func (r *relay) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if err := r.handle(conn); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "relay:", err)
			}
		}()
	}
}

// handle serves one client connection: CONNECT and TLS, or plain absolute-form requests, which are relayed as they come.
func (r *relay) handle(conn net.Conn) error {
	buffered := bufio.NewReader(conn)
	head, err := buffered.Peek(len("CONNECT "))
	if err != nil {
		return err
	}
	if string(head) != "CONNECT " {
		authority, err := absoluteAuthority(buffered)
		if err != nil {
			return err
		}
		return r.join(&bufferedConn{conn, buffered}, authority, "http/1.1")
	}
	authority, err := readConnect(buffered)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return err
	}
	secure := tls.Server(behind(conn, buffered), r.server)
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("shaking hands with the client: %w", err)
	}
	proto := secure.ConnectionState().NegotiatedProtocol
	if proto == "" {
		proto = "http/1.1"
	}
	return r.join(secure, authority, proto)
}

// join copies both ways until the client has closed, then gives the origin's connection back.
func (r *relay) join(client net.Conn, authority, proto string) error {
	origin, err := r.take(authority, proto)
	if err != nil {
		return err
	}
	back := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(onlyWriter{client}, onlyReader{origin}, make([]byte, 32<<10))
		back <- err
	}()
	_, upErr := io.CopyBuffer(onlyWriter{origin}, onlyReader{client}, make([]byte, 32<<10))
	// A read deadline wakes the other direction and, unlike closing, leaves the TLS connection usable.
	_ = origin.SetReadDeadline(time.Unix(1, 0))
	backErr := <-back
	if upErr == nil && errors.Is(backErr, os.ErrDeadlineExceeded) && proto == "http/1.1" {
		_ = origin.SetReadDeadline(time.Time{})
		r.give(authority, proto, origin)
		return nil
	}
	_ = origin.Close()
	return upErr
}

func (r *relay) take(authority, proto string) (*tls.Conn, error) {
	key := authority + " " + proto
	r.mu.Lock()
	if n := len(r.idle[key]); n > 0 {
		conn := r.idle[key][n-1]
		r.idle[key] = r.idle[key][:n-1]
		r.mu.Unlock()
		return conn, nil
	}
	r.mu.Unlock()
	config := r.client.Clone()
	config.NextProtos = []string{proto}
	addr, ok := r.origin[authority]
	if !ok {
		return nil, fmt.Errorf("no origin for %q", authority)
	}
	return tls.Dial("tcp", addr, config)
}

func (r *relay) give(authority, proto string, conn *tls.Conn) {
	key := authority + " " + proto
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle[key] = append(r.idle[key], conn)
}

// readConnect consumes the head of a CONNECT request and returns its authority.
func readConnect(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return "", fmt.Errorf("bad request line %q", line)
	}
	authority := string(fields[1])
	for len(line) > 2 {
		if line, err = r.ReadSlice('\n'); err != nil {
			return "", err
		}
	}
	return authority, nil
}

// absoluteAuthority finds HOST:PORT in "METHOD http://HOST:PORT/..." and consumes nothing.
func absoluteAuthority(r *bufio.Reader) (string, error) {
	if _, err := r.Peek(1); err != nil {
		return "", err
	}
	head, _ := r.Peek(r.Buffered())
	_, rest, ok := bytes.Cut(head, []byte(" http://"))
	end := bytes.IndexAny(rest, "/ ")
	if !ok || end < 0 {
		return "", fmt.Errorf("neither CONNECT nor an absolute URL: %q", head)
	}
	return string(rest[:end]), nil
}

// bufferedConn is a connection whose first bytes have already been read.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// behind is conn itself when nothing has been read ahead, which saves a copy.
func behind(conn net.Conn, r *bufio.Reader) net.Conn {
	if r.Buffered() == 0 {
		return conn
	}
	return &bufferedConn{conn, r}
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// onlyReader and onlyWriter hide ReadFrom and WriteTo, so that io.CopyBuffer uses the buffer it was given.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
