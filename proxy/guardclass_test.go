package proxy

import (
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	for _, row := range []struct {
		addr string
		want addressClass
	}{
		{"8.8.8.8", classPublic},
		{"1.1.1.1", classPublic},
		{"172.15.255.255", classPublic}, // beside 172.16.0.0/12
		{"172.32.0.0", classPublic},
		{"100.63.255.255", classPublic},
		{"100.128.0.0", classPublic},
		{"126.255.255.255", classPublic},
		{"128.0.0.0", classPublic},
		{"169.253.255.255", classPublic},
		{"168.63.129.17", classPublic},
		{"192.0.1.1", classPublic},
		{"223.255.255.255", classPublic},
		{"2606:4700::1111", classPublic},
		{"64:ff9b::8.8.8.8", classPublic},
		{"64:ff9b:1::8.8.8.8", classPublic},
		{"64:ff9b:1:808:8:800::", classPublic}, // 8.8.8.8 behind a prefix of 48 bits
		{"64:ff9b:1:0:8:808:800:0", classPublic},
		{"2002:808:808::1", classPublic},
		{"::ffff:8.8.8.8", classPublic},
		{"2001:4860:4860:0:200:5efe:8.8.8.8", classPublic},

		{"10.0.0.1", classPrivate},
		{"172.16.0.1", classPrivate},
		{"192.168.1.1", classPrivate},
		{"100.64.0.1", classPrivate},
		{"198.18.0.1", classPrivate},
		{"fd12:3456::1", classPrivate},
		{"fec0::1", classPrivate},
		{"64:ff9b::10.0.0.1", classPrivate},
		{"2001:db8::1", classPrivate},

		{"240.0.0.1", classReserved},
		{"255.255.255.255", classReserved},
		{"192.88.99.1", classReserved},
		{"192.0.0.1", classReserved},
		{"4000::1", classReserved},
		{"100::1", classReserved},
		{"64:ff9a::1", classReserved},
		{"::ffff:255.255.255.255", classReserved},
		{"224.0.0.1", classMulticast},
		{"ff02::1", classMulticast},
		{"0.0.0.0", classUnspecified},
		{"0.1.2.3", classUnspecified},
		{"::", classUnspecified},
		{"::ffff:0.0.0.0", classUnspecified},
		{"64:ff9b::", classUnspecified},
		{"64:ff9b:1::", classUnspecified},

		{"127.0.0.1", classLoopback},
		{"127.255.255.254", classLoopback},
		{"::1", classLoopback},
		{"::ffff:127.0.0.1", classLoopback},
		{"::127.0.0.1", classLoopback},
		{"::ffff:0:127.0.0.1", classLoopback},
		{"64:ff9b::127.0.0.1", classLoopback},
		{"64:ff9b:1::127.0.0.1", classLoopback},
		{"64:ff9b:1:7f00:0:100::", classLoopback},
		{"64:ff9b:1:abcd::127.0.0.1", classLoopback},
		{"64:ff9b:1:ab7f:0:1::", classLoopback},      // prefix of 56 bits
		{"64:ff9b:1:abcd:7f:0:100:0", classLoopback}, // of 64
		{"2002:7f00:1::", classLoopback},
		{"2002:7f00:1::8.8.8.8", classLoopback},
		{"2001:0:7f00:1::", classLoopback},              // Teredo server
		{"2001:0:808:808:0:0:80ff:fffe", classLoopback}, // Teredo client
		{"2606:4700::5efe:127.0.0.1", classLoopback},
		{"2606:4700::200:5efe:127.0.0.1", classLoopback},

		{"169.254.1.1", classLinkLocal},
		{"fe80::1", classLinkLocal},
		{"fe80::1%eth0", classLinkLocal},
		{"febf::1", classLinkLocal},
		{"fe80::5efe:8.8.8.8", classLinkLocal},
		{"64:ff9b::169.254.1.1", classLinkLocal},

		{"169.254.169.254", classMetadata},
		{"169.254.170.2", classMetadata},
		{"100.100.100.200", classMetadata},
		{"192.0.0.192", classMetadata},
		{"168.63.129.16", classMetadata},
		{"fd00:ec2::254", classMetadata},
		{"fd20:ce::254", classMetadata},
		{"fd00:c1::a9fe:a9fe", classMetadata},
		{"::ffff:169.254.169.254", classMetadata},
		{"::169.254.169.254", classMetadata},
		{"64:ff9b::a9fe:a9fe", classMetadata},
		{"64:ff9b:1::a9fe:a9fe", classMetadata},
		{"64:ff9b:1:a9fe:a9:fe00::", classMetadata},
		{"2002:a9fe:a9fe::", classMetadata},
		{"2606:4700::5efe:169.254.169.254", classMetadata},
	} {
		if got := classify(netip.MustParseAddr(row.addr)); got != row.want {
			t.Errorf("24 %s is %s, want %s", row.addr, got, row.want)
		}
	}
}

// FuzzClassify: an address is judged the same in every form that stands for it,
// and a form that leads to two places at least as hard as either.
func FuzzClassify(f *testing.F) {
	for _, seed := range []string{"127.0.0.1", "8.8.8.8", "169.254.169.254", "0.0.0.0", "255.255.255.255", "10.1.2.3", "100.100.100.200", "1.0.0.1"} {
		a := netip.MustParseAddr(seed).As4()
		f.Add(a[0], a[1], a[2], a[3])
	}
	f.Fuzz(func(t *testing.T, a, b, c, d byte) {
		v4 := netip.AddrFrom4([4]byte{a, b, c, d})
		want := classify(v4)
		in := func(prefix string, at int) netip.Addr {
			bytes := netip.MustParseAddr(prefix).As16()
			copy(bytes[at:], []byte{a, b, c, d})
			return netip.AddrFrom16(bytes)
		}
		alike := map[string]netip.Addr{
			"mapped":     in("::ffff:0:0", 12),
			"translated": in("::ffff:0:0:0", 12),
			"NAT64":      in("64:ff9b::", 12),
			"6to4":       in("2002::", 2),
			"ISATAP":     in("2606:4700::5efe:0:0", 12),
			"Teredo":     in("2001:0:808:808:0:0:f7f7:f7f7", 4),
		}
		if (a | b | c) != 0 { // "::" and "::1" have a meaning of their own
			alike["compatible"] = in("::", 12)
		}
		for form, addr := range alike {
			if got := classify(addr); got != want {
				t.Errorf("%s is %s; %s, its %s form, is %s", v4, want, addr, form, got)
			}
		}
		if a == 0 {
			return // padding, see localNAT64Views
		}
		split := netip.MustParseAddr("64:ff9b:1::").As16()
		split[6], split[7], split[9], split[10] = a, b, c, d
		for form, addr := range map[string]netip.Addr{"local NAT64": in("64:ff9b:1::", 12), "local NAT64, split": netip.AddrFrom16(split)} {
			if got := classify(addr); got < want {
				t.Errorf("%s is %s; %s, its %s form, only %s", v4, want, addr, form, got)
			}
		}
	})
}

// FuzzClassifyIPv6: whatever the address, its class is one of the list, and no
// address that the system itself calls local is called public.
func FuzzClassifyIPv6(f *testing.F) {
	for _, seed := range []string{"::", "::1", "fe80::1", "64:ff9b:1:7f00:0:100::", "2001::", "2002::", "ff02::1"} {
		a := netip.MustParseAddr(seed).As16()
		f.Add(a[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		class := classify(addr)
		_ = class.String()
		unmapped := addr.Unmap()
		local := unmapped.IsLoopback() || unmapped.IsLinkLocalUnicast() || unmapped.IsMulticast() || unmapped.IsUnspecified() || unmapped.IsPrivate()
		if local && class == classPublic {
			t.Errorf("%s is public", addr)
		}
	})
}
