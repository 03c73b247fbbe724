package main_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// TestAttackLeaks is case 62: planted secrets go through the built program, which
// serves and refuses and fails, and all that it wrote anywhere is searched.
func TestAttackLeaks(t *testing.T) {
	t.Parallel()
	t.Run("62 planted secrets through the built program", searchForSecrets)
}

func searchForSecrets(t *testing.T) {
	provider := credstest.NewProvider(t)
	provider.ClientSecret = credstest.Canary("client-secret").Reveal()
	accessToken := credstest.Canary("access-token").Reveal()
	provider.Answer(credstest.ReplyToken(accessToken, 3600))

	var mu sync.Mutex
	var arrived bytes.Buffer // what the tool got: the control that the search finds
	tool := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = r.Header.Write(&arrived)
		arrived.WriteString(r.RequestURI + "\n")
		if r.URL.Path == "/401" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		if r.URL.Path == "/break" {
			panic(http.ErrAbortHandler)
		}
	}))
	toolCA := filepath.Join(t.TempDir(), "tool-ca.crt")
	tool.TLS = &tls.Config{Certificates: []tls.Certificate{issueCertificate(t, "tool.example", toolCA)}}
	tool.StartTLS()
	defer tool.Close()
	bundle, err := os.ReadFile(toolCA)
	if err != nil {
		t.Fatal(err)
	}
	bundle = append(bundle, peerCertificate(t, provider.URL())...)

	s := &sidecarProcess{binary: buildProgram(t, "."), state: filepath.Join(t.TempDir(), "state"), proxy: credstest.FreeAddress(t), metrics: credstest.FreeAddress(t)}
	dir := t.TempDir()
	s.config = filepath.Join(dir, "pillion.yaml")
	clientToken := credstest.Canary("client-token").Reveal()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("pillion.yaml", fmt.Sprintf(`proxy: {listen: %q, base_url: true, client_token_file: %q}
metrics: {listen: %q}
sftp: {listen: off}
upstream:
  ca_file: %q
  allow: [127.0.0.1]
  resolve: {tool.example: %q, other.example: %q}
log: {level: debug}
`, s.proxy, write("client-token", clientToken), s.metrics, write("ca.crt", string(bundle)), tool.Listener.Addr(), tool.Listener.Addr()))

	var printed bytes.Buffer
	command := func(input string, arguments ...string) {
		t.Helper()
		c := exec.Command(s.binary, append(arguments, "--config", s.config, "--state", s.state)...)
		c.Env, c.Stdin = plainEnvironment(t), strings.NewReader(input)
		out, _ := c.CombinedOutput() // some are meant to fail
		fmt.Fprintf(&printed, "$ pillion %s\n%s\n", strings.Join(arguments, " "), out)
	}
	set := func(name, path string, secret creds.Secret, arguments ...string) {
		t.Helper()
		command(secret.Reveal(), append([]string{"credential", "set", name, "--url", "https://tool.example/" + path}, arguments...)...)
	}
	set("bearer", "bearer/", credstest.Canary("token"), "--authorization", "bearer", "--token-file", "-")
	set("basic", "basic/", credstest.Canary("password"), "--authorization", "basic", "--username", "u", "--password-file", "-")
	set("key", "key/", credstest.Canary("api-key-header"), "--authorization", "api-key", "--api-key-file", "-", "--api-key-header", "X-Api-Key")
	set("query", "query/", credstest.Canary("api-key-query"), "--authorization", "api-key", "--api-key-file", "-", "--api-key-query", "k")
	set("header", "header/", credstest.Canary("static-header"), "--authorization", "none", "--header-file", "X-Account=-")
	set("oauth", "oauth/", creds.NewSecret(provider.ClientSecret), "--authorization", "oauth2-client-credentials", "--client-id", provider.ClientID, "--client-secret-file", "-", "--access-token-url", provider.URL())
	set("broken", "broken/", creds.NewSecret(credstest.Canary("multi-line").Reveal()+"\nx"), "--authorization", "bearer", "--token-file", "-")
	command(strings.ReplaceAll("credentials:\n- {name: imported, url: 'https://tool.example/imported/', authorization: bearer, token: SECRET, tokken: SECRET, password: [SECRET]}\n", "SECRET", credstest.Canary("import").Reveal()), "credential", "import", "/dev/stdin")

	log := s.startLogging(t)
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(s.state, "public", "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no CA: %v", err)
	}
	var answers bytes.Buffer
	send := func(user, target string) {
		t.Helper()
		proxyURL := &url.URL{Scheme: "http", Host: s.proxy, User: url.UserPassword("-", user)}
		client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxyURL), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
		req, _ := http.NewRequest("GET", target, nil)
		req.Header.Set("Authorization", "Bearer "+credstest.Canary("clients-own").Reveal())
		req.Header.Set("Cookie", credstest.Canary("cookie").Reveal())
		resp, err := client.Do(req)
		if err != nil {
			fmt.Fprintln(&answers, err)
			return
		}
		defer resp.Body.Close()
		_ = resp.Header.Write(&answers)
		_, _ = io.Copy(&answers, resp.Body)
	}
	secretQuery := "?q=" + credstest.Canary("query").Reveal()
	for _, scheme := range []string{"https", "http"} {
		for _, name := range []string{"bearer", "basic", "key", "query", "header", "oauth", "broken"} {
			send(clientToken, scheme+"://tool.example/"+name+"/x"+secretQuery)
		}
		send(clientToken, scheme+"://tool.example/401"+secretQuery)
		send(clientToken, scheme+"://tool.example/break"+secretQuery)
		send(clientToken, scheme+"://other.example/"+secretQuery)
		send(credstest.Canary("wrong-client-token").Reveal(), scheme+"://tool.example/bearer/")
	}
	for _, text := range []string{
		"GET http://u:" + credstest.Canary("userinfo").Reveal() + "@tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT u:" + credstest.Canary("connect-userinfo").Reveal() + "@tool.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://tool.example/bearer/ HTTP/1.1\r\nHost: x\r\nAuthorization: " + credstest.Canary("folded").Reveal() + "\r\n folded\r\n\r\n",
		"GET http://tool.example/bearer/ HTTP/1.1\r\nHost: x\r\nX-" + credstest.Canary("field-name").Reveal() + "\x01: x\r\n\r\n",
		"GET http://tool.example/ HTTP/1.1\r\nHost: u:" + credstest.Canary("host").Reveal() + "@x\r\n\r\n",
	} {
		fmt.Fprintln(&answers, rawAnswer(t, s.proxy, text))
	}
	provider.Answer(credstest.ReplyError(400, "invalid_client", credstest.Canary("error-description").Reveal()+" "+provider.ClientSecret))
	command("", "credential", "test", "oauth")
	for _, arguments := range [][]string{
		{"credential", "list"}, {"credential", "list", "-o", "json"}, {"check"}, {"ca"}, {"health"}, {"version"}, {"top", "--once"}, {"logs"}, {"doctor"},
		{"credential", "test", "bearer"}, {"try", "https://tool.example/bearer/"}, {"try", "https://tool.example/oauth/"},
	} {
		command("", arguments...)
	}
	for _, name := range []string{"bearer", "basic", "key", "query", "header", "oauth", "broken"} {
		command("", "credential", "get", name)
		command("", "credential", "get", name, "-o", "json")
		command("", "explain", "https://tool.example/"+name+"/")
		command("", "explain", "https://tool.example/"+name+"/", "-o", "json")
	}
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		resp, err := http.Get("http://" + s.metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(&printed, resp.Body)
		resp.Body.Close()
	}
	log.stop(t)

	for where, data := range map[string][]byte{"the log": log.bytes(), "the commands and listeners": printed.Bytes(), "the answers": answers.Bytes()} {
		for _, found := range credstest.Canaries(data) {
			t.Errorf("%s: a planted secret has leaked: %s", where, found)
		}
		if len(data) == 0 {
			t.Errorf("%s: nothing to search", where)
		}
	}
	files := 0
	err = filepath.WalkDir(s.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, found := range credstest.Canaries(data) {
			t.Errorf("%s: a planted secret has leaked: %s", filepath.Base(path), found)
		}
		files++
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("%d files were searched, %v", files, err)
	}
	// The control: where they belong, they are found.
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(credstest.Canaries(arrived.Bytes()), "\n")
	for _, kind := range []string{"token", "password", "api-key-header", "api-key-query", "static-header", "access-token", "cookie", "query"} {
		if !strings.Contains(all, kind+" ") {
			t.Errorf("the tool got no %s: the test tests less than it says\n%s", kind, printed.String())
		}
	}
	if strings.Contains(all, "client-token") {
		t.Error("the tool got the client token")
	}
	if provider.Calls() == 0 {
		t.Error("nobody asked for a token")
	}
}

func peerCertificate(t *testing.T, rawURL string) []byte {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only its certificate is wanted
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw})
}

func rawAnswer(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, text)
	answer := make([]byte, 4096)
	n, _ := c.Read(answer)
	return string(answer[:n])
}

// runningLog is what a started program writes, and its end.
type runningLog struct {
	mu      sync.Mutex
	b       bytes.Buffer
	command *exec.Cmd
	once    sync.Once
}

func (l *runningLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *runningLog) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

func (l *runningLog) stop(t *testing.T) {
	l.once.Do(func() {
		_ = l.command.Process.Signal(syscall.SIGTERM)
		_ = l.command.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(30*time.Second, func() { _ = l.command.Process.Kill() })
		defer timer.Stop()
		if err := l.command.Wait(); err != nil {
			t.Errorf("pillion ended: %v\n%s", err, l.bytes())
		}
	})
}

// startLogging is start for a test that reads the log.
func (s *sidecarProcess) startLogging(t *testing.T) *runningLog {
	t.Helper()
	l := &runningLog{command: exec.Command(s.binary, "run", "--config", s.config, "--state", s.state)}
	l.command.Env = plainEnvironment(t)
	l.command.Stdout, l.command.Stderr = l, l
	if err := l.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.stop(t) })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !bytes.Contains(l.bytes(), []byte(`"msg":"ready"`)); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("pillion is not ready after 30 s:\n%s", l.bytes())
		}
	}
	return l
}
