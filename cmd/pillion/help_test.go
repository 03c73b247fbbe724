package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pillion/cmd/pillion/inject"
)

var (
	longFlag = regexp.MustCompile(`--[a-z][a-z-]*`)
	variable = regexp.MustCompile(`PILLION_[A-Z_]+`)
)

// TestHelp: each command's text says how it is used, names exactly the flags and
// the subcommands that it has, and ends in an example of itself.
func TestHelp(t *testing.T) {
	root := testApp().rootCommand()
	names := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		names++
		helpOf(t, root, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if names < 20 {
		t.Errorf("only %d commands were looked at", names)
	}
}

func helpOf(t *testing.T, root, cmd *cobra.Command) {
	t.Helper()
	name := cmd.CommandPath()
	text, example, ok := strings.Cut(cmd.Long, "\nExample:\n")
	if !ok || !strings.Contains(example, "pillion") || !strings.HasSuffix(example, "\n") {
		t.Errorf("%s: the help does not end in an example of it", name)
		return
	}
	if cmd != root && !strings.Contains(text, "Usage:\n    "+name) {
		t.Errorf("%s: the help does not say how it is used", name)
	}
	if cmd.Short == "" {
		t.Errorf("%s: nothing is said of it in completions", name)
	}
	for _, line := range strings.Split(cmd.Long, "\n") {
		if len(line) > 100 {
			t.Errorf("%s: a line is too long for a terminal: %s", name, line)
		}
	}
	var known []string
	add := func(f *pflag.Flag) {
		known = append(known, "--"+f.Name)
		if !slices.Contains(longFlag.FindAllString(text, -1), "--"+f.Name) {
			t.Errorf("%s: the help is silent about --%s", name, f.Name)
		}
		if f.Shorthand != "" && !strings.Contains(text, "-"+f.Shorthand+",") {
			t.Errorf("%s: the help is silent about -%s", name, f.Shorthand)
		}
	}
	cmd.LocalNonPersistentFlags().VisitAll(add)
	if cmd != root {
		cmd.PersistentFlags().VisitAll(add)
	}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
	for _, mentioned := range longFlag.FindAllString(text, -1) {
		inherited := strings.HasPrefix(text, "Manage the stored") && mentioned == "--yes" || strings.HasPrefix(text, "Manage the stored") && (mentioned == "--url" || mentioned == "--authorization")
		if !slices.Contains(known, mentioned) && mentioned != "--help" && !inherited {
			t.Errorf("%s: there is no %s, which the help mentions", name, mentioned)
		}
	}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden && sub.Name() != "help" && !strings.Contains(text, sub.Name()) {
			t.Errorf("%s: the help is silent about the command %s", name, sub.Name())
		}
	}
}

// TestHelpNamesTheVariables: the root's help and that of run name every
// environment variable, and only those.
func TestHelpNamesTheVariables(t *testing.T) {
	var want []string
	for name := range defaultConfig().overrides() {
		want = append(want, name)
	}
	want = append(want, envConfig)
	slices.Sort(want)
	for name, text := range map[string]string{"root": rootUsage, "run": runUsage} {
		text, _, _ = strings.Cut(text, "\nExample:")
		got := slices.Compact(slices.Sorted(slices.Values(variable.FindAllString(text, -1))))
		if !slices.Equal(got, want) {
			t.Errorf("%s names %v, the program reads %v", name, got, want)
		}
	}
}

// TestConfigurationPage: docs/configuration.md has every key, variable, command
// and flag, and nothing that does not exist.
func TestConfigurationPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	keys := allKeys()
	for _, key := range keys {
		if !strings.Contains(page, "\n| `"+key+"` |") {
			t.Errorf("the page does not have the key %s", key)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(keys, row[1]) {
			t.Errorf("the page has a key %s, which does not exist", row[1])
		}
	}
	known := defaultConfig().overrides()
	for name := range known {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("the page does not have the variable %s", name)
		}
	}
	for _, name := range variable.FindAllString(page, -1) {
		if _, ok := known[name]; !ok && name != envConfig {
			t.Errorf("the page has a variable %s, which does not exist", name)
		}
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if !strings.Contains(page, "| `"+sub.CommandPath()) {
				t.Errorf("the page does not have the command %s", sub.CommandPath())
			}
			walk(sub)
		}
	}
	walk(testApp().rootCommand())
}

// TestInjectHelp names every annotation of a pod.
func TestInjectHelp(t *testing.T) {
	for _, name := range inject.Annotations() {
		if !strings.Contains(injectUsage, name) {
			t.Errorf("the help of inject is silent about %s", name)
		}
	}
}

func testApp() *app {
	return &app{getenv: noEnvironment, stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
}
