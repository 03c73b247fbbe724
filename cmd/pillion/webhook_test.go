package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// runningWebhook is `pillion webhook` on free ports, with a certificate that
// `pillion webhook certificate` made.
type runningWebhook struct {
	dir              string
	webhook, metrics string
	lines            chan map[string]any // its log
	client           *http.Client
	end              context.CancelFunc
	ended            chan error
}

const webhookName = "pillion-webhook.pillion.svc"

func startWebhook(t *testing.T) *runningWebhook {
	t.Helper()
	h := &runningWebhook{dir: t.TempDir(), lines: make(chan map[string]any, 100), ended: make(chan error, 1)}
	if err := run(t.Context(), []string{"webhook", "certificate", h.dir, "--name", webhookName}, noEnvironment, nil, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(h.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.crt holds no certificate")
	}
	var ctx context.Context
	ctx, h.end = context.WithCancel(context.Background())
	t.Cleanup(h.end)
	log, stderr := io.Pipe()
	go func() {
		h.ended <- run(ctx, []string{"webhook", "--tls-cert", filepath.Join(h.dir, "tls.crt"), "--tls-key", filepath.Join(h.dir, "tls.key"),
			"--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--image", "registry.example/pillion:3"}, noEnvironment, nil, io.Discard, stderr)
		stderr.Close()
	}()
	go func() {
		defer close(h.lines)
		for scanner := bufio.NewScanner(log); scanner.Scan(); {
			var line map[string]any
			if json.Unmarshal(scanner.Bytes(), &line) == nil {
				h.lines <- line
			}
		}
	}()
	h.webhook = h.await(t, "listening")["address"].(string)
	h.metrics = h.await(t, "listening")["address"].(string)
	h.await(t, "ready")
	h.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: webhookName},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, h.webhook)
		},
	}}
	return h
}

// await returns the next line of the log with this message.
func (h *runningWebhook) await(t *testing.T, message string) map[string]any {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-h.lines:
			if !ok {
				t.Fatalf("it ended before it said %q: %v", message, <-h.ended)
			}
			if line["msg"] == message {
				return line
			}
		case <-limit:
			t.Fatalf("it does not say %q", message)
		}
	}
}

func (h *runningWebhook) get(t *testing.T, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + h.metrics + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (h *runningWebhook) ask(t *testing.T, pod string) string {
	t.Helper()
	review := `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
		"namespace": "tools", "operation": "CREATE", "object": ` + pod + `}}`
	response, err := h.client.Post("https://"+webhookName+"/inject?timeout=10s", "application/json", strings.NewReader(review))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response.Status, err)
	}
	return string(body)
}

// The webhook as it runs: over TLS that its own command made, with a line and a count
// for every admission; when it is to end it says so first, and goes on answering
// until the API server has heard.
func TestWebhook(t *testing.T) {
	t.Parallel()
	h := startWebhook(t)
	const good = `{"metadata": {"name": "shop"}, "spec": {"containers": [{"name": "app", "image": "a"}]}}`
	if body := h.ask(t, good); !strings.Contains(body, `"allowed":true`) || !strings.Contains(body, `"patchType":"JSONPatch"`) {
		t.Errorf("it answers %s", body)
	}
	line := h.await(t, "admission")
	for key, want := range map[string]any{"level": "INFO", "result": "injected", "namespace": "tools", "pod": "shop", "uid": "u-1"} {
		if line[key] != want {
			t.Errorf("the log has %s %v, want %v", key, line[key], want)
		}
	}
	if body := h.ask(t, `{"metadata": {"name": "own"}, "spec": {"hostNetwork": true, "containers": [{"name": "app", "image": "a"}]}}`); !strings.Contains(body, `"allowed":false`) {
		t.Errorf("it answers %s", body)
	}
	if line := h.await(t, "admission"); line["result"] != "refused" || line["level"] != "WARN" || !strings.Contains(line["problem"].(string), "hostNetwork") {
		t.Errorf("the log has %v", line)
	}
	for path, want := range map[string]string{
		"/livez": "ok", "/readyz": `"ready":true`,
		"/metrics": "pillion_webhook_admissions_total{result=\"injected\"} 1\n",
	} {
		if status, body := h.get(t, path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	h.end()
	h.await(t, "draining")
	if status, body := h.get(t, "/readyz"); status != 503 || !strings.Contains(body, `"draining":true`) {
		t.Errorf("while it ends it is ready: %d %s", status, body)
	}
	if body := h.ask(t, good); !strings.Contains(body, `"allowed":true`) {
		t.Errorf("while it ends it answers %s", body)
	}
	h.await(t, "ended")
	if err := <-h.ended; err != nil {
		t.Error(err)
	}
}

// A renewed certificate is taken over without a restart, and a broken one is not.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	files := &certificateFiles{what: "the files", cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	if _, err := files.certificate(nil); err == nil || !strings.HasPrefix(err.Error(), "the files: certificate and key cannot be used") {
		t.Errorf("without files it says %v", err)
	}
	renew := func(days string) time.Time {
		t.Helper()
		if err := run(t.Context(), []string{"webhook", "certificate", dir, "--name", webhookName, "--days", days}, noEnvironment, nil, io.Discard, io.Discard); err != nil {
			t.Fatal(err)
		}
		return files.expiry()
	}
	first := renew("10")
	if until := time.Until(first); until < 9*24*time.Hour || until > 10*24*time.Hour {
		t.Errorf("a certificate of ten days is good for %s", until)
	}
	if second := renew("20"); !second.Equal(first) {
		t.Error("it looks at the files each time")
	}
	files.looked = time.Now().Add(-time.Hour)
	second := files.expiry()
	if !second.After(first) {
		t.Error("the renewed certificate is not taken over")
	}
	if err := os.WriteFile(files.key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	files.looked = time.Now().Add(-time.Hour)
	if !files.expiry().Equal(second) {
		t.Error("a broken file takes the certificate away")
	}
	if info, err := os.Stat(files.key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
}

// webhookFamilies are the webhook's own metrics, for the page that describes all.
func webhookFamilies(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	families, err := newWebhook(nil, "", "").registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}
