package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// AllowEntry is one line of upstream.allow: a network, an address or a host. A
// host stands for itself alone, whatever addresses it has at the time.
type AllowEntry struct {
	prefix netip.Prefix // valid, or host is set
	host   string
}

// String returns the entry as ParseAllow reads it.
func (e AllowEntry) String() string {
	if e.host != "" {
		return e.host
	}
	return e.prefix.String()
}

// ParseAllow reads upstream.allow. The error names every bad entry.
func ParseAllow(entries []string) ([]AllowEntry, error) {
	var result []AllowEntry
	var problems []error
	for _, text := range entries {
		entry, err := parseAllowEntry(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("upstream.allow: %q %w", text, err))
			continue
		}
		result = append(result, entry)
	}
	return result, errors.Join(problems...)
}

func parseAllowEntry(text string) (AllowEntry, error) {
	prefix, err := parsePrefix(text)
	if err != nil {
		return AllowEntry{}, err
	}
	if !prefix.IsValid() {
		host := canonicalName(text)
		if !isHostName(host) || numericHost(host) {
			return AllowEntry{}, errors.New("is not a network (10.0.0.0/8), an address or a host name: write one of these, without scheme, port, path or *")
		}
		if localNames[host].neverLifted() {
			return AllowEntry{}, errors.New("names " + localNames[host].String() + ", which is never allowed: remove it")
		}
		return AllowEntry{host: host}, nil
	}
	for _, c := range classes {
		if c.class.neverLifted() && c.prefix.Bits() <= prefix.Bits() && c.prefix.Contains(prefix.Addr()) {
			return AllowEntry{}, errors.New("is " + c.class.String() + ", which is never allowed: remove it")
		}
	}
	return AllowEntry{prefix: prefix}, nil
}

// parsePrefix returns the zero Prefix for what does not look like one.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, errors.New("has a zone: link-local addresses are never allowed")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, _ := netip.ParsePrefix(text) // the zero Prefix beside an error
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	if prefix.IsValid() && prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits set behind its length: write %s, or the address alone", prefix.Masked())
	}
	return prefix, nil
}

func (g *Guard) allowsHost(host string) bool {
	for _, entry := range g.Allow {
		if entry.host == host && host != "" {
			return true
		}
	}
	return false
}

func (g *Guard) allows(host string, addr netip.Addr) bool {
	for _, entry := range g.Allow {
		if entry.prefix.IsValid() && entry.prefix.Contains(addr) {
			return true
		}
	}
	return g.allowsHost(host)
}

// allowsSingly is for the store, which a wide network must not open by the way.
func (g *Guard) allowsSingly(host string, addr netip.Addr) bool {
	for _, entry := range g.Allow {
		if entry.prefix.IsValid() && entry.prefix.IsSingleIP() && entry.prefix.Contains(addr) {
			return true
		}
	}
	return g.allowsHost(host)
}

// ParseResolve reads upstream.resolve, HOST to IP[:PORT], for Guard.Resolve. The
// error names every bad entry.
func ParseResolve(entries map[string]string) (map[string]netip.AddrPort, error) {
	result := make(map[string]netip.AddrPort, len(entries))
	var problems []error
	bad := func(host, target, problem string) {
		problems = append(problems, fmt.Errorf("upstream.resolve: %s: %q %s", host, target, problem))
	}
	for _, host := range slices.Sorted(maps.Keys(entries)) {
		target := entries[host]
		name := canonicalName(host)
		_, isAddr := netip.ParseAddr(name)
		switch {
		case isAddr == nil || !isHostName(name) || numericHost(name):
			problems = append(problems, fmt.Errorf("upstream.resolve: %q is not a host name: write it without scheme, port or *, letters beyond ASCII in their xn-- form", host))
			continue
		case result[name].IsValid():
			problems = append(problems, fmt.Errorf("upstream.resolve: %q stands there twice", name))
			continue
		}
		mapped, err := netip.ParseAddrPort(target)
		if err == nil && mapped.Port() == 0 {
			bad(host, target, "has port 0: write 1 to 65535, or no port to keep that of the URL")
			continue
		}
		if err != nil {
			addr, addrErr := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(target, "["), "]"))
			if addrErr != nil {
				bad(host, target, "is not an IP address with or without a port: write 192.0.2.1, 192.0.2.1:8443 or [2001:db8::1]:8443")
				continue
			}
			mapped = netip.AddrPortFrom(addr, 0)
		}
		if mapped.Addr().Zone() != "" {
			bad(host, target, "has a zone: link-local addresses are never dialled")
			continue
		}
		result[name] = netip.AddrPortFrom(mapped.Addr().Unmap(), mapped.Port())
	}
	return result, errors.Join(problems...)
}
