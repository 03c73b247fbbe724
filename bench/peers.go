package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// peer is one way from the client to the origin.
type peer struct {
	Name  string
	Title string            // how the report names it
	Not   map[string]string // scenario -> why it does not apply
	start func(ctx context.Context, l *lab, dir string) (*running, error)
}

// running is a peer that accepts connections.
type running struct {
	peer    *peer
	process *process // nil for the direct way
	First   time.Duration
	Ready   time.Duration
	proxy   string // where clients send CONNECT and absolute URLs; empty where the client speaks to a server
	tls     string // the server's TLS listener, for those without a proxy
	plain   string // its plain listener, if any
	ca      string // what the client must trust
	metrics string // offers go_memstats_mallocs_total, if any
	injects bool   // false: the client sends the header itself
}

func (r *running) stop() {
	if r.process != nil {
		r.process.stop()
	}
}

const (
	peerDirect  = "direct"
	peerFloor   = "floor"
	peerPillion = "pillion"
	peerNginx   = "nginx"
	peerSquid   = "squid"
	peerGoproxy = "goproxy"
)

// peers in the order of the report.
func peers() []*peer {
	noHTTP2 := func(why string) map[string]string {
		return map[string]string{"h2-1k": why, "h2-100k-down": why, "h2-100k-up": why}
	}
	return []*peer{
		{Name: peerDirect, Title: "direct", start: startDirect, Not: map[string]string{"plain-1k": "there is nothing that could turn it into TLS"}},
		{Name: peerFloor, Title: "floor (TLS relay without HTTP)", start: startFloor},
		{Name: peerPillion, Title: "pillion", start: startPillion},
		{Name: peerNginx, Title: "nginx (reverse proxy)", start: startNginx},
		{Name: peerSquid, Title: "squid (ssl-bump)", start: startSquid, Not: noHTTP2("squid speaks no HTTP/2")},
		{Name: peerGoproxy, Title: "goproxy as it comes", start: startGoproxy, Not: noHTTP2("off in goproxy as it comes")},
	}
}

// aim points a scenario's load at a running peer.
func (r *running) aim(l *lab, s scenario) load {
	at := l.addrs.HTTP1
	if s.OriginHTTP2 {
		at = l.addrs.HTTP2
	}
	to := s.load()
	to.Host, to.TLS, to.CAs = authority(at), !s.Plain, []string{r.ca}
	if !r.injects {
		to.Authorization = l.authorization()
	}
	switch {
	case r.proxy != "" && s.Plain:
		to.Dial, to.Target = r.proxy, "http://"+to.Host+to.Target
	case r.proxy != "":
		to.Dial, to.Connect = r.proxy, to.Host
	case r.tls == "":
		to.Dial = at
	case s.Plain:
		to.Dial = r.plain
	default:
		to.Dial = r.tls
	}
	return to
}

func startDirect(_ context.Context, l *lab, _ string) (*running, error) {
	return &running{ca: l.pki.CACert}, nil
}

func startFloor(ctx context.Context, l *lab, dir string) (*running, error) {
	r, err := startOwn(ctx, l, dir, peerFloor)
	if err == nil {
		r.injects = false
	}
	return r, err
}

func startGoproxy(ctx context.Context, l *lab, dir string) (*running, error) {
	return startOwn(ctx, l, dir, peerGoproxy)
}

// startOwn starts a proxy that is a subcommand of this program.
func startOwn(ctx context.Context, l *lab, dir, name string) (*running, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	metrics, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := startTalking(dir, name, l.self, name)
	if err != nil {
		return nil, err
	}
	r := &running{process: p, proxy: listen, metrics: metrics, ca: l.pki.CACert, injects: true}
	err = p.tell(proxyConfig{
		Listen: listen, Metrics: metrics, Origin: l.hosts(), Authorization: l.authorization(),
		CACert: l.pki.CACert, CAKey: l.pki.CAKey, LeafCert: l.pki.LeafCert, LeafKey: l.pki.LeafKey,
	})
	if err == nil {
		err = r.await(ctx, func() bool { return accepts(listen) })
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return r, nil
}

// await waits for the probe and remembers how long the process took since it was spawned.
func (r *running) await(ctx context.Context, probe func() bool) error {
	err := r.process.await(ctx, probe)
	r.Ready = time.Since(r.process.started)
	return err
}

// mallocs reads how many objects a Go program has allocated so far; false where it does not tell.
func mallocs(ctx context.Context, addr string) (float64, bool) {
	if addr == "" {
		return 0, false
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/metrics", addr), nil)
	if err != nil {
		return 0, false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("go_memstats_mallocs_total ")); ok {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			return n, err == nil
		}
	}
	return 0, false
}
