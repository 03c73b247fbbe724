package proxy

import (
	"container/list"
	"crypto/tls"
	"time"
)

// leafEntry is one certificate, or the wait for it: cert and err are set before
// ready is closed.
type leafEntry struct {
	host    string
	ready   chan struct{}
	cert    *tls.Certificate
	err     error
	renewAt time.Time // zero while it is being made
	place   *list.Element
}

// leafCache holds the certificates used last. Its owner holds the lock.
type leafCache struct {
	entries map[string]*leafEntry
	order   list.List // front: used last
}

func (c *leafCache) get(host string, now time.Time) *leafEntry {
	entry := c.entries[host]
	if entry == nil {
		return nil
	}
	if !entry.renewAt.IsZero() && !now.Before(entry.renewAt) {
		c.remove(entry)
		return nil
	}
	c.order.MoveToFront(entry.place)
	return entry
}

func (c *leafCache) add(entry *leafEntry) {
	if c.entries == nil {
		c.entries = make(map[string]*leafEntry)
	}
	for c.order.Len() >= leafCacheSize {
		c.remove(c.order.Back().Value.(*leafEntry))
	}
	entry.place = c.order.PushFront(entry)
	c.entries[entry.host] = entry
}

// remove forgets entry, but not another one that took its place meanwhile.
func (c *leafCache) remove(entry *leafEntry) {
	c.order.Remove(entry.place)
	if c.entries[entry.host] == entry {
		delete(c.entries, entry.host)
	}
}

// bucket counts what may be minted now. Its owner holds the lock.
type bucket struct {
	level  float64
	filled time.Time // zero: never used, so full
}

func (b *bucket) take(now time.Time) bool {
	if b.filled.IsZero() {
		b.level = mintBurst
	} else if passed := now.Sub(b.filled); passed > 0 {
		b.level = min(mintBurst, b.level+passed.Seconds()*mintsPerSecond)
	}
	b.filled = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}
