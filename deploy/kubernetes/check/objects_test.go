// Package check holds what is shipped for Kubernetes, and what `pillion inject`
// makes, against Kubernetes' own rules, without a cluster: strict decoding by its
// types, the "restricted" level of Pod Security, its API's schema, and the tools
// that render it. `make test` runs it with the tools in KUBETOOLS
// (scripts/kubetools.sh).
package check

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// root is that of the repository.
const root = "../../.."

// tool runs one of KUBETOOLS.
func tool(t *testing.T, name string, arguments ...string) (stdout string, err error) {
	t.Helper()
	dir := os.Getenv("KUBETOOLS")
	if dir == "" {
		t.Fatal("KUBETOOLS names no directory: run KUBETOOLS=$(scripts/kubetools.sh) go test")
	}
	command := exec.Command(filepath.Join(dir, name), arguments...)
	// No configuration, plug-in or cluster of whoever runs this.
	home := t.TempDir()
	command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(home, "none")}
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(arguments, " "), err, out.String(), problems.String())
	}
	return out.String(), nil
}

func mustTool(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := tool(t, name, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// renderings are the ways in which the chart is rendered.
var renderings = map[string][]string{
	"helm defaults":     {"--set", "vault.address=https://vault.example:8200"},
	"helm everything":   {"-f", root + "/deploy/helm/pillion/ci/full-values.yaml"},
	"helm cluster uid":  {"--set", "vault.address=https://vault.example:8200,sidecar.uid=0,console.enabled=true,console.url=https://pillion.example,console.ingress.enabled=true,sidecar.namespaces={tools}"},
	"helm own secret":   {"--set", "vault.address=https://vault.example:8200,webhook.certificate.source=secret,webhook.certificate.caBundle=QUJD,webhook.certificate.secretName=mine,networkPolicy.enabled=false"},
	"helm one replica":  {"--set", "vault.address=https://vault.example:8200,webhook.replicas=1,refresher.replicas=1"},
	"helm sidecar only": {"--set", "vault.address=https://vault.example:8200,webhook.enabled=false,refresher.enabled=false,sidecar.namespaces={tools}"},
}

func helm(t *testing.T, arguments ...string) string {
	t.Helper()
	return mustTool(t, "helm", append([]string{"template", "pillion", root + "/deploy/helm/pillion", "--namespace", "pillion"}, arguments...)...)
}

// everything is each file that is shipped or made, by its name, as YAML or JSON.
func everything(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	shapes, err := filepath.Glob(root + "/cmd/pillion/inject/testdata/out/*")
	if err != nil || len(shapes) < 12 {
		t.Fatalf("%d shapes of workloads, %v", len(shapes), err)
	}
	for _, file := range append(shapes, root+"/deploy/kubernetes/sidecar.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(data)
	}
	for _, dir := range []string{"base", "example"} {
		all["kustomize "+dir] = mustTool(t, "kustomize", "build", root+"/deploy/kubernetes/"+dir)
	}
	for name, arguments := range renderings {
		all[name] = helm(t, arguments...)
	}
	return all
}

// documents are those of a stream, those of lists each by itself.
func documents(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var object map[string]any
		if err := decoder.Decode(&object); err != nil {
			if err.Error() == "EOF" {
				return all
			}
			t.Fatal(err)
		}
		if object["kind"] == "List" {
			for _, item := range object["items"].([]any) {
				all = append(all, item.(map[string]any))
			}
		} else if object != nil {
			all = append(all, object)
		}
	}
}

func named(object map[string]any) string {
	metadata, _ := object["metadata"].(map[string]any)
	return fmt.Sprintf("%v %v", object["kind"], metadata["name"])
}
