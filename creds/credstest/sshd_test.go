package credstest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestSSHDLogsInByPasswordAndByKey(t *testing.T) {
	s := StartSSHD(t, SSHDOptions{})
	key, err := ssh.ParsePrivateKey([]byte(s.Key.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []ssh.AuthMethod{ssh.Password(s.Password.Reveal()), ssh.PublicKeys(key)} {
		c := s.dial(t, method)
		if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	s.WaitLog(t, "Accepted password for "+s.Username, 1)
	s.WaitLog(t, "Accepted publickey for "+s.Username, 1)
	if _, err := ssh.Dial("tcp", s.Addr, s.config(t, ssh.Password("another"))); err == nil {
		t.Error("another password is accepted")
	}
	FindCanaries(t, []byte(s.Log()))
	if err := s.Credential("acme").Validate(); err != nil {
		t.Error(err)
	}
}

func TestSSHDServesItsHome(t *testing.T) {
	s := StartSSHD(t, SSHDOptions{HostKeys: []string{"rsa"}})
	c := s.dial(t, ssh.Password(s.Password.Reveal()))
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run("echo hello >greeting"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(s.Home, "greeting")); string(text) != "hello\n" {
		t.Errorf("read %q", text)
	}
	s.KillSessions()
	if err := c.Wait(); err == nil {
		t.Error("a killed session ends in good order")
	}
	s.Kill()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	s.dial(t, ssh.Password(s.Password.Reveal()))
}

func TestSSHDAsksForANewPassword(t *testing.T) {
	s := StartSSHD(t, SSHDOptions{PAM: true, Expired: true})
	var prompts []string
	ask := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		prompts = append(prompts, questions...)
		if len(questions) == 1 && len(prompts) == 1 {
			return []string{s.Password.Reveal()}, nil
		}
		return make([]string, len(questions)), nil
	})
	_, err := ssh.Dial("tcp", s.Addr, s.config(t, ask))
	if err == nil {
		t.Fatal("logged in")
	}
	if all := strings.Join(prompts, "|"); !strings.Contains(all, "assword") || len(prompts) < 2 {
		t.Errorf("asked %q", all)
	}
}

// config trusts the server's first host key, and asks for that one.
func (s *SSHD) config(t *testing.T, method ssh.AuthMethod) *ssh.ClientConfig {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKeys[0]))
	if err != nil {
		t.Fatal(err)
	}
	algorithm := key.Type()
	if algorithm == ssh.KeyAlgoRSA {
		algorithm = ssh.KeyAlgoRSASHA256
	}
	return &ssh.ClientConfig{User: s.Username, Auth: []ssh.AuthMethod{method}, HostKeyCallback: ssh.FixedHostKey(key), HostKeyAlgorithms: []string{algorithm}}
}

func (s *SSHD) dial(t *testing.T, method ssh.AuthMethod) *ssh.Client {
	t.Helper()
	c, err := ssh.Dial("tcp", s.Addr, s.config(t, method))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log())
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestProFTPDLogsInByPassword(t *testing.T) {
	s := StartProFTPD(t)
	c := s.dial(t, ssh.Password(s.Password.Reveal()))
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		t.Error(err)
	}
	if _, err := ssh.Dial("tcp", s.Addr, s.config(t, ssh.Password("another"))); err == nil {
		t.Error("another password is accepted")
	}
	s.KillSessions()
	if err := c.Wait(); err == nil {
		t.Error("a killed session ends in good order")
	}
}
