package credstest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// process is a server that tests speak to, running or not. It prints one line when
// it answers, and ends with its standard input, which ends with the process of the
// tests.
type process struct {
	binary string
	args   []string
	listen string // if not empty, goes before args as -listen
	input  []byte // what it reads first

	mu      sync.Mutex
	running *exec.Cmd
	ended   <-chan error
}

// startTied starts a process that ends with that of the tests, however that ends.
// ended gets what came of it, once, and is closed.
func startTied(cmd *exec.Cmd) (ended <-chan error, err error) {
	endWithThread(cmd)
	started, result := make(chan error), make(chan error, 1)
	go func() {
		defer close(result)
		runtime.LockOSThread() // until the process ends; see endWithThread
		err := cmd.Start()
		started <- err
		if err == nil {
			result <- cmd.Wait()
		}
	}()
	return result, <-started
}

// start runs the program, which must not run yet, and returns the line that it prints when it answers.
func (p *process) start() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	args := p.args
	if p.listen != "" {
		args = append([]string{"-listen", p.listen}, args...)
	}
	cmd := exec.Command(p.binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ended, err := startTied(cmd)
	if err != nil {
		return nil, err
	}
	_, _ = stdin.Write(p.input) // if it does not read, it does not answer either
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		<-ended
		return nil, fmt.Errorf("%s ends and says: %s", filepath.Base(p.binary), strings.TrimSpace(stderr.String()))
	}
	p.running, p.ended = cmd, ended
	return line, nil
}

// kill ends the process, also a frozen one, and waits for its end.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill()
	<-p.ended
	p.running = nil
}

// stopped reports whether every thread of the process is.
func (p *process) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return false
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.running.Process.Pid))
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err == nil && !strings.Contains(string(text), ") T ") {
			return false
		}
	}
	return true // also where there is no /proc
}

func (p *process) signal(signal os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return errors.New("it does not run")
	}
	return p.running.Process.Signal(signal)
}

// prepared runs a script that builds or installs what the tests start, and returns
// the path that it prints. source, its argument, is the directory that it makes it
// from.
func prepared(script, source string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(root, ".test"), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(root, ".test", script+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	// Go keeps a test's result until a file changes that the test itself has
	// opened. What scripts open it does not see.
	for _, dir := range []string{"scripts", source} {
		if _, err := os.ReadDir(filepath.Join(root, dir)); err != nil {
			return "", err
		}
	}
	var stderr bytes.Buffer
	run := exec.Command(filepath.Join(root, "scripts", script), source)
	run.Stderr = &stderr
	path, err := run.Output()
	if err != nil {
		return "", fmt.Errorf("running scripts/%s: %w\n%s", script, err, stderr.String())
	}
	return strings.TrimSpace(string(path)), nil
}

// repository is the directory above the tests that has the module vaultcore in it.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "creds", "credstest", "vaultcore", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no directory above this one has creds/credstest/vaultcore")
		}
		dir = filepath.Dir(dir)
	}
}

// lockFile holds other processes off until unlock: the tests of several packages
// run at once.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}
