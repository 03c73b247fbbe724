package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"pillion/cmd/pillion/clientenv"
)

const envUsage = `Print the variables that make a client use pillion, for the shell to evaluate.

Usage:
    pillion env [--java] [--credential NAME] [--no-proxy LIST] [-o sh|json]

The address is that of the running pillion; when none runs, the configuration's.
Both cases of the proxy variables are set, since some clients obey only one, and
the certificate variables name the bundle of the system's roots and ours.
docs/clients.md says what each client obeys. sftp_proxy is curl's; the command lines
of other SFTP clients stand in comments at the end.

    --java             also JAVA_TOOL_OPTIONS
    --credential NAME  use this credential where several match, as the proxy user
    --no-proxy LIST    more hosts to reach directly, such as .svc,.cluster.local
    -o, --output FORMAT  sh (default) or json

Where proxy.client_token_file is set, the variables take the token from the file
when the shell evaluates them; it is not printed.

Example:
    eval "$(pillion env)"
`

// envFlags are the flags of env.
type envFlags struct {
	java       bool
	credential string
	noProxy    string
	output     string
}

func (a *app) envCommand() *cobra.Command {
	var f envFlags
	cmd := &cobra.Command{
		Use: "env", Short: "Print the variables that a client needs", Long: envUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(f.output, "sh", "json"); err != nil {
				return err
			}
			return a.env(cmd.Context(), f)
		},
	}
	cmd.Flags().BoolVar(&f.java, "java", false, "")
	cmd.Flags().StringVar(&f.credential, "credential", "", "")
	cmd.Flags().StringVar(&f.noProxy, "no-proxy", "", "")
	cmd.Flags().StringVarP(&f.output, "output", "o", "sh", "")
	return cmd
}

func (a *app) env(ctx context.Context, f envFlags) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	at, err := a.whereProxy(ctx, c)
	if err != nil {
		return err
	}
	if c.Proxy.ClientTokenFile != "" && f.output != "sh" {
		return errors.New("the proxy asks for a token, which is not printed: use the sh output, which takes it from its file")
	}
	vars := clientEnvironment(at, c.Proxy.ClientTokenFile, f)
	if _, _, err := a.whereSFTP(ctx, c); err == nil {
		vars = append(vars, sftpProxy(vars))
	}
	if f.output == "json" {
		object := map[string]string{}
		for _, v := range vars {
			object[v.name] = v.value
		}
		return printJSON(a.stdout, object)
	}
	for _, v := range vars {
		value := shellQuote(v.value)
		if v.tokenFile != "" {
			// The token goes from its file into the shell's variable, unseen here.
			value = shellQuote(v.before) + `"$(cat ` + shellQuote(v.tokenFile) + `)"` + shellQuote(v.value)
		}
		fmt.Fprintf(a.stdout, "export %s=%s\n", v.name, value)
	}
	if sftp, _, err := a.whereSFTP(ctx, c); err == nil {
		for _, line := range sftp.commands("NAME", "sftp://HOST:PORT/") {
			fmt.Fprintln(a.stdout, "# "+line)
		}
	}
	return nil
}

// proxyPlace is where clients find the proxy and the certificates.
type proxyPlace struct {
	address string // host:port
	publish string
}

// whereProxy asks the running pillion, else the configuration.
func (a *app) whereProxy(ctx context.Context, c *config) (proxyPlace, error) {
	s, err := newAdminClient(c.adminSocket()).status(ctx)
	if err == nil {
		if s.Listeners["proxy"] == "" {
			return proxyPlace{}, errors.New("the running pillion has no proxy: its proxy.listen is off")
		}
		return proxyPlace{s.Listeners["proxy"], s.Publish}, nil
	}
	if c.Proxy.Listen == off {
		return proxyPlace{}, errors.New("proxy.listen is off: there is no proxy to use")
	}
	host, port, err := net.SplitHostPort(c.Proxy.Listen)
	if err != nil {
		return proxyPlace{}, err
	}
	if port == "0" {
		return proxyPlace{}, fmt.Errorf("proxy.listen has port 0, which only a running pillion knows: %w", errNotRunning)
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	return proxyPlace{net.JoinHostPort(host, port), c.Publish}, nil
}

type envVar struct {
	name, value       string
	before, tokenFile string // value follows before and the file's content
}

// clientEnvironment is the table of docs/clients.md.
func clientEnvironment(at proxyPlace, tokenFile string, f envFlags) []envVar {
	place := clientenv.Place{Proxy: at.address, Publish: at.publish, NoProxy: clientenv.Direct(f.noProxy)}
	user := clientenv.User(f.credential)
	var vars []envVar
	for _, name := range clientenv.ProxyNames {
		v := envVar{name: name, value: "http://" + user + at.address}
		if tokenFile != "" {
			v = envVar{name: name, before: "http://" + cmp.Or(f.credential, "-") + ":", tokenFile: tokenFile, value: "@" + at.address}
		}
		vars = append(vars, v)
	}
	table := append(clientenv.Exceptions(place), clientenv.Trust(place)...)
	if user != "" || tokenFile != "" {
		// git waits for a 407 before it logs in, unless told how; a name needs none.
		table = append(table, clientenv.Login())
	}
	if f.java {
		table = append(table, clientenv.JavaOptions(place))
	}
	for _, v := range table {
		vars = append(vars, envVar{name: v.Name, value: v.Value})
	}
	return vars
}

// sftpProxy is what curl obeys for SFTP: the proxy of everything else.
func sftpProxy(vars []envVar) envVar {
	v := vars[0]
	v.name = "sftp_proxy"
	return v
}

// shellQuote quotes for a POSIX shell.
func shellQuote(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,@=+", r))
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
