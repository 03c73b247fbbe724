package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// machine is where and with what a run was made: a figure without it means nothing.
type machine struct {
	CPU      string
	Cores    int
	MemoryGB float64
	Kernel   string
	Go       string
	Date     time.Time
	Versions []string // of the peers
	Command  string
}

func lookAround(args []string) machine {
	m := machine{
		CPU:     field1("/proc/cpuinfo", "model name"),
		Cores:   runtime.NumCPU(),
		Kernel:  kernel(),
		Go:      runtime.Version(),
		Date:    time.Now(),
		Command: command(args),
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.MemoryGB = float64(info.Totalram) * float64(info.Unit) / 1e9
	}
	return m
}

// with is the same machine with these programs.
func (m machine) with(versions []string) machine {
	m.Versions = versions
	return m
}

// command is how to run the same again. Where the binary and the page lie is the reader's own affair.
func command(args []string) string {
	var kept []string
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if strings.HasPrefix(args[i], "-") && (name == "pillion" || name == "out") {
			if !joined {
				i++
			}
			continue
		}
		kept = append(kept, args[i])
	}
	if len(kept) == 0 {
		return "make bench"
	}
	return "go run . " + strings.Join(kept, " ")
}

func (l *lab) versions() []string {
	versions := l.pillionVersion()
	if program, err := findProgram("nginx"); err == nil {
		version := strings.TrimPrefix(says("nginx version", program, "-V"), "nginx version: ")
		tls := strings.TrimPrefix(says("built with OpenSSL", program, "-V"), "built with ")
		if _, running, ok := strings.Cut(tls, "running with "); ok {
			tls = strings.TrimSuffix(running, ")")
		}
		versions = append(versions, version+" ("+tls+")")
	}
	if program, err := findProgram("squid"); err == nil {
		versions = append(versions, strings.ReplaceAll(says("Version", program, "-v"), "Squid Cache: Version ", "squid/"))
	}
	return append(versions, moduleVersions("github.com/elazarl/goproxy")...)
}

// pillionVersion is empty where pillion is left out.
func (l *lab) pillionVersion() []string {
	if l.pillion == "none" {
		return nil
	}
	text, _ := exec.Command(l.pillion, "version").Output()
	line, _, _ := cutLine(strings.TrimSpace(string(text)))
	return []string{strings.TrimSpace(line)}
}

// moduleVersions are those of modules that this program is built with.
func moduleVersions(paths ...string) []string {
	var versions []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if slices.Contains(paths, module.Path) {
				versions = append(versions, strings.TrimPrefix(module.Path, "github.com/")+" "+module.Version)
			}
		}
	}
	return versions
}

// field1 is the value of the first line "key : value" of a file.
func field1(file, key string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(text))
}

// String is the paragraph above the tables.
func (m machine) String() string {
	return fmt.Sprintf("Measured on %s: %s, %d cores, %.0f GB of memory, %s, %s; peers: %s. Command: `%s`.",
		m.Date.UTC().Format("2006-01-02"), m.CPU, m.Cores, m.MemoryGB, m.Kernel, m.Go, strings.Join(m.Versions, ", "), m.Command)
}
