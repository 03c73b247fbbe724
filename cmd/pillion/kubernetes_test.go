package main_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// What is shipped for clusters, before a real API server: it takes all of it, and the
// webhook of the installed chart brings the sidecar into the pods of a namespace that
// restricts them. That sidecar, run as its pod says, logs in to a Vault that asks the
// API server who it is, and puts the credential on a connector's request.
func TestKubernetes(t *testing.T) {
	if os.Getenv("PILLION_KUBERNETES") == "" {
		return // make e2e-kubernetes
	}
	c := newCluster(t)
	t.Run("takes what is shipped", c.takesWhatIsShipped)
	c.install(t)
	t.Run("a labelled pod comes back with the sidecar", c.injects)
	t.Run("a pod that cannot have the sidecar is refused", c.refuses)
	t.Run("the sidecar logs in as its pod and injects", c.logsIn)
	t.Run("an upgrade keeps the certificate", c.upgrades)
	t.Run("without the webhook no labelled pod is made", c.failsClosed)
}

// Where things are in the cluster.
const (
	system     = "pillion" // the chart
	tenant     = "team-a"  // pods
	restricted = "pod-security.kubernetes.io/enforce=restricted"
)

// cluster is an API server, the webhook that it calls, and a Vault that asks it.
type cluster struct {
	*credstest.Kubernetes
	webhook *sidecarProcess
	values  string // the chart's
	vault   *credstest.Vault
	origin  *origin
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Kubernetes: credstest.StartKubernetes(t), vault: credstest.StartVault(t), origin: startOrigin(t, "tool.example")}
	c.webhook = &sidecarProcess{binary: buildProgram(t, "."), metrics: credstest.FreeAddress(t)}
	c.values = fmt.Sprintf(`vault: {address: %q}
sidecar:
  namespaces: [%s]
  config: {upstream: {ca_file: %q, allow: [%s], resolve: {%s: %q}}, sftp: {listen: "off"}}
networkPolicy: {connectors: {enabled: true}}
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}
rbac: {vaultReviewer: true}
`, c.vault.Addr, tenant, c.origin.caFile, c.origin.name, c.origin.name, c.origin.address)
	for _, namespace := range []string{system, tenant, "tools", "more-tools"} {
		c.Namespace(t, namespace, restricted)
	}
	c.Kubectl(t, "", "create", "serviceaccount", "connector", "--namespace", tenant)
	c.Kubectl(t, "", "create", "--filename", c.Definitions)
	for _, definition := range []string{"podmonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com", "certificates.cert-manager.io", "issuers.cert-manager.io"} {
		c.Kubectl(t, "", "wait", "--for=condition=Established", "crd/"+definition)
	}
	return c
}

// takesWhatIsShipped: nothing is kept, everything is judged as if it were.
func (c *cluster) takesWhatIsShipped(t *testing.T) {
	dryRun := []string{"apply", "--server-side", "--dry-run=server"}
	chart := c.Helm(t, "", "template", "pillion", "deploy/helm/pillion", "--namespace", system, "--values", "deploy/helm/pillion/ci/full-values.yaml")
	for what, taken := range map[string]string{
		"the chart with everything on": c.Kubectl(t, chart, append(dryRun, "--filename", "-")...),
		"the example of kustomize":     c.Kubectl(t, "", append(dryRun, "--kustomize", "deploy/kubernetes/example")...),
		"the pod written out":          c.Kubectl(t, "", append(dryRun, "--namespace", tenant, "--filename", "deploy/kubernetes/sidecar.yaml")...),
		"what pillion inject makes":    c.Kubectl(t, "", "create", "--dry-run=server", "--namespace", tenant, "--filename", "cmd/pillion/inject/testdata/out"),
	} {
		if !strings.Contains(taken, "(server dry run)") {
			t.Errorf("%s: %s", what, taken)
		}
		t.Logf("%s: %d objects", what, strings.Count(taken, "\n"))
	}
}

// install installs the chart, and runs its webhook as its Deployment says.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	c.Helm(t, c.values, "install", "pillion", "deploy/helm/pillion", "--namespace", system, "--values", "-")
	n := c.node(t, system, "deployment", "pillion-webhook")
	container := n.pod.Spec.Containers[0]
	listen := credstest.FreeAddress(t)
	command := exec.Command(c.webhook.binary, append(n.arguments(container), "--listen", listen, "--metrics-listen", c.webhook.metrics)...)
	command.Env = n.environment(t, container)
	c.webhook.startAs(t, command)
	c.Route(listen)
}

// connector is a pod that somebody makes who has heard of the label alone.
const connector = `apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {pillion/inject: "true"}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: exporter
    image: registry.example/exporter:1
    env: [%s]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

func (c *cluster) injects(t *testing.T) {
	c.create(t, fmt.Sprintf(connector, "connector", ""))
	p := c.pod(t, tenant, "pod", "connector")
	if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].Name != "pillion" || p.Spec.InitContainers[0].RestartPolicy != "Always" {
		t.Errorf("init containers: %+v", p.Spec.InitContainers)
	}
	c.create(t, strings.Replace(fmt.Sprintf(connector, "other", ""), `"true"`, `"false"`, 1))
	if p := c.pod(t, tenant, "pod", "other"); len(p.Spec.InitContainers) != 0 {
		t.Errorf("without the label: %+v", p.Spec.InitContainers)
	}
}

func (c *cluster) refuses(t *testing.T) {
	_, err := c.Try(fmt.Sprintf(connector, "proxied", "{name: HTTPS_PROXY, value: 'http://elsewhere:3128'}"), "create", "--namespace", tenant, "--filename", "-")
	if err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY") {
		t.Errorf("a pod with a proxy of its own: %v", err)
	}
}

// logsIn follows docs/kubernetes.md to the first request.
func (c *cluster) logsIn(t *testing.T) {
	c.letVaultAsk(t)
	password := credstest.Canary("password").Reveal()
	config := filepath.Join(t.TempDir(), "pillion.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "store: {vault: {address: %q, auth: {method: token, token_file: none}}}\n", c.vault.Addr), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, []string{"VAULT_TOKEN=" + c.vault.Root}, password, c.webhook.binary, "credential", "set", "tool", "--config", config,
		"--url", "https://"+c.origin.name+"/", "--authorization", "basic", "--username", "exporter", "--password-file", "-")

	n := c.node(t, tenant, "pod", "connector")
	sidecar := n.pod.Spec.InitContainers[0]
	s := &sidecarProcess{binary: c.webhook.binary, metrics: n.ports[":9180"]}
	command := exec.Command(s.binary, n.arguments(sidecar)...)
	command.Env = n.environment(t, sidecar)
	s.startAs(t, command)

	get := exec.Command("curl", "--silent", "--show-error", "--fail-with-body", "https://"+c.origin.name+"/metrics")
	get.Env = n.environment(t, n.pod.Spec.Containers[0])
	if output, err := get.CombinedOutput(); err != nil || string(output) != answerTo("/metrics") {
		t.Errorf("curl: %v\n%s", err, output)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("exporter:"+password))
	c.origin.mu.Lock()
	defer c.origin.mu.Unlock()
	if len(c.origin.requests) != 1 || c.origin.requests[0].authorization != want {
		t.Errorf("the tool received %d requests, not one with the credential", len(c.origin.requests))
	}
}

// letVaultAsk has Vault ask this API server, and sets the login of the tenant's pods
// up as docs/vault.md says.
func (c *cluster) letVaultAsk(t *testing.T) {
	t.Helper()
	reviewer := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(reviewer, []byte(strings.TrimSpace(c.Kubectl(t, "", "create", "token", "pillion-vault-reviewer", "--namespace", system))), 0o600); err != nil {
		t.Fatal(err)
	}
	vault := []string{"VAULT_ADDR=" + c.vault.Addr, "VAULT_TOKEN=" + c.vault.Root}
	shell(t, vault, "", "deploy/vault/setup.sh")
	shell(t, append(vault, "KUBERNETES_HOST="+c.Host, "KUBERNETES_CA_FILE="+c.CAFile, "KUBERNETES_REVIEWER_FILE="+reviewer), "",
		"deploy/vault/setup.sh", "kubernetes", "sidecar", "pillion-sidecar", "default", tenant)
}

// upgrades: what the API server trusts the webhook by is made once.
func (c *cluster) upgrades(t *testing.T) {
	authority := func() string {
		return c.Kubectl(t, "", "get", "mutatingwebhookconfiguration", "pillion-webhook", "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}")
	}
	before := authority()
	c.Helm(t, c.values, "upgrade", "pillion", "deploy/helm/pillion", "--namespace", system, "--values", "-")
	if before == "" || authority() != before {
		t.Error("the upgrade made another authority")
	}
	c.create(t, fmt.Sprintf(connector, "upgraded", ""))
}

func (c *cluster) failsClosed(t *testing.T) {
	c.webhook.signal(t, os.Kill)
	_ = c.webhook.end(t, 10*time.Second)
	_, err := c.Try(fmt.Sprintf(connector, "late", ""), "create", "--namespace", tenant, "--filename", "-")
	if err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("a labelled pod: %v", err)
	}
	c.create(t, strings.Replace(fmt.Sprintf(connector, "unlabelled", ""), `"true"`, `"false"`, 1))
}

func (c *cluster) create(t *testing.T, manifest string) {
	t.Helper()
	c.Kubectl(t, manifest, "create", "--namespace", tenant, "--filename", "-")
}

// shell runs a command of the documentation at the root of the repository.
func shell(t *testing.T, environment []string, stdin string, words ...string) string {
	t.Helper()
	command := exec.Command(words[0], words[1:]...)
	command.Dir = "../.."
	command.Env = append(plainEnvironment(t), environment...)
	command.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(words, " "), err, output, stderr.String())
	}
	return string(output)
}
