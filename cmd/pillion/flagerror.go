package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// secretWords are what people try before they know that a secret is never a
// flag's value, and the flag that they want.
var secretWords = map[string]string{
	"password": "password-file", "pass": "password-file", "passwd": "password-file",
	"token": "token-file", "access-token": "token-file",
	"api-key": "api-key-file", "apikey": "api-key-file", "key": "api-key-file",
	"client-secret": "client-secret-file", "secret": "client-secret-file",
	"private-key": "private-key-file",
	"header":      "header-file",
}

// flagError is the answer to flags that a command does not have. It never
// repeats what may be a value: that may be a secret.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usagef("there is no flag -%s; see %s --help", printableKey(name), cmd.CommandPath())
	}
	if flag := secretWords[name]; flag != "" && cmd.Flags().Lookup(flag) != nil {
		file := "FILE"
		if flag == "header-file" {
			file = "NAME=FILE"
		}
		return usagef("there is no flag --%s: a secret is given by --%s %s or - for standard input, never as a flag's value; see %s --help", name, flag, file, cmd.CommandPath())
	}
	return usagef("there is no flag --%s%s; see %s --help", printableKey(name), suggestion(cmd.Flags(), name), cmd.CommandPath())
}

// suggestion names the flags that name may have meant: those that are misspelt by
// little, else those that it is the beginning of.
func suggestion(flags *pflag.FlagSet, name string) string {
	nearest := 3
	var near, longer []string
	flags.VisitAll(func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); d <= nearest && d < min(3, len(name)) {
			if d < nearest {
				nearest, near = d, nil
			}
			near = append(near, "--"+f.Name)
		}
		if strings.HasPrefix(f.Name, name) {
			longer = append(longer, "--"+f.Name)
		}
	})
	if len(near) == 0 {
		near = longer
	}
	if len(near) == 0 || len(near) > 4 {
		return ""
	}
	slices.Sort(near)
	return fmt.Sprintf(": did you mean %s?", orList(near))
}
