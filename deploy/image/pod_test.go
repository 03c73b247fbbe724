package image_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// podConfiguration is pillion's in testdata/pod.yaml. What Kubernetes would say by
// KUBERNETES_SERVICE_HOST stands in allow_uids: the exporter is another user.
const podConfiguration = `proxy: {allow_uids: [1000]}
sftp: {listen: off}
publish: /run/pillion/public
upstream:
  ca_file: /run/origin/demo/ca.crt
  allow: [demo.example]
  resolve: {demo.example: 127.0.0.1:8443}
`

// An exporter whose requests get their authorization from the container beside it,
// with which it shares loopback and the published certificates.
func (l *lab) pod(t *testing.T) {
	l = &lab{t, l.dir, l.env}
	write(t, l.path("configuration/pillion.yaml"), podConfiguration)
	manifest, err := os.ReadFile("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.path("pod.yaml"), strings.ReplaceAll(string(manifest), "LAB/", l.dir+"/"))
	if err := errors.Join(os.Mkdir(l.path("public"), 0o755), os.Chmod(l.path("public"), 0o777)); err != nil {
		t.Fatal(err)
	}
	l.run("podman", "play", "kube", "--network", "none", l.path("pod.yaml"))
	const sidecar, exporter = "exporting-pillion", "exporting-exporter"
	l.until("healthy sidecar", func() bool {
		output, _ := l.try("", "podman", "exec", sidecar, "pillion", "health")
		return output == "ready"
	})
	const token = "a-token-of-the-demonstration"
	l.feed(token, "podman", "exec", "--interactive", sidecar,
		"pillion", "credential", "set", "demo", "--url", "https://demo.example/", "--authorization", "bearer", "--token-file", "-")

	// What the exporter's curl printed is what arrived at the origin, masked.
	for _, path := range []string{"/plain", "/tunnel"} {
		l.until("request for "+path+" with the credential", func() bool {
			said, _ := l.try("", "podman", "logs", exporter)
			_, arrived, _ := strings.Cut(said, `"path": "`+path+`"`)
			arrived, _, _ = strings.Cut(arrived, `"path"`)
			return strings.Contains(arrived, fmt.Sprintf("Bearer ***(%d)", len(token)))
		})
	}
	if found := l.run("podman", "exec", exporter, "ls", "/run/pillion/public"); !strings.Contains(found, "ca-bundle.crt") {
		t.Errorf("the exporter finds %q", found)
	}
	for _, path := range []string{"/var/lib/pillion", "/etc/pillion"} {
		if output, err := l.try("", "podman", "exec", exporter, "ls", path); err == nil {
			t.Errorf("the exporter sees %s: %s", path, output)
		}
	}
	for _, container := range []string{sidecar, exporter} {
		if caps := l.processStatus(container, "CapBnd"); caps != "0000000000000000" {
			t.Errorf("the capabilities of %s are %s", container, caps)
		}
	}
	// The garbage collector knows the limit: nine tenths of 64 MiB.
	metrics := l.run("podman", "exec", exporter, "curl", "-sS", "--noproxy", "*", "http://127.0.0.1:9180/metrics")
	if !strings.Contains(metrics, "\ngo_gc_gomemlimit_bytes 6.0397977e+07\n") {
		t.Errorf("of 64 MiB: %s", regexp.MustCompile("go_gc_gomemlimit_bytes [^\n]*").FindString(metrics))
	}
	// Nothing but loopback: two lines of heading, and lo.
	if interfaces := l.processFile(exporter, "net/dev"); strings.Count(interfaces, "\n") != 3 || !strings.Contains(interfaces, " lo:") {
		t.Errorf("the pod's interfaces:\n%s", interfaces)
	}
	l.run("podman", "stop", "--time", "1", exporter) // as its job's end
	l.run("podman", "stop", "--time", "20", sidecar)
	if code := l.run("podman", "inspect", "--format", "{{.State.ExitCode}}", sidecar); code != "0" {
		t.Errorf("stopped, it ended with %s", code)
	}
}
