package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
)

const tryUsage = `Send a request through the running proxy, as a connector would, and say how it went.

Usage:
    pillion try URL [--method METHOD] [--credential NAME]

The request carries no authorization of its own. The answer's body is not shown,
unless it is pillion's own refusal. Exit status 1 when pillion refused, or the
tool answered 401.

    --method METHOD    default GET
    --credential NAME  use this credential where several match

Example:
    pillion try https://example.atlassian.net/rest/api/3/myself
`

func (a *app) tryCommand() *cobra.Command {
	var method, credential string
	cmd := &cobra.Command{
		Use: "try", Short: "Send a request through the running proxy", Long: tryUsage, Args: exactly("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			return a.try(ctx, args[0], method, credential)
		},
	}
	cmd.Flags().StringVar(&method, "method", http.MethodGet, "")
	cmd.Flags().StringVar(&credential, "credential", "", "")
	return cmd
}

func (a *app) try(ctx context.Context, rawURL, method, credential string) error {
	target, _, err := targetOf(rawURL)
	if err != nil {
		return err
	}
	if target.Scheme == string(creds.SFTP) {
		return usagef("try sends requests of HTTP: use pillion put, or pillion credential test")
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	at, err := a.whereProxy(ctx, c)
	if err != nil {
		return err
	}
	client, err := proxyClient(c, at, credential)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), rawURL, nil)
	if err != nil {
		return usagef("the URL cannot be sent by this client")
	}
	a.printChosen(ctx, target, credential)
	begin := time.Now()
	response, err := client.RoundTrip(request)
	if err != nil {
		return tryProblem(at, err)
	}
	defer response.Body.Close()
	fmt.Fprintf(a.stdout, "answer:     %s after %s, %s\n", response.Status, time.Since(begin).Round(time.Millisecond), response.Proto)
	return a.judgeAnswer(response)
}

// printChosen says which credential is used, as far as the store tells.
func (a *app) printChosen(ctx context.Context, target creds.Target, chosen string) {
	if chosen != "" {
		fmt.Fprintln(a.stdout, "credential: "+chosen+", chosen by name")
		return
	}
	e, c, err := a.explanationOf(ctx, target)
	switch {
	case err != nil:
		fmt.Fprintln(a.stdout, "credential: not known: "+err.Error())
	case c == nil:
		fmt.Fprintln(a.stdout, "credential: none: "+e.Reason)
	default:
		fmt.Fprintf(a.stdout, "credential: %s (%s)\n", c.Name, c.Authorization)
	}
}

// proxyClient sends as a connector does: through the proxy, trusting our CA.
func proxyClient(c *config, at proxyPlace, credential string) (*http.Transport, error) {
	proxyURL := &url.URL{Scheme: "http", Host: at.address}
	secret, err := c.clientToken()
	if err != nil {
		return nil, fmt.Errorf("proxy.client_token_file: %w", err)
	}
	if credential != "" || !secret.IsZero() {
		if credential == "" {
			credential = "-"
		}
		proxyURL.User = url.User(credential)
		if !secret.IsZero() {
			proxyURL.User = url.UserPassword(credential, secret.Reveal())
		}
	}
	_, cert, err := readCA(at.publish)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &http.Transport{
		Proxy:             http.ProxyURL(proxyURL),
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}, nil
}

// tryProblem keeps the proxy's URL, which may hold the token, out of the text.
func tryProblem(at proxyPlace, err error) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("the proxy at %s shows a certificate of another CA: does it run with this state directory?", at.address)
	}
	return fmt.Errorf("no answer from the proxy at %s: %s; pillion doctor looks further", at.address, oneLine(rootCause(err)))
}

func rootCause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// judgeAnswer puts pillion's own refusals into words.
func (a *app) judgeAnswer(response *http.Response) error {
	if p, ok := ownRefusal(response); ok {
		fmt.Fprintf(a.stdout, "refused:    %s\nbecause:    %s\n", p.Title, p.Detail)
		return errSilent
	}
	if response.StatusCode == http.StatusUnauthorized {
		fmt.Fprintln(a.stdout, "the tool did not accept the credential: check it there, and with pillion credential test")
		return errSilent
	}
	return nil
}

// refusal is what people read of a problem document.
type refusal struct{ Type, Title, Detail string }

// ownRefusal reads pillion's own refusal of a request.
func ownRefusal(response *http.Response) (p refusal, ok bool) {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if kind != "application/problem+json" || !strings.Contains(response.Header.Get("Proxy-Status"), "pillion") {
		return p, false
	}
	err := json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&p)
	return p, err == nil && strings.HasPrefix(p.Type, "urn:pillion:error:")
}

func refusalText(response *http.Response) error {
	if p, ok := ownRefusal(response); ok {
		return errors.New(p.Detail)
	}
	return errors.New("the proxy answered " + response.Status)
}
