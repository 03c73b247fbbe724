package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// basis is what a token's lifetime was taken from.
type basis int

const (
	// assumed: the answer has no expires_in, or none that can be read.
	assumed basis = iota
	// fromJWT: the token says it itself.
	fromJWT
	// stated: expires_in.
	stated
	// denied: expires_in is 0 or negative.
	denied
	// configured: neither the answer nor the token says it, the credential does.
	configured
)

const (
	maxLifetime     = 24 * time.Hour
	assumedLifetime = 300 * time.Second
	// minLifetime is less than any provider means. A stated life below it is
	// taken for "0": believing it would ask for a token with every request.
	minLifetime = time.Second
)

// lifetime returns how long a new token lives and how that is known: expires_in
// if it is a number, in whatever dress; else a JWT's exp minus iat, a difference
// so that no two clocks are compared; else 300 s; never more than a day.
//
// An expires_in of 0 or less means "does not expire" to some and "has expired"
// to others, so it is read like a missing one, with one difference (cache.hold):
// if it comes with the token that we already have, that one lives no longer.
// Should the token really be dead, upstream's 401 says so, and Refused sees to it.
func lifetime(expiresIn, token string) (time.Duration, basis) {
	basis := stated
	life, ok := parseSeconds(expiresIn)
	if ok && life >= minLifetime {
		return min(life, maxLifetime), basis
	}
	basis = assumed
	if ok {
		basis = denied
	}
	if life, ok := jwtLifetime(token); ok {
		if basis == assumed {
			basis = fromJWT
		}
		return min(life, maxLifetime), basis
	}
	return assumedLifetime, basis
}

// grantLifetime reads what an answer says of the refresh token's life: Keycloak calls
// it refresh_expires_in, where 0 is for ever, Microsoft and GitHub
// refresh_token_expires_in. 0 is not known.
func grantLifetime(text string) time.Duration {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !isNumber(strings.TrimSpace(text)) || seconds < 1 {
		return 0
	}
	return time.Duration(min(seconds, maxGrantLifetime.Seconds()) * float64(time.Second))
}

const maxGrantLifetime = 10 * 365 * 24 * time.Hour

// parseSeconds reads 3600, "3600", 3600.5, 3.6e3 and, since it occurs and means
// one thing only, "1h".
func parseSeconds(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if life, err := time.ParseDuration(text); err == nil && !isNumber(text) {
		return life, true
	}
	seconds, err := strconv.ParseFloat(text, 64)
	huge := errors.Is(err, strconv.ErrRange) // seconds is then an infinity
	if !isNumber(text) || (err != nil && !huge) {
		return 0, false
	}
	return secondsToDuration(seconds), true
}

// isNumber keeps out what ParseFloat takes beside numbers: "inf", "nan", hex.
func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789+-.eE") == ""
}

// secondsToDuration bounds before converting: out of range, Go's conversion
// gives any value at all.
func secondsToDuration(seconds float64) time.Duration {
	if math.IsNaN(seconds) {
		return 0
	}
	day := maxLifetime.Seconds()
	return time.Duration(max(-day, min(seconds, day)) * float64(time.Second))
}

// jwtLifetime reads exp minus iat out of a JWT, without verifying anything: it
// decides only when we ask for the next one.
func jwtLifetime(token string) (time.Duration, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return 0, false
	}
	var claims struct {
		Exp *float64 `json:"exp"`
		Iat *float64 `json:"iat"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp == nil || claims.Iat == nil {
		return 0, false
	}
	life := secondsToDuration(*claims.Exp - *claims.Iat)
	return life, life >= minLifetime
}
