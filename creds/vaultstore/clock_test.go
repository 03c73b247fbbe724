package vaultstore

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Vault tells whole seconds; the clock goes on between its answers, is never ahead
// of Vault's, and never goes back, but for a Vault whose clock was set back.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		if _, ok := c.read(time.Minute); ok {
			t.Error("a clock before the first answer")
		}
		offset := 90 * time.Second
		answer := func() { c.note(time.Now().Add(offset).UTC().Format(http.TimeFormat), time.Now()) }
		time.Sleep(300 * time.Millisecond)
		var last time.Time
		for range 1000 {
			answer()
			now, ok := c.read(time.Minute)
			if behind := time.Now().Add(offset).Sub(now); !ok || behind < 0 || behind > time.Second {
				t.Fatalf("%v behind, %v", behind, ok)
			}
			if now.Before(last) {
				t.Fatal("it goes back")
			}
			last = now
			time.Sleep(1700 * time.Millisecond)
		}
		time.Sleep(2 * time.Minute)
		if _, ok := c.read(time.Minute); ok {
			t.Error("an answer of two minutes ago is taken for fresh")
		}
		offset = 0
		answer()
		if now, _ := c.read(time.Minute); time.Since(now).Abs() > time.Second {
			t.Errorf("a clock that was set back is not followed: %v", now)
		}
		c.note("no date", time.Now())
	})
}
