package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"pillion/creds"
	"pillion/sftpgw"
	"pillion/sftpgw/upload"
)

// sftpPlace is where SFTP clients on this machine find the gateway.
type sftpPlace struct {
	listener string // host:port where the user names the target; "" where there is none
	proxy    string // host:port of the proxy, through which CONNECT leads to it; "" likewise
	publish  string
}

var errNoGateway = errors.New("pillion runs without its SFTP gateway: sftp.listen is off")

// whereSFTP asks the running pillion, else the configuration.
func (a *app) whereSFTP(ctx context.Context, c *config) (sftpPlace, status, error) {
	s, err := newAdminClient(c.adminSocket()).status(ctx)
	if err == nil {
		at := sftpPlace{s.Listeners[sftpRole], s.Listeners["proxy"], s.Publish}
		if !s.SFTP {
			return at, s, errNoGateway
		}
		return at, s, nil
	}
	if !c.servesSFTP() {
		return sftpPlace{}, status{}, errNoGateway
	}
	at := sftpPlace{listener: asClient(c.SFTP.Listen), proxy: asClient(c.Proxy.Listen), publish: c.Publish}
	if at.listener == "" && at.proxy == "" {
		return at, status{}, errNotRunning
	}
	return at, status{}, nil
}

// asClient is a configured address as clients dial it, "" where only a running
// pillion knows it, or nobody.
func asClient(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return ""
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// connectToGateway opens a session for target: by the listener, or by CONNECT
// where there is none, or where a credential is chosen by name, which the proxy
// holds against the target.
func (a *app) connectToGateway(ctx context.Context, target creds.Target, credential string) (*upload.Session, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	at, s, err := a.whereSFTP(ctx, c)
	if err != nil {
		return nil, err
	}
	if s.PID != 0 && !slices.ContainsFunc(s.Credentials, func(c credentialStatus) bool { return isFor(c.URL, target) }) {
		return nil, fmt.Errorf("no credential is for sftp://%[1]s/: pillion explain sftp://%[1]s/ shows the nearest", target.Authority())
	}
	hostKey, err := knownhosts.New(filepath.Join(at.publish, sftpgw.KnownHostsFile))
	if err != nil {
		return nil, fmt.Errorf("the folder %s has no %s to know pillion by: %w", at.publish, sftpgw.KnownHostsFile, errNotRunning)
	}
	var conn net.Conn
	if at.listener != "" && credential == "" {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", at.listener)
	} else {
		conn, err = a.connectThrough(ctx, c, at, target, credential)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("reaching pillion's SFTP gateway: %w", err)
	}
	return upload.Connect(ctx, conn, target.Authority(), hostKey)
}

// isFor reports whether an instance URL is that of an SFTP server.
func isFor(rawURL string, server creds.Target) bool {
	t, err := creds.ParseTarget(rawURL)
	return err == nil && t.Scheme == server.Scheme && t.Host == server.Host && t.Port == server.Port
}

// connectThrough opens a tunnel through our own proxy, as nc -X connect does.
func (a *app) connectThrough(ctx context.Context, c *config, at sftpPlace, target creds.Target, credential string) (net.Conn, error) {
	if at.proxy == "" {
		return nil, errors.New("to choose a credential by name, the proxy must run: its proxy.listen is off")
	}
	token, err := c.clientToken()
	if err != nil {
		return nil, fmt.Errorf("proxy.client_token_file: %w", err)
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", at.proxy)
	if err != nil {
		return nil, err
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target.Authority()}, Host: target.Authority(), Header: http.Header{}}
	if credential != "" || !token.IsZero() {
		if credential == "" {
			credential = "-"
		}
		password := "-"
		if !token.IsZero() {
			password = token.Reveal()
		}
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credential+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, request)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer response.Body.Close() // what follows a 200 is no body
	if response.StatusCode != http.StatusOK {
		defer conn.Close()
		return nil, refusalText(response)
	}
	return &bufferedConn{conn, reader}, nil
}

// bufferedConn is a connection of which more was read than its head.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
