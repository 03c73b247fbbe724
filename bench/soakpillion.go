package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// soakPillion is the built program under the soak, and what it says.
type soakPillion struct {
	process        *process
	binary, dir    string
	proxy, metrics string // where it listens
	origin         *soakOrigin
	caFile         string
	roots          *x509.CertPool // that its clients trust
	log            soakLog
}

const soakConfig = `proxy:
  listen: %s
  base_url: true
  fast: %s
metrics: {listen: %s}
sftp: {listen: off}
upstream:
  ca_file: %s
  allow: [127.0.0.0/8]
  resolve: {%s: 127.0.0.1}
drain: %s
admin: {pprof: true}
`

// configure writes the configuration, in one step, since pillion watches the file.
func (p *soakPillion) configure(fast, drain string) error {
	text := fmt.Sprintf(soakConfig, p.proxy, fast, p.metrics, p.caFile, originName, drain)
	next := p.config() + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.config())
}

func (p *soakPillion) config() string { return filepath.Join(p.dir, "config.yaml") }
func (p *soakPillion) state() string  { return filepath.Join(p.dir, "state") }

// start makes the credentials and starts pillion.
func (p *soakPillion) start(ctx context.Context, keys []soakKey, f *findings) (err error) {
	if p.proxy, err = freePort(); err != nil {
		return err
	}
	if p.metrics, err = freePort(); err != nil {
		return err
	}
	if err := p.configure("on", "1s"); err != nil {
		return err
	}
	for _, key := range keys {
		if err := p.set(ctx, key, secretOf(key.Name)); err != nil {
			return err
		}
	}
	// Its log is read as it comes, so that no file grows for half an hour.
	p.process, err = startTalking(p.dir, peerPillion, "sh", "-c", `exec "$@" 2>&1`, "sh", p.binary, "run", "--config", p.config(), "--state", p.state())
	if err != nil {
		return err
	}
	p.log.findings = f
	go p.log.follow(p.process.stdout)
	if err := p.process.await(ctx, func() bool { return isReady(p.metrics) }); err != nil {
		return fmt.Errorf("%w; its log ends %q", err, p.log.last())
	}
	p.roots, err = readPool(filepath.Join(p.state(), "public", "ca.crt"))
	return err
}

// set stores a credential, as an administrator does.
func (p *soakPillion) set(ctx context.Context, key soakKey, secret string) error {
	url := "https://" + authority(p.origin.addrs[key.Port]) + "/" + key.Name + "/"
	tokens := "https://" + authority(p.origin.addrs[portTokens]) + "/token"
	return p.command(ctx, secret, append([]string{"credential", "set", key.Name}, key.arguments(url, tokens)...)...)
}

func (p *soakPillion) command(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, p.binary, append(args, "--config", p.config(), "--state", p.state())...)
	cmd.Env, cmd.Stdin = withoutProxies(os.Environ()), strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pillion %s: %w: %s", strings.Join(args[:2], " "), err, out)
	}
	return nil
}

func (p *soakPillion) hangUp() error { return p.process.cmd.Process.Signal(syscall.SIGHUP) }

// stop ends it as a pod does, and wants it to end by itself.
func (p *soakPillion) stop() error {
	if p.process == nil {
		return nil
	}
	defer p.process.stop()
	_ = p.process.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.process.exited:
	case <-time.After(20 * time.Second):
		return errors.New("pillion does not end")
	}
	if state := p.process.cmd.ProcessState; !state.Success() {
		return fmt.Errorf("pillion ended with %v; its log ends %q", state, p.log.last())
	}
	return nil
}

// goroutines is what they do, counted, as the admin socket tells it.
func (p *soakPillion) goroutines(ctx context.Context) (string, error) {
	client := http.Client{Timeout: answerTimeout, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.state(), "admin.sock"))
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pillion/debug/pprof/goroutine?debug=1", nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking for goroutines: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// soakLog reads pillion's log: a line a request, which says the same as its client saw, and nothing that alarms.
type soakLog struct {
	findings *findings

	mu       sync.Mutex
	requests map[string]int // by the kind of errand
	errors   map[string]int
	lines    []string // the last ones that are no requests
}

// logLine is what is of interest of one.
type logLine struct {
	Level, Msg            string
	Path, Error, Protocol string
	Detail, Credential    string
}

func (l *soakLog) follow(r *bufio.Reader) {
	for {
		line, err := r.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.read(line)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				l.findings.add("log: %v", err)
			}
			return
		}
	}
}

func (l *soakLog) read(text []byte) {
	var line logLine
	if err := json.Unmarshal(text, &line); err != nil {
		l.findings.add("log: a line that is no JSON: %.300s", text)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.Msg != "request" {
		l.keep(string(text))
		if line.Level == "ERROR" || line.Level == "WARN" {
			l.findings.add("log: %.300s", withoutTime(text))
		}
		return
	}
	if l.requests == nil {
		l.requests, l.errors = map[string]int{}, map[string]int{}
	}
	kind := line.Path[strings.LastIndexByte(line.Path, '/')+1:]
	l.requests[kind]++
	if line.Error == "" {
		return
	}
	l.errors[line.Error]++
	if !allowed(kind, line.Error) {
		l.findings.add("log: %s of %s by %s: %s: %s", kind, line.Credential, line.Protocol, line.Error, line.Detail)
	}
}

// allowed reports whether that may be wrong with such a request. What has no kind is no request, but a connection whose client left.
func allowed(kind, problem string) bool {
	switch problem {
	case problems[kind]:
		return true
	case "client-gone", "forbidden-client": // whose user can no longer be found out
		return kind == "" || isLeft(kind)
	case "bad-request": // a TLS handshake that had no end
		return kind == ""
	}
	return false
}

// withoutTime leaves out what makes equal lines different.
func withoutTime(text []byte) []byte {
	if _, rest, ok := bytes.Cut(text, []byte(`,"level"`)); ok {
		return append([]byte(`{"level"`), rest...)
	}
	return text
}

// keep remembers the last lines. The caller holds mu.
func (l *soakLog) keep(line string) {
	if l.lines = append(l.lines, line); len(l.lines) > 20 {
		l.lines = l.lines[1:]
	}
}

func (l *soakLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-5):], "; ")
}

func (l *soakLog) of(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[kind]
}
