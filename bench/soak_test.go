package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The whole soak, short: it finds nothing, and pillion is as idle afterwards as before.
func TestSoak(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pillion")
	build := exec.Command("go", "build", "-o", binary, "./cmd/pillion")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pillion: %v\n%s", err, out)
	}
	var out bytes.Buffer
	s := &soak{plan: soakPlan{For: 5 * time.Second, Rate: 250, Every: time.Second}, out: &out}
	if err := s.run(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	if err := s.findings.err(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for i, way := range soakWays {
		if s.tally.ways[i].Load() == 0 {
			t.Errorf("no requests by %s", way)
		}
	}
	for name, shares := range map[string][]share{"usual": usual, "unusual": unusual, "left by their clients": abandoned} {
		done := 0
		for _, one := range shares {
			done += s.tally.of(one.make().kind)
		}
		if done == 0 {
			t.Errorf("no requests %s", name)
		}
	}
	if s.after.Refreshes < 4 || len(s.samples) < 2 || s.reloads.count == 0 {
		t.Errorf("%v tokens, %d samples, %d reloads", s.after.Refreshes, len(s.samples), s.reloads.count)
	}
	r := soakReport{soak: s, machine: lookAround([]string{"soak"})}
	if text := r.markdown(); !strings.Contains(text, "| goroutines |") || !strings.Contains(text, "**0 findings.**") {
		t.Errorf("the report says\n%s", text)
	}
	if err := xml.Unmarshal([]byte(r.plot()), new(struct{})); err != nil {
		t.Errorf("the plot is no XML: %v", err)
	}
}

// A soak whose checks let anything pass would find nothing either.
func TestSoakFinds(t *testing.T) {
	e := errand{order: order{ID: 8, Down: 1000}, kind: "get", method: http.MethodGet}
	answer := func(change func(*http.Response)) error {
		body := pieceOf(8, 1000)
		r := &http.Response{StatusCode: 200, ContentLength: 1000, Header: http.Header{soakID: {"8"}}, Body: io.NopCloser(bytes.NewReader(body))}
		change(r)
		return e.check(r)
	}
	with := func(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
	if err := answer(func(*http.Response) {}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(*http.Response)
	}{
		{"another status", func(r *http.Response) { r.StatusCode = 502 }},
		{"a 401 where it could have been sent again", func(r *http.Response) { r.StatusCode, r.Body = 401, with(e.refusal()) }},
		{"the answer to another request", func(r *http.Response) { r.Header.Set(soakID, "16") }},
		{"no number", func(r *http.Response) { r.Header.Del(soakID) }},
		{"two numbers", func(r *http.Response) { r.Header.Add(soakID, "8") }},
		{"another length", func(r *http.Response) { r.ContentLength = -1 }},
		{"one byte less", func(r *http.Response) { r.Body = with(pieceOf(8, 999)) }},
		{"one byte more", func(r *http.Response) { r.Body = with(pieceOf(8, 1001)) }},
		{"another byte", func(r *http.Response) {
			b := bytes.Clone(pieceOf(8, 1000))
			b[500]++
			r.Body = with(b)
		}},
		{"a body of another request", func(r *http.Response) { r.Body = with(pieceOf(9, 1000)) }},
		{"a body that breaks off", func(r *http.Response) {
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(pieceOf(8, 400)), brokenReader{}))
		}},
	} {
		if answer(row.change) == nil {
			t.Errorf("%s passes", row.name)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestSoakFindsCutAnswersThatEndInOrder(t *testing.T) {
	half := bytes.NewReader(pieceOf(8, 500))
	cut := verify(io.MultiReader(half, brokenReader{}), pieceOf(8, 1000))
	if err := checkCut(cut, 1000); err != nil {
		t.Errorf("a cut that is seen: %v", err)
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(pieceOf(8, 1000)), "half": bytes.NewReader(pieceOf(8, 500)), "another": bytes.NewReader(pieceOf(9, 500)),
	} {
		if checkCut(verify(r, pieceOf(8, 1000)), 1000) == nil {
			t.Errorf("%s passes for a cut", name)
		}
	}
}

// The origin lets in what carries one right credential, in its place alone.
func TestSoakOriginsDoorman(t *testing.T) {
	var f findings
	d := &doorman{tokens: newSoakTokens(time.Minute, &f)}
	d.rotate("first")
	d.rotate("second")
	d.settled()
	token := d.tokens.issue("oauth")
	others := d.tokens.issue("both-oauth")
	header := func(name, value string) *http.Request {
		return &http.Request{Header: http.Header{name: {value}}, URL: new(url.URL)}
	}
	for _, row := range []struct {
		key  string
		r    *http.Request
		want string
	}{
		{"static", header("Authorization", "Bearer secret-of-static"), "let in"},
		{"static", header("Authorization", "Bearer secret-of-both"), "wrong"},
		{"static", header("X-Other", "Bearer secret-of-static"), "wrong"},
		{"static", &http.Request{Header: http.Header{"Authorization": {"Bearer secret-of-static"}, soakHeader: {"x"}}, URL: new(url.URL)}, "wrong"},
		{"static", &http.Request{Header: http.Header{"Authorization": {"Bearer secret-of-static", "Bearer secret-of-static"}}, URL: new(url.URL)}, "wrong"},
		{"basic", header("Authorization", "Basic c29hazpzZWNyZXQtb2YtYmFzaWM="), "let in"},
		{"header", header(soakHeader, "secret-of-header"), "let in"},
		{"query", &http.Request{URL: &url.URL{RawQuery: "api_key=secret-of-query"}}, "let in"},
		{"rotated", header("Authorization", "Bearer first"), "wrong"},
		{"rotated", header("Authorization", "Bearer second"), "let in"},
		{"oauth", header("Authorization", "Bearer "+token), "let in"},
		{"oauth", header("Authorization", "Bearer "+others), "wrong"},
		{"oauth", header("Authorization", "Bearer made-up"), "wrong"},
	} {
		key, _ := soakKeyNamed(row.key)
		if got := admitted(d, key, row.r); got != row.want {
			t.Errorf("%s: %v is %s, want %s", row.key, row.r.Header, got, row.want)
		}
	}
	key, _ := soakKeyNamed("oauth")
	d.tokens.revoke("oauth")
	if got := admitted(d, key, header("Authorization", "Bearer "+token)); got != "refused" {
		t.Errorf("a revoked token is %s", got)
	}
	d.tokens.tokens[token].expires = time.Now().Add(-time.Second)
	if got := admitted(d, key, header("Authorization", "Bearer "+token)); got != "wrong" {
		t.Errorf("an expired token is %s", got)
	}
}

func admitted(d *doorman, key soakKey, r *http.Request) string {
	good, err := d.admit(key, r)
	switch {
	case err != nil:
		return "wrong"
	case good:
		return "let in"
	default:
		return "refused"
	}
}

// A small leak is found, an uneven flat line is not.
func TestSoakJudges(t *testing.T) {
	const d = 30 * time.Minute
	for _, row := range []struct {
		name  string
		leak  func(*soakSample, float64) // what a second adds
		finds bool
	}{
		{"nothing", func(*soakSample, float64) {}, false},
		{"a goroutine in 30 s", func(s *soakSample, seconds float64) { s.Goroutines += seconds / 30 }, true},
		{"a file in 30 s", func(s *soakSample, seconds float64) { s.Files += seconds / 30 }, true},
		{"6 KiB a second", func(s *soakSample, seconds float64) { s.Anonymous += 6 << 10 * seconds }, true},
	} {
		s := &soak{plan: soakPlan{For: d}, findings: new(findings)}
		for i := range 360 {
			at := time.Duration(i) * 5 * time.Second
			uneven := float64(i * 7 % 10)
			sample := soakSample{At: at, RSS: 40*mebi + uneven*mebi/2, Anonymous: 30*mebi + uneven*mebi/2, Heap: 20 * mebi, Goroutines: 150 + uneven, Files: 120 + uneven}
			row.leak(&sample, at.Seconds())
			s.samples = append(s.samples, sample)
		}
		s.judge()
		if found := s.findings.number() > 0; found != row.finds {
			t.Errorf("%s: %v", row.name, s.findings.list())
		}
	}
}

func TestSoakOptions(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"-help", "help requested"}, {"-for 1s", "5s to 24h"}, {"-rate 0", "1 to 5000"}, {"more", "5s to 24h"}, {"-pillion /nowhere", "make build"}, {"-pillion none", "needs a pillion"},
	} {
		var help bytes.Buffer
		err := runSoak(t.Context(), strings.Fields(row.args), io.Discard, &help)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.args, err, row.want)
		}
		for _, flag := range []string{"pillion", "out", "for", "rate"} {
			if row.args == "-help" && !strings.Contains(help.String(), fmt.Sprintf("\n  -%s ", flag)) {
				t.Errorf("the usage lacks -%s", flag)
			}
		}
	}
}

func TestOrdersTravel(t *testing.T) {
	o := order{ID: 1 << 40, Status: 204, Down: 5, Up: 7, Drip: time.Second, Cut: cutAll}
	query, err := url.ParseQuery(o.query())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readOrder(query); err != nil || *got != o {
		t.Errorf("%+v became %+v, %v", o, got, err)
	}
	if _, err := readOrder(url.Values{"o": {`{"Down":99999999}`}}); err == nil {
		t.Error("an order of 100 MB was taken")
	}
}
