package proxy

import "time"

// timeouts bound a client's silence. A field that is 0 takes its default.
type timeouts struct {
	head      time.Duration // a request's line and header, and what we write to bare connections
	stall     time.Duration // a body or an answer that does not move
	handshake time.Duration // a tunnel's first bytes and its TLS handshake
}

// orDefaults fills in the defaults. A stall is generous: a connector may pause in
// mid-upload while it waits for its own source.
func (t timeouts) orDefaults() timeouts {
	for _, field := range [...]struct {
		value *time.Duration
		usual time.Duration
	}{{&t.head, 15 * time.Second}, {&t.stall, 5 * time.Minute}, {&t.handshake, 15 * time.Second}} {
		if *field.value == 0 {
			*field.value = field.usual
		}
	}
	return t
}
