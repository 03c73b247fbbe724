package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

const logsUsage = `Print the last requests and SFTP sessions of the running pillion, and those to come.

Usage:
    pillion logs [-f] [-n COUNT] [-o json|text]

One JSON object a line, with the keys of the log itself: never a header, never a
query. A reader that is too slow loses lines; requests never wait for it.

    -f, --follow         go on with every new request
    -n, --last COUNT     look back on at most so many, default 10
    -o, --output FORMAT  json (default), or text for people

Example:
    pillion logs -f -o text
`

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var last uint
	var output string
	cmd := &cobra.Command{
		Use: "logs", Short: "The requests as they happen", Long: logsUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "json", "text"); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return a.logs(ctx, fmt.Sprintf("/log?n=%d&follow=%t", last, follow), output)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "")
	cmd.Flags().UintVarP(&last, "last", "n", 10, "")
	cmd.Flags().StringVarP(&output, "output", "o", "json", "")
	return cmd
}

func checkOutput(output string, allowed ...string) error {
	for _, o := range allowed {
		if o == output {
			return nil
		}
	}
	return usagef("there is no output format %q: write %s", output, orList(allowed))
}

func (a *app) logs(ctx context.Context, path, output string) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	body, err := newAdminClient(c.adminSocket()).call(ctx, "GET", path)
	if err != nil {
		return err
	}
	defer body.Close()
	if output == "text" {
		err = printText(a.stdout, body)
	} else {
		_, err = io.Copy(a.stdout, body)
	}
	if ctx.Err() != nil || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the running pillion's log: %w", err)
	}
	return nil
}

func printText(w io.Writer, lines io.Reader) error {
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		var l logLine
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			return err
		}
		credential := l.Credential
		if credential == "" {
			credential = "-"
		}
		if l.Protocol == protocolSFTP {
			fmt.Fprintf(w, "%s sftp %-15s %7.1f ms  %s, %s in, %s out", l.Time.Local().Format("15:04:05.000"), credential, l.MS, sessionWords(l), bytesText(l.In), bytesText(l.Out))
		} else {
			fmt.Fprintf(w, "%s %3d %-16s %7.1f ms  %s %s%s", l.Time.Local().Format("15:04:05.000"), l.Status, credential, l.MS, l.Method, l.Host, l.Path)
		}
		if l.Error != "" {
			fmt.Fprintf(w, "  %s: %s", l.Error, l.Detail)
		}
		fmt.Fprintln(w)
	}
	return scanner.Err()
}

// sessionWords says which server, by what way, how many files. The user's name is
// a stranger's text.
func sessionWords(l logLine) string {
	files := 0
	if l.Files != nil {
		files = *l.Files
	}
	return fmt.Sprintf("%s by %s %q, %s", cmp.Or(l.Host, "no server"), l.Via, l.User, counted(files, "file"))
}

// bytesText is a size for people: 999 B, 1.5 MiB.
func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size /= 1 << 10; size < 1<<10 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}
