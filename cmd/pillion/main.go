// Command pillion sits beside a connector and puts the right authorization on
// its requests, so that the connector holds no secrets. `pillion help` says how
// to use it; docs/ explains it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker (make build).
var version = "unknown"

func main() {
	// net/http's transport writes to the standard logger what a tool sends unasked,
	// which may hold anything. Our own log is another one.
	log.SetOutput(io.Discard)
	err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	os.Exit(exitStatus(err))
}

// run does what the arguments say. It prints its error itself; exitStatus turns
// it into the program's.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	a := &app{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintln(stderr, "pillion: "+err.Error())
	}
	return err
}

// app is what the commands share.
type app struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          struct{ config, state, prefix string }
}

// usageError is a command line that cannot be understood: exit status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// errSilent ends with status 1 after the command has said everything itself.
var errSilent = errors.New("failed")

func exitStatus(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return 2
	default:
		return 1
	}
}

const rootUsage = `pillion puts authorization on the requests of connectors that hold no secrets.

Usage:
    pillion COMMAND [--config FILE] [--state DIR]

Serve:
    run           start the listeners that the configuration names
    check         examine the configuration and the stored credentials
    health        ask a running pillion whether it is ready (for probes)

Credentials:
    credential    list, get, set, delete, connect, refresh, test, scan-host-key,
                  import
    explain       say which credential a URL gets, and why
    try           send a request through the running proxy
    put           send files to an SFTP server through the running gateway

Clients:
    env           print the variables that a client needs, for eval
    ca            print our CA and where clients find it
    doctor        examine this shell's environment as a client

Kubernetes:
    inject        add the sidecar to a manifest
    webhook       add it to pods as they are created

Watch:
    logs          the requests as they happen
    top           a table of credentials, rates and errors
    console-link  a new link that opens the page, good once

Other:
    demo-origin   a TLS server that shows what arrives
    completion    shell completion
    version       version and build

Flags of every command:
    --config FILE    the configuration; nothing is needed for the defaults
    --state DIR      where keys and credentials are kept
                     (default $XDG_STATE_HOME/pillion or ~/.local/state/pillion)

Environment, stronger than the file and weaker than flags:
    PILLION_CONFIG, PILLION_STATE, PILLION_PUBLISH, PILLION_PROXY_LISTEN,
    PILLION_SFTP_LISTEN, PILLION_METRICS_LISTEN, PILLION_CONSOLE_LISTEN, PILLION_LOG_LEVEL
    A listen address of "off" switches a role off.

Exit status: 0 done, 1 refused or failed, 2 the command line is wrong.

Example:
    pillion credential set jira --url https://example.atlassian.net/ \
        --authorization basic --username me@example.com --password-file token.txt
    pillion run &
    eval "$(pillion env)"
    curl https://example.atlassian.net/rest/api/3/myself
`

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "pillion",
		Short:         "Authorization for connectors that hold no secrets",
		Long:          rootUsage,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(*cobra.Command, []string) error { return usagef("which command? see pillion help") },
	}
	root.PersistentFlags().StringVar(&a.flags.config, "config", "", "")
	root.PersistentFlags().StringVar(&a.flags.state, "state", "", "")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), cmd.Long) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { fmt.Fprint(cmd.OutOrStdout(), cmd.Long); return nil })
	root.SetHelpCommand(a.helpCommand())
	root.AddCommand(
		a.runCommand(), a.checkCommand(), a.healthCommand(),
		a.credentialCommand(), a.explainCommand(), a.tryCommand(), a.putCommand(),
		a.envCommand(), a.caCommand(), a.doctorCommand(), a.injectCommand(), a.webhookCommand(),
		a.logsCommand(), a.topCommand(), a.consoleLinkCommand(),
		a.demoOriginCommand(), a.completionCommand(), a.versionCommand(),
	)
	return root
}

const helpUsage = `Print what a command does, and an example.

Usage:
    pillion help [COMMAND]...

Example:
    pillion help credential set
`

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help", Short: "What a command does, and an example", Long: helpUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q; see pillion help", strings.Join(args, " "))
			}
			fmt.Fprint(a.stdout, found.Long)
			return nil
		},
	}
}

// noArguments refuses arguments, which for a command with subcommands are
// names that it does not have.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef("there is no command %q; see %s --help", args[0], cmd.CommandPath())
	}
	return usagef("%s takes no arguments; see %s --help", cmd.CommandPath(), cmd.CommandPath())
}

// exactly asks for the named arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usagef("%s takes %s; see %s --help", cmd.CommandPath(), strings.Join(names, " and "), cmd.CommandPath())
	}
}
