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

// What is shipped for clusters, before a real API server: the webhook that it calls
// brings the sidecar into the pods of a namespace that restricts them, and
// that sidecar, run as its pod says, logs in to a Vault that asks the API server who
// it is, and puts the credential on a connector's request.
func TestKubernetes(t *testing.T) {
	if os.Getenv("PILLION_KUBERNETES") == "" {
		return // make e2e-kubernetes
	}
	c := newCluster(t)
	c.install(t)
	t.Run("a labelled pod comes back with the sidecar", c.injects)
	t.Run("a pod that cannot have the sidecar is refused", c.refuses)
	t.Run("the sidecar logs in as its pod and injects", c.logsIn)
	t.Run("without the webhook no labelled pod is made", c.failsClosed)
}

// Where things are in the cluster.
const (
	system     = "pillion-system" // the chart
	tenant     = "team-a"         // pods
	restricted = "pod-security.kubernetes.io/enforce=restricted"
)

// cluster is an API server, a webhook that it reaches on loopback, and a Vault that
// asks it.
type cluster struct {
	*credstest.Kubernetes
	program *sidecarProcess // the webhook, once installed
	vault   *credstest.Vault
	origin  *origin
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Kubernetes: credstest.StartKubernetes(t), vault: credstest.StartVault(t), origin: startOrigin(t, "tool.example")}
	c.program = &sidecarProcess{binary: buildProgram(t, "."), metrics: freeAddress(t)}
	for _, namespace := range []string{system, tenant} {
		c.Namespace(t, namespace, restricted)
	}
	return c
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
	p := c.pod(t, "connector")
	if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].Name != "pillion" || p.Spec.InitContainers[0].RestartPolicy != "Always" {
		t.Errorf("init containers: %+v", p.Spec.InitContainers)
	}
	c.create(t, strings.Replace(fmt.Sprintf(connector, "other", ""), `"true"`, `"false"`, 1))
	if p := c.pod(t, "other"); len(p.Spec.InitContainers) != 0 {
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
	text := fmt.Sprintf(`store:
  vault:
    address: %s
    auth: {method: kubernetes, role: sidecar, token_file: /var/run/secrets/vault/token}
sftp: {listen: "off"}
upstream: {ca_file: tool-ca.crt, allow: [%s], resolve: {%s: %q}}
`, c.vault.Addr, c.origin.name, c.origin.name, c.origin.address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, []string{"VAULT_TOKEN=" + c.vault.Root}, password, c.program.binary, "credential", "set", "tool", "--config", config,
		"--url", "https://"+c.origin.name+"/", "--authorization", "basic", "--username", "exporter", "--password-file", "-")
	c.Kubectl(t, "", "create", "configmap", "pillion", "--namespace", tenant,
		"--from-file", config, "--from-file", c.origin.caFile)

	node := c.node(t, "connector")
	sidecar := node.pod.Spec.InitContainers[0]
	s := &sidecarProcess{binary: c.program.binary, metrics: node.ports[":9180"]}
	command := exec.Command(s.binary, sidecar.Args...)
	command.Env = node.environment(t, sidecar)
	s.startAs(t, command)

	exporter := node.pod.Spec.Containers[0]
	get := exec.Command("curl", "--silent", "--show-error", "--fail-with-body", "https://"+c.origin.name+"/metrics")
	get.Env = node.environment(t, exporter)
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
	c.Kubectl(t, "", "create", "serviceaccount", "vault", "--namespace", system)
	c.Kubectl(t, "", "create", "clusterrolebinding", "vault", "--clusterrole", "system:auth-delegator", "--serviceaccount", system+":vault")
	reviewer := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(reviewer, []byte(strings.TrimSpace(c.Kubectl(t, "", "create", "token", "vault", "--namespace", system))), 0o600); err != nil {
		t.Fatal(err)
	}
	vault := []string{"VAULT_ADDR=" + c.vault.Addr, "VAULT_TOKEN=" + c.vault.Root}
	shell(t, vault, "", "deploy/vault/setup.sh")
	shell(t, append(vault, "KUBERNETES_HOST="+c.Host, "KUBERNETES_CA_FILE="+c.CAFile, "KUBERNETES_REVIEWER_FILE="+reviewer), "",
		"deploy/vault/setup.sh", "kubernetes", "sidecar", "pillion-sidecar", "default", tenant)
}

func (c *cluster) failsClosed(t *testing.T) {
	c.program.signal(t, os.Kill)
	_ = c.program.end(t, 10*time.Second)
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

// install starts the webhook and has the API server call it.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	dir, listen := t.TempDir(), freeAddress(t)
	shell(t, nil, "", c.program.binary, "webhook", "certificate", dir, "--name", "localhost")
	command := exec.Command(c.program.binary, "webhook", "--tls-cert", dir+"/tls.crt", "--tls-key", dir+"/tls.key", "--listen", listen, "--metrics-listen", c.program.metrics)
	command.Env = plainEnvironment(t)
	c.program.startAs(t, command)
	ca, err := os.ReadFile(dir + "/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	c.Kubectl(t, fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"pillion"},
"webhooks":[{"name":"inject.pillion.example","clientConfig":{"url":"https://%s/inject","caBundle":%q},"objectSelector":{"matchLabels":{"pillion/inject":"true"}},
"rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}],"admissionReviewVersions":["v1"],"sideEffects":"None","failurePolicy":"Fail"}]}`,
		"localhost"+listen[strings.LastIndexByte(listen, ':'):], base64.StdEncoding.EncodeToString(ca)), "create", "--filename", "-")
}
