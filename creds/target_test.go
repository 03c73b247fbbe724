package creds

import (
	"strings"
	"testing"
)

// authorityCases are case 8, 13 and the numeric hosts of case 24 of the attack
// catalogue: what is read, in which form, and what is refused with what words.
var authorityCases = []struct {
	authority string
	host      string // "" is refused
	port      uint16
	problem   string
}{
	{"example.com", "example.com", 443, ""},
	{"example.com:443", "example.com", 443, ""},
	{"EXAMPLE.com:8443", "example.com", 8443, ""},
	{"example.com.", "example.com", 443, ""},
	{"example.com.:80", "example.com", 80, ""},
	{"my_host", "my_host", 443, ""},
	{"r3---sn.example.com", "r3---sn.example.com", 443, ""},
	{"bücher.example", "xn--bcher-kva.example", 443, ""},
	{"BÜCHER.example", "xn--bcher-kva.example", 443, ""},
	{"XN--BCHER-KVA.example", "xn--bcher-kva.example", 443, ""},
	{"еxample.com", "xn--xample-2of.com", 443, ""}, // Cyrillic е: another host, and shown as one
	{"example。com", "example.com", 443, ""},        // an ideographic full stop is a dot
	{"192.0.2.1", "192.0.2.1", 443, ""},
	{"192.0.2.1.", "192.0.2.1", 443, ""},
	{"[::1]", "::1", 443, ""},
	{"[2001:DB8:0::1]:8443", "2001:db8::1", 8443, ""},
	{"[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, ""},

	{"", "", 0, "the host is missing"},
	{":443", "", 0, "the host is missing"},
	{".", "", 0, "the host is missing"},
	{"user:pw@example.com", "", 0, "user name or password"},
	{"example.com/path", "", 0, "a path, query or fragment"},
	{"example.com?q", "", 0, "a path, query or fragment"},
	{"example.com#f", "", 0, "a path, query or fragment"},
	{"exa mple.com", "", 0, "a space or a control character"},
	{"example.com\x00", "", 0, "a space or a control character"},
	{"example.com\r\nHost: b", "", 0, "a space or a control character"},
	{"example.com\t", "", 0, "a space or a control character"},
	{"example.com%2eevil.com", "", 0, "a % in the host"},
	{"[fe80::1%eth0]", "", 0, "a % in the host"},
	{"example.com\\evil.com", "", 0, "a backslash"},
	{"[::1", "", 0, "a [ without its ]"},
	{"[::1]x:443", "", 0, "text between the ]"},
	{"[127.0.0.1]", "", 0, "other than an IPv6 address"},
	{"[example.com]", "", 0, "other than an IPv6 address"},
	{"[]", "", 0, "other than an IPv6 address"},
	{"::1", "", 0, "more than one colon"},
	{"a:1:2", "", 0, "more than one colon"},
	{"example.com]:443", "", 0, "no host name has"},
	{"example.com..", "", 0, "a dot too many"},
	{"a..b", "", 0, "a dot too many"},
	{".example.com", "", 0, "a dot too many"},
	{"-a.example", "", 0, "hyphen"},
	{"a-.example", "", 0, "hyphen"},
	{"a*b.example", "", 0, "no host name has"},
	{strings.Repeat("a", 64) + ".example", "", 0, "longer than 63"},
	{strings.Repeat("abcdefg.", 32) + "example", "", 0, "longer than 253"},
	{strings.Repeat("ü", 100_000), "", 0, "longer than 253"},
	{strings.Repeat("ü.", 500), "", 0, "longer than 253"},
	{"example.com:", "", 0, "the port"},
	{"example.com:0", "", 0, "the port"},
	{"example.com:65536", "", 0, "the port"},
	{"example.com:99999999999999999999", "", 0, "the port"},
	{"example.com:0443", "", 0, "the port"},
	{"example.com:+443", "", 0, "the port"},
	{"example.com:-1", "", 0, "the port"},
	{"example.com:https", "", 0, "the port"},
	{"2130706433", "", 0, "ends in a number"},
	{"0x7f000001", "", 0, "ends in a number"},
	{"0x7f.1", "", 0, "ends in a number"},
	{"0X7F.0.0.1", "", 0, "ends in a number"},
	{"127.1", "", 0, "ends in a number"},
	{"0177.0.0.1", "", 0, "ends in a number"},
	{"127.0.0.01", "", 0, "ends in a number"},
	{"127.0.0.1.1", "", 0, "ends in a number"},
	{"127.0.0.0x1", "", 0, "ends in a number"},
	{"127.0.0.0x", "", 0, "ends in a number"},
	{"256.0.0.1", "", 0, "ends in a number"},
	{"example.123", "", 0, "ends in a number"},
	{"１２７.1", "", 0, "ends in a number"}, // full-width digits
	{"\xff.example", "", 0, "not a valid international"},
	{"a／b.example", "", 0, "not a valid international"}, // full-width slash
}

func TestParseAuthority(t *testing.T) {
	for _, c := range authorityCases {
		host, port, err := ParseAuthority(c.authority, 443)
		if c.host != "" {
			if err != nil || host != c.host || port != c.port {
				t.Errorf("%q: got %q, %d, %v; want %q, %d", c.authority, host, port, err, c.host, c.port)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%q: got %q, %d, %v; want a refusal with %q", c.authority, host, port, err, c.problem)
		}
	}
	if _, _, err := ParseAuthority("example.com", 0); err == nil || !strings.Contains(err.Error(), "the port is missing") {
		t.Errorf("without a default port: %v", err)
	}
}

func TestParseAuthorityDoesNotAllocate(t *testing.T) {
	for _, authority := range []string{"example.service-now.com:443", "example.com", "example.com.", "192.0.2.1:80", "[2001:db8::1]:443"} {
		allocs := testing.AllocsPerRun(100, func() {
			if _, _, err := ParseAuthority(authority, 443); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", authority, allocs)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ url, want, problem string }{
		{"https://example.com", "https://example.com:443/", ""},
		{"HTTPS://Example.com/Path/%2e?q=1#f", "https://example.com:443/Path/%2e", ""},
		{"http://example.com/", "http://example.com:80/", ""},
		{"sftp://files.example", "sftp://files.example:22/", ""},
		{"https://[::1]:8443/a", "https://[::1]:8443/a", ""},
		{"https://example.com?q=/a", "https://example.com:443/", ""},
		{"https://example.com#/a?b", "https://example.com:443/", ""},
		{"https://example.com/a//b/../c;x", "https://example.com:443/a//b/../c;x", ""},

		{"example.com", "", "no scheme"},
		{"//example.com", "", "no scheme"},
		{"ftp://example.com", "", "other than https, http and sftp"},
		{"https:///a", "", "the host is missing"},
		{"https://user:hunter2@example.com/", "", "user name or password"},
		{"https://example.com\\@evil.example/", "", "backslash"},
		{"https://example.com/a b", "", "percent-encode"},
		{"https://example.com/a\nb", "", "percent-encode"},
	} {
		target, err := ParseTarget(c.url)
		if c.want != "" && (err != nil || target.String() != c.want) {
			t.Errorf("%q: got %s, %v; want %s", c.url, target, err, c.want)
		}
		if c.want == "" && (err == nil || !strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: got %s, %v; want a refusal with %q", c.url, target, err, c.problem)
		}
	}
}

func TestTargetURLHidesTheDefaultPort(t *testing.T) {
	for url, want := range map[string]string{
		"https://a.example/":      "https://a.example/",
		"https://a.example:8443/": "https://a.example:8443/",
		"https://[::1]/x":         "https://[::1]/x",
		"sftp://a.example:22/":    "sftp://a.example:22/",
	} {
		target, err := ParseTarget(url)
		if err != nil || target.URL() != want {
			t.Errorf("%s: got %s, %v", url, target.URL(), err)
		}
	}
}

// FuzzParseAuthority: what is accepted is canonical, and canonical is what is
// accepted again as it stands.
func FuzzParseAuthority(f *testing.F) {
	for _, c := range authorityCases {
		f.Add(c.authority)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host, port, err := ParseAuthority(authority, 443)
		if err != nil {
			return
		}
		again := Target{Host: host, Port: port}.Authority()
		if h, p, err := ParseAuthority(again, 0); err != nil || h != host || p != port {
			t.Errorf("%q is %q, %d, but %q is %q, %d, %v", authority, host, port, again, h, p, err)
		}
		if strings.ContainsAny(host, "/?#@%[]\\ \r\n\x00") || host != strings.ToLower(host) || !isASCII(host) || host == "" || port == 0 {
			t.Errorf("%q gives %q, %d", authority, host, port)
		}
	})
}

// FuzzParseTarget: parse, then format, is the identity on what was formatted.
func FuzzParseTarget(f *testing.F) {
	for _, c := range seedTable {
		f.Add(c.full)
	}
	f.Add("sftp://[2001:db8::1]:2222/a?b#c")
	f.Fuzz(func(t *testing.T, url string) {
		target, err := ParseTarget(url)
		if err != nil {
			return
		}
		for _, form := range []string{target.String(), target.URL()} {
			if again, err := ParseTarget(form); err != nil || again != target {
				t.Errorf("%q is %+v, but %q is %+v, %v", url, target, form, again, err)
			}
		}
		if target.Path[0] != '/' || strings.ContainsAny(target.Path, "?# \r\n\x00") {
			t.Errorf("%q gives the path %q", url, target.Path)
		}
	})
}

func TestSeedsOfFuzzTargetsAreThere(t *testing.T) {
	if len(authorityCases) < 20 || len(seedTable) < 7 || len(pathCases) < 20 || len(hostKeySeeds(t)) < 5 {
		t.Error("a fuzz target starts from next to nothing")
	}
}
