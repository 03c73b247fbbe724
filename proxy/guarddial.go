package proxy

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	fallbackDelay  = 300 * time.Millisecond // as in net.Dialer
	minPartialDial = 2 * time.Second
)

type dialFunc func(context.Context, netip.AddrPort) (net.Conn, error)

// dialAny is what net.Dialer does with the addresses of a name (RFC 6555): one
// after another, the other family beside the first one's if that takes longer
// than delay. The Dialer itself would resolve the name again, and could then not
// be told to refuse an answer of which only a part is forbidden.
func dialAny(ctx context.Context, targets []netip.AddrPort, delay time.Duration, dial dialFunc) (net.Conn, error) {
	first, other := byFamily(targets)
	if len(other) == 0 || delay < 0 {
		return dialSerial(ctx, targets, dial)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a connection that stands is not touched by it
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 2)
	open := 0
	start := func(list []netip.AddrPort) {
		open++
		go func() {
			conn, err := dialSerial(ctx, list, dial)
			results <- result{conn, err}
		}()
	}
	start(first)
	timer := time.NewTimer(cmp.Or(delay, fallbackDelay))
	defer timer.Stop()
	var firstErr error
	for open > 0 {
		select {
		case <-timer.C:
		case r := <-results:
			open--
			if r.err == nil {
				go func(late int) {
					for range late {
						if r := <-results; r.conn != nil {
							r.conn.Close()
						}
					}
				}(open)
				return r.conn, nil
			}
			if firstErr == nil {
				firstErr = r.err
			}
		}
		if other != nil {
			start(other)
			other = nil
		}
	}
	return nil, firstErr
}

// dialSerial returns the first connection, else the first error. A deadline is
// shared out, so that one silent address leaves time for the next.
func dialSerial(ctx context.Context, targets []netip.AddrPort, dial dialFunc) (net.Conn, error) {
	var firstErr error
	for i, target := range targets {
		partial, cancel := shareOfDeadline(ctx, len(targets)-i)
		conn, err := dial(partial, target)
		cancel()
		if err == nil {
			return conn, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, firstErr
}

func shareOfDeadline(ctx context.Context, among int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || among == 1 {
		return context.WithCancel(ctx)
	}
	share := max(time.Until(deadline)/time.Duration(among), minPartialDial)
	return context.WithTimeout(ctx, share)
}

// byFamily splits targets into those of the first one's family and the others.
func byFamily(targets []netip.AddrPort) (first, other []netip.AddrPort) {
	for _, target := range targets {
		if target.Addr().Is4() == targets[0].Addr().Is4() {
			first = append(first, target)
		} else {
			other = append(other, target)
		}
	}
	return first, other
}
