package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// upgrade joins client and tool once the tool has accepted a WebSocket: from here
// on bytes pass both ways, the ones that the client sent early included.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, x *exchange, resp *http.Response) {
	tool, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !x.webSocket {
		_ = resp.Body.Close()
		s.refuse(w, r, x, &problem{kind: kindUnreachable, detail: "The tool switched protocols without being asked to."})
		return
	}
	defer tool.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(w, r, x, fmt.Errorf("taking over the connection: %w", err))
		return
	}
	defer client.Close()
	x.wrote = true
	x.entry.Status = resp.StatusCode
	x.head = time.Since(x.entry.Time)
	if _, err := client.Write(switchingHead(resp)); err != nil {
		x.fail(problemOf(context.Canceled))
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	s.spliced.Add(1)
	defer s.spliced.Done()
	s.Metrics.tunnels.Inc()
	defer s.Metrics.tunnels.Dec()
	in, out := s.join(both{io.MultiReader(bytes.NewReader(early), client), client, client}, tool)
	x.in.Add(in)
	x.entry.Out += out
}

func switchingHead(resp *http.Response) []byte {
	h := http.Header{}
	toolsFields(h, resp.Header)
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(&b) // into memory
	b.WriteString("\r\n")
	return b.Bytes()
}

// both joins the parts of a connection.
type both struct {
	io.Reader
	io.Writer
	io.Closer
}

// join copies between a and b until one direction ends for good, or the server
// stops, then closes both. It returns the bytes that went from a to b and back.
func (s *Server) join(a, b io.ReadWriteCloser) (there, back int64) {
	type end struct {
		n      int64
		isBack bool
	}
	ends := make(chan end, 2)
	half := func(dst io.Writer, src io.Reader, isBack bool) {
		n, err := io.Copy(dst, src)
		// A half that ended in order leaves the other one time to finish.
		if c, ok := dst.(interface{ CloseWrite() error }); !ok || err != nil || c.CloseWrite() != nil {
			_, _ = a.Close(), b.Close()
		}
		ends <- end{n, isBack}
	}
	go half(b, a, false)
	go half(a, b, true)
	stopped := s.stopped.Done()
	for range 2 {
		var e end
		select {
		case e = <-ends:
		case <-stopped:
			_, _ = a.Close(), b.Close()
			e = <-ends
			stopped = nil
		}
		if e.isBack {
			back = e.n
		} else {
			there = e.n
		}
	}
	_, _ = a.Close(), b.Close()
	return there, back
}
