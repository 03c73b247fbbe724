package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// sftpPlan is what to run.
type sftpPlan struct {
	Rounds int
	MiB    int // of the largest transfer; the others go with it
	Loads  []sftpLoad
	Peers  []*sftpPeer
}

// any reports whether there is something to do.
func (p sftpPlan) any() bool { return len(p.Loads) > 0 && len(p.Peers) > 0 }

// sftpBench carries a run.
type sftpBench struct {
	lab     *sftpLab
	plan    sftpPlan
	out     io.Writer
	results sftpResults
}

// compareSFTP runs the plan.
func compareSFTP(ctx context.Context, l *lab, plan sftpPlan, stdout io.Writer) (*sftpReport, error) {
	lab, err := openSFTPLab(ctx, l)
	if err != nil {
		return nil, err
	}
	defer lab.close()
	b := &sftpBench{lab: lab, plan: plan, out: stdout}
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	return &sftpReport{machine: machine{Versions: lab.sftpVersions()}, plan: plan, results: b.results}, nil
}

// run goes through all rounds, as the bench of HTTP does: every way is started anew, and takes its turn in a new order for every load.
func (b *sftpBench) run(ctx context.Context) error {
	b.results.Missing, b.results.Idle = make(map[string]string), make(map[string][]float64)
	if err := b.makeSources(); err != nil {
		return err
	}
	for round := 1; round <= b.plan.Rounds; round++ {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// makeSources writes what is to be transferred: bytes that no program could make shorter.
func (b *sftpBench) makeSources() error {
	for _, load := range b.plan.Loads {
		name := b.lab.source(load)
		if _, err := os.Stat(name); err == nil || load.Clients == 0 {
			continue
		}
		f, err := os.Create(name)
		if err != nil {
			return fmt.Errorf("making a file to transfer: %w", err)
		}
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), load.bytes(b.plan.MiB))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("making a file to transfer: %w", err)
		}
	}
	return nil
}

func (b *sftpBench) round(ctx context.Context, round int) error {
	var field []*sftpWay
	defer func() {
		for _, w := range field {
			w.stop()
			_ = os.RemoveAll(b.lab.folder("sftp-"+w.peer.Name, round))
		}
	}()
	for _, i := range rand.Perm(len(b.plan.Peers)) {
		w, err := b.begin(ctx, round, b.plan.Peers[i])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.miss(b.plan.Peers[i], err)
			continue
		}
		field = append(field, w)
	}
	for _, load := range b.plan.Loads {
		for _, i := range rand.Perm(len(field)) {
			if load.Put && field[i].put == nil {
				continue
			}
			t := transfer{Round: round, Load: load.Name, Peer: field[i].peer.Name}
			if err := b.measure(ctx, load, field[i], &t); err != nil {
				t.Err = err.Error()
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.results.Transfers = append(b.results.Transfers, t)
			b.tell(t)
		}
	}
	return nil
}

func (b *sftpBench) miss(p *sftpPeer, err error) {
	if b.results.Missing[p.Name] == "" {
		fmt.Fprintf(b.out, "%-8s left out: %v\n", p.Name, err)
	}
	b.results.Missing[p.Name] = err.Error()
}

// begin starts a way and measures it before any load.
func (b *sftpBench) begin(ctx context.Context, round int, p *sftpPeer) (*sftpWay, error) {
	dir := b.lab.folder("sftp-"+p.Name, round)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	w, err := p.start(ctx, b.lab, dir)
	if err != nil {
		return nil, err
	}
	w.peer = p
	if w.process == nil {
		return w, nil
	}
	if w.idle, err = settledRSS(ctx, w.process); err != nil {
		w.stop()
		return nil, err
	}
	w.anonymous = float64(anonymous(w.process.pids()))
	b.results.Idle[p.Name] = append(b.results.Idle[p.Name], w.idle)
	return w, nil
}

// measure transfers once, and compares what has arrived: a figure for anything else would be void.
func (b *sftpBench) measure(ctx context.Context, load sftpLoad, w *sftpWay, t *transfer) (err error) {
	patience := time.Minute + time.Duration(b.plan.MiB)*time.Second/2
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the transfer did not end in time"))
	defer cancel()
	target := filepath.Join(b.lab.data, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(target)) }()
	to := w.near
	if load.Far {
		to = w.far
	}
	job, err := b.job(load, w, to, target)
	if err != nil {
		return err
	}
	defer job.end()
	if err := job.ready(ctx); err != nil {
		return err
	}
	if err := b.meter(w, t, func() error { return job.run(ctx) }); err != nil {
		return err
	}
	return job.check()
}

// meter fills in what something took.
func (b *sftpBench) meter(w *sftpWay, t *transfer, run func() error) error {
	t.CPU, t.Peak, t.Anonymous = math.NaN(), math.NaN(), math.NaN()
	if w.process == nil {
		begin := time.Now()
		err := run()
		t.Wall = time.Since(begin).Seconds()
		return err
	}
	resetPeak(w.process.pids())
	before, err := wholeCPU(w.process)
	if err != nil {
		return err
	}
	most := followAnonymous(w.process)
	begin := time.Now()
	err = run()
	t.Wall = time.Since(begin).Seconds()
	peak := most()
	if err != nil {
		return err
	}
	after, err := wholeCPU(w.process)
	if err != nil {
		return err
	}
	t.CPU = (after - before).Seconds()
	if !w.peer.Forks {
		_, resident, err := memory(w.process.pids())
		if err != nil {
			return err
		}
		t.Peak, t.Anonymous = max(float64(resident)-w.idle, 0), max(peak-w.anonymous, 0)
	}
	return nil
}

// wholeCPU is the CPU time of a process tree, children that have ended included: socat has one a connection.
func wholeCPU(p *process) (time.Duration, error) {
	var err error
	for range 5 { // one of them may end between being listed and being asked
		pids := p.pids()
		var alive time.Duration
		if alive, err = cpuTime(pids); err == nil {
			return alive + endedCPU(pids), nil
		}
	}
	return 0, err
}

// endedCPU is what the children of processes used that have been waited for, in the hundredths of a second in which the kernel tells it.
func endedCPU(pids []int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ, which is 100 on every Linux that Go runs on
	var sum time.Duration
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		const cutime, cstime = 13, 14 // of the fields behind the name
		if len(fields) > cstime {
			user, _ := strconv.Atoi(string(fields[cutime]))
			system, _ := strconv.Atoi(string(fields[cstime]))
			sum += time.Duration(user+system) * tick
		}
	}
	return sum
}

// job is a load that is aimed at one way.
type job struct {
	ready func(context.Context) error
	run   func(context.Context) error
	check func() error
	end   func()
}

func (b *sftpBench) job(load sftpLoad, w *sftpWay, to endpoint, target string) (*job, error) {
	if load.Clients == 0 {
		return b.small(to, target)
	}
	return b.large(load, w, to, target)
}

// large has OpenSSH's sftp, or pillion put, transfer one file a client.
func (b *sftpBench) large(load sftpLoad, w *sftpWay, to endpoint, target string) (*job, error) {
	source := b.lab.source(load)
	var commands [][]string
	var targets []string
	for i := range load.Clients {
		arrives := filepath.Join(target, fmt.Sprintf("file-%d", i))
		targets = append(targets, arrives)
		if load.Put {
			commands = append(commands, w.put(source, arrives))
			continue
		}
		verb := "put"
		if load.Down {
			verb = "get"
		}
		batch := filepath.Join(b.lab.dir, fmt.Sprintf("batch-%d", i))
		if err := os.WriteFile(batch, fmt.Appendf(nil, "%s %q %q\n", verb, source, arrives), 0o600); err != nil {
			return nil, err
		}
		commands = append(commands, openSSH(to, b.lab.key, batch))
	}
	return &job{
		ready: func(context.Context) error { return nil },
		run:   func(ctx context.Context) error { return runAll(ctx, commands) },
		check: func() error {
			for _, arrived := range targets {
				if err := sameContent(source, arrived); err != nil {
					return err
				}
			}
			return nil
		},
		end: func() {},
	}, nil
}

// small has one process store many small files.
func (b *sftpBench) small(to endpoint, target string) (*job, error) {
	s := smallFiles{To: to, Key: b.lab.key, Dir: target, Files: files(b.plan.MiB), Size: fileSize, Sessions: filesAtOnce}
	p, err := startTalking(b.lab.dir, filesName, b.lab.self, filesName)
	if err != nil {
		return nil, err
	}
	return &job{
		ready: func(ctx context.Context) error {
			var said string
			return ask(ctx, p, s, &said)
		},
		run: func(ctx context.Context) error {
			var failed string
			if err := ask(ctx, p, "go", &failed); err != nil || failed == "" {
				return err
			}
			return errors.New(failed)
		},
		check: s.check,
		end:   p.stop,
	}, nil
}

// tell prints a line a transfer, for those who watch.
func (b *sftpBench) tell(t transfer) {
	if t.Err != "" {
		fmt.Fprintf(b.out, "round %d  sftp %-9s %-8s FAILED: %s\n", t.Round, t.Load, t.Peer, t.Err)
		return
	}
	fmt.Fprintf(b.out, "round %d  sftp %-9s %-8s %6s s  CPU %6s s  memory +%s MiB, anonymous +%s\n", t.Round, t.Load, t.Peer, number(t.Wall), number(t.CPU), mebibytes(t.Peak), mebibytes(t.Anonymous))
}
