package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// The only cipher and the only key exchange that the server offers: with a choice, each way would be measured with another one. OpenSSH with OpenSSH
// would pick a post-quantum exchange that takes 0.1 s of CPU.
const (
	sshCipher   = ssh.CipherAES128GCM
	sshExchange = ssh.KeyExchangeCurve25519
)

// lineDelay is how long a byte is under way on the long line: a round trip of 40 ms.
const lineDelay = 20 * time.Millisecond

// sftpLab is what all ways to one SSH server share.
type sftpLab struct {
	*lab
	data       string // a directory of files, in memory where there is room
	user       string
	key        string // the file of the private key that logs in
	hostKey    string // the server's, as known_hosts has it
	near, far  string // the server, and the server at the end of a long line
	sshd, line *process
}

const sshdConfig = `ListenAddress %s
Port %s
HostKey %s
AuthorizedKeysFile %s
Ciphers %s
KexAlgorithms %s
Subsystem sftp internal-sftp
PidFile none
UseDNS no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
MaxStartups 200
MaxSessions 200
LogLevel ERROR
`

// openSFTPLab starts a real OpenSSH server, which logs in the bench's own user by a key of its own, and a long line to it.
func openSFTPLab(ctx context.Context, l *lab) (*sftpLab, error) {
	s := &sftpLab{lab: l}
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sftpLab) open(ctx context.Context) error {
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("finding who we are: %w", err)
	}
	s.user = me.Username
	if s.data, err = os.MkdirTemp(roomyDir(), "pillion-bench-sftp-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if err := s.startSSHD(ctx); err != nil {
		return err
	}
	return s.startLine(ctx)
}

// roomyDir is memory, so that disks stay out of the comparison, unless TMPDIR says where temporary files belong.
func roomyDir() string {
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
		return memory
	}
	return ""
}

func (s *sftpLab) startSSHD(ctx context.Context) error {
	program, err := findProgram("sshd")
	if err != nil {
		return err
	}
	if s.near, err = freePort(); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(s.near)
	hostKey := filepath.Join(s.dir, "sshd_host_key")
	if s.hostKey, err = writeKey(hostKey); err != nil {
		return err
	}
	s.key = filepath.Join(s.dir, "sftp_key")
	public, err := writeKey(s.key)
	if err != nil {
		return err
	}
	authorized, config := s.key+".pub", filepath.Join(s.dir, "sshd_config")
	if err := os.WriteFile(authorized, []byte(public+"\n"), 0o600); err != nil {
		return err
	}
	text := fmt.Sprintf(sshdConfig, host, port, hostKey, authorized, sshCipher, sshExchange)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	args := []string{program, "-D", "-e", "-f", config}
	if os.Getuid() == 0 {
		// As root it wants a directory in /run, which is there only where it is installed as a service.
		args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-ec",
			`mount -t tmpfs none /run; mkdir /run/sshd; exec "$@"`, "sh"}, args...)
	}
	if s.sshd, err = start(s.dir, "sshd", args); err != nil {
		return err
	}
	return s.sshd.await(ctx, func() bool { return accepts(s.near) })
}

func (s *sftpLab) startLine(ctx context.Context) (err error) {
	if s.far, err = freePort(); err != nil {
		return err
	}
	if s.line, err = startTalking(s.dir, lineName, s.self, lineName); err != nil {
		return err
	}
	if err := s.line.tell(relayConfig{Ways: []relayWay{{s.far, s.near}}, Delay: lineDelay}); err != nil {
		return err
	}
	return s.line.await(ctx, func() bool { return accepts(s.far) })
}

func (s *sftpLab) close() {
	if s.line != nil {
		s.line.stop()
	}
	if s.sshd != nil {
		s.sshd.stop()
	}
	if s.data != "" {
		_ = os.RemoveAll(s.data)
	}
}

// writeKey makes a key pair, writes its private half to a file and returns the public one as "TYPE BASE64".
func writeKey(file string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", fmt.Errorf("writing a key: %w", err)
	}
	half, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(half))), nil
}

// sftpVersions are those of the programs in an SFTP run.
func (s *sftpLab) sftpVersions() []string {
	versions := s.pillionVersion()
	text, _ := exec.Command("ssh", "-V").CombinedOutput()
	version, _, _ := strings.Cut(strings.TrimSpace(string(text)), ",")
	versions = append(versions, version)
	if program, err := findProgram("socat"); err == nil {
		versions = append(versions, "socat "+strings.Join(strings.Fields(says("socat version", program, "-V"))[2:3], ""))
	}
	return append(versions, moduleVersions("github.com/pkg/sftp", "golang.org/x/crypto")...)
}
