package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// originConfig is what the bench tells its origin on standard input.
type originConfig struct {
	Cert, Key     string
	Authorization string // the one value that every request must carry
}

// originAddrs is what the origin answers on standard output once it listens.
type originAddrs struct {
	HTTP1   string // TLS, offers http/1.1 alone
	HTTP2   string // TLS, offers h2 and http/1.1
	Control string // plain: GET /counts
}

// counts tells how many requests came, and how many of them lacked the right Authorization: that must be none.
type counts struct {
	Requests, Unauthorized int64
	Last                   string // what the last of those looked like
}

// origin plays the third-party tool: GET /bytes/N answers N bytes, POST /sink counts what it is sent and answers the number.
type origin struct {
	authorization          string
	requests, unauthorized atomic.Int64
	last                   atomic.Value // string
}

const maxBody = 1 << 20

var filler = bytes.Repeat([]byte("pillion "), maxBody/8)

// serveOrigin is the subcommand "origin". It ends with its standard input.
func serveOrigin(stdin io.Reader, stdout io.Writer) error {
	var c originConfig
	if err := json.NewDecoder(stdin).Decode(&c); err != nil {
		return fmt.Errorf("reading the origin's configuration: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return fmt.Errorf("reading the origin's certificate: %w", err)
	}
	o := &origin{authorization: c.Authorization}
	var addrs originAddrs
	if addrs.HTTP1, err = o.listen(cert, false); err != nil {
		return err
	}
	if addrs.HTTP2, err = o.listen(cert, true); err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for control: %w", err)
	}
	addrs.Control = control.Addr().String()
	go serveHTTP(control, http.HandlerFunc(o.serveCounts))
	if err := json.NewEncoder(stdout).Encode(addrs); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

func (o *origin) listen(cert tls.Certificate, h2 bool) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listening as the origin: %w", err)
	}
	server := &http.Server{
		Handler:           o,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: time.Minute,
		IdleTimeout:       time.Hour, // the proxies decide how long an idle upstream connection lives
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(h2)
	go func() { _ = server.ServeTLS(l, "", "") }()
	return l.Addr().String(), nil
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	if got := r.Header["Authorization"]; len(got) != 1 || got[0] != o.authorization {
		o.last.Store(fmt.Sprintf("%s %s of %q with %d Authorization fields", r.Method, r.RequestURI, r.UserAgent(), len(got)))
		o.unauthorized.Add(1)
		http.Error(w, "the right Authorization is missing", http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/sink" {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		reply(w, strconv.AppendInt(nil, n, 10))
		return
	}
	n, err := strconv.Atoi(pathAfter(r.URL.Path, "/bytes/"))
	if err != nil || n < 0 || n > maxBody {
		http.NotFound(w, r)
		return
	}
	reply(w, filler[:n])
}

func reply(w http.ResponseWriter, body []byte) {
	w.Header()["Content-Type"] = []string{"application/octet-stream"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body)
}

func pathAfter(path, prefix string) string {
	if len(path) < len(prefix) || path[:len(prefix)] != prefix {
		return ""
	}
	return path[len(prefix):]
}

func (o *origin) serveCounts(w http.ResponseWriter, _ *http.Request) {
	c := counts{Requests: o.requests.Load(), Unauthorized: o.unauthorized.Load()}
	c.Last, _ = o.last.Load().(string)
	_ = json.NewEncoder(w).Encode(c)
}

// askCounts reads the origin's counters.
func askCounts(control string) (counts, error) {
	var c counts
	response, err := http.Get("http://" + control + "/counts") //nolint:gosec // the bench's own process
	if err != nil {
		return c, fmt.Errorf("asking the origin for its counts: %w", err)
	}
	defer response.Body.Close()
	return c, json.NewDecoder(response.Body).Decode(&c)
}
