package credstest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const proftpdModule = "/usr/lib/proftpd/mod_sftp.so"

// StartProFTPD starts a ProFTPD with mod_sftp, the other SSH server that companies
// run for uploads: it speaks SFTP of its own making. What it has is what StartSSHD
// has, with a host key of each of the types "ecdsa" and "rsa" and without a login
// by key. It needs root, or the test is skipped. Start and Kill are not for it.
func StartProFTPD(t testing.TB) *SSHD {
	t.Helper()
	if _, err := os.Stat(proftpdModule); err != nil {
		t.Skipf("no ProFTPD: %v (scripts/deps.sh installs it)", err)
	}
	if os.Getuid() != 0 {
		t.Skip("ProFTPD starts as root only")
	}
	s := &SSHD{Username: "acme-uploads", Password: Canary("sftp-password"), Home: t.TempDir(), dir: t.TempDir()}
	o := SSHDOptions{HostKeys: []string{"ecdsa", "rsa"}}
	s.writeAccount(t, o)
	s.writeKeys(t, o)
	s.writeProFTPD(t)
	s.Port = freePort(t)
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.Port)))
	s.write(t, "config", fmt.Appendf(nil, proftpdConfig, s.Port, s.dir, filepath.Dir(proftpdModule)))
	cmd := exec.Command("/usr/sbin/proftpd", "-n", "-c", filepath.Join(s.dir, "config"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	ended, err := startTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd, s.ended = cmd, ended
	t.Cleanup(s.Kill)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.Addr); err == nil {
			c.Close()
			return s
		}
	}
	t.Fatalf("ProFTPD does not listen: %s%s", &said, s.Log())
	return nil
}

// writeProFTPD writes the account as ProFTPD wants it: one file, of which nobody
// else may read the hash.
func (s *SSHD) writeProFTPD(t testing.TB) {
	t.Helper()
	shadow, err := os.ReadFile(filepath.Join(s.dir, "shadow"))
	if err != nil {
		t.Fatal(err)
	}
	hash := bytes.Split(shadow, []byte(":"))[1]
	s.write(t, "users", fmt.Appendf(nil, "%s:%s:0:0::%s:/bin/sh\n", s.Username, hash, s.Home))
}

// proftpdConfig takes port, directory, and directory of modules.
const proftpdConfig = `ServerType standalone
Port %[1]d
DefaultAddress 127.0.0.1
SocketBindTight on
UseIPv6 off
UseReverseDNS off
User root
Group root
RootLogin on
RequireValidShell off
AuthPAM off
AuthOrder mod_auth_file.c
AuthUserFile %[2]s/users
PidFile %[2]s/pid
ScoreboardFile none
DelayEngine off
WtmpLog off
TransferLog none
SystemLog %[2]s/log
AllowOverwrite on
AllowStoreRestart on
ModulePath %[3]s
LoadModule mod_sftp.c
SFTPEngine on
SFTPLog %[2]s/sftplog
SFTPHostKey %[2]s/host_ecdsa
SFTPHostKey %[2]s/host_rsa
`
