package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/elazarl/goproxy"
)

// serveGoproxy is the subcommand "goproxy": the library as its README uses it, a MITM action with a CA of our own and one OnRequest handler.
// Nothing is tuned. What differs from NewProxyHttpServer is what the task asks for: the upstream certificate is verified, the name is resolved to
// loopback, and a plain request becomes TLS.
func serveGoproxy(stdin io.Reader) error {
	decoder := json.NewDecoder(stdin)
	var c proxyConfig
	if err := decoder.Decode(&c); err != nil {
		return fmt.Errorf("reading goproxy's configuration: %w", err)
	}
	ca, err := tls.LoadX509KeyPair(c.CACert, c.CAKey)
	if err != nil {
		return fmt.Errorf("reading goproxy's CA: %w", err)
	}
	roots, err := readPool(c.CACert)
	if err != nil {
		return err
	}
	proxy := goproxy.NewProxyHttpServer()
	proxy.Tr.TLSClientConfig = &tls.Config{RootCAs: roots}
	proxy.Tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if at, ok := c.Origin[addr]; ok {
			addr = at
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	mitm := &goproxy.ConnectAction{Action: goproxy.ConnectMitm, TLSConfig: goproxy.TLSConfigFromCA(&ca)}
	proxy.OnRequest().HandleConnect(goproxy.FuncHttpsHandler(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return mitm, host
	}))
	proxy.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		r.URL.Scheme = "https"
		r.Header.Set("Authorization", c.Authorization)
		return r, nil
	})
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening as goproxy: %w", err)
	}
	if err := serveAllocations(c.Metrics); err != nil {
		return err
	}
	go serveHTTP(l, proxy)
	_, err = io.Copy(io.Discard, io.MultiReader(decoder.Buffered(), stdin))
	return err
}

// serveAllocations offers the one metric that the bench reads from Go programs, under the name that client_golang gives it.
func serveAllocations(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for metrics: %w", err)
	}
	go serveHTTP(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", m.Mallocs)
	}))
	return nil
}

// serveHTTP is http.Serve with the one time-out that nothing should be without; it ends with the process.
func serveHTTP(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	_ = server.Serve(l)
}
