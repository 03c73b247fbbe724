package creds

import (
	"context"
	"sync"
)

// gate is a mutex whose waiters can leave with their context. The zero value is
// open.
type gate struct {
	once sync.Once
	slot chan struct{}
}

func (g *gate) enter(ctx context.Context) error {
	g.once.Do(func() { g.slot = make(chan struct{}, 1) })
	select {
	case g.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.slot }
