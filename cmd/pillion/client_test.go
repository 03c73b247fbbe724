package main

import (
	"os"
	"slices"
	"testing"
)

func TestNoProxyCovers(t *testing.T) {
	for _, row := range []struct {
		entry, host string
		covers      bool
	}{
		{"tool.example", "tool.example", true},
		{".example", "tool.example", true},
		{"example", "tool.example", true},
		{"*.example", "tool.example", true},
		{"tool.example:443", "tool.example", true},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "tool.example", false},
		{"ool.example", "tool.example", false},
		{"localhost", "tool.example", false},
		{"", "tool.example", false},
	} {
		if got := noProxyCovers(row.entry, row.host); got != row.covers {
			t.Errorf("NO_PROXY=%s and %s: %t", row.entry, row.host, got)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:3128": "http://127.0.0.1:3128",
		"/state dir/ca.crt":     "'/state dir/ca.crt'",
		"it's":                  `'it'\''s'`,
		"$(rm -r /)":            "'$(rm -r /)'",
		"":                      "''",
	} {
		if got := shellQuote(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestAllowUIDs: in a pod anybody, on a host ourselves, unless it is configured.
func TestAllowUIDs(t *testing.T) {
	pod := func(name string) string {
		if name == "KUBERNETES_SERVICE_HOST" {
			return "10.96.0.1"
		}
		return ""
	}
	c := defaultConfig()
	if got := c.allowUIDs(pod); got != nil {
		t.Errorf("in a pod: %v", got)
	}
	if got := c.allowUIDs(noEnvironment); !slices.Equal(got, []uint32{uint32(os.Geteuid())}) {
		t.Errorf("on a host: %v", got)
	}
	c.Proxy.AllowUIDs = &[]uint32{7}
	if got := c.allowUIDs(pod); !slices.Equal(got, []uint32{7}) {
		t.Errorf("configured: %v", got)
	}
}
