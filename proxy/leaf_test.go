package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func mustLeaf(t testing.TB, ca *CA, host string) *tls.Certificate {
	t.Helper()
	leaf, err := ca.Leaf(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestLeaf(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	for _, host := range []string{"tool.example", "UPPER.example.", "xn--bcher-kva.example", "under_score.example", "127.0.0.1", "::1", "2001:db8::7"} {
		t.Run("54 AKI, SAN and life of "+host, func(t *testing.T) {
			leaf := mustLeaf(t, ca, host).Leaf
			if string(leaf.AuthorityKeyId) != string(ca.cert.SubjectKeyId) || len(leaf.AuthorityKeyId) == 0 {
				t.Errorf("AKI %x, want %x", leaf.AuthorityKeyId, ca.cert.SubjectKeyId)
			}
			if n := len(leaf.DNSNames) + len(leaf.IPAddresses); n != 1 || len(leaf.EmailAddresses)+len(leaf.URIs) != 0 {
				t.Errorf("SAN %v %v", leaf.DNSNames, leaf.IPAddresses)
			}
			if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
				t.Errorf("usage %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
			}
			if leaf.NotAfter.After(now.Add(leafLife+time.Minute)) || leaf.NotBefore.After(now.Add(-clockSkew+time.Minute)) {
				t.Errorf("from %s to %s", leaf.NotBefore, leaf.NotAfter)
			}
			pool := x509.NewCertPool()
			pool.AddCert(ca.cert)
			name := strings.TrimSuffix(strings.ToLower(host), ".")
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
				t.Error(err)
			}
			if err := leaf.VerifyHostname("other.example"); err == nil {
				t.Error("good for another host")
			}
		})
	}
	for _, host := range []string{"", ".", "*", "*.example", "a..b", "a b", "tool.example:443", "tool/x", "bücher.example", "a\x00b", "\u212a.example", "fe80::1%eth0", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa"} {
		if _, err := ca.Leaf(t.Context(), host); err == nil {
			t.Errorf("8 a certificate for %q", host)
		}
	}
}

func TestLeafEndsWithTheCA(t *testing.T) {
	ca := newCA(t)
	at := ca.ExpiresAt().Add(-24 * time.Hour)
	ca.Now = func() time.Time { return at }
	leaf := mustLeaf(t, ca, "tool.example")
	if leaf.Leaf.NotAfter.After(ca.ExpiresAt()) {
		t.Errorf("54 the leaf ends %s, the CA %s", leaf.Leaf.NotAfter, ca.ExpiresAt())
	}
	if mustLeaf(t, ca, "tool.example") != leaf {
		t.Error("it is made anew for each request")
	}
	at = ca.ExpiresAt()
	if _, err := ca.Leaf(t.Context(), "tool.example"); err == nil || !strings.Contains(err.Error(), "restart pillion") {
		t.Errorf("54 after the CA's end: %v", err)
	}
}

func TestLeafIsKeptAndRenewed(t *testing.T) {
	ca := newCA(t)
	at := time.Now()
	ca.Now = func() time.Time { return at }
	first := mustLeaf(t, ca, "tool.example")
	at = at.Add(leafLife/2 - time.Minute)
	if mustLeaf(t, ca, "TOOL.example.") != first {
		t.Error("another one at less than half its life")
	}
	at = at.Add(2 * time.Minute)
	second := mustLeaf(t, ca, "tool.example")
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("the old one after half its life")
	}
	if second.PrivateKey != first.PrivateKey {
		t.Error("another key")
	}
	if n := ca.CacheLen(); n != 1 {
		t.Errorf("%d held", n)
	}
}

func TestLeafOneMintAtATime(t *testing.T) {
	ca := newCA(t)
	var group sync.WaitGroup
	got := make([]*tls.Certificate, 64)
	for i := range got {
		group.Go(func() { got[i], _ = ca.Leaf(context.Background(), "tool.example") })
	}
	group.Wait()
	for _, leaf := range got {
		if leaf == nil || leaf != got[0] {
			t.Fatal("two certificates for one host at once")
		}
	}
}

func TestLeafCallerLeaves(t *testing.T) {
	ca := newCA(t)
	entry := &leafEntry{host: "tool.example", ready: make(chan struct{})}
	ca.leaves.add(entry) // someone is at it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ca.Leaf(ctx, "tool.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ca.fill(entry, time.Now())
	if mustLeaf(t, ca, "tool.example") != entry.cert {
		t.Error("the others do not get it")
	}
}

func TestLeafLimits(t *testing.T) {
	ca := newCA(t)
	at := time.Now()
	ca.Now = func() time.Time { return at }
	made := 0
	for i := range mintBurst * 2 {
		_, err := ca.Leaf(t.Context(), fmt.Sprintf("h%d.example", i))
		if err == nil {
			made++
		} else if !errors.Is(err, ErrMintLimit) {
			t.Fatal(err)
		}
	}
	if made != mintBurst {
		t.Errorf("53 %d made at once", made)
	}
	mustLeaf(t, ca, "h0.example") // one that is there costs nothing
	at = at.Add(time.Second)
	made = 0
	for i := range mintBurst {
		if _, err := ca.Leaf(t.Context(), fmt.Sprintf("i%d.example", i)); err == nil {
			made++
		}
	}
	if made != mintsPerSecond {
		t.Errorf("53 %d made in a second", made)
	}
	for i := range leafCacheSize {
		at = at.Add(time.Second / mintsPerSecond)
		mustLeaf(t, ca, fmt.Sprintf("j%d.example", i))
		mustLeaf(t, ca, "h0.example")
	}
	if n := ca.CacheLen(); n != leafCacheSize {
		t.Errorf("%d held, want %d", n, leafCacheSize)
	}
	if _, held := ca.leaves.entries["h0.example"]; !held || len(ca.leaves.entries) != leafCacheSize {
		t.Error("the one in use is not held")
	}
}

// serveTLS answers each connection with a line, under the leaf of host.
func serveTLS(t *testing.T, ca *CA, host string) netip.AddrPort {
	t.Helper()
	listener := tls.NewListener(listenLoopback(t), &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(hello.Context(), host) },
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n")
				io.Copy(io.Discard, conn)
			}(conn)
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// TestLeafClients lets other people's TLS judge what we sign.
func TestLeafClients(t *testing.T) {
	ca := newCA(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"tool.example", "127.0.0.1"} {
		at := serveTLS(t, ca, host)
		t.Run("54 Python's ssl, strict, "+host, func(t *testing.T) {
			run(t, "python3", "-c", `
import socket, ssl, sys
ctx = ssl.create_default_context(cafile=sys.argv[1])
ctx.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(("127.0.0.1", int(sys.argv[3]))) as s, ctx.wrap_socket(s, server_hostname=sys.argv[2]) as t:
    assert t.recv(12) == b"HTTP/1.1 200"
`, file, host, fmt.Sprint(at.Port()))
		})
		t.Run("54 curl, "+host, func(t *testing.T) {
			run(t, "curl", "-q", "--noproxy", "*", "-sS", "--cacert", file, "--connect-to", fmt.Sprintf("%s:443:127.0.0.1:%d", host, at.Port()), "https://"+host+"/")
		})
	}
	t.Run("54 openssl verify, strict", func(t *testing.T) {
		leaf := filepath.Join(t.TempDir(), "leaf.crt")
		if err := os.WriteFile(leaf, pemCertificate(mustLeaf(t, ca, "tool.example").Certificate[0]), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "tool.example", "-CAfile", file, leaf)
	})
}

// run fails the test with what the program says; a program that is not there
// skips it.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name, "is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func BenchmarkMint(b *testing.B) {
	ca := newCA(b)
	now := time.Now()
	for b.Loop() {
		if _, err := ca.mint("tool.example", now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafCached(b *testing.B) {
	ca := newCA(b)
	for b.Loop() {
		if _, err := ca.Leaf(b.Context(), "tool.example"); err != nil {
			b.Fatal(err)
		}
	}
}
