package creds

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// testKeys makes one public key a type.
func testKeys(t testing.TB) map[string]ssh.PublicKey {
	t.Helper()
	keys := map[string]ssh.PublicKey{}
	add := func(public any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		keys[key.Type()] = key
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	add(public, err)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(key.Public(), err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	add(key.Public(), err)
	return keys
}

// fixedKey is the same ed25519 key for the same number.
func fixedKey(t testing.TB, n byte) ssh.PublicKey {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed).Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func hostKeyLine(key ssh.PublicKey) string { return HostKey{Key: key}.String() }

func hostKeySeeds(t testing.TB) []string {
	ed := fixedKey(t, 3)
	line := hostKeyLine(ed)
	return []string{line, line + " root@host", "files.example " + line, "[files.example]:2222 " + line, ssh.FingerprintSHA256(ed),
		"256 " + ssh.FingerprintSHA256(ed) + " root@host (ED25519)", "MD5:" + ssh.FingerprintLegacyMD5(ed), strings.Fields(line)[1], "ssh-rsa"}
}

func hashedHost(name string) string {
	mac := hmac.New(sha1.New, []byte("saltsaltsaltsaltsalt"))
	mac.Write([]byte(name))
	return "|1|" + base64.StdEncoding.EncodeToString([]byte("saltsaltsaltsaltsalt")) + "|" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestHostKeyFormsAccepted(t *testing.T) {
	for keyType, key := range testKeys(t) {
		line, print := hostKeyLine(key), ssh.FingerprintSHA256(key)
		for form, typed := range map[string]bool{
			line: true, "  " + line + "\r": true, line + " a comment with spaces": true, strings.Fields(line)[1]: true,
			"files.example " + line: true, "FILES.example " + line: true, "[files.example]:2222 " + line + " c": true, "a.example,files.example,192.0.2.1 " + line: true,
			hashedHost("files.example") + " " + line: true, hashedHost("[files.example]:2222") + " " + line: true,
			"# files.example:2222 SSH-2.0-OpenSSH_9.2\nfiles.example " + line + "\n\n": true,
			print: false, print + "=": false, "256 " + print + " root@host (WHAT)": false, "256 " + print + " no comment (ECDSA)": false,
		} {
			pins, err := ParseHostKeys([]string{form}, "files.example", 2222)
			if err != nil || len(pins) != 1 {
				t.Errorf("%q: %v, %v", form, pins, err)
				continue
			}
			if !pins[0].Matches(key) || typed != (pins[0].Type == keyType) || typed && pins[0].String() != line {
				t.Errorf("%q: %+v", form, pins[0])
			}
		}
	}
}

func TestHostKeyFormsRefused(t *testing.T) {
	keys := testKeys(t)
	ed, rsaKey := hostKeyLine(keys[ssh.KeyAlgoED25519]), hostKeyLine(keys[ssh.KeyAlgoRSA])
	md5 := ssh.FingerprintLegacyMD5(keys[ssh.KeyAlgoED25519])
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	for form, words := range map[string]string{
		md5:                                    "is an MD5 hash, which is not accepted; paste the server's public key as one line, for example ecdsa-sha2-nistp256 AAAA... (print it with: ssh-keyscan -p 2222 files.example)",
		"MD5:" + md5:                           "is an MD5 hash",
		"md5:" + md5:                           "is an MD5 hash",
		"2048 MD5:" + md5 + " c (RSA)":         "is an MD5 hash",
		"2048 " + md5 + " c (RSA)":             "is an MD5 hash",
		strings.ReplaceAll(md5, ":", ""):       "is an MD5 hash",
		strings.ReplaceAll(md5, ":", "-"):      "is an MD5 hash",
		"ssh-ed25519":                          "is a key type (ssh-ed25519) without its key",
		"files.example ssh-ed25519":            "without its key",
		"ssh-rsa " + strings.Fields(ed)[1]:     "says ssh-rsa, but its key is another type",
		ed[:40]:                                "cut short",
		ed[:len(ed)-3]:                         "cut short",
		rsaKey[:100]:                           "cut short",
		strings.Fields(rsaKey)[1][:100]:        "cut short",
		"ssh-ed25519 not*base64":               "cut short or mistyped",
		"rsa-sha2-512 " + rsaKey[8:]:           "names a signature (rsa-sha2-512), not a key",
		"other.example " + ed:                  "is a line of another host: the credential is for [files.example]:2222",
		"[files.example]:22 " + ed:             "another host",
		hashedHost("other.example") + " " + ed: "another host",
		"|1|broken " + ed:                      "another host",
		"SHA256:abc":                           "SHA256 hash of the wrong length",
		"SHA256:" + strings.Repeat("A", 44):    "SHA256 hash of the wrong length",
		"256 SHA256:abc c (RSA)":               "SHA256 hash of the wrong length",
		"1024 SHA256:" + strings.Repeat("A", 43) + " c (DSA)": "DSA",
		string(pem.EncodeToMemory(block)):                     "is a private key",
		"-----BEGIN PUBLIC KEY-----":                          "is a key file in another form",
		"---- BEGIN SSH2 PUBLIC KEY ----":                     "is a key file in another form",
		"ssh-dss AAAAB3NzaC1kc3M":                             "is a DSA key",
		"ssh-ed25519-cert-v01@openssh.com AA":                 "is a certificate",
		"@cert-authority * " + ed:                             "is a certificate authority",
		"@revoked files.example " + ed:                        "marker",
		"sk-ssh-ed25519@openssh.com AAAA":                     "key type that is not accepted",
		"hello":                                               "is not a host key",
		"hello world":                                         "is not a host key",
		"":                                                    "is required",
		"# only a comment":                                    "is required",
	} {
		pins, err := ParseHostKeys([]string{form}, "files.example", 2222)
		if err == nil || !strings.Contains(err.Error(), words) || len(pins) != 0 {
			t.Errorf("%q: %v, %v; want %q", form, pins, err, words)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q: several problems: %v", form, err)
		}
		for _, part := range strings.Fields(form) {
			if len(part) > 60 && strings.Contains(err.Error(), part) {
				t.Errorf("%q is repeated in %v", part, err)
			}
		}
	}
}

func TestHostKeysAllProblemsAtOnce(t *testing.T) {
	good := hostKeyLine(testKeys(t)[ssh.KeyAlgoRSA])
	pins, err := ParseHostKeys([]string{"hello\n" + good, "ssh-dss AAAA"}, "", 0)
	if len(pins) != 1 || err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v, %v", pins, err)
	}
}

func TestHostKeyAlgorithmsFollowThePins(t *testing.T) {
	keys := testKeys(t)
	parse := func(lines ...string) []HostKey {
		pins, err := ParseHostKeys(lines, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return pins
	}
	rsaLine := hostKeyLine(keys[ssh.KeyAlgoRSA])
	for _, c := range []struct {
		pins []HostKey
		want []string
	}{
		{parse(rsaLine), []string{"rsa-sha2-512", "rsa-sha2-256"}},
		{parse(rsaLine, hostKeyLine(keys[ssh.KeyAlgoED25519])), []string{"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"}},
		{parse("2048 " + ssh.FingerprintSHA256(keys[ssh.KeyAlgoRSA]) + " c (RSA)"), []string{"rsa-sha2-512", "rsa-sha2-256"}},
		{parse(ssh.FingerprintSHA256(keys[ssh.KeyAlgoRSA])), []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256"}},
	} {
		if got := HostKeyAlgorithms(c.pins); !slices.Equal(got, c.want) {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// FuzzParseHostKeys: what is accepted is accepted again as it is written back,
// and means the same key.
func FuzzParseHostKeys(f *testing.F) {
	for _, seed := range hostKeySeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		pins, _ := ParseHostKeys([]string{value}, "files.example", 2222)
		for _, pin := range pins {
			again, err := ParseHostKeys([]string{pin.String()}, "", 0)
			if err != nil || len(again) != 1 || again[0].SHA256 != pin.SHA256 {
				t.Errorf("%q gives %s, which gives %v, %v", value, pin, again, err)
			}
		}
	})
}
