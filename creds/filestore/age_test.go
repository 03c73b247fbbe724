package filestore

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runAge runs the stock tool. Without it the tests skip, and fail with CI=true.
func runAge(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed: apt-get install age", name)
		}
		t.Skipf("%s is not installed: apt-get install age", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, stderr.Bytes())
	}
	return out
}

func TestStockAgeReadsTheStore(t *testing.T) {
	store := mustOpen(t, state(t))
	write(t, store, "credentials/jira", `{"schema":"1.0","url":"https://a.example/?<&>"}`, 0)
	plain := runAge(t, nil, "age", "-d", "-i", store.keyPath, store.Path())
	var got struct {
		Format, Version string
		Records         map[string]struct {
			Version int
			Created time.Time
			Data    map[string]string
		}
	}
	if err := json.Unmarshal(plain, &got); err != nil {
		t.Fatal(err)
	}
	record := got.Records["credentials/jira"]
	if got.Format != "pillion-store" || got.Version != "1.0" || record.Version != 1 ||
		record.Created.IsZero() || record.Data["url"] != "https://a.example/?<&>" {
		t.Errorf("age shows %+v", got)
	}
	if !bytes.Contains(plain, []byte(`?<&>`)) {
		t.Error("a person who looks inside finds \\u003c for <")
	}
}

func TestStockAgeKnowsTheKey(t *testing.T) {
	store := mustOpen(t, state(t))
	recipient := runAge(t, nil, "age-keygen", "-y", store.keyPath)
	text, err := os.ReadFile(store.keyPath)
	check(t, err)
	if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "# public key: "+string(recipient)) {
		t.Errorf("the key file's comments do not name %s", recipient)
	}
}

// Who edits the store by hand, or brings a key of age-keygen, is understood.
func TestWhatStockAgeWritesIsRead(t *testing.T) {
	dir := state(t)
	check(t, os.Mkdir(dir, 0o700))
	key := filepath.Join(dir, "key.txt")
	runAge(t, nil, "age-keygen", "-o", key)
	store := mustOpen(t, dir)
	write(t, store, "secrets/a", `{"n":1}`, 0)

	plain := runAge(t, nil, "age", "-d", "-i", key, store.Path())
	edited := bytes.Replace(plain, []byte(`{"n":1}`), []byte(`{"n":2}`), 1)
	recipient := strings.TrimSpace(string(runAge(t, nil, "age-keygen", "-y", key)))
	runAge(t, edited, "age", "-r", recipient, "-o", store.Path()+".edited")
	rename(t, store.Path()+".edited", store.Path())

	record, err := store.Get(t.Context(), "secrets/a")
	if err != nil || record.Data.Reveal() != `{"n":2}` {
		t.Errorf("read %s after the edit to n = 2 (%v)", record.Data.Reveal(), err)
	}
}
