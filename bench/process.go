package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one program that a run started. It has a process group of its own, so that what it starts ends with it, and so that an interrupt at
// the terminal reaches the bench alone, which then ends everything in order.
type process struct {
	Name string

	cmd     *exec.Cmd
	started time.Time
	stdin   io.WriteCloser // nil where the process is not talked to
	stdout  *bufio.Reader
	pipe    *os.File // behind stdout
	errFile string
	once    sync.Once
	exited  chan struct{} // closed when the process has been waited for
}

// start runs a program whose output, standard and error, goes to NAME.log in dir: for pillion that is its request log, a file as nginx and squid write one.
func start(dir, name string, args []string, env ...string) (*process, error) {
	return spawn(dir, name, args, env, false)
}

// startTalking runs a program of the bench's own, spoken to over standard input and output.
func startTalking(dir, name string, args ...string) (*process, error) {
	return spawn(dir, name, args, nil, true)
}

func spawn(dir, name string, args, env []string, talk bool) (*process, error) {
	p := &process{Name: name, errFile: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.OpenFile(p.errFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = append(withoutProxies(os.Environ()), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if talk {
		// Pipes of our own: those of os/exec are closed by Wait, which would lose an answer that is still unread.
		read, write, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
		defer write.Close()
		p.cmd.Stdout, p.stdout, p.pipe = write, bufio.NewReader(read), read
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// tell writes one line of JSON, or of plain text, to standard input.
func (p *process) tell(v any) error {
	line, ok := v.(string)
	if !ok {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		line = string(text)
	}
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		return fmt.Errorf("talking to %s: %w; it said %s", p.Name, err, p.lastWords())
	}
	return nil
}

// withoutProxies drops the variables that would send a peer's own requests through a proxy.
func withoutProxies(env []string) []string {
	return slices.DeleteFunc(env, func(entry string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(entry), "=")
		return strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "PILLION_")
	})
}

func (p *process) pid() int    { return p.cmd.Process.Pid }
func (p *process) pids() []int { return tree(p.pid()) }

// stop ends the process and its group: closed standard input and SIGTERM first, SIGKILL to what is left of the group after two seconds.
// Safe to call twice, and for a process that has already gone.
func (p *process) stop() { p.once.Do(p.end) }

func (p *process) end() {
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.exited
	if p.pipe != nil {
		_ = p.pipe.Close()
	}
}

// line reads one line of standard output; the process's own last words are the error when it ends before.
func (p *process) line(ctx context.Context) ([]byte, error) {
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := p.stdout.ReadBytes('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			return nil, fmt.Errorf("%s ended: %s", p.Name, p.lastWords())
		}
		return r.line, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for %s: %w", p.Name, context.Cause(ctx))
	}
}

// lastWords is the end of what the process wrote to standard error.
func (p *process) lastWords() string {
	text, _ := os.ReadFile(p.errFile)
	text = bytes.TrimSpace(text)
	if len(text) > 600 {
		text = text[len(text)-600:]
	}
	return fmt.Sprintf("%q", text)
}

// await asks probe every millisecond until it answers true. It polls, since other people's servers tell nobody when they are ready.
func (p *process) await(ctx context.Context, probe func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("not ready after 15 s"))
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !probe() {
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("%s ended: %s", p.Name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; it said %s", p.Name, context.Cause(ctx), p.lastWords())
		}
	}
	return nil
}

// accepts tells whether somebody listens at addr.
func accepts(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// freePort asks the kernel for a port. Another process could take it before its user does; on a benchmark machine that is a failed start, seen at once.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
