package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os/exec"
	"path/filepath"
)

// sftpLoad is one thing to transfer, the same for every way.
type sftpLoad struct {
	Name    string
	Clients int // of OpenSSH, at once; 0: the client of many small files
	Part    int // each transfers this part of the plan's MiB
	Down    bool
	Far     bool // the server is at the end of a long line
	Put     bool // by pillion's own client, which knows no other way: beside what OpenSSH does on the others
}

// sftpLoads in the order of the report. The one that needs most memory is the last, since a process does not give it back at once.
func sftpLoads() []sftpLoad {
	return []sftpLoad{
		{Name: "up", Clients: 1, Part: 1},
		{Name: "put", Clients: 1, Part: 1, Put: true},
		{Name: "down", Clients: 1, Part: 1, Down: true},
		{Name: "far-up", Clients: 1, Part: 8, Far: true},
		{Name: "far-down", Clients: 1, Part: 8, Far: true, Down: true},
		{Name: "files"},
		{Name: "up-16", Clients: 16, Part: 16},
	}
}

const (
	fileSize    = 4 << 10 // of the many small files
	filesAtOnce = 16      // over one connection
	filesAWhole = 10000   // when the plan's MiB are 1024
	wholeMiB    = 1024
	smallestMiB = 16 // of which the sixteenth is still a file
	quickMiB    = 16
	largestMiB  = 16 << 10
	peerTCP     = "tcp"
	peerSocat   = "socat"
	peerReissue = "reissue"
	lineName    = "line"
	filesName   = "files"
	bytesOfMiB  = 1 << 20
)

// bytes that one client transfers.
func (s sftpLoad) bytes(mib int) int64 { return int64(mib) * bytesOfMiB / int64(s.Part) }

// files is how many small ones there are.
func files(mib int) int { return filesAWhole * mib / wholeMiB }

// title says how much it is.
func (s sftpLoad) title(mib int) string {
	if s.Clients == 0 {
		return fmt.Sprintf("%d files of %d KiB up, %d at once", files(mib), fileSize>>10, filesAtOnce)
	}
	text := size(s.bytes(mib))
	if s.Clients > 1 {
		text = fmt.Sprintf("%d times %s at once", s.Clients, text)
	}
	if s.Down {
		text += " down"
	} else {
		text += " up"
	}
	if s.Put {
		text += " by pillion put"
	}
	if s.Far {
		text += fmt.Sprintf(", %v line", 2*lineDelay)
	}
	return text
}

// beside is the load whose transfers on other ways this one is compared with.
func (s sftpLoad) beside() string {
	if s.Put {
		return "up"
	}
	return s.Name
}

func size(n int64) string {
	if n%(1<<30) == 0 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func sftpLoadName(s sftpLoad) string  { return s.Name }
func sftpPeerName(p *sftpPeer) string { return p.Name }

// sftpPeer is one way from the client to the server.
type sftpPeer struct {
	Name, Title string
	Forks       bool // a process for each connection, whose memory is gone when it has ended
	start       func(ctx context.Context, s *sftpLab, dir string) (*sftpWay, error)
}

// sftpWay is a peer that accepts connections.
type sftpWay struct {
	running
	peer      *sftpPeer
	near, far endpoint
	idle      float64                              // bytes of memory before any load
	anonymous float64                              // of them
	put       func(source, target string) []string // the command line that sends a file; nil where there is none
}

// sftpPeers in the order of the report.
func sftpPeers() []*sftpPeer {
	return []*sftpPeer{
		{Name: peerDirect, Title: "direct", start: sftpDirect},
		{Name: peerTCP, Title: "TCP relay", start: startTCP},
		{Name: peerSocat, Title: "socat (TCP relay)", Forks: true, start: startSocat},
		{Name: peerPillion, Title: "pillion", start: startSFTPPillion},
		{Name: peerReissue, Title: "re-issuing relay (pkg/sftp)", start: startReissue},
	}
}

func sftpDirect(_ context.Context, s *sftpLab, _ string) (*sftpWay, error) {
	return &sftpWay{near: endpoint{s.near, s.user}, far: endpoint{s.far, s.user}}, nil
}

// between is a way over two ports, as relays have that cannot be told the target.
func (s *sftpLab) between() (*sftpWay, error) {
	near, err := freePort()
	if err != nil {
		return nil, err
	}
	far, err := freePort()
	if err != nil {
		return nil, err
	}
	return &sftpWay{near: endpoint{near, s.user}, far: endpoint{far, s.user}}, nil
}

// up waits until a way accepts connections.
func (w *sftpWay) up(ctx context.Context, p *process) (*sftpWay, error) {
	w.process = p
	if err := w.await(ctx, func() bool { return accepts(w.near.Addr) && accepts(w.far.Addr) }); err != nil {
		p.stop()
		return nil, err
	}
	return w, nil
}

func startTCP(ctx context.Context, s *sftpLab, dir string) (*sftpWay, error) {
	w, err := s.between()
	if err != nil {
		return nil, err
	}
	p, err := startTalking(dir, peerTCP, s.self, peerTCP)
	if err != nil {
		return nil, err
	}
	if err := p.tell(relayConfig{Ways: []relayWay{{w.near.Addr, s.near}, {w.far.Addr, s.far}}}); err != nil {
		p.stop()
		return nil, err
	}
	return w.up(ctx, p)
}

// startSocat is the relay that one types: a process for each connection.
func startSocat(ctx context.Context, s *sftpLab, dir string) (*sftpWay, error) {
	program, err := exec.LookPath("socat")
	if err != nil {
		return nil, fmt.Errorf("socat is not installed: %w", err)
	}
	w, err := s.between()
	if err != nil {
		return nil, err
	}
	listen := func(addr string) string {
		host, port, _ := net.SplitHostPort(addr)
		return fmt.Sprintf("TCP4-LISTEN:%s,bind=%s,fork,reuseaddr,backlog=64,nodelay", port, host)
	}
	p, err := start(dir, peerSocat, []string{"sh", "-c", `"$1" "$2" "$3" & exec "$1" "$4" "$5"`, "sh",
		program, listen(w.near.Addr), "TCP4:" + s.near + ",nodelay", listen(w.far.Addr), "TCP4:" + s.far + ",nodelay"})
	if err != nil {
		return nil, err
	}
	return w.up(ctx, p)
}

func startReissue(ctx context.Context, s *sftpLab, dir string) (*sftpWay, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := startTalking(dir, peerReissue, s.self, peerReissue)
	if err != nil {
		return nil, err
	}
	if err := p.tell(reissueConfig{Listen: listen, Servers: map[string]string{"near": s.near, "far": s.far}, User: s.user, Key: s.key, HostKey: s.hostKey}); err != nil {
		p.stop()
		return nil, err
	}
	return (&sftpWay{near: endpoint{listen, "near"}, far: endpoint{listen, "far"}}).up(ctx, p)
}

// startSFTPPillion is pillion as make build makes it, with its HTTP half beside, and a credential for each end of the line.
func startSFTPPillion(ctx context.Context, s *sftpLab, dir string) (*sftpWay, error) {
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	set := func(name, addr string) []string {
		return []string{name, "--url", "sftp://" + addr + "/", "--authorization", "basic", "--username", s.user, "--private-key-file", s.key, "--host-key", s.hostKey}
	}
	r, err := s.runPillion(ctx, dir, listen, [][]string{set("near", s.near), set("far", s.far)})
	if err != nil {
		return nil, err
	}
	put := func(source, target string) []string {
		return append([]string{s.pillion, "put", "--quiet", source, "sftp://" + s.near + target}, placesIn(dir)...)
	}
	return &sftpWay{running: *r, near: endpoint{listen, "near"}, far: endpoint{listen, "far"}, put: put}, nil
}

// transfer is what one way did with one load in one round. A figure that does not apply is NaN.
type transfer struct {
	Round      int
	Load, Peer string
	Wall       float64 // seconds, from the client's start to its end
	CPU        float64 // seconds of the process between
	Peak       float64 // bytes of memory at the peak, beyond those before any load
	Anonymous  float64 // the same of anonymous memory
	Err        string
}

// sftpResults is all that a run has seen.
type sftpResults struct {
	Transfers []transfer
	Idle      map[string][]float64
	Missing   map[string]string
}

func wallOf(t transfer) float64 { return t.Wall }
func busyOf(t transfer) float64 { return t.CPU }
func peakOf(t transfer) float64 { return t.Peak }
func anonOf(t transfer) float64 { return t.Anonymous }

// series gathers a figure by round. Failed transfers are left out.
func (r *sftpResults) series(load, peer string, figure func(transfer) float64) map[int]float64 {
	byRound := make(map[int]float64)
	for _, t := range r.Transfers {
		if t.Load == load && t.Peer == peer && t.Err == "" {
			byRound[t.Round] = figure(t)
		}
	}
	return byRound
}

// sftpBars judges a run.
func sftpBars(r *sftpResults, mib int) []bar {
	var list []bar
	for _, s := range sftpLoads() {
		if s.Put {
			continue // it has no equal
		}
		to := func(figure func(transfer) float64, peer string) float64 {
			return pairedRatio(r.series(s.Name, peerPillion, figure), r.series(s.Name, peer, figure))
		}
		title := s.title(mib)
		if s.Far {
			list = append(list, bar{Name: title + ": time, to direct", Got: to(wallOf, peerDirect), Limit: 1.05, Unit: " x"})
			continue
		}
		list = append(list,
			bar{Name: title + ": CPU, to a TCP relay", Got: to(busyOf, peerTCP), Limit: 2.2, Unit: " x"},
			bar{Name: title + ": time, to a TCP relay", Got: to(wallOf, peerTCP), Limit: 1.15, Unit: " x"})
		switch s.Clients {
		case 1:
			list = append(list, bar{Name: title + ": anonymous memory beyond idle", Got: r.peak(s.Name), Limit: 12, Unit: " MiB"})
		case 16:
			list = append(list, bar{Name: title + ": anonymous memory beyond idle", Got: r.peak(s.Name), Limit: 70, Unit: " MiB"})
		}
	}
	return list
}

// peak is the median of pillion's anonymous memory, in MiB.
func (r *sftpResults) peak(load string) float64 {
	var values []float64
	for _, v := range r.series(load, peerPillion, anonOf) {
		values = append(values, v)
	}
	if len(values) == 0 {
		return math.NaN()
	}
	return median(values) / bytesOfMiB
}

// source is the file that clients of a load send, or fetch.
func (s *sftpLab) source(load sftpLoad) string {
	return filepath.Join(s.data, fmt.Sprintf("source-%d", load.Part))
}
