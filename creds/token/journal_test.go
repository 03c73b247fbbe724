package token

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pillion/creds"
)

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	d := directory{path}
	if files, err := d.load("jira"); err != nil || len(files) != 0 {
		t.Fatalf("none yet: %v, %v", files, err)
	}
	for _, name := range []string{"jira", "jira-2"} {
		if err := d.store(name, 7, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.store("jira", 12, []byte("twelve")); err != nil {
		t.Fatal(err)
	}
	files, err := d.load("jira")
	if err != nil || len(files) != 2 || string(files[7]) != "jira" || string(files[12]) != "twelve" {
		t.Errorf("%v, %v", files, err)
	}
	info, err := os.Stat(filepath.Join(path, "jira.7.journal"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	for range 2 {
		if err := d.remove("jira", 7); err != nil {
			t.Error(err)
		}
	}
	if files, err := d.load("jira"); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func bought() *purchase {
	return &purchase{
		Gen: 7, Refresh: &bound{"p", "canary-refresh-2"}, Token: tokenRecord{AccessToken: &bound{"p", "canary-access"}, ExpiresAt: 5},
		Asked: "a", parent: creds.NewSecret("canary-refresh-1"),
	}
}

func TestSeal(t *testing.T) {
	file, err := seal("jira", bought())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(file, []byte("canary")) {
		t.Error("a secret stands in the journal")
	}
	p, err := unseal("jira", file, creds.Secret{}, creds.NewSecret("other"), creds.NewSecret("canary-refresh-1"))
	if err != nil || p.Refresh.Value != "canary-refresh-2" || p.Gen != 7 || p.Token.ExpiresAt != 5 || !p.parent.Equal(creds.NewSecret("canary-refresh-1")) {
		t.Fatalf("%v", err)
	}
	if _, err := unseal("jira", file, creds.NewSecret("canary-refresh-2")); err == nil {
		t.Error("opened with its own content")
	}
	if _, err := unseal("jira", file); err == nil {
		t.Error("opened without a key")
	}
	if _, err := unseal("itsm", file, creds.NewSecret("canary-refresh-1")); err == nil {
		t.Error("opened for another credential")
	}
}

// A journal's file is read back whole, or not at all.
func FuzzUnseal(f *testing.F) {
	file, err := seal("jira", bought())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add([]byte(`{"schema":"1.0","parent":"","sealed":""}`))
	want := marshal(bought())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := unseal("jira", data, creds.NewSecret("canary-refresh-1"))
		if err == nil && !bytes.Equal(marshal(p), want) {
			t.Error("a file that nobody sealed was opened")
		}
	})
}
