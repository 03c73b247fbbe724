package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// reloads change what pillion runs with, one change every few seconds, and revoke tokens.
type reloads struct {
	soak  *soak
	count int
	done  map[string]int // by what was done
	mu    sync.Mutex
	last  string
}

// A reload is taken over in a moment; the origin takes the old token for that long.
const (
	reloadEvery = 4 * time.Second
	takenOver   = 3 * time.Second
	revokeEvery = 50 * time.Second // pillion asks for a token at most every 30 s because of a 401
)

// What a reload is called.
const (
	didHangUp    = "SIGHUP"
	didConfigure = "configuration changed"
	didSwitch    = "proxy.fast off and on"
)

func (r *reloads) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(reloadEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				r.next(ctx)
			}
		}
	})
	wg.Go(func() {
		tick := time.NewTicker(revokeEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				for _, key := range soakKeys() {
					if key.Kind == keyOAuth {
						r.soak.doorman.tokens.revoke(key.Name)
					}
				}
				r.note("tokens revoked")
			}
		}
	})
	wg.Wait()
}

func (r *reloads) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = fmt.Sprintf("%s at %s", what, time.Now().Format("15:04:05.000"))
	if r.done == nil {
		r.done = map[string]int{}
	}
	r.done[what]++
}

func (r *reloads) latest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// configured is how often the configuration was read anew.
func (r *reloads) configured() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[didHangUp] + r.done[didConfigure] + 2*r.done[didSwitch]
}

// next does one after another. Every eighth leaves HTTP/1.1 to net/http for a while, so that connections pass from one engine to the other.
func (r *reloads) next(ctx context.Context) {
	p := r.soak.pillion
	r.count++
	var what string
	var err error
	switch r.count % 8 {
	case 1, 5:
		what = didHangUp
		err = p.hangUp()
	case 2:
		what = didConfigure
		err = p.configure("on", fmt.Sprintf("%ds", 1+r.count%5))
	case 3, 7:
		what = "token replaced"
		err = r.rotate(ctx)
	case 4:
		what = "credential added"
		err = p.set(ctx, passing, "secret-of-nobody-yet")
	case 6:
		what = "credential deleted"
		err = p.command(ctx, "", "credential", "delete", passing.Name, "--yes")
	case 0:
		what = didSwitch
		if err = p.configure("off", "1s"); err == nil {
			pause(ctx, reloadEvery/2)
			err = p.configure("on", "1s")
		}
	}
	r.note(what)
	if err != nil && ctx.Err() == nil {
		r.soak.findings.add("reload: %s: %v", what, err)
	}
}

// passing is a credential that comes and goes. Nobody uses it.
var passing = soakKey{"passing", portHTTP1, keyBearer}

// rotate gives a credential that is in use another token.
func (r *reloads) rotate(ctx context.Context) error {
	key, _ := soakKeyNamed("rotated")
	next := fmt.Sprintf("%s-%d", secretOf(key.Name), r.count)
	r.soak.doorman.rotate(next)
	if err := r.soak.pillion.set(ctx, key, next); err != nil {
		return err
	}
	pause(ctx, takenOver)
	r.soak.doorman.settled()
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
