package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// useRoots gives this process the roots of these CAs, and no others.
func useRoots(t *testing.T, cas ...*CA) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "roots.pem")
	var text strings.Builder
	for _, ca := range cas {
		text.WriteString("# a root, with a comment\n" + string(ca.PEM()))
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", filepath.Join(t.TempDir(), "none"))
}

func TestPublish(t *testing.T) {
	ca, root, extra := newCA(t), newCA(t), newCA(t)
	useRoots(t, root, root)
	dir := filepath.Join(t.TempDir(), "public")
	if err := ca.Publish(dir, extra.PEM()); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(dir, "ca.crt")); got != string(ca.PEM()) {
		t.Error("ca.crt is not our certificate")
	}
	bundle := string(ca.PEM()) + string(extra.PEM()) + string(root.PEM())
	if got := readFile(t, filepath.Join(dir, "ca-bundle.crt")); got != bundle {
		t.Errorf("ca-bundle.crt is\n%s", got)
	}
	certs, err := pkcs12.DecodeTrustStore([]byte(readFile(t, filepath.Join(dir, "truststore.p12"))), TruststorePassword)
	if err != nil || len(certs) != 3 || !certs[0].Equal(ca.cert) {
		t.Errorf("truststore.p12 holds %d, %v", len(certs), err)
	}
	t.Run("54 modes, and no private key", func(t *testing.T) {
		if mode := fileMode(t, dir); mode != fs.ModeDir|0o755 {
			t.Errorf("directory: %v", mode)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 3 {
			t.Errorf("%v, %v", files, err)
		}
		for _, f := range files {
			path := filepath.Join(dir, f.Name())
			if mode := fileMode(t, path); mode != 0o444 {
				t.Errorf("%s: %v", f.Name(), mode)
			}
			if strings.Contains(readFile(t, path), "PRIVATE") {
				t.Errorf("%s holds a private key", f.Name())
			}
		}
		if _, _, err := pkcs12.Decode([]byte(readFile(t, filepath.Join(dir, "truststore.p12"))), TruststorePassword); err == nil {
			t.Error("truststore.p12 holds a private key")
		}
	})
	t.Run("unchanged content is not written again", func(t *testing.T) {
		long := time.Now().Add(-time.Hour).Truncate(time.Second)
		names := []string{"ca.crt", "ca-bundle.crt", "truststore.p12"}
		for _, name := range names {
			if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
				t.Fatal(err)
			}
		}
		if err := ca.Publish(dir, extra.PEM()); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.ModTime().Equal(long) {
				t.Errorf("%s was written, %v", name, err)
			}
		}
		if err := ca.Publish(dir, nil); err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, filepath.Join(dir, "ca-bundle.crt")); got != string(ca.PEM())+string(root.PEM()) {
			t.Error("a change is not written")
		}
	})
	t.Run("what a neighbour put in its place is replaced, not written through", func(t *testing.T) {
		victim := filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "ca.crt")
		if err := errors.Join(os.Remove(link), os.Symlink(victim, link)); err != nil {
			t.Fatal(err)
		}
		if err := ca.Publish(dir, nil); err != nil {
			t.Fatal(err)
		}
		if readFile(t, victim) != "mine" || fileMode(t, link) != 0o444 {
			t.Error("the link was followed")
		}
	})
	t.Run("our own bundle as SSL_CERT_FILE", func(t *testing.T) {
		t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "ca-bundle.crt"))
		other := newCA(t)
		if err := other.Publish(dir, nil); err != nil && !errors.Is(err, ErrNoSystemRoots) {
			t.Fatal(err)
		}
		if strings.Contains(readFile(t, filepath.Join(dir, "ca-bundle.crt")), string(ca.PEM())) {
			t.Error("a CA that has gone is handed on")
		}
	})
}

func TestPublishRefusals(t *testing.T) {
	ca := newCA(t)
	useRoots(t, newCA(t))
	key := readFile(t, filepath.Join(ca.dir, "ca.key"))
	for _, row := range []struct{ name, extra, want string }{
		{"54 a private key among the extra certificates", string(ca.PEM()) + key, "the extra CA file holds a PRIVATE KEY: leave only certificates in it"},
		{"no PEM", "hello", "the extra CA file holds no certificate in PEM form"},
		{"a broken certificate", string(ca.PEM()) + string(pemCertificate([]byte("x"))), "reading certificate 2 of the extra CA file: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "public")
			if err := ca.Publish(dir, []byte(row.extra)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Error("something was written")
			}
		})
	}
	for name, dir := range map[string]string{
		"the state directory":                     ca.dir,
		"the state directory in another spelling": ca.dir + "/x/..",
		"a folder that holds the state directory": filepath.Dir(ca.dir),
	} {
		t.Run("54 "+name, func(t *testing.T) {
			if err := ca.Publish(dir, nil); err == nil || !strings.Contains(err.Error(), "holds the state directory") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("its default, a folder in the state directory", func(t *testing.T) {
		if err := ca.Publish(filepath.Join(ca.dir, "public"), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("no system roots", func(t *testing.T) {
		t.Setenv("SSL_CERT_FILE", filepath.Join(t.TempDir(), "none"))
		dir := t.TempDir()
		if err := ca.Publish(dir, nil); !errors.Is(err, ErrNoSystemRoots) {
			t.Errorf("got %v", err)
		}
		if readFile(t, filepath.Join(dir, "ca-bundle.crt")) != string(ca.PEM()) {
			t.Error("the bundle is not written")
		}
	})
}

func TestSystemRoots(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "")
	t.Setenv("SSL_CERT_DIR", "")
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err != nil {
		t.Skip("not a Debian-like system:", err)
	}
	roots := systemRoots("/none")
	pool, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	mine := x509.NewCertPool()
	for _, root := range roots {
		mine.AddCert(root)
	}
	if !mine.Equal(pool) {
		t.Errorf("%d roots, not those of crypto/x509", len(roots))
	}
}

// TestPublishJava lets Java read the truststore and trust a listener by it.
func TestPublishJava(t *testing.T) {
	ca, extra := newCA(t), newCA(t)
	dir := filepath.Join(t.TempDir(), "public")
	if err := ca.Publish(dir, extra.PEM()); err != nil && !errors.Is(err, ErrNoSystemRoots) {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "truststore.p12")
	want := strings.Count(readFile(t, filepath.Join(dir, "ca-bundle.crt")), "-----BEGIN")
	t.Run("54 keytool lists every certificate", func(t *testing.T) {
		out := run(t, "keytool", "-J-Duser.language=en", "-list", "-keystore", store, "-storepass", TruststorePassword)
		if got := strings.Count(out, "trustedCertEntry"); got != want {
			t.Errorf("%d of %d:\n%s", got, want, out)
		}
	})
	for _, host := range []string{"localhost", "127.0.0.1"} { // what resolves here without a proxy
		t.Run("54 a Java client, "+host, func(t *testing.T) {
			source := filepath.Join(t.TempDir(), "Get.java")
			if err := os.WriteFile(source, []byte(javaGet), 0o600); err != nil {
				t.Fatal(err)
			}
			at := serveTLS(t, ca, host)
			out := run(t, "java", "-Djavax.net.ssl.trustStore="+store, "-Djavax.net.ssl.trustStorePassword="+TruststorePassword,
				source, fmt.Sprintf("https://%s:%d/", host, at.Port()))
			if !strings.Contains(out, "hi") {
				t.Error(out)
			}
		})
	}
}

const javaGet = `
public class Get {
    public static void main(String[] args) throws Exception {
        try (java.io.InputStream in = new java.net.URL(args[0]).openStream()) {
            System.out.write(in.readAllBytes());
            System.out.flush();
        }
    }
}
`

// FuzzParseExtra: whatever an administrator's file holds, only certificates
// come out, and they survive being written again.
func FuzzParseExtra(f *testing.F) {
	ca := newCA(f)
	f.Add(ca.PEM())
	f.Add([]byte("# note\n" + string(ca.PEM()) + "rest"))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseExtra(data)
		if err != nil {
			return
		}
		var again []byte
		for _, cert := range certs {
			again = append(again, pemCertificate(cert.Raw)...)
		}
		if second, err := parseExtra(again); err != nil || len(second) != len(certs) {
			t.Errorf("%d certificates, then %d, %v", len(certs), len(second), err)
		}
	})
}
