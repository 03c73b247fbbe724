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
	"syscall"
	"time"
)

const soakUsage = `usage: bench soak [flags]

Puts a mixed load on pillion: keep-alive and new connections, HTTP/1.1 and HTTP/2, bodies up and down, clients that leave or are slow, WebSockets, tokens
that end and are revoked, origins that break off, while configuration and credentials change every few seconds. Any answer that the origin did not send,
any byte that differs, any goroutine or memory that is not given back fails it.

  -pillion FILE   the binary under test (default ../bin/pillion)
  -out DIR        where performance.md and its plot are written (default ../docs); "-" prints the tables only
  -for D          how long (default 30m); growth is judged from 10m on
  -rate N         requests a second (default 400)

example: bench soak -for 1m -out -
`

// soakPlan is how a soak is made.
type soakPlan struct {
	For   time.Duration
	Rate  float64
	Every time.Duration // between samples
}

// soak is one run.
type soak struct {
	plan     soakPlan
	out      io.Writer
	dir      string
	findings *findings
	doorman  *doorman
	origin   *soakOrigin
	pillion  *soakPillion
	tally    tally
	reloads  reloads
	begun    time.Time
	samples  []soakSample

	before, after soakSample
	told          func(soakSample)
}

// soakTokenLife is how long a token lives: pillion renews it when a third to a half of that is left, thus some hundred times in half an hour.
const soakTokenLife = 30 * time.Second

func runSoak(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var pillion, out string
	plan := soakPlan{Every: 5 * time.Second}
	flags := flag.NewFlagSet("bench soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, soakUsage) }
	flags.StringVar(&pillion, "pillion", "../bin/pillion", "")
	flags.StringVar(&out, "out", "../docs", "")
	flags.DurationVar(&plan.For, "for", 30*time.Minute, "")
	flags.Float64Var(&plan.Rate, "rate", 400, "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 || plan.For < 5*time.Second || plan.For > 24*time.Hour || plan.Rate < 1 || plan.Rate > 5000 {
		return fmt.Errorf("%w: bench soak -for 5s to 24h -rate 1 to 5000", errUsage)
	}
	if pillion == "none" {
		return fmt.Errorf("%w: a soak needs a pillion", errUsage)
	}
	o := options{pillion: pillion}
	if err := o.findPillion(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &soak{plan: plan, out: stdout}
	if err := s.run(ctx, o.pillion); err != nil {
		return err
	}
	l := lab{dir: os.TempDir(), pillion: o.pillion}
	r := soakReport{soak: s, machine: lookAround(append([]string{"soak"}, args...)).with(l.pillionVersion())}
	if err := publish(out, stdout, r.section()); err != nil {
		return err
	}
	return s.findings.err()
}

// run soaks a pillion from its start to its end. The error is for a soak that could not be made; what it found stands in findings.
func (s *soak) run(ctx context.Context, binary string) (err error) {
	if s.dir, err = os.MkdirTemp("", "pillion-soak-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(s.dir) }()
	if err := s.open(ctx, binary); err != nil {
		return err
	}
	defer s.origin.close()
	defer func() {
		if wrong := s.pillion.stop(); wrong != nil {
			s.findings.add("%v", wrong)
		}
	}()
	pause(ctx, settled)
	if s.before, err = takeSample(ctx, s.pillion.metrics, s.pillion.process.pid()); err != nil {
		return err
	}
	s.load(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.compareLog()
	s.judge()
	return nil
}

// settled is how long a pillion that has just started is left alone before it is looked at.
const settled = 2 * time.Second

func (s *soak) open(ctx context.Context, binary string) error {
	s.findings = &findings{first: func(text string) {
		fmt.Fprintf(s.out, "%7s  FOUND %s (last change: %s)\n", time.Since(s.begun).Round(time.Second), text, s.reloads.latest())
	}}
	s.reloads.soak = s
	keys, err := newPKI(s.dir)
	if err != nil {
		return err
	}
	s.doorman = &doorman{tokens: newSoakTokens(soakTokenLife, s.findings)}
	s.doorman.rotate(secretOf("rotated"))
	s.origin = &soakOrigin{doorman: s.doorman, findings: s.findings}
	if err := s.origin.listen(keys); err != nil {
		return err
	}
	s.pillion = &soakPillion{binary: binary, dir: filepath.Join(s.dir, "pillion"), origin: s.origin, caFile: keys.CACert}
	if err := os.Mkdir(s.pillion.dir, 0o700); err != nil {
		return err
	}
	if err := s.pillion.start(ctx, soakKeys(), s.findings); err != nil {
		_ = s.pillion.stop()
		s.origin.close()
		return err
	}
	return nil
}

// load runs the clients and the changes for the soak's time, or until pillion has ended or too much was found.
func (s *soak) load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.plan.For)
	defer cancel()
	s.begun = time.Now()
	s.told = s.progress()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx)
	}()
	go func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-s.pillion.process.exited:
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				if s.findings.number() < tooMany {
					continue
				}
			}
			cancel()
		}
	}()
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		s.reloads.run(ctx)
	}()
	s.work(ctx)
	<-changed
	<-watched
}

// progress prints a line a minute.
func (s *soak) progress() func(soakSample) {
	next := time.Duration(0)
	return func(t soakSample) {
		if t.At < next {
			return
		}
		next += time.Minute
		fmt.Fprintf(s.out, "%7s  %7d requests  %3.0f goroutines  %3.0f files  RSS %s MiB  own %s MiB  heap %s MiB  CPU %.0f s  %d findings\n", t.At.Round(time.Second),
			s.tally.total(), t.Goroutines, t.Files, mebibytes(t.RSS), mebibytes(t.Anonymous), mebibytes(t.Heap), t.CPU, s.findings.number())
	}
}

// settle waits until pillion is as idle as before, which it has to be once connections to tools that nobody uses have ended.
func (s *soak) settle(ctx context.Context) error {
	patience := 2 * time.Minute
	if s.plan.For < judged {
		// A reload ends them at once.
		patience = 5 * time.Second
		if err := s.pillion.hangUp(); err != nil {
			return err
		}
	}
	over := time.Now().Add(patience)
	for {
		var err error
		if s.after, err = takeSample(ctx, s.pillion.metrics, s.pillion.process.pid()); err != nil {
			return err
		}
		switch {
		case s.after.Goroutines <= s.before.Goroutines && s.after.Files <= s.before.Files && s.after.Tunnels == 0:
			return nil
		case time.Now().After(over):
			if s.after.Goroutines > s.before.Goroutines {
				text, err := s.pillion.goroutines(ctx)
				fmt.Fprintf(s.out, "what is left %v after the load (%v):\n%s\n", patience, err, text)
			}
			return nil
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// compareLog wants a line of the log for each request, and none besides; of those whose client left, at most one.
func (s *soak) compareLog() {
	for kind, sent := range s.tally.kinds {
		if logged := s.pillion.log.of(kind); logged != sent && !(isLeft(kind) && logged <= sent) {
			s.findings.add("%d requests %s, %d lines in the log", sent, kind, logged)
		}
	}
}
