package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

const runUsage = `Start the listeners that the configuration names, until SIGTERM or Ctrl-C.

Usage:
    pillion run [--config FILE] [--state DIR]

Without a configuration: the proxy on 127.0.0.1:3128, SFTP on 127.0.0.1:2022,
metrics and health on 127.0.0.1:9180, credentials in the embedded store of the
state directory.

SIGHUP, a changed file and "credential set" reload configuration and credentials;
a configuration with problems is refused whole, and the old one stays. SIGTERM
drains: readiness turns false, what is under way ends, then the process does. A
second SIGTERM ends it at once. The log goes to standard error, a line a request:
warnings and errors at once, others within 50 ms.

Environment:
    PILLION_CONFIG, PILLION_STATE, PILLION_PUBLISH, PILLION_PROXY_LISTEN,
    PILLION_SFTP_LISTEN, PILLION_METRICS_LISTEN, PILLION_CONSOLE_LISTEN, PILLION_LOG_LEVEL

Example:
    PILLION_PROXY_LISTEN=127.0.0.1:3129 pillion run --config pillion.yaml
`

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Start the listeners", Long: runUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
			defer signal.Stop(signals)
			go followLoad(cmd.Context())
			return a.serve(cmd.Context(), signals)
		},
	}
}

// serve wires everything in the order in which a request travels, and runs
// until it is told to end.
func (a *app) serve(ctx context.Context, signals <-chan os.Signal) error {
	defer runtime.KeepAlive(ballast())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := a.newDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	d.limitMemory()
	d.profileMemory()
	admin, err := listenAdmin(d.config.Load().adminSocket())
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := d.listen(); err != nil {
		return err
	}
	if err := d.openConsole(); err != nil {
		return err
	}
	failed := make(chan error, 1+len(d.listeners)) // and the admin socket
	d.start(ctx, admin, failed)
	d.ready.Store(true)
	debug.FreeOSMemory() // what the start needed, and nothing else will
	releaseProgram()
	message := "ready"
	if !d.live.Loaded() {
		message = "started, but not ready: waiting for the credential store"
	}
	d.log.Info(message, "version", version, "state", d.config.Load().State, "credentials", d.live.Table().Len())
	d.notifyReady()
	go d.keepAlive(ctx)
	d.lines.hold() // until here each line was written at once
	defer d.lines.release()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				d.notifyReloading()
				d.reload(ctx)
				d.notifyReady()
				continue
			}
			return d.drain(signals)
		case <-ctx.Done():
			return d.drain(signals)
		case err := <-failed:
			return err
		}
	}
}
