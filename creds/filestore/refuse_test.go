package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"pillion/creds"
	"pillion/creds/credstest"
)

// place is a state directory with a store that holds one record, to be spoilt.
type place struct {
	dir, store, key string
	recipient       string
	canary          string
}

func newPlace(t testing.TB) place {
	t.Helper()
	p := place{dir: state(t), canary: credstest.Canary("record").Reveal()}
	store := mustOpen(t, p.dir)
	p.store, p.key = store.Path(), store.keyPath
	write(t, store, "secrets/a", `{"secret":"`+p.canary+`"}`, 0)
	text, err := os.ReadFile(p.key)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "# public key: ")
	p.recipient, _, _ = strings.Cut(after, "\n")
	return p
}

func mustPut(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sealFor is what a hand with the stock age tool would write.
func sealFor(t testing.TB, recipient, plain string) []byte {
	t.Helper()
	to, err := parseRecipients([]string{recipient})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal([]byte(plain), to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func newKey(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

type refusal struct {
	name  string
	spoil func(t *testing.T, p place)
	want  string // STORE, KEY and DIR stand for the paths
}

var refusals = []refusal{
	{"a key that others may read", func(t *testing.T, p place) { chmod(t, p.key, 0o644) },
		"the key file KEY can be read or written by others (mode 0644): chmod 600 KEY, and consider its key known"},
	{"a key that is missing beside a store", func(t *testing.T, p place) { remove(t, p.key) },
		"the key file KEY is missing: put it back from a backup, for without it the store cannot be read"},
	{"a key that is a directory", func(t *testing.T, p place) { remove(t, p.key); mkdir(t, p.key) },
		"the key file KEY is not a regular file: name another one"},
	{"an empty key", func(t *testing.T, p place) { mustPut(t, p.key, nil) },
		"the key file KEY holds no age identity: put it back from a backup"},
	{"a torn key", func(t *testing.T, p place) { mustPut(t, p.key, []byte("# key\nAGE-SECRET-KEY-1QQ"+p.canary)) },
		"line 2 of the key file KEY is not an age identity: put the file back from a backup"},
	{"a public key for a key", func(t *testing.T, p place) { mustPut(t, p.key, []byte(p.recipient)) },
		"line 1 of the key file KEY is not an age identity: put the file back from a backup"},
	{"another key", func(t *testing.T, p place) { mustPut(t, p.key, []byte(newKey(t).String())) },
		"STORE was not encrypted to the key in KEY: put back the key file that belongs to it"},
	{"an empty store", func(t *testing.T, p place) { mustPut(t, p.store, nil) },
		"STORE is empty: restore it from a backup"},
	{"a truncated store", func(t *testing.T, p place) { spoilBytes(t, p.store, func(b []byte) []byte { return b[:len(b)-1] }) },
		"STORE is damaged: restore it from a backup"},
	{"a store with a flipped bit", func(t *testing.T, p place) {
		spoilBytes(t, p.store, func(b []byte) []byte { b[len(b)-20] ^= 1; return b })
	}, "STORE is damaged: restore it from a backup"},
	{"a store with a tail", func(t *testing.T, p place) { spoilBytes(t, p.store, func(b []byte) []byte { return append(b, 0) }) },
		"STORE is damaged: restore it from a backup"},
	{"a store with a damaged header", func(t *testing.T, p place) {
		spoilBytes(t, p.store, func(b []byte) []byte { return bytes.Replace(b, []byte("\n---"), []byte("\n--"), 1) })
	}, "STORE is damaged: restore it from a backup"},
	{"a foreign file", func(t *testing.T, p place) { mustPut(t, p.store, []byte("SQLite format 3\x00"+p.canary)) },
		"STORE is not an age file: name another file, or restore the store from a backup"},
	{"an armored store", func(t *testing.T, p place) { mustPut(t, p.store, []byte(armored+"\n")) },
		"STORE is an armored age file: encrypt it again without -a"},
	{"an age file with something else inside", replaceBy(`{"canary":1}`),
		"STORE holds something else than a pillion store: name another file, or restore the store from a backup"},
	{"another JSON value", replaceBy(`["CANARY"]`),
		"STORE holds something else than a pillion store: name another file, or restore the store from a backup"},
	{"broken JSON", replaceBy(`{"format":"pillion-store","version":"1.0",CANARY`),
		"STORE holds no JSON from byte 43 on: correct it there, or restore it from a backup"},
	{"a newer major version", replaceBy(`{"format":"pillion-store","version":"2.0","records":["CANARY"]}`),
		"STORE was written by a newer pillion (store format 2.0, this one reads 1): upgrade this one"},
	{"no version", replaceBy(`{"format":"pillion-store","records":{}}`),
		"STORE holds something else than a pillion store: name another file, or restore the store from a backup"},
	{"an unknown member", replaceBy(`{"format":"pillion-store","version":"1.0","records":{},"CANARY":1}`),
		"STORE does not follow store format 1.0: undo what was edited in it, or restore it from a backup"},
	{"no records", replaceBy(`{"format":"pillion-store","version":"1.0"}`),
		"STORE does not follow store format 1.0: undo what was edited in it, or restore it from a backup"},
	{"a wrong type", replaceBy(`{"format":"pillion-store","version":"1.0","records":{"a":"CANARY"}}`),
		"STORE does not follow store format 1.0: undo what was edited in it, or restore it from a backup"},
	{"a wrong time", replaceBy(`{"format":"pillion-store","version":"1.0","records":{"a":{"version":1,"created":"CANARY","data":{}}}}`),
		"STORE does not follow store format 1.0: undo what was edited in it, or restore it from a backup"},
	{"a record without a version", replaceBy(`{"format":"pillion-store","version":"1.0","records":{"a":{"created":"2025-01-01T00:00:00Z","data":{"a":"CANARY"}}}}`),
		`STORE holds a record "a" that is not whole: correct it, or restore the store from a backup`},
	{"a record that is no object", replaceBy(`{"format":"pillion-store","version":"1.0","records":{"a":{"version":1,"created":"2025-01-01T00:00:00Z","data":"CANARY"}}}`),
		`STORE holds a record "a" that is not whole: correct it, or restore the store from a backup`},
	{"a symbolic link", func(t *testing.T, p place) {
		rename(t, p.store, p.store+".real")
		if err := os.Symlink(p.store+".real", p.store); err != nil {
			t.Fatal(err)
		}
	}, "STORE is a symbolic link, which a write would replace: name the file that it leads to"},
	{"a directory", func(t *testing.T, p place) { remove(t, p.store); mkdir(t, p.store) },
		"STORE is not a regular file: name another file"},
	{"a pipe", func(t *testing.T, p place) {
		remove(t, p.store)
		if err := syscall.Mkfifo(p.store, 0o600); err != nil {
			t.Fatal(err)
		}
	}, "STORE is not a regular file: name another file"},
	{"a file of a gigabyte", func(t *testing.T, p place) {
		if err := os.Truncate(p.store, 1<<30); err != nil {
			t.Fatal(err)
		}
	}, "STORE is larger than a store can be (64 MiB): name another file, or restore the store from a backup"},
}

func replaceBy(plain string) func(t *testing.T, p place) {
	return func(t *testing.T, p place) {
		mustPut(t, p.store, sealFor(t, p.recipient, strings.ReplaceAll(plain, "CANARY", p.canary)))
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) { check(t, os.Chmod(path, mode)) }
func remove(t *testing.T, path string)                  { check(t, os.Remove(path)) }
func mkdir(t *testing.T, path string)                   { check(t, os.Mkdir(path, 0o700)) }
func rename(t *testing.T, from, to string)              { check(t, os.Rename(from, to)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func spoilBytes(t *testing.T, path string, spoil func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	mustPut(t, path, spoil(text))
}

// Whatever is wrong has a sentence of its own, both at the start and in a running
// process, and nothing is overwritten.
func TestRefusals(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			p := newPlace(t)
			running := mustOpen(t, p.dir)
			r.spoil(t, p)
			before := contents(t, p.dir)

			_, err := openIn(p.dir)
			wantRefused(t, p, err, r.want)
			// A running process serves what it has decrypted as long as the file is
			// the same; it never writes with a key that it may not use.
			_, err = running.CAS(t.Context(), "secrets/b", creds.NewSecret(`{}`), 0)
			wantRefused(t, p, err, r.want)
			if strings.HasPrefix(r.want, "STORE") && r.name != "another key" {
				_, err = running.Get(t.Context(), "secrets/a")
				wantRefused(t, p, err, r.want)
			}

			if after := contents(t, p.dir); after != before {
				t.Errorf("the directory was changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func wantRefused(t *testing.T, p place, err error, want string) {
	t.Helper()
	want = strings.NewReplacer("STORE", p.store, "KEY", p.key, "DIR", p.dir).Replace(want)
	want = creds.ErrStoreUnavailable.Error() + ": " + want
	if err == nil || !errors.Is(err, creds.ErrStoreUnavailable) || err.Error() != want {
		t.Errorf("error:\n%v\nwant\n%s", err, want)
		return
	}
	credstest.FindCanaries(t, []byte(err.Error()))
}

// contents is names, modes, sizes and bytes of what is in dir.
func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var b strings.Builder
	for _, entry := range entries {
		info, err := entry.Info()
		check(t, err)
		fmt.Fprintln(&b, entry.Name(), info.Mode(), info.ModTime())
		if info.Mode().IsRegular() && info.Size() < 1<<20 {
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			check(t, err)
			fmt.Fprintf(&b, "%x\n", text)
		}
	}
	return b.String()
}

func TestStoreThatIsGoneIsNotMadeAnewByARunningProcess(t *testing.T) {
	p := newPlace(t)
	running := mustOpen(t, p.dir)
	remove(t, p.store)
	const want = "STORE is gone: restore it from a backup, or start again for an empty one"
	_, err := running.Get(t.Context(), "secrets/a")
	wantRefused(t, p, err, want)
	_, err = running.CAS(t.Context(), "secrets/a", creds.NewSecret(`{}`), 0)
	wantRefused(t, p, err, want)
	if exists(p.store) {
		t.Error("it was made anew")
	}
}

// A process that runs while the file is damaged goes on when it is restored.
func TestRestoredStoreIsServedAgain(t *testing.T) {
	p := newPlace(t)
	running := mustOpen(t, p.dir)
	good, err := os.ReadFile(p.store)
	check(t, err)
	mustPut(t, p.store, []byte("damage"))
	if _, err := running.Get(t.Context(), "secrets/a"); err == nil {
		t.Fatal("a damaged file is served")
	}
	mustPut(t, p.store, good)
	if _, err := running.Get(t.Context(), "secrets/a"); err != nil {
		t.Error(err)
	}
}

func TestStateDirectoryMustBeOurs(t *testing.T) {
	p := newPlace(t)
	chmod(t, p.dir, 0o777)
	_, err := openIn(p.dir)
	wantRefused(t, p, err, "others can write to the state directory DIR (mode 0777): chmod go-w DIR, or name a directory of its own inside it")
	chmod(t, p.dir, 0o755) // others may look: what clients need lies below
	mustOpen(t, p.dir)

	dir, owner := "/", 0
	if os.Geteuid() == 0 {
		dir, owner = filepath.Join(t.TempDir(), "theirs"), nobody
		mkdir(t, dir)
		check(t, os.Chown(dir, nobody, nobody))
	}
	_, err = openIn(dir)
	wantRefused(t, p, err, fmt.Sprintf("the state directory %s belongs to uid %d and this is uid %d: run pillion as its owner", dir, owner, os.Geteuid()))
	if exists(filepath.Join(dir, "key.txt")) {
		t.Error("a key was made in a directory of others")
	}
}

// Root may read everything, so the process that must fail is another user's.
func TestUnreadableFiles(t *testing.T) {
	p := newPlace(t)
	open := func() error {
		_, err := openIn(p.dir)
		return err
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
		check(t, os.Chown(p.dir, nobody, nobody))
		for dir := filepath.Dir(p.dir); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
			chmod(t, dir, 0o755)
		}
		open = func() error {
			out, err := part(t.Context(), t, "nobody", p.dir).CombinedOutput()
			if err == nil {
				return nil
			}
			return fmt.Errorf("%w%s", creds.ErrStoreUnavailable, strings.TrimPrefix(strings.TrimSpace(string(out)), creds.ErrStoreUnavailable.Error()))
		}
	}
	if os.Geteuid() != 0 {
		chmod(t, p.key, 0o000)
	}
	wantRefused(t, p, open(), fmt.Sprintf("the key file KEY cannot be read by uid %d (permission denied): make that user its owner", uid))
	if os.Geteuid() == 0 {
		check(t, os.Chown(p.key, nobody, nobody))
	} else {
		chmod(t, p.key, 0o600)
		chmod(t, p.store, 0o000)
	}
	wantRefused(t, p, open(), fmt.Sprintf("STORE cannot be read by uid %d (permission denied): make that user its owner", uid))
}

func TestNewerMinorVersionIsReadAndNotWritten(t *testing.T) {
	p := newPlace(t)
	replaceBy(`{"format":"pillion-store","version":"1.7","new":1,"records":{"secrets/a":{"version":3,"created":"2025-01-01T00:00:00Z","data":{"a":1},"more":[]}}}`)(t, p)
	before := contents(t, p.dir)
	store := mustOpen(t, p.dir)
	record, err := store.Get(t.Context(), "secrets/a")
	if err != nil || record.Version != 3 || !record.Created.Equal(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("read %v, %v", record, err)
	}
	_, err = store.Patch(t.Context(), "secrets/a", creds.NewSecret(`{}`))
	wantRefused(t, p, err, "STORE was written by a newer pillion (store format 1.7): upgrade this one to change it")
	if after := contents(t, p.dir); after != before {
		t.Error("it was changed")
	}
}

func TestRecipientsThatAreNoneAreNotQuoted(t *testing.T) {
	secret := newKey(t).String()
	_, err := Open(filepath.Join(state(t), "store.age"), "key.txt", secret)
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("an identity for a recipient: %v", err)
	}
}

// Both a second identity in the key file and an extra recipient open the store.
func TestSeveralRecipients(t *testing.T) {
	p := newPlace(t)
	second, recovery := newKey(t), newKey(t)
	running := mustOpen(t, p.dir)
	text, err := os.ReadFile(p.key)
	check(t, err)
	mustPut(t, p.key, fmt.Appendf(text, "# second\r\n%s\r\n", second))

	write(t, running, "secrets/b", `{}`, 0) // a running process takes the second up
	wantDecrypts(t, p.store, second)

	store, err := Open(p.store, p.key, recovery.Recipient().String())
	check(t, err)
	write(t, store, "secrets/c", `{}`, 0)
	wantDecrypts(t, p.store, second)
	wantDecrypts(t, p.store, recovery)
	check(t, store.Close())

	mustPut(t, p.key, []byte(second.String()))
	if _, err := mustOpen(t, p.dir).Get(t.Context(), "secrets/a"); err != nil {
		t.Error(err)
	}
}

func wantDecrypts(t *testing.T, path string, identity age.Identity) {
	t.Helper()
	sealed, err := os.ReadFile(path)
	check(t, err)
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	check(t, err)
	_, err = io.Copy(io.Discard, r)
	check(t, err)
}

// A key file belongs to its user alone, or to root, who may lend it to a group.
func TestWhoMayReadTheKey(t *testing.T) {
	for _, row := range []struct {
		mode        fs.FileMode
		owner, euid uint32
		refused     bool
	}{
		{0o600, 1000, 1000, false},
		{0o400, 1000, 1000, false},
		{0o640, 1000, 1000, true},
		{0o604, 1000, 1000, true},
		{0o440, 0, 1000, false},
		{0o640, 0, 1000, false},
		{0o660, 0, 1000, true},
		{0o444, 0, 1000, true},
		{0o640, 0, 0, true},
	} {
		if refused := row.mode&^allowedMode(fileOf{owner: row.owner}, int(row.euid)) != 0; refused != row.refused {
			t.Errorf("mode %04o of uid %d for uid %d: refused %t", row.mode, row.owner, row.euid, refused)
		}
	}
}

type fileOf struct {
	fs.FileInfo
	owner uint32
}

func (f fileOf) Sys() any { return &syscall.Stat_t{Uid: f.owner} }
