package inject

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// insertion is text, and the offset before which it belongs.
type insertion struct {
	at   int
	text string
}

// insertAll returns text with all insertions; of those at one place, the first
// comes first.
func insertAll(text []byte, all []insertion) []byte {
	slices.SortStableFunc(all, func(a, b insertion) int { return cmp.Compare(a.at, b.at) })
	var out bytes.Buffer
	done := 0
	for _, i := range all {
		out.Write(text[done:i.at])
		out.WriteString(i.text)
		done = i.at
	}
	out.Write(text[done:])
	return out.Bytes()
}

// editor finds where additions belong in a text.
type editor struct {
	text  []byte
	lines []int // where each begins
	eol   string
	begun map[*yaml.Node]bool // empty flow collections that something goes into
}

func newEditor(text []byte) *editor {
	e := &editor{text: text, lines: []int{0}, eol: "\n", begun: map[*yaml.Node]bool{}}
	for i, c := range text {
		if c == '\n' {
			e.lines = append(e.lines, i+1)
		}
	}
	if len(e.lines) > 1 && bytes.HasSuffix(text[:e.lines[1]], []byte("\r\n")) {
		e.eol = "\r\n"
	}
	return e
}

func (e *editor) insertions(document *yaml.Node, all []addition) ([]insertion, error) {
	var found []insertion
	for _, a := range all {
		parent, err := find(document, a.at)
		if err != nil {
			return nil, err
		}
		i, err := e.insertion(parent, a)
		if err != nil {
			return nil, err
		}
		found = append(found, i)
	}
	return found, nil
}

// find follows a path. An alias or a merge on it is refused: who writes there
// writes elsewhere too.
func find(node *yaml.Node, path []any) (*yaml.Node, error) {
	if node.Kind == yaml.DocumentNode {
		node = node.Content[0]
	}
	for _, step := range path {
		var next *yaml.Node
		switch s := step.(type) {
		case string:
			next = member(node, s)
		case int:
			if node.Kind == yaml.SequenceNode && s < len(node.Content) {
				next = node.Content[s]
			}
		}
		if next == nil || next.Kind == yaml.AliasNode {
			if next != nil {
				node = next
			}
			return nil, fmt.Errorf("line %d: an anchor or a merge stands for %s: write it out", node.Line, pointer([]any{step}))
		}
		node = next
	}
	return node, nil
}

// member returns the value of a key that the mapping itself has.
func member(node *yaml.Node, key string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

func (e *editor) insertion(parent *yaml.Node, a addition) (insertion, error) {
	if a.key != "" {
		if there := member(parent, a.key); there != nil {
			return insertion{}, fmt.Errorf("line %d: %s has no value: remove the line", there.Line, a.key)
		}
	}
	at, err := e.offset(parent)
	switch {
	case err != nil:
		return insertion{}, err
	case parent.Style&yaml.FlowStyle != 0:
		return insertion{at + 1, e.flow(a, parent)}, nil
	case len(parent.Content) == 0:
		return insertion{}, fmt.Errorf("line %d: there is nothing to add to", parent.Line)
	case a.key == "":
		return e.before(parent, a.front)
	}
	return e.before(anchor(e, parent), object{{a.key, a.value}})
}

// anchor is the key before which a new one is written: the last that begins a line,
// but for a pod, whose sidecar reads well before its containers.
func anchor(e *editor, parent *yaml.Node) *yaml.Node {
	last := parent.Content[0]
	for i := 0; i < len(parent.Content); i += 2 {
		key := parent.Content[i]
		if _, begins := e.indent(key); !begins {
			continue
		}
		last = key
		if key.Value == "containers" {
			break
		}
	}
	return last
}

// before writes value, as a block, before a key or the first item of a sequence.
func (e *editor) before(node *yaml.Node, value any) (insertion, error) {
	at, err := e.offset(node)
	if err != nil {
		return insertion{}, err
	}
	block, err := blockOf(value)
	if err != nil {
		return insertion{}, err
	}
	spaces, begins := e.indent(node)
	indented := strings.ReplaceAll(block, "\n", e.eol+strings.Repeat(" ", spaces))
	if !begins {
		// Behind the dash of its item: the first line takes its place.
		return insertion{at, indented + e.eol + strings.Repeat(" ", spaces)}, nil
	}
	line := e.aboveComments(node.Line-1, spaces)
	return insertion{e.lines[line], strings.Repeat(" ", spaces) + indented + e.eol}, nil
}

// indent returns how far a node is indented, and whether it begins its line.
func (e *editor) indent(node *yaml.Node) (spaces int, begins bool) {
	at, err := e.offset(node)
	if err != nil {
		return 0, false
	}
	before := string(e.text[e.lines[node.Line-1]:at])
	return node.Column - 1, strings.Trim(before, " ") == ""
}

// aboveComments returns the line of the first comment that belongs to a line: those
// right above it, indented as it is. (Deeper ones may be a block scalar's text.)
func (e *editor) aboveComments(line, spaces int) int {
	for line > 0 {
		above := string(e.text[e.lines[line-1]:e.lines[line]])
		if !strings.HasPrefix(above, strings.Repeat(" ", spaces)+"#") {
			break
		}
		line--
	}
	return line
}

// offset is where a node begins. The decoder counts characters.
func (e *editor) offset(node *yaml.Node) (int, error) {
	if node.Line < 1 || node.Line > len(e.lines) {
		return 0, fmt.Errorf("line %d is not in the manifest", node.Line)
	}
	at := e.lines[node.Line-1]
	for range node.Column - 1 {
		_, size := utf8.DecodeRune(e.text[at:])
		at += size
	}
	return at, nil
}

// flow writes an addition behind the opening bracket of its parent.
func (e *editor) flow(a addition, parent *yaml.Node) string {
	var parts []string
	if a.key != "" {
		parts = append(parts, string(jsonOf(a.key))+": "+string(jsonOf(a.value)))
	}
	for _, item := range a.front {
		parts = append(parts, string(jsonOf(item)))
	}
	text := strings.Join(parts, ", ")
	switch {
	case len(parent.Content) > 0:
		return text + ", "
	case e.begun[parent]:
		return ", " + text
	}
	e.begun[parent] = true
	return text
}

// blockOf writes value as YAML, without the last line's end.
func blockOf(value any) (string, error) {
	var out strings.Builder
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(nodeOf(value)); err != nil {
		return "", fmt.Errorf("writing what is added: %w", err)
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func nodeOf(value any) *yaml.Node {
	node := &yaml.Node{}
	switch v := value.(type) {
	case object:
		node.Kind = yaml.MappingNode
		for _, f := range v {
			node.Content = append(node.Content, nodeOf(f.key), nodeOf(f.value))
		}
	case []any:
		node.Kind = yaml.SequenceNode
		for _, item := range v {
			node.Content = append(node.Content, nodeOf(item))
		}
	default:
		// Scalars are encoded as their kind demands: "true" in quotes, true without.
		if err := node.Encode(value); err != nil {
			panic(err)
		}
	}
	return node
}
