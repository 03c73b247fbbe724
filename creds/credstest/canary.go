package credstest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"pillion/creds"
)

// marker begins every canary. It is lower-case letters only: URL, JSON, HTML and
// shell escaping leave them alone, and their base64 has neither + nor /.
const marker = "pillioncanary"

// Canary returns a secret to plant in a test, such as
// "pillioncanary-refresh-token-0f3a9c5512b0d7e4", different at each call. kind
// says what was leaked when it is found: lower-case letters, digits and "-".
func Canary(kind string) creds.Secret {
	if strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || kind == "" {
		panic(fmt.Sprintf("credstest.Canary: kind %q has other characters than a-z, 0-9 and -", kind))
	}
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	return creds.NewSecret(fmt.Sprintf("%s-%s-%x", marker, kind, random))
}

// FindCanaries fails the test for each planted secret in data, which is what must
// not have one: a log, a page, a dump of memory. See Canaries for what it finds.
func FindCanaries(t testing.TB, data []byte) {
	t.Helper()
	for _, found := range Canaries(data) {
		t.Errorf("a planted secret has leaked: %s", found)
	}
}

// Canaries says which planted secrets data holds, plain in either case, in
// base64 (also amid other text, as in Basic authorization), or in hex. A test
// that searches should also search where it must find one, to know that it can.
func Canaries(data []byte) []string {
	var found []string
	folded := bytes.ToLower(data)
	for at := range indexes(folded, marker) {
		found = append(found, fmt.Sprintf("%s at byte %d", kindAt(folded[at:]), at))
	}
	digits := hex.EncodeToString([]byte(marker))
	for at := range indexes(folded, digits) {
		found = append(found, fmt.Sprintf("%s in hex at byte %d", kindAt(decodeHex(folded[at:])), at))
	}
	for skip, form := range base64Forms() {
		for at := range indexes(data, form) {
			found = append(found, fmt.Sprintf("%s in base64 at byte %d", kindAt(decodeBase64(data[at:], skip)), at))
		}
	}
	return found
}

// base64Forms returns how the marker looks with 0, 1 and 2 bytes before it in its
// group of three, without the characters that depend on its neighbours.
func base64Forms() [3]string {
	var forms [3]string
	for skip := range forms {
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", skip) + marker))
		first := (skip*8 + 5) / 6
		last := (skip + len(marker)) * 8 / 6
		forms[skip] = text[first:last]
	}
	return forms
}

func indexes(data []byte, form string) func(func(int) bool) {
	return func(yield func(int) bool) {
		for from := 0; ; {
			at := bytes.Index(data[from:], []byte(form))
			if at < 0 || !yield(from+at) {
				return
			}
			from += at + len(form)
		}
	}
}

// kindAt names the canary that text begins with, without its random end: what is
// printed must not be found by the next search.
func kindAt(text []byte) string {
	rest, ok := bytes.CutPrefix(text, []byte(marker+"-"))
	end := bytes.IndexFunc(rest, func(r rune) bool {
		return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	if end >= 0 {
		rest = rest[:end]
	}
	if end = bytes.Index(rest, []byte(marker)); end >= 0 {
		rest = rest[:end]
	}
	last := bytes.LastIndexByte(rest, '-')
	if !ok || last < 0 {
		return "a canary"
	}
	return string(rest[:last])
}

func decodeHex(digits []byte) []byte {
	digits = digits[:min(len(digits), 200)]
	text := make([]byte, len(digits)/2)
	n, _ := hex.Decode(text, digits[:len(text)*2])
	return text[:n]
}

// decodeBase64 decodes what follows a form that was found with skip bytes before
// it in its group, which restores the group's lost first character as zero bits.
func decodeBase64(data []byte, skip int) []byte {
	lost := (skip*8 + 5) / 6
	text := strings.NewReplacer("-", "+", "_", "/").Replace(string(data[:min(len(data), 200)]))
	end := strings.IndexFunc(text, func(r rune) bool {
		return r != '+' && r != '/' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if end >= 0 {
		text = text[:end]
	}
	text = strings.Repeat("A", lost) + text
	plain, _ := base64.RawStdEncoding.DecodeString(text[:len(text)/4*4])
	if len(plain) < skip {
		return nil
	}
	plain = plain[skip:]
	if skip > 0 && len(plain) > 0 {
		plain[0] = marker[0] // its upper bits stood in a lost character
	}
	return plain
}
