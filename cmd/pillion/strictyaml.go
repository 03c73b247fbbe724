package main

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// document is a YAML file read strictly: every problem is collected with its
// place, and no message repeats a value that could be a secret.
//
// It walks the nodes itself instead of decoding with KnownFields, because that
// one stops at the first kind of problem, quotes the value it could not read,
// and knows no path ("upstream.allow[2]").
type document struct {
	file     string
	places   map[string]string // path -> "config.yaml:3", for problems found after the walk
	problems []problem
}

// problem is one thing to put right, and where.
type problem struct {
	place string // "config.yaml:3", "PILLION_PROXY_LISTEN", "--state"
	path  string // "proxy.listen"
	text  string
}

func (p problem) String() string {
	var parts []string
	for _, part := range []string{p.place, p.path, p.text} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// problemsError is all of them.
type problemsError struct {
	what     string // "the configuration"
	problems []problem
}

func (e *problemsError) Error() string {
	var b strings.Builder
	count := "1 problem"
	if len(e.problems) != 1 {
		count = strconv.Itoa(len(e.problems)) + " problems"
	}
	fmt.Fprintf(&b, "%s has %s:", e.what, count)
	for _, p := range e.problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// byLine orders problems as they stand in the file, those of the environment
// and the flags last.
func byLine(problems []problem) {
	line := func(p problem) int {
		_, number, _ := strings.Cut(p.place, ":")
		if n, err := strconv.Atoi(number); err == nil {
			return n
		}
		return math.MaxInt
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return cmp.Compare(line(a), line(b)) })
}

// lines returns the problems one by one, for a log.
func (e *problemsError) lines() []string {
	var lines []string
	for _, p := range e.problems {
		lines = append(lines, p.String())
	}
	return lines
}

// readStrict decodes data into the struct that into points to. What it could
// not take is in the document's problems.
func readStrict(file string, data []byte, into any) *document {
	d := &document{file: file, places: map[string]string{}}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		d.syntax(err)
		return d
	}
	if len(root.Content) == 0 { // empty, or comments alone
		return d
	}
	d.decode(root.Content[0], reflect.ValueOf(into).Elem(), "")
	return d
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// quotedMark is what the parser quotes of its own vocabulary: ',' or '}'.
var quotedMark = regexp.MustCompile(`'[-:,?\]}]'`)

// syntax reports what the parser says, unless it quotes the input.
func (d *document) syntax(err error) {
	place, text := d.file, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		place += ":" + m[1]
		text = yamlLine.ReplaceAllString(text, "")
	}
	if strings.ContainsAny(quotedMark.ReplaceAllString(text, ""), "'`\"\n") {
		text = "a character or name that YAML gives a meaning of its own; put the value in quotes"
	}
	d.problems = append(d.problems, problem{place: place, text: "this is not YAML: " + text})
}

// add reports a problem at path, found after the walk.
func (d *document) add(path, format string, args ...any) {
	d.problems = append(d.problems, problem{d.place(path), path, fmt.Sprintf(format, args...)})
}

// place finds where path was written: there, or at what it belongs to.
func (d *document) place(path string) string {
	for p := path; p != ""; p = parentPath(p) {
		if place, ok := d.places[p]; ok {
			return place
		}
	}
	return d.file
}

func parentPath(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

func (d *document) at(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, problem{d.lineOf(n), path, fmt.Sprintf(format, args...)})
}

func (d *document) lineOf(n *yaml.Node) string { return fmt.Sprintf("%s:%d", d.file, n.Line) }

var durationType = reflect.TypeFor[time.Duration]()

func (d *document) decode(n *yaml.Node, v reflect.Value, path string) {
	if path != "" {
		d.places[path] = d.lineOf(n)
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.at(n, path, "anchors and aliases are not understood here: write the value out")
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "proxy:" with nothing below it leaves the defaults
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case reflect.Struct:
		d.decodeStruct(n, v, path)
	case reflect.Map:
		d.decodeMap(n, v, path)
	case reflect.Slice:
		d.decodeSlice(n, v, path)
	default:
		d.decodeScalar(n, v, path)
	}
}

func (d *document) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "must be a section with keys below it (%s)", strings.Join(keysOf(v.Type()), ", "))
		return
	}
	d.eachKey(n, path, func(key, value *yaml.Node, keyPath string) {
		for i := range v.NumField() {
			if tag := v.Type().Field(i).Tag.Get("yaml"); tag != "" && tag == key.Value {
				d.decode(value, v.Field(i), keyPath)
				return
			}
		}
		d.at(key, path, "%s", unknownKey(key.Value, keysOf(v.Type())))
	})
}

func (d *document) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "must be a section of NAME: VALUE pairs")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.eachKey(n, path, func(key, value *yaml.Node, keyPath string) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, element, keyPath)
		v.SetMapIndex(reflect.ValueOf(key.Value), element)
	})
}

// eachKey calls do for every key of a mapping, once.
func (d *document) eachKey(n *yaml.Node, path string, do func(key, value *yaml.Node, keyPath string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Tag == "!!merge" {
			d.at(key, path, "a key must be a plain word")
			continue
		}
		if first, ok := seen[key.Value]; ok {
			d.at(key, path, "%s stands here a second time, first in line %d: remove one", printableKey(key.Value), first)
			continue
		}
		seen[key.Value] = key.Line
		keyPath := printableKey(key.Value)
		if path != "" {
			keyPath = path + "." + keyPath
		}
		do(key, value, keyPath)
	}
}

func (d *document) decodeSlice(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.at(n, path, "must be a list, such as [A, B]")
		return
	}
	for i, item := range n.Content {
		element := reflect.New(v.Type().Elem()).Elem()
		before := len(d.problems)
		d.decode(item, element, fmt.Sprintf("%s[%d]", path, i))
		if len(d.problems) == before || v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.Append(v, element))
		}
	}
}

func (d *document) decodeScalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.at(n, path, "must be a single value")
		return
	}
	switch {
	case v.Type() == durationType:
		duration, err := time.ParseDuration(n.Value)
		if err != nil {
			d.at(n, path, "must be a time span with its unit, such as 20s or 5m")
			return
		}
		v.SetInt(int64(duration))
	case v.Kind() == reflect.String:
		v.SetString(n.Value) // as written: 0123 stays 0123
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if err != nil || n.Tag != "!!bool" {
			d.at(n, path, "must be true or false")
			return
		}
		v.SetBool(b)
	case v.CanUint():
		u, err := strconv.ParseUint(n.Value, 10, v.Type().Bits())
		if err != nil || n.Tag != "!!int" {
			d.at(n, path, "must be a whole number, 0 or more")
			return
		}
		v.SetUint(u)
	default:
		panic("strictyaml: a field of kind " + v.Kind().String())
	}
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" {
			keys = append(keys, tag)
		}
	}
	return keys
}

func unknownKey(key string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(key, k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("there is no key %s: did you mean %s?", printableKey(key), best)
	}
	known = slices.Sorted(slices.Values(known))
	return fmt.Sprintf("there is no key %s; the keys here are %s", printableKey(key), strings.Join(known, ", "))
}

var plainKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]{0,63}$`)

// printableKey keeps text that is no key (a secret in the wrong place, a
// terminal escape) out of messages.
func printableKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return "(unprintable)"
}

// editDistance is Levenshtein's, cut short for words that differ much anyway.
func editDistance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
