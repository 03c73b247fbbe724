package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// leaving is when a client leaves.
type leaving int

const (
	leaveNot     leaving = iota
	leaveWriting         // in the middle of its own body
	leaveWaiting         // before there is an answer
	leaveReading         // in the middle of it
)

// abandon sends a request and leaves. What comes of it is nobody's business any more; that it costs nothing afterwards is what the samples show.
func (e *errand) abandon(ctx context.Context, transport http.RoundTripper, url string) {
	ctx, cancel := context.WithTimeout(ctx, soakPatience)
	defer cancel()
	request, err := e.request(ctx, url)
	if err != nil {
		return
	}
	switch e.leave {
	case leaveWriting:
		half := bytes.NewReader(e.up()[:e.Up/2])
		request.Body = io.NopCloser(io.MultiReader(half, &leaver{cancel, ctx}))
	case leaveWaiting:
		timer := time.AfterFunc(rand.N(e.Pause), cancel)
		defer timer.Stop()
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, response.Body, rand.N(int64(e.Down)))
	_ = response.Body.Close()
}

// leaver is the end of a body at which the client leaves.
type leaver struct {
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // the request's
}

func (l *leaver) Read([]byte) (int, error) {
	l.cancel()
	return 0, l.ctx.Err()
}

// knock opens a connection and leaves in one of the moments at which nothing has been asked yet: before a byte, amid a head, behind CONNECT, amid the
// TLS handshake or right after it.
func knock(d *dialer) {
	conn, err := net.DialTimeout("tcp", d.load.Dial, answerTimeout)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answerTimeout))
	switch rand.N(5) {
	case 0:
	case 1:
		_, _ = io.WriteString(conn, "GET http://"+d.load.Connect+"/static/knock HTTP/1.1\r\nHost: ")
	case 2:
		_ = connect(conn, d.load.Connect)
	case 3:
		if connect(conn, d.load.Connect) == nil {
			_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1}) // the beginning of a ClientHello
		}
	case 4:
		_, _ = d.secure(conn)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && rand.N(2) == 0 {
		_ = tcp.SetLinger(0) // a reset instead of an end
	}
}
