package sftpgw

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"pillion/creds"
)

// Target is whom a connection is for, as far as that is known before the client
// has logged in. The zero Target leaves it to the user name.
type Target struct {
	Name string // of a credential
	Host string // canonical, as creds.ParseAuthority returns it
	Port uint16
}

// names finds credentials by what a client calls them.
type names struct{ hosts atomic.Pointer[hostIndex] }

// hostIndex holds the sftp credentials of one table by host, whatever the port:
// a table cannot be asked for that, and looking through all of it would make a
// log-in slower with every credential.
type hostIndex struct {
	table *creds.Table
	hosts map[string][]*creds.Credential
}

// find returns the one credential that a connection is for. user is what the
// client has logged in as.
func (n *names) find(table *creds.Table, target Target, user string) (*creds.Credential, error) {
	switch {
	case target.Host != "":
		return findTarget(table, target, user)
	case target.Name != "":
		if c, ok := table.ByName(target.Name); ok && c.Protocol == creds.SFTP {
			return c, nil
		}
		return nil, &refusal{kindNoCredential, fmt.Sprintf("this port is for the credential %s, which does not exist, or is not one for SFTP.", target.Name), ""}
	}
	return n.findUser(table, user)
}

// findTarget is for a host and port that the client has asked for by CONNECT or
// by a jump. Credentials that share them are told apart by name.
func findTarget(table *creds.Table, target Target, user string) (*creds.Credential, error) {
	t := creds.Target{Scheme: string(creds.SFTP), Host: target.Host, Port: target.Port, Path: "/"}
	if target.Name != "" {
		c, err := table.MatchNamed(target.Name, t)
		if err != nil {
			return nil, &refusal{kindNoCredential, fmt.Sprintf("the credential %s, named as the user of the proxy, is not for %s.", target.Name, t.URL()), err.Error()}
		}
		return c, nil
	}
	c, err := table.Match(t)
	var ambiguous *creds.AmbiguousError
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &ambiguous):
		if c, err := table.MatchNamed(user, t); err == nil {
			return c, nil
		}
		return nil, &refusal{kindAmbiguous, fmt.Sprintf("several credentials are for %s: log in as the name of one of them.", t.URL()), err.Error()}
	}
	return nil, &refusal{kindNoCredential, fmt.Sprintf("no credential has an instance URL that matches %s.", t.URL()), err.Error()}
}

// findUser reads the user name as the name of a credential, as host:port, and as
// a host. What fits two credentials is refused, so that a new credential never
// takes over the uploads meant for another one without anybody noticing.
func (n *names) findUser(table *creds.Table, user string) (*creds.Credential, error) {
	named, _ := table.ByName(user)
	if named != nil && named.Protocol != creds.SFTP {
		named = nil
	}
	byHost, err := n.findHost(table, user)
	switch {
	case err != nil && named != nil:
		return nil, &refusal{kindAmbiguous, fmt.Sprintf("%s is the name of a credential, and the host of others: log in as host:port.", quoted(user)), err.Error()}
	case err != nil:
		return nil, err
	case named == nil && byHost == nil:
		return nil, &refusal{kindNoCredential, fmt.Sprintf("no SFTP credential is named %s or is for that host: log in as the name of a credential, as host, or as host:port.", quoted(user)), ""}
	case named == nil:
		return byHost, nil
	case byHost != nil && byHost != named:
		return nil, &refusal{kindAmbiguous, fmt.Sprintf("%s is the name of a credential, and the host of another: log in as host:port.", quoted(user)), "named so, and for that host: " + byHost.Name}
	}
	return named, nil
}

// findHost returns nil without an error when user is no host, or no credential's.
func (n *names) findHost(table *creds.Table, user string) (*creds.Credential, error) {
	if addr, err := netip.ParseAddr(user); err == nil && addr.Is6() {
		user = "[" + user + "]" // nobody brackets an address in a user name
	}
	if host, port, err := creds.ParseAuthority(user, 0); err == nil {
		c, err := table.Match(creds.Target{Scheme: string(creds.SFTP), Host: host, Port: port, Path: "/"})
		var ambiguous *creds.AmbiguousError
		if errors.As(err, &ambiguous) {
			return nil, &refusal{kindAmbiguous, fmt.Sprintf("several credentials are for %s: log in as the name of one of them.", quoted(user)), err.Error()}
		}
		return c, nil
	}
	host, _, err := creds.ParseAuthority(user, 22)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // documented: a name that is no host
	}
	found := n.index(table)[host]
	if len(found) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	if len(found) > 1 {
		return nil, ambiguousHost(host, found)
	}
	return found[0], nil
}

// ambiguousHost names the choice by port, or, where there is one port alone, by
// "the name", which whoever asks may not know: only the log holds it.
func ambiguousHost(host string, found []*creds.Credential) error {
	var choice, detail []string
	for _, c := range found {
		t, _ := c.Instance() // readable, or it were not in the index
		detail = append(detail, c.Name+" ("+t.Authority()+")")
		if !slices.Contains(choice, t.Authority()) {
			choice = append(choice, t.Authority())
		}
	}
	slices.Sort(choice)
	sentence := fmt.Sprintf("several credentials are for %s: log in as the name of one of them.", host)
	if len(choice) > 1 {
		sentence = fmt.Sprintf("%s has credentials for several ports: log in as %s, or as the name of a credential.", host, strings.Join(choice, " or "))
	}
	return &refusal{kindAmbiguous, sentence, "credentials: " + strings.Join(detail, ", ")}
}

// index returns the sftp credentials by host, made anew once for each table.
func (n *names) index(table *creds.Table) map[string][]*creds.Credential {
	if known := n.hosts.Load(); known != nil && known.table == table {
		return known.hosts
	}
	hosts := map[string][]*creds.Credential{}
	for _, c := range table.All() {
		if c.Protocol != creds.SFTP {
			continue
		}
		if t, err := c.Instance(); err == nil {
			hosts[t.Host] = append(hosts[t.Host], c)
		}
	}
	n.hosts.Store(&hostIndex{table, hosts})
	return hosts
}

// quoted shortens what a stranger wrote, and makes it printable.
func quoted(user string) string {
	const most = 64
	if len(user) > most {
		user = user[:most] + "..."
	}
	return fmt.Sprintf("%q", user)
}
