package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree lists a process and all its descendants: nginx's workers and squid's helpers count as much as the process that was started.
func tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

func children(pid int) []int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// cpuTime is the user and system time that a process tree has used. It reads each process's CPU clock (the scheduler's own nanoseconds,
// all threads, ended ones included), since /proc/PID/stat counts in hundredths of a second: too coarse for a second's run.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		var t unix.Timespec
		clock := int32(^pid<<3 | 2) // MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// memory is the resident memory of a process tree in bytes, now and at its peak, pages shared between the processes counted in each.
func memory(pids []int) (rss, peak int64, err error) {
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, 0, fmt.Errorf("reading memory: %w", err)
		}
		rss += statusBytes(status, "VmRSS:")
		peak += statusBytes(status, "VmHWM:")
	}
	return rss, peak, nil
}

// statusBytes finds a line like "VmRSS:	    1234 kB"; a process that is just ending has none, and counts as nothing.
func statusBytes(status []byte, key string) int64 {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return n * 1024
		}
	}
	return 0
}

// resetPeak makes the kernel forget the peak so far, so that each run shows its own. It needs no more than the right to write to the process's
// clear_refs; where that is refused the peak is the one since the start, which is why the error is of no interest.
func resetPeak(pids []int) {
	for _, pid := range pids {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

// openFiles is how many descriptors a process holds.
func openFiles(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}
