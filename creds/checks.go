package creds

import (
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// fields are all that an authorization type may ask for, in the order in which
// problems are shown.
var fields = []struct {
	name  string // as in the import file
	hint  string // follows "is required by ..."
	given func(*Credential) bool
	check func(v *validator, field string)
}{
	{"username", "", func(c *Credential) bool { return c.Username != "" }, (*validator).username},
	{"password", "", func(c *Credential) bool { return !c.Password.IsZero() },
		func(v *validator, f string) { v.line(f, v.c.Password.Reveal()) }},
	{"private_key", "", func(c *Credential) bool { return !c.PrivateKey.IsZero() }, (*validator).privateKey},
	{"host_key", ": paste the server's public key as one line", func(c *Credential) bool { return len(c.HostKeys) > 0 }, (*validator).hostKey},
	{"token", "", func(c *Credential) bool { return !c.Token.IsZero() },
		func(v *validator, f string) { v.headerValue(f, v.c.Token.Reveal()) }},
	{"header_name", "", func(c *Credential) bool { return c.HeaderName != "" },
		func(v *validator, f string) { v.headerName(f, "", v.c.HeaderName) }},
	{"header_prefix", "", func(c *Credential) bool { return c.HeaderPrefix != nil }, (*validator).headerPrefix},
	{"api_key", "", func(c *Credential) bool { return !c.APIKey.IsZero() },
		func(v *validator, f string) { v.headerValue(f, v.c.APIKey.Reveal()) }},
	{"api_key_header", "", func(c *Credential) bool { return c.APIKeyHeader != "" },
		func(v *validator, f string) { v.headerName(f, "", v.c.APIKeyHeader) }},
	{"api_key_query", "", func(c *Credential) bool { return c.APIKeyQuery != "" }, (*validator).queryName},
	{"client_id", "", func(c *Credential) bool { return c.ClientID != "" },
		func(v *validator, f string) { v.line(f, v.c.ClientID) }},
	{"client_secret", "", func(c *Credential) bool { return !c.ClientSecret.IsZero() },
		func(v *validator, f string) { v.line(f, v.c.ClientSecret.Reveal()) }},
	{"access_token_url", "", func(c *Credential) bool { return c.AccessTokenURL != "" },
		func(v *validator, f string) { v.endpoint(f, v.c.AccessTokenURL) }},
	{"authorization_url", "", func(c *Credential) bool { return c.AuthorizationURL != "" },
		func(v *validator, f string) { v.endpoint(f, v.c.AuthorizationURL) }},
	{"scope", "", func(c *Credential) bool { return c.Scope != "" },
		func(v *validator, f string) { v.line(f, v.c.Scope) }},
	{"auth_style", "", func(c *Credential) bool { return c.AuthStyle != "" }, (*validator).authStyle},
	{"param", "", func(c *Credential) bool { return len(c.Params) > 0 },
		func(v *validator, f string) { v.params(f, v.c.Params) }},
	{"authorization_param", "", func(c *Credential) bool { return len(c.AuthorizationParams) > 0 },
		func(v *validator, f string) { v.params(f, v.c.AuthorizationParams) }},
	{"token_lifetime", "", func(c *Credential) bool { return c.TokenLifetime != 0 }, (*validator).tokenLifetime},
	{"refresh_token_lifetime", "", func(c *Credential) bool { return c.RefreshTokenLifetime != 0 }, (*validator).refreshTokenLifetime},
	{"share", "", func(c *Credential) bool { return c.Unshared }, nil},
	{"login_template", ": the request that returns a token", func(c *Credential) bool { return !c.LoginTemplate.IsZero() }, (*validator).loginTemplate},
	{"header", "", func(c *Credential) bool { return len(c.Headers) > 0 }, (*validator).headers},
}

// maxLine is longer than any token known, and short enough for the limit that
// servers set to a request's head.
const maxLine = 16 << 10

// line refuses what would end a header line or a form field early. The value is
// never repeated: it may be a secret.
func (v *validator) line(field, value string) { v.namedLine(field, "", value) }

func (v *validator) namedLine(field, name, value string) bool {
	switch {
	case len(value) > maxLine:
		v.problem(field, "%sis longer than %d characters", name, maxLine)
	case strings.TrimRight(value, "\r\n") != value && !strings.ContainsAny(strings.TrimRight(value, "\r\n"), "\r\n\x00"):
		v.problem(field, "%sends in a line break: remove it", name)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		v.problem(field, "%sholds a line break or another control character: remove it", name)
	default:
		return true
	}
	return false
}

// headerValue is for what stands in a header bare, where blanks at the ends
// would be lost on the way.
func (v *validator) headerValue(field, value string) { v.namedHeaderValue(field, "", value) }

func (v *validator) namedHeaderValue(field, name, value string) {
	if v.namedLine(field, name, value) && strings.TrimSpace(value) != value {
		v.problem(field, "%sbegins or ends with a space: remove it", name)
	}
}

func (v *validator) username(field string) {
	v.line(field, v.c.Username)
	if v.c.Protocol != SFTP && v.c.Authorization == Basic && strings.IndexByte(v.c.Username, ':') >= 0 {
		v.problem(field, "holds a colon, which ends the user name in a Basic header (RFC 7617): remove it")
	}
}

func (v *validator) headerPrefix(field string) {
	switch p := *v.c.HeaderPrefix; {
	case strings.TrimSpace(p) != p:
		v.problem(field, "begins or ends with a space: remove it; the space before the token is added, unless the prefix ends in =")
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r > '~' }):
		v.problem(field, "holds a character that a header must not have: use plain ASCII, such as Bearer")
	}
}

func (v *validator) authStyle(field string) {
	if s := v.c.AuthStyle; s != AuthStyleHeader && s != AuthStyleBody {
		v.problem(field, "must be header or body")
	}
}

// endpoint checks a URL that secrets are sent to, or a person's browser is.
func (v *validator) endpoint(field, rawURL string) {
	if !strings.HasPrefix(strings.ToLower(rawURL), "https://") {
		v.problem(field, "must begin with https://")
		return
	}
	u, err := splitURL(rawURL)
	if err == nil {
		if strings.IndexByte(u.authority, '@') >= 0 {
			v.problem(field, "holds a user name or password before an @: remove it; they have fields of their own")
			return
		}
		_, err = u.target()
	}
	if err != nil {
		v.problem(field, "%s", err)
	}
	if strings.ContainsFunc(u.query, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		v.problem(field, "holds a space or a control character in its query: percent-encode it")
	}
	if u.hasFragment {
		v.problem(field, "has a fragment (from the # on): remove it")
	}
}

// ownParams are set by pillion in a token request, each from a field of its own
// or by the protocol.
var ownParams = []string{"grant_type", "client_id", "client_secret", "scope", "code", "redirect_uri", "refresh_token", "username", "password",
	"code_verifier", "code_challenge", "code_challenge_method", "state", "response_type"}

func (v *validator) params(field string, params map[string]string) {
	for _, name := range sortedKeys(params) {
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
			v.problem(field, "has a parameter whose name is empty or holds a space, a control character or a letter outside ASCII")
		case slices.Contains(ownParams, name):
			v.problem(field, "%s: is set by pillion itself: remove it", name)
		default:
			v.namedLine(field, name+": ", params[name])
		}
	}
}

func (v *validator) tokenLifetime(field string) {
	if life := v.c.TokenLifetime; life < 10*time.Second || life > maxTokenLifetime || life%time.Second != 0 {
		v.problem(field, "must be between 10s and 24h, in whole seconds")
	}
}

const (
	maxTokenLifetime        = 24 * time.Hour
	maxRefreshTokenLifetime = 10 * 365 * 24 * time.Hour
)

func (v *validator) refreshTokenLifetime(field string) {
	if life := v.c.RefreshTokenLifetime; life < time.Hour || life > maxRefreshTokenLifetime || life%time.Second != 0 {
		v.problem(field, "must be between 1h and 87600h (ten years), in whole seconds; 100 days are 2400h")
	}
}

func (v *validator) loginTemplate(field string) {
	template, err := ParseLoginTemplate(v.c.LoginTemplate)
	if err != nil {
		v.problem(field, "%s", err)
		return
	}
	for _, name := range sortedKeys(template.Header) {
		v.headerName(field, headerLabel(name), name)
	}
	for _, problem := range template.missing(v.c, v.stored) {
		v.problem(field, "%s", problem)
	}
}

func (v *validator) queryName(field string) {
	for _, r := range v.c.APIKeyQuery {
		if r > '~' || !isLowerAlnum(byte(r)) && !(r >= 'A' && r <= 'Z') && !strings.ContainsRune("-._~", r) {
			v.problem(field, "must have letters, digits and - . _ ~ only")
			return
		}
	}
}

// framing are header fields that say where a message ends, who is spoken to or
// what belongs to one connection (RFC 9110 section 7.6.1): set by hand they
// would let one request be read as two.
var framing = []string{"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "expect", "http2-settings"}

func (v *validator) headerName(field, prefix, name string) bool {
	lower := strings.ToLower(name)
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isTokenChar(r) }):
		v.problem(field, "%shas letters, digits and hyphens only, such as X-Api-Key", prefix)
	case slices.Contains(framing, lower) || strings.HasPrefix(lower, "proxy-"):
		v.problem(field, "%sis a header that belongs to the connection, not to the request: it cannot be set", prefix)
	default:
		return true
	}
	return false
}

func isTokenChar(r rune) bool {
	return r < 0x80 && (isLowerAlnum(byte(r)) || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}

func (v *validator) headers(field string) {
	taken := map[string]string{}
	switch v.c.Authorization {
	case APIKey:
		taken[strings.ToLower(v.c.APIKeyHeader)] = "carries the API key"
	case None:
	default:
		taken[strings.ToLower(v.c.TokenHeader())] = "is set by authorization type " + string(v.c.Authorization)
	}
	for _, h := range v.c.Headers {
		lower := strings.ToLower(h.Name)
		if !v.headerName(field, headerLabel(h.Name), h.Name) {
			continue
		}
		if why, ok := taken[lower]; ok {
			v.problem(field, "%s: %s: remove it", h.Name, why)
			continue
		}
		taken[lower] = "stands there twice"
		switch {
		case !h.Value.IsZero():
			v.namedHeaderValue(field, h.Name+": ", h.Value.Reveal())
		case !slices.Contains(v.stored, headerSecret+h.Name):
			v.problem(field, "%s: has no value", h.Name)
		}
	}
}

// headerLabel names a header in a problem, unless it is not fit to be shown.
func headerLabel(name string) string {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !isTokenChar(r) }) {
		return "a name of a header "
	}
	return name + ": "
}

func (v *validator) privateKey(field string) {
	_, err := ssh.ParsePrivateKey([]byte(v.c.PrivateKey.Reveal()))
	if locked := new(ssh.PassphraseMissingError); errors.As(err, &locked) {
		v.problem(field, "is locked with a passphrase: store it without one (ssh-keygen -p), the store encrypts it")
	} else if err != nil {
		v.problem(field, "is not a private key in the OpenSSH or PEM form: paste the whole file, from the BEGIN to the END line")
	}
}

func (v *validator) hostKey(field string) {
	var host string
	var port uint16
	if instance, err := v.c.Instance(); err == nil {
		host, port = instance.Host, instance.Port
	}
	if _, err := ParseHostKeys(v.c.HostKeys, host, port); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			v.problem(field, "%s", line)
		}
	}
}
