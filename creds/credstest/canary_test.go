package credstest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestCanariesFindsWhatWasPlanted(t *testing.T) {
	secret := Canary("refresh-token").Reveal()
	forms := map[string]string{
		"plain":      secret,
		"upper case": strings.ToUpper(secret),
		"url":        url.QueryEscape("a b" + secret + "&"),
		"hex":        hex.EncodeToString([]byte("user:" + secret)),
		"upper hex":  strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"quoted":     fmt.Sprintf("%q", `"`+secret),
	}
	for n := range 7 {
		before := strings.Repeat("ü", n)[:n]
		forms[fmt.Sprintf("base64 after %d bytes", n)] = "Basic " + base64.StdEncoding.EncodeToString([]byte(before+secret+":x")) + "\r\n"
		forms[fmt.Sprintf("url base64 after %d bytes", n)] = base64.RawURLEncoding.EncodeToString([]byte(before + secret))
	}
	for name, form := range forms {
		found := Canaries([]byte("some text " + form + " and more"))
		if len(found) != 1 || !strings.HasPrefix(found[0], "refresh-token ") {
			t.Errorf("%s: found %q, want one refresh-token", name, found)
		}
	}
}

func TestCanariesFindsNothingElse(t *testing.T) {
	clean := []byte("pillion canary, Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:password")))
	FindCanaries(t, clean)
	for _, found := range Canaries([]byte(Canary("a").Reveal() + Canary("b").Reveal())) {
		FindCanaries(t, []byte(found))
	}
}

func TestCanariesAreUnique(t *testing.T) {
	if Canary("x").Equal(Canary("x")) {
		t.Error("two canaries are equal")
	}
	if n := len(Canaries([]byte(Canary("a").Reveal() + " " + Canary("b").Reveal()))); n != 2 {
		t.Errorf("found %d of 2", n)
	}
}
