package image_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const unitImage = "localhost/systemd:test"

// The unit of deploy/systemd under a real systemd, the first process of a container
// that has this machine's /usr: started as its own user, confined, reloaded, ended.
func (l *lab) unit(t *testing.T) {
	l = &lab{t, l.dir, l.env}
	root := l.path("unit-root")
	l.links(root)
	for name, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":         "root:x:0:\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\n",
		"etc/machine-id":    strings.Repeat("0123456789abcdef", 2) + "\n",
	} {
		write(t, filepath.Join(root, name), text)
	}
	for file, to := range map[string]string{
		"pillion.yaml": "etc/pillion/pillion.yaml", "pillion.sysusers.conf": "etc/sysusers.d/pillion.conf", "pillion.service": "etc/systemd/system/pillion.service",
	} {
		data, err := os.ReadFile("../systemd/" + file)
		if err != nil {
			t.Fatal(err)
		}
		// /usr is this machine's, where pillion is not installed.
		write(t, filepath.Join(root, to), strings.Replace(string(data), "/usr/local/bin/pillion", "/opt/pillion", 1))
	}
	l.copyFile("/etc/ssl/certs/ca-certificates.crt", root)
	if err := os.Mkdir(filepath.Join(root, "opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.run("cp", l.path("pillion"), filepath.Join(root, "opt/pillion")) // that of the image
	for link, to := range map[string]string{"default.target": "/usr/lib/systemd/system/multi-user.target", "multi-user.target.wants/pillion.service": "../pillion.service"} {
		path := filepath.Join(root, "etc/systemd/system", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	l.standIn(unitImage, root)
	l.run("podman", "run", "--detach", "--name", "systemd", "--systemd", "always", "--network", "none", "--cap-add", "all",
		"--security-opt", "seccomp=unconfined", "--volume", "/usr:/usr:ro", unitImage, "/usr/lib/systemd/systemd")

	inside := func(line string) string {
		output, _ := l.try("", "podman", "exec", "systemd", "sh", "-c", line)
		return output
	}
	show := func(property string) string { return inside("systemctl show pillion --value -p " + property) }
	l.until("active unit", func() bool { return show("ActiveState") == "active" })
	for property, want := range map[string]string{"StatusText": "serving 0 credentials", "NRestarts": "0", "User": "pillion"} {
		if got := show(property); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	status := inside("cat /proc/$(systemctl show pillion --value -p MainPID)/status")
	for _, want := range []string{"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("the process has not %q:\n%s", want, status)
		}
	}
	if got := inside("stat -c '%a %U' /var/lib/pillion /run/pillion/public"); got != "700 pillion\n755 pillion" {
		t.Errorf("its directories: %q", got)
	}
	// Who connects is asked of the kernel, through the unit's bounds: root is not listed.
	const request = "curl -sS -x http://127.0.0.1:3128 http://tool.example/"
	if got := inside(request); !strings.Contains(got, "its user is not listed in proxy.allow_uids") {
		t.Errorf("a user that is not listed got %q", got)
	}
	inside("sed -i 's/# allow_uids: .*/allow_uids: [0]/' /etc/pillion/pillion.yaml && systemctl reload pillion")
	if got := inside(request); !strings.Contains(got, "urn:pillion:error:no-credential") {
		t.Errorf("a user that is listed got %q", got)
	}
	if got := inside("systemctl stop pillion; systemctl show pillion --value -p Result -p ExecMainStatus"); !strings.Contains(got, "success") || !strings.Contains(got, "0") {
		t.Errorf("stopped: %q", got)
	}
}
