package image_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestImage builds the image twice and runs it.
func TestImage(t *testing.T) {
	l := newLab(t)
	l.standInGo()
	l.standInBase()
	l.standInExporter()

	cache := l.run("go", "env", "GOCACHE")
	first := l.build(cache)
	if os.Getenv("PILLION_IMAGE_COLD") != "" {
		cache = t.TempDir() // nothing of the first build is used
	}
	second := l.build(cache)
	if first != second || !strings.HasPrefix(first, "sha256:") {
		t.Errorf("two builds differ: %s and %s", first, second)
	}
	t.Logf("digest %s", first)

	t.Run("what it is", l.description)
	t.Run("read-only without capabilities", l.alone)
	t.Run("in a pod", l.pod)
	t.Run("as a unit of systemd", l.unit)
}

// build returns the digest of the image.
func (l *lab) build(cache string) string {
	l.t.Helper()
	arguments := append([]string{"--pull-never", "--no-cache", "--build-arg", "GOPROXY=off"}, l.goVolumes(cache)...)
	l.env = append(l.env, "IMAGE_BUILDER=buildah", "IMAGE="+image, "VERSION=v0.0.0-test", "SOURCE=https://code.example/pillion")
	l.run("../../scripts/image.sh", arguments...)
	return l.run("buildah", "images", "--format", "{{.Digest}}", image)
}

func (l *lab) description(t *testing.T) {
	l = &lab{t, l.dir, l.env}
	var inspected []struct {
		Size   int64
		User   string
		Labels map[string]string
		Config struct {
			Entrypoint, Cmd, Env []string
		}
	}
	if err := json.Unmarshal([]byte(l.run("podman", "image", "inspect", image)), &inspected); err != nil {
		t.Fatal(err)
	}
	i := inspected[0]
	base, err := strconv.ParseInt(l.run("podman", "image", "inspect", "--format", "{{.Size}}", baseImage), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	// Distroless static itself has some 2 MiB.
	const most = 28 << 20
	t.Logf("%.1f MiB over its base", float64(i.Size-base)/(1<<20))
	if i.Size-base > most {
		t.Errorf("the image has %d bytes more than its base, more than %d", i.Size-base, most)
	}
	if i.User != "65532:65532" || !slices.Equal(i.Config.Entrypoint, []string{"/usr/local/bin/pillion"}) || !slices.Equal(i.Config.Cmd, []string{"run"}) {
		t.Errorf("user %s, entry point %q, command %q", i.User, i.Config.Entrypoint, i.Config.Cmd)
	}
	for name, want := range map[string]string{
		"title": "pillion", "licenses": "Apache-2.0", "version": "v0.0.0-test", "source": "https://code.example/pillion",
		"revision": l.run("git", "rev-parse", "HEAD"), "base.name": baseImage,
	} {
		if got := i.Labels["org.opencontainers.image."+name]; got != want {
			t.Errorf("the label %s is %q, want %q", name, got, want)
		}
	}
}

// The image by itself: as its own user, without a capability, its root read-only,
// and no volume but the state directory's.
func (l *lab) alone(t *testing.T) {
	l = &lab{t, l.dir, l.env}
	confined := []string{"--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"}
	version := l.run("podman", append(append([]string{"run", "--rm"}, confined...), image, "version")...)
	if !strings.HasPrefix(version, "pillion v0.0.0-test ") {
		t.Errorf("version: %s", version)
	}
	// Without a place for its state it says what it lacks.
	if _, err := l.try("", "podman", append(append([]string{"run", "--rm", "--read-only-tmpfs=false"}, confined...), image)...); err == nil || !strings.Contains(err.Error(), "/var/lib/pillion") {
		t.Errorf("without a volume: %v", err)
	}
	l.run("podman", append(append([]string{"run", "--detach", "--name", "alone", "--volume", "state:/var/lib/pillion"}, confined...), image)...)
	l.until("healthy container", func() bool {
		output, _ := l.try("", "podman", "exec", "alone", "pillion", "health")
		return output == "ready"
	})
	for name, want := range map[string]string{"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Uid": "65532"} {
		if got := l.processStatus("alone", name); got != want {
			t.Errorf("%s of the process is %s, want %s", name, got, want)
		}
	}
	l.sbom("alone")
	l.run("podman", "stop", "--time", "10", "alone")
	if code := l.run("podman", "inspect", "--format", "{{.State.ExitCode}}", "alone"); code != "0" {
		t.Errorf("stopped, it ended with %s", code)
	}
}

// processStatus reads a field of the container's first process.
func (l *lab) processStatus(container, field string) string {
	l.t.Helper()
	for line := range strings.Lines(l.processFile(container, "status")) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Fields(value)[0]
		}
	}
	return ""
}

// processFile reads a file of /proc about the container's first process.
func (l *lab) processFile(container, name string) string {
	l.t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", l.run("podman", "inspect", "--format", "{{.State.Pid}}", container), name))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

// sbom compares the image's bill of materials with what its program says of itself.
func (l *lab) sbom(container string) {
	l.t.Helper()
	l.run("podman", "cp", container+":/usr/share/sbom/pillion.cdx.json", l.path("sbom.json"))
	l.run("podman", "cp", container+":/usr/local/bin/pillion", l.path("pillion"))
	data, err := os.ReadFile(l.path("sbom.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	var bom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(data, &bom); err != nil {
		l.t.Fatal(err)
	}
	if c := bom.Metadata.Component; bom.BOMFormat != "CycloneDX" || c.Name != "pillion" || c.Version != "v0.0.0-test" {
		l.t.Errorf("the bill of materials is of %s %s, in format %q", c.Name, c.Version, bom.BOMFormat)
	}
	listed := map[string]string{}
	for _, c := range bom.Components {
		listed[c.Name] = c.Version
	}
	modules := 0
	for line := range strings.Lines(l.run("go", "version", "-m", l.path("pillion"))) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			modules++
			if listed[f[1]] != f[2] {
				l.t.Errorf("%s %s is in the program, and in the bill of materials %q", f[1], f[2], listed[f[1]])
			}
		}
	}
	if modules < 20 || listed["std"] == "" {
		l.t.Errorf("%d modules compared, Go's own is %q", modules, listed["std"])
	}
}
