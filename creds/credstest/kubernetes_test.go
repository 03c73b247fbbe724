package credstest

import (
	"os"
	"strings"
	"testing"
)

// The API server judges: a namespace that restricts its pods takes none that asks
// for more.
func TestKubernetesRestricts(t *testing.T) {
	if os.Getenv("PILLION_KUBERNETES") == "" {
		return // make e2e-kubernetes
	}
	k := StartKubernetes(t)
	k.Namespace(t, "restricted", "pod-security.kubernetes.io/enforce=restricted")
	_, err := k.Try(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"root"},"spec":{"containers":[{"name":"c","image":"i","securityContext":{"privileged":true}}]}}`,
		"create", "--namespace", "restricted", "--filename", "-")
	if err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("a privileged pod: %v", err)
	}
	for _, definition := range []string{"monitoring.coreos.com_podmonitors.yaml", "cert-manager.io_certificates.yaml"} {
		k.Kubectl(t, "", "create", "--filename", k.Definitions+"/"+definition)
	}
}
