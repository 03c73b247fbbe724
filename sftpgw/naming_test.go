package sftpgw

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pillion/creds"
)

func named(name, rawURL string) *creds.Credential {
	c := &creds.Credential{Name: name, URL: rawURL, Protocol: creds.ProtocolOf(rawURL)}
	return c
}

func TestNames(t *testing.T) {
	table := creds.NewTable([]*creds.Credential{
		named("acme", "sftp://sftp.acme.example:22/"),
		named("globex", "sftp://files.globex.example:2222/"),
		named("globex-old", "sftp://files.globex.example:22/"),
		named("twin-a", "sftp://twin.example:22/"),
		named("twin-b", "sftp://twin.example:22/"),
		named("intranet", "sftp://uploads:22/"),
		named("uploads", "sftp://other.example:22/"),
		named("six", "sftp://[2001:db8::7]:22/"),
		named("four", "sftp://192.0.2.7:22/"),
		named("web", "https://sftp.web.example/"),
		named("acme-web", "https://sftp.acme.example/"),
	})
	var n names
	found := func(user, want string) {
		t.Helper()
		c, err := n.find(table, Target{}, user)
		if err != nil || c.Name != want {
			t.Errorf("%q: %v, %v; want %s", user, c, err, want)
		}
	}
	refused := func(target Target, user, kind, says string) {
		t.Helper()
		c, err := n.find(table, target, user)
		var r *refusal
		if !errors.As(err, &r) || r.kind != kind || !strings.Contains(r.sentence, says) {
			t.Errorf("%v %q: %v, %v; want %s with %q", target, user, c, err, kind, says)
		}
	}
	found("acme", "acme")
	found("sftp.acme.example", "acme")
	found("SFTP.Acme.Example.", "acme")
	found("sftp.acme.example:22", "acme")
	found("files.globex.example:2222", "globex")
	found("files.globex.example:22", "globex-old")
	found("twin-b", "twin-b")
	found("2001:db8::7", "six")
	found("[2001:db8::7]:22", "six")
	found("[2001:db8::7]", "six")
	found("192.0.2.7", "four")
	found("uploads:22", "intranet")
	refused(Target{}, "uploads", kindAmbiguous, "host:port")
	refused(Target{}, "files.globex.example", kindAmbiguous, "files.globex.example:22 or files.globex.example:2222")
	refused(Target{}, "twin.example", kindAmbiguous, "log in as the name of one of them")
	refused(Target{}, "twin.example:22", kindAmbiguous, "log in as the name of one of them")
	refused(Target{}, "sftp.acme.example:2222", kindNoCredential, "no SFTP credential")
	refused(Target{}, "acm", kindNoCredential, `"acm"`)
	refused(Target{}, "Acme", kindNoCredential, "no SFTP credential")
	refused(Target{}, "acme.example", kindNoCredential, "no SFTP credential")
	refused(Target{}, "x.sftp.acme.example", kindNoCredential, "no SFTP credential")
	refused(Target{}, "web", kindNoCredential, "no SFTP credential")
	refused(Target{}, "sftp.web.example:443", kindNoCredential, "no SFTP credential")
	refused(Target{}, "", kindNoCredential, "no SFTP credential")
	refused(Target{}, "a@b", kindNoCredential, "no SFTP credential")
	refused(Target{}, "sftp://sftp.acme.example:22/", kindNoCredential, "no SFTP credential")
	refused(Target{}, strings.Repeat("a", 100000)+"\x1b[31m", kindNoCredential, `aaa..."`)
	refused(Target{}, "\x1b[31m", kindNoCredential, `"\x1b[31m"`)
	for _, user := range []string{"twin.example", "uploads", "files.globex.example"} {
		_, err := n.find(table, Target{}, user)
		for _, other := range []string{"twin-a", "intranet", "globex-old", "globex "} {
			if r := refusalOf(err); strings.Contains(r.sentence, other) {
				t.Errorf("%q: the client is told of another credential: %s", user, r.sentence)
			}
		}
	}

	at := func(host string, port uint16) Target { return Target{Host: host, Port: port} }
	foundAt := func(target Target, user, want string) {
		t.Helper()
		c, err := n.find(table, target, user)
		if err != nil || c.Name != want {
			t.Errorf("%v %q: %v, %v; want %s", target, user, c, err, want)
		}
	}
	foundAt(at("sftp.acme.example", 22), "root", "acme")
	foundAt(at("sftp.acme.example", 22), "globex", "acme") // the target decides, not the user
	foundAt(at("twin.example", 22), "twin-b", "twin-b")
	foundAt(Target{Name: "twin-a", Host: "twin.example", Port: 22}, "twin-b", "twin-a")
	foundAt(Target{Name: "acme"}, "anybody", "acme")
	refused(at("twin.example", 22), "root", kindAmbiguous, "sftp://twin.example:22/")
	refused(at("sftp.acme.example", 2222), "acme", kindNoCredential, "sftp://sftp.acme.example:2222/")
	refused(Target{Name: "globex", Host: "sftp.acme.example", Port: 22}, "acme", kindNoCredential, "globex")
	refused(Target{Name: "web"}, "acme", kindNoCredential, "web")
	refused(Target{Name: "gone"}, "acme", kindNoCredential, "gone")
}

// A table of many credentials is read once, not at each log-in.
func TestNamesIndexesEachTableOnce(t *testing.T) {
	var many []*creds.Credential
	for i := range 5000 {
		many = append(many, named(fmt.Sprintf("c%d", i), fmt.Sprintf("sftp://h%d.example:22/", i)))
	}
	first, second := creds.NewTable(many), creds.NewTable(many[:1])
	var n names
	if c, err := n.find(first, Target{}, "h4999.example"); err != nil || c.Name != "c4999" {
		t.Fatal(c, err)
	}
	if allocs := testing.AllocsPerRun(10, func() { _, _ = n.find(first, Target{}, "h17.example") }); allocs > 5 {
		t.Errorf("%v allocations", allocs)
	}
	if _, err := n.find(second, Target{}, "h4999.example"); err == nil {
		t.Error("a credential that has gone is found")
	}
}
