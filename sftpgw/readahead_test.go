package sftpgw

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestAFastSenderIsHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ch, sent := sendMuch(t, 1<<20)
		ch = g.only(ch)
		synctest.Wait()
		first := g.ahead.Load()
		if first < maxAhead || first > maxAhead+largeRoom {
			t.Errorf("%d bytes are read ahead, want %d and a bit", first, maxAhead)
		}
		time.Sleep(maxPause + 1) // it goes on, slowly: what it waits for may come over the same connection
		synctest.Wait()
		if second := g.ahead.Load(); second <= first || second > first+largeRoom {
			t.Errorf("%d bytes after a pause, %d before", second, first)
		}
		takeAll(t, ch, sent)
		if left := g.ahead.Load(); left < 0 || left > maxAhead/2 {
			t.Errorf("%d bytes are counted when all has been taken", left)
		}
	})
}

func TestSeveralChannelsAreNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ch, sent := sendMuch(t, 1<<20)
		ch = g.only(ch)
		synctest.Wait()
		g.share() // while it waits
		synctest.Wait()
		if n := g.ahead.Load(); n < 1<<19 {
			t.Errorf("%d bytes are read ahead", n)
		}
		takeAll(t, ch, sent)
	})
}

// sendMuch returns the receiving end of a channel, on which somebody begins to
// send n bytes when it is opened.
func sendMuch(t *testing.T, n int) (*gatheredConn, ssh.Channel, []byte) {
	t.Helper()
	near, far := net.Pipe()
	g, sent := gather(near), bytes.Repeat([]byte("0123456789abcdef"), n/16)
	t.Cleanup(func() { near.Close() })
	go func() {
		conn, _, requests, err := ssh.NewClientConn(queue(far), "", &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		ch, requests, err := conn.OpenChannel("session", nil)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		_, _ = ch.Write(sent)
		_ = ch.CloseWrite()
	}()
	config := &ssh.ServerConfig{NoClientAuth: true}
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config.AddHostKey(key)
	_, channels, requests, err := ssh.NewServerConn(g, config)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	ch, requests, err := (<-channels).Accept()
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	return g, ch, sent
}

// queued is a pipe that takes what is written before it is read, as sockets do:
// both sides of SSH begin by writing.
type queued struct {
	net.Conn
	writes chan []byte
	closed chan struct{}
	once   sync.Once
}

func queue(c net.Conn) *queued {
	q := &queued{Conn: c, writes: make(chan []byte, 8), closed: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-q.writes:
				_, _ = c.Write(p) // fails when the test is over
			case <-q.closed:
				return
			}
		}
	}()
	return q
}

func (q *queued) Write(p []byte) (int, error) {
	select {
	case q.writes <- bytes.Clone(p):
		return len(p), nil
	case <-q.closed:
		return 0, net.ErrClosed
	}
}

func (q *queued) Close() error {
	q.once.Do(func() { close(q.closed) })
	return q.Conn.Close()
}

func takeAll(t *testing.T, ch ssh.Channel, sent []byte) {
	t.Helper()
	arrived, err := io.ReadAll(ch)
	if err != nil || !bytes.Equal(arrived, sent) {
		t.Errorf("%d of %d bytes arrived, error %v", len(arrived), len(sent), err)
	}
}
