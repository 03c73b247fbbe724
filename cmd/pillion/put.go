package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/sftpgw/upload"
)

const putUsage = `Send files to an SFTP server through the running pillion, without a password.

Usage:
    pillion put FILE... sftp://HOST:PORT/DIRECTORY/ [--credential NAME]
    pillion put FILE sftp://HOST:PORT/NAME

The path is the server's, from its root; /~/ begins at the account's own directory.
One that ends in / or is a directory takes the files under their own names.

A file is sent under a temporary name in the same directory, compared in size, and
renamed: whoever looks there sees whole files alone. Cut in the middle it leaves
only the temporary one, and the next put of the unchanged file goes on there.

    --credential NAME  use this credential where several have the host and port
    --quiet            no progress bar, which only a terminal gets anyway

Exit status: 0 all files are there, 1 at least one is not, 2 the command line is wrong.

Example:
    pillion put report.csv sftp://sftp.example:22/~/in/
`

func (a *app) putCommand() *cobra.Command {
	var credential string
	var quiet bool
	cmd := &cobra.Command{
		Use: "put", Short: "Send files to an SFTP server", Long: putUsage,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("pillion put takes FILE... and sftp://HOST:PORT/DIRECTORY/; see pillion put --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			files, to := args[:len(args)-1], args[len(args)-1]
			return a.put(ctx, files, to, credential, quiet)
		},
		ValidArgsFunction: a.completePut,
	}
	cmd.Flags().StringVar(&credential, "credential", "", "")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "")
	return cmd
}

// completePut offers the local files, and the servers of the stored credentials.
func (a *app) completePut(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var servers []string
	_, store, err := a.lookIntoStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	all, err := creds.ListPublic(cmd.Context(), store)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for _, c := range all.Credentials {
		if c.Protocol == creds.SFTP && strings.HasPrefix(c.URL, begun) {
			servers = append(servers, c.URL)
		}
	}
	if len(servers) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return servers, cobra.ShellCompDirectiveNoSpace
}

// destination is what the last argument of put names.
type destination struct {
	server creds.Target
	path   string // the server's; relative to the account's directory for /~/
	dir    bool   // it must be a directory
}

func destinationOf(rawURL string) (destination, error) {
	if !strings.HasPrefix(strings.ToLower(rawURL), "sftp://") {
		return destination{}, usagef("the last argument must be the URL to put to: sftp://HOST:PORT/DIRECTORY/")
	}
	if strings.ContainsAny(rawURL, "?#") {
		return destination{}, usagef("the URL has a ? or a #: in the name of a file they are written %%3F and %%23")
	}
	target, err := creds.ParseTarget(rawURL)
	if err != nil {
		return destination{}, usagef("the URL %v", err)
	}
	decoded, err := url.PathUnescape(target.Path)
	if err != nil || strings.ContainsRune(decoded, 0) {
		return destination{}, usagef("the URL has a %% that is not followed by two digits: as itself it is written %%25")
	}
	d := destination{server: target, path: decoded, dir: strings.HasSuffix(decoded, "/") || decoded == "/~"}
	if home, ok := strings.CutPrefix(decoded, "/~"); ok && (home == "" || home[0] == '/') {
		d.path = strings.TrimLeft(home, "/")
	}
	if trimmed := strings.TrimRight(d.path, "/"); trimmed != "" {
		d.path = trimmed
	}
	return d, nil
}

// text is the URL of one file there.
func (d destination) text(file string) string {
	if !strings.HasPrefix(file, "/") {
		file = "/~/" + file
	}
	u := url.URL{Scheme: "sftp", Host: d.server.Authority(), Path: file}
	return u.String()
}

func (a *app) put(ctx context.Context, files []string, to, credential string, quiet bool) error {
	d, err := destinationOf(to)
	if err != nil {
		return err
	}
	if err := checkSources(files); err != nil {
		return err
	}
	session, err := a.connectToGateway(ctx, d.server, credential)
	if err != nil {
		return err
	}
	defer session.Close()
	if !d.dir {
		if d.dir, err = session.IsDir(d.path); err != nil {
			return err
		}
		if !d.dir && len(files) > 1 {
			return fmt.Errorf("%s is no directory there: for several files it must be one", d.text(d.path))
		}
	}
	failed := false
	for _, file := range files {
		err := a.putOne(ctx, session, file, d, quiet)
		if err == nil {
			continue
		}
		failed = true
		fmt.Fprintln(a.stderr, "pillion: "+err.Error())
		if ctx.Err() != nil || session.Lost() {
			break
		}
	}
	if failed {
		return errSilent
	}
	return nil
}

// checkSources finds what is wrong before anything is sent.
func checkSources(files []string) error {
	names := map[string]string{}
	for _, file := range files {
		info, err := os.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && strings.Contains(file, "://"):
			return usagef("%s must be the last argument, behind the files", file)
		case err != nil:
			return fmt.Errorf("%s: %s", file, fileProblem(err))
		case info.IsDir():
			return fmt.Errorf("%s is a directory: name the files in it", file)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file", file)
		}
		base := filepath.Base(file)
		if other, twice := names[base]; twice {
			return fmt.Errorf("%s and %s would have the same name there: send them one after the other", other, file)
		}
		names[base] = file
	}
	return nil
}

func (a *app) putOne(ctx context.Context, session *upload.Session, file string, d destination, quiet bool) error {
	target := d.path
	if d.dir {
		target = path.Join(d.path, filepath.Base(file))
	}
	bar := newProgressBar(a.stderr, filepath.Base(file), quiet)
	begin := time.Now()
	result, err := session.Put(ctx, upload.File{Source: file, Target: target, Progress: bar.show})
	bar.end()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted: put the file again to go on")
		}
		return fmt.Errorf("sending %s: %w", file, err)
	}
	resumed := ""
	if result.Resumed > 0 {
		resumed = ", of which " + bytesText(result.Resumed) + " were there already"
	}
	fmt.Fprintf(a.stdout, "%s: %s in %s%s\n", d.text(target), bytesText(result.Size), time.Since(begin).Round(10*time.Millisecond), resumed)
	return nil
}
