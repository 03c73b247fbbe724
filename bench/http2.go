//lint:file-ignore SA1019 net/http's own client connections dial for themselves; these are dialed and counted by us.

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"golang.org/x/net/http2"
)

// http2Client is one request in flight on a connection that several clients share.
type http2Client struct {
	load *load
	conn *http2.ClientConn
	url  *url.URL
	body []byte
}

// connectHTTP2 opens the load's connections and spreads its clients over them.
func connectHTTP2(l *load, d *dialer) ([]requester, error) {
	target, err := url.Parse("https://" + l.Host + l.Target)
	if err != nil {
		return nil, fmt.Errorf("reading the target: %w", err)
	}
	transport := &http2.Transport{DisableCompression: true}
	var conns []*http2.ClientConn
	for range l.Connections {
		conn, err := d.dial()
		if err != nil {
			return nil, err
		}
		h2, err := transport.NewClientConn(conn)
		if err != nil {
			return nil, fmt.Errorf("beginning HTTP/2: %w", err)
		}
		conns = append(conns, h2)
	}
	var clients []requester
	for i := range l.Clients {
		clients = append(clients, &http2Client{load: l, conn: conns[i%len(conns)], url: target, body: make([]byte, 0, 128<<10)})
	}
	return clients, nil
}

func (c *http2Client) do() error {
	request := &http.Request{Method: http.MethodGet, URL: c.url, Host: c.load.Host, Header: http.Header{"User-Agent": {"bench"}, "Accept": {"*/*"}}}
	if c.load.Authorization != "" {
		request.Header["Authorization"] = []string{c.load.Authorization}
	}
	if n := c.load.Upload; n > 0 {
		request.Method, request.Body, request.ContentLength = http.MethodPost, io.NopCloser(bytes.NewReader(filler[:n])), int64(n)
	}
	response, err := c.conn.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("asking over HTTP/2: %w", err)
	}
	defer response.Body.Close()
	body := bytes.NewBuffer(c.body[:0])
	if _, err := body.ReadFrom(response.Body); err != nil {
		return fmt.Errorf("reading over HTTP/2: %w", err)
	}
	c.body = body.Bytes()
	return c.load.check(response.StatusCode, c.body)
}

func (c *http2Client) close() { _ = c.conn.Close() }
