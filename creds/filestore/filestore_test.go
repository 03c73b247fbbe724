package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// state returns a state directory that is not there yet: the umask of who runs
// the tests must not matter.
func state(t testing.TB) string { return filepath.Join(t.TempDir(), "state") }

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	store, err := openIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func write(t testing.TB, s *Store, key, data string, version int) int {
	t.Helper()
	next, err := s.CAS(context.Background(), key, creds.NewSecret(data), version)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestContract(t *testing.T) {
	dir := state(t)
	credstest.TestStore(t, func(t *testing.T) creds.Store { return mustOpen(t, dir) })
}

// TestOpenExistingMakesNothing: who only looks leaves no directory, no key, no
// store and no lock behind.
func TestOpenExistingMakesNothing(t *testing.T) {
	dir := state(t)
	look := func() (*Store, error) {
		return OpenExisting(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
	}
	if _, err := look(); !errors.Is(err, ErrNoStore) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := look(); !errors.Is(err, ErrNoStore) {
		t.Errorf("an empty directory: %v", err)
	}
	wantFiles(t, dir)
	write(t, mustOpen(t, dir), "credentials/one", `{"n":1}`, 0)
	store, err := look()
	if err != nil {
		t.Fatal(err)
	}
	if record, err := store.Get(t.Context(), "credentials/one"); err != nil || record.Version != 1 {
		t.Errorf("%v, %v", record, err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestFirstStartMakesAPrivateKeyAndAnEmptyStore(t *testing.T) {
	dir := state(t)
	store := mustOpen(t, dir)
	for path, want := range map[string]os.FileMode{
		dir:                           os.ModeDir | 0o700,
		store.Path():                  0o600,
		store.lockPath():              0o600,
		filepath.Join(dir, "key.txt"): 0o600,
	} {
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
	wantFiles(t, dir, "key.txt", "store.age", "store.age.lock")
	if keys, err := store.List(t.Context(), ""); err != nil || len(keys) != 0 {
		t.Errorf("a new store holds %q, %v", keys, err)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the state directory holds %q, want %q", got, want)
	}
}

// A first write has version 1, and no key ever has a version twice.
func TestVersionsNeverRepeat(t *testing.T) {
	store := mustOpen(t, state(t))
	if v := write(t, store, "secrets/other", `{}`, 0); v != 1 {
		t.Errorf("the first version is %d", v)
	}
	seen := map[int]bool{}
	for range 5 {
		v := write(t, store, "secrets/a", `{}`, 0)
		w := write(t, store, "secrets/a", `{}`, v)
		if seen[v] || seen[w] {
			t.Fatalf("version %d or %d comes back after a delete", v, w)
		}
		seen[v], seen[w] = true, true
		if err := store.Delete(t.Context(), "secrets/a"); err != nil {
			t.Fatal(err)
		}
		store = mustOpen(t, filepath.Dir(store.Path())) // and not only in memory
	}
}

func TestDeleteOfNothingDoesNotWrite(t *testing.T) {
	store := mustOpen(t, state(t))
	before, err := os.Stat(store.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "secrets/none"); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(store.Path()); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced (%v)", err)
	}
}

func TestClockIsTheField(t *testing.T) {
	store := mustOpen(t, state(t))
	now := time.Date(2031, 2, 3, 4, 5, 6, 7, time.FixedZone("", 3600))
	store.Clock = func() time.Time { return now }
	write(t, store, "tokens/a", `{}`, 0)
	record, err := mustOpen(t, filepath.Dir(store.Path())).Get(t.Context(), "tokens/a")
	if err != nil || !record.Created.Equal(now) {
		t.Errorf("created %v, want %v (%v)", record.Created, now, err)
	}
	if got, err := store.Now(t.Context()); err != nil || !got.Equal(now) {
		t.Errorf("now %v, want %v (%v)", got, now, err)
	}
}

// Files that replace one another within one tick of the file system's clock, with
// equal sizes, must not be taken for one another, even when the file system gives
// the inode number of the one before the last to the newest, as ext4 does.
func TestCacheSeesEveryWrite(t *testing.T) {
	dir := state(t)
	writer, reader := mustOpen(t, dir), mustOpen(t, dir)
	version := 0
	for n := range credstest.Often(300) {
		data := fmt.Sprintf(`{"n":%d}`, 1000+n)
		version = write(t, writer, "secrets/a", `{"n":-999}`, version)
		version = write(t, writer, "secrets/a", data, version)
		check(t, writer.Close()) // the reader's open file alone must keep its inode
		stamp(t, writer.Path())
		record, err := reader.Get(t.Context(), "secrets/a")
		if err != nil {
			t.Fatal(err)
		}
		if record.Version != version || record.Data.Reveal() != data {
			t.Fatalf("read version %d after %d was written", record.Version, version)
		}
	}
}

func stamp(t *testing.T, path string) {
	t.Helper()
	always := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(path, always, always); err != nil {
		t.Fatal(err)
	}
}

func TestCacheIsUsed(t *testing.T) {
	store := mustOpen(t, state(t))
	write(t, store, "secrets/a", `{}`, 0)
	first, err := store.current()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := store.current(); err != nil || first != second {
		t.Errorf("an unchanged file was read again (%v)", err)
	}
}

// A process that dies while writing leaves the file that it was writing.
func TestLeftoversAreRemoved(t *testing.T) {
	store := mustOpen(t, state(t))
	version := write(t, store, "secrets/a", `{"n":1}`, 0)
	leave := func() {
		if err := os.WriteFile(store.tmpPath(), []byte("age-encryption.org/v1\nhalf"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	mustOpen(t, filepath.Dir(store.Path()))
	if exists(store.tmpPath()) {
		t.Error("Open leaves it")
	}
	leave()
	write(t, store, "secrets/a", `{"n":2}`, version)
	if exists(store.tmpPath()) {
		t.Error("a write leaves it")
	}
}

func TestTooDeepDataIsRefused(t *testing.T) {
	store := mustOpen(t, state(t))
	for depth := 9994; depth < 10002; depth++ {
		data := strings.Repeat(`{"":`, depth) + "1" + strings.Repeat("}", depth)
		_, err := store.CAS(t.Context(), fmt.Sprintf("secrets/%d", depth), creds.NewSecret(data), 0)
		if err != nil && errors.Is(err, creds.ErrStoreUnavailable) {
			t.Fatalf("depth %d: %v", depth, err)
		}
		if err == nil {
			mustOpen(t, filepath.Dir(store.Path()))
		}
	}
}

func BenchmarkGet(b *testing.B) {
	store := mustOpen(b, state(b))
	doc := &document{records: map[string]creds.Record{}}
	for n := range 1000 {
		_, data := killRecord(n)
		doc.put(fmt.Sprintf("credentials/%d", n), data, store.now())
	}
	keys, err := readKeys(store.keyPath)
	if err == nil {
		err = store.replace(doc, keys)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.Get(b.Context(), "credentials/500"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached from all cores", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := store.Get(context.Background(), "credentials/500"); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("after a change", func(b *testing.B) {
		for b.Loop() {
			store.keep(nil)
			if _, err := store.Get(b.Context(), "credentials/500"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		version := doc.records["credentials/500"].Version
		for b.Loop() {
			version = write(b, store, "credentials/500", `{"n":1}`, version)
		}
	})
}
