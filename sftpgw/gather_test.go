package sftpgw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

// writes is a connection that keeps the sizes of what is written to it.
type writes struct {
	net.Conn
	sizes []int
	all   bytes.Buffer
	err   error
}

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	w.all.Write(p)
	return len(p), w.err
}

// Writes as x/crypto makes them: what does not fit in 4 KiB comes in two.
func TestGather(t *testing.T) {
	packet := func(total int) []byte {
		p := random(total)
		binary.BigEndian.PutUint32(p, uint32(total-4-16))
		return p
	}
	for _, row := range []struct {
		name   string
		gcm    bool
		totals []int
		want   []int
	}{
		{"long and short", true, []int{32788, 52, 8180, 100}, []int{32788, 52, 8180, 100}},
		{"another cipher", false, []int{32788, 52}, []int{4096, 28692, 52}},
		{"one of 4 KiB after all is not held", true, []int{4096, 52}, []int{4096, 52}},
	} {
		w := &writes{}
		g := gather(w)
		g.gcm.Store(row.gcm)
		var sent []byte
		for _, total := range row.totals {
			p := packet(total)
			sent = append(sent, p...)
			for _, part := range [][]byte{p[:min(total, cryptoBuffer)], p[min(total, cryptoBuffer):]} {
				if len(part) == 0 {
					continue
				}
				if n, err := g.Write(part); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		if !slices.Equal(w.sizes, row.want) || !bytes.Equal(w.all.Bytes(), sent) {
			t.Errorf("%s: writes of %d, want %d", row.name, w.sizes, row.want)
		}
	}
	w := &writes{err: errors.New("broken")}
	g := gather(w)
	g.gcm.Store(true)
	p := packet(9000)
	if _, err := g.Write(p[:cryptoBuffer]); err != nil {
		t.Error("held, and failed")
	}
	if _, err := g.Write(p[cryptoBuffer:]); err == nil {
		t.Error("an error is lost")
	}
}

// asked is a connection from which as much comes as is in line, and that keeps how
// much was asked for.
type asked struct {
	net.Conn
	comes []int
	sizes []int
	sent  bytes.Buffer
}

func (a *asked) Read(p []byte) (int, error) {
	a.sizes = append(a.sizes, len(p))
	if len(a.comes) == 0 {
		return 0, io.EOF
	}
	n := copy(p, random(min(len(p), a.comes[0])))
	a.comes = a.comes[1:]
	a.sent.Write(p[:n])
	if len(a.comes) == 0 {
		return n, io.EOF // with the last bytes
	}
	return n, nil
}

// What comes in large pieces is read so, and an end waits for what came before it.
func TestGatheredReads(t *testing.T) {
	const much = 1 << 20
	conn := &asked{comes: []int{100, much, much, smallRoom, 1, much, 1, much}}
	g := gather(conn)
	got, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(got, conn.sent.Bytes()) {
		t.Errorf("%d bytes of %d, %v", len(got), conn.sent.Len(), err)
	}
	want := []int{smallRoom, smallRoom, largeRoom, largeRoom, largeRoom, largeRoom, largeRoom, largeRoom, largeRoom}
	if !slices.Equal(conn.sizes, want) {
		t.Errorf("asked for %d, want %d", conn.sizes, want)
	}
	if g.room.large != nil {
		t.Error("behind the end the large buffer is kept")
	}
}
