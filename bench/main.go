// Bench compares pillion with other ways from a client to a third-party tool: nothing between, a TLS relay without HTTP, nginx as a reverse proxy, squid with
// ssl-bump, and goproxy as it comes; and for SFTP with nothing between, TCP relays, and a relay that issues each request anew. Everything runs on loopback,
// interleaved, and every answer is checked.
//
//	go run . -pillion ../bin/pillion -out ../docs
//
// writes the tables of docs/performance.md (between its markers) and the plots beside it, and prints whether pillion keeps its bars.
//
//	go run . soak -pillion ../bin/pillion -out ../docs
//
// puts a mixed load on pillion alone for half an hour, and fails where anything goes wrong or grows (soak.go).
//
// It needs Linux; nginx, squid and socat are left out where they are not installed. SFTP needs OpenSSH.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: bench [flags]
       bench soak [flags]        half an hour of mixed load: see bench soak -help

  -pillion FILE      the binary under test (default ../bin/pillion); "none" leaves pillion out
  -out DIR           where performance.md and its plots are written (default ../docs); "-" prints the tables only
  -only HALF         http or sftp
  -rounds N          rounds, each with every peer started anew (default 5)
  -seconds S         seconds a peer is measured under each load of HTTP (default 2)
  -mib N             MiB of the largest SFTP transfer; the others go with it (default 1024)
  -scenarios LIST    only these, separated by commas
  -peers LIST        only these, separated by commas
  -tunnels N         idle tunnels to hold; 0 as many as the open-files limit allows (default), -1 none
  -quick             one round of half a second, 500 tunnels and 16 MiB: a test of the bench, not a measurement
  -strict            exit with status 1 when a bar is missed

scenarios of HTTP: %s
peers of HTTP: %s
scenarios of SFTP: %s
peers of SFTP: %s

example: bench -pillion ../bin/pillion -rounds 3 -seconds 1 -scenarios h1-1k,h2-1k -out -
example: bench -only sftp -rounds 3 -mib 128 -peers direct,tcp,pillion -out -
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
	if len(args) > 0 && args[0] == "soak" {
		return runSoak(ctx, args[1:], stdout, stderr)
	}
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
		case peerTCP, lineName:
			return serveTCP(stdin)
		case peerReissue:
			return serveReissue(stdin)
		case filesName:
			return serveFiles(stdin, stdout)
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
	sftp         sftpPlan
	strict       bool
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var (
		o                            options
		seconds                      float64
		only, scenarioList, peerList string
		quick                        bool
		flags                        = flag.NewFlagSet("bench", flag.ContinueOnError)
	)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, usage, names(scenarios(), scenarioName), names(peers(), peerName), names(sftpLoads(), sftpLoadName), names(sftpPeers(), sftpPeerName))
	}
	flags.StringVar(&o.pillion, "pillion", "../bin/pillion", "")
	flags.StringVar(&o.out, "out", "../docs", "")
	flags.StringVar(&only, "only", "", "")
	flags.IntVar(&o.plan.Rounds, "rounds", 5, "")
	flags.Float64Var(&seconds, "seconds", 2, "")
	flags.IntVar(&o.sftp.MiB, "mib", wholeMiB, "")
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
		o.plan.Rounds, seconds, o.plan.Tunnels, o.sftp.MiB = 1, 0.5, 500, quickMiB
	}
	if o.plan.Rounds < 1 || o.plan.Rounds > 100 || seconds < 0.1 || seconds > 600 {
		return o, fmt.Errorf("%w: 1 to 100 rounds of 0.1 to 600 seconds", errUsage)
	}
	if o.sftp.MiB < smallestMiB || o.sftp.MiB > largestMiB || o.sftp.MiB%smallestMiB != 0 {
		return o, fmt.Errorf("%w: -mib is a multiple of %d, at most %d", errUsage, smallestMiB, largestMiB)
	}
	o.plan.Measure, o.sftp.Rounds = time.Duration(seconds*float64(time.Second)), o.plan.Rounds
	if err := o.choose(only, scenarioList, peerList); err != nil {
		return o, err
	}
	return o, o.findPillion()
}

// choose fills in scenarios and peers of either half.
func (o *options) choose(only, scenarioList, peerList string) (err error) {
	if only != "" && only != "http" && only != "sftp" {
		return fmt.Errorf("%w: -only is http or sftp, not %q", errUsage, only)
	}
	for what, list := range map[string]string{names(scenarios(), scenarioName) + ", " + names(sftpLoads(), sftpLoadName): scenarioList,
		names(peers(), peerName) + ", " + names(sftpPeers(), sftpPeerName): peerList} {
		if err := known(list, what); err != nil {
			return err
		}
	}
	if only != "sftp" {
		o.plan.Scenarios, o.plan.Peers = pick(scenarios(), scenarioName, scenarioList), pick(peers(), peerName, peerList)
	}
	if only != "http" {
		o.sftp.Loads, o.sftp.Peers = pick(sftpLoads(), sftpLoadName, scenarioList), pick(sftpPeers(), sftpPeerName, peerList)
	}
	if !o.plan.any() && !o.sftp.any() {
		return fmt.Errorf("%w: nothing is left to compare", errUsage)
	}
	return nil
}

// findPillion makes the path absolute, since every peer has a working directory of its own.
func (o *options) findPillion() (err error) {
	if o.pillion == "none" {
		o.plan.Peers = slices.DeleteFunc(o.plan.Peers, func(p *peer) bool { return p.Name == peerPillion })
		o.sftp.Peers = slices.DeleteFunc(o.sftp.Peers, func(p *sftpPeer) bool { return p.Name == peerPillion })
		o.plan.Tunnels = -1
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
func pick[T any](all []T, name func(T) string, list string) []T {
	wanted := listed(list)
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return list != "" && !slices.Contains(wanted, name(one)) })
}

// known refuses a list with a name that nothing has.
func known(list, names string) error {
	for _, wanted := range listed(list) {
		if list != "" && !slices.Contains(listed(names), wanted) {
			return fmt.Errorf("%w: %q is none of %s", errUsage, wanted, names)
		}
	}
	return nil
}

func listed(list string) []string {
	parts := strings.Split(list, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// compare runs the plans and writes the report. An interrupted run writes nothing.
func compare(ctx context.Context, o options, args []string, stdout io.Writer) error {
	lab, err := openLab(ctx, o.pillion)
	if err != nil {
		return err
	}
	defer lab.close()
	m := lookAround(args)
	var sections []section
	var judged []bar
	if o.plan.any() {
		b := &bench{lab: lab, plan: o.plan, out: stdout}
		fmt.Fprintf(stdout, "HTTP: %d rounds, about %v\n", o.plan.Rounds, o.plan.lasts().Round(time.Minute))
		if err := b.run(ctx); err != nil {
			return err
		}
		r := report{machine: m.with(lab.versions()), plan: o.plan, results: b.results}
		sections, judged = append(sections, r.section()), append(judged, bars(&b.results)...)
	}
	if o.sftp.any() {
		r, err := compareSFTP(ctx, lab, o.sftp, stdout)
		if err != nil {
			return err
		}
		r.machine = m.with(r.machine.Versions)
		sections, judged = append(sections, r.section()), append(judged, sftpBars(&r.results, o.sftp.MiB)...)
	}
	if err := publish(o.out, stdout, sections...); err != nil {
		return err
	}
	return judge(judged, o.strict, stdout)
}

func judge(bars []bar, strict bool, stdout io.Writer) error {
	missed := 0
	for _, bar := range bars {
		fmt.Fprintln(stdout, bar)
		if bar.verdict() == missedBar {
			missed++
		}
	}
	if missed > 0 && strict {
		return errMissed
	}
	return nil
}
