package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/token"
)

const explainUsage = `Say which credential a URL gets, and why. Nothing is sent.

Usage:
    pillion explain URL [-o text|json]

With what a request would carry, its secrets blotted out, and how the token
stands in the running pillion. For SFTP: as whom pillion logs in, the pinned host
keys, and command lines to copy. When no credential matches: those that nearly do,
and what differs. Exit status 1 when a request would be refused.

    -o, --output FORMAT  text (default) or json

Example:
    pillion explain https://example.service-now.com/api/now/table/incident
    pillion explain sftp://sftp.example:22/
`

// explained is the answer of explain.
type explained struct {
	creds.Explanation
	Injected []string    `json:"injected,omitempty"`
	Token    *tokenState `json:"token,omitempty"`
	Running  bool        `json:"running"`
	Note     string      `json:"note,omitempty"`

	SFTP *sftpExplained `json:"sftp,omitempty"`
}

func (a *app) explainCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "explain", Short: "Say which credential a URL gets, and why", Long: explainUsage, Args: exactly("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			return a.explain(cmd.Context(), args[0], output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "")
	return cmd
}

func (a *app) explain(ctx context.Context, rawURL, output string) error {
	target, note, err := targetOf(rawURL)
	if err != nil {
		return err
	}
	e, c, err := a.explanationOf(ctx, target)
	if err != nil {
		return err
	}
	e.Note = cmp.Or(e.Note, note)
	if output == "json" {
		if err := printJSON(a.stdout, e); err != nil {
			return err
		}
	} else {
		a.printExplanation(e)
	}
	if c == nil {
		return errSilent
	}
	return nil
}

// targetOf reads a URL as the proxy would read a client's.
func targetOf(rawURL string) (creds.Target, string, error) {
	target, err := creds.ParseTarget(rawURL)
	if err != nil {
		return target, "", usagef("the URL %v", err)
	}
	note := ""
	if target.Scheme == "http" {
		target.Scheme = "https"
		if target.Port == 80 {
			target.Port = 443
		}
		note = "sent to the proxy as http://, it goes on as https:// where a credential matches"
	}
	return target, note, nil
}

// explanationOf looks into the store, and asks the running pillion for the token.
func (a *app) explanationOf(ctx context.Context, target creds.Target) (explained, *creds.Credential, error) {
	cfg, store, err := a.lookIntoStore()
	var none *noStoreError
	if errors.As(err, &none) {
		return explained{Explanation: creds.NewTable(nil).Explain(target), Note: none.Error()}, nil, nil
	}
	if err != nil {
		return explained{}, nil, err
	}
	if store, err = a.asRunWould(cfg, store); err != nil {
		return explained{}, nil, err
	}
	live := cfg.liveOver(store)
	if err := live.Reload(ctx); err != nil {
		return explained{}, nil, err
	}
	e := explained{Explanation: live.Table().Explain(target)}
	s, err := newAdminClient(cfg.adminSocket()).status(ctx)
	e.Running = err == nil
	if err != nil && !errors.Is(err, errNotRunning) {
		return e, nil, err
	}
	c, ok := live.Table().ByName(e.Credential)
	if !ok {
		return e, nil, nil
	}
	if c.Protocol == creds.SFTP {
		e.SFTP, err = a.explainSFTP(ctx, cfg, c)
		return e, c, err
	}
	if e.Injected, err = token.Describe(c); err != nil {
		return e, nil, fmt.Errorf("the credential %s matches, but cannot be sent: %w", c.Name, err)
	}
	has := func(running credentialStatus) bool { return running.Name == c.Name }
	if !e.Running || slices.ContainsFunc(s.Credentials, has) {
		t := tokenStates(ctx, s, store, []*creds.Credential{c})[c.Name]
		e.Token = &t
	}
	return e, c, nil
}

func (a *app) printExplanation(e explained) {
	w := a.stdout
	fmt.Fprintln(w, "target:        "+e.Target)
	if e.Note != "" {
		fmt.Fprintln(w, "note:          "+e.Note)
	}
	if e.Credential == "" {
		fmt.Fprintln(w, "credential:    none: "+e.Reason)
		for _, m := range e.Misses {
			fmt.Fprintf(w, "nearest miss:  %s (%s): %s\n", m.Credential, m.InstanceURL, strings.Join(m.Reasons, "; "))
		}
		var none *creds.NoMatchError
		if len(e.Misses) == 0 && errors.As(e.Err, &none) {
			fmt.Fprintln(w, "nearest miss:  none: no credential is for a host like this one; pillion credential list shows all")
		}
		return
	}
	fmt.Fprintf(w, "credential:    %s (%s)\n", e.Credential, e.InstanceURL)
	fmt.Fprintln(w, "because:       "+e.Reason)
	if e.SFTP != nil {
		e.SFTP.print(w)
		return
	}
	fmt.Fprintln(w, "authorization: "+string(e.Authorization))
	for _, field := range e.Injected {
		fmt.Fprintln(w, "injected:      "+field)
	}
	if len(e.Injected) == 0 {
		fmt.Fprintln(w, "injected:      nothing")
	}
	fmt.Fprintln(w, "token:         "+tokenWords(e, time.Now()))
}

func tokenWords(e explained, now time.Time) string {
	switch {
	case !isOAuth2(e.Authorization) && e.Authorization != creds.Login:
		return "this type needs none"
	case e.Token == nil:
		return "not known: the running pillion does not have this credential"
	case !e.Running && e.Token.State == unknownState:
		return "not known: no pillion runs with this state directory"
	}
	text := e.Token.State
	if e.Token.Expires != nil {
		text += ", good for " + goodFor(*e.Token, now)
	} else if e.Token.State == string(token.StatusNone) {
		text += ": the first request fetches one"
	}
	if e.Token.GrantEnds != nil {
		text += "; the consent ends on " + e.Token.GrantEnds.UTC().Format("2006-01-02")
	}
	if e.Token.Error != "" {
		text += "; last: " + e.Token.Error
	}
	return text
}
