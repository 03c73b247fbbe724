package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// workerVariable in the environment makes this binary a worker.
const workerVariable = "PILLION_FLEET_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		if err := runWorker(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// rows are those of the table, in its order.
var rows = []row{
	{name: "every sidecar for itself (plain x/oauth2, write back)", kind: "alone", want: expectation{breaks: true}},
	{name: "check-and-set without a lease", kind: "cas", want: expectation{breaks: true}},
	{name: "every sidecar a refresher"},
	{name: "3 refreshers, 197 readers", refreshers: 3},
	{name: "crash 10 % after claim, journal or write", crash: 0.1},
	{name: "the same without the journal, 2 min", times: 2, crash: 0.1, noJournal: true, want: expectation{deathInside: true}},
	{name: "Vault loses 20 % of its answers to writes", lost: 0.2},
	{name: "token endpoint 30 % 503, 20 % 429", faults: credstest.OIDCFaults{Unavailable: 0.3, TooMany: 0.2}, want: expectation{outages: true}},
	{name: "Vault frozen 6 s, four times; tokens live for 20 s", lives: 2, freezes: 4},
	{name: "access token revoked at the provider every 10 s", revokeEvery: 10 * time.Second, want: expectation{outages: true}},
	// At most one refresh in 30 s is forced by a 401. Here that is enough.
	{name: "the same every 31 s, 90 s", times: 1.5, revokeEvery: 31 * time.Second, want: expectation{outages: true}},
	{
		name: "SIGKILLs, crashes 5 %, lost answers 10 %, 503 20 %, 429 10 %, 90 s", times: 1.5,
		crash: 0.05, lost: 0.1, faults: credstest.OIDCFaults{Unavailable: 0.2, TooMany: 0.1}, killEvery: time.Second,
		want: expectation{deathInside: true},
	},
	{
		name: "the same over 3 refreshers, tokens revoked every 10 s, 90 s", times: 1.5, refreshers: 3,
		crash: 0.05, lost: 0.1, faults: credstest.OIDCFaults{Unavailable: 0.2, TooMany: 0.1}, killEvery: time.Second, revokeEvery: 10 * time.Second,
		want: expectation{deathInside: true},
	},
	{name: "death inside 30 % of the token requests", dieInside: 0.3, want: expectation{deathInside: true}},
	{name: "the same, with a spare consent", dieInside: 0.3, spare: true, want: expectation{deathInside: true}},
	{name: "the same, the provider with a leeway of a minute", dieInside: 0.3, leeway: time.Minute, want: expectation{deathInside: true, heals: true}},
}

// TestFleet is the short form: two processes with ten sidecars each, tokens that live
// for a few seconds, and all that may go wrong at once.
func TestFleet(t *testing.T) {
	s := size{processes: 2, sidecars: 20, life: 10 * time.Second, run: 20 * time.Second}
	for _, r := range []row{
		{
			name: "every sidecar a refresher, which crash", crash: 0.1,
			faults: credstest.OIDCFaults{Unavailable: 0.2}, want: expectation{outages: true},
		},
		{
			name: "two refreshers and 18 readers over a Vault that loses answers, tokens revoked", refreshers: 2,
			lost: 0.2, revokeEvery: 7 * time.Second, want: expectation{outages: true},
		},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			result := r.runs(t, s)
			result.check(t)
			var line strings.Builder
			writeHead(&line, s)
			result.write(&line)
			t.Logf("\n%s%s", line.String(), result.notes())
		})
	}
}

// TestFleetTable is `make fleet`: 200 sidecars in 8 processes, a minute a row, or as
// long as PILLION_FLEET_RUN says (5m). With PILLION_FLEET_ROWS=text only rows with
// that in their names run.
func TestFleetTable(t *testing.T) {
	if os.Getenv("PILLION_FLEET") == "" {
		return
	}
	s := size{processes: 8, sidecars: 200, life: 10 * time.Second, run: time.Minute}
	if run, err := time.ParseDuration(os.Getenv("PILLION_FLEET_RUN")); err == nil {
		s.run = run
	}
	var table strings.Builder
	writeHead(&table, s)
	for _, r := range rows {
		if !strings.Contains(r.name, os.Getenv("PILLION_FLEET_ROWS")) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			result := r.runs(t, s)
			result.check(t)
			result.write(&table)
			var line strings.Builder
			result.write(&line)
			t.Log(strings.TrimSpace(line.String()), result.notes())
		})
	}
	fmt.Print("\n", table.String())
	if err := os.WriteFile(filepath.Join("..", "..", "..", ".test", "fleet.md"), []byte(table.String()), 0o644); err != nil {
		t.Error(err)
	}
}
