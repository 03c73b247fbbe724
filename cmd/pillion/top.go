package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const topUsage = `Show a table of the running pillion's credentials, refreshed until Ctrl-C.

Usage:
    pillion top [--once] [--interval TIME]

For each credential: requests a second (since the last refresh; in total with
--once), answers of 400 and above, the median time of its last 64 requests, and
its token: state and how long it is still good for. Of credentials for SFTP it
counts sessions, and those that failed.

    --once           print one table and end
    --interval TIME  between refreshes, default 2s

Example:
    pillion top --once
`

func (a *app) topCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "top", Short: "A table of credentials, rates and errors", Long: topUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return usagef("--interval must be at least 100ms")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return a.top(ctx, once || !isTerminal(a.stdout), interval)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "")
	return cmd
}

func (a *app) top(ctx context.Context, once bool, interval time.Duration) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	client := newAdminClient(c.adminSocket())
	before, err := client.status(ctx)
	if err != nil {
		return err
	}
	if once {
		printTop(a.stdout, before, nil, 0, time.Now())
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s, err := client.status(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J") // home, clear
			printTop(a.stdout, s, &before, interval, now)
			before = s
		}
	}
}

// printTop prints totals when there is nothing to compare with.
func printTop(w io.Writer, s status, before *status, interval time.Duration, now time.Time) {
	state := "ready"
	if s.Draining {
		state = "draining"
	} else if !s.Ready {
		state = "not ready"
	}
	fmt.Fprintf(w, "pillion %s, %s since %s, %d in flight, %s\n\n", s.Version, state, s.Started.Local().Format(time.DateTime), s.InFlight, counted(len(s.Credentials), "credential"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rate := "REQUESTS"
	if before != nil {
		rate = "REQ/S"
	}
	fmt.Fprintf(t, "CREDENTIAL\t%s\tERRORS\tP50\tTOKEN\tGOOD FOR\n", rate)
	for _, c := range s.Credentials {
		requests := fmt.Sprint(c.Requests)
		if before != nil {
			requests = fmt.Sprintf("%.1f", float64(c.Requests-requestsOf(*before, c))/interval.Seconds())
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f ms\t%s\t%s\n", c.Name, requests, c.Errors, c.P50, c.Token.State, goodFor(c.Token, now))
	}
	_ = t.Flush()
	for _, r := range s.Skipped {
		fmt.Fprintf(w, "skipped: %s: %s\n", r.Name, r.Problem)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
}

// counted is "1 credential", "2 credentials".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func requestsOf(s status, c credentialStatus) uint64 {
	for _, old := range s.Credentials {
		if old.Name == c.Name && old.Requests <= c.Requests {
			return old.Requests
		}
	}
	return 0
}

func goodFor(t tokenState, now time.Time) string {
	if t.Expires == nil {
		return "-"
	}
	return t.Expires.Sub(now).Round(time.Second).String()
}

// isTerminal reports whether f is one. (Not in another file: top and the
// question of credential delete are all that need it.)
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
