package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	sysunix "golang.org/x/sys/unix"
)

// releaseProgram gives back the pages of the program file that are mapped by now:
// the kernel maps sixteen pages around each that a start touches, which is nearly all
// of a program this size, and serving needs a third of them. What is needed again is
// mapped again, from the page cache. It returns how many bytes it spoke for; none
// where /proc does not tell, and then nothing is lost but memory.
func releaseProgram() (released uintptr) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		start, end, ok := unwritable(lines.Text(), program)
		if !ok {
			continue
		}
		if _, _, errno := sysunix.Syscall(sysunix.SYS_MADVISE, start, end-start, sysunix.MADV_DONTNEED); errno == 0 {
			released += end - start
		}
	}
	return released
}

// unwritable reads a line of /proc/PID/maps (proc_pid_maps(5)), and says whether it
// is of a part of the file that nobody can have changed in memory. What can be
// written holds variables, which the file does not have.
func unwritable(line, file string) (start, end uintptr, ok bool) {
	fields, isFile := strings.CutSuffix(line, " "+file)
	var mode string
	if _, err := fmt.Sscanf(fields, "%x-%x %4s", &start, &end, &mode); err != nil || len(mode) != 4 {
		return 0, 0, false
	}
	return start, end, isFile && mode[0] == 'r' && mode[1] == '-' && mode[3] == 'p'
}
