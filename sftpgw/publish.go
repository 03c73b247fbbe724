package sftpgw

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// The files that clients find in the publish folder.
const (
	KnownHostsFile = "known_hosts"
	SSHConfigFile  = "ssh_config"
)

// Published is what Publish tells clients.
type Published struct {
	HostKey   ssh.PublicKey
	Listener  netip.AddrPort            // where the user names the target; the zero AddrPort: nowhere
	Listeners map[string]netip.AddrPort // for one credential each, by its name
	Table     *creds.Table
}

// Publish writes known_hosts and ssh_config into dir, mode 0444, each by rename
// and only if its content changed. dir is shared with clients and exists. It is
// called again whenever credentials change: their targets are names of ours.
func Publish(dir string, p Published) error {
	for name, data := range map[string][]byte{KnownHostsFile: p.knownHosts(), SSHConfigFile: p.sshConfig(dir)} {
		if err := updateFile(filepath.Join(dir, name), data); err != nil {
			return fmt.Errorf("publishing for SFTP clients: %w", err)
		}
	}
	return nil
}

// updateFile leaves a file alone that is as it should be: clients that watch it
// are not woken for nothing.
func updateFile(path string, data []byte) error {
	const mode = 0o444
	if info, err := os.Lstat(path); err == nil && info.Mode() == mode {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	return placeFile(path, data, mode, os.Rename)
}

// alias is the name of the gateway in ssh_config: its own, whatever target a
// client thinks it speaks to.
const alias = "pillion"

// knownHosts has a line for every name by which a client may reach the gateway.
//
//	[127.0.0.1]:2022 ecdsa-sha2-nistp256 AAAA...    the listener
//	sftp.acme.com ecdsa-sha2-nistp256 AAAA...       a target: by CONNECT, jump or hostAliases
//	* ecdsa-sha2-nistp256 AAAA...                   anything else, for OpenSSH
//
// The names are exact ones, one a line, since libssh2 and paramiko know no "*".
func (p Published) knownHosts() []byte {
	names := []string{alias}
	for _, l := range p.addresses() {
		for _, host := range localNames(l.Addr()) {
			names = append(names, knownName(host, l.Port()))
		}
	}
	for _, t := range p.targets() {
		names = append(names, knownName(t.Host, t.Port))
	}
	slices.Sort(names)
	key := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(p.HostKey)), "\n")
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Written by pillion: its own host key, by every name that leads to it.")
	for _, name := range append(slices.Compact(names), "*") {
		fmt.Fprintln(&b, name, key)
	}
	return b.Bytes()
}

// addresses are those of all listeners.
func (p Published) addresses() []netip.AddrPort {
	var all []netip.AddrPort
	if p.Listener.IsValid() {
		all = append(all, p.Listener)
	}
	for _, l := range p.Listeners {
		all = append(all, l)
	}
	return all
}

// targets are the instance URLs of the credentials for SFTP, in the order of
// their names.
func (p Published) targets() []creds.Target {
	var targets []creds.Target
	for _, c := range p.Table.All() {
		if t, err := c.Instance(); err == nil && c.Protocol == creds.SFTP {
			targets = append(targets, t)
		}
	}
	return targets
}

// localNames are how clients on this machine may call an address of it.
func localNames(addr netip.Addr) []string {
	switch addr = addr.Unmap(); {
	case addr.IsUnspecified():
		return []string{"127.0.0.1", "::1", "localhost"}
	case addr.IsLoopback():
		return []string{addr.String(), "localhost"}
	}
	return []string{addr.String()}
}

// knownName writes a host as known_hosts does.
func knownName(host string, port uint16) string {
	if port == 22 {
		return host
	}
	return "[" + host + "]:" + itoa(port)
}

// sshConfig lets OpenSSH, and what runs it, use the names of credentials and the
// hosts of their targets as they are:
//
//	sftp -F ssh_config acme
//	sftp -F ssh_config sftp://files.globex.example:2222/     by a jump through the gateway
func (p Published) sshConfig(dir string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by pillion. sftp -F %s NAME, where NAME is a credential or the host of one.\n", filepath.Join(dir, SSHConfigFile))
	fmt.Fprintln(&b, "# In a container that sees this folder elsewhere: -o UserKnownHostsFile=FOLDER/known_hosts")
	hosts := p.writeNamed(&b)
	if p.Listener.IsValid() {
		writeHost(&b, alias, p.Listener, alias)
		p.writeJumps(&b, hosts)
	}
	fmt.Fprintf(&b, "\nHost *\n  HostKeyAlias %s\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  CheckHostIP no\n  UpdateHostKeys no\n  IdentitiesOnly yes\n  IdentityFile none\n",
		alias, configPath(filepath.Join(dir, KnownHostsFile)))
	return b.Bytes()
}

// writeNamed writes the credentials by name, and returns the names.
func (p Published) writeNamed(b *bytes.Buffer) []string {
	names := []string{alias}
	for _, c := range p.Table.All() {
		if c.Protocol != creds.SFTP || c.Name == alias {
			continue
		}
		l, own := p.Listeners[c.Name]
		if !own {
			l = p.Listener
		}
		if l.IsValid() {
			writeHost(b, c.Name, l, c.Name)
			names = append(names, c.Name)
		}
	}
	return names
}

func writeHost(b *bytes.Buffer, name string, l netip.AddrPort, user string) {
	fmt.Fprintf(b, "\nHost %s\n  HostName %s\n  Port %d\n  User %s\n", name, localNames(l.Addr())[0], l.Port(), user)
}

// writeJumps writes the targets' hosts. A host of one port alone needs no port
// from the client.
func (p Published) writeJumps(b *bytes.Buffer, taken []string) {
	ports := map[string][]uint16{}
	var order []string
	for _, t := range p.targets() {
		if slices.Contains(taken, t.Host) {
			continue
		}
		if ports[t.Host] == nil {
			order = append(order, t.Host)
		}
		if !slices.Contains(ports[t.Host], t.Port) {
			ports[t.Host] = append(ports[t.Host], t.Port)
		}
	}
	for _, host := range order {
		fmt.Fprintf(b, "\nHost %s\n  ProxyJump %s\n", host, alias)
		if len(ports[host]) == 1 {
			fmt.Fprintf(b, "  Port %d\n", ports[host][0])
		}
	}
}

// configPath quotes a path for ssh_config, where % begins a token.
func configPath(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t#") {
		return `"` + path + `"`
	}
	return path
}

func itoa[N uint16 | uint32](n N) string { return strconv.FormatUint(uint64(n), 10) }
