package sftpgw

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

func TestHostKey(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadHostKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadHostKey(dir)
	if err != nil || ssh.FingerprintSHA256(first.PublicKey()) != ssh.FingerprintSHA256(second.PublicKey()) {
		t.Error("another key at the second start", err)
	}
	path := filepath.Join(dir, hostKeyFile)
	if info, _ := os.Stat(path); info.Mode() != 0o600 {
		t.Error("mode", info.Mode())
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Error("files left behind:", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHostKey(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("something pillioncanary"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHostKey(dir); err == nil || !strings.Contains(err.Error(), "remove it") || strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
	if _, err := LoadHostKey(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there")
	}
}

func TestHostKeyOfSeveralStarts(t *testing.T) {
	dir := t.TempDir()
	keys := make(chan string)
	for range 8 {
		go func() {
			key, err := LoadHostKey(dir)
			if err != nil {
				keys <- err.Error()
				return
			}
			keys <- ssh.FingerprintSHA256(key.PublicKey())
		}()
	}
	first := <-keys
	for range 7 {
		if other := <-keys; other != first {
			t.Errorf("%s and %s", first, other)
		}
	}
}

func TestPublish(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	key, err := LoadHostKey(state)
	if err != nil {
		t.Fatal(err)
	}
	p := Published{
		HostKey: key.PublicKey(), Listener: netip.MustParseAddrPort("127.0.0.1:2022"),
		Listeners: map[string]netip.AddrPort{"globex": netip.MustParseAddrPort("127.0.0.2:22")},
		Table: creds.NewTable([]*creds.Credential{
			named("acme", "sftp://sftp.acme.example:22/"),
			named("globex", "sftp://files.globex.example:2222/"),
			named("both-a", "sftp://both.example:22/"),
			named("both-b", "sftp://both.example:2222/"),
			named("web", "https://web.example/"),
		}),
	}
	if err := Publish(dir, p); err != nil {
		t.Fatal(err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.ReplaceAll(string(text), public, "KEY"), dir, "DIR")
	}
	wantHosts := `# Written by pillion: its own host key, by every name that leads to it.
127.0.0.2 KEY
[127.0.0.1]:2022 KEY
[both.example]:2222 KEY
[files.globex.example]:2222 KEY
[localhost]:2022 KEY
both.example KEY
localhost KEY
pillion KEY
sftp.acme.example KEY
* KEY
`
	if got := read(KnownHostsFile); got != wantHosts {
		t.Errorf("known_hosts:\n%s", got)
	}
	wantConfig := `# Written by pillion. sftp -F DIR/ssh_config NAME, where NAME is a credential or the host of one.
# In a container that sees this folder elsewhere: -o UserKnownHostsFile=FOLDER/known_hosts

Host acme
  HostName 127.0.0.1
  Port 2022
  User acme

Host both-a
  HostName 127.0.0.1
  Port 2022
  User both-a

Host both-b
  HostName 127.0.0.1
  Port 2022
  User both-b

Host globex
  HostName 127.0.0.2
  Port 22
  User globex

Host pillion
  HostName 127.0.0.1
  Port 2022
  User pillion

Host sftp.acme.example
  ProxyJump pillion
  Port 22

Host both.example
  ProxyJump pillion

Host files.globex.example
  ProxyJump pillion
  Port 2222

Host *
  HostKeyAlias pillion
  UserKnownHostsFile DIR/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  CheckHostIP no
  UpdateHostKeys no
  IdentitiesOnly yes
  IdentityFile none
`
	if got := read(SSHConfigFile); got != wantConfig {
		t.Errorf("ssh_config:\n%s", got)
	}
	before, err := os.Stat(filepath.Join(dir, KnownHostsFile))
	if err != nil || before.Mode() != 0o444 {
		t.Fatal(before.Mode(), err)
	}
	if err := Publish(dir, p); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(filepath.Join(dir, KnownHostsFile)); !os.SameFile(before, after) {
		t.Error("an unchanged file is written again")
	}
	p.Table = creds.NewTable(nil)
	if err := Publish(dir, p); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(read(KnownHostsFile), "acme") {
		t.Error("a credential that has gone is still named")
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Error("files left behind:", left)
	}
}
