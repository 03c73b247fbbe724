package main_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// A sidecarProcess is the real program, built without -race, as its own process.
type sidecarProcess struct {
	binary, state, config string
	proxy, metrics        string // where it listens
	process               *os.Process
	ended                 chan error // what Wait said; whoever takes it puts it back
}

// newSidecar builds pillion and configures it for origin; start starts it.
func newSidecar(t *testing.T, origin *origin) *sidecarProcess {
	t.Helper()
	s := &sidecarProcess{
		binary:  buildProgram(t, "."),
		state:   filepath.Join(t.TempDir(), "state"),
		proxy:   credstest.FreeAddress(t),
		metrics: credstest.FreeAddress(t),
	}
	s.config = filepath.Join(t.TempDir(), "pillion.yaml")
	text := fmt.Sprintf(`proxy: {listen: %q, base_url: true}
metrics: {listen: %q}
sftp: {listen: off}
upstream:
  ca_file: %q
  allow: [127.0.0.1]
  resolve: {%s: %q}
`, s.proxy, s.metrics, origin.caFile, origin.name, origin.address)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs one command of pillion with input on its standard input.
func (s *sidecarProcess) run(t *testing.T, input string, arguments ...string) string {
	t.Helper()
	command := exec.Command(s.binary, append(arguments, "--state", s.state)...)
	command.Env = plainEnvironment(t)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("pillion %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return string(output)
}

// start starts `pillion run` and returns when it is ready. What comes before its
// command line may be given.
func (s *sidecarProcess) start(t *testing.T, before ...string) {
	t.Helper()
	line := append(before, s.binary, "run", "--config", s.config, "--state", s.state)
	command := exec.Command(line[0], line[1:]...)
	command.Env = plainEnvironment(t)
	s.startAs(t, command)
}

// startAs starts a command of pillion that serves until it is told to end, and
// returns when it is ready.
func (s *sidecarProcess) startAs(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = command.Process
	ended := make(chan error, 1)
	s.ended = ended
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		// Twice: the first asks it to drain, the second to leave at once.
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = command.Process.Kill()
			t.Error("pillion did not end after a second SIGTERM")
			<-ended
		}
		if t.Failed() {
			t.Logf("pillion's log:\n%s", log.String())
		}
	})
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		response, err := http.Get("http://" + s.metrics + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", command, err, log.String())
		case <-deadline:
			t.Fatal("pillion is not ready after 30 s")
		case <-tick.C:
		}
	}
}

func (s *sidecarProcess) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := s.process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// end waits until the program has ended by itself; its error is that of its exit
// status.
func (s *sidecarProcess) end(t *testing.T, within time.Duration) error {
	t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(within):
		t.Fatalf("pillion has not ended after %s", within)
		return nil
	}
}

// buildProgram builds the package at path as make build does, once for all tests. The
// program stays in .test/bin, where Go finds that it need not be linked again.
func buildProgram(t *testing.T, path string) string {
	t.Helper()
	build, _ := programs.LoadOrStore(path, sync.OnceValues(func() (string, error) {
		binary, err := filepath.Abs(filepath.Join("../../.test/bin/cmd-pillion", path, "program"))
		if err != nil {
			return "", err
		}
		command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, path)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := command.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, output)
		}
		return binary, nil
	}))
	binary, err := build.(func() (string, error))()
	if err != nil {
		t.Fatalf("building %s: %v", path, err)
	}
	return binary
}

var programs sync.Map // by path: a function that builds it

// plainEnvironment is that of a fresh login: no proxy, no certificates, no
// configuration of the person who runs the tests.
func plainEnvironment(t *testing.T) []string {
	t.Helper()
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LANG=C.UTF-8"}
}

// need skips the test where something is not installed.
func need(t *testing.T, what ...string) {
	t.Helper()
	credstest.Need(t, what...)
}
