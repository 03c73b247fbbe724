package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Guard is the way out: it dials, and keeps the proxy from being a way into this
// machine, its cloud account, the credential store or the proxy itself, whatever
// a client asks for and whatever DNS answers.
//
//	name -> upstream.resolve, or DNS -> every address judged -> dialled, judged again
//
// A name with one forbidden address among good ones is refused whole. Trying the
// good ones would be as safe, but a connection would work or fail by chance, and
// such an answer is a mistake or an attack: someone should see it. The price is
// that a host whose DNS also lists, say, a link-local address is out of reach
// until that is mended or mapped by upstream.resolve.
//
// The zero Guard refuses private networks too. Do not copy it after first use.
type Guard struct {
	Allow   []AllowEntry
	Private bool // let RFC 1918, ULA and CGNAT addresses pass: tools on the premises
	// Own lists this process's listeners; a wildcard address stands for every
	// address of this machine. Connections there are loops, and never allowed.
	Own func() []netip.AddrPort
	// Store lists the host:port of the credential store. Only an entry of Allow
	// that names the host, or one single address, opens it.
	Store []string
	// Resolve maps canonical host names to addresses; port 0 keeps the port.
	Resolve map[string]netip.AddrPort
	// Resolver looks names up. If nil, net.DefaultResolver.
	Resolver Resolver
	// Dialer's Timeout is for resolution and all addresses together; 0 is ten
	// seconds. Its Control functions are replaced.
	Dialer net.Dialer

	store storeAddrs
}

// Resolver is what Guard needs of a *net.Resolver. It may be called by several
// goroutines at once.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var _ Resolver = (*net.Resolver)(nil)

const defaultDialTimeout = 10 * time.Second

// ForbiddenTargetError says that pillion will not connect somewhere.
type ForbiddenTargetError struct {
	Host string // as asked for
	Addr string // the address that decided, if it is known and not Host
	Why  string // what is wrong, and what to do
	Loop bool   // it is a listener of this very process
}

func (e *ForbiddenTargetError) Error() string {
	text := "not connecting to " + e.Host
	if e.Addr != "" && e.Addr != e.Host {
		text += " (" + e.Addr + ")"
	}
	return text + ": " + e.Why
}

// Forbidden lets packages that do not know this one tell it from a failed dial.
func (e *ForbiddenTargetError) Forbidden() bool { return true }

// DialContext is net.Dialer's, for TCP, with a judgement before and at the dial.
// A refusal is a *ForbiddenTargetError, not wrapped.
func (g *Guard) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := splitAuthority(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(g.Dialer.Timeout, defaultDialTimeout))
	defer cancel()
	targets, err := g.resolve(ctx, network, host, port)
	if err != nil {
		return nil, err
	}
	known := g.storeAddresses(ctx)
	for _, target := range targets {
		if err := g.judge(host, target, known); err != nil {
			return nil, err
		}
	}
	dialer := g.Dialer
	dialer.Control = nil
	dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		// What is really dialled, one line before the system call: whatever
		// stands above may change, and this still holds.
		target, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("judging %s: %w", address, err)
		}
		return g.judge(host, target, known)
	}
	conn, err := dialAny(ctx, targets, g.Dialer.FallbackDelay, func(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
		return dialer.DialContext(ctx, network, target.String())
	})
	var forbidden *ForbiddenTargetError
	if errors.As(err, &forbidden) {
		return nil, forbidden
	}
	return conn, err
}

// resolve returns the addresses of host, which splitAuthority made canonical.
func (g *Guard) resolve(ctx context.Context, network, host string, port uint16) ([]netip.AddrPort, error) {
	if err := g.judgeName(host, port); err != nil {
		return nil, err
	}
	if mapped, ok := g.Resolve[host]; ok {
		if mapped.Port() == 0 {
			mapped = netip.AddrPortFrom(mapped.Addr(), port)
		}
		return []netip.AddrPort{mapped}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}, nil
	}
	family, ok := map[string]string{"tcp": "ip", "tcp4": "ip4", "tcp6": "ip6"}[network]
	if !ok {
		return nil, net.UnknownNetworkError(network)
	}
	addrs, err := g.resolver().LookupNetIP(ctx, family, host)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolving %s: no address", host)
	}
	targets := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		targets[i] = netip.AddrPortFrom(addr.Unmap(), port)
	}
	return targets, nil
}

// judge refuses target, unless it or what it stands for may be dialled for host.
func (g *Guard) judge(host string, target netip.AddrPort, store []netip.AddrPort) error {
	addr := target.Addr().WithZone("").Unmap()
	for _, view := range views(addr) {
		if g.isOwn(view, target.Port()) {
			return &ForbiddenTargetError{Host: host, Addr: addr.String(), Loop: true,
				Why: fmt.Sprintf("port %d there is pillion itself: the URL of the request must be the tool's", target.Port())}
		}
		class := classOf(view)
		if class == classPublic || class == classPrivate && g.Private {
			continue
		}
		if class.neverLifted() || !(g.allows(host, addr) || g.allows(host, view)) {
			return forbid(host, addr.String(), "it is "+class.String(), class, netip.PrefixFrom(addr, addr.BitLen()).String())
		}
	}
	for _, s := range store {
		if s == netip.AddrPortFrom(addr, target.Port()) && !g.allowsSingly(host, addr) {
			return forbidStore(host, addr.String(), netip.PrefixFrom(addr, addr.BitLen()).String())
		}
	}
	return nil
}

func forbid(host, addr, why string, class addressClass, entry string) error {
	switch {
	case class.neverLifted():
		why += ": pillion never connects there"
	case class == classPrivate:
		why += " and upstream.private is false: add " + entry + " to upstream.allow if connectors may reach it"
	default:
		why += ": add " + entry + " to upstream.allow if connectors may reach it"
	}
	return &ForbiddenTargetError{Host: host, Addr: addr, Why: why}
}

func forbidStore(host, addr, entry string) error {
	return &ForbiddenTargetError{Host: host, Addr: addr,
		Why: "it is the credential store: add " + entry + " to upstream.allow if connectors may reach it"}
}

// isOwn reports whether one of our listeners answers at addr and port.
func (g *Guard) isOwn(addr netip.Addr, port uint16) bool {
	if g.Own == nil {
		return false
	}
	for _, own := range g.Own() {
		if own.Port() != port {
			continue
		}
		listener := own.Addr().WithZone("").Unmap()
		if listener == addr || addr.IsUnspecified() {
			return true
		}
		if listener.IsUnspecified() && (addr.IsLoopback() || ofThisMachine(addr)) {
			return true
		}
	}
	return false
}

// ofThisMachine says yes when it cannot tell.
func ofThisMachine(addr netip.Addr) bool {
	locals, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, local := range locals {
		prefix, err := netip.ParsePrefix(local.String())
		if err == nil && prefix.Addr().WithZone("").Unmap() == addr {
			return true
		}
	}
	return false
}

func (g *Guard) resolver() Resolver {
	if g.Resolver == nil {
		return net.DefaultResolver
	}
	return g.Resolver
}
