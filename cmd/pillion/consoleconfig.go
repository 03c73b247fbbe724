package main

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// consoleConfig is the section console.
type consoleConfig struct {
	Listen         string               `yaml:"listen"`
	URL            string               `yaml:"url"`
	Session        consoleSessionConfig `yaml:"session"`
	SessionKeyFile string               `yaml:"session_key_file"`
	TLS            consoleTLSConfig     `yaml:"tls"`
	BehindTLS      bool                 `yaml:"behind_tls"`
	Prometheus     string               `yaml:"prometheus"`
	Vault          consoleVaultConfig   `yaml:"vault"`
}

// consoleSessionConfig is when a login ends.
type consoleSessionConfig struct {
	Idle     time.Duration `yaml:"idle"`     // without a click
	Absolute time.Duration `yaml:"absolute"` // in any case
}

const (
	minSessionTime = time.Minute
	maxSessionTime = 30 * 24 * time.Hour
)

func (s *consoleSessionConfig) check(d *document) {
	for _, key := range []struct {
		name  string
		value time.Duration
	}{{"console.session.idle", s.Idle}, {"console.session.absolute", s.Absolute}} {
		if key.value < minSessionTime || key.value > maxSessionTime {
			d.add(key.name, "must be between 1m and 720h (30 days)")
		}
	}
}

type consoleTLSConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// paths are the fields that name files.
func (c *consoleConfig) paths() []*string {
	return []*string{&c.SessionKeyFile, &c.TLS.Cert, &c.TLS.Key}
}

// byTLS reports whether browsers come by TLS.
func (c *consoleConfig) byTLS() bool { return c.TLS.Cert != "" || c.BehindTLS }

// checkConsole keeps passwords off the network in the clear, and the address in
// people's browsers from being guessed.
func (c *config) checkConsole(d *document) {
	k := &c.Console
	host, listens := checkListen(d, "console.listen", k.Listen)
	if (k.TLS.Cert == "") != (k.TLS.Key == "") {
		d.add("console.tls", "needs both cert and key, or neither")
	}
	if k.TLS.Cert != "" && k.BehindTLS {
		d.add("console.behind_tls", "and console.tls exclude one another: keep the one that is true")
	}
	if listens && !isLoopback(host) && !k.byTLS() {
		d.add("console.listen", "%s is not a loopback address, and passwords would pass in the clear: configure console.tls, or say behind_tls: true where something in front of it ends TLS", k.Listen)
	}
	k.Session.check(d)
	c.checkConsoleVault(d)
	if k.Prometheus != "" {
		if u, err := url.Parse(k.Prometheus); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			d.add("console.prometheus", "must be the URL of a Prometheus, such as http://prometheus.example:9090")
		}
	}
	if k.URL == "" {
		if listens && (k.BehindTLS || !isLoopback(host)) {
			d.add("console.url", "is needed here: the URL under which people open the page, such as https://pillion.example")
		}
		return
	}
	u, err := url.Parse(k.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		d.add("console.url", "must be the URL under which people open the page, without a path, such as https://pillion.example")
	case k.byTLS() && u.Scheme != "https":
		d.add("console.url", "must begin with https://, since browsers come by TLS")
	case !k.byTLS() && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		d.add("console.url", "must be http:// and a loopback address, unless console.tls or behind_tls is configured")
	}
}

// checkFiles examines the files that the section names.
func (c *consoleConfig) checkFiles(d *document) {
	if c.Listen == off {
		return
	}
	if c.SessionKeyFile != "" {
		if _, err := c.sessionKey(); err != nil {
			d.add("console.session_key_file", "%v", err)
		}
	}
	if c.TLS.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key); err != nil {
			d.add("console.tls", "certificate and key cannot be used: both must be PEM files that this user may read, and belong together")
		}
	}
}

const minSessionKey = 32

func (c *consoleConfig) sessionKey() ([]byte, error) {
	key, err := os.ReadFile(c.SessionKeyFile)
	if err != nil {
		return nil, errors.New(fileProblem(err) + ": make it with openssl rand -hex 32")
	}
	if len(key) < minSessionKey {
		return nil, errors.New("the file must hold at least 32 random bytes: make it with openssl rand -hex 32")
	}
	return key, nil
}

// address is where people open the page, when it listens at l.
func (c *consoleConfig) address(l net.Addr) string {
	switch {
	case c.URL != "":
		return c.URL
	case c.TLS.Cert != "":
		return "https://" + l.String()
	}
	return "http://" + l.String()
}
