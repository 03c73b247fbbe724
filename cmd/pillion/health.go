package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const healthUsage = `Ask the running pillion whether it is ready: a probe for exec.

Usage:
    pillion health

It asks the metrics listener's /readyz; the admin socket when that one is off.
Exit status 0: ready; 1: not ready, or none runs.

Example:
    pillion health && echo ready
`

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Ask whether pillion is ready", Long: healthUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			return a.health(ctx)
		},
	}
}

func (a *app) health(ctx context.Context) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	// The socket first: it knows the port when the configuration says 0, and a
	// probe that runs as another user falls back to the listener.
	s, err := newAdminClient(c.adminSocket()).status(ctx)
	if err == nil {
		if !s.Ready {
			return errors.New("not ready")
		}
		fmt.Fprintln(a.stdout, "ready")
		return nil
	}
	if c.Metrics.Listen == off {
		return err
	}
	return a.askReadyz(ctx, c.Metrics.Listen)
}

func (a *app) askReadyz(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{}).RoundTrip(request) // never through a proxy
	if err != nil {
		return errNotRunning
	}
	defer response.Body.Close()
	var r readiness
	err = json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&r)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: store %s, configuration %s, draining %t", r.Store, r.Config, r.Draining)
	}
	fmt.Fprintln(a.stdout, "ready")
	return nil
}
