package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commands: pillion's own, about SFTP. What they print to copy works when copied.
func (l *sftpLab) commands(t *testing.T) {
	content := random(100_000)
	home := l.home(t, content)
	says := func(command string, want ...string) string {
		t.Helper()
		out, err := l.shell(t, home, command)
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		for _, w := range want {
			if !regexp.MustCompile("(?m)" + w).MatchString(out) {
				t.Errorf("%s does not say %s:\n%s", command, w, out)
			}
		}
		return out
	}
	refuses := func(command string, status int, want string) {
		t.Helper()
		out, err := l.shell(t, home, command)
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != status { //nolint:errorlint // as CombinedOutput returns it
			t.Errorf("%s: %v, want status %d\n%s", command, err, status, out)
		}
		if !strings.Contains(out, want) {
			t.Errorf("%s does not say %s:\n%s", command, want, out)
		}
	}
	pin := strings.Fields(l.openssh.HostKeys[0])[0]

	explained := says("$PILLION explain sftp://sftp.acme.example:22/in/", `^credential: +acme \(sftp://sftp.acme.example:22/\)$`,
		`^logs in as: +`+l.openssh.Username+`, once`, `^host key: +`+pin+` SHA256:`, `^commands: +pillion put FILE sftp://sftp.acme.example:22/~/$`)
	refuses("$PILLION explain sftp://sftp.acme.example:2222/", 1, "port differs: the credential is for 22, the request for 2222")
	says("$PILLION doctor sftp://sftp.acme.example:22/", `^good +the SFTP gateway at `+l.listen+` answers`, `^good +the credential acme is for`)
	copied := 0
	for line := range strings.Lines(explained) {
		command := strings.TrimSpace(strings.TrimPrefix(line, "commands:"))
		program, _, _ := strings.Cut(command, " ")
		switch program {
		case "pillion":
			command = strings.Replace(command, "pillion put FILE", "$PILLION put to", 1)
		case "curl":
			command = strings.Replace(command, "-T FILE", "-sS -T to", 1)
		case "sftp":
			command = "echo put to | " + command
		default:
			continue
		}
		copied++
		says("cp up to && " + strings.Replace(command, "nc -X", "nc.openbsd -X", 1))
		arrived(t, l.openssh, "to", content)
	}
	if copied != 5 {
		t.Errorf("%d command lines to copy:\n%s", copied, explained)
	}
	says(`eval "$($PILLION env)" && cp up to && curl -sS -T to sftp://sftp.acme.example/~/`)
	arrived(t, l.openssh, "to", content)
	says("$PILLION env", `^# sftp -F .*/ssh_config NAME$`)

	says("$PILLION credential test acme", `^sftp.acme.example:22 shows a pinned host key, lets user "`+l.openssh.Username+`" log in and opens an SFTP session`)
	scanned := says("$PILLION credential scan-host-key "+l.openssh.Addr, `^ssh-ed25519 +SHA256:.{43}$`, `^ssh-rsa +SHA256:`, `ask the owner of 127.0.0.1`)
	for _, key := range l.openssh.HostKeys {
		if !strings.Contains(scanned, "    --host-key '"+key+"'\n") {
			t.Errorf("it does not offer %s to paste:\n%s", key, scanned)
		}
	}
	refuses("$PILLION credential scan-host-key '127.0.0.1 22'", 2, "HOST:PORT")
	refuses("$PILLION credential scan-host-key "+l.listen, 1, l.listen+" is pillion itself")
	l.set(t, l.openssh, "loop", "sftp://"+l.listen+"/", l.openssh.HostKeys[0])
	refuses("echo put up | sftp -F $CONFIG -b - loop", 255, "there is pillion itself") // by its address, before any key
	before := strings.Count(l.openssh.Log(), "Failed password")
	l.run(t, "not the password", "credential", "set", "new", "--config", l.config, "--url", "sftp://new.example:22/",
		"--username", l.openssh.Username, "--password-file", "-", "--host-key", l.openssh.HostKeys[0])
	refuses("$PILLION credential test new", 1, `new.example:22 refused the login of user "`+l.openssh.Username+`" by password`)
	if tried := strings.Count(l.openssh.Log(), "Failed password") - before; tried != 1 {
		t.Errorf("the password was tried %d times", tried)
	}
	refuses("$PILLION try sftp://sftp.acme.example:22/", 2, "use pillion put")

	says("cp up one && cp up two && $PILLION put one two sftp://sftp.acme.example:22/~/", `^sftp://sftp.acme.example:22/~/one: 97.7 KiB in `, `^sftp://sftp.acme.example:22/~/two: `)
	arrived(t, l.openssh, "one", content)
	arrived(t, l.openssh, "two", content)
	says("$PILLION put up sftp://sftp.acme.example:22"+l.openssh.Home+"/a%20name", `/a%20name: 97.7 KiB`)
	arrived(t, l.openssh, "a name", content)
	refuses("$PILLION put up sftp://sftp.acme.example:22/~/nowhere/", 1, "the server has no directory nowhere")
	refuses("$PILLION put up sftp://other.example:22/~/", 1, "no credential is for sftp://other.example:22/: pillion explain")
	refuses("$PILLION put --credential globex up sftp://sftp.acme.example:22/~/", 1, "is not for sftp://sftp.acme.example:22/")
	refuses("$PILLION put nothing sftp://sftp.acme.example:22/~/", 1, "nothing: there is no such file")
	refuses("$PILLION put up", 2, "takes FILE...")
	refuses("$PILLION put up one", 2, "the last argument must be the URL")
	refuses("$PILLION put up two sftp://sftp.acme.example:22/~/up", 1, "is no directory there")
	says("$PILLION __complete put up sftp://", `^sftp://files.globex.example:2222/$`)

	says("$PILLION logs -n 1", `"protocol":"SFTP"`, `"host":"sftp.acme.example:22"`, `"files":`)
	says("$PILLION logs -n 9 -o text", `sftp acme .* sftp.acme.example:22 by user "sftp.acme.example:22", 2 files, 195\.`)
	says("$PILLION logs -n 512")
	says("$PILLION top --once", `^acme +[0-9]+ +[0-9]+ `)
	response, err := http.Get("http://" + l.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	for _, series := range []string{`pillion_sftp_sessions_total\{credential="acme",result="ok"\} [1-9]`, `pillion_sftp_bytes_total\{credential="acme",direction="in"\} [1-9]`, `pillion_sftp_sessions_open 0`} {
		if !regexp.MustCompile("(?m)^" + series).Match(text) {
			t.Errorf("there is no series %s", series)
		}
	}
}

// newCredentials are usable, and known to clients, as soon as they are stored.
func (l *sftpLab) newCredentials(t *testing.T) {
	l.set(t, l.openssh, "new", "sftp://new.example:22/", l.openssh.HostKeys[0])
	known, err := os.ReadFile(l.published("known_hosts"))
	if err != nil || !strings.Contains(string(known), "\nnew.example ecdsa-sha2-nistp256 ") {
		t.Errorf("%v\n%s", err, known)
	}
	content := random(1000)
	if out, err := l.shell(t, l.home(t, content), "sftp -F $CONFIG -b batch new"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	arrived(t, l.openssh, "to", content)
}

// policy: sftp.allow is taken over by a reload, in what begins from then on.
func (l *sftpLab) policy(t *testing.T) {
	l.reload(t, ", allow: [write, rename]")
	defer l.reload(t, "")
	home := l.home(t, random(1000))
	file := filepath.Join(l.openssh.Home, "kept")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	if out, err := l.shell(t, home, "echo rm kept | sftp -F $CONFIG -b - acme"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("it was removed all the same")
	}
	if out, err := l.shell(t, home, "$PILLION put up sftp://sftp.acme.example:22/~/"); err != nil {
		t.Errorf("what is allowed: %v\n%s", err, out)
	}
}

// reload changes the section sftp, and has it taken over.
func (l *sftpLab) reload(t *testing.T, more string) {
	t.Helper()
	l.configure(t, more)
	out, err := exec.Command("curl", "-sS", "--unix-socket", filepath.Join(l.state, "admin.sock"), "-X", "POST", "http://admin/reload").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "{}" {
		t.Fatalf("reload: %v\n%s", err, out)
	}
}

// drain: an upload under way ends, the one that came by CONNECT too, and then
// pillion does.
func (l *sftpLab) drain(t *testing.T) {
	content := random(2_000_000)
	home := l.home(t, content)
	ended := make(chan error, 2)
	for i, way := range []string{"", "-o 'ProxyCommand=nc.openbsd -X connect -x " + l.proxy + " sftp.acme.example 22'"} {
		go func() {
			out, err := l.shell(t, home, fmt.Sprintf("echo put up slow%d | sftp -F $CONFIG -l 8000 %s acme", i, way))
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			ended <- err
		}()
	}
	for i := range 2 {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if info, err := os.Stat(filepath.Join(l.openssh.Home, fmt.Sprintf("slow%d", i))); err == nil && info.Size() > 0 {
				break
			}
		}
	}
	_ = l.process.Signal(syscall.SIGTERM)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	arrived(t, l.openssh, "slow0", content)
	arrived(t, l.openssh, "slow1", content)
}
