package main

import (
	"github.com/spf13/cobra"
)

const completionUsage = `Print a script that teaches a shell to complete pillion's commands.

Usage:
    pillion completion bash|zsh|fish|powershell

Example:
    source <(pillion completion bash)
`

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "completion", Short: "Shell completion", Long: completionUsage, Args: exactly("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usagef("there is no completion for %q: write bash, zsh, fish or powershell", args[0])
		},
	}
}
