package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// The page that explains the refusals and the table of them name the same ones,
// with the same status.
func TestErrorsPageIsInStep(t *testing.T) {
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (\\d+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]+" "+row[2]] = true
	}
	for _, k := range kinds {
		row := fmt.Sprintf("%s %d", k.name, k.status)
		if !documented[row] {
			t.Errorf("docs/errors.md has no row %s", row)
		}
		delete(documented, row)
	}
	for row := range documented {
		t.Errorf("docs/errors.md has a row %s, which is no kind", row)
	}
}

// Whatever a stage returns, its text is ours: nothing of an unknown error's own
// text reaches a client.
func TestProblemOfUnknownErrorQuotesNothing(t *testing.T) {
	p := problemOf(errors.New("malformed HTTP response \"secret of the tool\""))
	if p.kind != kindUnreachable || strings.Contains(p.detail, "secret") {
		t.Errorf("got %v", p)
	}
}

func TestRawProblemIsAWholeResponse(t *testing.T) {
	p := problemOf(&creds.TokenError{Credential: "jira", Reason: "timeout", RetryAfter: 1500 * time.Millisecond})
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(p.raw()))), nil)
	if err != nil {
		t.Fatal(err)
	}
	detail := checkProblem(t, resp, kindTokenUnavailable)
	if !strings.Contains(detail, "jira") || resp.Header.Get("Retry-After") != "2" || !resp.Close {
		t.Errorf("detail %q, header %v", detail, resp.Header)
	}
}
