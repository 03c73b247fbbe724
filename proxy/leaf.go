package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	leafLife      = 7 * 24 * time.Hour
	leafCacheSize = 1024
	// Ten times the mints of a cluster that starts, a hundredth of a core: what
	// it bounds is a client that asks for one made-up name after another.
	mintsPerSecond = 50
	mintBurst      = 200
)

// ErrMintLimit says that certificates are being asked for too fast.
var ErrMintLimit = errors.New("too many certificates for new hosts at once: try again in a second")

// Leaf returns a server certificate for host, a name or an IP address in
// canonical form. One is made at most once at a time for a host, kept, and
// replaced at half its life; a caller that leaves does not undo the work for the
// others. Beyond 50 new ones a second (200 at once) the error is ErrMintLimit.
func (ca *CA) Leaf(ctx context.Context, host string) (*tls.Certificate, error) {
	host, err := leafHost(host)
	if err != nil {
		return nil, err
	}
	now := ca.now()
	ca.mu.Lock()
	entry := ca.leaves.get(host, now)
	mine := entry == nil
	if mine {
		if !ca.mints.take(now) {
			ca.mu.Unlock()
			return nil, ErrMintLimit
		}
		entry = &leafEntry{host: host, ready: make(chan struct{})}
		ca.leaves.add(entry)
	}
	ca.mu.Unlock()

	if mine {
		ca.fill(entry, now)
	}
	select {
	case <-entry.ready:
		return entry.cert, entry.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// CacheLen is the number of leaf certificates held.
func (ca *CA) CacheLen() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.leaves.order.Len()
}

// fill mints outside the lock: other hosts do not wait.
func (ca *CA) fill(entry *leafEntry, now time.Time) {
	cert, err := ca.mint(entry.host, now)
	ca.mu.Lock()
	entry.cert, entry.err = cert, err
	if err != nil {
		ca.leaves.remove(entry)
	} else {
		entry.renewAt = now.Add(cert.Leaf.NotAfter.Sub(now) / 2)
	}
	ca.mu.Unlock()
	close(entry.ready)
}

// mint signs a certificate for the one leaf key of this process: P-256, so 0.1
// ms. The Authority Key Identifier that Python asks for is set from the parent.
func (ca *CA) mint(host string, now time.Time) (*tls.Certificate, error) {
	if !now.Before(ca.cert.NotAfter) {
		return nil, fmt.Errorf("the CA certificate ended on %s: restart pillion to have it renewed", ca.cert.NotAfter.Format(time.DateOnly))
	}
	template := &x509.Certificate{
		// A space keeps it from ever being taken for a host; some clients
		// stumble over an empty subject.
		Subject:     pkix.Name{CommonName: "pillion leaf"},
		NotBefore:   latest(now.Add(-clockSkew), ca.cert.NotBefore),
		NotAfter:    earliest(now.Add(leafLife), ca.cert.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &ca.leafKey.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ca.leafKey, Leaf: leaf}, nil
}

// leafHost keeps out what would make a certificate for more than one host.
func leafHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return "", fmt.Errorf("making a certificate: %q has a zone", host)
		}
		return ip.Unmap().String(), nil
	}
	name := canonicalName(host)
	if !isHostName(name) {
		return "", fmt.Errorf("making a certificate: %q is not a host name", host)
	}
	return name, nil
}

// canonicalName is host in the form that two spellings of one name share. Only
// ASCII is folded: Unicode's rules would turn a Kelvin sign into a "k".
func canonicalName(host string) string {
	folded := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, host)
	return strings.TrimSuffix(folded, ".")
}

// isHostName allows what DNS and its users allow (underscores too), not "*".
func isHostName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
