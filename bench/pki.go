package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// originName is what every client asks for. A name and not an address, since clients never send loopback names to a proxy.
const originName = "origin.example"

// pki is the one private CA of a run: the origin's leaf and nginx's come from it, goproxy and squid sign with it, and the client trusts it
// beside pillion's own CA. All keys are ECDSA P-256, so that no peer pays for a heavier signature than another.
type pki struct {
	CACert, CAKey     string // PEM files
	LeafCert, LeafKey string // PEM files of a leaf for originName
}

func newPKI(dir string) (pki, error) {
	p := pki{
		CACert: filepath.Join(dir, "ca.crt"), CAKey: filepath.Join(dir, "ca.key"),
		LeafCert: filepath.Join(dir, "leaf.crt"), LeafKey: filepath.Join(dir, "leaf.key"),
	}
	ca := template("pillion bench CA", 1)
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	caKey, err := issue(ca, ca, nil, p.CACert, p.CAKey)
	if err != nil {
		return pki{}, err
	}
	leaf := template(originName, 2)
	leaf.DNSNames = []string{originName}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	_, err = issue(leaf, ca, caKey, p.LeafCert, p.LeafKey)
	return p, err
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
	}
}

// issue makes a key, signs cert for it by parent's key (by its own where that is nil), and writes both as PEM.
func issue(cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, certFile, keyFile string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", cert.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return key, writePEM(keyFile, "PRIVATE KEY", keyDER)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// readPool reads a CA file for verification.
func readPool(files ...string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a CA: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading a CA: %s holds no certificate", file)
		}
	}
	return pool, nil
}
