package creds

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// referenceMatch is Match told slowly: it looks at every credential, and at
// every way in which some server may read the path. It returns the names of the
// credentials that the target asks for, or unsure when the ways differ.
func referenceMatch(all []*Credential, target Target) (names []string, unsure bool) {
	var rules []*url.URL // of that origin, parsed by another parser than ours
	var owners []string
	byPath := false
	for _, c := range all {
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != target.Scheme || !sameOrigin(u, target) {
			continue
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		byPath = byPath || u.Path != ""
		rules, owners = append(rules, u), append(owners, c.Name)
	}
	pick := func(path string) (picked []string) {
		longest := -1
		for i, rule := range rules {
			if path != rule.Path && !strings.HasPrefix(path, rule.Path+"/") && rule.Path != "" {
				continue
			}
			if len(rule.Path) > longest {
				longest, picked = len(rule.Path), nil
			}
			if len(rule.Path) == longest {
				picked = append(picked, owners[i])
			}
		}
		slices.Sort(picked)
		return picked
	}
	names = pick(target.Path)
	if !byPath {
		return names, false
	}
	for _, reading := range waysToRead(target.Path) {
		if !slices.Equal(pick(reading), names) || resolvesElsewhere(reading) {
			return nil, true
		}
	}
	return names, false
}

func sameOrigin(u *url.URL, target Target) bool {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return strings.EqualFold(u.Hostname(), target.Host) && port == strings.TrimPrefix(target.Authority(), target.Host+":")
}

// waysToRead is path and all that decoding it, cutting path parameters off, and
// cutting at an encoded ? or # make of it, in any order, any number of times.
func waysToRead(path string) []string {
	all := []string{path}
	for i := 0; i < len(all) && len(all) < 64; i++ {
		decoded, _ := decodeOnce(all[i])
		var segments []string
		for _, segment := range strings.Split(all[i], "/") {
			segment, _, _ = strings.Cut(segment, ";")
			segments = append(segments, segment)
		}
		ways := []string{decoded, strings.Join(segments, "/")}
		if cut := strings.IndexAny(all[i], "?#"); cut >= 0 {
			ways = append(ways, all[i][:cut])
		}
		for _, way := range ways {
			if !slices.Contains(all, way) {
				all = append(all, way)
			}
		}
	}
	return all
}

func resolvesElsewhere(path string) bool {
	if path == "" || path[0] != '/' || strings.ContainsAny(path, "\\\r\n\x00") {
		return true
	}
	segments := strings.Split(path[1:], "/")
	return slices.Contains(segments, ".") || slices.Contains(segments, "..") || slices.Contains(segments[:len(segments)-1], "")
}

// cautious are the refusals of paths that no two servers need to read
// differently: a guess about them is not worth having.
var cautious = []string{pathBadEscape, pathEncoded, pathNotUTF8, pathControl, pathParameter, pathEmpty, pathOther}

func checkAgainstReference(t *testing.T, all []*Credential, target Target) {
	t.Helper()
	want, unsure := referenceMatch(all, target)
	c, err := NewTable(all).Match(target)
	var path *AmbiguousPathError
	var several *AmbiguousError
	var none *NoMatchError
	switch {
	case errors.As(err, &path):
		if !unsure && !slices.Contains(cautious, path.Problem) {
			t.Errorf("%q is refused (%v), but means %v alone", target.Path, err, want)
		}
	case unsure:
		t.Errorf("%q: got %v, %v; can be read in several ways", target.Path, c, err)
	case errors.As(err, &several):
		if !slices.Equal(several.Names, want) {
			t.Errorf("%q: got %v, want %v", target.Path, several.Names, want)
		}
	case errors.As(err, &none):
		if len(want) != 0 {
			t.Errorf("%q: got no match, want %v", target.Path, want)
		}
	case err != nil || len(want) != 1 || c.Name != want[0]:
		t.Errorf("%q: got %v, %v, want %v", target.Path, c, err, want)
	}
}

func TestMatchAgreesWithReference(t *testing.T) {
	all := pathTable().All()
	for _, c := range pathCases {
		checkAgainstReference(t, all, Target{"https", "h.example", 443, c.path})
		checkAgainstReference(t, all, Target{"https", "plain.example", 443, c.path})
		checkAgainstReference(t, all, Target{"https", "h.example", 8443, c.path})
	}
}

func FuzzMatch(f *testing.F) {
	for _, c := range pathCases {
		f.Add("/\n/api/\n/api/v2/admin\n/tenant-a/", c.path)
	}
	f.Add("/\n/a/c", "/a;%2fb/c")
	f.Add("/a\n/a/\n/", "/a/b")
	f.Fuzz(func(t *testing.T, prefixes, path string) {
		if strings.ContainsAny(path, "?#") || len(path) > 200 || len(prefixes) > 200 {
			return // no target has them; long ones only slow the reference down
		}
		var all []*Credential
		for i, prefix := range strings.Split(prefixes, "\n") {
			c := testCredential(string(rune('a'+i%26))+strings.Repeat("x", i/26), "https://h.example"+prefix)
			if _, err := c.Instance(); err == nil && strings.HasPrefix(prefix, "/") {
				all = append(all, c)
			}
		}
		checkAgainstReference(t, all, Target{"https", "h.example", 443, path})
	})
}
