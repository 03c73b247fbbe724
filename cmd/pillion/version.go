package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

const versionUsage = `Print the version, and what it was built with.

Usage:
    pillion version

Example:
    pillion version
`

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version and build", Long: versionUsage, Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.stdout, "pillion %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
