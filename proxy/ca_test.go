package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := LoadOrCreateCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCAIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	now := time.Now()
	first, err := LoadOrCreateCA(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("54 CA key file mode 0600", func(t *testing.T) {
		if mode := fileMode(t, filepath.Join(dir, "ca.key")); mode != 0o600 {
			t.Errorf("mode %04o", mode)
		}
		if mode := fileMode(t, dir); mode.Perm() != 0o700 {
			t.Errorf("directory: mode %04o", mode)
		}
	})
	second, err := LoadOrCreateCA(dir, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !first.cert.Equal(second.cert) || !first.key.Equal(second.key) {
		t.Error("the second start has another CA")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".ca*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	c := first.cert
	if !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA %v, MaxPathLenZero %v, usage %v", c.IsCA, c.MaxPathLenZero, c.KeyUsage)
	}
	if !strings.HasPrefix(c.Subject.CommonName, "pillion CA of ") || len(c.Subject.CommonName) > 64 {
		t.Errorf("named %q", c.Subject.CommonName)
	}
	if got := first.ExpiresAt(); got.Before(now.Add(caLife-time.Minute)) || got.After(now.Add(caLife)) {
		t.Errorf("ends %s", got)
	}
}

func TestCAOfTwoMachinesDiffer(t *testing.T) {
	if a, b := newCA(t), newCA(t); a.key.Equal(b.key) || a.cert.Subject.String() == b.cert.Subject.String() {
		t.Errorf("54 both are %s", a.cert.Subject)
	}
}

// TestCAManyAtOnce starts itself as several processes, which begin together.
func TestCAManyAtOnce(t *testing.T) {
	if dir := os.Getenv("CA_TEST_DIR"); dir != "" {
		os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		ca, err := LoadOrCreateCA(dir, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(os.Getenv("CA_TEST_OUT"), ca.PEM(), 0o600)
		return
	}
	dir, out := t.TempDir(), t.TempDir()
	gate, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var processes []*exec.Cmd
	for i := range 6 {
		p := exec.Command(os.Args[0], "-test.run=^TestCAManyAtOnce$")
		p.Env = append(os.Environ(), "CA_TEST_DIR="+dir, "CA_TEST_OUT="+filepath.Join(out, string(rune('a'+i))))
		p.Stdin = gate
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		processes = append(processes, p)
	}
	gate.Close()
	var group sync.WaitGroup
	mine := make([]*CA, 8)
	release.Close()
	for i := range mine {
		group.Go(func() {
			if ca, err := LoadOrCreateCA(dir, time.Now()); err != nil {
				t.Error(err)
			} else {
				mine[i] = ca
			}
		})
	}
	group.Wait()
	for _, p := range processes {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		return
	}
	want := string(mine[0].PEM())
	for _, ca := range mine {
		if string(ca.PEM()) != want || !ca.key.Equal(mine[0].key) {
			t.Error("two goroutines have two CAs")
		}
	}
	files, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || len(files) != len(processes) {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if readFile(t, file) != want {
			t.Error("two processes have two CAs")
		}
	}
}

func TestCARenewal(t *testing.T) {
	dir := t.TempDir()
	made := time.Now()
	old, err := LoadOrCreateCA(dir, made)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		at      time.Time
		renewed bool
	}{
		{"a year and a day before its end", old.ExpiresAt().Add(-caRenewBefore - 24*time.Hour), false},
		{"a year less a day before its end", old.ExpiresAt().Add(-caRenewBefore + 24*time.Hour), true},
		{"long after its end", old.ExpiresAt().Add(20 * 365 * 24 * time.Hour), true},
		{"made with a clock that was ahead", made, true},
	} {
		before := readFile(t, filepath.Join(dir, "ca.crt"))
		ca, err := LoadOrCreateCA(dir, row.at)
		if err != nil {
			t.Fatal(err)
		}
		if renewed := string(ca.PEM()) != before; renewed != row.renewed {
			t.Errorf("%s: renewed %v", row.name, renewed)
		}
		if !ca.key.Equal(old.key) || ca.cert.Subject.String() != old.cert.Subject.String() {
			t.Errorf("%s: another key or name", row.name)
		}
		if !row.renewed {
			continue
		}
		// A client that has only the old certificate, at a time when that holds.
		ca.Now = func() time.Time { return latest(ca.cert.NotBefore, old.cert.NotBefore).Add(time.Minute) }
		if ca.Now().After(old.ExpiresAt()) {
			continue
		}
		leaf, err := ca.Leaf(t.Context(), "tool.example")
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(old.cert)
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "tool.example", CurrentTime: ca.Now()}); err != nil {
			t.Errorf("%s: under the old certificate: %v", row.name, err)
		}
	}
}

func TestCARefusesForeignFiles(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(newCA(t).key)
	if err != nil {
		t.Fatal(err)
	}
	const foreignKey = "is not a key that pillion made (PKCS#8, ECDSA P-256): put the right file back, or move it and ca.crt away to have a new CA made"
	const remedy = "put the right file back, or move it away to have a new one made for ca.key"
	leafOf := func(ca *CA) []byte {
		leaf, err := ca.mint("tool.example", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return pemCertificate(leaf.Certificate[0])
	}
	for _, row := range []struct {
		name, file string
		data       func(ca *CA) []byte
		want       string
	}{
		{"an RSA key", "ca.key", func(*CA) []byte { return pkcs8(rsaKey) }, foreignKey},
		{"a P-384 key", "ca.key", func(*CA) []byte { return pkcs8(p384) }, foreignKey},
		{"a SEC 1 key", "ca.key", func(*CA) []byte { return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}) }, foreignKey},
		{"an empty key file", "ca.key", func(*CA) []byte { return nil }, foreignKey},
		{"a broken key", "ca.key", func(*CA) []byte { return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}) }, foreignKey},
		{"the key of another CA", "ca.key", func(*CA) []byte { return pkcs8(newCA(t).key) }, "ca.crt belongs to another key than ca.key: " + remedy},
		{"the certificate of another CA", "ca.crt", func(*CA) []byte { return newCA(t).PEM() }, "ca.crt belongs to another key than ca.key: " + remedy},
		{"an empty certificate", "ca.crt", func(*CA) []byte { return nil }, "ca.crt is not a certificate in PEM form: " + remedy},
		{"a broken certificate", "ca.crt", func(*CA) []byte { return pemCertificate([]byte("x")) }, "ca.crt is not a certificate that can be read: " + remedy},
		{"a leaf for a CA", "ca.crt", func(ca *CA) []byte {
			other := &CA{cert: ca.cert, key: ca.key, leafKey: ca.key}
			return leafOf(other)
		}, "ca.crt is not a CA certificate that pillion made: " + remedy},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			ca, err := LoadOrCreateCA(dir, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			path, data := filepath.Join(dir, row.file), row.data(ca)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = LoadOrCreateCA(dir, time.Now())
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
			if readFile(t, path) != string(data) {
				t.Error("it was overwritten")
			}
		})
	}
	t.Run("54 a key that others can read", func(t *testing.T) {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
			dir := t.TempDir()
			if _, err := LoadOrCreateCA(dir, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "ca.key"), mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrCreateCA(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "can be used by others: if nobody has read it run chmod 600 on it") {
				t.Errorf("%04o: %v", mode, err)
			}
		}
	})
	t.Run("a certificate without its key", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := LoadOrCreateCA(dir, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateCA(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "ca.key is missing beside its certificate ca.crt: put the key back") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a key without its certificate", func(t *testing.T) {
		dir := t.TempDir()
		first, err := LoadOrCreateCA(dir, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
			t.Fatal(err)
		}
		second, err := LoadOrCreateCA(dir, time.Now())
		if err != nil || !first.key.Equal(second.key) {
			t.Errorf("got another CA, %v", err)
		}
	})
}

func fileMode(t testing.TB, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
