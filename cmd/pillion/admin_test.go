package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdminSocket: also below a directory whose path is longer than a socket's
// may be; closed to others; one at a time; what a dead process left is replaced.
func TestAdminSocket(t *testing.T) {
	for name, dir := range map[string]string{
		"short": t.TempDir(),
		"long":  filepath.Join(t.TempDir(), strings.Repeat("long/", 40)),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "admin.sock")
			if err := os.WriteFile(path, nil, 0o600); err != nil { // left behind
				t.Fatal(err)
			}
			l, err := listenAdmin(path)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: (&adminServer{status: func() status { return status{Version: "this one"} }}).handler()} //nolint:gosec // a test
			go func() { _ = server.Serve(l) }()
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
				t.Errorf("%v, %v", info, err)
			}
			if s, err := newAdminClient(path).status(context.Background()); err != nil || s.Version != "this one" {
				t.Errorf("%v, %v", s, err)
			}
			if _, err := listenAdmin(path); err == nil || !strings.Contains(err.Error(), "another pillion runs") {
				t.Errorf("a second one: %v", err)
			}
			_ = server.Close()
			if _, err := newAdminClient(path).status(context.Background()); !errors.Is(err, errNotRunning) {
				t.Errorf("afterwards: %v", err)
			}
			again, err := listenAdmin(path)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		})
	}
	var _ net.Listener = (*adminListener)(nil)
}

func TestProfilesOnlyOnRequest(t *testing.T) {
	for _, on := range []bool{false, true} {
		w := httptest.NewRecorder()
		(&adminServer{pprof: on}).handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil))
		if got := w.Code == http.StatusOK; got != on {
			t.Errorf("admin.pprof %t: status %d", on, w.Code)
		}
	}
}

// TestMetricsListener: three paths, by GET and HEAD, for any host, for no page.
func TestMetricsListener(t *testing.T) {
	ready := readiness{Ready: false, Draining: true, Store: "ok", Config: "ok", Tokens: "ok", Credentials: 2}
	h := metricsHandler(newMetrics(false).registry, func() (bool, any) { return ready.Ready, ready })
	ask := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://rebound.example"+path, nil)
		r.Header.Set("Origin", "https://page.example")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control") {
				t.Errorf("%s %s sets %s", method, path, name)
			}
		}
		return w
	}
	for _, row := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/livez", 200}, {"HEAD", "/livez", 200}, {"POST", "/livez", 405}, {"OPTIONS", "/metrics", 405},
		{"GET", "/metrics", 200}, {"GET", "/readyz", 503}, {"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"PUT", "/readyz", 405},
	} {
		if w := ask(row.method, row.path); w.Code != row.status {
			t.Errorf("%s %s: %d, want %d", row.method, row.path, w.Code, row.status)
		}
	}
	if got := strings.TrimSpace(ask("GET", "/readyz").Body.String()); got != `{"ready":false,"draining":true,"store":"ok","config":"ok","tokens":"ok","credentials":2,"skipped":0}` {
		t.Error(got)
	}
	ready.Ready = true
	if w := ask("GET", "/readyz"); w.Code != 200 {
		t.Errorf("ready: %d", w.Code)
	}
}
