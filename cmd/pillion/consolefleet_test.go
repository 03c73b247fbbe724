package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// The page beside a real Prometheus that scrapes two listeners of metrics: what one
// pillion sees of requests and SFTP sessions is on the page as the fleet's, with the
// client's address; before anything is scraped the page says that it is not known.
func TestConsoleFromRealPrometheus(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	tool := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(tool.Close)
	provider := credstest.NewProvider(t)
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	i := install(t, provider, tool)
	prometheusAt, metricsAt := credstest.FreeAddress(t), credstest.FreeAddress(t)
	text, err := os.ReadFile(filepath.Join(i.dir, "pillion.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "metrics: {listen: 127.0.0.1:0}", fmt.Sprintf("metrics: {listen: %q}", metricsAt), 1) +
		fmt.Sprintf("console: {listen: 127.0.0.1:0, prometheus: 'http://%s/'}\n", prometheusAt)
	if err := os.WriteFile(filepath.Join(i.dir, "pillion.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	i.environ[envSFTPListen] = "127.0.0.1:0"
	does := func(stdin string, words ...string) {
		t.Helper()
		if output, failed := i.run(stdin, words...); failed {
			t.Fatalf("pillion %s:\n%s", strings.Join(words, " "), output)
		}
	}
	does("", "credential", "set", "used", "--url", "https://example.com/", "--authorization", "none")
	does("", "credential", "set", "idle", "--url", "https://idle.example/", "--authorization", "none")
	does(server.Password.Reveal(), "credential", "set", "files", "--url", "sftp://"+server.Addr+"/", "--username", server.Username, "--password-file", "-", "--host-key", server.HostKeys[0])
	i.serve()
	page := openPage(t, i)
	unknown := page.get(t, "/live")
	if !strings.Contains(unknown, "Not known at the moment") || strings.Contains(unknown, "0 requests") {
		t.Errorf("without Prometheus the live view is\n%s", unknown)
	}
	if list := page.get(t, "/"); !strings.Contains(list, "is not known at the moment") || strings.Contains(list, "not seen") {
		t.Errorf("without Prometheus the list is\n%s", list)
	}

	p := startPrometheusAt(t, program, prometheusAt, "", metricsAt)
	p.await(t, `pillion_requests_total{credential="used",code="2xx"}`, "0") // scraped before anything is sent
	p.await(t, `pillion_sftp_sessions_total{credential="files",result="ok"}`, "0")
	for range 3 {
		does("", "try", "https://example.com/x")
	}
	_, _ = i.run("", "try", "https://example.com/refused")
	file := filepath.Join(i.dir, "report.csv")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	does("", "put", file, "sftp://"+server.Addr+"/~/")
	p.await(t, `pillion_requests_total{credential="used",code="2xx"}`, "3")
	p.await(t, `pillion_requests_total{credential="used",code="4xx"}`, "1")
	p.await(t, `pillion_sftp_sessions_total{credential="files",result="ok"}`, "1")
	p.await(t, `sum(increase(pillion_requests_total{credential="used"}[24h])) > bool 3`, "1")

	list := page.get(t, "/")
	for deadline := time.Now().Add(patience); strings.Contains(list, "at the moment") && time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		list = page.get(t, "/") // that there was no answer is believed for some seconds
	}
	for credential, want := range map[string][]string{
		"used": {"Last used just now", " requests. Looked at: ", "Used lately by:", metricsAt}, "files": {"Last used just now", "1 request", metricsAt}, "idle": {"It was not seen in use", "requests of the last 24 hours"},
	} {
		got := page.get(t, "/credentials/"+credential+"/delete")
		for _, words := range want {
			if !strings.Contains(got, words) {
				t.Errorf("of %s the page does not say %q:\n%s", credential, words, got)
			}
		}
	}
	live := page.get(t, "/live")
	for _, words := range []string{"Requests of the last 24 hours through all pillions", "Prometheus counts requests, and keeps none", "1 failure in the last hour", "<svg class=\"plot bad\""} {
		if !strings.Contains(live, words) {
			t.Errorf("the live view does not say %q:\n%s", words, live)
		}
	}
	if !regexp.MustCompile(`[5-8] requests in the last hour`).MatchString(live) { // five, and what increase() adds for the time before the next look
		t.Errorf("the live view counts otherwise:\n%s", live)
	}
}

// openPage logs in at the page of a pillion that runs.
func openPage(t *testing.T, i *installation) openedPage {
	t.Helper()
	link, failed := i.run("", "console-link")
	if failed {
		t.Fatal(link)
	}
	u, err := url.Parse(strings.TrimSpace(link))
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := openedPage{"http://" + u.Host, &http.Client{Jar: jar, Transport: &http.Transport{}}}
	if body := p.get(t, u.RequestURI()); !strings.Contains(body, "Log out") {
		t.Fatalf("the link opens\n%s", body)
	}
	return p
}

// openedPage is the page as somebody who is logged in sees it.
type openedPage struct {
	url    string
	client *http.Client
}

func (p openedPage) get(t *testing.T, path string) string {
	t.Helper()
	response, err := p.client.Get(p.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
