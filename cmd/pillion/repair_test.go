package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
	"pillion/creds/filestore"
)

// A writer of the embedded store that dies between a credential and the index, or
// that knows no index, is noticed: by a running pillion within 12 minutes, and by
// one that starts, for all the others.
func TestEmbeddedIndexIsRepaired(t *testing.T) {
	dir := t.TempDir()
	open := func() *filestore.Store {
		t.Helper()
		store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	edit := func(ctx context.Context, store creds.Store, from, to string) {
		t.Helper()
		record, err := store.Get(ctx, creds.KeyCredentials+"tool")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(record.Data.Reveal(), `"`+from+`"`, `"`+to+`"`, 1)
		if _, err := store.CAS(ctx, creds.KeyCredentials+"tool", creds.NewSecret(text), record.Version); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store := open()
		if err := creds.Save(ctx, store, &creds.Credential{
			Name: "tool", Protocol: creds.HTTPS, URL: "https://tool.example/", Authorization: creds.Basic, Username: "first", Password: creds.NewSecret("p"),
		}); err != nil {
			t.Fatal(err)
		}
		log := &lockedBuffer{}
		d := &daemon{store: store, live: &creds.Live{Store: store}, log: slog.New(slog.NewTextHandler(log, nil))}
		user := func() string {
			c, _ := d.live.Table().ByName("tool")
			return c.Username
		}
		if err := d.live.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { d.keepIndex(ctx); close(done) }()
		edit(ctx, store, "first", "second")
		if err := d.live.Reload(ctx); err != nil || user() != "first" {
			t.Errorf("a reload finds %s (%v): then nothing needs repair", user(), err)
		}
		time.Sleep(12 * time.Minute)
		if user() != "second" || !strings.Contains(log.String(), "was repaired") {
			t.Errorf("12 minutes later the user is %s:\n%s", user(), log)
		}
		lines := strings.Count(log.String(), "\n")
		time.Sleep(time.Hour)
		if strings.Count(log.String(), "\n") != lines {
			t.Errorf("with nothing to repair it says:\n%s", log)
		}
		cancel()
		<-done
	})

	// A start repairs for those that run.
	store := open()
	others := &creds.Live{Store: store}
	if err := others.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	edit(t.Context(), store, "second", "third")
	i := &installation{t, dir, map[string]string{"PILLION_STATE": dir, "PILLION_PROXY_LISTEN": "127.0.0.1:0", "PILLION_METRICS_LISTEN": "127.0.0.1:0"}}
	if log := i.serve(); !strings.Contains(log.String(), `"the index of the credentials was repaired"`) {
		t.Errorf("the start does not say that it repaired the index:\n%s", log)
	}
	if err := others.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, _ := others.Table().ByName("tool"); c.Username != "third" {
		t.Errorf("after a start of another the user is %s", c.Username)
	}
}
