package inject

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const deploy = "../../../deploy/kubernetes/"

// TestDeploy keeps what deploy/kubernetes has by hand of the sidecar in step with
// what inject adds; with -update it is written anew.
func TestDeploy(t *testing.T) {
	s := Defaults()
	s.Image = "pillion:0.1.0"
	same(t, "sidecar.yaml", string(manifest(t, sidecarExample, s)))
	s.Image = "pillion"
	pod := object{
		{"metadata", object{{"labels", object{{SidecarKey, "true"}}}}},
		{"spec", object{{"initContainers", []any{s.sidecar()}}, {"volumes", s.volumes()}}},
	}
	for file, patch := range map[string]object{
		"workload.yaml": patchFor("apps/v1", "Deployment", object{{"template", pod}}),
		"cronjob.yaml":  patchFor("batch/v1", "CronJob", object{{"jobTemplate", object{{"spec", object{{"template", pod}}}}}}),
	} {
		same(t, "component/"+file, patchText(t, patch))
	}
	same(t, "component/pod.yaml", patchText(t, append(object{{"apiVersion", "v1"}, {"kind", "Pod"}},
		field{"metadata", object{{"name", "any"}, {"labels", object{{SidecarKey, "true"}}}}}, pod[1])))

	// No shell and no kubelet puts anything into these.
	s.NoProxy = strings.ReplaceAll(s.NoProxy, ",$(KUBERNETES_SERVICE_HOST)", "")
	var env strings.Builder
	fmt.Fprintln(&env, "# The variables of a client, as docs/clients.md explains them.")
	for _, v := range (&plan{Settings: s}).variables() {
		fmt.Fprintf(&env, "%s=%s\n", v.Name, v.Value)
	}
	same(t, "component/client.env", env.String())
}

func patchFor(version, kind string, spec object) object {
	return object{{"apiVersion", version}, {"kind", kind}, {"metadata", object{{"name", "any"}}}, {"spec", spec}}
}

func patchText(t *testing.T, patch object) string {
	t.Helper()
	text, err := blockOf(patch)
	if err != nil {
		t.Fatal(err)
	}
	return "# What pillion inject adds. The target is chosen by kustomization.yaml.\n" + text + "\n"
}

func manifest(t *testing.T, in string, s Settings) []byte {
	t.Helper()
	out, _, err := Manifest([]byte(in), s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, file, want string) {
	t.Helper()
	file = deploy + file
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(read(t, file)); got != want {
		t.Errorf("%s is not what inject adds (go test -run TestDeploy -update writes it); want\n%s", file, want)
	}
}

// TestPage: docs/kubernetes.md has every annotation, and none that does not exist.
func TestPage(t *testing.T) {
	page := string(read(t, "../../../docs/kubernetes.md"))
	_, table, _ := strings.Cut(page, "| annotation | default | means |")
	table, _, _ = strings.Cut(table, "\n\n")
	said := map[string]bool{}
	for _, name := range regexp.MustCompile("`("+Prefix+"[a-z-]+)").FindAllStringSubmatch(table, -1) {
		said[name[1]] = true
	}
	for _, name := range Annotations() {
		if !said[name] {
			t.Errorf("the page does not have %s", name)
		}
		delete(said, name)
	}
	for name := range said {
		t.Errorf("the page has %s, which does not exist", name)
	}
	for _, volume := range []string{PublicVolume, StateVolume, TokenVolume, ConfigVolume} {
		if !strings.Contains(page, "`"+volume+"`") {
			t.Errorf("the page does not have the volume %s", volume)
		}
	}
}

const sidecarExample = `# A connector and its sidecar, as pillion inject makes it of the connector alone. Its
# namespace needs the ConfigMap pillion, which base/ has.
apiVersion: v1
kind: Pod
metadata:
  name: connector
  labels:
    app: connector
spec:
  # Vault's role names it.
  serviceAccountName: connector
  # Nobody here asks the Kubernetes API.
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    seccompProfile:
      type: RuntimeDefault
  containers:
  - name: connector
    image: registry.example/connector:1
    securityContext:
      allowPrivilegeEscalation: false
      capabilities:
        drop:
        - ALL
`
