package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// relayConfig is what the bench tells the relays that know no SSH, on standard input.
type relayConfig struct {
	Ways  []relayWay
	Delay time.Duration // of each byte in each direction; 0: as it comes
}

// relayWay is one listener, and where its connections lead.
type relayWay struct{ Listen, To string }

// serveTCP is the subcommand "tcp", and "line" when there is a delay. It ends with its standard input.
//
// The relay without a delay is what pillion's CPU is compared with: it copies through user space, as every program does that looks at the bytes. Go
// would otherwise splice one socket to the other within the kernel.
func serveTCP(stdin io.Reader) error {
	decoder := json.NewDecoder(stdin)
	var c relayConfig
	if err := decoder.Decode(&c); err != nil {
		return fmt.Errorf("reading the relay's configuration: %w", err)
	}
	pump := func(to io.Writer, from io.Reader) {
		_, _ = io.CopyBuffer(onlyWriter{to}, onlyReader{from}, make([]byte, 32<<10))
	}
	if c.Delay > 0 {
		pump = func(to io.Writer, from io.Reader) { delayed(to, from, c.Delay) }
	}
	for _, way := range c.Ways {
		l, err := net.Listen("tcp", way.Listen)
		if err != nil {
			return fmt.Errorf("listening as a relay: %w", err)
		}
		defer l.Close()
		go relayTCP(l, way.To, pump)
	}
	_, err := io.Copy(io.Discard, io.MultiReader(decoder.Buffered(), stdin))
	return err
}

func relayTCP(l net.Listener, addr string, pump func(io.Writer, io.Reader)) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			defer server.Close()
			up := make(chan struct{})
			go func() {
				defer close(up)
				pump(server, client)
				_ = server.(*net.TCPConn).CloseWrite()
			}()
			pump(client, server)
			_ = client.(*net.TCPConn).CloseWrite()
			<-up
		}()
	}
}

// delayed copies, every piece later by d: a line of that length and of any width. It has no loss, and connecting takes no time on it.
func delayed(to io.Writer, from io.Reader, d time.Duration) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 4096) // 64 KiB each at most: beyond what any window of SSH lets be under way
	go func() {
		defer close(pieces)
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{append([]byte(nil), buffer[:n]...), time.Now().Add(d)}
			}
			if err != nil {
				time.Sleep(d) // the end travels as well
				return
			}
		}
	}()
	var failed error
	for p := range pieces { // to the end: whoever reads must not wait for us
		time.Sleep(time.Until(p.due))
		if failed == nil {
			_, failed = to.Write(p.bytes)
		}
	}
}
