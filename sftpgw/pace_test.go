package sftpgw

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// arriving is a connection to which a small answer comes every tenth of a
// millisecond. What has come is read at once, as from a socket.
type arriving struct {
	net.Conn
	left  int // answers
	reads int
	since time.Time
}

const answerBytes = 60

func (c *arriving) Read(p []byte) (int, error) {
	c.reads++
	if time.Since(c.since) < 100*time.Microsecond {
		time.Sleep(100*time.Microsecond - time.Since(c.since))
	}
	come := min(int(time.Since(c.since)/(100*time.Microsecond)), c.left)
	c.left -= come
	c.since = c.since.Add(time.Duration(come) * 100 * time.Microsecond)
	return come * answerBytes, nil
}

func TestAnswersAreReadTogetherWhileManyRequestsWait(t *testing.T) {
	const answers = 1000
	for _, row := range []struct {
		name        string
		requests    int
		shared      bool
		least, most int // readings
		within      time.Duration
	}{
		{"many requests", paceRequests + 1, false, answers / 12, answers / 9, 102 * time.Millisecond},
		{"few requests", paceRequests, false, answers, answers, 100 * time.Millisecond},
		{"several channels", paceRequests + 1, true, answers, answers, 100 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := &arriving{left: answers, since: time.Now()}
			g := gather(conn)
			only := g.only(nil).(*onlyChannel)
			only.pacedBy(func() int { return row.requests })
			if row.shared {
				g.share()
			}
			begin := time.Now()
			for p := make([]byte, largeRoom); conn.left > 0; {
				if _, err := g.Read(p); err != nil {
					t.Fatal(err)
				}
			}
			if conn.reads < row.least || conn.reads > row.most {
				t.Errorf("%s: %d readings, want %d to %d", row.name, conn.reads, row.least, row.most)
			}
			if took := time.Since(begin); took > row.within {
				t.Errorf("%s: %v, want at most %v", row.name, took, row.within)
			}
		})
	}
}

// What is large, or comes rarely, is not held up.
func TestDataIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gather(nil)
		g.only(ssh.Channel(nil)).(*onlyChannel).pacedBy(func() int { return paceRequests + 1 })
		begin := time.Now()
		g.lastRead, g.readAt = paceSmall, begin
		g.pace()
		g.lastRead, g.readAt = answerBytes, begin.Add(-paceInterval)
		g.pace()
		if took := time.Since(begin); took != 0 {
			t.Errorf("it waited %v", took)
		}
	})
}
