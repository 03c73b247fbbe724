package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pillion/creds"
	"pillion/proxy"
)

// check examines the values; the walk has examined keys and kinds.
func (c *config) check(d *document) {
	c.checkListeners(d)
	c.checkSFTP(d)
	c.checkConsole(d)
	oneOf(d, "refresher.enabled", c.Refresher.Enabled, "auto", "true", "false")
	oneOf(d, "proxy.unmatched", c.Proxy.Unmatched, "deny", "tunnel")
	oneOf(d, "proxy.fast", c.Proxy.Fast, "on", off)
	oneOf(d, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(d, "log.format", c.Log.Format, "json", "text")
	if c.Drain < 0 {
		d.add("drain", "must not be negative: 0s ends at once")
	}
	if c.Proxy.AllowUIDs != nil && len(*c.Proxy.AllowUIDs) == 0 {
		d.add("proxy.allow_uids", "an empty list would serve nobody: list the user ids, or leave the key out")
	}
	if d.places["store.file"] != "" && c.Store.Vault != nil {
		d.add("store", "file and vault exclude one another: keep one")
	}
	c.checkNames(d)
	c.checkPublish(d)
	c.checkUpstream(d)
}

// checkNames examines store.credentials. An empty list must not turn into "all".
func (c *config) checkNames(d *document) {
	if c.Store.Credentials == nil {
		return
	}
	names := *c.Store.Credentials
	if len(names) == 0 {
		d.add("store.credentials", "an empty list would allow no credential: list their names, or leave the key out")
	}
	for i, name := range names {
		if slices.Index(names, name) != i {
			d.add(fmt.Sprintf("store.credentials[%d]", i), "%q stands in the list twice: remove one", name)
		}
	}
}

func oneOf(d *document, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		d.add(path, "%q is not known: write %s", value, orList(allowed))
	}
}

// orList is "A, B or C".
func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func (c *config) checkListeners(d *document) {
	if host, ok := checkListen(d, "proxy.listen", c.Proxy.Listen); ok && !isLoopback(host) {
		d.add("proxy.listen", "%s is not a loopback address, and pillion serves only its own machine or pod: write 127.0.0.1:3128", c.Proxy.Listen)
	}
	checkListen(d, "metrics.listen", c.Metrics.Listen)
	if c.Proxy.Listen == off && c.Metrics.Listen == off && c.Console.Listen == off && !c.servesSFTP() {
		d.add("proxy.listen", "every role of this build is off: there would be nothing to do")
	}
}

// checkListen reports whether address names something to listen on, and its host.
func checkListen(d *document, path, address string) (host string, ok bool) {
	if address == off {
		return "", false
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		d.add(path, "%q is not an address: write IP:PORT, such as 127.0.0.1:3128, or off", address)
		return "", false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		d.add(path, "%q must start with an IP address (or localhost): a name may mean another machine tomorrow", address)
		return "", false
	}
	return host, true
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// checkPublish keeps the keys out of the folder that is shared.
func (c *config) checkPublish(d *document) {
	if c.State == "" || c.Publish == "" {
		return
	}
	if rel, err := filepath.Rel(c.Publish, c.State); err == nil && !strings.HasPrefix(rel, "..") {
		d.add("publish", "the state directory, which holds the keys, must not lie inside the folder that other containers read: write a folder of its own")
	}
}

func (c *config) checkUpstream(d *document) {
	for i, entry := range c.Upstream.Allow {
		if problem := checkAllow(entry); problem != "" {
			d.add(fmt.Sprintf("upstream.allow[%d]", i), "%s", problem)
		}
	}
	for _, host := range sortedKeys(c.Upstream.Resolve) {
		checkResolve(d, host, c.Upstream.Resolve[host])
	}
	if c.Upstream.Proxy != "" {
		u, err := url.Parse(c.Upstream.Proxy)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			d.add("upstream.proxy", "must be the URL of the corporate proxy with its port, such as http://proxy.example:8080")
		case u.User != nil:
			d.add("upstream.proxy", "a password does not belong into this file: this build speaks only to proxies that ask for none")
		}
	}
}

func checkAllow(entry string) string {
	if _, err := proxy.ParseAllow([]string{entry}); err != nil {
		return strings.TrimPrefix(err.Error(), "upstream.allow: ")
	}
	return ""
}

func checkResolve(d *document, host, address string) {
	if _, err := proxy.ParseResolve(map[string]string{host: address}); err != nil {
		d.add("upstream.resolve."+printableKey(host), "%s", strings.TrimPrefix(strings.TrimPrefix(err.Error(), "upstream.resolve: "), host+": "))
	}
}

// checkFiles examines the files that the configuration names, as run will use
// them: at check time, and again at every reload.
func (c *config) checkFiles() []problem {
	d := &document{file: filepath.Base(c.file), places: c.places}
	if c.Upstream.CAFile != "" {
		if _, err := readCertificates(c.Upstream.CAFile); err != nil {
			d.add("upstream.ca_file", "%v", err)
		}
	}
	c.Console.checkFiles(d)
	if c.Proxy.ClientTokenFile != "" {
		if _, err := c.clientToken(); err != nil {
			d.add("proxy.client_token_file", "%v", err)
		}
	}
	return d.problems
}

// stateNote says when others may look into the state directory; "" when they may
// not, or there is none yet. Its files are closed in any case, their names and
// times are not.
func (c *config) stateNote() string {
	info, err := os.Stat(c.State)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return ""
	}
	return fmt.Sprintf("the state directory %s is open to other users (mode %04o): chmod 700 it; pillion run does so where it may", c.State, info.Mode().Perm())
}

// readCertificates returns the PEM certificates in file.
func readCertificates(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", file, fileProblem(err))
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate: it must be PEM, with lines BEGIN CERTIFICATE", file)
	}
	return data, nil
}

// clientToken reads what clients must present; the zero Secret when nothing is asked.
func (c *config) clientToken() (creds.Secret, error) {
	if c.Proxy.ClientTokenFile == "" {
		return creds.Secret{}, nil
	}
	data, err := os.ReadFile(c.Proxy.ClientTokenFile)
	if err != nil {
		return creds.Secret{}, fmt.Errorf("%s: write the path of a file that holds the token", fileProblem(err))
	}
	data = bytes.TrimRight(data, "\n") // as the shell does with what env prints
	if len(data) < 16 || bytes.ContainsFunc(data, func(r rune) bool { return !isUnreserved(r) }) {
		return creds.Secret{}, errors.New("the file must hold one line of at least 16 characters A-Z, a-z, 0-9, - . _ ~, since the token stands in the clients' proxy URL: make one with openssl rand -hex 32")
	}
	return creds.NewSecret(string(data)), nil
}

// isUnreserved reports whether r means itself everywhere in a URL (RFC 3986
// section 2.3).
func isUnreserved(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
