package inject

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// podWith is a pod of one container "app", with more lines in its annotations, in
// its spec and in the container.
func podWith(annotations, spec, container string) string {
	indent := func(text, by string) string {
		if text == "" {
			return ""
		}
		return "\n" + by + strings.ReplaceAll(text, "\n", "\n"+by)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    a: b%s
spec:
  automountServiceAccountToken: false%s
  containers:
  - name: app
    image: registry.example/app:1%s
`, indent(annotations, "    "), indent(spec, "  "), indent(container, "    "))
}

// What cannot have a sidecar that does what its user expects is refused, by name,
// with what to do. Nothing is written then.
func TestRefuses(t *testing.T) {
	for name, row := range map[string]struct{ manifest, want string }{
		"a proxy of its own":          {podWith("", "", "env: [{name: HTTPS_PROXY, value: 'http://proxy.example:8080'}]"), "Pod shop: container app: it sets HTTPS_PROXY itself: remove that, or leave the container out of the annotation pillion/clients"},
		"a proxy from elsewhere":      {podWith("", "", "env: [{name: http_proxy, valueFrom: {configMapKeyRef: {name: a, key: b}}}]"), "Pod shop: container app: it sets http_proxy itself: remove that, or leave the container out of the annotation pillion/clients"},
		"Java's options of its own":   {podWith("pillion/languages: java", "", "env: [{name: JAVA_TOOL_OPTIONS, value: -Xmx1g}]"), "Pod shop: container app: it sets JAVA_TOOL_OPTIONS itself: remove that, or leave the container out of the annotation pillion/clients"},
		"the node's network":          {podWith("", "hostNetwork: true", ""), "Pod shop: it has hostNetwork: true, so that loopback is the node's, and every process there could use its credentials: remove that, or run pillion on the node with proxy.allow_uids"},
		"Windows":                     {podWith("", "os: {name: windows}", ""), "Pod shop: it is for Windows, and pillion runs on Linux alone"},
		"Windows by node":             {podWith("", "nodeSelector: {kubernetes.io/os: windows}", ""), "Pod shop: it is for Windows, and pillion runs on Linux alone"},
		"the keys' volume":            {podWith("", "", "volumeMounts: [{name: pillion-state, mountPath: /x}]"), "Pod shop: container app mounts pillion-state, which holds keys and is for the sidecar alone: remove that"},
		"the login's volume":          {podWith("", "", "volumeMounts: [{name: pillion-vault-token, mountPath: /x}]"), "Pod shop: container app mounts pillion-vault-token, which holds keys and is for the sidecar alone: remove that"},
		"the keys' volume, no client": {podWith("pillion/clients: other", "", "volumeMounts: [{name: pillion-state, mountPath: /x}]\n") + "  - name: other\n    image: o\n", "Pod shop: container app mounts pillion-state, which holds keys and is for the sidecar alone: remove that"},
		"the published folder to write": {podWith("", "", "volumeMounts: [{name: pillion-public, mountPath: /x}]"),
			"Pod shop: container app: it mounts pillion-public without readOnly: true, and could replace what other containers trust"},
		"something else there":      {podWith("", "", "volumeMounts: [{name: mine, mountPath: /run/pillion/public}]"), "Pod shop: container app: it mounts something else at /run/pillion/public"},
		"a client that is not":      {podWith("pillion/clients: app, nobody", "", ""), "Pod shop: there is no container nobody, which shall use pillion"},
		"no client":                 {podWith("pillion/clients: ','", "", ""), `Pod shop: the annotation pillion/clients: an empty list would switch pillion off here: write pillion/inject: "false" for that`},
		"an unknown annotation":     {podWith("pillion/client: app", "", ""), "Pod shop: the annotation pillion/client is not known: write one of " + strings.Join(Annotations(), ", ")},
		"an unknown language":       {podWith("pillion/languages: cobol", "", ""), `Pod shop: the annotation pillion/languages: "cobol" is not known: write all, or some of aws, curl, git, go, node, openssl, python, java`},
		"an unknown variant":        {podWith("pillion/variant: simple", "", ""), `Pod shop: the annotation pillion/variant: "simple" is not known: write native or plain`},
		"a port that is none":       {podWith("pillion/proxy-port: http", "", ""), `Pod shop: the annotation pillion/proxy-port: "http" is no port: write a number from 1 to 65535`},
		"a low port":                {podWith("pillion/proxy-port: '80'", "", ""), "Pod shop: ports must lie between 1024 and 65535: the sidecar has no capability to listen on others"},
		"one port for both":         {podWith("pillion/proxy-port: '9180'", "", ""), "Pod shop: proxy and metrics cannot share port 9180"},
		"a quantity that is none":   {podWith("pillion/memory-limit: much", "", ""), `Pod shop: "much" is no quantity: write one as Kubernetes does, such as 10m or 64Mi`},
		"a name that is none":       {podWith("pillion/config-map: Mine!", "", ""), `Pod shop: "Mine!" is no name of a ConfigMap`},
		"a host that is none":       {podWith("pillion/no-proxy: '*.example'", "", ""), `Pod shop: the annotation pillion/no-proxy: "*.example" is no host: write names, with a leading dot for a domain, and addresses, with commas`},
		"a key without a value":     {podWith("", "", "env:"), "Pod shop: line 12: env has no value: remove the line"},
		"an alias":                  {podWith("", "", "env: &e [{name: A, value: b}]") + "  - name: b\n    image: b\n    env: *e\n", "Pod shop: line 15: an anchor or a merge stands for /env: write it out"},
		"a merge":                   {podWith("", "", "<<: {env: [{name: A, value: b}]}"), "Pod shop: line 10: an anchor or a merge stands for /env: write it out"},
		"an anchor that is used":    {"apiVersion: v1\nkind: List\nx: &p {spec: {containers: [{name: a}]}}\nitems:\n- &pod\n  apiVersion: v1\n  kind: Pod\n  spec: {containers: [{name: a}]}\nother: *pod\n", "the manifest cannot be added to as it is written (anchors, an unusual layout): give it as kubectl writes it, by kubectl create --dry-run=client -o yaml -f FILE"},
		"no containers":             {"apiVersion: v1\nkind: Pod\nspec: {containers: []}\n", "Pod without a name: it has no containers"},
		"no pod":                    {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {generateName: x-}\nspec: {}\n", "Deployment x-...: it has no pod template"},
		"nothing":                   {"# nothing\n", "there is nothing in the manifest"},
		"no YAML":                   {"a: b: c\n", "reading the manifest: yaml: mapping values are not allowed in this context"},
		"a template not yet filled": {"metadata: {{ .Values.x }}\n", "reading the manifest: a key is no text: is it a template that is still to be filled in?"},
		"a key twice":               {"a: 1\nb: 2\na: secret\n", "reading the manifest: line 3: a key stands there a second time"},
		"a value that is none":      {"a: !!int secret\n", "reading the manifest: a line that the decoder does not tell: a value cannot be read"},
		"another's container":       {podWith("", "", "") + "  - name: pillion\n    image: p\n", "Pod shop: its container pillion is no sidecar of ours, since it does not mount pillion-public: rename it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Manifest([]byte(row.manifest), testSettings())
			if err == nil || err.Error() != row.want {
				t.Errorf("%s\ngives %v\nwant  %s", row.manifest, err, row.want)
			}
		})
	}
}

// What may not work is added to and said.
func TestWarns(t *testing.T) {
	plain := "pillion/variant: plain"
	for name, row := range map[string]struct{ manifest, want string }{
		"a job that would not end": {podWith(plain, "restartPolicy: Never", ""),
			"the plain sidecar does not end with the others, so that this never completes: a native sidecar does (Kubernetes 1.29 and newer)"},
		"shared processes":         {podWith("", "shareProcessNamespace: true", ""), "shareProcessNamespace: true lets processes of the sidecar's user, or with SYS_PTRACE, read its memory and with it the credentials"},
		"the node's processes":     {podWith("", "hostPID: true", ""), "hostPID: true lets processes of the sidecar's user, or with SYS_PTRACE, read its memory and with it the credentials"},
		"a short end":              {podWith(plain, "terminationGracePeriodSeconds: 5", ""), "terminationGracePeriodSeconds: 5 is shorter than pillion's drain (20 s unless configured) and some: its last requests may be cut"},
		"authorities of its own":   {podWith("", "", "env: [{name: SSL_CERT_FILE, value: /own.pem}]"), "container app keeps its own SSL_CERT_FILE"},
		"an init container before": {podWith(plain+"\npillion/clients: app, first", "initContainers: [{name: first, image: f}]", ""), "the init container first cannot use pillion, which in the plain variant starts after it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, reports, err := Manifest([]byte(row.manifest), testSettings())
			if err != nil || len(reports) != 1 {
				t.Fatal(reports, err)
			}
			if !slices.Equal(reports[0].Warnings, []string{row.want}) {
				t.Errorf("it warns of %q, want %q", reports[0].Warnings, row.want)
			}
		})
	}
	_, reports, err := Manifest([]byte(podWith("", "", "")), testSettings())
	if err != nil || len(reports[0].Warnings)+len(reports[0].Notes) != 0 || !reports[0].Added || !slices.Equal(reports[0].Clients, []string{"app"}) {
		t.Errorf("of an ordinary pod it says %+v, %v", reports, err)
	}
}

// A container that has its pillion already, of whatever settings, keeps it.
func TestLeavesASidecarAlone(t *testing.T) {
	first, _, err := Manifest([]byte(podWith("", "", "")), testSettings())
	if err != nil {
		t.Fatal(err)
	}
	s := testSettings()
	s.Image, s.Plain, s.MemoryLimit = "registry.example/pillion:2", true, "1Gi"
	again, reports, err := Manifest(first, s)
	if err != nil || string(again) != string(first) || reports[0].Added {
		t.Errorf("it changed: %v\n%s", err, again)
	}
}
