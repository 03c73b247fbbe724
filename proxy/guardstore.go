package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// storeAddrs remembers what the store's names stand for.
type storeAddrs struct {
	mu     sync.Mutex
	addrs  []netip.AddrPort
	looked time.Time
}

const (
	storeLookupEvery   = time.Minute
	storeLookupTimeout = time.Second
)

// storeAddresses looks the store up at most once a minute. When that fails the
// last answer holds: with none at all the store cannot be reached by anybody, and
// its name is refused in any case, so connections to tools go on. The lock is
// held meanwhile: one dial a minute, and those beside it, may wait a second.
func (g *Guard) storeAddresses(ctx context.Context) []netip.AddrPort {
	if len(g.Store) == 0 {
		return nil
	}
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	now := time.Now()
	if g.store.looked.IsZero() || now.Sub(g.store.looked) > storeLookupEvery {
		g.store.looked = now
		// A client that leaves must not cost the others a minute's knowledge.
		if addrs, err := g.lookupStore(context.WithoutCancel(ctx)); err == nil {
			g.store.addrs = addrs
		}
	}
	return g.store.addrs
}

func (g *Guard) lookupStore(ctx context.Context) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLookupTimeout)
	defer cancel()
	var result []netip.AddrPort
	for _, store := range g.Store {
		host, port, err := splitAuthority(store)
		if err != nil {
			return nil, err
		}
		addrs := make([]netip.Addr, 1)
		if addrs[0], err = netip.ParseAddr(host); err != nil {
			addrs, err = g.resolver().LookupNetIP(ctx, "ip", host)
		}
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			result = append(result, netip.AddrPortFrom(addr.Unmap(), port))
		}
	}
	return result, nil
}
