package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestCPUTimeCountsAProcessTree(t *testing.T) {
	shell := exec.Command("sh", "-c", "(while :; do :; done) & echo started; wait")
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	pids := tree(shell.Process.Pid)
	defer func() {
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		_ = shell.Wait()
	}()
	if len(pids) != 2 {
		t.Fatalf("a shell with one child is a tree of %d", len(pids))
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		used, err := cpuTime(pids)
		if err != nil {
			t.Fatal(err)
		}
		if used > 20*time.Millisecond { // only the child burns CPU, so it was counted
			return
		}
	}
	t.Error("the child's CPU time was never counted")
}

func TestMemoryOfThisProcess(t *testing.T) {
	rss, peak, err := memory([]int{os.Getpid()})
	if err != nil || rss < 1<<20 || peak < rss {
		t.Errorf("rss %d, peak %d, %v", rss, peak, err)
	}
}

func TestStatusBytes(t *testing.T) {
	status := []byte("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
	if got := statusBytes(status, "VmRSS:"); got != 1<<20 {
		t.Errorf("VmRSS is %d", got)
	}
	if got := statusBytes(status, "VmSwap:"); got != 0 {
		t.Errorf("a missing line is %d", got)
	}
}
