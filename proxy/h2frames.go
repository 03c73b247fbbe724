package proxy

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/http2"
)

// frame serves what is neither DATA nor HEADERS. Its error is of a stream or the connection.
func (c *h2Conn) frame(f http2.Frame) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.owed > h2Unwritten {
		return h2Calm // it asks for answers, and does not read them
	}
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(id, int64(f.Increment))
	case *http2.RSTStreamFrame:
		if id > c.last {
			return h2Protocol
		}
		if st := c.streams[id]; st != nil {
			st.peerReset = true
			st.cutIf(true, cutGone)
		}
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.frames.WritePing(true, f.Data) // into memory
		}
	case *http2.GoAwayFrame:
		c.leaving = true
		if len(c.streams) == 0 {
			return errH2Over
		}
	case *http2.PushPromiseFrame:
		return h2Protocol
	}
	return nil // PRIORITY, which RFC 9113 gave up, or a kind that we do not know (section 5.5)
}

// headers opens a stream, or ends its body by trailers.
func (c *h2Conn) headers(f *http2.HeadersFrame) error {
	id, ended := f.StreamID, f.StreamEnded()
	malformed := c.decode(f) // which invalidates f
	c.lock.Lock()
	defer c.lock.Unlock()
	if malformed != nil {
		if id%2 == 1 {
			c.last = max(c.last, id)
		}
		return malformed
	}
	if st := c.streams[id]; st != nil {
		return st.trailer(&c.block.h2Head, ended)
	}
	switch {
	case c.isGone(id):
		return nil // they crossed its end
	case id%2 == 0 || id <= c.last:
		return h2Protocol
	}
	c.last = id
	if c.isFull() {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	return c.open(id, ended)
}

// isFull reports whether the client has as many streams open as it may. Those whose end
// both sides have seen are no longer open for the client, though their goroutines may
// not have noticed; but no end of them is taken from one that opens and resets. The
// caller holds lock.
func (c *h2Conn) isFull() bool {
	if len(c.streams) < h2MaxStreams {
		return false
	}
	open := 0
	for _, st := range c.streams {
		if !st.peerReset && !(st.closed && st.ended) {
			open++
		}
	}
	return open >= h2MaxStreams || len(c.streams) >= 2*h2MaxStreams
}

// settings takes the client's. The caller holds lock.
func (c *h2Conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			return c.initialWindow(int64(s.Val))
		case http2.SettingHeaderTableSize:
			c.tableSize(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_ = c.frames.WriteSettingsAck() // into memory
	return nil
}

// data takes a DATA frame: its bytes go to the stream, until that sends them on.
func (c *h2Conn) data(frame []byte) error {
	id := binary.BigEndian.Uint32(frame[5:]) & (1<<31 - 1)
	flags, payload := http2.Flags(frame[4]), frame[frameHeader:]
	n := len(payload)
	if flags.Has(http2.FlagDataPadded) {
		if len(payload) == 0 || int(payload[0]) > len(payload)-1 {
			return h2Protocol
		}
		payload = payload[1 : len(payload)-int(payload[0])]
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if id == 0 || id > c.last {
		return h2Protocol
	}
	if c.room -= n; c.room < 0 {
		return h2FlowControl
	}
	st := c.streams[id]
	if st == nil || st.ended {
		c.credit(n)
		if st == nil && c.isGone(id) {
			return nil // it crossed the stream's end
		}
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
	}
	c.credit(n - len(payload))
	return st.receive(payload, n, flags.Has(http2.FlagDataEndStream))
}

// credit lets the client send n bytes more, on any stream. The caller holds lock.
func (c *h2Conn) credit(n int) {
	c.credited += n
	if c.credited >= h2Window/4 {
		_ = c.frames.WriteWindowUpdate(0, uint32(c.credited)) //nolint:gosec // at most h2Window
		c.room += c.credited
		c.credited = 0
	}
}

// forget remembers that a stream has ended, for frames that cross its end. The caller
// holds lock.
func (c *h2Conn) forget(id uint32) {
	c.gone[c.goneAt%len(c.gone)] = id
	c.goneAt++
}

func (c *h2Conn) isGone(id uint32) bool {
	return id <= c.last && slices.Contains(c.gone[:], id)
}

// answerControl sends what frames of the client call for. Another goroutine does: this
// one must go on reading, or two that both wait for the other to read would never end.
func (c *h2Conn) answerControl() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.flushAside()
}

// flushAside flushes without making the caller wait, who holds lock.
func (c *h2Conn) flushAside() {
	if len(c.out) == 0 || c.writing {
		return
	}
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		c.lock.Lock()
		defer c.lock.Unlock()
		c.flush()
	}()
}
