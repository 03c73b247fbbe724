package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// installation is a pillion in this process: its commands, and run.
type installation struct {
	t       *testing.T
	dir     string
	environ map[string]string
}

// install writes a configuration that reaches tool.example at origin and the
// provider at its own address.
func install(t *testing.T, provider *credstest.Provider, origin *httptest.Server) *installation {
	t.Helper()
	dir := t.TempDir()
	var bundle bytes.Buffer
	for _, at := range []string{provider.URL(), origin.URL} {
		u, _ := url.Parse(at)
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
		conn.Close()
	}
	text := fmt.Sprintf(`state: state
proxy: {listen: 127.0.0.1:0}
metrics: {listen: 127.0.0.1:0}
upstream: {ca_file: ca.pem, allow: [127.0.0.1], resolve: {example.com: %q}}
`, origin.Listener.Addr())
	for name, data := range map[string]string{"pillion.yaml": text, "ca.pem": bundle.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &installation{t, dir, map[string]string{"PILLION_CONFIG": filepath.Join(dir, "pillion.yaml")}}
}

// getenv has SFTP off, unless a test asks for it: its port may be taken.
func (i *installation) getenv(name string) string {
	if value, ok := i.environ[name]; ok || name != envSFTPListen {
		return value
	}
	return off
}

// run runs a command and returns what it printed.
func (i *installation) run(stdin string, args ...string) (output string, failed bool) {
	var out bytes.Buffer
	err := run(context.Background(), args, i.getenv, strings.NewReader(stdin), &out, &out)
	return out.String(), err != nil
}

// serve runs pillion until the test ends, and returns its log.
func (i *installation) serve() *lockedBuffer {
	i.t.Helper()
	log := &lockedBuffer{}
	signals := make(chan os.Signal, 2)
	ended := make(chan error, 1)
	a := &app{getenv: i.getenv, stdin: strings.NewReader(""), stdout: log, stderr: log}
	go func() { ended <- a.serve(context.Background(), signals) }()
	i.t.Cleanup(func() {
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		if err := <-ended; err != nil {
			i.t.Error(err)
		}
	})
	for deadline := time.Now().Add(patience); !strings.Contains(log.String(), `"msg":"ready"`); time.Sleep(time.Millisecond) {
		if len(ended) > 0 || time.Now().After(deadline) {
			i.t.Fatalf("not ready:\n%s", log)
		}
	}
	return log
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestTokenThroughTheProgram: a credential with a token endpoint is made, tested,
// used and explained by commands; its secrets appear in none of what they print,
// nor in the log or the metrics.
func TestTokenThroughTheProgram(t *testing.T) {
	provider := credstest.NewProvider(t)
	var mu sync.Mutex
	var seen []string
	origin := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Header.Get("Authorization"))
	}))
	defer origin.Close()
	i := install(t, provider, origin)
	var everything strings.Builder
	expect := func(failed bool, want, stdin string, args ...string) {
		t.Helper()
		output, didFail := i.run(stdin, args...)
		everything.WriteString(output)
		if didFail != failed || !strings.Contains(output, want) {
			t.Errorf("pillion %s: failed %t, want %q in\n%s", strings.Join(args, " "), didFail, want, output)
		}
	}
	expect(false, "made tool", "canary-wrong-secret", "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-client-credentials",
		"--client-id", provider.ClientID, "--client-secret-file", "-", "--access-token-url", provider.URL())
	expect(true, "invalid_client", "", "credential", "test", "tool")
	log := i.serve()
	expect(true, "refused:    No token can be had now", "", "try", "https://example.com/")
	expect(false, "config_error", "", "explain", "https://example.com/")

	expect(false, "changed tool", provider.ClientSecret, "credential", "set", "tool", "--client-secret-file", "-")
	expect(false, "a token came", "", "credential", "test", "tool")
	expect(false, "answer:     200 OK", "", "try", "https://example.com/path")
	expect(false, "token:         ok, good for", "", "explain", "https://example.com/")
	expect(false, "ok", "", "top", "--once")
	expect(false, `"path":"/path"`, "", "logs")
	mu.Lock()
	got := strings.Join(seen, ", ")
	mu.Unlock()
	if got != "Bearer token-2" { // token-1 was that of credential test
		t.Errorf("the tool saw %s", got)
	}
	all := everything.String() + log.String() + metricsText(t, i)
	for _, secret := range []string{"canary-", provider.ClientSecret, "token-1", "token-2"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q was printed:\n%s", secret, all)
		}
	}
	if want := `pillion_token_refreshes_total{credential="tool",grant="oauth2-client-credentials",result="success"} 1`; !strings.Contains(all, want) {
		t.Errorf("the metrics do not have %s", want)
	}
}

func metricsText(t *testing.T, i *installation) string {
	t.Helper()
	s, err := newAdminClient(filepath.Join(i.dir, "state", "admin.sock")).status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + s.Listeners["metrics"] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
