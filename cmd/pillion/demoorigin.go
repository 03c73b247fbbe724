package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const demoOriginUsage = `Start a TLS server for demonstrations that shows what arrives.

Usage:
    pillion demo-origin [--listen IP:PORT] [--state DIR]

It listens on loopback under the name demo.example, with a certificate of a
throwaway CA that it writes to STATE/demo/ca.crt, and answers every request with
its method, path and headers. Values are masked but for what shows how a
request was authorized; the secret itself is never shown.

    --listen IP:PORT    default 127.0.0.1:8443

A pillion that shall reach it needs, in its configuration:

    upstream:
      resolve: {demo.example: "127.0.0.1:8443"}
      allow: [demo.example]
      ca_file: STATE/demo/ca.crt

Example:
    pillion demo-origin --listen 127.0.0.1:8443
`

const demoHost = "demo.example"

func (a *app) demoOriginCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "demo-origin", Short: "A TLS server that shows what arrives", Long: demoOriginUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return a.demoOrigin(ctx, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8443", "")
	return cmd
}

func (a *app) demoOrigin(ctx context.Context, listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || !isLoopback(host) {
		return usagef("--listen must be a loopback address with a port, such as 127.0.0.1:8443")
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	// Listen first: a second one must not replace the CA of the one that runs.
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w; name another address with --listen", listen, err)
	}
	defer listener.Close()
	dir := filepath.Join(c.State, "demo")
	certificate, err := demoCertificate(dir, time.Now())
	if err != nil {
		return fmt.Errorf("making the demonstration origin's certificate in %s: %w", dir, err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(echo),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
	}
	fmt.Fprintf(a.stdout, "demo-origin: https://%s/ on %s, CA %s\n", demoHost, listener.Addr(), filepath.Join(dir, "ca.crt"))
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the demonstration origin: %w", err)
	}
	return nil
}

// echoed is what the demonstration origin answers.
type echoed struct {
	Method   string              `json:"method"`
	Host     string              `json:"host"`
	Path     string              `json:"path"`
	Protocol string              `json:"protocol"`
	Headers  map[string][]string `json:"headers"`
	Query    map[string][]string `json:"query,omitempty"`
	Body     int64               `json:"body_bytes"`
}

func echo(w http.ResponseWriter, r *http.Request) {
	e := echoed{Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Protocol: r.Proto, Headers: map[string][]string{}}
	for name, values := range r.Header {
		for _, value := range values {
			e.Headers[name] = append(e.Headers[name], mask(name, value))
		}
	}
	if query := r.URL.Query(); len(query) > 0 {
		e.Query = map[string][]string{}
		for name, values := range query {
			for _, value := range values {
				e.Query[name] = append(e.Query[name], stars(value))
			}
		}
	}
	e.Body, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(e)
}

// mask hides a header's value. Of an Authorization the scheme stays, since it
// is no secret and shows what was injected; so do values that say nothing about
// anybody.
func mask(name, value string) string {
	switch name {
	case "Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent":
		return value
	case "Authorization":
		if scheme, rest, ok := strings.Cut(value, " "); ok {
			return scheme + " " + stars(rest)
		}
	}
	return stars(value)
}

// stars says only how long value was.
func stars(value string) string { return fmt.Sprintf("***(%d)", len(value)) }

// demoCertificate makes a CA and a certificate for demo.example, good for a
// month, and writes the CA's to dir.
func demoCertificate(dir string, now time.Time) (tls.Certificate, error) {
	made, err := newThrowaway("pillion demonstration CA", []string{demoHost}, now, now.AddDate(0, 1, 0))
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, err
	}
	if err := replaceFile(filepath.Join(dir, "ca.crt"), made.ca); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(made.cert, made.key)
}
