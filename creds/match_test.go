package creds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// seedTable is the product's own promise: the full URL that a connector calls
// matches the instance URL that an administrator entered.
var seedTable = []struct{ tool, instance, full string }{
	{"servicenow", "https://example.service-now.com/", "https://example.service-now.com/api/now/table/incident?sysparm_limit=1"},
	{"bmc", "https://bmc.example.com:8443/", "https://bmc.example.com:8443/api/arsys/v1/entry/HPD:IncidentInterface_Create"},
	{"cherwell", "https://cherwell.example.com/", "https://cherwell.example.com/CherwellAPI/api/V1/savebusinessobject"},
	{"ivanti", "https://example.ivanticloud.com/", "https://example.ivanticloud.com/api/odata/businessobject/incidents"},
	{"freshservice", "https://example.freshservice.com/", "https://example.freshservice.com/api/v2/tickets#create_ticket"},
	{"4me", "https://api.4me.com/", "https://api.4me.com/v1/requests"},
	{"jira", "https://example.atlassian.net/", "https://example.atlassian.net/rest/api/3/issue"},
}

func testCredential(name, url string) *Credential {
	return &Credential{Name: name, Protocol: ProtocolOf(url), URL: url, Authorization: None}
}

func seedCredentials() []*Credential {
	var all []*Credential
	for _, row := range seedTable {
		all = append(all, testCredential(row.tool, row.instance))
	}
	return all
}

func mustTarget(t testing.TB, url string) Target {
	t.Helper()
	target, err := ParseTarget(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return target
}

func TestSeedTableMatches(t *testing.T) {
	table := NewTable(seedCredentials())
	for _, row := range seedTable {
		c, err := table.Match(mustTarget(t, row.full))
		if err != nil || c.Name != row.tool {
			t.Errorf("%s: got %v, %v; want %s", row.full, c, err, row.tool)
		}
		if err := testCredential(row.tool, row.instance).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// Cases 10 and 11: what resembles an instance URL is not it.
func TestSeedTableNearMisses(t *testing.T) {
	table := NewTable(seedCredentials())
	deny := func(url string) {
		t.Helper()
		c, err := table.Match(mustTarget(t, url))
		var none *NoMatchError
		if !errors.As(err, &none) {
			t.Errorf("%s: got %v, %v; want no match", url, c, err)
		}
	}
	for _, row := range seedTable {
		full := strings.TrimPrefix(row.full, "https://")
		deny("http://" + full)
		deny("sftp://" + full)
		deny("https://evil-" + full)
		deny("https://evil." + full)
		target := mustTarget(t, row.full)
		deny(fmt.Sprintf("https://%s.evil.example:%d%s", target.Host, target.Port, target.Path))
		deny(fmt.Sprintf("https://%s:%d%s", target.Host, target.Port+1, target.Path))
		deny(fmt.Sprintf("https://%s:%d%s", target.Host[1:], target.Port, target.Path))
	}
	deny("https://bmc.example.com/api/arsys/v1/entry/HPD:IncidentInterface_Create")
	deny("https://service-now.com/")
	deny("http://example.atlassian.net:443/rest/api/3/issue")
}

// Case 13: upper case, the default port, a trailing dot and IDN are one host.
func TestSpellingsOfOneHostMatch(t *testing.T) {
	table := NewTable([]*Credential{testCredential("a", "https://Bücher.Example/")})
	for _, url := range []string{
		"https://bücher.example/x", "https://BÜCHER.EXAMPLE:443/x", "https://xn--bcher-kva.example./x", "https://XN--BCHER-KVA.example",
	} {
		if c, err := table.Match(mustTarget(t, url)); err != nil || c.Name != "a" {
			t.Errorf("%s: %v, %v", url, c, err)
		}
	}
}

// pathCases are case 15: the host has a credential for /api, one for
// /api/v2/admin, one for /tenant-a, and one for all else.
var pathCases = []struct{ path, want string }{
	{"/", "root"},
	{"/api", "api"},
	{"/api/", "api"},
	{"/api/v2", "api"},
	{"/api/v2/admin", "admin"},
	{"/api/v2/admin/x", "admin"},
	{"/api/v2/administrator", "api"},
	{"/apix", "root"},
	{"/apix/api", "root"},
	{"/API", "root"},
	{"/other/api", "root"},
	{"/.well-known/x", "root"},
	{"/api/.hidden", "api"},
	{"/api/...", "api"},
	{"/api/a%20b", "api"},
	{"/api/a%2Fb", "api"},
	{"/api/100%25", "api"},
	{"/api/ü", "api"},
	{"/api/%C3%BC", "api"},
	{"/api/x;v=1", "api"},
	{"/x;v=1/api", "root"},
	{"/api/a:b@c,d=e&f", "api"},

	{"/api/..", "refused"},
	{"/api/../tenant-a/x", "refused"},
	{"/./api", "refused"},
	{"/api/.", "refused"},
	{"/api/%2e%2e/tenant-a", "refused"},
	{"/api/%2E./tenant-a", "refused"},
	{"/api/%252e%252e/tenant-a", "refused"},
	{"/api/..;/tenant-a", "refused"},
	{"/api/..;x=y/tenant-a", "refused"},
	{"/api/..%3b/tenant-a", "refused"},
	{"/api/..%2ftenant-a", "refused"},
	{"/api%2fv2/admin", "refused"},
	{"/tenant-a%2f..%2fapi", "refused"},
	{"/%61pi", "refused"}, // decoded it is /api
	{"/api/v2%2fadmin", "refused"},
	{"/api/v2/adm%69n", "refused"},
	{"/api;x/v2/admin", "refused"},
	{"/api/v2;x/admin", "refused"},
	{"/api%3bx/v2", "refused"},
	{"/api%3fx", "refused"},
	{"/api%23x", "refused"},
	{"/x;%2f/api", "refused"},
	{"//api", "refused"},
	{"/api//x", "refused"},
	{"/api//", "refused"},
	{"/;x/api", "refused"},
	{"/api\\..\\tenant-a", "refused"},
	{"/api%5c..%5ctenant-a", "refused"},
	{"/api/%00", "refused"},
	{"/api/%0d%0aX", "refused"},
	{"/api/\x01", "refused"},
	{"/api/%c0%ae%c0%ae/tenant-a", "refused"}, // overlong dots
	{"/api/%u002e%u002e/tenant-a", "refused"},
	{"/api/%", "refused"},
	{"/api/%252525c3%252525bc", "api"},
	{"/api/%2525252525252525252e", "refused"},
	{"", "refused"},
	{"api", "refused"},
	{"%2Fapi", "refused"},
}

func pathTable() *Table {
	return NewTable([]*Credential{
		testCredential("root", "https://h.example/"),
		testCredential("api", "https://h.example/api/"),
		testCredential("admin", "https://h.example/api/v2/admin"),
		testCredential("tenant-a", "https://h.example/tenant-a/"),
		testCredential("plain", "https://plain.example/"),
	})
}

func TestPathsChooseTheCredential(t *testing.T) {
	table := pathTable()
	for _, c := range pathCases {
		got, err := table.Match(Target{"https", "h.example", 443, c.path})
		var ambiguous *AmbiguousPathError
		switch {
		case c.want == "refused" && !errors.As(err, &ambiguous):
			t.Errorf("%q: got %v, %v; want a refusal", c.path, got, err)
		case c.want != "refused" && (err != nil || got.Name != c.want):
			t.Errorf("%q: got %v, %v; want %s", c.path, got, err, c.want)
		}
		if got, err := table.Match(Target{"https", "plain.example", 443, c.path}); err != nil || got.Name != "plain" {
			t.Errorf("%q on a host without path rules: %v, %v", c.path, got, err)
		}
	}
}

func TestPathWithoutAnyCredentialIsNoMatch(t *testing.T) {
	table := NewTable([]*Credential{testCredential("api", "https://h.example/api/")})
	_, err := table.Match(mustTarget(t, "https://h.example/apix"))
	var none *NoMatchError
	if !errors.As(err, &none) {
		t.Errorf("got %v", err)
	}
	if !table.HasOrigin("https", "h.example", 443) || table.HasOrigin("https", "h.example", 8443) || table.HasOrigin("http", "h.example", 443) {
		t.Error("HasOrigin looks at more or less than the origin")
	}
}

func TestTwoCredentialsForOneURLAreAmbiguous(t *testing.T) {
	table := NewTable([]*Credential{
		testCredential("b", "https://h.example/"), testCredential("a", "https://H.example:443"),
		testCredential("c", "https://h.example/x"), testCredential("e", "https://h.example/x/"), testCredential("d", "https://other.example/"),
	})
	_, err := table.Match(mustTarget(t, "https://h.example/y"))
	var ambiguous *AmbiguousError
	if !errors.As(err, &ambiguous) || !slices.Equal(ambiguous.Names, []string{"a", "b"}) {
		t.Errorf("got %v", err)
	}
	if c, err := table.MatchNamed("b", mustTarget(t, "https://h.example/y")); err != nil || c.Name != "b" {
		t.Errorf("named: %v, %v", c, err)
	}
	if got := fmt.Sprint(table.Overlaps()); got != "[[a b] [c e]]" {
		t.Errorf("overlaps: %s", got)
	}
}

func TestMatchNamedStillNeedsTheTarget(t *testing.T) {
	table := pathTable()
	allow := func(name, path string) {
		t.Helper()
		if c, err := table.MatchNamed(name, Target{"https", "h.example", 443, path}); err != nil || c.Name != name {
			t.Errorf("%s for %s: %v, %v", name, path, c, err)
		}
	}
	deny := func(name, host, path, words string) {
		t.Helper()
		if c, err := table.MatchNamed(name, Target{"https", host, 443, path}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s for %s%s: %v, %v", name, host, path, c, err)
		}
	}
	allow("root", "/api/v2")
	allow("api", "/api")
	allow("api", "/api/v2/admin")
	allow("api", "/api/x%2fy")
	deny("api", "h.example", "/apix", "does not cover")
	deny("api", "plain.example", "/api", "does not cover")
	deny("api", "h.example", "/api/../tenant-a", "dot segment")
	deny("api", "h.example", "/%61pi", "does not cover")
	deny("nobody", "h.example", "/", "no credential is named")
}

func TestTableLists(t *testing.T) {
	table := NewTable(append(seedCredentials(), &Credential{Name: "broken", URL: "::"}))
	var names []string
	for _, c := range table.All() {
		names = append(names, c.Name)
	}
	if !slices.IsSorted(names) || len(names) != len(seedTable)+1 || table.Len() != len(names) {
		t.Errorf("got %v", names)
	}
	if c, ok := table.ByName("jira"); !ok || c.Name != "jira" {
		t.Errorf("got %v", c)
	}
	if c, ok := table.ByName("nobody"); ok || c != nil {
		t.Errorf("got %v", c)
	}
	if _, err := table.MatchNamed("broken", Target{}); err == nil {
		t.Error("a credential without a readable URL covers the zero target")
	}
	if _, err := table.Match(Target{}); err == nil {
		t.Error("the zero target matches")
	}
}

// manyCredentials is n hosts, and on one further host n path prefixes.
func manyCredentials(n int) []*Credential {
	var all []*Credential
	for i := range n {
		all = append(all, testCredential(fmt.Sprintf("h%d", i), fmt.Sprintf("https://tenant-%d.example.com/", i)))
		all = append(all, testCredential(fmt.Sprintf("p%d", i), fmt.Sprintf("https://shared.example.com/tenants/t%d/", i)))
	}
	return all
}

var matchTargets = map[string]Target{
	"host":   {"https", "tenant-7.example.com", 443, "/api/now/table/incident"},
	"prefix": {"https", "shared.example.com", 443, "/tenants/t7/api/now/table/incident"},
}

func TestMatchDoesNotAllocate(t *testing.T) {
	table := NewTable(manyCredentials(100))
	for kind, target := range matchTargets {
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := table.Match(target); err != nil {
				t.Fatal(err)
			}
			if _, err := table.MatchNamed("h7", matchTargets["host"]); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", kind, allocs)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		table := NewTable(manyCredentials(n))
		for _, kind := range []string{"host", "prefix"} {
			target := matchTargets[kind]
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := table.Match(target); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
