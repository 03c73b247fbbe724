package console

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"pillion/creds"
)

// form is what stands in the form: everything that was typed, also in fields of
// another type, but no secret.
type form struct {
	Name          string
	Part          string // of a new credential: where it is to be kept
	Placed        bool   // that was said
	Version       int    // 0: a new credential
	Protocol      creds.Protocol
	Authorization creds.AuthorizationType // over HTTPS
	URL, Hostname string                  // the instance URL, over HTTPS and SFTP
	Values        map[string]string       // by field, without secrets
	Headers       []headerRow
	Stored        []string // names of secrets that are stored
	Removed       []string // of these, the ones to take away
	Preset        string   // that was filled in last

	secrets  map[string]creds.Secret // that were typed
	problems []creds.FieldError      // of the reading
}

// headerRow is one extra header.
type headerRow struct {
	Name   string
	Stored bool
	value  creds.Secret
}

// emptyForm is that of a new credential.
func emptyForm() *form {
	f := formOf(&creds.Credential{Protocol: creds.HTTPS, Authorization: creds.Basic}, nil)
	f.Values["header_prefix"] = creds.DefaultHeaderPrefix
	return f
}

// formOf shows a stored credential.
func formOf(c *creds.Credential, stored []string) *form {
	f := &form{
		Name: c.Name, Version: c.Version, Protocol: c.Protocol, Authorization: c.Authorization, Stored: stored,
		Values: map[string]string{}, secrets: map[string]creds.Secret{},
	}
	if c.Protocol == creds.SFTP {
		f.Hostname, f.Authorization = c.URL, creds.Basic
	} else {
		f.URL = c.URL
	}
	for _, field := range fields() {
		if field.get != nil {
			f.Values[field.name] = field.get(c)
		}
	}
	for _, h := range c.Headers {
		f.Headers = append(f.Headers, headerRow{Name: h.Name, Stored: slices.Contains(stored, "header:"+h.Name)})
	}
	return f
}

// maxHeaders is more than anybody's tool asks for.
const maxHeaders = 50

// readForm reads a posted form. name and stored are of the credential that is edited.
func readForm(posted url.Values, name string, stored []string) *form {
	f := &form{
		Name: name, Protocol: creds.Protocol(posted.Get("protocol")), Authorization: creds.AuthorizationType(posted.Get("authorization")),
		URL: strings.TrimSpace(posted.Get("url")), Hostname: strings.TrimSpace(posted.Get("hostname")),
		Values: map[string]string{}, Stored: stored, Removed: posted["remove"], secrets: map[string]creds.Secret{},
	}
	if name == "" {
		f.Name = strings.TrimSpace(posted.Get("name"))
	}
	f.Version, _ = strconv.Atoi(posted.Get("version"))
	for _, field := range fields() {
		value := strings.ReplaceAll(posted.Get(field.name), "\r\n", "\n") // as HTML forms send it
		switch {
		case field.secret == nil:
			f.Values[field.name] = value
		case field.input == "secret":
			f.secrets[field.name] = creds.NewSecret(strings.TrimRight(value, "\r\n"))
		default:
			f.secrets[field.name] = creds.NewSecret(value)
		}
	}
	names, values := posted["header_name_of"], posted["header_value_of"]
	for i := range min(len(names), len(values), maxHeaders) {
		row := headerRow{Name: strings.TrimSpace(names[i]), value: creds.NewSecret(strings.TrimRight(values[i], "\r\n"))}
		row.Stored = row.Name != "" && slices.Contains(stored, "header:"+row.Name)
		if row.Name != "" || !row.value.IsZero() {
			f.Headers = append(f.Headers, row)
		}
	}
	return f
}

func (f *form) use() string { return use(f.Protocol, f.Authorization) }

// credential returns what the form says, of the fields that its type has, and the
// names of the stored secrets that stay.
func (f *form) credential() (c *creds.Credential, keep []string) {
	f.problems = nil
	c = &creds.Credential{Name: f.Name, Version: f.Version, Protocol: f.Protocol, Authorization: f.Authorization, URL: f.URL}
	if f.Protocol == creds.SFTP {
		c.URL, c.Authorization = f.Hostname, creds.Basic
	}
	for _, field := range fields() {
		if !field.belongs(f.use()) {
			continue
		}
		if field.secret == nil {
			if problem := field.set(c, f.Values[field.name]); problem != "" {
				f.problems = append(f.problems, creds.FieldError{Field: field.name, Problem: problem})
			}
			continue
		}
		*field.secret(c) = f.secrets[field.name]
		if f.keeps(field.name) {
			keep = append(keep, field.name)
		}
	}
	settle(c)
	if f.Protocol == creds.SFTP {
		return c, keep
	}
	for _, row := range f.Headers {
		c.Headers = append(c.Headers, creds.Header{Name: row.Name, Value: row.value})
		if row.value.IsZero() && row.Stored {
			keep = append(keep, "header:"+row.Name)
		}
	}
	return c, keep
}

// keeps reports whether the stored secret stays.
func (f *form) keeps(name string) bool {
	return f.secrets[name].IsZero() && slices.Contains(f.Stored, name) && !slices.Contains(f.Removed, name)
}

// invalid returns all that is wrong with the form: what its reading found, and err's
// problems. Any other err is returned as it is.
func (f *form) invalid(err error) ([]creds.FieldError, error) {
	var invalid *creds.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		return nil, err
	}
	problems := slices.Clone(f.problems)
	if invalid != nil {
		for _, p := range invalid.Fields {
			if !slices.ContainsFunc(f.problems, func(own creds.FieldError) bool { return own.Field == p.Field }) {
				problems = append(problems, p)
			}
		}
	}
	return problems, nil
}

// given returns the names of what differs from old, and of the secrets that were
// typed or taken away: for the audit.
func (f *form) given(c, old *creds.Credential) []string {
	var names []string
	if old == nil {
		old = &creds.Credential{}
	}
	note := func(name string, differs bool) {
		if differs && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, d := range differences(old, c) {
		note(d.Field, true)
	}
	for _, field := range fields() {
		if field.secret != nil && field.belongs(f.use()) {
			note(field.name, !field.secret(c).IsZero() || slices.Contains(f.Removed, field.name))
		}
	}
	for _, h := range c.Headers {
		note("header", !h.Value.IsZero())
	}
	return names
}

// difference is a public field that two versions have otherwise.
type difference struct{ Field, Label, Theirs, Mine string }

// differences compares what may be seen of two versions.
func differences(theirs, mine *creds.Credential) []difference {
	var out []difference
	add := func(field, label, a, b string) {
		if a != b {
			out = append(out, difference{field, label, a, b})
		}
	}
	add("protocol", "Protocol", string(theirs.Protocol), string(mine.Protocol))
	add("url", "Instance URL", theirs.URL, mine.URL)
	add("authorization", "Authorization type", string(theirs.Authorization), string(mine.Authorization))
	for _, field := range fields() {
		if field.get != nil {
			a, b := "", ""
			if field.belongs(use(theirs.Protocol, theirs.Authorization)) {
				a = field.get(theirs)
			}
			if field.belongs(use(mine.Protocol, mine.Authorization)) {
				b = field.get(mine)
			}
			add(field.name, field.label, a, b)
		}
	}
	add("header", "Extra headers", headerNames(theirs), headerNames(mine))
	return out
}

func headerNames(c *creds.Credential) string {
	var names []string
	for _, h := range c.Headers {
		names = append(names, h.Name)
	}
	return strings.Join(names, ", ")
}

// Rows are the header fields to show: those that there are, and an empty one.
func (f *form) Rows() []headerRow { return append(slices.Clone(f.Headers), headerRow{}) }

func fieldID(name string) string {
	switch name {
	case "header":
		return "f-header-0"
	}
	return "f-" + name
}

func countWords(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
