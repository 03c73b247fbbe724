package console

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pillion/creds"
)

// lines returns what stands on the lines of an area.
func lines(v string) []string {
	var out []string
	for line := range strings.Lines(v) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func pairLines(m map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, name+"="+m[name])
	}
	return strings.Join(out, "\n")
}

// pairs reads NAME=VALUE lines.
func pairs(v string) (m map[string]string, problem string) {
	for i, line := range lines(v) {
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" {
			return nil, fmt.Sprintf("must have NAME=VALUE on each line: line %d has not", i+1)
		}
		if _, twice := m[name]; twice {
			return nil, "names " + name + " twice"
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = value
	}
	return m, ""
}

// prefixOf shows the prefix that counts, a default too: what stands in the field is
// what is sent.
func prefixOf(c *creds.Credential) string {
	if c.HeaderPrefix != nil {
		return *c.HeaderPrefix
	}
	return strings.TrimSuffix(c.Prefix(), " ")
}

// setPrefix comes after header_name in no order: it keeps what was typed, and
// settle makes the default of it.
func setPrefix(c *creds.Credential, v string) string {
	c.HeaderPrefix = &v
	return ""
}

// settle writes defaults as such, once all fields are set.
func settle(c *creds.Credential) {
	plain := *c
	plain.HeaderPrefix = nil
	if c.HeaderPrefix != nil && prefixOf(&plain) == *c.HeaderPrefix {
		c.HeaderPrefix = nil
	}
}

func lifetime(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return shortDuration(d)
}

func setLifetime(at *time.Duration, v string) string {
	if v = strings.TrimSpace(v); v == "" {
		return ""
	}
	life, err := time.ParseDuration(v)
	if err != nil {
		return "must be a time such as 30m or 2h"
	}
	*at = life
	return ""
}

// shortDuration is 30m, where time.Duration says 30m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}

// sentence makes one of an error's text.
func sentence(s string) string {
	s = capital(strings.TrimSpace(s))
	if s != "" && !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}
