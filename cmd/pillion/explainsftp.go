package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"pillion/creds"
	"pillion/sftpgw"
)

// sftpExplained is what explain says of a credential for SFTP.
type sftpExplained struct {
	Username string   `json:"username"`
	HostKeys []string `json:"host_keys"`
	Commands []string `json:"commands,omitempty"`
	Note     string   `json:"note,omitempty"`
}

func (a *app) explainSFTP(ctx context.Context, cfg *config, c *creds.Credential) (*sftpExplained, error) {
	target, err := c.Instance()
	if err != nil {
		return nil, err
	}
	pins, err := creds.ParseHostKeys(c.HostKeys, target.Host, target.Port)
	if err != nil {
		return nil, fmt.Errorf("the credential %s matches, but its host key %w", c.Name, err)
	}
	e := &sftpExplained{Username: c.Username}
	for _, pin := range pins {
		e.HostKeys = append(e.HostKeys, strings.TrimSpace(pin.Type+" "+pin.SHA256))
	}
	at, _, err := a.whereSFTP(ctx, cfg)
	if err != nil {
		e.Note = err.Error()
		return e, nil
	}
	e.Commands = at.commands(c.Name, c.URL)
	return e, nil
}

func (e *sftpExplained) print(w io.Writer) {
	fmt.Fprintf(w, "logs in as:    %s, once the server has shown its host key\n", e.Username)
	for _, key := range e.HostKeys {
		fmt.Fprintln(w, "host key:      "+key)
	}
	if e.Note != "" {
		fmt.Fprintln(w, "note:          "+e.Note)
	}
	for i, line := range e.Commands {
		head := "commands:      "
		if i > 0 {
			head = "               "
		}
		fmt.Fprintln(w, head+line)
	}
}

// commands are command lines for clients, to copy. name is a credential's, rawURL
// its instance URL.
func (at sftpPlace) commands(name, rawURL string) []string {
	config := shellQuote(filepath.Join(at.publish, sftpgw.SSHConfigFile))
	known := shellQuote(filepath.Join(at.publish, sftpgw.KnownHostsFile))
	lines := []string{"pillion put FILE " + strings.TrimSuffix(rawURL, "/") + "/~/"}
	if host, port, err := net.SplitHostPort(at.listener); err == nil {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		lines = append(lines,
			"sftp -F "+config+" "+name,
			"sftp -o UserKnownHostsFile="+known+" -P "+port+" "+name+"@"+host,
			"curl -T FILE sftp://"+name+"@"+host+":"+port+"/~/",
		)
	}
	if target, err := creds.ParseTarget(rawURL); err == nil && at.proxy != "" {
		lines = append(lines, fmt.Sprintf("sftp -o UserKnownHostsFile=%s -o 'ProxyCommand=nc -X connect -x %s %%h %%p' -P %d %s", known, at.proxy, target.Port, target.Host))
	}
	return lines
}

// servesAnySFTP reports whether the running pillion has a credential for SFTP.
func (a *app) servesAnySFTP(ctx context.Context, c *config) bool {
	_, s, err := a.whereSFTP(ctx, c)
	return err == nil && slices.ContainsFunc(s.Credentials, func(c credentialStatus) bool { return creds.ProtocolOf(c.URL) == creds.SFTP })
}

// sftp examines what SFTP clients need.
func (x *examination) sftp(ctx context.Context, c *config, target creds.Target) error {
	at, _, err := x.app.whereSFTP(ctx, c)
	if err != nil {
		return err
	}
	known := filepath.Join(at.publish, sftpgw.KnownHostsFile)
	if at.listener != "" {
		x.reachSFTP(ctx, at.listener, known)
	} else {
		x.note("SFTP has no listener of its own: clients come by CONNECT to %s, or by sftp.listeners", at.proxy)
	}
	x.curlKnows(known)
	if target.Scheme != string(creds.SFTP) {
		return nil
	}
	e, found, err := x.app.explanationOf(ctx, target)
	switch {
	case err != nil:
		return err
	case found == nil:
		x.bad("no credential is for %s: %s", target.URL(), e.Reason)
		return nil
	}
	x.good("the credential %s is for %s; to copy:", found.Name, target.URL())
	for _, line := range e.SFTP.Commands {
		fmt.Fprintln(x.app.stdout, "    "+line)
	}
	return nil
}

// reachSFTP looks at the gateway's host key as a client does, and leaves.
func (x *examination) reachSFTP(ctx context.Context, address, known string) {
	check, err := knownhosts.New(known)
	if err != nil {
		x.bad("%s cannot be read, so SFTP clients cannot know pillion: start it with pillion run", known)
		return
	}
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		x.bad("the SFTP gateway at %s does not answer: start it with pillion run", address)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	var keyErr *knownhosts.KeyError
	c, _, _, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{User: "doctor", HostKeyCallback: check, HostKeyAlgorithms: []string{ssh.KeyAlgoECDSA256}})
	switch {
	case errors.As(err, &keyErr):
		x.bad("what listens at %s has another host key than %s: does another program have the port?", address, known)
	case err != nil:
		x.bad("what listens at %s is no SFTP gateway of pillion: %s", address, oneLine(err.Error()))
	default:
		c.Close()
		x.good("the SFTP gateway at %s answers, and %s knows it", address, known)
	}
}

// curlKnows is for the one client that reads ~/.ssh/known_hosts and no other file.
func (x *examination) curlKnows(known string) {
	published, err := os.ReadFile(known)
	home := x.app.getenv("HOME")
	if err != nil || home == "" {
		return
	}
	own, _ := os.ReadFile(filepath.Join(home, ".ssh", "known_hosts")) // none is as good as one without our key
	for line := range bytes.Lines(published) {
		if fields := strings.Fields(string(line)); len(fields) == 3 && bytes.Contains(own, []byte(fields[2])) {
			return
		}
	}
	x.note("~/.ssh/known_hosts does not have pillion's key, and curl reads only that file for SFTP: cat %s >>~/.ssh/known_hosts", shellQuote(known))
}
