package main

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
)

var monitoringDir = filepath.Join("..", "..", "deploy", "monitoring")

// alertRule is a rule of pillion.rules.yaml.
type alertRule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alertRule
		}
	}
	if err := yaml.Unmarshal(readMonitoring(t, "pillion.rules.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var rules []alertRule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 20 {
		t.Fatalf("%d rules were read", len(rules))
	}
	return rules
}

func readMonitoring(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(monitoringDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// grafana is what matters here of a dashboard.
type grafana struct {
	UID        string
	Panels     []grafanaPanel
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Annotations struct {
		List []struct{ Expr string }
	}
}

type grafanaPanel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ UID string }
	}
}

func dashboard(t *testing.T) grafana {
	t.Helper()
	var g grafana
	if err := json.Unmarshal(readMonitoring(t, "dashboard.json"), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// expressions returns what the dashboard asks Prometheus, by where it stands.
func (g grafana) expressions() map[string]string {
	all := map[string]string{}
	for _, p := range g.Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = target.Expr
		}
	}
	return all
}

// Every alert has what the person it wakes needs, and a chapter of the runbook; no
// chapter is left over.
func TestAlertsHaveARunbook(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	chapters := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^## (Pillion\w+)$`).FindAllStringSubmatch(string(page), -1) {
		chapters[heading[1]] = false
	}
	for _, r := range alertRules(t) {
		if _, ok := chapters[r.Alert]; !ok {
			t.Errorf("docs/runbook.md has no chapter %s", r.Alert)
		}
		chapters[r.Alert] = true
		if want := "docs/runbook.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 80 {
			t.Errorf("%s does not say what is wrong and what to do", r.Alert)
		}
		if r.For == "" && !strings.Contains(r.Expr, "increase(") {
			t.Errorf("%s fires at the first sample", r.Alert)
		}
	}
	for name, used := range chapters {
		if !used {
			t.Errorf("docs/runbook.md has the chapter %s of no alert", name)
		}
	}
}

// Every metric and label value that rules and dashboard select is one that the program
// exposes, in what they ask as well as in what their texts ask.
func TestMonitoringSelectsWhatIsExposed(t *testing.T) {
	_, families := exposed(t)
	texts := map[string]string{}
	for _, r := range alertRules(t) {
		texts[r.Alert+" "+r.Labels["severity"]] = r.Expr + "\n" + strings.Join(slices.Collect(maps.Values(r.Annotations)), "\n")
	}
	board := dashboard(t)
	for where, expr := range board.expressions() {
		texts[where] = strings.NewReplacer("$instance", ".*", "$credential", ".*").Replace(expr)
	}
	for _, v := range board.Templating.List {
		texts["variable "+v.Name] = v.Definition
	}
	selectors := 0
	for where, text := range texts {
		for _, s := range selectorForm.FindAllStringSubmatch(text, -1) {
			selectors++
			if !selects(families, s[1], s[2]) {
				t.Errorf("%s: the program exposes no series %s", where, s[0])
			}
		}
		for _, clause := range clauseForm.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(clause[1], ",") {
				if label = strings.TrimSpace(label); !exposedLabel(families, label) {
					t.Errorf("%s: no series has the label %s", where, label)
				}
			}
		}
	}
	if selectors < 120 {
		t.Errorf("only %d selectors were found", selectors)
	}
}

var (
	selectorForm = regexp.MustCompile(`\b((?:pillion|process|go)_[a-z0-9_]+)(\{[^}]*\})?`)
	matcherForm  = regexp.MustCompile(`([a-z_]+)\s*(=~|!=|=)\s*\\?"([^"\\]*)\\?"`)
	clauseForm   = regexp.MustCompile(`\b(?:by|on)\s*\(([a-z_, ]*)\)`)
	// targetLabels come with the scrape.
	targetLabels = []string{"instance", "job", "namespace", "pod", "le"}
)

// selects reports whether a selector finds a series of the registry.
func selects(families map[string]*dto.MetricFamily, name, matchers string) bool {
	f := families[name]
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if f == nil {
			f = families[strings.TrimSuffix(name, part)]
		}
	}
	for _, metric := range f.GetMetric() {
		labels := map[string]string{}
		for _, l := range metric.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		fits := true
		for _, m := range matcherForm.FindAllStringSubmatch(matchers, -1) {
			value, there := labels[m[1]]
			switch {
			case slices.Contains(targetLabels, m[1]):
			case m[2] == "=":
				fits = fits && there && value == m[3]
			case m[2] == "=~":
				fits = fits && there && everyChoice(f, m[1], m[3])
			default:
				fits = false // none is used
			}
		}
		if fits {
			return true
		}
	}
	return false
}

// everyChoice reports whether each alternative of a pattern is a value of the label.
func everyChoice(f *dto.MetricFamily, label, pattern string) bool {
	for choice := range strings.SplitSeq(pattern, "|") {
		if !slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool {
			return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == label && (choice == ".*" || l.GetValue() == choice)
			})
		}) {
			return false
		}
	}
	return true
}

func exposedLabel(families map[string]*dto.MetricFamily, label string) bool {
	if slices.Contains(targetLabels, label) {
		return true
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == label }) {
				return true
			}
		}
	}
	return false
}

// Prometheus' own tool takes the rules, each alert fires where its test says so, and
// each has a test.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cases := string(readMonitoring(t, "pillion.rules.test.yaml"))
	for _, r := range alertRules(t) {
		if !strings.Contains(cases, `alertname="`+r.Alert+`", severity="`+r.Labels["severity"]+`"`) {
			t.Errorf("no test expects %s with the severity %s", r.Alert, r.Labels["severity"])
		}
	}
	for _, arguments := range [][]string{{"check", "rules", "pillion.rules.yaml"}, {"test", "rules", "pillion.rules.test.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, arguments...)
		command.Dir = monitoringDir
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, output)
		}
	}
}

// The dashboard is one that Grafana draws as it is meant: stable uid, panels that do
// not overlap, everything asked of the data source that the reader chooses.
func TestDashboard(t *testing.T) {
	board := dashboard(t)
	if board.UID != "pillion" {
		t.Errorf("uid %q", board.UID)
	}
	names := []string{}
	for _, v := range board.Templating.List {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"datasource", "instance", "credential"}) {
		t.Errorf("variables %v", names)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || !slices.Contains([]string{"row", "stat", "table", "timeseries"}, p.Type) {
			t.Errorf("panel %d %q of type %s", p.ID, p.Title, p.Type)
		}
		ids[p.ID] = true
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x > 23 {
					t.Errorf("%q lies outside, or over %q", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Expr == "" || target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
				t.Errorf("%q: target %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
		if len(refs) == 0 {
			t.Errorf("%q asks nothing", p.Title)
		}
	}
	if first := board.Panels[0].Title; first != "Tokens" || len(ids) < 40 {
		t.Errorf("%d panels, the first is %q", len(ids), first)
	}
}
