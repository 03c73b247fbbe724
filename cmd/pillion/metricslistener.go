package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is the body of /readyz: no URL, no name, no secret.
type readiness struct {
	Ready       bool   `json:"ready"`
	Draining    bool   `json:"draining"`
	Store       string `json:"store"`  // ok, stale (older credentials serve), unavailable
	Config      string `json:"config"` // ok, old (the last reload was refused)
	Tokens      string `json:"tokens"` // ok, or why nobody renews them
	Credentials int    `json:"credentials"`
	Skipped     int    `json:"skipped"` // stored credentials that cannot be used
}

// metricsHandler serves /metrics, /livez and /readyz to anybody who asks, under
// any host name, by GET and HEAD alone. It sets no CORS header, so that a web
// page cannot read the answers.
//
// ready returns whether this process serves, and the body of /readyz.
func metricsHandler(registry *prometheus.Registry, ready func() (bool, any)) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		// Neither store nor upstream nor draining: a restart would mend none of them.
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ok, body := ready()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(body)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func metricsServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
}
