package main

import (
	"net"

	"pillion/sftpgw"
)

// sftpConfig is the section sftp.
type sftpConfig struct {
	Listen    string            `yaml:"listen"`
	Listeners map[string]string `yaml:"listeners"` // by the credential's name
	Allow     *[]string         `yaml:"allow"`
	Reuse     bool              `yaml:"reuse"`
}

// servesSFTP reports whether this process has the role: by its own listener, or
// by those of single credentials. Then SSH behind CONNECT is served as well.
func (c *config) servesSFTP() bool { return c.SFTP.Listen != off || len(c.SFTP.Listeners) > 0 }

// readPolicy reads what SFTP clients may do.
func (c *config) readPolicy() (sftpgw.Policy, error) {
	if c.SFTP.Allow == nil {
		return 0, nil
	}
	names := *c.SFTP.Allow
	if names == nil {
		names = []string{} // an empty list is none that was left out
	}
	return sftpgw.ParsePolicy(names)
}

func (c *config) checkSFTP(d *document) {
	taken := map[string]string{} // address -> the key that has it
	take := func(path, address string) {
		if _, port, _ := net.SplitHostPort(address); port != "0" {
			taken[address] = path
		}
	}
	take("proxy.listen", c.Proxy.Listen)
	take("metrics.listen", c.Metrics.Listen)
	check := func(path, address, example string) {
		host, ok := checkListen(d, path, address)
		switch {
		case !ok:
			return
		case !isLoopback(host):
			d.add(path, "%s is not a loopback address, and pillion serves only its own machine or pod: write %s", address, example)
		case taken[address] != "":
			d.add(path, "%s is the address of %s as well: choose another port", address, taken[address])
		}
		take(path, address)
	}
	check("sftp.listen", c.SFTP.Listen, "127.0.0.1:2022")
	for _, name := range sortedKeys(c.SFTP.Listeners) {
		path := "sftp.listeners." + printableKey(name)
		switch {
		case isBadName(name):
			d.add(path, "no credential can have this name: write NAME: ADDRESS, such as acme: 127.0.0.1:2023")
		case c.SFTP.Listeners[name] == off:
			d.add(path, "a listener of one credential is left out, not switched off: remove the line")
		default:
			check(path, c.SFTP.Listeners[name], "127.0.0.1:2023")
		}
	}
	var err error
	if c.sftpPolicy, err = c.readPolicy(); err != nil {
		d.add("sftp.allow", "%v", err)
	}
}
