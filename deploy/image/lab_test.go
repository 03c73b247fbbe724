// Package image_test builds the image with buildah and runs it with podman, in a
// storage of its own, without a registry: stand-ins made of this machine carry the
// names of the base images.
package image_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

const (
	goImage   = "docker.io/library/golang:1.26-bookworm"
	baseImage = "gcr.io/distroless/static-debian12:nonroot"
	curlImage = "localhost/exporter:test"
	image     = "localhost/pillion:test"
)

// lab is a storage of images and containers, and what runs in it.
type lab struct {
	t   *testing.T
	dir string
	env []string
}

// newLab skips where this machine cannot build or run containers, and fails there
// in continuous integration.
func newLab(t *testing.T) *lab {
	t.Helper()
	credstest.Need(t, "buildah", "podman", "runc", "catatonit", "curl", "git", "/usr/lib/systemd/systemd")
	if os.Geteuid() != 0 {
		credstest.Skip(t, "containers in a storage of its own need root here")
	}
	// Not below the test's own name: a container's socket has a path of at most 107 bytes.
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir}
	write(t, l.path("storage.conf"), fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", l.path("storage"), l.path("run")))
	// runc: crun 1.8 refuses a hybrid of both cgroup versions. Limits: the default
	// raises them, which root in a container may not.
	write(t, l.path("containers.conf"), "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n"+
		"[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n")
	l.env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+l.path("storage.conf"), "CONTAINERS_CONF="+l.path("containers.conf"), "BUILDAH_ISOLATION=chroot")
	t.Cleanup(func() {
		if t.Failed() {
			l.logs()
		}
		if output, err := l.try("", "podman", "rm", "--all", "--force", "--time", "0"); err != nil {
			t.Errorf("removing the containers: %v\n%s", err, output)
		}
		if output, err := l.try("", "podman", "pod", "rm", "--all", "--force"); err != nil {
			t.Errorf("removing the pods: %v\n%s", err, output)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

// logs shows what every container said.
func (l *lab) logs() {
	names, _ := l.try("", "podman", "ps", "--all", "--format", "{{.Names}} {{.Status}}")
	for line := range strings.Lines(names) {
		output, _ := exec.Command("env", append(slices.Clone(l.env), "podman", "logs", strings.Fields(line)[0])...).CombinedOutput()
		l.t.Logf("%s\n%s", line, output)
	}
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// try runs a program in the lab, with input on its standard input.
func (l *lab) try(input, program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = l.env
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(arguments, " "), err, stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (l *lab) run(program string, arguments ...string) string {
	l.t.Helper()
	return l.feed("", program, arguments...)
}

func (l *lab) feed(input, program string, arguments ...string) string {
	l.t.Helper()
	output, err := l.try(input, program, arguments...)
	if err != nil {
		l.t.Fatal(err)
	}
	return output
}

// until waits for another process.
func (l *lab) until(what string, done func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("no %s after 30 s", what)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// standIn makes an image of root, a directory, with more lines of a Dockerfile.
func (l *lab) standIn(name, root string, lines ...string) {
	l.t.Helper()
	write(l.t, filepath.Join(l.dir, "standin", "Dockerfile"), "FROM scratch\nCOPY . /\n"+strings.Join(lines, "\n")+"\n")
	l.run("buildah", "build", "--quiet", "--timestamp", "0", "--tag", name, "--file", filepath.Join(l.dir, "standin", "Dockerfile"), root)
}

// standInGo stands for the image of Go: nothing but links into /usr, which builds
// get from this machine, as they get its Go and its caches (goVolumes).
func (l *lab) standInGo() {
	l.t.Helper()
	root := l.path("go-root")
	write(l.t, filepath.Join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o755); err != nil {
		l.t.Fatal(err)
	}
	l.links(root)
	l.standIn(goImage, root, "ENV PATH=/goroot/bin:/usr/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local")
}

// links makes a root file system of what a container gets as its /usr.
func (l *lab) links(root string) {
	l.t.Helper()
	if err := os.MkdirAll(root, 0o755); err != nil {
		l.t.Fatal(err)
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			l.t.Fatal(err)
		}
	}
}

// goVolumes are this machine's /usr, Go, modules and build cache.
func (l *lab) goVolumes(cache string) []string {
	l.t.Helper()
	places := strings.Split(l.run("go", "env", "GOROOT", "GOMODCACHE"), "\n")
	return []string{
		"--volume", "/usr:/usr:ro", "--volume", places[0] + ":/goroot:ro",
		"--volume", places[1] + ":/go/pkg/mod", "--volume", cache + ":/root/.cache/go-build",
	}
}

// standInBase stands for distroless static: users, certificates, time zones, /tmp.
func (l *lab) standInBase() {
	l.t.Helper()
	root := l.path("base-root")
	write(l.t, filepath.Join(root, "etc/passwd"), "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
	write(l.t, filepath.Join(root, "etc/group"), "root:x:0:\nnonroot:x:65532:\n")
	l.copyFile("/etc/ssl/certs/ca-certificates.crt", root)
	l.copyFile("/usr/share/zoneinfo/UTC", root)
	for dir, mode := range map[string]fs.FileMode{"tmp": 0o777 | fs.ModeSticky, "home/nonroot": 0o700} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, dir), mode); err != nil {
			l.t.Fatal(err)
		}
	}
	l.standIn(baseImage, root, "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "USER 65532", "WORKDIR /home/nonroot")
}

// standInExporter is curl and a shell, with the libraries that they load.
func (l *lab) standInExporter() {
	l.t.Helper()
	root := l.path("exporter-root")
	for _, program := range []string{"/bin/sh", "/bin/sleep", "/bin/ls", "/usr/bin/curl"} {
		l.copyFile(program, root)
		for _, field := range strings.Fields(l.run("ldd", program)) {
			if strings.HasPrefix(field, "/") {
				l.copyFile(field, root)
			}
		}
	}
	l.standIn(curlImage, root, "USER 1000:1000")
}

// copyFile copies what path leads to, to the same path below root.
func (l *lab) copyFile(path, root string) {
	l.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		l.t.Fatal(err)
	}
	to := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
		l.t.Fatal(err)
	}
}
