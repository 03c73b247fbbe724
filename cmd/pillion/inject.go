package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pillion/cmd/pillion/inject"
)

const injectUsage = `Add pillion to the workloads of a Kubernetes manifest.

Usage:
    pillion inject [-f FILE] [FLAGS] > out.yaml

It reads YAML documents or JSON (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job,
CronJob, Pod, lists of these) and writes the same text with the sidecar, its volumes,
and the variables that make the other containers use it. Nothing is changed or taken
away, a second time adds nothing, and other objects pass through. The sidecar is a
native one: an init container that restarts, starts first and ends last.

    -f, --filename FILE     the manifest; default -, standard input
    --image IMAGE           the sidecar's; default pillion:VERSION
    --config-map NAME       whose pillion.yaml is its configuration (default pillion)
    --plain                 an ordinary container, for clusters before 1.29
    --clients LIST          containers that shall use pillion; default all
    --languages LIST        of aws, curl, git, go, node, openssl, python, java: whose
                            certificate variables are set; default all but java
    --no-proxy LIST         more hosts that clients reach directly
    --credential NAME       the credential that clients ask for, where several match
    --proxy-port PORT       default 3128
    --metrics-port PORT     default 9180
    --audience NAME         of the token for Vault (default vault)
    --uid UID               the sidecar's user (default 65532); 0 leaves it to the cluster
    --cpu-request QUANTITY, --memory-request QUANTITY, --memory-limit QUANTITY
                            default 10m, 48Mi, 256Mi

Annotations of a pod are stronger than flags: pillion/clients, pillion/languages,
pillion/no-proxy, pillion/credential, pillion/config-map, pillion/variant (native or
plain), pillion/proxy-port, pillion/metrics-port, pillion/cpu-request,
pillion/memory-request, pillion/memory-limit. pillion/inject: "false" leaves one out.

What was done is said on standard error. Exit status 1: a workload cannot have it, and
nothing is written; 2: the command line is wrong.

Example:
    pillion inject -f deployment.yaml | kubectl apply -f -
`

func (a *app) injectCommand() *cobra.Command {
	var file string
	flags := injectFlags{Settings: inject.Defaults()}
	cmd := &cobra.Command{
		Use: "inject", Short: "Add pillion to a Kubernetes manifest", Long: injectUsage, Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			settings, err := flags.settings()
			if err != nil {
				return err
			}
			return a.inject(file, settings)
		},
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "-", "")
	flags.add(cmd)
	return cmd
}

// injectFlags are those that inject and webhook share.
type injectFlags struct {
	inject.Settings
	clients, languages, noProxy string
}

func (f *injectFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Image, "image", defaultImage(), "")
	flags.StringVar(&f.ConfigMap, "config-map", f.ConfigMap, "")
	flags.BoolVar(&f.Plain, "plain", false, "")
	flags.StringVar(&f.clients, "clients", "", "")
	flags.StringVar(&f.languages, "languages", strings.Join(f.Languages, ","), "")
	flags.StringVar(&f.noProxy, "no-proxy", "", "")
	flags.StringVar(&f.Credential, "credential", "", "")
	flags.IntVar(&f.ProxyPort, "proxy-port", f.ProxyPort, "")
	flags.IntVar(&f.MetricsPort, "metrics-port", f.MetricsPort, "")
	flags.StringVar(&f.Audience, "audience", f.Audience, "")
	flags.IntVar(&f.UID, "uid", f.UID, "")
	flags.StringVar(&f.CPURequest, "cpu-request", f.CPURequest, "")
	flags.StringVar(&f.MemoryRequest, "memory-request", f.MemoryRequest, "")
	flags.StringVar(&f.MemoryLimit, "memory-limit", f.MemoryLimit, "")
}

// defaultImage is what make image makes of this build.
func defaultImage() string { return "pillion:" + strings.ReplaceAll(version, "+", "-") }

func (f *injectFlags) settings() (inject.Settings, error) {
	s := f.Settings
	if f.clients != "" {
		s.Clients = strings.Split(f.clients, ",")
	}
	if err := s.SetLanguages(f.languages); err != nil {
		return s, usagef("--languages: %v", err)
	}
	if err := s.AddNoProxy(f.noProxy); err != nil {
		return s, usagef("--no-proxy: %v", err)
	}
	if err := s.Check(); err != nil {
		return s, usagef("%v", err)
	}
	return s, nil
}

// maxManifest is far above what an API server takes in one object.
const maxManifest = 64 << 20

func (a *app) inject(file string, settings inject.Settings) error {
	in := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("reading the manifest: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	if len(text) > maxManifest {
		return fmt.Errorf("the manifest is larger than %d MiB: give it in parts", maxManifest>>20)
	}
	out, reports, err := inject.Manifest(text, settings)
	if err != nil {
		return err
	}
	if _, err := a.stdout.Write(out); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	for _, r := range reports {
		a.sayInjected(r)
	}
	if len(reports) == 0 {
		fmt.Fprintln(a.stderr, "pillion inject: there is no workload in the manifest: it is as it was")
	}
	return nil
}

func (a *app) sayInjected(r inject.Report) {
	say := func(what string) { fmt.Fprintf(a.stderr, "pillion inject: %s %s: %s\n", r.Kind, r.Name, what) }
	switch {
	case r.Skipped != "":
		say("left as it is, since " + r.Skipped)
		return
	case r.Added:
		say("has pillion now; it is used by " + strings.Join(r.Clients, ", "))
	default:
		say("has pillion already")
	}
	for _, w := range r.Warnings {
		say("warning: " + w)
	}
	for _, n := range r.Notes {
		say("note: " + n)
	}
}
