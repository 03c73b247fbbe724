package sftpgw

import (
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"pillion/creds"
)

// watchedConn is a server's connection of which is known what it said first,
// and whether it says anything at all.
type watchedConn struct {
	net.Conn
	reads atomic.Uint64 // successful ones: a sign of life

	kept  atomic.Bool // first is complete
	mu    sync.Mutex
	first []byte
}

// firstBytes is enough for what stands in an SSH server's place: "Exceeded
// MaxStartups", an HTTP answer, an FTP greeting. x/crypto turns them into EOF.
const firstBytes = 512

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.reads.Add(1)
		if !c.kept.Load() {
			c.keep(p[:n])
		}
	}
	return n, err
}

func (c *watchedConn) keep(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = append(c.first, p[:min(len(p), firstBytes-len(c.first))]...)
	c.kept.Store(len(c.first) == firstBytes)
}

// firstLine returns the server's first line that says something, or the one of
// its version if there is one.
func (c *watchedConn) firstLine() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := ""
	for line := range strings.Lines(string(c.first)) {
		line = quote(line, creds.Secret{})
		if strings.HasPrefix(line, "SSH-") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}

// upstreamCiphers orders the ciphers by what they cost: x/crypto's ChaCha20 takes
// 2.5 times the CPU of AES where the CPU knows AES.
func upstreamCiphers() []string {
	aes := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR}
	chacha := []string{ssh.CipherChaCha20Poly1305}
	if runtime.GOARCH == "amd64" && !cpu.X86.HasAES || runtime.GOARCH == "arm64" && !cpu.ARM64.HasAES {
		return append(chacha, aes...)
	}
	return append(aes, chacha...)
}
