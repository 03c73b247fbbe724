package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/token"
)

const credentialConnectUsage = `Connect a credential of type oauth2-authorization-code: a person logs in at the
provider and agrees, once; from then on its tokens are renewed without anybody.

Usage:
    pillion credential connect NAME [--redirect-url URL] [--paste] [--spare]

It prints an address. Open it in a browser on this machine, log in and agree: the
browser comes back to the redirect URL, where this command listens. The provider
must know that URL: register it there first, exactly as it stands.

    --redirect-url URL  where the browser comes back to
                        (default http://127.0.0.1:8182/callback)
    --paste             do not listen: paste the address that the browser was sent
                        to. Needed where the browser runs on another machine, and
                        chosen by itself for a redirect URL that is not loopback
    --spare             keep this consent for the day the first one is lost, instead
                        of replacing it

Over the embedded store the code is exchanged here, by the way that the
configuration bounds. Over Vault a running refresher does it: nothing of the grant
is ever read by this command.

Example:
    pillion credential connect jira
`

const defaultRedirectURL = "http://127.0.0.1:8182/callback"

type connectFlags struct {
	redirectURL  string
	paste, spare bool
}

func (a *app) credentialConnect() *cobra.Command {
	f := &connectFlags{}
	cmd := &cobra.Command{
		Use: "connect", Short: "Have a person consent, for the authorization code grant", Long: credentialConnectUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.connect(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.redirectURL, "redirect-url", defaultRedirectURL, "")
	cmd.Flags().BoolVar(&f.paste, "paste", false, "")
	cmd.Flags().BoolVar(&f.spare, "spare", false, "")
	return cmd
}

func (a *app) connect(ctx context.Context, name string, f *connectFlags) error {
	at, err := url.Parse(f.redirectURL)
	if err != nil || at.Host == "" || at.Fragment != "" || (at.Scheme != "http" && at.Scheme != "https") {
		return usagef("--redirect-url must be an address such as %s", defaultRedirectURL)
	}
	g, err := a.openGrant(ctx, name)
	if err != nil {
		return err
	}
	pending, err := token.BeginConsent(g.credential, f.redirectURL)
	if err != nil {
		return err
	}
	way := a.listenForConsent
	if f.paste || !listenable(at) {
		way = a.pasteConsent
	}
	ctx, cancel := context.WithTimeout(ctx, token.ConsentTime)
	defer cancel()
	return way(ctx, at, pending, func(ctx context.Context, code creds.Secret) (token.Report, error) {
		return g.exchange(ctx, token.Consent{Code: code, Verifier: pending.Verifier, RedirectURL: pending.RedirectURL, Spare: f.spare})
	})
}

// listenable reports whether this process can be what the browser comes back to.
func listenable(at *url.URL) bool {
	ip := net.ParseIP(at.Hostname())
	return at.Scheme == "http" && at.Port() != "" && (at.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// exchanger spends a code, and says how that went.
type exchanger func(context.Context, creds.Secret) (token.Report, error)

func (a *app) invite(pending *token.Pending) {
	fmt.Fprintf(a.stdout, "The provider must know this redirect URL: %s\n", pending.RedirectURL)
	fmt.Fprintf(a.stdout, "Open this address in a browser, log in, and agree:\n\n    %s\n\n", pending.URL)
}

// listenForConsent waits for the browser on the redirect URL.
func (a *app) listenForConsent(ctx context.Context, at *url.URL, pending *token.Pending, exchange exchanger) error {
	listener, err := net.Listen("tcp", at.Host)
	if err != nil {
		return fmt.Errorf("listening on %s for the browser: %w; choose another --redirect-url, or --paste", at.Host, err)
	}
	a.invite(pending)
	fmt.Fprintf(a.stdout, "waiting for the browser to come back, for %v at most\n", token.ConsentTime)
	ended := make(chan error, 1)
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler:           &callback{at: at, pending: pending, exchange: exchange, app: a, ended: ended, ctx: ctx},
	}
	go func() { _ = server.Serve(listener) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = errors.New("nobody came back in time: nothing is changed; start again")
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = server.Shutdown(stop) // the last page reaches the browser first
	return err
}

// callback is the page that the browser comes back to.
type callback struct {
	at       *url.URL
	pending  *token.Pending
	exchange exchanger
	app      *app
	ended    chan<- error
	ctx      context.Context //nolint:containedctx // of the command, not of a request: leaving the page must not cut the exchange
}

var callbackPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title></head>
<body><h1>{{.Title}}</h1>
{{range .Lines}}<p>{{.}}</p>
{{end}}</body></html>
`))

// ServeHTTP takes the code out of the one request that carries our state; all
// others are told so, and the wait goes on.
func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet || r.URL.Path != c.at.Path || r.Host != c.at.Host {
		c.say(w, http.StatusNotFound, "Nothing is here", "pillion waits for the provider's answer on another address.")
		return
	}
	code, err := c.pending.Code(r.URL.Query(), time.Now())
	if errors.Is(err, token.ErrConsentState) {
		c.say(w, http.StatusBadRequest, "This is no answer to our question", "Its state is not the one that was sent. Use the address that pillion printed last.")
		return
	}
	var report token.Report
	if err == nil {
		report, err = c.exchange(c.ctx, code)
	}
	if err = c.app.told(report, err); err != nil {
		c.say(w, http.StatusOK, "Not connected", append(report.Lines, oneLine(err.Error()))...)
	} else {
		c.say(w, http.StatusOK, "Connected", append(report.Lines, "You may close this page.")...)
	}
	c.ended <- err
}

func (c *callback) say(w http.ResponseWriter, status int, title string, lines ...string) {
	w.WriteHeader(status)
	_ = callbackPage.Execute(w, struct {
		Title string
		Lines []string
	}{title, lines})
}

// pasteConsent asks for the address that the browser was sent to.
func (a *app) pasteConsent(ctx context.Context, _ *url.URL, pending *token.Pending, exchange exchanger) error {
	a.invite(pending)
	fmt.Fprint(a.stdout, "Then copy the address that the browser was sent to, and paste it here (it need not show a page): ")
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && line == "" {
		return errors.New("nothing was pasted: nothing is changed")
	}
	back, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		return errors.New("what was pasted is not an address: nothing is changed")
	}
	code, err := pending.Code(back.Query(), time.Now())
	if err != nil {
		return err
	}
	report, err := exchange(ctx, code)
	return a.told(report, err)
}
