package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answerTimeout is when a client gives up on a proxy; no answer of a sound run takes a hundredth of it.
const answerTimeout = 15 * time.Second

// errNoMore is a proxy's answer at its own cap of tunnels.
var errNoMore = errors.New("CONNECT was answered 503")

// dialer opens connections as a load asks: TCP, CONNECT, TLS.
type dialer struct {
	load   *load
	config *tls.Config
}

func newDialer(l *load) (*dialer, error) {
	d := &dialer{load: l}
	if !l.TLS {
		return d, nil
	}
	roots, err := readPool(l.CAs...)
	if err != nil {
		return nil, err
	}
	d.config = &tls.Config{RootCAs: roots, ServerName: originName, NextProtos: []string{"http/1.1"}}
	if l.HTTP2 {
		d.config.NextProtos = []string{"h2"}
	}
	if l.Resume {
		d.config.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	return d, nil
}

func (d *dialer) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", d.load.Dial, answerTimeout)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(answerTimeout))
	secure, err := d.secure(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return secure, nil
}

func (d *dialer) secure(conn net.Conn) (net.Conn, error) {
	if d.load.Connect != "" {
		if err := connect(conn, d.load.Connect); err != nil {
			return nil, err
		}
	}
	if d.config == nil {
		return conn, nil
	}
	secure := tls.Client(conn, d.config)
	if err := secure.Handshake(); err != nil {
		return nil, fmt.Errorf("shaking hands: %w", err)
	}
	if got := secure.ConnectionState().NegotiatedProtocol; d.load.HTTP2 && got != "h2" {
		return nil, fmt.Errorf("h2 was offered alone and %q negotiated", got)
	}
	return secure, nil
}

// connect asks for a tunnel. It reads byte by byte, so that nothing behind the answer's head is taken from the TLS handshake.
func connect(conn net.Conn, authority string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority); err != nil {
		return err
	}
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return fmt.Errorf("reading the answer to CONNECT: %w", err)
		}
		if len(head) > 8<<10 {
			return errors.New("the answer to CONNECT has no end")
		}
	}
	if line, _, _ := cutLine(string(head)); !strings.HasPrefix(line, "HTTP/1.1 200") && !strings.HasPrefix(line, "HTTP/1.0 200") {
		if strings.Contains(line, " 503 ") {
			return errNoMore
		}
		return fmt.Errorf("CONNECT was answered %q", strings.TrimSpace(line))
	}
	return nil
}

// http1 is a client by hand: one prepared request, one answer parsed as far as it must be to be checked. It costs a third of net/http's client,
// which on a machine with two cores is CPU that the proxy under test gets instead.
type http1 struct {
	dialer  *dialer
	load    *load
	request []byte
	conn    net.Conn
	r       *bufio.Reader
	body    []byte
}

func newHTTP1(l *load, d *dialer) *http1 {
	var request bytes.Buffer
	method := "GET"
	if l.Upload > 0 {
		method = "POST"
	}
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", method, l.Target, l.Host)
	if l.Authorization != "" {
		fmt.Fprintf(&request, "Authorization: %s\r\n", l.Authorization)
	}
	if l.Upload > 0 {
		fmt.Fprintf(&request, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", l.Upload)
	}
	request.WriteString("\r\n")
	request.Write(filler[:l.Upload])
	return &http1{dialer: d, load: l, request: request.Bytes()}
}

func (c *http1) open() error {
	conn, err := c.dialer.dial()
	if err != nil {
		return err
	}
	c.conn = conn
	if c.r == nil {
		c.r = bufio.NewReaderSize(conn, 16<<10)
	} else {
		c.r.Reset(conn)
	}
	return nil
}

func (c *http1) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *http1) do() error {
	if c.load.Fresh {
		if err := c.open(); err != nil {
			return err
		}
		defer c.close()
	}
	_ = c.conn.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.conn.Write(c.request); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	status, length, chunked, err := c.head()
	if err != nil {
		return err
	}
	if err := c.read(length, chunked); err != nil {
		return fmt.Errorf("reading a body: %w", err)
	}
	return c.load.check(status, c.body)
}

// head reads the status line and the two header fields that frame the body.
func (c *http1) head() (status, length int, chunked bool, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, 0, false, fmt.Errorf("reading an answer: %w", err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, 0, false, fmt.Errorf("bad status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, false, fmt.Errorf("bad status line %q", line)
	}
	length = -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, 0, false, fmt.Errorf("reading a header: %w", err)
		}
		if len(line) <= 2 {
			return status, length, chunked, nil
		}
		if value, ok := field(line, "content-length:"); ok {
			if length, err = strconv.Atoi(string(value)); err != nil || length > maxBody {
				return 0, 0, false, fmt.Errorf("bad Content-Length %q", value)
			}
		} else if value, ok := field(line, "transfer-encoding:"); ok {
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
}

func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

func (c *http1) read(length int, chunked bool) (err error) {
	c.body = c.body[:0]
	switch {
	case chunked:
		for more := true; more && err == nil; {
			more, err = c.readChunk()
		}
		return err
	case length < 0:
		return errors.New("an answer without a length")
	default:
		return c.readN(length)
	}
}

func (c *http1) readN(n int) error {
	at := len(c.body)
	if at+n > maxBody {
		return errors.New("too long")
	}
	c.body = slices.Grow(c.body, n)[:at+n]
	_, err := io.ReadFull(c.r, c.body[at:])
	return err
}

func (c *http1) readChunk() (more bool, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
	if err != nil {
		return false, fmt.Errorf("bad chunk size %q", line)
	}
	if err := c.readN(int(n)); err != nil {
		return false, err
	}
	_, err = c.r.Discard(2)
	return n > 0, err
}

// check holds an answer against what the load wants.
func (l *load) check(status int, body []byte) error {
	switch {
	case status != 200:
		return fmt.Errorf("status %d: %.200q", status, body)
	case l.Want != "" && string(body) != l.Want:
		return fmt.Errorf("body %.200q instead of %q", body, l.Want)
	case l.Want == "" && len(body) != l.WantBytes:
		return fmt.Errorf("%d bytes instead of %d", len(body), l.WantBytes)
	}
	return nil
}

func cutLine(text string) (string, string, bool) { return strings.Cut(text, "\n") }

func ownCPU() time.Duration {
	used, _ := cpuTime([]int{os.Getpid()})
	return used
}
