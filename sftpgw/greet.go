package sftpgw

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// handshake is ssh.NewServerConn with the ciphers that suit the client.
func handshake(c net.Conn, config *ssh.ServerConfig) (*gatheredConn, *ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	greeted, config, err := greet(c, config)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	gathered := gather(greeted)
	conn, channels, requests, err := ssh.NewServerConn(gathered, config)
	if err == nil {
		gathered.begin(conn.Conn)
	}
	return gathered, conn, channels, requests, err
}

// greet begins the handshake with a client, and returns what is left of it for
// x/crypto, with the configuration for that client.
//
// OpenSSH prefers AES-CTR with a MAC to AES-GCM, and it is the client that
// chooses. The MAC is a quarter of what a transfer costs here, so a client that
// knows GCM is offered nothing else. Who prefers what must be known before the
// server's list is sent; hence this look at the client's.
//
//	ours:    version
//	theirs:  version, and of OpenSSH, which sends it without waiting, KEXINIT
//
// Nothing is changed of what either side sends: both versions and the client's
// list are part of what the key exchange signs.
func greet(c net.Conn, config *ssh.ServerConfig) (net.Conn, *ssh.ServerConfig, error) {
	version := config.ServerVersion + "\r\n"
	if _, err := io.WriteString(c, version); err != nil {
		return nil, nil, err
	}
	g := &greeted{Conn: c, unsent: version}
	line, err := g.line()
	if err != nil {
		return nil, nil, err
	}
	if !strings.HasPrefix(line, "SSH-2.0-OpenSSH_") {
		return g, config, nil
	}
	ciphers, err := g.ciphers()
	if err != nil {
		return nil, nil, err
	}
	gcm := slices.DeleteFunc(slices.Clone(config.Ciphers), func(name string) bool {
		return !strings.HasSuffix(name, "-gcm@openssh.com") || !slices.Contains(ciphers, name)
	})
	if len(gcm) == 0 || config.Ciphers[0] == ssh.CipherChaCha20Poly1305 { // a CPU without AES
		return g, config, nil
	}
	fast := *config
	fast.Ciphers = gcm
	return g, &fast, nil
}

// greeted is a connection of which something was read and written already.
type greeted struct {
	net.Conn
	seen   []byte // was read, and is to be read again
	unsent string // was written, and is to be written again
}

// maxGreeting bounds what is read before x/crypto judges it: a KEXINIT of
// OpenSSH has some 1.5 KiB.
const maxGreeting = 16 << 10

// more reads until seen has n bytes.
func (g *greeted) more(n int) error {
	for len(g.seen) < n {
		if cap(g.seen) == 0 {
			g.seen = make([]byte, 0, 4<<10)
		}
		g.seen = slices.Grow(g.seen, 1)
		read, err := g.Conn.Read(g.seen[len(g.seen):cap(g.seen)])
		g.seen = g.seen[:len(g.seen)+read]
		if err != nil && len(g.seen) < n {
			return err
		}
	}
	return nil
}

// line returns the client's first line. One that is too long, or is none of
// SSH, is left for x/crypto to refuse.
func (g *greeted) line() (string, error) {
	for n := 1; ; n = len(g.seen) + 1 {
		if err := g.more(n); err != nil {
			return "", err
		}
		if end := bytes.IndexByte(g.seen, '\n'); end >= 0 {
			return string(g.seen[:end]), nil
		}
		if len(g.seen) > 255 {
			return "", nil
		}
	}
}

// ciphers returns the ciphers of the client's KEXINIT that it takes in both
// directions, nil if that cannot be read (RFC 4253 sections 6 and 7.1).
func (g *greeted) ciphers() ([]string, error) {
	start := bytes.IndexByte(g.seen, '\n') + 1
	if err := g.more(start + 6); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(g.seen[start:])
	if length > maxGreeting || g.seen[start+5] != 20 { // SSH_MSG_KEXINIT
		return nil, nil
	}
	if err := g.more(start + 4 + int(length)); err != nil {
		return nil, err
	}
	lists := g.seen[start+4 : start+4+int(length)]
	if len(lists) < 2+16 {
		return nil, nil
	}
	lists = lists[2+16:] // padding length, type, cookie
	var names [4][]string
	for i := range names {
		if len(lists) < 4 || uint64(binary.BigEndian.Uint32(lists)) > uint64(len(lists)-4) {
			return nil, nil
		}
		n := binary.BigEndian.Uint32(lists)
		names[i] = strings.Split(string(lists[4:4+n]), ",")
		lists = lists[4+n:]
	}
	return slices.DeleteFunc(names[2], func(name string) bool { return !slices.Contains(names[3], name) }), nil
}

// Read gives what was seen first.
func (g *greeted) Read(p []byte) (int, error) {
	if len(g.seen) == 0 {
		return g.Conn.Read(p)
	}
	n := copy(p, g.seen)
	g.seen = g.seen[n:]
	if len(g.seen) == 0 {
		g.seen = nil
	}
	return n, nil
}

// Write leaves out what was sent: the version is x/crypto's first write.
func (g *greeted) Write(p []byte) (int, error) {
	if g.unsent != "" && string(p) == g.unsent {
		g.unsent = ""
		return len(p), nil
	}
	return g.Conn.Write(p)
}
