package creds

import (
	"fmt"
	"slices"
	"strings"
)

// Table answers which credential a target asks for. It never changes once it is
// made, so any number of requests read it without a lock; Live swaps whole
// tables.
//
//	origins: (scheme, host, port) -> origin       one look-up
//	origin:  root                                 instance URLs without a path
//	         prefixes: "/api" -> credentials      one look-up a segment, longest first
//
// A look-up costs the same for 10 and for 100,000 credentials, many of them on
// one host included, and allocates nothing.
type Table struct {
	sorted  []*Credential
	byName  map[string]entry
	origins map[originKey]*origin
}

// entry is a credential beside its instance URL, read once.
type entry struct {
	credential *Credential
	instance   Target // the zero Target, which covers nothing, when it cannot be read
}

type originKey struct {
	scheme, host string
	port         uint16
}

type origin struct {
	root     choice
	prefixes map[string]choice // without the closing slash; nil on most hosts
	longest  int               // length of the longest prefix
}

// choice holds the credentials of one instance URL. More than one is ambiguous.
type choice struct{ credentials []*Credential }

// NewTable makes a table of valid credentials. One that has no readable
// instance URL is left out of matching, and found by its name only.
func NewTable(credentials []*Credential) *Table {
	t := &Table{
		sorted:  slices.Clone(credentials),
		byName:  make(map[string]entry, len(credentials)),
		origins: make(map[originKey]*origin, len(credentials)),
	}
	slices.SortFunc(t.sorted, func(a, b *Credential) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range t.sorted {
		instance, err := c.Instance()
		if err == nil {
			t.add(c, instance)
		}
		t.byName[c.Name] = entry{c, instance}
	}
	return t
}

func (t *Table) add(c *Credential, instance Target) {
	key := originKey{instance.Scheme, instance.Host, instance.Port}
	o := t.origins[key]
	if o == nil {
		o = &origin{}
		t.origins[key] = o
	}
	prefix := strings.TrimSuffix(instance.Path, "/")
	if prefix == "" {
		o.root.credentials = append(o.root.credentials, c)
		return
	}
	if o.prefixes == nil {
		o.prefixes = map[string]choice{}
	}
	o.prefixes[prefix] = choice{append(o.prefixes[prefix].credentials, c)}
	o.longest = max(o.longest, len(prefix))
}

// Match returns the credential whose instance URL covers target: the same
// scheme, host and port, and the longest path prefix. The errors are
// *NoMatchError, *AmbiguousError and *AmbiguousPathError; each means that the
// request goes nowhere.
func (t *Table) Match(target Target) (*Credential, error) {
	found, err := t.find(target)
	if err != nil {
		return nil, err
	}
	switch len(found.credentials) {
	case 0:
		return nil, &NoMatchError{Target: target}
	case 1:
		return found.credentials[0], nil
	}
	return nil, &AmbiguousError{Target: target, Names: names(found.credentials)}
}

func (t *Table) find(target Target) (choice, error) {
	o := t.origins[originKey{target.Scheme, target.Host, target.Port}]
	if o == nil {
		return choice{}, nil
	}
	if o.prefixes == nil {
		return o.root, nil // whatever the path, there is one choice
	}
	raw := o.choose(target.Path)
	if plainPath(target.Path) {
		return raw, nil
	}
	bare, problem := barePath(target.Path)
	if problem == "" && !same(raw, o.choose(bare)) {
		problem = pathOther
	}
	if problem != "" {
		return choice{}, &AmbiguousPathError{Target: target, Problem: problem}
	}
	return raw, nil
}

// choose looks up every prefix of path that ends on a segment boundary, the
// longest first. No more of path is looked at than a prefix can be long.
func (o *origin) choose(path string) choice {
	for end := min(len(path), o.longest); end > 0; end-- {
		if end < len(path) && path[end] != '/' {
			continue
		}
		if found, ok := o.prefixes[path[:end]]; ok {
			return found
		}
	}
	return o.root
}

// same compares choices of one origin: no credential stands in two of them.
func same(a, b choice) bool {
	if len(a.credentials) == 0 || len(b.credentials) == 0 {
		return len(a.credentials) == len(b.credentials)
	}
	return a.credentials[0] == b.credentials[0]
}

// MatchNamed returns the credential of that name, which the client chose as its
// proxy user, if its instance URL covers target; another one with the same or a
// longer instance URL is no obstacle. It is how an ambiguity is resolved.
func (t *Table) MatchNamed(name string, target Target) (*Credential, error) {
	named, ok := t.byName[name]
	if !ok {
		return nil, &NoMatchError{Target: target, Name: name, Unknown: true}
	}
	i := named.instance
	if i.Host == "" || i.Scheme != target.Scheme || i.Host != target.Host || i.Port != target.Port || !covers(i.Path, target.Path) {
		return nil, &NoMatchError{Target: target, Name: name}
	}
	if t.origins[originKey{i.Scheme, i.Host, i.Port}].prefixes == nil || plainPath(target.Path) {
		return named.credential, nil
	}
	// What the prefix covers as it stands, it covers in every other reading.
	if _, problem := barePath(target.Path); problem != "" {
		return nil, &AmbiguousPathError{Target: target, Problem: problem}
	}
	return named.credential, nil
}

// covers reports whether path is prefix, which ends in a slash, or below it.
func covers(prefix, path string) bool {
	return prefix == "/" || strings.HasPrefix(path, prefix) || path == prefix[:len(prefix)-1]
}

// HasOrigin reports whether any credential, under whatever path, has that
// origin: such a host is never tunnelled blindly.
func (t *Table) HasOrigin(scheme, host string, port uint16) bool {
	return t.origins[originKey{scheme, host, port}] != nil
}

// ByName returns the credential of that name.
func (t *Table) ByName(name string) (*Credential, bool) {
	named, ok := t.byName[name]
	return named.credential, ok
}

// All returns the credentials sorted by name. The slice is the table's own.
func (t *Table) All() []*Credential { return t.sorted }

// Len returns the number of credentials.
func (t *Table) Len() int { return len(t.sorted) }

// Overlaps returns the names of credentials that share one instance URL, a list
// for each such URL: every request to it is refused unless it names one.
func (t *Table) Overlaps() [][]string {
	var overlaps [][]string
	note := func(c choice) {
		if len(c.credentials) > 1 {
			overlaps = append(overlaps, names(c.credentials))
		}
	}
	for _, o := range t.origins {
		note(o.root)
		for _, c := range o.prefixes {
			note(c)
		}
	}
	slices.SortFunc(overlaps, slices.Compare)
	return overlaps
}

func names(credentials []*Credential) []string {
	out := make([]string, len(credentials))
	for i, c := range credentials {
		out[i] = c.Name
	}
	return out
}

// NoMatchError says that no credential has the target's instance URL.
type NoMatchError struct {
	Target  Target
	Name    string // of the credential that the client chose, if it did
	Unknown bool   // there is no credential of that name
}

func (e *NoMatchError) Error() string {
	switch {
	case e.Unknown:
		return fmt.Sprintf("no credential is named %q", e.Name)
	case e.Name != "":
		return fmt.Sprintf("the instance URL of credential %s does not cover %s", e.Name, e.Target.URL())
	}
	return fmt.Sprintf("no credential has an instance URL that matches %s", e.Target.URL())
}
