package proxy

import (
	"net/netip"
	"slices"
)

// addressClass says what an address leads to. They are ordered: of an address
// that holds another one, the worse counts.
type addressClass int

const (
	classPublic addressClass = iota
	classPrivate
	classReserved
	classMulticast
	classUnspecified
	classLoopback
	classLinkLocal
	classMetadata
)

// neverLifted: no entry of upstream.allow opens these. Whoever reaches a
// metadata service holds the machine's own cloud credentials.
func (c addressClass) neverLifted() bool { return c >= classLinkLocal }

func (c addressClass) String() string {
	return [...]string{
		"a public address",
		"a private network address",
		"a reserved address",
		"a multicast address",
		"an unspecified address, which reaches this machine itself",
		"a loopback address",
		"a link-local address",
		"a cloud metadata address",
	}[c]
}

// classes lists the first match first. What IPv6 has outside 2000::/3 and not
// here is not in use on the Internet: reserved.
var classes = []struct {
	prefix netip.Prefix
	class  addressClass
}{
	{netip.MustParsePrefix("169.254.169.254/32"), classMetadata},     // AWS, Azure, Google, OpenStack, most others
	{netip.MustParsePrefix("169.254.170.2/32"), classMetadata},       // AWS ECS
	{netip.MustParsePrefix("169.254.170.23/32"), classMetadata},      // AWS EKS
	{netip.MustParsePrefix("169.254.42.42/32"), classMetadata},       // Scaleway
	{netip.MustParsePrefix("169.254.0.23/32"), classMetadata},        // Tencent
	{netip.MustParsePrefix("100.100.100.200/32"), classMetadata},     // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), classMetadata},         // Oracle
	{netip.MustParsePrefix("168.63.129.16/32"), classMetadata},       // Azure wire server
	{netip.MustParsePrefix("fd00:ec2::/32"), classMetadata},          // AWS: 254, 23, 253, 123
	{netip.MustParsePrefix("fd20:ce::254/128"), classMetadata},       // Google
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), classMetadata}, // Oracle
	{netip.MustParsePrefix("fd00:42::42/128"), classMetadata},        // Scaleway
	{netip.MustParsePrefix("fe80::a9fe:a9fe/128"), classMetadata},    // OpenStack

	{netip.MustParsePrefix("0.0.0.0/8"), classUnspecified}, // Linux: this machine
	{netip.MustParsePrefix("127.0.0.0/8"), classLoopback},
	{netip.MustParsePrefix("169.254.0.0/16"), classLinkLocal},
	{netip.MustParsePrefix("10.0.0.0/8"), classPrivate},
	{netip.MustParsePrefix("172.16.0.0/12"), classPrivate},
	{netip.MustParsePrefix("192.168.0.0/16"), classPrivate},
	{netip.MustParsePrefix("100.64.0.0/10"), classPrivate}, // CGNAT, and VPNs
	// For benchmarks and for examples, by their RFCs; VPN clients hand them out.
	{netip.MustParsePrefix("198.18.0.0/15"), classPrivate},
	{netip.MustParsePrefix("192.0.2.0/24"), classPrivate},
	{netip.MustParsePrefix("198.51.100.0/24"), classPrivate},
	{netip.MustParsePrefix("203.0.113.0/24"), classPrivate},
	{netip.MustParsePrefix("192.0.0.0/24"), classReserved},
	{netip.MustParsePrefix("192.88.99.0/24"), classReserved}, // 6to4 relays
	{netip.MustParsePrefix("224.0.0.0/4"), classMulticast},
	{netip.MustParsePrefix("240.0.0.0/4"), classReserved}, // and broadcast
	{netip.MustParsePrefix("0.0.0.0/0"), classPublic},

	{netip.MustParsePrefix("::/128"), classUnspecified},
	{netip.MustParsePrefix("::1/128"), classLoopback},
	{netip.MustParsePrefix("fe80::/10"), classLinkLocal},
	{netip.MustParsePrefix("fec0::/10"), classPrivate}, // site-local, retired
	{netip.MustParsePrefix("fc00::/7"), classPrivate},
	{netip.MustParsePrefix("ff00::/8"), classMulticast},
	{netip.MustParsePrefix("2001:db8::/32"), classPrivate},
	{netip.MustParsePrefix("3fff::/20"), classPrivate},
	{netip.MustParsePrefix("2000::/3"), classPublic},
	{netip.MustParsePrefix("::/0"), classReserved},
}

// classify judges addr by itself and by every address that it stands for.
func classify(addr netip.Addr) addressClass {
	worst := classPublic
	for _, view := range views(addr) {
		worst = max(worst, classOf(view))
	}
	return worst
}

func classOf(addr netip.Addr) addressClass {
	for _, c := range classes {
		if c.prefix.Contains(addr) {
			return c.class
		}
	}
	return classReserved
}

// Where an IPv6 address carries an IPv4 one.
var (
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, retired
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // SIIT, RFC 7915
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
	loopback6  = netip.IPv6Loopback()
)

// views returns the addresses that a packet to addr may end at: addr itself,
// unless it is only a way to write another one, and those embedded in it.
func views(addr netip.Addr) []netip.Addr {
	addr = addr.WithZone("").Unmap()
	if addr.Is4() || addr == loopback6 || addr.IsUnspecified() {
		return []netip.Addr{addr}
	}
	b := addr.As16()
	v4 := func(i, j, k, l int) netip.Addr { return netip.AddrFrom4([4]byte{b[i], b[j], b[k], b[l]}) }
	last := v4(12, 13, 14, 15)
	switch {
	case compatible.Contains(addr), translated.Contains(addr), nat64.Contains(addr):
		return []netip.Addr{last}
	case localNAT64.Contains(addr):
		return localNAT64Views(b)
	}
	result := []netip.Addr{addr}
	if sixToFour.Contains(addr) {
		result = append(result, v4(2, 3, 4, 5))
	}
	if teredo.Contains(addr) { // its server, and the client in inverted bits
		client := netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		result = append(result, v4(4, 5, 6, 7), client)
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP, RFC 5214, under any prefix
		result = append(result, last)
	}
	return result
}

// localNAT64Views decodes RFC 6052 for each prefix length that an operator may
// have chosen within 64:ff9b:1::/48. A decoding for another length than the real
// one yields padding, 0.x.y.z: that counts only when there is nothing else.
func localNAT64Views(b [16]byte) []netip.Addr {
	var result, padding []netip.Addr
	for _, at := range [][4]int{{12, 13, 14, 15}, {6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}} {
		embedded := netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]})
		suffix := b[at[3]+1:]
		wellFormed := at[0] == 12 || b[8] == 0 && !slices.ContainsFunc(suffix, func(c byte) bool { return c != 0 })
		switch {
		case !wellFormed:
		case embedded.As4()[0] == 0:
			padding = append(padding, embedded)
		default:
			result = append(result, embedded)
		}
	}
	if len(result) == 0 {
		return padding
	}
	return result
}
