package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSoakSmallMemory: 300 tunnels, all busy, in the 64 MiB of a small container.
// It needs root, and cgroups that may be written to.
func TestSoakSmallMemory(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak
	}
	const tunnels, limit, duration = 300, 64 << 20, 10 * time.Second
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	group, peak := memoryGroup(t, limit)
	sidecar.start(t, "sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group)

	var answered, failed atomic.Int64
	var running sync.WaitGroup
	over := time.Now().Add(duration)
	for i := range tunnels {
		client := sidecar.httpClient(t, i%10 == 0)
		running.Go(func() {
			for time.Now().Before(over) {
				if err := moveSome(client, i%3 == 0); err != nil {
					failed.Add(1)
					t.Log(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	running.Wait()
	most, err := os.ReadFile(filepath.Join(group, peak))
	if err != nil {
		t.Fatal(err)
	}
	bytes, _ := strconv.ParseInt(strings.TrimSpace(string(most)), 10, 64)
	t.Logf("%d requests by %d tunnels, %d failed; at most %.1f MiB", answered.Load(), tunnels, failed.Load(), float64(bytes)/(1<<20))
	if failed.Load() > 0 || answered.Load() < tunnels {
		t.Errorf("%d requests were answered, %d failed", answered.Load(), failed.Load())
	}
}

// moveSome sends a megabyte, or gets a fifth of one.
func moveSome(client *http.Client, up bool) error {
	var response *http.Response
	var err error
	if up {
		response, err = client.Post("https://stream.example/up", "application/octet-stream", io.LimitReader(zeros{}, 1<<20))
	} else {
		response, err = client.Get("https://stream.example/down?size=200000")
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// memoryGroup makes a cgroup with a limit: below ours, with version 2 beside it, since
// there a group has processes or groups. peak is the file that says how much was used
// at most.
func memoryGroup(t *testing.T, limit int) (dir, peak string) {
	t.Helper()
	ours, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("pillion-test-%d", os.Getpid())
	file := "memory.max"
	for line := range strings.Lines(string(ours)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controller, path, _ := strings.Cut(rest, ":")
		switch controller {
		case "memory":
			dir, file, peak = filepath.Join("/sys/fs/cgroup/memory", path, name), "memory.limit_in_bytes", "memory.max_usage_in_bytes"
		case "":
			if dir == "" {
				dir, peak = filepath.Join("/sys/fs/cgroup", filepath.Dir(path), name), "memory.peak"
			}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, peak
}
