package sftpgw

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// script makes packets of both sides out of a fuzzer's bytes.
//
//	control: bit 7 the server's, bits 0-6 what it is; then its arguments, a byte each
type script struct{ rest []byte }

func (s *script) byte() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

var scriptExtensions = []string{"posix-rename@openssh.com", "hardlink@openssh.com", "copy-data", "limits@openssh.com", "who@example.com", "check-file", "check-file-x"}

// next returns a packet with an honest length, but for the last kind.
func (s *script) next() (toServer bool, packet []byte) {
	control := s.byte()
	id := uint32(s.byte() % 16)
	number := func(to []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(to, n) }
	text := func(to []byte, t string) []byte { return append(number(to, uint32(len(t))), t...) }
	handle := func() string { return string([]byte{'h', '0' + s.byte()%4}) }
	data := func(n byte) string { return string(bytes.Repeat([]byte{'x'}, int(n))) }
	start := func(kind byte) []byte { return number([]byte{kind}, id) }
	var body []byte
	if control&0x80 == 0 {
		switch control % 10 {
		case 0:
			body = number([]byte{pktInit}, uint32(s.byte()%8))
		case 1, 2:
			body = number(text(start(pktOpen), data(s.byte()%6)), uint32(s.byte()))
			if s.byte()%2 == 0 {
				body = number(body, uint32(s.byte()%6))
			}
		case 3, 4:
			h := handle()
			body = text(append(text(start(pktWrite), h), "12345678"...), data(s.byte()))
		case 5:
			body = number(append(text(start(pktRead), handle()), "12345678"...), uint32(s.byte()))
		case 6:
			body = text(start(pktClose), handle())
		case 7:
			body = text(start(pktExtended), scriptExtensions[int(s.byte())%len(scriptExtensions)])
		case 8:
			body = text(start(s.byte()), data(s.byte()%40))
		case 9:
			n := int(s.byte())
			body = slices.Clone(s.rest[:min(n, len(s.rest))])
			s.rest = s.rest[len(body):]
		}
	} else {
		switch control % 8 {
		case 0:
			body = number([]byte{pktVersion}, uint32(s.byte()%8))
		case 1, 2, 3:
			body = number(start(pktStatus), uint32(s.byte()%4)*uint32(s.byte()%2))
		case 4:
			body = text(start(pktHandle), handle())
		case 5:
			body = text(start(pktData), data(s.byte()))
		case 6:
			body = text(start(s.byte()), data(s.byte()%40))
		case 7:
			n := int(s.byte())
			body = slices.Clone(s.rest[:min(n, len(s.rest))])
			s.rest = s.rest[len(body):]
		}
	}
	return control&0x80 == 0, append(number(nil, uint32(len(body))), body...)
}

var scanSeeds = [][]byte{
	{},
	{0, 0, 3, 0x80, 0, 3, 1, 1, 4, 0x1a, 1, 0, 0x84, 1, 1, 3, 2, 1, 99, 3, 3, 1, 9, 0x81, 2, 0, 0x81, 3, 0, 6, 4, 1, 0x81, 4, 0},          // a file is written
	{0, 0, 6, 0x80, 0, 6, 1, 1, 4, 2, 0, 2, 0x84, 1, 1, 3, 2, 1, 99, 3, 2, 1, 9, 0x81, 2, 0, 0x81, 2, 0, 6, 4, 1, 0x81, 4, 0},             // version 6, an id twice
	{0, 0, 3, 0x80, 0, 3, 8, 1, 13, 3, 8, 2, 18, 3, 7, 3, 4, 5, 4, 1, 9, 0x81, 1, 0, 0x85, 4, 7, 0x81, 3, 1, 1, 0x81, 2, 1, 1},            // removes, renames, an unknown extension
	{0, 0, 3, 0x80, 0, 3, 1, 1, 4, 1, 1, 0x84, 1, 1, 5, 2, 1, 9, 5, 3, 1, 9, 8, 9, 13, 1, 6, 4, 1, 0x85, 2, 9, 0x81, 3, 1, 1, 0x81, 4, 0}, // a file is read, a remove between
	{9, 0, 3, 1, 2, 3}, {9, 0, 0}, {0x87, 0, 0}, {8, 1, 6, 9, 8, 1, 3, 2},
}

// FuzzScanner feeds the scanner in pieces and the reference whole packets, and
// compares all they tell at the end: the bytes for each side, the order of
// refusals, the sums and the files.
func FuzzScanner(f *testing.F) {
	for _, seed := range scanSeeds {
		f.Add(byte(0), []byte{0, 5, 200}, seed)
		f.Add(byte(AllowWrite|AllowRead), []byte{3}, seed)
		f.Add(byte(AllowList), []byte{}, seed)
	}
	f.Fuzz(func(t *testing.T, policy byte, cuts, input []byte) {
		p := Policy(policy) & 31
		want, got := &reference{policy: p}, newScannerUnder(p)
		// Packets of one side that follow each other are fed together, so that
		// pieces cross their borders.
		var together []byte
		var side bool
		flush := func() bool {
			err := got.feed(side, together, cuts)
			together = together[:0]
			if (err != nil) != want.broken {
				t.Fatalf("the scanner says %v; the reference is broken: %t", err, want.broken)
			}
			return err == nil
		}
		alive := true
		s := script{rest: input}
		for count := 0; len(s.rest) > 0 && alive && !want.broken && count < 300; count++ { // more would wait for room
			toServer, packet := s.next()
			if toServer != side && len(together) > 0 {
				alive = flush()
			}
			side = toServer
			together = append(together, packet...)
			if toServer {
				want.request(packet)
			} else {
				want.reply(packet)
			}
		}
		if alive && len(together) > 0 {
			flush()
		}
		totals := got.splice.scan.end()
		if want.broken {
			return // what was passed on before it does not matter
		}
		if !bytes.Equal(got.server.written.Bytes(), want.toServer) {
			t.Errorf("to the server:\n%x, want\n%x", got.server.written.Bytes(), want.toServer)
		}
		if saw := got.clientSaw(t); !bytes.Equal(saw, want.toClient) {
			t.Errorf("to the client:\n%q, want\n%q", saw, want.toClient)
		}
		if totals.written != want.written || totals.read != want.read {
			t.Errorf("written %d, read %d, want %d, %d", totals.written, totals.read, want.written, want.read)
		}
		slices.Sort(got.files)
		if report := want.report(); !slices.Equal(got.files, report) {
			t.Errorf("files %q, want %q", got.files, report)
		}
	})
}

func TestScanSeedsAreThere(t *testing.T) {
	if len(scanSeeds) < 5 {
		t.Fatal("no seeds")
	}
}
