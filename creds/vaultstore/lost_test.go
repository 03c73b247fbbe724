package vaultstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// Writes whose answers are lost are neither doubled nor lost: eight writers count
// right although one answer in five never comes.
func TestCountingWithLostAnswers(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, lossy := vault.Mount(t), vault.Lossy(t)
	const key, writers = "tokens/count", 8
	each := countedEach()
	start := mustCAS(t, rooted(t, vault, vault.Addr, mount), key, `{"n":0}`, 0)
	lossy.LoseShare(0.2)
	var wg sync.WaitGroup
	for range writers {
		store := rooted(t, vault, lossy.Addr, mount)
		wg.Go(func() {
			if err := credstest.Count(t.Context(), store, key, each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	record, err := rooted(t, vault, vault.Addr, mount).Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"n":%d}`, writers*each); record.Data.Reveal() != want || record.Version != start+writers*each {
		t.Errorf("%s at version %d, want %s at %d", record.Data.Reveal(), record.Version, want, start+writers*each)
	}
	t.Logf("%d answers were lost", lossy.Lost())
	if lossy.Lost() < 20 {
		t.Errorf("only %d answers were lost", lossy.Lost())
	}
}

// Every writing call, its first answer lost.
func TestOneLostAnswer(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, lossy := vault.Mount(t), vault.Lossy(t)
	store, direct := rooted(t, vault, lossy.Addr, mount), rooted(t, vault, vault.Addr, mount)
	lose := func() {
		lossy.LoseNext(1, func(method, path string) bool { return method != http.MethodGet && strings.Contains(path, mount) })
	}
	wants := func(key string, data string, version int) {
		t.Helper()
		record, err := direct.Get(t.Context(), key)
		if err != nil || record.Data.Reveal() != data || record.Version != version {
			t.Errorf("%s is %s at %d (%v), want %s at %d", key, record.Data.Reveal(), record.Version, err, data, version)
		}
	}
	if _, err := store.Get(t.Context(), "index"); !errors.Is(err, creds.ErrNotFound) {
		t.Fatal(err)
	}

	lose()
	mustCAS(t, store, "tokens/a", `{"n":1}`, 0)
	wants("tokens/a", `{"n":1}`, 1)
	lose()
	mustCAS(t, store, "tokens/a", `{"n":2}`, 1)
	wants("tokens/a", `{"n":2}`, 2)
	lose()
	if version, err := store.Patch(t.Context(), "tokens/a", creds.NewSecret(`{"m":3}`)); err != nil || version != 3 {
		t.Errorf("patch: %d, %v", version, err)
	}
	wants("tokens/a", `{"m":3,"n":2}`, 3)
	lose()
	if version, err := store.Patch(t.Context(), "tokens/b", creds.NewSecret(`{"m":{"x":null}}`)); err != nil || version != 1 {
		t.Errorf("patch that creates: %d, %v", version, err)
	}
	wants("tokens/b", `{"m":{}}`, 1)
	lose()
	if err := store.Delete(t.Context(), "tokens/b"); err != nil {
		t.Error(err)
	}
	if lossy.Lost() != 5 {
		t.Errorf("%d answers were lost, want 5", lossy.Lost())
	}
	// A stale write is a conflict, whether its answer is lost or not.
	lose()
	if _, err := store.CAS(t.Context(), "tokens/a", creds.NewSecret(`{"n":2}`), 1); !errors.Is(err, creds.ErrConflict) {
		t.Errorf("a stale write: %v", err)
	}
	wants("tokens/a", `{"m":3,"n":2}`, 3)
}

const countingProcess = "PILLION_TEST_COUNTING"

// countedEach is how far each of several writers counts.
func countedEach() int { return credstest.Often(50) }

// TestMain lets the test binary be one of the eight processes.
func TestMain(m *testing.M) {
	if address := os.Getenv(countingProcess); address != "" {
		os.Exit(countAsProcess(address))
	}
	os.Exit(m.Run())
}

func countAsProcess(address string) int {
	c, err := New(Config{Address: address, Mount: os.Getenv("PILLION_TEST_MOUNT")}.WithEnvironment(os.Getenv), os.Getenv)
	if err == nil {
		err = credstest.Count(context.Background(), c.Store(""), "tokens/processes", countedEach())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Eight processes lose no count; one answer to a write in ten is lost.
func TestEightProcessesCount(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, lossy := vault.Mount(t), vault.Lossy(t)
	direct := rooted(t, vault, vault.Addr, mount)
	mustCAS(t, direct, "tokens/processes", `{"n":0}`, 0)
	lossy.LoseShare(0.1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), countingProcess+"="+lossy.Addr, "PILLION_TEST_MOUNT="+mount, "VAULT_TOKEN="+vault.Root)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	record, err := direct.Get(t.Context(), "tokens/processes")
	if want := `{"n":` + strconv.Itoa(8*countedEach()) + `}`; err != nil || record.Data.Reveal() != want || record.Version != 1+8*countedEach() {
		t.Errorf("%s at version %d (%v), want %s", record.Data.Reveal(), record.Version, err, want)
	}
	t.Logf("%d answers were lost", lossy.Lost())
}

// A lost write of which KV has no version left, since others wrote many more, is
// found by its mark in the newest one; a lost conflict is told from it.
func TestLostAnswerUnderManyWriters(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, lossy := vault.Mount(t), vault.Lossy(t)
	const key = "tokens/busy"
	direct, slow := rooted(t, vault, vault.Addr, mount), rooted(t, vault, lossy.Addr, mount)
	many := func() {
		for range 6 {
			now, err := direct.Get(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := direct.CAS(t.Context(), key, creds.NewSecret(`{"n":2}`), now.Version); err != nil {
				t.Error(err)
			}
			if _, err := direct.Patch(t.Context(), key, creds.NewSecret(`{"m":1}`)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, won := range []bool{true, false} {
		if err := direct.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		mustCAS(t, direct, key, `{"n":0}`, 0)
		record, err := slow.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if !won {
			many()
		}
		lossy.LoseNext(1, func(method, path string) bool { return method == http.MethodPost && strings.Contains(path, key) })
		var once sync.Once
		slow.client.OnRequest = func(operation string, status int, _ time.Duration) {
			if won && operation == "cas" && status == 0 {
				once.Do(many)
			}
		}
		version, err := slow.CAS(t.Context(), key, creds.NewSecret(`{"n":1}`), record.Version)
		slow.client.OnRequest = nil
		switch {
		case won && (err != nil || version != 2):
			t.Errorf("a write that was applied: %d, %v", version, err)
		case !won && !errors.Is(err, creds.ErrConflict):
			t.Errorf("a write that came too late: %d, %v", version, err)
		}
	}
}
