package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tunnels is what idle keep-alive tunnels through pillion cost.
type tunnels struct {
	Count         int // opened, each with one answered request, and then left alone
	Alive         int // still answered a request afterwards
	Limit         int // open files that pillion may have
	OpenFiles     int // that it had
	Before, After float64
	Each          float64 // bytes of resident memory
	Err           string
}

// reserve is left of the open-files limit for everything that is not a client's tunnel: listeners, the store, the idle upstream connections.
const reserve = 1000

// holdTunnels starts pillion anew and opens as many tunnels as the limit allows, from another process; the origin is a third.
func (b *bench) holdTunnels(ctx context.Context) error {
	t := &b.results.Tunnels
	if err := b.tunnels(ctx, t); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.Err = err.Error()
	}
	fmt.Fprintf(b.out, "tunnels: %d open of a limit of %d files, %d alive afterwards, RSS %s -> %s MiB, %.1f KB each %s\n",
		t.Count, t.Limit, t.Alive, mebibytes(t.Before), mebibytes(t.After), t.Each/1000, t.Err)
	return nil
}

func (b *bench) tunnels(ctx context.Context, t *tunnels) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the tunnels did not open in time"))
	defer cancel()
	dir := b.lab.folder(peerPillion, 0)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r, err := startPillion(ctx, b.lab, dir)
	if err != nil {
		return err
	}
	defer r.stop()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the open-files limit: %w", err)
	}
	t.Limit = int(limit.Max)
	count := b.plan.Tunnels
	if count == 0 {
		count = max(t.Limit-reserve, 1)
		count = min(count, ephemeralPorts()-reserve)
	}
	if t.Before, err = settledRSS(ctx, r.process); err != nil {
		return err
	}
	holder, err := startTalking(b.lab.dir, "hold", b.lab.self, "hold")
	if err != nil {
		return err
	}
	defer holder.stop()
	to := r.aim(b.lab, scenario{Down: 1 << 10})
	to.Clients = count
	if err := ask(ctx, holder, to, &t.Count); err != nil {
		return err
	}
	if t.After, err = settledRSS(ctx, r.process); err != nil {
		return err
	}
	t.OpenFiles = openFiles(r.process.pid())
	t.Each = (t.After - t.Before) / float64(t.Count)
	return ask(ctx, holder, "again", &t.Alive)
}

func ask(ctx context.Context, p *process, question any, answer any) error {
	if err := p.tell(question); err != nil {
		return err
	}
	line, err := p.line(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(line, answer)
}

// ephemeralPorts is how many connections one address may open to one listener.
func ephemeralPorts() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	var low, high int
	if err != nil {
		return 28000
	}
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 28000
	}
	return high - low
}

// serveHold is the subcommand "hold": it opens load.Clients connections, or as many as the proxy's own cap allows, sends one request on each, and answers how
// many it holds; at the next line it sends one more request on each and answers how many were answered.
func serveHold(stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	first, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the load: %w", err)
	}
	var l load
	if err := json.Unmarshal(first, &l); err != nil {
		return fmt.Errorf("reading the load: %w", err)
	}
	d, err := newDialer(&l)
	if err != nil {
		return err
	}
	held := make([]*http1, l.Clients)
	for i := range held {
		held[i] = newHTTP1(&l, d)
	}
	defer func() {
		for _, c := range held {
			c.close()
		}
	}()
	if n, err := forEach(held, holdOnce); err != nil && !errors.Is(err, errNoMore) {
		return fmt.Errorf("opening tunnel %d of %d: %w", n+1, len(held), err)
	}
	held = slices.DeleteFunc(held, func(c *http1) bool { return c.conn == nil })
	fmt.Fprintln(stdout, len(held))
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting to ask again: %w", err)
	}
	alive, err := forEach(held, holdOnce)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
	}
	fmt.Fprintln(stdout, alive)
	_, err = io.Copy(io.Discard, in)
	return err
}

// holdOnce sends one request and lets go of the buffers, so that twenty thousand idle clients fit into one process.
func holdOnce(c *http1) error {
	if c.conn == nil {
		if err := c.open(); err != nil {
			return err
		}
	} else {
		c.r = bufio.NewReaderSize(c.conn, 4<<10)
	}
	err := c.do()
	c.r, c.body = nil, nil
	return err
}

// forEach does something with every client, sixteen at a time, until one fails; it returns how many succeeded and the first error.
func forEach(held []*http1, do func(*http1) error) (int, error) {
	var (
		next, succeeded atomic.Int64
		once            sync.Once
		first           error
		wg              sync.WaitGroup
	)
	for range clients {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(held)); i = next.Add(1) - 1 {
				if err := do(held[i]); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(len(held)))
					return
				}
				succeeded.Add(1)
			}
		})
	}
	wg.Wait()
	return int(succeeded.Load()), first
}
