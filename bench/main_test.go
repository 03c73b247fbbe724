package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary play the processes that the bench starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(status(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr), os.Stderr))
	}
	os.Exit(m.Run())
}

// A whole comparison, with the peers that need nothing installed.
func TestAComparison(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // what the caller's environment says must not matter
	var out bytes.Buffer
	lab, err := openLab(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	defer lab.close()
	b := &bench{lab: lab, out: &out, plan: plan{Rounds: 1, Measure: 100 * time.Millisecond, Tunnels: -1}}
	b.plan.Peers = pick(peers(), peerName, "direct,floor,goproxy")
	b.plan.Scenarios = pick(scenarios(), scenarioName, "h1-1k,h1-100k-up,h2-100k-down,plain-1k,new,rate-100")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.results.Missing) > 0 {
		t.Errorf("left out: %v", b.results.Missing)
	}
	if want := 6*3 - 2; len(b.results.Samples) != want {
		t.Errorf("%d samples, want %d", len(b.results.Samples), want)
	}
	for _, s := range b.results.Samples {
		if s.Err != "" {
			t.Errorf("%s through %s: %s", s.Scenario, s.Peer, s.Err)
		}
		if s.Peer != peerDirect && !(s.CPU > 0 && s.Allocations > 0 && s.RSS > 1<<20) {
			t.Errorf("%s through %s: CPU %v, allocations %v, RSS %v", s.Scenario, s.Peer, s.CPU, s.Allocations, s.RSS)
		}
	}
	lab.close()
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "pillion-bench-*"))
	if len(left) > 0 || len(children(os.Getpid())) > 0 {
		t.Errorf("left behind: %v, processes %v", left, children(os.Getpid()))
	}
}

func TestAnInterruptedComparisonEndsItsProcesses(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	lab, err := openLab(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	defer lab.close()
	ctx, cancel := context.WithCancelCause(t.Context())
	errStopped := errors.New("stopped")
	b := &bench{lab: lab, out: writeFunc(func(p []byte) (int, error) { // the first line is printed in the middle of a round
		cancel(errStopped)
		return len(p), nil
	}), plan: plan{Rounds: 3, Measure: 100 * time.Millisecond, Tunnels: -1, Scenarios: scenarios()[:1]}}
	b.plan.Peers = pick(peers(), peerName, "direct,floor")
	if err := b.run(ctx); !errors.Is(err, errStopped) {
		t.Errorf("error %v", err)
	}
	if left := children(os.Getpid()); len(left) != 1 { // the origin, which is the lab's
		t.Errorf("%d processes left", len(left))
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string // of the error
	}{
		{[]string{"-pillion", "none"}, ""},
		{[]string{"-pillion", "none", "-quick"}, ""},
		{[]string{"-pillion", "none", "-scenarios", "new, h1-1k", "-peers", "nginx"}, ""},
		{[]string{"-pillion", "/nowhere"}, "make build"},
		{[]string{"-pillion", "none", "-only", "sftp", "-mib", "64", "-peers", "tcp"}, ""},
		{[]string{"-pillion", "none", "-scenarios", "up,h1-1k", "-peers", "direct,tcp"}, ""},
		{[]string{"-only", "ftp"}, "http or sftp"},
		{[]string{"-only", "sftp", "-peers", "nginx"}, "nothing is left"},
		{[]string{"-mib", "17"}, "a multiple of 16"},
		{[]string{"-scenarios", "h3"}, `"h3" is none of h1-1k, `},
		{[]string{"-peers", "envoy"}, `"envoy" is none of direct, `},
		{[]string{"-rounds", "0"}, "1 to 100 rounds"},
		{[]string{"-seconds", "9999"}, "0.1 to 600 seconds"},
		{[]string{"more"}, `"more" is no flag`},
		{[]string{"-nope"}, "not defined"},
		{[]string{"-help"}, "help requested"},
	} {
		_, err := parseOptions(row.args, io.Discard)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%q: error %v, want %q", row.args, err, row.want)
		}
	}
}

func TestTheUsageNamesEveryFlag(t *testing.T) {
	var help bytes.Buffer
	_, _ = parseOptions([]string{"-help"}, &help)
	for _, flag := range []string{"pillion", "out", "only", "rounds", "seconds", "mib", "scenarios", "peers", "tunnels", "quick", "strict"} {
		if !strings.Contains(help.String(), "\n  -"+flag+" ") {
			t.Errorf("the usage lacks -%s", flag)
		}
	}
	if strings.Contains(help.String(), "%!") {
		t.Error(fmt.Sprint("the usage is misprinted:\n", help.String()))
	}
}

func TestTheCommandNamesNoPathsOfThisMachine(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "make bench"},
		{[]string{"-pillion", "/a/b", "-out", "/c"}, "make bench"},
		{[]string{"-peers", "pillion", "-out", "/c"}, "go run . -peers pillion"},
		{[]string{"--out=/c", "-rounds", "3", "-pillion=/a"}, "go run . -rounds 3"},
	} {
		if got := command(row.args); got != row.want {
			t.Errorf("%q: %q, want %q", row.args, got, row.want)
		}
	}
}
