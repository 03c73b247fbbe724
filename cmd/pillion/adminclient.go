package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// errNotRunning means that no pillion has this state directory open.
var errNotRunning = errors.New("no pillion runs with this state directory: start one with pillion run, or name its directory with --state")

// adminClient asks a running pillion through its socket.
type adminClient struct {
	socket string
	http   *http.Client
}

func newAdminClient(socket string) *adminClient {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		address, done, err := socketAddress(socket)
		if err != nil {
			return nil, err
		}
		defer done()
		return (&net.Dialer{}).DialContext(ctx, "unix", address)
	}}
	return &adminClient{socket, &http.Client{Transport: transport}}
}

// call returns the answer's body; errNotRunning when nobody listens.
func (c *adminClient) call(ctx context.Context, method, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("asking the running pillion: its admin socket %s belongs to another user: use that one's account", c.socket)
	case err != nil:
		return nil, fmt.Errorf("asking the running pillion: %w", err)
	case response.StatusCode != http.StatusOK:
		response.Body.Close()
		return nil, fmt.Errorf("asking the running pillion for %s: it answered %s: is it of another version?", path, response.Status)
	}
	return response.Body, nil
}

// alive asks for an answer that needs nothing else.
func (c *adminClient) alive(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	body, err := c.call(ctx, http.MethodGet, "/livez")
	if err != nil {
		return err
	}
	return body.Close()
}

func (c *adminClient) get(ctx context.Context, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := c.call(ctx, method, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("reading what the running pillion answered: %w", err)
	}
	return nil
}

func (c *adminClient) status(ctx context.Context) (status, error) {
	var s status
	err := c.get(ctx, http.MethodGet, "/status", &s)
	return s, err
}

func (c *adminClient) reload(ctx context.Context) (reloadAnswer, error) {
	var answer reloadAnswer
	err := c.get(ctx, http.MethodPost, "/reload", &answer)
	return answer, err
}

// reloadRunning makes a change of the store count for the next request. No
// running pillion is no error.
func (a *app) reloadRunning(ctx context.Context, c *config) {
	answer, err := newAdminClient(c.adminSocket()).reload(ctx)
	switch {
	case errors.Is(err, errNotRunning):
	case err != nil:
		fmt.Fprintf(a.stderr, "pillion: stored, but the running pillion has not confirmed it: %v\n", err)
	case len(answer.Problems) > 0:
		fmt.Fprintln(a.stderr, "pillion: stored, but the running pillion keeps what it had:")
		for _, p := range answer.Problems {
			fmt.Fprintln(a.stderr, "  "+p)
		}
	}
}
