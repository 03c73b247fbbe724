package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// sftpLab is a pillion that runs as its own process, before a real OpenSSH server
// and, where there is one, a real ProFTPD. Every row of TestSFTP shares it.
type sftpLab struct {
	*sidecarProcess
	whole        *testing.T // that the lab belongs to, not one of its parts
	listen, only string     // where it serves SFTP, and where for acme alone
	openssh      *credstest.SSHD
	proftpd      *credstest.SSHD // nil: not here
	globex       *credstest.SSHD // one of the two
}

const (
	acmeHost   = "sftp.acme.example"    // port 22, credential acme, OpenSSH
	globexHost = "files.globex.example" // port 2222, credential globex, ProFTPD or OpenSSH
)

// otherHosts lead to OpenSSH too, for tests that need credentials of their own.
var otherHosts = []string{"new.example", "wrong.example", "rsa.example", "ecdsa.example", "pins.example"}

// newSFTPLab starts all of it.
func newSFTPLab(t *testing.T) *sftpLab {
	t.Helper()
	l := &sftpLab{
		whole:          t,
		sidecarProcess: &sidecarProcess{binary: buildProgram(t, "."), state: filepath.Join(t.TempDir(), "state"), proxy: credstest.FreeAddress(t), metrics: credstest.FreeAddress(t)},
		listen:         credstest.FreeAddress(t), only: credstest.FreeAddress(t),
		openssh: credstest.StartSSHD(t, credstest.SSHDOptions{}),
	}
	l.globex = l.openssh
	if _, err := os.Stat("/usr/lib/proftpd/mod_sftp.so"); err == nil && os.Getuid() == 0 {
		l.proftpd = credstest.StartProFTPD(t)
		l.globex = l.proftpd
	}
	l.config = filepath.Join(t.TempDir(), "pillion.yaml")
	l.configure(t, "")
	l.set(t, l.openssh, "acme", "sftp://"+acmeHost+":22/", l.openssh.HostKeys[0])
	l.set(t, l.globex, "globex", "sftp://"+globexHost+":2222/", l.globex.HostKeys[0])
	l.start(t)
	return l
}

// set stores a credential for server under that URL and pin.
func (l *sftpLab) set(t *testing.T, server *credstest.SSHD, name, url, pin string) {
	t.Helper()
	l.run(t, server.Password.Reveal(), "credential", "set", name, "--config", l.config, "--url", url,
		"--username", server.Username, "--password-file", "-", "--host-key", pin)
}

// configure writes the configuration; more is put into the section sftp.
func (l *sftpLab) configure(t *testing.T, more string) {
	t.Helper()
	text := fmt.Sprintf(`state: %q
proxy: {listen: %q}
metrics: {listen: %q}
sftp: {listen: %q, listeners: {acme: %q}%s}
upstream:
  allow: [127.0.0.1]
  resolve:
    %s: %q
    %s: %q
`, l.state, l.proxy, l.metrics, l.listen, l.only, more, acmeHost, l.openssh.Addr, globexHost, l.globex.Addr)
	for _, host := range otherHosts {
		text += fmt.Sprintf("    %s: %q\n", host, l.openssh.Addr)
	}
	if err := os.WriteFile(l.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *sftpLab) published(name string) string { return filepath.Join(l.state, "public", name) }

// home is a client's home directory: with our key among its known hosts, where
// curl looks, the file "up" and the batch that puts it to "to".
func (l *sftpLab) home(t *testing.T, content []byte) string {
	t.Helper()
	dir := t.TempDir()
	known, err := os.ReadFile(l.published("known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{".ssh/known_hosts": known, "up": content, "batch": []byte("put up to\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shell runs a command line in dir, as a connector that knows nothing but where
// pillion is.
func (l *sftpLab) shell(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", command)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C",
		"KH=" + l.published("known_hosts"), "CONFIG=" + l.published("ssh_config"),
		"PILLION_CONFIG=" + l.config, "PILLION=" + l.binary}
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	credstest.FindCanaries(t, out) // the password of a server
	return string(out), err
}

// here turns a command line of the documents, with its standard ports, into one
// for this lab.
func (l *sftpLab) here(command string) string {
	port := func(address string) string { _, port, _ := net.SplitHostPort(address); return port }
	return strings.NewReplacer(
		"127.0.0.1:3128", l.proxy,
		"127.0.0.1:2022", l.listen, "-P 2022", "-P "+port(l.listen), "-p 2022", "-p "+port(l.listen), "port=2022", "port="+port(l.listen), "', 2022,", "', "+port(l.listen)+",",
		"-P 2023", "-P "+port(l.only),
		"/var/lib/pillion/public/known_hosts", l.published("known_hosts"),
	).Replace(command)
}

// documentedSFTP are the command lines of docs/sftp.md, under "## Commands", each of which puts the
// file "up" to the server as "to". Those of Python are one.
func documentedSFTP(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/sftp.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Commands\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	python := ""
	for line := range strings.Lines(section) {
		command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		switch {
		case !ok:
		case strings.HasPrefix(command, "c = ") || strings.HasPrefix(command, "c."):
			python += command + "\n"
		default:
			commands = append(commands, command)
		}
	}
	return append(commands, "/usr/bin/python3 -c \"\nimport paramiko\n"+python+"c.close()\"")
}

// moreSFTP are command lines for what the page says in words.
var moreSFTP = []string{
	`sftp -o UserKnownHostsFile=$KH -P 2022 -b batch acme@localhost`,
	`sftp -o UserKnownHostsFile=$KH -P 2023 -b batch anybody@127.0.0.1`, // the listener of one credential
	`sftp -o UserKnownHostsFile=$KH -o "ProxyCommand=socat - PROXY:127.0.0.1:%h:%p,proxyport=$(echo 127.0.0.1:3128 | cut -d: -f2)" -b batch sftp.acme.example`,
	`sftp -F $CONFIG -J pillion -b batch sftp.acme.example`,
	`$PILLION put --quiet up sftp://sftp.acme.example:22/~/to`,
	`$PILLION put --quiet --credential acme up sftp://sftp.acme.example:22/~/to`, // by CONNECT
}

// TestSFTP: the built program with real clients before real servers.
func TestSFTP(t *testing.T) {
	t.Parallel()
	l := newSFTPLab(t)
	t.Run("clients", l.clients)
	t.Run("commands", l.commands)
	t.Run("new credentials", l.newCredentials)
	t.Run("policy", l.policy)
	// Of docs/attacks.md:
	t.Run("55 another host key than the pinned one", l.another)
	t.Run("56 the server offers another type of key first", func(t *testing.T) {
		for name, pin := range map[string]string{"rsa": l.openssh.HostKeys[2], "ecdsa": l.openssh.HostKeys[1]} {
			l.set(t, l.openssh, name, "sftp://"+name+".example:22/", pin)
			l.uploads(t, name)
		}
	})
	t.Run("57 pins in every form", l.pins)
	t.Run("58 what sftp.allow does not list", l.denied)
	t.Run("59 uploads with something killed under them", func(t *testing.T) {
		for i := range 12 { // sftpgw has more of them, make soak 200
			l.killed(t, i%kills)
		}
	})
	t.Run("60 anything but SFTP", l.onlySFTP)
	t.Run("61 two uploads at once", func(t *testing.T) {
		var group sync.WaitGroup
		for _, name := range []string{"acme", "globex", "acme", "globex"} {
			group.Go(func() { l.uploads(t, name) })
		}
		group.Wait()
	})
	t.Run("drain", l.drain) // the last: pillion has ended then
}

// clients: every command line of docs/sftp.md; what arrives is what was sent.
func (l *sftpLab) clients(t *testing.T) {
	commands := append(documentedSFTP(t), moreSFTP...)
	if len(commands) < 20 {
		t.Fatalf("only %d command lines were found", len(commands))
	}
	if l.proftpd != nil { // the main ones to it as well
		for _, command := range slices.Clone(commands) {
			if strings.Contains(command, "acme@127.0.0.1") || strings.Contains(command, "acme,") || strings.Contains(command, "'acme'") || strings.Contains(command, "$PILLION put") {
				commands = append(commands, strings.NewReplacer("sftp.acme.example:22", "files.globex.example:2222", "sftp.acme", "files.globex", "acme", "globex").Replace(command))
			}
		}
	}
	for _, command := range commands {
		t.Run(strings.Join(strings.Fields(command), " "), func(t *testing.T) {
			need(t, clientOf(command))
			content := random(300_000)
			home := l.home(t, content)
			out, err := l.shell(t, home, l.here(command))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			server := l.openssh
			if strings.Contains(command, "globex") && l.proftpd != nil {
				server = l.proftpd
			}
			arrived(t, server, "to", content)
		})
	}
}

func random(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.Read(content)
	return content
}

// arrived checks a file on the server, and removes it.
func arrived(t *testing.T, server *credstest.SSHD, name string, content []byte) {
	t.Helper()
	path := filepath.Join(server.Home, name)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d arrived, %v", len(got), len(content), err)
	}
	_ = os.Remove(path)
}

// clientOf is the program that a command line needs.
func clientOf(command string) string {
	for _, helper := range []string{"nc.openbsd", "ncat", "socat"} {
		if strings.Contains(command, helper) {
			return helper
		}
	}
	words := strings.Fields(command)
	if strings.Contains(words[0], "=") {
		words = words[1:]
	}
	switch words[0] {
	case "/usr/bin/python3":
		return "/usr/lib/python3/dist-packages/paramiko"
	case "$PILLION":
		return ""
	}
	return words[0]
}
