package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// pillionConfig names both of the origin's listeners by one credential each, since a credential is for one port.
const pillionConfig = `proxy:
  listen: %s
metrics:
  listen: %s
sftp:
  listen: %s
upstream:
  ca_file: %s
  allow: [127.0.0.0/8]
  resolve: {%s: 127.0.0.1}
drain: 1s
admin: {pprof: true}
`

// startPillion has a bearer credential for each of the origin's listeners.
func startPillion(ctx context.Context, l *lab, dir string) (*running, error) {
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(l.token), 0o600); err != nil {
		return nil, err
	}
	set := func(name, addr string) []string {
		return []string{name, "--url", "https://" + authority(addr) + "/", "--authorization", "bearer", "--token-file", token}
	}
	return l.runPillion(ctx, dir, "off", [][]string{set("bench-http1", l.addrs.HTTP1), set("bench-http2", l.addrs.HTTP2)})
}

// runPillion makes a state directory with the credentials, each the arguments of `credential set`, starts pillion twice in it and keeps the second: First is
// the start that makes its keys and publishes its files, Ready every later one.
func (l *lab) runPillion(ctx context.Context, dir, sftp string, credentials [][]string) (*running, error) {
	r := &running{ca: filepath.Join(dir, "state", "public", "ca.crt"), injects: true}
	var err error
	if r.proxy, err = freePort(); err != nil {
		return nil, err
	}
	if r.metrics, err = freePort(); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(pillionConfig, r.proxy, r.metrics, sftp, l.pki.CACert, originName)
	if err := os.WriteFile(configIn(dir), []byte(text), 0o600); err != nil {
		return nil, err
	}
	common := placesIn(dir)
	for _, credential := range credentials {
		if err := l.setCredential(ctx, append(credential, common...)); err != nil {
			return nil, err
		}
	}
	args := append([]string{l.pillion, "run"}, common...)
	for range 2 {
		r.stop()
		r.First = r.Ready
		if r.process, err = start(dir, peerPillion, args); err != nil {
			return nil, err
		}
		if err := r.await(ctx, func() bool { return isReady(r.metrics) }); err != nil {
			r.stop()
			return nil, err
		}
	}
	return r, nil
}

func configIn(dir string) string { return filepath.Join(dir, "config.yaml") }

// placesIn are the flags that have a command find the pillion of a directory.
func placesIn(dir string) []string {
	return []string{"--config", configIn(dir), "--state", filepath.Join(dir, "state")}
}

func (l *lab) setCredential(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, l.pillion, append([]string{"credential", "set"}, args...)...)
	cmd.Env = withoutProxies(os.Environ())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("storing a credential: %w: %s", err, out)
	}
	return nil
}

func isReady(metrics string) bool {
	client := http.Client{Timeout: time.Second}
	response, err := client.Get("http://" + metrics + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func splitAuthority(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(authority(addr))
	return host, port
}
