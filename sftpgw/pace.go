package sftpgw

import "time"

// A large file is transferred in requests of 32 KiB, of which clients have many
// under way. Each is answered, or asked for, by a few bytes in the other
// direction, and each of those wakes the server's processes, ours and the
// client's one after the other: a fifth of our CPU, and as much of everybody's
// time. So what is small is read once in paceInterval while so many requests wait
// for their answers that nobody has to stop for it: OpenSSH and rclone have 64,
// lftp and whoever stores many small files have 16 or fewer. Those wait for
// nothing, and neither does what comes more rarely, as it does over a long line.
const (
	paceInterval = time.Millisecond
	paceRequests = 16      // more than these
	paceSmall    = 8 << 10 // bytes of one reading
)

// pace waits until it is time for the next reading. open says how many requests
// have no answer; without it there is no waiting, as there is none when several
// channels share the connection.
func (c *gatheredConn) pace() {
	if c.lastRead >= paceSmall || !c.alone.Load() {
		return
	}
	open := c.open.Load()
	if open == nil {
		return
	}
	if wait := paceInterval - time.Since(c.readAt); wait > 0 && (*open)() > paceRequests {
		time.Sleep(wait)
	}
}

// pacedBy has a channel's connection read as the session's requests allow.
func (c *onlyChannel) pacedBy(open func() int) { c.conn.open.Store(&open) }
