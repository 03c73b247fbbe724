package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	caLife = 5 * 365 * 24 * time.Hour
	// caRenewBefore is how near its end a certificate is replaced. It is read at
	// start only, so it is also the longest that one process may run.
	caRenewBefore = 365 * 24 * time.Hour
	caKeyFile     = "ca.key"
	caCertFile    = "ca.crt"
	// clockSkew dates certificates back, for clients whose clock is behind ours.
	clockSkew = time.Hour
)

// CA is the certificate authority of one installation. Its certificates let the
// proxy end the TLS of clients that trust it, and of nobody else: the key is
// made here and never leaves the state directory. Safe for concurrent use.
type CA struct {
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	dir     string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey

	mu     sync.Mutex
	leaves leafCache
	mints  bucket
}

// LoadOrCreateCA returns the CA whose key is dir/ca.key and whose certificate is
// dir/ca.crt, making what is missing. Of several processes that start at once
// one makes them and all end with the same: a file comes into being complete, by
// a hard link that fails when the name is taken. A certificate near its end is
// replaced by one with the same name and key, which clients that trust the old
// one accept. Nothing that it does not understand is overwritten.
func LoadOrCreateCA(dir string, now time.Time) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	key, err := loadOrCreateKey(dir)
	if err != nil {
		return nil, err
	}
	cert, err := loadOrCreateCert(dir, key, now)
	if err != nil {
		return nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the leaf certificates: %w", err)
	}
	return &CA{dir: dir, cert: cert, key: key, leafKey: leafKey}, nil
}

// ExpiresAt is the end of the CA certificate.
func (ca *CA) ExpiresAt() time.Time { return ca.cert.NotAfter }

// PEM is the CA certificate, as in dir/ca.crt.
func (ca *CA) PEM() []byte { return pemCertificate(ca.cert.Raw) }

func (ca *CA) now() time.Time {
	if ca.Now == nil {
		return time.Now()
	}
	return ca.Now()
}

func pemCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func loadOrCreateKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, caKeyFile)
	// The certificate is looked at first: whoever makes both makes the key
	// first, so a certificate that is there now has its key there a moment later.
	_, certErr := os.Stat(filepath.Join(dir, caCertFile))
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if certErr == nil {
		return nil, fmt.Errorf("%s is missing beside its certificate %s: put the key back, or delete the certificate to have a new CA made", path, caCertFile)
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the CA's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the CA's key: %w", err)
	}
	err = createFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return readKey(path)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's key: %w", err)
	}
	if mode := info.Mode(); mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s (mode %04o) can be used by others: if nobody has read it run chmod 600 on it, else delete it and %s to have a new CA made", path, mode.Perm(), caCertFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's key: %w", err)
	}
	foreign := fmt.Errorf("%s is not a key that pillion made (PKCS#8, ECDSA P-256): put the right file back, or move it and %s away to have a new CA made", path, caCertFile)
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, foreign
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, foreign // the parser's text could quote the file
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, foreign
	}
	return key, nil
}

func loadOrCreateCert(dir string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	path := filepath.Join(dir, caCertFile)
	cert, err := readCert(path, key)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	if !missing && now.After(cert.NotBefore) && now.Before(cert.NotAfter.Add(-caRenewBefore)) {
		return cert, nil
	}
	name := caName(&key.PublicKey)
	write := createFile
	if !missing {
		// The old name, though the host may have another one by now: leaves are
		// then good under the old certificate and the new one.
		name, write = cert.Subject, replaceFile
	}
	der, err := signCA(key, name, now)
	if err != nil {
		return nil, err
	}
	if err := write(path, pemCertificate(der), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readCert(path, key) // ours, or that of a process that was faster
}

func readCert(path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's certificate: %w", err)
	}
	remedy := "put the right file back, or move it away to have a new one made for " + caKeyFile
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is not a certificate in PEM form: %s", path, remedy)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is not a certificate that can be read: %s", path, remedy)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s belongs to another key than %s: %s", path, caKeyFile, remedy)
	}
	if cert.CheckSignatureFrom(cert) != nil || len(cert.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("%s is not a CA certificate that pillion made: %s", path, remedy)
	}
	return cert, nil
}

func signCA(key *ecdsa.PrivateKey, name pkix.Name, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               name,
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the CA's certificate: %w", err)
	}
	return der, nil
}

// caName tells the CAs of several machines apart in a trust store: by the host
// and by the first bytes of the key's hash. RFC 5280 allows 64 characters.
func caName(key *ecdsa.PublicKey) pkix.Name {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown host"
	}
	spki, _ := x509.MarshalPKIXPublicKey(key) // cannot fail for P-256
	sum := sha256.Sum256(spki)
	return pkix.Name{CommonName: fmt.Sprintf("pillion CA of %.36s (%s)", host, hex.EncodeToString(sum[:4]))}
}
