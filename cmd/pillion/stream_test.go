package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// Bodies stream: however large, pillion holds a few buffers of them. These are more than
// twice what it may hold.
func TestStreamsLargeBodies(t *testing.T) { testStreams(t, 96<<20) }

// TestSoakStreamsLargeBodies is the same with bodies larger than any memory limit
// of a sidecar.
func TestSoakStreamsLargeBodies(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak
	}
	testStreams(t, 5<<30)
}

const maxStreamingRSS = 40 << 20

func testStreams(t *testing.T, size int64) {
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)
	for _, h2 := range []bool{false, true} {
		client := sidecar.httpClient(t, h2)
		name := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2]

		response, err := client.Post("https://stream.example/up", "application/octet-stream", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if got := string(answer); got != strconv.FormatInt(size, 10) {
			t.Errorf("%s: of %d bytes sent the tool got %q", name, size, got)
		}

		response, err = client.Get(fmt.Sprintf("https://stream.example/down?size=%d", size))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil || n != size {
			t.Errorf("%s: of %d bytes the client got %d (%v)", name, size, n, err)
		}
	}
	peak := memory(t, sidecar.process.Pid, "VmHWM")
	t.Logf("%d MiB up and down by HTTP/1.1 and HTTP/2: peak RSS %.1f MiB", size>>20, float64(peak)/(1<<20))
	if peak > maxStreamingRSS {
		t.Errorf("peak RSS is %d MiB, more than %d", peak>>20, maxStreamingRSS>>20)
	}
}

// startStreamOrigin serves /up, which counts, and /down?size=N.
func startStreamOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{name: "stream.example", caFile: filepath.Join(t.TempDir(), "ca.crt")}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-token" {
			http.Error(w, "no authorization", http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/up" {
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n)
			return
		}
		size, _ := strconv.ParseInt(r.FormValue("size"), 10, 64)
		_, _ = io.Copy(w, io.LimitReader(zeros{}, size))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{issueCertificate(t, o.name, o.caFile)}}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	o.address = server.Listener.Addr().String()
	return o
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// httpClient speaks through the sidecar; with h2, HTTP/2 alone, since pillion prefers
// HTTP/1.1 where a client offers both.
func (s *sidecarProcess) httpClient(t *testing.T, h2 bool) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.state, "public", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: s.proxy}),
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetHTTP2(h2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Idle tunnels cost little: what a pod keeps open over night stays small.
func TestIdleTunnelsAreSmall(t *testing.T) {
	const tunnels, most = 400, 50 << 10
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)
	open := func(n int) {
		for range n {
			client := sidecar.httpClient(t, false)
			response, err := client.Get("https://stream.example/down?size=1024")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Fatalf("status %d", response.StatusCode)
			}
		}
	}
	open(20) // what is made once: upstream connections, buffers, the leaf
	before := memory(t, sidecar.process.Pid, "VmRSS")
	open(tunnels)
	each := (memory(t, sidecar.process.Pid, "VmRSS") - before) / tunnels
	t.Logf("%d idle tunnels: %.1f KB each", tunnels, float64(each)/1000)
	if each > most {
		t.Errorf("an idle tunnel costs %d bytes, more than %d", each, most)
	}
}

// memory reads a field of /proc/PID/status, in bytes.
func memory(t *testing.T, pid int, field string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("/proc/%d/status has no %s", pid, field)
	}
	kilobytes, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return kilobytes << 10
}
