// Bench compares pillion with other ways from a client to a third-party tool: nothing between, a TLS relay without HTTP, nginx as a reverse proxy, squid with
// ssl-bump, and goproxy as it comes. Everything runs on loopback, interleaved, and every answer is checked.
//
//	go run . -pillion ../bin/pillion -out ../docs
//
// writes the tables of docs/performance.md (between its markers) and docs/performance.svg, and prints whether pillion keeps its bars.
// It needs Linux; nginx and squid are left out where they are not installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: bench [flags]

  -pillion FILE      the binary under test (default ../bin/pillion); "none" leaves pillion out
  -out DIR           where performance.md and performance.svg are written (default ../docs); "-" prints the tables only
  -rounds N          rounds, each with every peer started anew (default 5)
  -seconds S         seconds a peer is measured under each load (default 2)
  -scenarios LIST    only these, separated by commas
  -peers LIST        only these, separated by commas
  -tunnels N         idle tunnels to hold; 0 as many as the open-files limit allows (default), -1 none
  -quick             one round of half a second and 500 tunnels: a test of the bench, not a measurement
  -strict            exit with status 1 when a bar is missed

scenarios: %s
peers: %s

example: bench -pillion ../bin/pillion -rounds 3 -seconds 1 -scenarios h1-1k,h2-1k -out -
`

func main() {
	os.Exit(status(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr), os.Stderr))
}

var (
	errUsage  = errors.New("see -help")
	errMissed = errors.New("a bar was missed")
)

func status(err error, stderr io.Writer) int {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	default:
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
}

// run is the bench, or, as a subcommand that it starts itself, one of the processes that it needs.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 1 {
		switch args[0] {
		case "origin":
			return serveOrigin(stdin, stdout)
		case "load":
			return serveLoad(stdin, stdout)
		case "hold":
			return serveHold(stdin, stdout)
		case peerFloor:
			return serveFloor(stdin)
		case peerGoproxy:
			return serveGoproxy(stdin)
		}
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return compare(ctx, o, args, stdout)
}

// options is the command line.
type options struct {
	pillion, out string
	plan         plan
	strict       bool
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var (
		o                options
		seconds          float64
		scenarioList     string
		peerList         string
		quick            bool
		flags            = flag.NewFlagSet("bench", flag.ContinueOnError)
		allPeers, allSce = peers(), scenarios()
	)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, usage, names(allSce, scenarioName), names(allPeers, peerName))
	}
	flags.StringVar(&o.pillion, "pillion", "../bin/pillion", "")
	flags.StringVar(&o.out, "out", "../docs", "")
	flags.IntVar(&o.plan.Rounds, "rounds", 5, "")
	flags.Float64Var(&seconds, "seconds", 2, "")
	flags.StringVar(&scenarioList, "scenarios", "", "")
	flags.StringVar(&peerList, "peers", "", "")
	flags.IntVar(&o.plan.Tunnels, "tunnels", 0, "")
	flags.BoolVar(&quick, "quick", false, "")
	flags.BoolVar(&o.strict, "strict", false, "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%w: %q is no flag", errUsage, flags.Arg(0))
	}
	if quick {
		o.plan.Rounds, seconds, o.plan.Tunnels = 1, 0.5, 500
	}
	if o.plan.Rounds < 1 || o.plan.Rounds > 100 || seconds < 0.1 || seconds > 600 {
		return o, fmt.Errorf("%w: 1 to 100 rounds of 0.1 to 600 seconds", errUsage)
	}
	o.plan.Measure = time.Duration(seconds * float64(time.Second))
	var err error
	if o.plan.Scenarios, err = pick(allSce, scenarioName, scenarioList); err != nil {
		return o, err
	}
	if o.plan.Peers, err = pick(allPeers, peerName, peerList); err != nil {
		return o, err
	}
	return o, o.findPillion()
}

// findPillion makes the path absolute, since every peer has a working directory of its own.
func (o *options) findPillion() (err error) {
	if o.pillion == "none" {
		kept := o.plan.Peers[:0]
		for _, p := range o.plan.Peers {
			if p.Name != peerPillion {
				kept = append(kept, p)
			}
		}
		o.plan.Peers, o.plan.Tunnels = kept, -1
		return nil
	}
	if o.pillion, err = filepath.Abs(o.pillion); err != nil {
		return err
	}
	if _, err := os.Stat(o.pillion); err != nil {
		return fmt.Errorf("looking for the binary under test: %w; build it with make build, or name it with -pillion", err)
	}
	return nil
}

func scenarioName(s scenario) string { return s.Name }
func peerName(p *peer) string        { return p.Name }

func names[T any](all []T, name func(T) string) string {
	var list []string
	for _, one := range all {
		list = append(list, name(one))
	}
	return strings.Join(list, ", ")
}

// pick returns those that the list names, in the order of the report; all when it names none.
func pick[T any](all []T, name func(T) string, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := make(map[string]bool)
	for part := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(part)] = true
	}
	var picked []T
	for _, one := range all {
		if wanted[name(one)] {
			picked = append(picked, one)
			delete(wanted, name(one))
		}
	}
	for unknown := range wanted {
		return nil, fmt.Errorf("%w: %q is none of %s", errUsage, unknown, names(all, name))
	}
	return picked, nil
}

// compare runs the plan and writes the report. An interrupted run writes nothing.
func compare(ctx context.Context, o options, args []string, stdout io.Writer) error {
	lab, err := openLab(ctx, o.pillion)
	if err != nil {
		return err
	}
	defer lab.close()
	b := &bench{lab: lab, plan: o.plan, out: stdout}
	m := lookAround(lab, args)
	fmt.Fprintf(stdout, "%d rounds, about %v\n", o.plan.Rounds, o.plan.lasts().Round(time.Minute))
	if err := b.run(ctx); err != nil {
		return err
	}
	r := report{machine: m, plan: o.plan, results: b.results}
	if err := r.write(o.out, stdout); err != nil {
		return err
	}
	missed := 0
	for _, bar := range bars(&b.results) {
		fmt.Fprintln(stdout, bar)
		if bar.verdict() == missedBar {
			missed++
		}
	}
	if missed > 0 && o.strict {
		return errMissed
	}
	return nil
}
