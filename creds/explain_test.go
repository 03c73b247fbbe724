package creds

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func explainTable() *Table {
	return NewTable(append(seedCredentials(),
		testCredential("tenant-a", "https://shared.example.com/a/"),
		testCredential("tenant-b", "https://shared.example.com/b/deep"),
		testCredential("files", "sftp://files.example.com:2222/"),
	))
}

func TestExplainMatch(t *testing.T) {
	e := explainTable().Explain(mustTarget(t, "https://shared.example.com/a/x?secret=1"))
	if e.Credential != "tenant-a" || e.Authorization != None || e.InstanceURL != "https://shared.example.com/a/" || e.Err != nil ||
		!strings.Contains(e.Reason, "/a is the longest path prefix") || len(e.Misses) != 0 {
		t.Errorf("%+v", e)
	}
	if out, err := json.Marshal(e); err != nil || strings.Contains(string(out), "secret") || !strings.Contains(string(out), `"credential":"tenant-a"`) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestExplainNearestMisses(t *testing.T) {
	table := explainTable()
	for _, c := range []struct {
		url   string
		first string // of the misses; "" for none
		words []string
	}{
		{"https://bmc.example.com/api", "bmc", []string{"port differs: the credential is for 8443, the request for 443"}},
		{"http://api.4me.com/v1", "4me", []string{"scheme differs: the credential is for https, the request for http", "port differs: the credential is for 443, the request for 80"}},
		{"https://files.example.com:2222/", "files", []string{"scheme differs: the credential is for sftp, the request for https"}},
		{"https://shared.example.com/ax", "tenant-a", []string{"path prefix differs: the credential is for /a"}},
		{"https://shared.example.com/A/x", "tenant-a", []string{"path prefix differs in upper and lower case only: the credential is for /a"}},
		{"sftp://file.example.com:2222/", "files", []string{"host differs in one character"}},
		{"sftp://bmc.example.com:22/", "bmc", []string{"scheme differs"}},
		{"sftp://bmd.example.com:8443/", "", nil},   // an https credential of a similar host
		{"https://file.example.com:2222/", "", nil}, // and the other way round
		{"sftp://x.example.atlassian.net:22/", "", nil},
		{"https://exampel.service-now.com/", "servicenow", []string{"host differs in two characters: the credential is for example.service-now.com, the request for exampel.service-now.com"}},
		{"https://exmple.atlassian.net/", "jira", []string{"host differs in one character"}},
		{"https://x.example.atlassian.net/", "jira", []string{"not the names below it"}},
		{"https://atlassian.net/", "jira", []string{"for a name below the request's host"}},
		{"https://example.atlassian.net.evil.example/", "jira", []string{"only begins like"}},
		{"https://nothing.like.it/", "", nil},
	} {
		e := table.Explain(mustTarget(t, c.url))
		var none *NoMatchError
		if !errors.As(e.Err, &none) || e.Credential != "" || !strings.Contains(e.Reason, "no credential") {
			t.Errorf("%s: %+v", c.url, e)
		}
		if c.first == "" {
			if len(e.Misses) != 0 {
				t.Errorf("%s: misses %v", c.url, e.Misses)
			}
			continue
		}
		if len(e.Misses) == 0 || e.Misses[0].Credential != c.first {
			t.Errorf("%s: misses %v, want %s first", c.url, e.Misses, c.first)
			continue
		}
		reasons := strings.Join(e.Misses[0].Reasons, "; ")
		for _, words := range c.words {
			if !strings.Contains(reasons, words) {
				t.Errorf("%s: %q lacks %q", c.url, reasons, words)
			}
		}
	}
}

func TestExplainSortsByNearness(t *testing.T) {
	table := NewTable([]*Credential{
		testCredential("below", "https://x.h.example/"), testCredential("scheme", "sftp://h.example:443/"),
		testCredential("path", "https://h.example/p/"), testCredential("port", "https://h.example:8443/"), testCredential("letter", "https://g.example/"),
		testCredential("far", "https://other.test/"), testCredential("port2", "https://h.example:9443/"), testCredential("broken", "::"),
	})
	var order []string
	for _, m := range table.Explain(mustTarget(t, "https://h.example/")).Misses {
		order = append(order, m.Credential)
	}
	if got := strings.Join(order, " "); got != "path port port2 scheme letter" {
		t.Error(got)
	}
}

func TestExplainRefusals(t *testing.T) {
	table := NewTable([]*Credential{testCredential("a", "https://h.example/"), testCredential("b", "https://h.example/"), testCredential("c", "https://h.example/c")})
	for path, words := range map[string]string{"/": "(a, b)", "/c/..": "dot segment"} {
		e := table.Explain(Target{"https", "h.example", 443, path})
		if e.Err == nil || !strings.Contains(e.Reason, words) || len(e.Misses) != 0 {
			t.Errorf("%s: %+v", path, e)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "a", 0}, {"abc", "abd", 1}, {"abc", "ac", 1}, {"abc", "xabc", 1}, {"abcd", "badc", 3}, {"kitten", "sitting", 3}, {"abc", "bac", 2}, {"a", "abcdef", 3}} {
		if got := editDistance(c.a, c.b, 2); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
