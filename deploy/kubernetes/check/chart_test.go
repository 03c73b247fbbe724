package check

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "copy the chart's files anew")

const chart = root + "/deploy/helm/pillion"

func TestHelmLint(t *testing.T) {
	for name, arguments := range renderings {
		if _, err := tool(t, "helm", append([]string{"lint", "--strict", chart, "--quiet"}, arguments...)...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The package renders as the directory does: nothing that it needs was left out.
func TestHelmPackage(t *testing.T) {
	dir := t.TempDir()
	mustTool(t, "helm", "package", chart, "--destination", dir)
	files, err := filepath.Glob(dir + "/*.tgz")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	arguments := append([]string{"--namespace", "pillion", "--set", "console.sessionSecret=mine"}, renderings["helm everything"]...)
	packed := mustTool(t, "helm", append([]string{"template", "pillion", files[0]}, arguments...)...)
	if plain := mustTool(t, "helm", append([]string{"template", "pillion", chart}, arguments...)...); packed != plain {
		t.Error("the package renders otherwise than the chart's directory")
	}
}

// What cannot work is refused with a sentence.
func TestHelmRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"image.tag=x":        "vault.address is needed, such as https://vault.example:8200",
		"vault.adress=https": "additional properties 'adress' not allowed",
		"vault.address=https://v.example:8200,console.enabled=true":               "console.url is needed, such as https://pillion.example",
		"vault.address=https://v.example:8200,webhook.certificate.source=secret":  "webhook.certificate.caBundle is needed with source: secret",
		"vault.address=https://v.example:8200,console.url=http://pillion.example": "/console/url",
		"vault.address=https://v.example:8200,refresher.replicas=0":               "/refresher/replicas",
		"vault.address=https://v.example:8200,webhook.failurePolicy=fail":         "/webhook/failurePolicy",
		"vault.address=https://v.example:8200,sidecar.languages={cobol}":          "/sidecar/languages/0",
		"vault.address=https://v.example:8200,sidecar.memoryLimit=much":           "/sidecar/memoryLimit",
	} {
		_, err := tool(t, "helm", "template", "pillion", chart, "--set", values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", values, err, want)
		}
	}
}

// TestValues: what the schema allows stands in values.yaml, with its default. (That
// what stands there is allowed, each rendering shows.)
func TestValues(t *testing.T) {
	var values, schema map[string]any
	data, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(filepath.Join(chart, "values.schema.json")); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	known := 0
	var walk func(path string, schema, values map[string]any)
	walk = func(path string, schema, values map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			known++
			value, there := values[name]
			if !there && path+name != "global" { // Helm's own
				t.Errorf("values.yaml is silent about %s%s", path, name)
			}
			inner, _ := value.(map[string]any)
			walk(path+name+".", property.(map[string]any), inner)
		}
	}
	walk("", schema, values)
	if known < 60 {
		t.Errorf("only %d values are known", known)
	}
}

// TestDocsValues: every value that a document sets is one of the chart's.
func TestDocsValues(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(documents, root+"/README.md", chart+"/README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range regexp.MustCompile(`--set(?:-json|-file|-string)? '?([a-zA-Z.]+)=`).FindAllStringSubmatch(string(text), -1) {
			found++
			var value any = values
			for _, key := range strings.Split(set[1], ".") {
				inner, _ := value.(map[string]any)
				var known bool
				if value, known = inner[key]; !known {
					t.Errorf("%s: the chart has no value %s", filepath.Base(file), set[1])
					break
				}
				if key == "config" {
					break // pillion's own keys
				}
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d values were found in the documents", found)
	}
}

// The notes name what is to be done next, as it is installed. Helm shows them to
// whoever installs into a cluster, so that here they are rendered as a template.
func TestHelmNotes(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "pillion")
	if err := os.CopyFS(copied, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	notes, err := os.ReadFile(filepath.Join(copied, "templates/NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	template := `{{ define "notes" }}` + string(notes) + "{{ end }}notes: |\n  {{- include \"notes\" . | nindent 2 }}\n"
	if err := os.WriteFile(filepath.Join(copied, "templates/notes.yaml"), []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	out := mustTool(t, "helm", "template", "pillion", copied, "--namespace", "pillion", "--show-only", "templates/notes.yaml",
		"--set", "vault.address=https://v.example:8200,sidecar.namespaces={tools}")
	for _, want := range []string{
		`pillion/inject: "true"`,
		"deploy/vault/setup.sh kubernetes sidecar pillion-sidecar SERVICEACCOUNT tools",
		"deploy/vault/setup.sh kubernetes refresher pillion-refresher pillion-refresher pillion",
		"kubectl -n pillion rollout status statefulset/pillion-refresher",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the notes do not have %s:\n%s", want, out)
		}
	}
}

// TestCopies: a chart reads files of its own directory alone, so that it has copies
// of the rules and of the dashboard. With -update they are made anew.
func TestCopies(t *testing.T) {
	for _, name := range []string{"pillion.rules.yaml", "dashboard.json"} {
		original, err := os.ReadFile(filepath.Join(root, "deploy/monitoring", name))
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(chart, "files", name)
		if *update {
			if err := os.WriteFile(copied, original, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, original) {
			t.Errorf("%s is not deploy/monitoring/%s (go test -run TestCopies -update copies it): %v", copied, name, err)
		}
	}
}

// TestConfigurations: the program itself accepts every configuration that is shipped
// or rendered, and the webhook's command line.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "pillion")
	build := exec.Command("go", "build", "-o", program, "./cmd/pillion")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	examine := func(name string, arguments ...string) {
		t.Helper()
		command := exec.Command(program, arguments...)
		command.Env = []string{"HOME=" + dir}
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: pillion %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
		}
	}
	// What the pods mount, for the examination of files.
	examine("certificate", "webhook", "certificate", filepath.Join(dir, "pillion-tls"), "--name", "page.example")
	session := filepath.Join(dir, "pillion-session")
	if err := os.Mkdir(session, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(session, "session.key"), []byte(strings.Repeat("x", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "pillion-tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vault-ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	configurations, commands := 0, 0
	for name, text := range everything(t) {
		for _, object := range documents(t, text) {
			if data, ok := object["data"].(map[string]any); ok && data["pillion.yaml"] != nil {
				configurations++
				file := filepath.Join(dir, "pillion.yaml")
				if err := os.WriteFile(file, []byte(strings.ReplaceAll(data["pillion.yaml"].(string), "/etc/", dir+"/")), 0o600); err != nil {
					t.Fatal(err)
				}
				examine(name+": "+named(object), "check", "--config", file, "--state", filepath.Join(dir, "state"))
			}
			if strings.HasSuffix(named(object), "-webhook") && object["kind"] == "Deployment" {
				commands++
				examine(name, append(webhookArguments(object), "--help")...)
			}
		}
	}
	if configurations < 10 || commands < 4 {
		t.Errorf("only %d configurations and %d command lines were examined", configurations, commands)
	}
}

func webhookArguments(deployment map[string]any) []string {
	template := deployment["spec"].(map[string]any)["template"].(map[string]any)
	container := template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	var all []string
	for _, a := range container["args"].([]any) {
		all = append(all, a.(string))
	}
	return all
}
