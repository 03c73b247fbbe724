package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
)

const doctorUsage = `Examine the environment of this shell as that of a client.

Usage:
    pillion doctor [URL]

Are the proxy variables set, in both cases, and do they lead to the proxy? Does
it answer? Do the certificate variables name files that can be read and hold our
CA? Would NO_PROXY lead a request for URL past the proxy? Each finding says what
to do. Exit status 1 when a client would not work.

For SFTP, which needs no variable: does the gateway answer, and can clients know
it by the published known_hosts? With an sftp:// URL it looks at that alone, and
prints command lines to copy.

Example:
    pillion doctor https://example.service-now.com/
    pillion doctor sftp://sftp.example:22/
`

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Examine this shell's environment as a client", Long: doctorUsage,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("pillion doctor takes one URL or none; see pillion doctor --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			target := creds.Target{}
			if len(args) == 1 {
				var err error
				if target, _, err = targetOf(args[0]); err != nil {
					return err
				}
			}
			return a.doctor(cmd.Context(), target)
		},
	}
}

// examination collects what doctor finds.
type examination struct {
	app    *app
	at     proxyPlace
	token  creds.Secret // that the proxy asks for; zero when it asks for none
	our    *x509.Certificate
	failed bool
}

func (x *examination) good(format string, args ...any) {
	fmt.Fprintf(x.app.stdout, "good     "+format+"\n", args...)
}

func (x *examination) bad(format string, args ...any) {
	x.failed = true
	fmt.Fprintf(x.app.stdout, "problem  "+format+"\n", args...)
}

func (x *examination) note(format string, args ...any) {
	fmt.Fprintf(x.app.stdout, "note     "+format+"\n", args...)
}

func (a *app) doctor(ctx context.Context, target creds.Target) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	x := &examination{app: a}
	if problems := c.checkFiles(); len(problems) > 0 {
		// What the variables hold follows from these: advice on them would only
		// lead back here.
		for _, p := range problems {
			x.bad("%s", p.String())
		}
		return errSilent
	}
	if x.token, err = c.clientToken(); err != nil {
		return err
	}
	if target.Scheme == string(creds.SFTP) {
		return x.endOf(x.sftp(ctx, c, target))
	}
	if x.at, err = a.whereProxy(ctx, c); err != nil {
		return err
	}
	x.reach(ctx)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		x.proxyVariable(name)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		x.noProxy(name, target.Host)
	}
	if _, x.our, err = readCA(x.at.publish); err != nil {
		x.bad("%v", err)
	} else {
		for _, v := range caVariables {
			x.caVariable(v.name, v.clients)
		}
	}
	if a.servesAnySFTP(ctx, c) {
		return x.endOf(x.sftp(ctx, c, target))
	}
	return x.endOf(nil)
}

func (x *examination) endOf(err error) error {
	if err == nil && x.failed {
		err = errSilent
	}
	return err
}

func (x *examination) reach(ctx context.Context) {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", x.at.address)
	if err != nil {
		x.bad("the proxy at %s does not answer: start it with pillion run", x.at.address)
		return
	}
	conn.Close()
	x.good("the proxy at %s answers", x.at.address)
}

const evalEnv = `eval "$(pillion env)" sets it`

func (x *examination) proxyVariable(name string) {
	value := x.app.getenv(name)
	switch u, err := url.Parse(value); {
	case value == "":
		x.bad("%s is not set, and some clients read only it: %s", name, evalEnv)
	case err != nil || u.Scheme != "http" || u.Host == "":
		x.bad("%s is not an http:// URL: %s", name, evalEnv)
	case u.Host != x.at.address:
		x.bad("%s leads to %s, and the proxy is at %s: %s", name, u.Host, x.at.address, evalEnv)
	case !x.token.IsZero() && !presents(u, x.token):
		x.bad("%s does not carry the token of proxy.client_token_file, or an old one: %s", name, evalEnv)
	default:
		x.good("%s leads to the proxy", name)
	}
}

// presents reports whether a client that obeys u sends token.
func presents(u *url.URL, token creds.Secret) bool {
	password, _ := u.User.Password()
	return creds.NewSecret(password).Equal(token)
}

func (x *examination) noProxy(name, host string) {
	value := x.app.getenv(name)
	covered := false
	for _, entry := range strings.Split(value, ",") {
		trimmed := strings.TrimSpace(entry)
		if trimmed == "" {
			continue
		}
		if trimmed != entry {
			x.note("%s has a space beside %s: some clients then ignore the entry; remove it", name, trimmed)
		}
		if _, err := netip.ParsePrefix(trimmed); err == nil {
			x.note("%s has the network %s: urllib and wget do not understand it", name, trimmed)
		}
		if trimmed == "*" || host != "" && noProxyCovers(trimmed, host) {
			covered = true
			x.bad("%s has %s, so clients go past the proxy: remove the entry", name, trimmed)
		}
	}
	if !covered {
		x.good("%s does not lead past the proxy", name)
	}
}

// noProxyCovers is the widest reading of an entry: that of any client.
func noProxyCovers(entry, host string) bool {
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		addr, err := netip.ParseAddr(host)
		return err == nil && prefix.Contains(addr)
	}
	if name, _, err := net.SplitHostPort(entry); err == nil {
		entry = name
	}
	entry = strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(entry, "*"), "."))
	return entry != "" && (host == entry || strings.HasSuffix(host, "."+entry))
}

// caVariables are read by different clients; a missing one matters to its own.
var caVariables = []struct{ name, clients string }{
	{"SSL_CERT_FILE", "curl, Go and Python's urllib"},
	{"CURL_CA_BUNDLE", "curl"},
	{"REQUESTS_CA_BUNDLE", "Python's requests"},
	{"AWS_CA_BUNDLE", "boto3"},
	{"NODE_EXTRA_CA_CERTS", "Node"},
	{"GIT_SSL_CAINFO", "git"},
}

func (x *examination) caVariable(name, clients string) {
	file := x.app.getenv(name)
	if file == "" {
		x.bad("%s is not set, so %s will not trust our CA: %s", name, clients, evalEnv)
		return
	}
	data, err := os.ReadFile(file)
	if err != nil {
		x.bad("%s names %s: %s; %s", name, file, fileProblem(err), evalEnv)
		return
	}
	if !holds(data, x.our) {
		x.bad("%s names %s, which does not hold our CA: %s", name, file, evalEnv)
		return
	}
	x.good("%s names a file that holds our CA", name)
}

func holds(data []byte, cert *x509.Certificate) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if bytes.Equal(block.Bytes, cert.Raw) {
			return true
		}
	}
	return false
}
