package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// JudgeLiteral judges a target ("host" or "host:port") that another proxy will
// resolve and dial: by its name, by the address if it is one, and by Resolve. It
// cannot see what the name stands for over there.
func (g *Guard) JudgeLiteral(target string) error {
	host, port, err := splitAuthority(target)
	if err != nil {
		if host, port, err = splitAuthority(net.JoinHostPort(strings.Trim(target, "[]"), "443")); err != nil {
			return err
		}
	}
	if err := g.judgeName(host, port); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(host)
	if mapped, ok := g.Resolve[host]; ok {
		addr, err = mapped.Addr(), nil
		if mapped.Port() != 0 {
			port = mapped.Port()
		}
	}
	if err == nil {
		return g.judge(host, netip.AddrPortFrom(addr, port), nil)
	}
	class, local := localNames[host]
	if strings.HasSuffix(host, ".localhost") {
		class, local = classLoopback, true
	}
	if local && (class.neverLifted() || !g.allowsHost(host)) {
		return forbid(host, "", "it names "+class.String(), class, host)
	}
	return nil
}

// localNames are names that other machines resolve to what we would refuse.
var localNames = map[string]addressClass{
	"localhost":                  classLoopback,
	"localhost.localdomain":      classLoopback,
	"localhost6":                 classLoopback,
	"ip6-localhost":              classLoopback,
	"ip6-loopback":               classLoopback,
	"metadata":                   classMetadata,
	"metadata.google.internal":   classMetadata,
	"metadata.goog":              classMetadata,
	"instance-data":              classMetadata,
	"instance-data.ec2.internal": classMetadata,
	"metadata.tencentyun.com":    classMetadata,
}

// judgeName refuses what needs no address to be judged.
func (g *Guard) judgeName(host string, port uint16) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return &ForbiddenTargetError{Host: host, Why: "an address with a zone is link-local: pillion never connects there"}
		}
		return nil
	}
	if !isHostName(host) {
		return &ForbiddenTargetError{Host: host, Why: "it is not a host name: letters beyond ASCII are written in their xn-- form"}
	}
	if numericHost(host) {
		return &ForbiddenTargetError{Host: host, Why: "an IP address in another form than a.b.c.d can be read in several ways: write it in that form"}
	}
	for _, store := range g.Store {
		storeHost, storePort, err := splitAuthority(store)
		if err == nil && storeHost == host && storePort == port && !g.allowsHost(host) {
			return forbidStore(host, "", host)
		}
	}
	return nil
}

// splitAuthority returns the canonical host and the port of host:port.
func splitAuthority(authority string) (string, uint16, error) {
	host, portText, err := net.SplitHostPort(authority)
	if err != nil {
		return "", 0, fmt.Errorf("reading the address %q: want host:port", authority)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("reading the address %q: the port must be 1 to 65535", authority)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String(), uint16(port), nil
	}
	return canonicalName(host), uint16(port), nil
}

// numericHost recognises what inet_aton reads as an address though it is not in
// the canonical form: 2130706433, 0x7f.1, 0177.0.0.1, 127.1. No top-level
// domain is a number, so the last label tells.
func numericHost(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if digits, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}
