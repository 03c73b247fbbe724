package sftpgw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// upstream is a connection to a server, logged in. It carries one session, or
// with reuse several at a time and one after another.
type upstream struct {
	addr     string
	conn     ssh.Conn
	net      *watchedConn
	gathered *gatheredConn
	account  *account
	banner   string // what the server said at the login
	d        *dialer
	ended    chan struct{} // closed when the connection has ended, after why is set

	mu       sync.Mutex
	why      error // that it was ended for, or that it ended with
	users    int   // who dialled, and has not closed
	reserved int   // users who have not opened a session yet
	sessions int
	full     bool // the server refused another session
	timer    *time.Timer
}

func (d *dialer) newUpstream(addr string, conn *watchedConn, gathered *gatheredConn, sshConn ssh.Conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, l *login) *upstream {
	a := l.account
	u := &upstream{addr: addr, conn: sshConn, net: conn, gathered: gathered, account: a, banner: l.banner.String(), d: d, ended: make(chan struct{}), users: 1, reserved: 1}
	go ssh.DiscardRequests(requests)
	go func() {
		for channel := range channels {
			_ = channel.Reject(ssh.Prohibited, "nothing is forwarded") // the connection has ended if that fails
		}
	}()
	go func() {
		u.end(sshConn.Wait())
		close(u.ended)
	}()
	go u.watch(cmp.Or(d.keepalive, 15*time.Second))
	if d.reuse {
		a.mu.Lock()
		a.pool = append(a.pool, u)
		a.mu.Unlock()
	}
	return u
}

// end closes the connection; the first reason stands.
func (u *upstream) end(why error) {
	u.mu.Lock()
	if u.why == nil {
		u.why = cmp.Or(why, errClosed)
	}
	u.mu.Unlock()
	u.net.Close() // not the SSH connection, which would wait for its writers
}

var errClosed = errors.New("the connection was closed")

// reason says why the connection ended, in the words of a sentence.
func (u *upstream) reason() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var silent *silentError
	if errors.As(u.why, &silent) {
		return silent.Error()
	}
	return lost(u.why)
}

// reserve returns a connection that has room for another session, or nil.
func (a *account) reserve() *upstream {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.pool {
		if u.reserve() {
			return u
		}
	}
	return nil
}

func (u *upstream) reserve() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why != nil || u.full || u.sessions+u.reserved >= cmp.Or(u.d.sessions, 10) {
		return false
	}
	u.users++
	u.reserved++
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	return true
}

// close gives the connection back, once for each dial. With reuse it stays open
// for a while.
func (u *upstream) close() {
	u.mu.Lock()
	u.users--
	u.reserved = min(u.reserved, u.users)
	unused := u.users == 0
	keep := u.d.reuse && u.why == nil
	if unused && keep {
		u.timer = time.AfterFunc(cmp.Or(u.d.idle, time.Minute), u.endIfIdle)
	}
	u.mu.Unlock()
	if unused && !keep {
		u.drop()
	}
}

func (u *upstream) endIfIdle() {
	u.mu.Lock()
	idle := u.users == 0
	u.mu.Unlock()
	if idle {
		u.drop()
	}
}

// drop ends the connection, and takes it out of the pool.
func (u *upstream) drop() {
	u.end(errClosed)
	u.account.mu.Lock()
	defer u.account.mu.Unlock()
	u.account.pool = slices.DeleteFunc(u.account.pool, func(other *upstream) bool { return other == u })
}

// empty ends the connections that nobody uses, and lets nobody find the others.
func (a *account) empty() {
	a.mu.Lock()
	pool := a.pool
	a.pool = nil
	a.mu.Unlock()
	for _, u := range pool {
		u.endIfIdle()
		u.mu.Lock()
		u.full = true
		u.mu.Unlock()
	}
}

// session is one channel with the subsystem sftp.
type session struct {
	up     *upstream
	ch     ssh.Channel
	exited chan struct{} // closed when the server sends no more requests
	exit   *ssh.Request  // exit-status or exit-signal, nil if there was none; after exited
	once   sync.Once
}

// open opens another session. A refusal leaves the connection as it is: dial
// again for one that takes it.
func (u *upstream) open(ctx context.Context) (*session, error) {
	u.mu.Lock()
	u.reserved = max(u.reserved-1, 0)
	if u.sessions++; u.sessions > 1 {
		u.gathered.share()
	}
	u.mu.Unlock()
	type opened struct {
		s   *session
		err error
	}
	result := make(chan opened, 1)
	go func() {
		s, err := u.openChannel()
		result <- opened{s, err}
	}()
	timer := time.NewTimer(cmp.Or(u.d.handshake, 20*time.Second))
	defer timer.Stop()
	var err error
	select {
	case r := <-result:
		if r.err != nil {
			u.left(false)
		}
		return r.s, r.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = &dialError{kind: dialTimeout, sentence: full(u.addr + " does not answer the request for an SFTP session")}
	}
	go func() { // the answer may still come
		if r := <-result; r.s != nil {
			r.s.close()
			return
		}
		u.left(false)
	}()
	return nil, err
}

// openChannel waits for the server, without a limit of its own.
func (u *upstream) openChannel() (*session, error) {
	ch, requests, err := u.conn.OpenChannel("session", nil)
	if err != nil {
		return nil, u.refusedSession(err)
	}
	s := &session{up: u, ch: u.alone(ch), exited: make(chan struct{})}
	go s.drain(requests)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err == nil && ok {
		return s, nil
	}
	_ = ch.Close() // the connection has ended if that fails
	if err != nil {
		return nil, u.refusedSession(err)
	}
	return nil, &dialError{kind: dialProtocol, sentence: full(u.addr + " has no SFTP: it refuses the subsystem sftp")}
}

// alone holds up a server that sends more than is taken, unless other sessions
// would have to wait.
func (u *upstream) alone(ch ssh.Channel) ssh.Channel {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions > 1 {
		return ch
	}
	return u.gathered.only(ch)
}

func (u *upstream) refusedSession(err error) error {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		u.mu.Lock()
		u.full = true
		u.mu.Unlock()
		return &dialError{kind: dialProtocol, err: err, sentence: full(fmt.Sprintf("%s refuses a session: %s", u.addr, quote(refused.Message, creds.Secret{})))}
	}
	select { // its reason comes a moment after its channels end
	case <-u.ended:
	case <-time.After(time.Second):
	}
	return &dialError{kind: dialUnreachable, err: err, sentence: full(u.addr + " " + u.reason() + " before a session was open")}
}

// drain answers the server's requests, and keeps how it exited.
func (s *session) drain(requests <-chan *ssh.Request) {
	defer close(s.exited)
	for r := range requests {
		if r.Type == "exit-status" || r.Type == "exit-signal" {
			s.exit = r
		}
		_ = r.Reply(false, nil) // if the connection has ended, requests ends
	}
}

// close ends the session; the connection stays.
func (s *session) close() {
	s.once.Do(func() {
		_ = s.ch.Close() // io.EOF where the server closed it first
		go func() {
			<-s.exited // only then the server has room again
			s.up.left(true)
		}()
	})
}

// left counts a session less: one that has ended, which makes room where the
// server had refused another one, or one that was refused.
func (u *upstream) left(ended bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sessions--
	if ended {
		u.full = false
	}
}
