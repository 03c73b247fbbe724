package main

import (
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds"
	"pillion/creds/filestore"
)

func TestAttackConsoleTarget(t *testing.T) {
	t.Run("49 a path leads nowhere but below the instance URL", func(t *testing.T) {
		dir := t.TempDir()
		store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		c := &creds.Credential{Name: "tool", Protocol: creds.HTTPS, URL: "https://tool.example/tenant-a/", Authorization: creds.None}
		if err := creds.Save(t.Context(), store, c); err != nil {
			t.Fatal(err)
		}
		d := &daemon{live: &creds.Live{Store: store}}
		if err := d.live.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		g := consoleGrants{d}
		for path, want := range map[string]string{"": "", "/": "", "/api/me": "api/me", "api/me?x=1": "api/me?x=1", " /a ": "a"} {
			if at, err := g.testTarget(c, path); err != nil || at != c.URL+want {
				t.Errorf("%q leads to %q, %v", path, at, err)
			}
		}
		for _, path := range []string{"/../tenant-b/", "../../", "/%2e%2e/tenant-b", "/..;/tenant-b", "/%2e%2e%2ftenant-b", "\\..\\tenant-b", "//evil.example/", "https://evil.example/", "@evil.example/", "/a b", "/a\r\nX: y"} {
			at, err := g.testTarget(c, path)
			if err == nil && !strings.HasPrefix(at, c.URL) {
				t.Errorf("%q leads to %q", path, at)
			}
			if err == nil && strings.Contains(path, "..") {
				t.Errorf("%q is taken: %q", path, at)
			}
		}
	})
}
