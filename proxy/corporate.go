package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// dialThrough opens a tunnel through the company's proxy, for targets that are
// passed on blindly; net/http does the same for all others.
func dialThrough(ctx context.Context, proxy *url.URL, authority string) (_ net.Conn, err error) {
	address := proxy.Host
	if proxy.Port() == "" {
		address = net.JoinHostPort(proxy.Hostname(), map[string]string{"http": "80", "https": "443"}[proxy.Scheme])
	}
	dialer := &net.Dialer{Timeout: upstreamHandshake}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if proxy.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: authority}, Host: authority, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("asking the upstream proxy for a tunnel: %w", err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, fmt.Errorf("reading the upstream proxy's answer: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &problem{kind: kindUnreachable, detail: fmt.Sprintf("The upstream proxy (upstream.proxy) refused the tunnel with status %d.", resp.StatusCode)}
	}
	_ = conn.SetDeadline(time.Time{})
	early, _ := reader.Peek(reader.Buffered())
	return &tunnelConn{Conn: conn, early: early}, nil
}
