package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
)

func TestParseAllow(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":            "10.0.0.0/8",
		"127.0.0.1":             "127.0.0.1/32",
		"::1":                   "::1/128",
		"[::1]":                 "::1/128",
		"::ffff:127.0.0.1":      "127.0.0.1/32",
		"::ffff:127.0.0.0/104":  "127.0.0.0/8",
		"0.0.0.0/0":             "0.0.0.0/0",
		"Tool.Example.":         "tool.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"localhost":             "localhost",
	} {
		got, err := ParseAllow([]string{text})
		if err != nil || got[0].String() != want {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
	const form = "is not a network (10.0.0.0/8), an address or a host name: write one of these, without scheme, port, path or *"
	for text, want := range map[string]string{
		"10.0.0.1/8":               "has bits set behind its length: write 10.0.0.0/8, or the address alone",
		"10.0.0.0/33":              form,
		"https://tool.example":     form,
		"tool.example:443":         form,
		"tool.example/path":        form,
		"*.example":                form,
		"":                         form,
		"2130706433":               form,
		"127.1":                    form,
		"fe80::1%eth0":             "has a zone: link-local addresses are never allowed",
		"169.254.169.254":          "is a cloud metadata address, which is never allowed: remove it",
		"169.254.0.0/16":           "is a link-local address, which is never allowed: remove it",
		"fe80::/64":                "is a link-local address, which is never allowed: remove it",
		"100.100.100.200/32":       "is a cloud metadata address, which is never allowed: remove it",
		"metadata.google.internal": "names a cloud metadata address, which is never allowed: remove it",
	} {
		_, err := ParseAllow([]string{text})
		if full := fmt.Sprintf("upstream.allow: %q %s", text, want); err == nil || err.Error() != full {
			t.Errorf("got  %v\nwant %s", err, full)
		}
	}
	t.Run("all problems at once", func(t *testing.T) {
		got, err := ParseAllow([]string{"*", "10.0.0.0/8", "/"})
		if err == nil || len(got) != 1 || err.Error() != `upstream.allow: "*" `+form+"\n"+`upstream.allow: "/" `+form {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestParseResolve(t *testing.T) {
	got, err := ParseResolve(map[string]string{
		"Demo.Example.": "127.0.0.1:8443", "b.example": "127.0.0.1", "c.example": "::1", "d.example": "[::1]", "e.example": "[::1]:443", "f.example": "[::ffff:10.0.0.1]:1",
	})
	want := map[string]netip.AddrPort{
		"demo.example": netip.MustParseAddrPort("127.0.0.1:8443"),
		"b.example":    netip.MustParseAddrPort("127.0.0.1:0"),
		"c.example":    netip.MustParseAddrPort("[::1]:0"),
		"d.example":    netip.MustParseAddrPort("[::1]:0"),
		"e.example":    netip.MustParseAddrPort("[::1]:443"),
		"f.example":    netip.MustParseAddrPort("10.0.0.1:1"),
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, row := range []struct{ host, target, want string }{
		{"a.example", "b.example", `upstream.resolve: a.example: "b.example" is not an IP address with or without a port: write 192.0.2.1, 192.0.2.1:8443 or [2001:db8::1]:8443`},
		{"a.example", "127.0.0.1:0", `upstream.resolve: a.example: "127.0.0.1:0" has port 0: write 1 to 65535, or no port to keep that of the URL`},
		{"a.example", "127.0.0.1:99999", `upstream.resolve: a.example: "127.0.0.1:99999" is not an IP address with or without a port: write 192.0.2.1, 192.0.2.1:8443 or [2001:db8::1]:8443`},
		{"a.example", "[fe80::1%eth0]:443", `upstream.resolve: a.example: "[fe80::1%eth0]:443" has a zone: link-local addresses are never dialled`},
		{"a.example:443", "127.0.0.1", `upstream.resolve: "a.example:443" is not a host name: write it without scheme, port or *, letters beyond ASCII in their xn-- form`},
		{"*.example", "127.0.0.1", `upstream.resolve: "*.example" is not a host name: write it without scheme, port or *, letters beyond ASCII in their xn-- form`},
		{"127.0.0.1", "127.0.0.2", `upstream.resolve: "127.0.0.1" is not a host name: write it without scheme, port or *, letters beyond ASCII in their xn-- form`},
	} {
		if _, err := ParseResolve(map[string]string{row.host: row.target}); err == nil || err.Error() != row.want {
			t.Errorf("got  %v\nwant %s", err, row.want)
		}
	}
	if _, err := ParseResolve(map[string]string{"A.example": "127.0.0.1", "a.example": "127.0.0.2"}); err == nil || err.Error() != `upstream.resolve: "a.example" stands there twice` {
		t.Errorf("got %v", err)
	}
}
