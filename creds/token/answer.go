package token

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
)

// answer is what a token endpoint gave.
type answer struct {
	token    creds.Secret
	refresh  creds.Secret // the next refresh token; zero when the answer brings none
	kind     string       // token_type, if it is a word; for people to read only
	lifetime time.Duration
	basis    basis
	// grantLife is that of the refresh token; 0 when the answer does not say it.
	grantLife time.Duration
}

// maxToken is more than any server takes as a header field.
const maxToken = 32 << 10

// fields are the members of an answer that matter, as text.
type fields struct {
	token, refresh, kind, expiresIn string
	refreshExpiresIn                string
	failed                          bool // there is an error member
	code                            string
}

// readAnswer makes a token, or a *failure, of a 2xx answer's body. The content
// type is not asked: too many endpoints send JSON as text/plain or text/html.
func readAnswer(status int, body []byte) (answer, error) {
	f, detail := readFields(body)
	switch {
	case detail != "":
		return answer{}, badResponse(status, detail)
	case f.failed:
		return answer{}, classifyAnswer(status, f.code)
	}
	return newAnswer(status, f)
}

// newAnswer refuses a token that no request could carry. The refresh token that
// came with it is kept all the same: the one that it replaces is spent.
func newAnswer(status int, f fields) (answer, error) {
	detail := ""
	switch {
	case f.token == "":
		detail = "the answer holds no access_token"
	case len(f.token) > maxToken:
		detail = "the token is longer than a header field can be"
	case !isToken(f.token):
		detail = "the token holds characters that no header field may carry"
	}
	if detail != "" {
		failed := badResponse(status, detail)
		failed.refresh = creds.NewSecret(f.refresh)
		return answer{}, failed
	}
	life, basis := lifetime(f.expiresIn, f.token)
	return answer{
		token: creds.NewSecret(f.token), refresh: creds.NewSecret(f.refresh), kind: tokenType(f.kind), lifetime: life, basis: basis,
		grantLife: grantLifetime(f.refreshExpiresIn),
	}, nil
}

// withLifetime puts what the credential says of a token's life in the place of a guess.
func withLifetime(c *creds.Credential, got answer) answer {
	if got.basis == assumed && c.TokenLifetime > 0 {
		got.lifetime, got.basis = min(c.TokenLifetime, maxLifetime), configured
	}
	return got
}

// readCode returns the error code of a refusal's body, in either form.
func readCode(body []byte) string {
	f, _ := readFields(body)
	return f.code
}

// readFields tells by its first bytes what a body is. detail says why it is none
// of them.
func readFields(body []byte) (f fields, detail string) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(body) == 0:
		return f, "the answer is empty"
	case body[0] == '{':
		return readJSON(body)
	case body[0] == '<':
		return f, "the answer is a web page: the access token URL is probably not the token endpoint"
	case isJWT(strings.Trim(string(body), `"`)):
		return fields{token: strings.Trim(string(body), `"`)}, ""
	}
	values, err := url.ParseQuery(string(body))
	if err != nil || !(values.Has("access_token") || values.Has("error")) {
		return f, "the answer is neither JSON, nor a form, nor a JWT"
	}
	return fields{
		token:     values.Get("access_token"),
		refresh:   values.Get("refresh_token"),
		kind:      values.Get("token_type"),
		expiresIn: values.Get("expires_in"),

		refreshExpiresIn: cmp.Or(values.Get("refresh_expires_in"), values.Get("refresh_token_expires_in")),

		failed: values.Get("error") != "",
		code:   values.Get("error"),
	}, ""
}

// readJSON decodes into a map, since a struct would take ACCESS_TOKEN as well,
// and one odd member must not cost the others.
func readJSON(body []byte) (f fields, detail string) {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return f, "the answer begins like JSON and is none"
	}
	f.token = jsonText(members["access_token"])
	f.refresh = jsonText(members["refresh_token"])
	f.kind = jsonText(members["token_type"])
	f.expiresIn = jsonText(members["expires_in"])
	f.refreshExpiresIn = cmp.Or(jsonText(members["refresh_expires_in"]), jsonText(members["refresh_token_expires_in"]))
	switch raw := string(members["error"]); raw {
	case "", "null", `""`, "false":
	default:
		f.failed, f.code = true, jsonText(members["error"])
	}
	return f, ""
}

// jsonText returns a string's content or a number as written, and "" for all else.
func jsonText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	return ""
}

// isToken allows what RFC 6749 does: visible ASCII.
func isToken(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return false
		}
	}
	return token != ""
}

// isJWT reports whether text is three dotted parts of base64url, the first of
// them a JSON object.
func isJWT(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return false
	}
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.DecodeString(part); err != nil {
			return false
		}
	}
	header, _ := base64.RawURLEncoding.DecodeString(parts[0])
	var object map[string]json.RawMessage
	return json.Unmarshal(header, &object) == nil
}

// tokenType keeps a word such as Bearer or DPoP.
func tokenType(kind string) string {
	for i := range len(kind) {
		b := kind[i] | 0x20
		if (b < 'a' || b > 'z') && kind[i] != '-' && kind[i] != '_' {
			return ""
		}
	}
	if len(kind) > 16 {
		return ""
	}
	return kind
}
