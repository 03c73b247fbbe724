package creds

import (
	"crypto/hmac"
	"crypto/sha1" // the hash of OpenSSH's hashed host names, not of any key
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// HostKey is one pinned host key of an SFTP server: the key itself, or the
// SHA-256 of one.
type HostKey struct {
	Type   string        // "ssh-ed25519"; "" for a fingerprint that came without its type
	Key    ssh.PublicKey // nil for a fingerprint
	SHA256 string        // as ssh-keygen -l prints it: "SHA256:" and 43 characters
}

// Matches reports whether the server's key is the pinned one.
func (k HostKey) Matches(key ssh.PublicKey) bool { return ssh.FingerprintSHA256(key) == k.SHA256 }

// String returns the pin as it is written into the field host_key.
func (k HostKey) String() string {
	if k.Key == nil {
		return k.SHA256
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.Key)), "\n")
}

// hostKeyAlgorithms are the key types that a pin may have, and the signature
// algorithms to negotiate for each. SHA-1 (ssh-rsa as an algorithm) is left out.
var hostKeyAlgorithms = map[string][]string{
	ssh.KeyAlgoRSA:      {ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
	ssh.KeyAlgoECDSA256: {ssh.KeyAlgoECDSA256},
	ssh.KeyAlgoECDSA384: {ssh.KeyAlgoECDSA384},
	ssh.KeyAlgoECDSA521: {ssh.KeyAlgoECDSA521},
	ssh.KeyAlgoED25519:  {ssh.KeyAlgoED25519},
}

// HostKeyAlgorithms returns what a client that holds these pins must offer,
// since a server with several keys shows the one that is asked for first. A
// fingerprint without a type allows every type: then the list is whole.
func HostKeyAlgorithms(pins []HostKey) []string {
	order := []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}
	untyped := slices.ContainsFunc(pins, func(k HostKey) bool { return k.Type == "" })
	var algorithms []string
	for _, t := range order {
		if untyped || slices.ContainsFunc(pins, func(k HostKey) bool { return k.Type == t }) {
			algorithms = append(algorithms, hostKeyAlgorithms[t]...)
		}
	}
	return algorithms
}

// ParseHostKeys reads the field host_key: public keys, lines of ssh-keyscan or
// known_hosts for that host, and SHA-256 fingerprints, any number of them, one
// a line. All problems are reported at once. With host "" the host of a
// known_hosts line is not compared.
func ParseHostKeys(values []string, host string, port uint16) ([]HostKey, error) {
	var pins []HostKey
	var problems []error
	for _, line := range hostKeyLines(values) {
		pin, err := parseHostKey(line, host, port)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		pins = append(pins, pin)
	}
	if len(pins) == 0 && len(problems) == 0 {
		return nil, errors.New("is required: without the server's key a password could be sent to anybody; paste the server's public key as one line" + hostKeyExample(host, port))
	}
	return pins, errors.Join(problems...)
}

// hostKeyLines drops what ssh-keyscan prints around the keys. A private key
// stays whole, for one problem instead of thirty.
func hostKeyLines(values []string) []string {
	var lines []string
	for _, value := range values {
		if strings.Contains(value, "PRIVATE KEY") {
			lines = append(lines, value)
			continue
		}
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func parseHostKey(line, host string, port uint16) (HostKey, error) {
	fields := strings.Fields(line)
	if err := refusedHostKey(line, fields, host, port); err != nil {
		return HostKey{}, err
	}
	switch {
	case strings.HasPrefix(fields[0], "SHA256:"):
		return parseFingerprint(fields[0], "")
	case len(fields) > 1 && strings.HasPrefix(fields[1], "SHA256:"): // ssh-keygen -l: bits, hash, comment, (TYPE)
		return parseFingerprint(fields[1], fields[len(fields)-1])
	case isKeyType(fields[0]):
		return parseTypedKey(fields)
	case strings.HasPrefix(fields[0], "AAAA"):
		return parseKey(fields[0], "")
	case len(fields) > 1 && isKeyType(fields[1]):
		if !hostListed(fields[0], host, port) {
			return HostKey{}, fmt.Errorf("is a line of another host: the credential is for %s", hostPort(host, port))
		}
		return parseTypedKey(fields[1:])
	}
	return HostKey{}, errors.New("is not a host key; paste the server's public key as one line" + hostKeyExample(host, port))
}

// refusedHostKey finds what is well known and not taken, for its own sentence.
func refusedHostKey(line string, fields []string, host string, port uint16) error {
	switch {
	case strings.Contains(line, "PRIVATE KEY"):
		return errors.New("is a private key, which nobody but its owner should have; paste the server's public key as one line" + hostKeyExample(host, port))
	case strings.HasPrefix(line, "-----BEGIN") || strings.HasPrefix(line, "---- BEGIN"):
		return errors.New("is a key file in another form; paste the server's public key as one line" + hostKeyExample(host, port))
	case strings.HasPrefix(fields[0], "@cert-authority"):
		return errors.New("is a certificate authority, which is not accepted; paste the server's own public key" + hostKeyExample(host, port))
	case strings.HasPrefix(fields[0], "@"):
		return errors.New("begins with a marker (such as @revoked), which is not accepted; paste the server's own public key" + hostKeyExample(host, port))
	case slices.ContainsFunc(fields[:min(2, len(fields))], isMD5):
		return errors.New("is an MD5 hash, which is not accepted; paste the server's public key as one line" + hostKeyExample(host, port))
	}
	for _, field := range fields[:min(2, len(fields))] {
		switch {
		case strings.HasPrefix(field, "rsa-sha2-"):
			return fmt.Errorf("names a signature (%s), not a key; the type of an RSA key is ssh-rsa", field)
		case field == "ssh-dss":
			return errors.New("is a DSA key, which is not accepted; use another key of the server" + hostKeyExample(host, port))
		case strings.Contains(field, "-cert-v0"):
			return errors.New("is a certificate, which is not accepted; paste the server's own public key" + hostKeyExample(host, port))
		}
	}
	return nil
}

func hostKeyExample(host string, port uint16) string {
	if host == "" {
		host, port = "HOST", 22
	}
	return fmt.Sprintf(", for example ecdsa-sha2-nistp256 AAAA... (print it with: ssh-keyscan -p %d %s)", port, host)
}

// isMD5 knows "MD5:" and 16 bytes of hex with colons, with hyphens, or bare.
func isMD5(field string) bool {
	if len(field) >= 4 && strings.EqualFold(field[:4], "MD5:") {
		return true
	}
	bare := strings.NewReplacer(":", "", "-", "").Replace(field)
	_, err := hex.DecodeString(bare)
	return len(bare) == 32 && err == nil
}

func isKeyType(field string) bool {
	return hostKeyAlgorithms[field] != nil || strings.HasPrefix(field, "ssh-") ||
		strings.HasPrefix(field, "ecdsa-") || strings.HasPrefix(field, "sk-")
}

func parseTypedKey(fields []string) (HostKey, error) {
	if hostKeyAlgorithms[fields[0]] == nil {
		return HostKey{}, errors.New("has a key type that is not accepted: use ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521 or ssh-rsa")
	}
	if len(fields) == 1 {
		return HostKey{}, fmt.Errorf("is a key type (%s) without its key: the line goes on with AAAA...", fields[0])
	}
	return parseKey(fields[1], fields[0])
}

// parseKey reads the base64 part. wantType "" takes any accepted type.
func parseKey(encoded, wantType string) (HostKey, error) {
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return HostKey{}, errors.New("has a key that is cut short or mistyped: what follows the type is not valid base64")
	}
	if inner := blobType(blob); wantType != "" && inner != "" && inner != wantType {
		return HostKey{}, fmt.Errorf("says %s, but its key is another type: copy the whole line again", wantType)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return HostKey{}, errors.New("has a key that is cut short or damaged: copy the whole line again")
	}
	if hostKeyAlgorithms[key.Type()] == nil {
		return HostKey{}, errors.New("holds a DSA key, a certificate or another kind of key that is not accepted")
	}
	return HostKey{Type: key.Type(), Key: key, SHA256: ssh.FingerprintSHA256(key)}, nil
}

// blobType reads the type that a key's blob begins with (RFC 4253 section 6.6).
func blobType(blob []byte) string {
	if len(blob) < 4 {
		return ""
	}
	n := int(blob[0])<<24 | int(blob[1])<<16 | int(blob[2])<<8 | int(blob[3])
	if n > 64 || len(blob) < 4+n {
		return ""
	}
	return string(blob[4 : 4+n])
}

// parseFingerprint reads SHA256:..., and the family that ssh-keygen prints
// behind it, where that names one type.
func parseFingerprint(field, family string) (HostKey, error) {
	encoded := strings.TrimSuffix(strings.TrimPrefix(field, "SHA256:"), "=")
	sum, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(sum) != 32 {
		return HostKey{}, errors.New("has a SHA256 hash of the wrong length: it has 43 characters after SHA256:")
	}
	pin := HostKey{SHA256: "SHA256:" + encoded}
	switch family {
	case "(ED25519)":
		pin.Type = ssh.KeyAlgoED25519
	case "(RSA)":
		pin.Type = ssh.KeyAlgoRSA
	case "(DSA)":
		return HostKey{}, errors.New("is the hash of a DSA key, which is not accepted")
	}
	return pin, nil
}

// hostListed reports whether a known_hosts line's first field names the host:
// as host, as [host]:port, in a list, or hashed (|1|salt|hash).
func hostListed(field, host string, port uint16) bool {
	if host == "" {
		return true
	}
	candidates := []string{host, hostPort(host, port)}
	if salted, ok := strings.CutPrefix(field, "|1|"); ok {
		salt64, hash64, _ := strings.Cut(salted, "|")
		salt, err1 := base64.StdEncoding.DecodeString(salt64)
		hash, err2 := base64.StdEncoding.DecodeString(hash64)
		return err1 == nil && err2 == nil && slices.ContainsFunc(candidates, func(name string) bool {
			mac := hmac.New(sha1.New, salt)
			mac.Write([]byte(name))
			return hmac.Equal(mac.Sum(nil), hash)
		})
	}
	for name := range strings.SplitSeq(field, ",") {
		if slices.Contains(candidates, strings.ToLower(name)) {
			return true
		}
	}
	return false
}

// hostPort writes a host as known_hosts does.
func hostPort(host string, port uint16) string {
	if port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(int(port))
}
