package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// An origin is a third-party tool: a TLS server under a name of its own and a
// CA of its own, which notes what arrives. It serves a git repository as well.
type origin struct {
	name    string
	address string // where it listens
	caFile  string

	mu       sync.Mutex
	requests []arrivedRequest
	hook     func()
}

type arrivedRequest struct{ method, path, authorization string }

// repositoryFile is the content of the repository's one file.
const repositoryFile = "from the tool's repository\n"

// answerTo is what the origin answers to a request for path.
func answerTo(path string) string { return "the tool answers " + path + "\nand has ended\n" }

func startOrigin(t *testing.T, name string) *origin {
	t.Helper()
	o := &origin{name: name, caFile: filepath.Join(t.TempDir(), "tool-ca.crt")}
	certificate := issueCertificate(t, name, o.caFile)
	server := httptest.NewUnstartedServer(o.handler(t))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	o.address = server.Listener.Addr().String()
	return o
}

func (o *origin) handler(t *testing.T) http.Handler {
	repository := gitRepository(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.requests = append(o.requests, arrivedRequest{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization")})
		hook := o.hook
		o.mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/repository.git/") {
			if hook != nil {
				hook()
			}
			repository.ServeHTTP(w, r)
			return
		}
		answer := answerTo(r.URL.RequestURI())
		first, rest, _ := strings.Cut(answer, "\n")
		_, _ = w.Write([]byte(first + "\n"))
		_ = http.NewResponseController(w).Flush()
		if hook != nil {
			hook()
		}
		_, _ = w.Write([]byte(rest))
	})
}

// whileAnswering has hook called in the middle of every answer from now on.
func (o *origin) whileAnswering(hook func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hook = hook
}

// seen returns the requests that arrived.
func (o *origin) seen() []arrivedRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]arrivedRequest(nil), o.requests...)
}

// gitRepository serves a repository with one commit by git's own CGI program.
// Where there is no git, the rows that clone skip.
func gitRepository(t *testing.T) http.Handler {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		return http.NotFoundHandler()
	}
	root := t.TempDir()
	work := filepath.Join(root, "work")
	run := func(arguments ...string) string {
		command := exec.Command(git, arguments...)
		command.Env = append(plainEnvironment(t), "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@tool.example", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@tool.example")
		output, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(arguments, " "), err, output)
		}
		return strings.TrimSpace(string(output))
	}
	run("init", "-q", work)
	if err := os.WriteFile(filepath.Join(work, "file.txt"), []byte(repositoryFile), 0o600); err != nil {
		t.Fatal(err)
	}
	run("-C", work, "add", "file.txt")
	run("-C", work, "commit", "-q", "-m", "one")
	run("clone", "-q", "--bare", work, filepath.Join(root, "repository.git"))
	return &cgi.Handler{
		Path: filepath.Join(run("--exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"},
		// The CGI program has no use for it, and a child's environment is readable.
		InheritEnv: []string{"PATH"},
	}
}

// issueCertificate makes a CA, writes its certificate to caFile, and returns
// one for name that it signed.
func issueCertificate(t *testing.T, name, caFile string) tls.Certificate {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		return key
	}
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the tool's CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	check(err)
	ca, err = x509.ParseCertificate(caDER)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	check(err)
	check(os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600))
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}
