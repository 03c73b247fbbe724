package credstest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// Accessible fails the test for what axe-core has against the page that a browser's
// tab shows, by WCAG 2.2 AA and best practice; what names the page. Where there is no
// npm the test is skipped.
func Accessible(t testing.TB, tab context.Context, what string) { //nolint:revive // the test comes first, as everywhere in this package
	t.Helper()
	source, err := os.ReadFile(filepath.Join(webcheck(t), "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	there, err := chromedp.Run(tab, chromedp.Evaluate[bool](`typeof axe === "object"`))
	if err == nil && !there {
		// As source: the page's policy forbids script elements.
		_, err = chromedp.Run(tab, chromedp.Evaluate[bool](string(source)+`; true`))
	}
	if err != nil {
		t.Fatalf("%s: loading axe-core: %v", what, err)
	}
	found, err := chromedp.Run(tab, chromedp.Evaluate[string](`
		axe.run(document, {resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
		.then(r => JSON.stringify(r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.map(n => n.html.slice(0, 200) + " " + n.failureSummary)}))))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: running axe-core: %v", what, err)
	}
	var violations []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Errorf("%s: axe-core finds %s: %s\n%s", what, v.ID, v.Help, strings.Join(v.Nodes, "\n"))
	}
}
