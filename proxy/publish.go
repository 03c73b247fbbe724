package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// TruststorePassword opens truststore.p12. It hides nothing: Java wants one, and
// this is the one that it uses for its own.
const TruststorePassword = pkcs12.DefaultPassword

// ErrNoSystemRoots is returned by Publish after all its work is done: clients
// get our CA and the extra certificates, and will trust no public one.
var ErrNoSystemRoots = errors.New("no system root certificates found: install ca-certificates, or point SSL_CERT_FILE of pillion's own process at a bundle")

// Publish writes what clients need to trust this CA into dir, a folder that is
// shared with them:
//
//	ca.crt          our certificate
//	ca-bundle.crt   ours, those of extra, the system's roots
//	truststore.p12  the same for Java
//
// A client that is given only ca.crt would lose the public roots, which it may
// need for hosts that do not pass through here. extra may be empty; it is in PEM
// form. Each file is replaced by rename, mode 0444, and only if its content
// changed. No private key gets in.
func (ca *CA) Publish(dir string, extra []byte) error {
	extraCerts, err := parseExtra(extra)
	if err != nil {
		return err
	}
	if err := makePublic(dir); err != nil {
		return fmt.Errorf("making the publish folder: %w", err)
	}
	if err := ca.refusePrivate(dir); err != nil {
		return err
	}
	roots := systemRoots(filepath.Join(dir, "ca-bundle.crt"))
	certs := distinct([]*x509.Certificate{ca.cert}, extraCerts, roots)
	var bundle bytes.Buffer
	for _, c := range certs {
		bundle.Write(pemCertificate(c.Raw))
	}
	store, err := truststore(certs)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"ca.crt", ca.PEM()}, {"ca-bundle.crt", bundle.Bytes()}, {"truststore.p12", store}} {
		if err := updateFile(filepath.Join(dir, file.name), file.data, 0o444); err != nil {
			return err
		}
	}
	if len(roots) == 0 {
		return ErrNoSystemRoots
	}
	return nil
}

// makePublic makes a folder that is missing, for all to read, whatever the umask of
// a service is. One that is there stays as somebody made it.
func makePublic(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)) //nolint:gosec // certificates alone
}

// refusePrivate keeps the shared folder apart from the state directory: its own
// folder below the state directory is fine, the other way round is not.
func (ca *CA) refusePrivate(dir string) error {
	dir, err := realPath(dir)
	if err != nil {
		return err
	}
	state, err := realPath(ca.dir)
	if err != nil {
		return err
	}
	if dir == state || strings.HasPrefix(state, strings.TrimSuffix(dir, "/")+"/") {
		return fmt.Errorf("the publish folder %s holds the state directory, which clients must not see: set publish to another folder", dir)
	}
	return nil
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// parseExtra is strict, unlike systemRoots: what an administrator adds by hand
// and does not take effect would be looked for at the client.
func parseExtra(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		rest = after
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the extra CA file holds a %s: leave only certificates in it", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificate %d of the extra CA file: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 && len(bytes.TrimSpace(data)) > 0 {
		return nil, errors.New("the extra CA file holds no certificate in PEM form")
	}
	return certs, nil
}

// systemRoots finds the roots where crypto/x509 does, which does not hand them
// out. Not from own, the bundle that we write: a process started with the
// environment of its clients would keep every root that was ever in it.
func systemRoots(own string) []*x509.Certificate {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, distroless
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // SUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
		"/etc/ssl/cert.pem",                                 // Alpine, macOS
	}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" && !sameFile(file, own) {
		files = []string{file}
	}
	dirs := []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = filepath.SplitList(list)
	}
	var roots []*x509.Certificate
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			roots = appendRoots(roots, data)
			break
		}
	}
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // one that is not there has no roots
		for _, entry := range entries {
			file := filepath.Join(dir, entry.Name())
			if data, err := os.ReadFile(file); err == nil && !sameFile(file, own) {
				roots = appendRoots(roots, data)
			}
		}
	}
	return distinct(roots)
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

func appendRoots(roots []*x509.Certificate, data []byte) []*x509.Certificate {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			roots = append(roots, cert)
		}
	}
	return roots
}

func distinct(lists ...[]*x509.Certificate) []*x509.Certificate {
	seen := make(map[string]bool)
	var result []*x509.Certificate
	for _, list := range lists {
		for _, cert := range list {
			if !seen[string(cert.Raw)] {
				seen[string(cert.Raw)] = true
				result = append(result, cert)
			}
		}
	}
	return result
}

// truststore encodes certs for Java 12 and later (and 8u301, 11.0.12). Java drops
// entries whose names are equal but for their case, so a hash is part of a name.
// The salt comes from the content, which makes the file reproducible: it protects
// nothing, as the content is public and so is the password.
func truststore(certs []*x509.Certificate) ([]byte, error) {
	all := sha256.New()
	entries := make([]pkcs12.TrustStoreEntry, 0, len(certs))
	for _, cert := range certs {
		all.Write(cert.Raw)
		sum := sha256.Sum256(cert.Raw)
		name := cert.Subject.CommonName
		if name == "" {
			name = cert.Subject.String()
		}
		entries = append(entries, pkcs12.TrustStoreEntry{
			Cert:         cert,
			FriendlyName: fmt.Sprintf("%s [%s]", basicPlane(name), hex.EncodeToString(sum[:8])),
		})
	}
	salt := rand.NewChaCha8([32]byte(all.Sum(nil)))
	data, err := pkcs12.Modern2023.WithRand(salt).EncodeTrustStoreEntries(entries, TruststorePassword)
	if err != nil {
		return nil, fmt.Errorf("encoding the truststore: %w", err)
	}
	return data, nil
}

// basicPlane replaces what a BMPString cannot hold.
func basicPlane(name string) string {
	return strings.Map(func(r rune) rune {
		if r > 0xffff {
			return '?'
		}
		return r
	}, name)
}
