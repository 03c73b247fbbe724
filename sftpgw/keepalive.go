package sftpgw

import (
	"fmt"
	"time"
)

// keepaliveMisses is how often a silent server is asked before it is given up.
const keepaliveMisses = 3

// silentError says that a server was given up.
type silentError struct{ after time.Duration }

func (e *silentError) Error() string { return fmt.Sprintf("has not answered for %s", e.after) }

// watch asks a server that has sent nothing for an interval whether it lives,
// and ends the connection when three questions brought nothing at all. Any byte
// is an answer: behind a slow line a question may stand in a queue for longer
// than that, while the acknowledgements of what is before it come in.
//
// A question is sent by a goroutine of its own, since it waits for room where a
// dead peer leaves none, and there is never a second one beside it.
func (u *upstream) watch(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	answered := make(chan struct{}, 1)
	asking := false
	misses := 0
	for seen := u.net.reads.Load(); ; {
		select {
		case <-u.ended:
			return
		case <-answered:
			asking = false
			continue
		case <-ticker.C:
		}
		if reads := u.net.reads.Load(); reads != seen {
			seen, misses = reads, 0
			continue
		}
		if misses == keepaliveMisses {
			u.end(&silentError{time.Duration(keepaliveMisses+1) * interval})
			return
		}
		misses++
		if !asking {
			asking = true
			go func() {
				_, _, _ = u.conn.SendRequest("keepalive@openssh.com", true, nil) // any answer counts as a read
				answered <- struct{}{}
			}()
		}
	}
}
