package credstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
)

// SSHDOptions is what a test wants of its server. The zero value has a host key
// of each type and a login by password or by key.
type SSHDOptions struct {
	// HostKeys are the types of its host keys: "ed25519", "ecdsa", "rsa". nil: each.
	HostKeys []string
	// Config stands before the lines of our own, and so overrules them.
	Config string
	// PAM has passwords asked for by keyboard-interactive, through PAM. That
	// needs root: without it the test is skipped.
	PAM bool
	// Expired makes the password one that has to be changed at login. Only PAM
	// asks for that.
	Expired bool
}

// SSHD is a real OpenSSH server on 127.0.0.1, with an account of its own.
type SSHD struct {
	Addr     string // 127.0.0.1:PORT
	Port     uint16
	Username string
	Password creds.Secret // a canary
	Key      creds.Secret // a private key that may log in as well, in the OpenSSH form
	Home     string       // where the account's files are
	HostKeys []string     // their public halves, "TYPE BASE64", in the order of the options

	dir   string // its configuration and log
	ended <-chan error
	cmd   *exec.Cmd
}

// StartSSHD starts a server that ends with the test.
//
// Its account is in no file of this machine: sshd runs in a mount namespace in
// which /etc/passwd and /etc/shadow are the test's. The account has the user id
// of the test, since a server without root cannot become anybody else; without
// root the mount namespace belongs to a user namespace. Where neither may be
// made, and where there is no sshd, the test is skipped.
func StartSSHD(t testing.TB, o SSHDOptions) *SSHD {
	t.Helper()
	for _, program := range []string{sshdPath, "unshare", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no real SSH server: %v (scripts/deps.sh installs it)", err)
		}
	}
	if o.PAM && os.Getuid() != 0 {
		t.Skip("PAM checks passwords for servers of root only")
	}
	if o.HostKeys == nil {
		o.HostKeys = []string{"ed25519", "ecdsa", "rsa"}
	}
	s := &SSHD{Username: "acme-uploads", Password: Canary("sftp-password"), Home: t.TempDir(), dir: t.TempDir()}
	s.writeAccount(t, o)
	s.writeKeys(t, o)
	t.Cleanup(s.Kill)
	// sshd neither takes over a listener nor says which port the kernel gave it.
	var err error
	for range 5 {
		s.Port = freePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.Port)))
		s.writeConfig(t, o)
		if err = s.Start(); err == nil {
			return s
		}
		if !strings.Contains(s.Log(), "Address already in use") {
			break
		}
	}
	if log := s.Log(); strings.Contains(log, "unshare:") || strings.Contains(log, "mount:") {
		t.Skipf("no real SSH server with an account of its own: no namespaces here: %s", log)
	}
	t.Fatalf("sshd does not start: %v\n%s", err, s.Log())
	return nil
}

const sshdPath = "/usr/sbin/sshd"

// Credential is a valid credential for this server: its password, and the pin of
// its first host key. The server's address is a literal one, which a guard
// refuses unless told otherwise.
func (s *SSHD) Credential(name string) *creds.Credential {
	return &creds.Credential{
		Name: name, Protocol: creds.SFTP, URL: "sftp://" + s.Addr + "/", Authorization: creds.Basic,
		Username: s.Username, Password: s.Password, HostKeys: s.HostKeys[:1],
	}
}

// Log is what the server has written until now, at LogLevel VERBOSE: each
// connection, each attempt to log in, each session.
func (s *SSHD) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log")) // not there before the first start
	return string(text)
}

// WaitLog returns when the log holds text at least n times.
func (s *SSHD) WaitLog(t testing.TB, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Count(s.Log(), text) >= n {
			return
		}
	}
	t.Fatalf("sshd has not logged %q %d times:\n%s", text, n, s.Log())
}

// Start starts the server again after Kill, on the same port, and returns when
// it listens.
func (s *SSHD) Start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	before := len(s.Log())
	cmd := exec.Command("unshare", s.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := startTied(cmd)
	if err != nil {
		return err
	}
	s.cmd, s.ended = cmd, ended
	for deadline := time.Now().Add(10 * time.Second); ; {
		if strings.Contains(s.Log()[before:], "Server listening on 127.0.0.1") {
			return nil
		}
		select {
		case err := <-ended:
			s.cmd = nil
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(5 * time.Millisecond): // it tells nobody but its log
		}
		if time.Now().After(deadline) {
			s.Kill()
			return errors.New("it does not listen after 10 s")
		}
	}
}

func (s *SSHD) arguments() []string {
	arguments := []string{"--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		arguments = append(arguments, "--map-root-user")
	}
	return append(arguments, "sh", filepath.Join(s.dir, "start"), s.dir, strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid()))
}

// Kill ends the server and every session at once, as a machine that crashes
// does but for the resets, which the kernel sends here.
func (s *SSHD) Kill() {
	if s.cmd == nil {
		return
	}
	// Stopped first, or it could accept one more while its children are killed.
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	s.KillSessions()
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// KillSessions ends the processes of all sessions; the server goes on.
func (s *SSHD) KillSessions() {
	for _, pid := range s.Sessions() {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}

// Sessions returns the process ids below the server, of which each connection
// has one or two.
func (s *SSHD) Sessions() []int {
	if s.cmd == nil {
		return nil
	}
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		// PID (NAME) STATE PPID: a name may hold anything but its last ).
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
	}
	var below []int
	for pid := range parents {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == s.cmd.Process.Pid {
				below = append(below, pid)
				break
			}
		}
	}
	return below
}
