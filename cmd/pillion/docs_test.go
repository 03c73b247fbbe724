package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pillion/creds"
	"pillion/creds/token"
)

// TestDocsCommands parses every command line of README.md, docs/ and the help
// texts against the real tree of commands: names, flags and number of arguments.
func TestDocsCommands(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../../README.md", "../../SECURITY.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found += checkCommands(t, filepath.Base(file), documented(string(data)))
	}
	if found < 50 {
		t.Errorf("only %d command lines found: does documented still see them?", found)
	}
}

func TestHelpExamples(t *testing.T) {
	found := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if _, example, ok := strings.Cut(cmd.Long, "\nExample:\n"); ok {
			found += checkCommands(t, cmd.CommandPath()+" --help", documented(example))
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(quietApp().rootCommand())
	if found < 15 {
		t.Errorf("only %d examples found in the help texts", found)
	}
}

func quietApp() *app {
	return &app{getenv: func(string) string { return "" }, stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
}

func checkCommands(t *testing.T, where string, lines []docLine) (found int) {
	t.Helper()
	for _, line := range lines {
		for _, words := range pillionCommands(line.text) {
			found++
			if err := checkCommand(words, line.inline); err != nil {
				t.Errorf("%s: %s\n  %v", where, line.text, err)
			}
		}
	}
	return found
}

// checkCommand parses the words behind "pillion" without running anything. In a
// sentence a command may stand without its arguments.
func checkCommand(words []string, inline bool) error {
	root := quietApp().rootCommand()
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	rest = slices.DeleteFunc(slices.Clone(rest), func(word string) bool { return word == "..." || word == "[FLAGS]" })
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if inline || slices.Contains(rest, "--help") {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
			return fmt.Errorf("there is no %s %s", cmd.CommandPath(), cmd.Flags().Arg(0))
		}
		return nil
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// docLine is a command line of a document, or a code span of a sentence.
type docLine struct {
	text   string
	inline bool
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// documented returns the indented and fenced lines of a Markdown text, those that
// a backslash or a pipe continues joined, and its code spans.
func documented(text string) []docLine {
	var out []docLine
	fenced, joined := false, ""
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			for _, span := range codeSpan.FindAllStringSubmatch(line, -1) {
				out = append(out, docLine{span[1], true})
			}
			continue
		}
		joined += strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		if rest, more := strings.CutSuffix(joined, `\`); more || strings.HasSuffix(joined, "|") {
			joined = rest
			continue
		}
		out = append(out, docLine{joined, false})
		joined = ""
	}
	return out
}

var programs = []string{"pillion", "bin/pillion"}

// pillionCommands returns the arguments of each pillion in a shell line: alone,
// in a pipe, behind && or an assignment, and inside $(...).
func pillionCommands(line string) [][]string {
	var commands [][]string
	for _, words := range shellCommands(substitution.Replace(line)) {
		for len(words) > 0 && assignment.MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 0 && slices.Contains(programs, words[0]) {
			commands = append(commands, words[1:])
		}
	}
	return commands
}

// substitution takes away the quotes around $(...), which change nothing here.
var substitution = strings.NewReplacer(`"$(`, `$(`, `)"`, `)`)

var assignment = regexp.MustCompile(`^[A-Z_a-z]+=`)

// shellCommands cuts a line into its commands and these into words, as far as
// documents need it: quotes, comments, redirections, ; & | && and $(...).
func shellCommands(line string) [][]string {
	var commands [][]string
	var words []string
	var word strings.Builder
	inWord := false
	endWord := func() {
		if inWord && !strings.HasPrefix(word.String(), ">") && !strings.HasPrefix(word.String(), "<") {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case strings.HasPrefix(line[i:], "$("):
			end := closing(line, i+2)
			commands = append(commands, shellCommands(line[i+2:end])...)
			word.WriteString("SUBSTITUTED")
			i, inWord = end, true
		case c == '\'' || c == '"':
			end := strings.IndexByte(line[i+1:], c)
			if end < 0 {
				end = len(line) - i - 1
			}
			word.WriteString(line[i+1 : i+1+end])
			i, inWord = i+1+end, true
		case c == '#' && !inWord:
			endCommand()
			return commands
		case c == ' ' || c == '\t':
			endWord()
		case c == ';' || c == '|' || c == '&':
			endCommand()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return commands
}

// closing returns where the parenthesis before start closes.
func closing(line string, start int) int {
	depth := 1
	for i := start; i < len(line); i++ {
		switch line[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(line)
}

func TestShellCommands(t *testing.T) {
	for line, want := range map[string][][]string{
		`pillion env`: {{"env"}},
		`eval "$(pillion env --credential a)" && curl https://x/`:           {{"env", "--credential", "a"}},
		`PILLION_STATE=x bin/pillion run --config 'a b' >log # or so`:       {{"run", "--config", "a b"}},
		`printf '%s' "$(cat pillion)" | pillion credential set a -o "b; c"`: {{"credential", "set", "a", "-o", "b; c"}},
		`pillion check && pillion run &`:                                    {{"check"}, {"run"}},
		`echo pillion run`:                                                  nil,
		`# pillion run`:                                                     nil,
	} {
		if got := pillionCommands(line); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestCheckCommandRefuses(t *testing.T) {
	for _, line := range []string{
		"pillion nothing", "pillion run --nothing", "pillion run now", "pillion credential nothing",
		"pillion credential set a --password secret", "pillion credential get", "pillion explain",
	} {
		if checkCommand(pillionCommands(line)[0], false) == nil {
			t.Errorf("%s passed", line)
		}
	}
}

// TestDocsCredentials keeps docs/credentials.md in step with the types, the
// fields of an import and the flags.
func TestDocsCredentials(t *testing.T) {
	data, err := os.ReadFile("../../docs/credentials.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	sections := typeSections(page)
	for _, kind := range creds.AuthorizationTypes(creds.HTTPS) {
		section, ok := sections[string(kind)]
		if !ok {
			t.Errorf("there is no section ### `%s`", kind)
			continue
		}
		delete(sections, string(kind))
		if !strings.Contains(section, "--authorization "+string(kind)) {
			t.Errorf("the section of %s has no example", kind)
		}
		if _, err := token.Describe(&creds.Credential{Name: "a", Authorization: kind, APIKeyHeader: "X-Api-Key"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for kind := range sections {
		t.Errorf("### `%s` is no authorization type", kind)
	}
	for i := range reflect.TypeFor[imported]().NumField() {
		if field := reflect.TypeFor[imported]().Field(i).Tag.Get("yaml"); !strings.Contains(page, "`"+field+"`") {
			t.Errorf("the field %s of an import is not on the page", field)
		}
	}
	set, _, err := quietApp().rootCommand().Find([]string{"credential", "set"})
	if err != nil {
		t.Fatal(err)
	}
	set.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !strings.Contains(page, "--"+f.Name) {
			t.Errorf("--%s is not on the page", f.Name)
		}
	})
}

var typeHeading = regexp.MustCompile("(?m)^### `([^`]+)`$")

// typeSections returns the text under each heading that is a type.
func typeSections(page string) map[string]string {
	sections := map[string]string{}
	for _, at := range typeHeading.FindAllStringSubmatchIndex(page, -1) {
		text, _, _ := strings.Cut(page[at[1]:], "\n#")
		sections[page[at[2]:at[3]]] = text
	}
	return sections
}
