package fleet

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// expectation is what a row must show beside the rules that hold for all.
type expectation struct {
	// breaks: this row shows what goes wrong without the protocol.
	breaks bool
	// deathInside: processes die while the provider works on their token request.
	// Nobody can know what it did then, so a refresh token may be sent again, and a
	// grant lost, once for each blind claim.
	deathInside bool
	// heals: the provider takes such a refresh token once more.
	heals bool
	// outages: there are times without any good token.
	outages bool
}

// result is a row of the table.
type result struct {
	row
	size
	tally
	took      time.Duration
	rotations int
	consents  int
	calls     int
	refused   int // answers in which the provider refused, or that a fault gave in its place
	invalid   int // invalid_grant
	reused    int
	gone      int
	kills     int
	stored    bool
}

func newResult(g *ground, counted tally, before, after credstest.OIDCStats, took time.Duration, stored bool) result {
	r := result{row: g.row, size: g.size, tally: counted, took: took, stored: stored, kills: g.kills, gone: g.gone}
	r.rotations = after.Granted["refresh_token"] - before.Granted["refresh_token"]
	r.consents = after.Granted["authorization_code"] - before.Granted["authorization_code"]
	r.calls, r.reused = after.Calls-before.Calls, after.Reused-before.Reused
	r.invalid = after.Errors["invalid_grant"] - before.Errors["invalid_grant"]
	r.refused = after.Unavailable - before.Unavailable + after.TooMany - before.TooMany
	for code, n := range after.Errors {
		r.refused += n - before.Errors[code]
	}
	return r
}

// check is what the table must show.
func (r result) check(t *testing.T) {
	t.Helper()
	if r.calls != r.rotations+r.consents+r.refused {
		t.Errorf("%d token calls are not %d rotations + %d consents + %d refused or faulted", r.calls, r.rotations, r.consents, r.refused)
	}
	if r.want.breaks {
		if r.reused == 0 || r.gone == 0 {
			t.Error("nothing broke: this row shows nothing")
		}
		return
	}
	fewest := int(r.took / r.life)
	if r.want.deathInside && !r.want.heals {
		fewest /= 2 // a lost grant serves nobody until a person has come
	}
	if r.rotations < fewest && !r.want.outages {
		t.Errorf("%d rotations, fewer than %d", r.rotations, fewest)
	}
	if r.reused > r.Blind {
		t.Errorf("%d refresh tokens were sent again, by %d blind claims", r.reused, r.Blind)
	}
	if r.want.heals && r.gone+r.invalid > 0 {
		t.Errorf("%d grants lost, %d times invalid_grant", r.gone, r.invalid)
	}
	if r.want.deathInside {
		if r.gone > r.Blind || r.invalid > r.Blind {
			t.Errorf("%d grants lost, %d times invalid_grant, by %d blind claims", r.gone, r.invalid, r.Blind)
		}
		return
	}
	if !r.stored {
		t.Error("the record does not hold what the provider gave last")
	}
	if r.reused+r.invalid+r.gone > 0 {
		t.Errorf("%d refresh tokens sent again, %d times invalid_grant, %d grants lost", r.reused, r.invalid, r.gone)
	}
	if r.want.outages {
		return
	}
	if r.Refused > 0 || r.Without > 0 {
		t.Errorf("%d requests ended with 401, %d had no token", r.Refused, r.Without)
	}
	if due := int(r.took.Seconds() * 4 * float64(r.sidecars)); r.OK < due*8/10 {
		t.Errorf("%d requests of %d that were due", r.OK, due)
	}
}

const tableHead = `| %.0f s run | rotations | consents | token calls | refresh token sent twice | invalid_grant | grants lost | requests ok / 401 | no token | healed 401 | refused or faulted | blind claims | deaths | longest wait | Vault requests a s |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

func writeHead(w io.Writer, s size) { fmt.Fprintf(w, tableHead, s.run.Seconds()) }

func (r result) write(w io.Writer) {
	fmt.Fprintf(w, "| %s | %d | %d | %s | %s | %s | %d | %s / %s | %s | %s | %d | %d | %d | %.1f s | %.0f |\n", r.name,
		r.rotations, r.consents, thousands(r.calls), thousands(r.reused), thousands(r.invalid), r.gone, thousands(r.OK), thousands(r.Refused),
		thousands(r.Without), thousands(r.Healed), r.refused, r.Blind, r.kills+r.Died, float64(r.Longest)/1000, float64(r.Vault)/r.took.Seconds())
}

// notes tells what the table has no room for.
func (r result) notes() string {
	var text strings.Builder
	for _, counts := range []map[string]int{r.Events, r.Notes} {
		for _, what := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] }) {
			fmt.Fprintf(&text, "\n%6d %s", counts[what], what)
		}
	}
	return text.String()
}

func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
