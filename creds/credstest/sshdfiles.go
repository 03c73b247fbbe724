package credstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// sshdStart runs within the mount namespace, with the arguments directory, user
// and group.
const sshdStart = `set -e
cd "$1"
mount --bind passwd /etc/passwd
mount --bind shadow /etc/shadow
if [ "$2" = 0 ]; then
  mount --bind pam /etc/pam.d/sshd
  mount -t tmpfs none /run
  mkdir -p /run/sshd
  exec ` + sshdPath + ` -D -e -f config
fi
exec unshare --user --map-user="$2" --map-group="$3" ` + sshdPath + ` -D -e -f "$1/config"
`

const sshdPAM = `auth     required pam_unix.so
account  required pam_unix.so
password required pam_unix.so
session  optional pam_permit.so
`

func (s *SSHD) writeAccount(t testing.TB, o SSHDOptions) {
	t.Helper()
	hash := exec.Command("openssl", "passwd", "-6", "-stdin")
	hash.Stdin = strings.NewReader(s.Password.Reveal() + "\n")
	hashed, err := hash.Output()
	if err != nil {
		t.Fatalf("openssl passwd: %v", err)
	}
	changed := 19000 // the day of 1970 on which the password was set
	if o.Expired {
		changed = 0
	}
	s.write(t, "start", []byte(sshdStart))
	s.write(t, "pam", []byte(sshdPAM))
	s.write(t, "shadow", fmt.Appendf(nil, "%s:%s:%d:0:99999:7:::\n", s.Username, bytes.TrimSpace(hashed), changed))
	s.write(t, "passwd", fmt.Appendf(nil, `root:x:0:0::/root:/bin/sh
sshd:x:104:65534::/run/sshd:/usr/sbin/nologin
%s:x:%d:%d::%s:/bin/sh
`, s.Username, os.Getuid(), os.Getgid(), s.Home))
}

func (s *SSHD) writeKeys(t testing.TB, o SSHDOptions) {
	t.Helper()
	for _, kind := range o.HostKeys {
		private, public := newKeyPair(t, kind)
		s.write(t, "host_"+kind, private)
		s.HostKeys = append(s.HostKeys, public)
	}
	private, public := newKeyPair(t, "ed25519")
	s.write(t, "authorized", []byte(public+"\n"))
	s.Key = creds.NewSecret(string(private))
}

// newKeyPair returns the private key in the OpenSSH form, and the public one as
// "TYPE BASE64".
func newKeyPair(t testing.TB, kind string) (private []byte, public string) {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("no key type %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	half, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(half)))
}

func (s *SSHD) writeConfig(t testing.TB, o SSHDOptions) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nListenAddress 127.0.0.1\nPort %d\nPidFile none\nLogLevel VERBOSE\nUseDNS no\n", o.Config, s.Port)
	for _, kind := range o.HostKeys {
		fmt.Fprintf(&b, "HostKey %s\n", filepath.Join(s.dir, "host_"+kind))
	}
	// The account may be root's, and its home in a folder that all may write to.
	fmt.Fprintf(&b, "PermitRootLogin yes\nStrictModes no\nAuthorizedKeysFile %s\nSubsystem sftp internal-sftp\n", filepath.Join(s.dir, "authorized"))
	if o.PAM {
		fmt.Fprint(&b, "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\n")
	} else {
		fmt.Fprint(&b, "UsePAM no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\n")
	}
	s.write(t, "config", b.Bytes())
}

func (s *SSHD) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
