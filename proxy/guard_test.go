package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// answers is a Resolver: each look-up of a name gets the next of its answers.
type answers struct {
	mu    sync.Mutex
	names map[string][][]string
}

func (a *answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.names[host]
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(list) > 1 {
		a.names[host] = list[1:]
	}
	var result []netip.Addr
	for _, addr := range list[0] {
		result = append(result, netip.MustParseAddr(addr))
	}
	return result, nil
}

func resolving(name string, lists ...[]string) *answers {
	return &answers{names: map[string][][]string{name: lists}}
}

// judgeAddr is what every dial asks of g.
func judgeAddr(g *Guard, addr string, port uint16) error {
	target := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	return g.judge(addr, target, nil)
}

func mustAllow(t testing.TB, entries ...string) []AllowEntry {
	t.Helper()
	allow, err := ParseAllow(entries)
	if err != nil {
		t.Fatal(err)
	}
	return allow
}

func TestGuardRefuses(t *testing.T) {
	for _, row := range []struct{ name, addr, text string }{
		{"24 loopback", "127.0.0.1:443", "not connecting to 127.0.0.1: it is a loopback address: add 127.0.0.1/32 to upstream.allow if connectors may reach it"},
		{"24 loopback, IPv6", "[::1]:443", "not connecting to ::1: it is a loopback address: add ::1/128 to upstream.allow if connectors may reach it"},
		{"24 mapped loopback", "[::ffff:127.0.0.1]:443", "not connecting to 127.0.0.1: it is a loopback address"},
		{"24 link-local", "169.254.1.2:443", "it is a link-local address: pillion never connects there"},
		{"24 link-local with a zone", "[fe80::1%eth0]:443", "with a zone is link-local"},
		{"24 metadata", "169.254.169.254:80", "it is a cloud metadata address: pillion never connects there"},
		{"24 metadata, IPv6", "[fd00:ec2::254]:80", "it is a cloud metadata address"},
		{"24 unspecified", "0.0.0.0:443", "it is an unspecified address, which reaches this machine itself"},
		{"24 unspecified, IPv6", "[::]:443", "it is an unspecified address"},
		{"24 0.0.0.0/8", "0.1.2.3:443", "it is an unspecified address"},
		{"24 NAT64 of loopback", "[64:ff9b::7f00:1]:443", "it is a loopback address"},
		{"24 6to4 of metadata", "[2002:a9fe:a9fe::1]:443", "it is a cloud metadata address"},
		{"24 decimal IPv4", "2130706433:443", "an IP address in another form than a.b.c.d"},
		{"24 octal IPv4", "0177.0.0.1:443", "an IP address in another form than a.b.c.d"},
		{"24 hex IPv4", "0x7f.0x0.0x0.0x1:443", "an IP address in another form than a.b.c.d"},
		{"24 hex IPv4 of one part", "0x7F000001:443", "an IP address in another form than a.b.c.d"},
		{"24 short IPv4", "127.1:443", "an IP address in another form than a.b.c.d"},
		{"24 short IPv4 and a dot", "127.1.:443", "an IP address in another form than a.b.c.d"},
		{"24 multicast", "224.0.0.251:443", "it is a multicast address"},
		{"24 broadcast", "255.255.255.255:443", "it is a reserved address"},
		{"24 a name beyond ASCII", "ⓛocalhost:443", "it is not a host name"},
		{"24 a name with a star", "*.example:443", "it is not a host name"},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, err := (&Guard{Private: true}).DialContext(t.Context(), "tcp", row.addr)
			if conn != nil {
				conn.Close()
				t.Fatal("connected")
			}
			forbidden, ok := err.(*ForbiddenTargetError)
			if !ok || !strings.Contains(err.Error(), row.text) || forbidden.Loop || !forbidden.Forbidden() {
				t.Errorf("got %T %v,\nwant %s", err, err, row.text)
			}
		})
	}
}

func TestGuardPrivateNetworks(t *testing.T) {
	for _, addr := range []string{"10.0.0.5", "172.16.0.5", "192.168.0.5", "100.64.0.5", "fd12::5", "64:ff9b::10.0.0.5"} {
		t.Run("24 "+addr, func(t *testing.T) {
			if err := judgeAddr(&Guard{Private: true}, addr, 443); err != nil {
				t.Errorf("by default: %v", err)
			}
			err := judgeAddr(&Guard{}, addr, 443)
			if err == nil || !strings.Contains(err.Error(), "upstream.private is false: add "+addr+"/") && !strings.Contains(err.Error(), "64:ff9b::a00:5/128") {
				t.Errorf("private: false: %v", err)
			}
			if err := judgeAddr(&Guard{Allow: mustAllow(t, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8")}, addr, 443); err != nil {
				t.Errorf("private: false, allowed: %v", err)
			}
		})
	}
}

func TestGuardAllow(t *testing.T) {
	all := &Guard{Private: true, Allow: mustAllow(t, "0.0.0.0/0", "::/0")}
	for _, addr := range []string{"127.0.0.1", "::1", "0.0.0.0", "240.0.0.1", "10.0.0.1", "8.8.8.8", "2002:7f00:1::"} {
		if err := judgeAddr(all, addr, 443); err != nil {
			t.Errorf("24 %s, allowed: %v", addr, err)
		}
	}
	for _, addr := range []string{"169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "100.100.100.200", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254", "64:ff9b:1::a9fe:a9fe"} {
		if err := judgeAddr(all, addr, 443); err == nil {
			t.Errorf("24 %s is never allowed, but passes", addr)
		}
	}
	one := &Guard{Allow: mustAllow(t, "127.0.0.1")}
	for addr, want := range map[string]bool{"127.0.0.1": true, "64:ff9b::7f00:1": true, "127.0.0.2": false, "::1": false, "0.0.0.0": false, "64:ff9b::7f00:2": false} {
		if err := judgeAddr(one, addr, 443); (err == nil) != want {
			t.Errorf("24 %s beside the allowed 127.0.0.1: %v", addr, err)
		}
	}
}

// TestGuardDial connects to real listeners of this machine.
func TestGuardDial(t *testing.T) {
	listener := echoListener(t)
	at := netip.MustParseAddrPort(listener)
	port := fmt.Sprint(at.Port())

	t.Run("an allowed host, mapped with its port", func(t *testing.T) {
		resolve, err := ParseResolve(map[string]string{"Tool.Example.": listener})
		if err != nil {
			t.Fatal(err)
		}
		g := &Guard{Allow: mustAllow(t, "TOOL.example"), Resolve: resolve}
		echoes(t, g, "tool.example:443")
		echoes(t, g, "TOOL.EXAMPLE.:443")
	})
	t.Run("an allowed address, mapped without a port", func(t *testing.T) {
		resolve, err := ParseResolve(map[string]string{"tool.example": "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, &Guard{Allow: mustAllow(t, "127.0.0.0/8"), Resolve: resolve}, "tool.example:"+port)
	})
	t.Run("24 a mapped name is judged by its address", func(t *testing.T) {
		resolve, err := ParseResolve(map[string]string{"tool.example": listener})
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, &Guard{Private: true, Resolve: resolve}, "tool.example:443",
			"not connecting to tool.example (127.0.0.1): it is a loopback address: add 127.0.0.1/32 to upstream.allow")
	})
	t.Run("a name by DNS", func(t *testing.T) {
		g := &Guard{Allow: mustAllow(t, "127.0.0.1/32"), Resolver: resolving("tool.example", []string{"127.0.0.1"})}
		echoes(t, g, "tool.example:"+port)
	})
	t.Run("24 a name by DNS that leads to loopback", func(t *testing.T) {
		refuses(t, &Guard{Private: true, Resolver: resolving("tool.example", []string{"127.0.0.1"})}, "tool.example:"+port, "(127.0.0.1): it is a loopback address")
		refuses(t, &Guard{Private: true, Resolver: resolving("tool.example", []string{"::ffff:127.0.0.1"})}, "tool.example:"+port, "(127.0.0.1): it is a loopback address")
	})
	t.Run("25 one good and one forbidden address", func(t *testing.T) {
		g := &Guard{Allow: mustAllow(t, "127.0.0.1"), Resolver: resolving("tool.example", []string{"127.0.0.1", "169.254.169.254"})}
		refuses(t, g, "tool.example:"+port, "(169.254.169.254): it is a cloud metadata address")
	})
	t.Run("25 DNS that answers differently the second time", func(t *testing.T) {
		g := &Guard{Allow: mustAllow(t, "127.0.0.1"), Resolver: resolving("tool.example", []string{"127.0.0.1"}, []string{"127.0.0.2"})}
		echoes(t, g, "tool.example:"+port) // one look-up: what is judged is what is dialled
		refuses(t, g, "tool.example:"+port, "(127.0.0.2): it is a loopback address")
	})
	t.Run("25 what is judged good before is judged again at the dial", func(t *testing.T) {
		calls := 0
		g := &Guard{Allow: mustAllow(t, "127.0.0.1"), Own: func() []netip.AddrPort {
			if calls++; calls == 1 {
				return nil
			}
			return []netip.AddrPort{at}
		}}
		refuses(t, g, listener, "is pillion itself")
		if calls != 2 {
			t.Errorf("judged %d times", calls)
		}
	})
	t.Run("24 localhost by the system's own resolver", func(t *testing.T) {
		refuses(t, &Guard{Private: true}, "localhost:"+port, "it is a loopback address")
	})
	t.Run("nothing listens", func(t *testing.T) {
		closed := listenLoopback(t)
		closed.Close()
		_, err := (&Guard{Allow: mustAllow(t, "127.0.0.1")}).DialContext(t.Context(), "tcp", closed.Addr().String())
		var forbidden *ForbiddenTargetError
		if err == nil || errors.As(err, &forbidden) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no such name", func(t *testing.T) {
		_, err := (&Guard{Resolver: &answers{}}).DialContext(t.Context(), "tcp", "tool.example:443")
		var dns *net.DNSError
		if !errors.As(err, &dns) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not an authority", func(t *testing.T) {
		for _, addr := range []string{"", "tool.example", "tool.example:", "tool.example:0", "tool.example:65536", "tool.example:https", ":443", "[::1:443"} {
			if conn, err := (&Guard{}).DialContext(t.Context(), "tcp", addr); err == nil {
				conn.Close()
				t.Errorf("%q is dialled", addr)
			}
		}
	})
}

func TestGuardOwnListeners(t *testing.T) {
	machine := addressOfThisMachine(t)
	own := func(list ...string) func() []netip.AddrPort {
		var result []netip.AddrPort
		for _, a := range list {
			result = append(result, netip.MustParseAddrPort(a))
		}
		return func() []netip.AddrPort { return result }
	}
	allow := mustAllow(t, "0.0.0.0/0", "::/0")
	for _, row := range []struct {
		name, own, addr string
		port            uint16
		loop            bool
	}{
		{"26 the proxy itself", "127.0.0.1:3128", "127.0.0.1", 3128, true},
		{"26 by the unspecified address", "127.0.0.1:3128", "0.0.0.0", 3128, true},
		{"26 by the mapped address", "127.0.0.1:3128", "::ffff:127.0.0.1", 3128, true},
		{"26 by the NAT64 address", "127.0.0.1:3128", "64:ff9b::7f00:1", 3128, true},
		{"26 by the 6to4 address", "127.0.0.1:3128", "2002:7f00:1::", 3128, true},
		{"26 metrics on every address, by loopback", "0.0.0.0:9180", "127.0.0.1", 9180, true},
		{"26 metrics on every address, by another loopback", "[::]:9180", "127.8.8.8", 9180, true},
		{"26 metrics on every address, by IPv6 loopback", "[::]:9180", "::1", 9180, true},
		{"26 metrics on every address, by this machine's own", "[::]:9180", machine, 9180, true},
		{"26 a listener given in the mapped form", "[::ffff:127.0.0.1]:2022", "127.0.0.1", 2022, true},
		{"another port", "127.0.0.1:3128", "127.0.0.1", 3129, false},
		{"another loopback address", "127.0.0.1:3128", "127.0.0.2", 3128, false},
		{"another machine's same port", "0.0.0.0:9180", "8.8.8.8", 9180, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := &Guard{Private: true, Allow: allow, Own: own("127.0.0.1:1", row.own)}
			err := judgeAddr(g, row.addr, row.port)
			var forbidden *ForbiddenTargetError
			if loop := errors.As(err, &forbidden) && forbidden.Loop; loop != row.loop {
				t.Errorf("got %v, want a loop: %v", err, row.loop)
			}
		})
	}
	t.Run("26 dialled", func(t *testing.T) {
		listener := echoListener(t)
		g := &Guard{Allow: allow, Own: own(listener)}
		refuses(t, g, listener, "is pillion itself: the URL of the request must be the tool's")
	})
}

func TestGuardStore(t *testing.T) {
	g := func(allow ...string) *Guard {
		return &Guard{
			Private: true, Allow: mustAllow(t, allow...), Store: []string{"Vault.example.:8200", "[fd12::7]:8200"},
			Resolver: &answers{names: map[string][][]string{"vault.example": {{"10.0.0.7"}}, "other.example": {{"10.0.0.7"}}}},
		}
	}
	for _, addr := range []string{"vault.example:8200", "VAULT.EXAMPLE:8200", "10.0.0.7:8200", "other.example:8200", "[fd12::7]:8200", "[::ffff:10.0.0.7]:8200"} {
		t.Run("26 the Vault address as "+addr, func(t *testing.T) {
			refuses(t, g(), addr, "it is the credential store: add")
			refuses(t, g("10.0.0.0/8", "fd00::/8"), addr, "it is the credential store: add")
		})
	}
	store := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.7:8200")}
	for _, entry := range []string{"10.0.0.7", "vault.example"} {
		if err := g(entry).judge("vault.example", store[0], store); err != nil {
			t.Errorf("26 allowed by %s: %v", entry, err)
		}
	}
	if err := g().judge("10.0.0.7", netip.MustParseAddrPort("10.0.0.7:443"), store); err != nil {
		t.Errorf("another port of the store's machine: %v", err)
	}
	t.Run("the store cannot be resolved", func(t *testing.T) {
		listener := echoListener(t)
		g := &Guard{Allow: mustAllow(t, "127.0.0.1"), Store: []string{"vault.example:8200"}, Resolver: &answers{}}
		echoes(t, g, listener)
		refuses(t, g, "vault.example:8200", "it is the credential store")
	})
}

func TestJudgeLiteral(t *testing.T) {
	g := &Guard{Private: true, Store: []string{"vault.example:8200"}, Resolve: map[string]netip.AddrPort{"mapped.example": netip.MustParseAddrPort("127.0.0.1:8443")}}
	for _, target := range []string{
		"127.0.0.1", "127.0.0.1:443", "::1", "[::1]", "[::1]:443", "0.0.0.0", "169.254.169.254:80", "fd00:ec2::254", "[64:ff9b::7f00:1]:443",
		"2130706433", "0x7f.1:443", "127.1", "localhost", "LOCALHOST.:443", "a.localhost", "metadata.google.internal:80", "metadata",
		"vault.example:8200", "mapped.example", "fe80::1%eth0", "a b", "",
	} {
		var forbidden *ForbiddenTargetError
		if err := g.JudgeLiteral(target); !errors.As(err, &forbidden) {
			t.Errorf("24 %q behind another proxy: %v", target, err)
		}
	}
	for _, target := range []string{"tool.example", "tool.example:8443", "10.0.0.1", "8.8.8.8:443", "[2606:4700::1]:443", "localhost.example", "vault.example"} {
		if err := g.JudgeLiteral(target); err != nil {
			t.Errorf("%q behind another proxy: %v", target, err)
		}
	}
	lifted := &Guard{Allow: mustAllow(t, "localhost", "127.0.0.1")}
	for _, target := range []string{"localhost", "127.0.0.1:443"} {
		if err := lifted.JudgeLiteral(target); err != nil {
			t.Errorf("%q, allowed: %v", target, err)
		}
	}
}

func echoListener(t *testing.T) string {
	t.Helper()
	listener := listenLoopback(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func echoes(t *testing.T, g *Guard, addr string) {
	t.Helper()
	conn, err := g.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, "ping")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "ping" {
		t.Errorf("got %q, %v", got, err)
	}
}

func refuses(t *testing.T, g *Guard, addr, text string) {
	t.Helper()
	conn, err := g.DialContext(t.Context(), "tcp", addr)
	if conn != nil {
		conn.Close()
	}
	if _, ok := err.(*ForbiddenTargetError); !ok || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v,\nwant %s", addr, err, text)
	}
}

func addressOfThisMachine(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && !prefix.Addr().IsLoopback() && !prefix.Addr().IsLinkLocalUnicast() {
			return prefix.Addr().String()
		}
	}
	return "127.0.0.1" // a sandbox that has loopback only
}
