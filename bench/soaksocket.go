package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/net/websocket"
)

// talk opens a WebSocket, sends messages of all sizes, and wants each of them back.
func talk(d *dialer, path string, id uint64, messages int, pause time.Duration) error {
	conn, err := d.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(soakPatience))
	config, err := websocket.NewConfig("wss://"+d.load.Connect+path, "https://"+d.load.Connect)
	if err != nil {
		return err
	}
	socket, err := websocket.NewClient(config, conn)
	if err != nil {
		return fmt.Errorf("becoming a WebSocket: %w", err)
	}
	defer socket.Close()
	back := make([]byte, 64<<10)
	for i := range messages {
		message := pieceOf(id+uint64(i), 1+rand.N(len(back))>>rand.N(8)) //nolint:gosec // not negative
		if _, err := socket.Write(message); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if _, err := io.ReadFull(socket, back[:len(message)]); err != nil {
			return fmt.Errorf("message %d of %d bytes: %w", i, len(message), err)
		}
		if !bytes.Equal(back[:len(message)], message) {
			return fmt.Errorf("message %d of %d bytes came back as another", i, len(message))
		}
		time.Sleep(pause)
	}
	return nil
}
