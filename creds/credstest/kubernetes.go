package credstest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Kubernetes is a real API server over a real etcd, with no node and no controller:
// it judges and keeps what it is given, and calls webhooks, but runs nothing. What a
// controller would make, such as the account "default" of a namespace, is to be made
// by the test. Whatever Service it calls, it reaches the address of Route.
type Kubernetes struct {
	Host   string // https://127.0.0.1:PORT
	CAFile string // the authority of its certificate
	// Definitions is a folder with custom resources that clusters often have: those
	// of cert-manager and of the Prometheus operator.
	Definitions string

	bin, tools, kubeconfig string
	network                *clusterNetwork
}

// StartKubernetes starts an API server that ends with the test. Building it takes
// minutes where Go's build cache has nothing of it.
func StartKubernetes(t testing.TB) *Kubernetes {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatalf("there is no etcd: %v", err)
	}
	bin, err := prepared("apiserver.sh", "tools/apiserver")
	if err != nil {
		t.Fatalf("building an API server: %v", err)
	}
	tools, err := prepared("kubetools.sh", "tools/kubernetes")
	if err != nil {
		t.Fatalf("building helm: %v", err)
	}
	dir := t.TempDir()
	etcd, peer, port := freePort(t), freePort(t), freePort(t)
	startServer(t, exec.Command("etcd", "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "error",
		"--listen-client-urls", local(etcd), "--advertise-client-urls", local(etcd),
		"--listen-peer-urls", local(peer), "--initial-advertise-peer-urls", local(peer), "--initial-cluster", "default="+local(peer)))
	k := &Kubernetes{
		Host: "https://127.0.0.1:" + strconv.Itoa(int(port)), CAFile: filepath.Join(dir, "apiserver.crt"),
		Definitions: filepath.Join(bin, "definitions"),
		bin:         bin, tools: tools, kubeconfig: filepath.Join(dir, "kubeconfig"), network: newClusterNetwork(t, dir),
	}
	said := startServer(t, exec.Command(filepath.Join(bin, "kube-apiserver"), append(k.files(t, dir),
		"--etcd-servers", local(etcd), "--bind-address", "127.0.0.1", "--secure-port", strconv.Itoa(int(port)), "--cert-dir", dir,
		"--egress-selector-config-file", k.network.config, "--service-cluster-ip-range", "10.96.0.0/16", "--endpoint-reconciler-type", "none", "--authorization-mode", "RBAC", "--allow-privileged",
		"--service-account-issuer", "https://kubernetes.default.svc", "--api-audiences", "https://kubernetes.default.svc")...))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		_, err := k.Try("", "get", "--raw", "/readyz")
		if err == nil {
			return k
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API server is not ready after a minute: %v\n%s", err, said())
		}
	}
}

// files writes the keys of service accounts, the administrator's token and what
// kubectl reads, and returns the flags of the API server that name them.
func (k *Kubernetes) files(t testing.TB, dir string) (flags []string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	token := rand.Text()
	for name, text := range map[string][]byte{
		"accounts.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"accounts.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens.csv":   []byte(token + ",administrator,administrator,system:masters\n"),
		"kubeconfig": fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: administrator, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: administrator}}]
current-context: test
`, k.Host, k.CAFile, token),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"--service-account-signing-key-file", filepath.Join(dir, "accounts.key"),
		"--service-account-key-file", filepath.Join(dir, "accounts.pub"), "--token-auth-file", filepath.Join(dir, "tokens.csv"),
	}
}

// Try runs kubectl as the cluster's administrator, at the root of the repository, and
// returns what it prints; what it says goes into the error.
func (k *Kubernetes) Try(stdin string, arguments ...string) (string, error) {
	return k.run(filepath.Join(k.bin, "kubectl"), stdin, arguments...)
}

// Kubectl is Try for what must work.
func (k *Kubernetes) Kubectl(t testing.TB, stdin string, arguments ...string) string {
	t.Helper()
	out, err := k.Try(stdin, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Helm is the same for helm.
func (k *Kubernetes) Helm(t testing.TB, stdin string, arguments ...string) string {
	t.Helper()
	out, err := k.run(filepath.Join(k.tools, "helm"), stdin, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (k *Kubernetes) run(program, stdin string, arguments ...string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, arguments...)
	cmd.Dir = root
	cmd.Env = []string{"KUBECONFIG=" + k.kubeconfig, "HOME=" + filepath.Dir(k.kubeconfig), "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// Namespace makes a namespace with labels and the account "default", which the
// controllers of a cluster would make.
func (k *Kubernetes) Namespace(t testing.TB, name string, labels ...string) {
	t.Helper()
	k.Kubectl(t, "", "create", "namespace", name)
	if len(labels) > 0 {
		k.Kubectl(t, "", append([]string{"label", "namespace", name}, labels...)...)
	}
	k.Kubectl(t, "", "create", "serviceaccount", "default", "--namespace", name)
}

// startServer starts a server that ends with the test, and returns what it has said.
func startServer(t testing.TB, cmd *exec.Cmd) (said func() string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = file, file
	ended, err := startTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("ending %s: %v", filepath.Base(cmd.Path), err)
		}
		<-ended
	})
	return func() string {
		text, _ := os.ReadFile(log)
		return string(text)
	}
}

func local(port uint16) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
}
