package sftpgw

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/credstest"
)

// TestCost measures what the relay costs beside one that copies TCP, each in a
// process of its own, between OpenSSH's sftp and sshd:
//
//	PILLION_SFTP_COST=1024 go test -run TestCost -v ./sftpgw     (MiB a transfer)
func TestCost(t *testing.T) {
	size, _ := strconv.Atoi(os.Getenv("PILLION_SFTP_COST"))
	if size == 0 {
		return // PILLION_SFTP_COST says how many MiB to transfer
	}
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(server.Key.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, random(size<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, download := range []bool{false, true} {
		batch, what := "put "+source+" copy\n", "up"
		if download {
			batch, what = "get copy "+filepath.Join(dir, "back")+"\n", "down"
		}
		if err := os.WriteFile(filepath.Join(dir, "batch"), []byte(batch), 0o600); err != nil {
			t.Fatal(err)
		}
		for range max(1, size/512) {
			cost := map[string]time.Duration{}
			wall := map[string]time.Duration{}
			for _, kind := range []string{"direct", "tcp", "gateway"} {
				addr, user := server.Addr, server.Username
				var child *costChild
				if kind != "direct" {
					child = startCostChild(t, kind, server)
					addr = child.addr
				}
				if kind == "gateway" {
					user = "acme"
				}
				begin := time.Now()
				runSFTP(t, addr, user, key, filepath.Join(dir, "batch"))
				wall[kind] = time.Since(begin)
				if child != nil {
					cost[kind] = child.cpu(t)
					t.Logf("%s %s: wall %.2f s, CPU %.2f s, RSS %s", what, kind, wall[kind].Seconds(), cost[kind].Seconds(), child.peak)
				} else {
					t.Logf("%s %s: wall %.2f s", what, kind, wall[kind].Seconds())
				}
			}
			t.Logf("%s: CPU %.2f x TCP, wall %.2f x TCP", what, cost["gateway"].Seconds()/cost["tcp"].Seconds(), wall["gateway"].Seconds()/wall["tcp"].Seconds())
		}
	}
}

func runSFTP(t *testing.T, addr, user, key, batch string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	options := []string{"-q", "-P", port, "-b", batch, "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"}
	if c := os.Getenv("PILLION_SFTP_CIPHER"); c != "" {
		options = append(options, "-c", c)
	}
	out, err := exec.Command("sftp", append(options, user+"@"+host)...).CombinedOutput()
	if err != nil {
		t.Fatalf("sftp: %v\n%s", err, out)
	}
}

type costChild struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr string
	peak string
}

func startCostChild(t *testing.T, kind string, server *credstest.SSHD) *costChild {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCostChild$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), "PILLION_COST_CHILD="+kind, "PILLION_COST_ADDR="+server.Addr, "PILLION_COST_USER="+server.Username,
		"PILLION_COST_PASSWORD="+server.Password.Reveal(), "PILLION_COST_KEY="+server.HostKeys[0])
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &costChild{cmd: cmd, in: in, addr: strings.TrimSpace(line)}
}

// cpu ends the child, and returns what it used.
func (c *costChild) cpu(t *testing.T) time.Duration {
	t.Helper()
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") {
			c.peak = strings.Join(strings.Fields(line)[1:], " ")
		}
	}
	c.in.Close()
	_ = c.cmd.Wait()
	usage := c.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestCostChild is a measured process, when TestCost starts it.
func TestCostChild(t *testing.T) {
	kind := os.Getenv("PILLION_COST_CHILD")
	if kind == "" {
		return // started by TestCost
	}
	room := make([]byte, 4<<20) // as the program has; see cmd/pillion
	defer runtime.KeepAlive(room)
	l := listen(t)
	fmt.Println(l.Addr())
	if name := os.Getenv("PILLION_COST_PROFILE"); name != "" && kind == "gateway" {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			t.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	if kind == "tcp" {
		go serveTCP(l, os.Getenv("PILLION_COST_ADDR"))
	} else {
		key, err := LoadHostKey(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		c := &creds.Credential{
			Name: "acme", Protocol: creds.SFTP, URL: "sftp://" + os.Getenv("PILLION_COST_ADDR") + "/", Authorization: creds.Basic,
			Username: os.Getenv("PILLION_COST_USER"), Password: creds.NewSecret(os.Getenv("PILLION_COST_PASSWORD")), HostKeys: []string{os.Getenv("PILLION_COST_KEY")},
		}
		table := creds.NewTable([]*creds.Credential{c})
		s := &Server{Table: func() *creds.Table { return table }, Dial: (&net.Dialer{}).DialContext, HostKey: key, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry())}
		go func() { _ = s.Serve(l) }()
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until TestCost closes it
}

// serveTCP is the relay to compare with. Its copies are in user space, as any
// relay's are that looks at bytes: Go would splice two sockets in the kernel.
func serveTCP(l net.Listener, addr string) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			client.Close()
			continue
		}
		pump := func(to, from net.Conn) {
			_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
			to.Close()
		}
		go pump(client, server)
		go pump(server, client)
	}
}
