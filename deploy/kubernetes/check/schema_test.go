package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// definition is one of Kubernetes' swagger.json.
type definition = map[string]any

// writeSchemas makes, of the definitions of Kubernetes' API, a JSON schema for each
// kind, strict, where kubeconform looks for it. SWAGGER names the file
// (scripts/swagger.sh).
func writeSchemas(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(os.Getenv("SWAGGER"))
	if err != nil {
		t.Fatal("SWAGGER names no file: run SWAGGER=$(scripts/swagger.sh) go test: ", err)
	}
	var api struct {
		Definitions map[string]definition `json:"definitions"`
	}
	if err := json.Unmarshal(data, &api); err != nil {
		t.Fatal(err)
	}
	for _, d := range api.Definitions {
		strictly(d)
	}
	written := 0
	for name, d := range api.Definitions {
		for _, gvk := range asList(d["x-kubernetes-group-version-kind"]) {
			gvk := gvk.(map[string]any)
			// As kubeconform names them: deployment-apps-v1, networkpolicy-networking-v1, pod-v1.
			group, _, _ := strings.Cut(gvk["group"].(string), ".")
			if group != "" {
				group += "-"
			}
			file := strings.ToLower(fmt.Sprintf("%s-%s%s.json", gvk["kind"], group, gvk["version"]))
			if !strings.HasPrefix(name, "io.k8s.api.") {
				continue // DeleteOptions and its like, which have every group
			}
			needed := map[string]definition{}
			reach(api.Definitions, name, needed)
			schema, err := json.Marshal(map[string]any{"$ref": "#/definitions/" + name, "definitions": needed})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), schema, 0o600); err != nil {
				t.Fatal(err)
			}
			written++
		}
	}
	if written < 50 {
		t.Fatalf("only %d kinds in swagger.json", written)
	}
}

// strictly refuses fields that a definition does not have, and writes down what
// swagger cannot say.
func strictly(d definition) {
	if properties, ok := d["properties"].(map[string]any); ok {
		if _, open := d["additionalProperties"]; !open {
			d["additionalProperties"] = false
		}
		for _, p := range properties {
			if p := p.(map[string]any); p["format"] == "int-or-string" {
				delete(p, "type")
			}
		}
	}
	if d["format"] == "int-or-string" {
		d["type"] = []any{"string", "integer"}
	}
}

// reach collects a definition and those that it refers to.
func reach(all map[string]definition, name string, found map[string]definition) {
	if found[name] != nil {
		return
	}
	found[name] = all[name]
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				reach(all, strings.TrimPrefix(ref, "#/definitions/"), found)
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(all[name])
}

func asList(value any) []any {
	list, _ := value.([]any)
	return list
}

// kubeconform validates files; those of operators have no schema here, and TestStrict
// decodes them.
func kubeconform(t *testing.T, schemas string, files ...string) error {
	t.Helper()
	_, err := tool(t, "kubeconform", append([]string{"-strict", "-summary",
		"-schema-location", schemas + "/{{.ResourceKind}}{{.KindSuffix}}.json",
		"-skip", "PodMonitor,PrometheusRule,Certificate,Issuer"}, files...)...)
	return err
}

// TestSchema: everything is valid by the schema of Kubernetes' API.
func TestSchema(t *testing.T) {
	schemas, dir := t.TempDir(), t.TempDir()
	writeSchemas(t, schemas)
	var files []string
	write := func(name, text string) string {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, text := range everything(t) {
		files = append(files, write(name, text))
	}
	if err := kubeconform(t, schemas, files...); err != nil {
		t.Error(err)
	}
	bad := write("bad", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: http}]}]}\n")
	if err := kubeconform(t, schemas, bad); err == nil || !strings.Contains(err.Error(), "containerPort") {
		t.Errorf("a port that is no number passes: %v", err)
	}
	typo := write("typo", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, resource: {}}]}\n")
	if err := kubeconform(t, schemas, typo); err == nil || !strings.Contains(err.Error(), "resource") {
		t.Errorf("a field that does not exist passes: %v", err)
	}
}
