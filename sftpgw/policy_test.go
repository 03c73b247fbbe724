package sftpgw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"pillion/creds/credstest"
)

func TestParsePolicy(t *testing.T) {
	for _, row := range []struct {
		names []string
		want  Policy
		err   string
	}{
		{nil, 0, ""},
		{[]string{"write"}, AllowWrite, ""},
		{[]string{"rename", "read", "list", "remove", "write"}, AllowWrite | AllowRead | AllowList | AllowRemove | AllowRename, ""},
		{[]string{}, 0, "is empty: list what is allowed (write, read, list, remove, rename), or leave it out to allow everything"},
		{[]string{"write", "delete"}, 0, `knows no operation "delete": use write, read, list, remove, rename`},
	} {
		got, err := ParsePolicy(row.names)
		if got != row.want || fmt.Sprint(err) != row.err && (err != nil || row.err != "") {
			t.Errorf("%q: %s, %v", row.names, got, err)
		}
	}
}

// 58: what each policy lets through, against a real server.
func TestPolicyAtTheServer(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	operations := []struct {
		name, needs string
		do          func(c *sftp.Client) error
	}{
		{"upload", "write", func(c *sftp.Client) error { return putFile(c, "new", "content") }},
		{"mkdir", "write", func(c *sftp.Client) error { return c.Mkdir("dir") }},
		{"chmod", "write", func(c *sftp.Client) error { return c.Chmod("old", 0o600) }},
		{"truncate", "write", func(c *sftp.Client) error { return c.Truncate("old", 3) }},
		{"symlink", "write", func(c *sftp.Client) error { return c.Symlink("old", "soft") }},
		{"hardlink", "write", func(c *sftp.Client) error { return c.Link("old", "hard") }},
		{"download", "read", func(c *sftp.Client) error { _, err := tryGet(c, "old"); return err }},
		{"append and read", "write read", func(c *sftp.Client) error {
			f, err := c.OpenFile("old", os.O_RDWR|os.O_APPEND)
			if err == nil {
				err = f.Close()
			}
			return err
		}},
		{"list", "list", func(c *sftp.Client) error { _, err := c.ReadDir("."); return err }},
		{"readlink", "list", func(c *sftp.Client) error { _, err := c.ReadLink("link"); return err }},
		{"rename", "rename", func(c *sftp.Client) error { return c.Rename("a", "b") }},
		{"posix-rename", "rename", func(c *sftp.Client) error { return c.PosixRename("c", "d") }},
		{"remove", "remove", func(c *sftp.Client) error { return c.Remove("gone") }},
		{"rmdir", "remove", func(c *sftp.Client) error { return c.RemoveDirectory("empty") }},
		{"stat", "", func(c *sftp.Client) error { _, err := c.Stat("old"); return err }},
		{"realpath", "", func(c *sftp.Client) error { _, err := c.RealPath("."); return err }},
		{"statvfs", "", func(c *sftp.Client) error { _, err := c.StatVFS("."); return err }},
	}
	for _, names := range [][]string{{"write"}, {"read"}, {"list"}, {"remove"}, {"rename"}, {"write", "read"}, {"write", "list", "rename"}, {"write", "read", "list", "remove", "rename"}} {
		t.Run(strings.Join(names, ","), func(t *testing.T) {
			policy, err := ParsePolicy(names)
			if err != nil {
				t.Fatal(err)
			}
			fillHome(t, server.Home)
			r := newRig(t, func(r *rig) { r.Policy = func() Policy { return policy } })
			r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
			client := r.sftpClient(t, "acme")
			for _, o := range operations {
				allowed := true
				for need := range strings.FieldsSeq(o.needs) {
					allowed = allowed && strings.Contains(","+strings.Join(names, ",")+",", ","+need+",")
				}
				err := o.do(client)
				if allowed && err != nil {
					t.Errorf("%s: %v", o.name, err)
				}
				if !allowed && !errors.Is(err, os.ErrPermission) {
					t.Errorf("%s: %v, want permission denied", o.name, err)
				}
			}
		})
	}
}

func fillHome(t *testing.T, home string) {
	t.Helper()
	for _, name := range []string{"dir", "empty", "soft", "hard", "link", "new", "b", "d"} {
		if err := os.RemoveAll(filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old", "a", "c", "gone"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(home, "empty"), 0o700), os.Symlink("old", filepath.Join(home, "link"))); err != nil {
		t.Fatal(err)
	}
}

func tryGet(c *sftp.Client, name string) ([]byte, error) {
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// packetOf builds a packet of SFTP: numbers, strings and raw bytes in order.
func packetOf(kind byte, fields ...any) []byte {
	body := []byte{kind}
	for _, field := range fields {
		switch f := field.(type) {
		case int:
			body = binary.BigEndian.AppendUint32(body, uint32(f))
		case string:
			body = binary.BigEndian.AppendUint32(body, uint32(len(f)))
			body = append(body, f...)
		case []byte:
			body = append(body, f...)
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// Refused packets between others, in one write and byte by byte: every request
// has its answer, in order, and the server has seen none of the refused ones. A
// version whose packets the policy does not know is not spoken.
func TestRefusalsInOrder(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, func(r *rig) { r.Policy = func() Policy { return AllowWrite } })
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	fillHome(t, server.Home)
	var stream []byte
	for _, packet := range [][]byte{
		packetOf(pktInit, 6),
		packetOf(pktStat, 1, "old"), packetOf(pktRemove, 2, "old"), packetOf(pktRename, 3, "old", "x"),
		packetOf(pktStat, 4, "old"), packetOf(pktExtended, 5, "who-knows@example.com", "old"), packetOf(77, 6),
		packetOf(pktOpen, 7, strings.Repeat("x", maxText+1), flagWrite, 0), // a path that is not read to its end
		packetOf(pktOpen, 8, "old", flagRead, 0), packetOf(pktWrite, 9, "none", []byte("12345678"), strings.Repeat("w", 40000)),
		packetOf(pktOpen, 10), // cut short
		packetOf(pktRead, 11, "h", []byte("12345678"), 5), packetOf(pktRealpath, 12, "."),
	} {
		stream = append(stream, packet...)
	}
	refused := map[uint32]bool{2: true, 3: true, 5: true, 6: true, 7: true, 8: true, 10: true, 11: true}
	for _, piece := range []int{len(stream), 1} {
		ch := rawSession(t, r.sshClient(t, "acme"))
		go func() {
			for rest := stream; len(rest) > 0; {
				n, err := ch.Write(rest[:min(piece, len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		version, err := readPacket(ch)
		if err != nil || version[0] != pktVersion || binary.BigEndian.Uint32(version[1:]) != 3 {
			t.Fatalf("%x, %v", version, err)
		}
		for id := uint32(1); id <= 12; id++ {
			answer, err := readPacket(ch)
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(answer[1:]); got != id {
				t.Errorf("the answer to %d comes where that to %d belongs", got, id)
			}
			ours := bytes.Contains(answer, []byte("refused by pillion: sftp.allow"))
			if ours != refused[id] {
				t.Errorf("request %d: %q", id, answer)
			}
		}
		ch.Close()
	}
	if _, err := os.Stat(filepath.Join(server.Home, "old")); err != nil {
		t.Error(err)
	}
}

// A packet over the limit ends the session with an error, and no other.
func TestPacketOverTheLimit(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, nil)
	r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
	other := r.sftpClient(t, "acme")
	for _, bad := range [][]byte{{0, 0, 0, 0}, {0, 4, 4, 1, pktWrite}, []byte("GET / HTTP/1.1\r\n\r\n")} {
		ch := rawSession(t, r.sshClient(t, "acme"))
		if _, err := ch.Write(append(packetOf(pktInit, 3), bad...)); err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(ch.Stderr())
		if !bytes.Contains(said, []byte("the client sent a packet of ")) {
			t.Errorf("%q: %q", bad, said)
		}
	}
	if err := putFile(other, "still", "there"); err != nil {
		t.Error(err)
	}
}

// A client may ask for more than is taken at once, as paramiko's prefetch does:
// it waits, and has all its answers.
func TestManyRequestsAtOnce(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	for _, policy := range []Policy{0, AllowWrite} {
		r := newRig(t, func(r *rig) { r.Policy = func() Policy { return policy } })
		r.use(t, r.credential(server, "acme", "sftp.acme.example:22"))
		ch := rawSession(t, r.sshClient(t, "acme"))
		const requests = 3 * maxOutstanding
		go func() {
			stream := packetOf(pktInit, 3)
			for id := range requests {
				kind := byte(pktStat)
				if id%3 == 0 {
					kind = pktReadlink
				}
				stream = append(stream, packetOf(kind, id, ".")...)
			}
			_, _ = ch.Write(stream) // the answers show what came
		}()
		if _, err := readPacket(ch); err != nil {
			t.Fatal(err)
		}
		for id := range uint32(requests) {
			answer, err := readPacket(ch)
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(answer[1:]); got != id {
				t.Fatalf("answer %d comes where %d belongs", got, id)
			}
		}
		ch.Close()
	}
}

// The scanner's table never holds more than the limit, and the one who waits
// for room goes on, or ends, with it.
func TestRoomEnds(t *testing.T) {
	scan := newScanner(0, nil)
	var full []byte
	for id := range maxOutstanding {
		full = append(full, packetOf(pktStat, id, "x")...)
	}
	for rest := full; len(rest) > 0; {
		n, forward, err := scan.requests.next(rest)
		if err != nil || !forward || n == 0 {
			t.Fatal(n, forward, err)
		}
		rest = rest[n:]
	}
	ended := make(chan error)
	go func() {
		_, _, err := scan.requests.next(packetOf(pktStat, maxOutstanding, "x"))
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("one more was taken: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	scan.end()
	if err := <-ended; !errors.Is(err, errEnded) {
		t.Error(err)
	}
}

// What comes after the end is passed on, and counts for nothing: the result has
// been told by then.
func TestScannerAfterTheEnd(t *testing.T) {
	var files []File
	scan := newScanner(0, func(f File) { files = append(files, f) })
	requests := slices.Concat(packetOf(pktInit, 3), packetOf(pktOpen, 1, "path", flagWrite, 0))
	replies := slices.Concat(packetOf(pktVersion, 3), packetOf(pktHandle, 1, "h"))
	writes := slices.Concat(packetOf(pktWrite, 2, "h", []byte("12345678"), "x"), packetOf(pktClose, 3, "h"))
	answers := slices.Concat(packetOf(pktStatus, 2, statusOK), packetOf(pktStatus, 3, statusOK))
	for _, p := range [][]byte{requests, writes} {
		if n, _, err := scan.requests.next(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		if n, err := scan.replies.next(replies); n != len(replies) || err != nil {
			t.Fatal(n, err)
		}
		replies = nil
	}
	if totals := scan.end(); totals.written != 0 || totals.filesFailed != 1 {
		t.Errorf("%+v", totals)
	}
	if n, err := scan.replies.next(answers); n != len(answers) || err != nil {
		t.Error(n, err)
	}
	if _, _, err := scan.requests.next(writes); !errors.Is(err, errEnded) {
		t.Error(err)
	}
	scan.report()
	if len(files) != 1 || files[0].Error == "" || files[0].Bytes != 0 {
		t.Errorf("%+v", files)
	}
}

// Data costs no allocation once a session is under way.
func TestScannerDoesNotAllocate(t *testing.T) {
	for _, policy := range []Policy{0, AllowWrite} {
		scan := newScanner(policy, nil)
		feed := func(toServer bool, packets ...[]byte) {
			for _, p := range packets {
				if toServer {
					if n, forward, err := scan.requests.next(p); n != len(p) || !forward || err != nil {
						t.Fatal(n, forward, err)
					}
				} else if n, err := scan.replies.next(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		feed(true, packetOf(pktInit, 3), packetOf(pktOpen, 1, "path", flagWrite, 0))
		feed(false, packetOf(pktVersion, 3), packetOf(pktHandle, 1, "handle"))
		write := packetOf(pktWrite, 0, "handle", []byte("12345678"), string(make([]byte, 32<<10)))
		status := packetOf(pktStatus, 0, statusOK, "", "")
		id := uint32(100)
		if n := testing.AllocsPerRun(10_000, func() {
			binary.BigEndian.PutUint32(write[5:], id)
			binary.BigEndian.PutUint32(status[5:], id-64) // 64 under way
			id++
			feed(true, write)
			feed(false, status)
		}); n > 0 {
			t.Errorf("%v allocations a packet", n)
		}
		if n := scan.open(); n != 64 {
			t.Errorf("%d requests under way", n)
		}
	}
}

func putFile(c *sftp.Client, name, content string) error {
	f, err := c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	return errors.Join(err, f.Close())
}
