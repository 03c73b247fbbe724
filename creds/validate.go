package creds

import (
	"fmt"
	"slices"
	"strings"
)

// A kind is what one authorization type asks for. The fields bear the names of
// the import file; checks.go knows how each is read and checked.
type kind struct {
	protocols []Protocol
	required  []string
	optional  []string
}

// kinds is the table of authorization types. basic over sftp is sftpKind.
var kinds = map[AuthorizationType]kind{
	None:   {[]Protocol{HTTPS}, nil, []string{"header"}},
	Basic:  {[]Protocol{HTTPS, SFTP}, []string{"username", "password"}, []string{"header"}},
	Bearer: {[]Protocol{HTTPS}, []string{"token"}, []string{"header_name", "header_prefix", "header"}},
	APIKey: {[]Protocol{HTTPS}, []string{"api_key"}, []string{"api_key_header", "api_key_query", "header"}},
	ClientCredentials: {[]Protocol{HTTPS}, []string{"client_id", "client_secret", "access_token_url"},
		[]string{"scope", "auth_style", "param", "token_lifetime", "share", "header_name", "header_prefix", "header"}},
	AuthorizationCode: {[]Protocol{HTTPS}, []string{"client_id", "client_secret", "access_token_url", "authorization_url"},
		[]string{"scope", "auth_style", "param", "authorization_param", "token_lifetime", "refresh_token_lifetime", "header_name", "header_prefix", "header"}},
	PasswordGrant: {[]Protocol{HTTPS}, []string{"username", "password", "client_id", "access_token_url"},
		[]string{"client_secret", "scope", "auth_style", "param", "token_lifetime", "header_name", "header_prefix", "header"}},
	Login: {[]Protocol{HTTPS}, []string{"access_token_url", "login_template"},
		[]string{"username", "password", "param", "token_lifetime", "header_name", "header_prefix", "header"}},
}

var sftpKind = kind{[]Protocol{SFTP}, []string{"username", "host_key"}, []string{"password", "private_key"}}

// AuthorizationTypes returns the types that a protocol knows, the plainest first.
func AuthorizationTypes(p Protocol) []AuthorizationType {
	all := []AuthorizationType{None, Basic, Bearer, APIKey, ClientCredentials, AuthorizationCode, PasswordGrant, Login}
	return slices.DeleteFunc(all, func(t AuthorizationType) bool { return !slices.Contains(kinds[t].protocols, p) })
}

// Validate returns nil or an *InvalidError with everything that is wrong, field
// by field. It changes nothing.
func (c *Credential) Validate() error { return c.ValidateKeeping() }

// ValidateKeeping is Validate for a credential whose secrets of these names
// (as LoadPublic returns them) are kept as they are stored, without anybody reading them:
// they count as given.
func (c *Credential) ValidateKeeping(stored ...string) error {
	v := validator{c: c, stored: stored}
	v.name()
	v.protocol()
	v.url()
	v.kind()
	if len(v.problems) == 0 {
		return nil
	}
	return &InvalidError{Name: c.Name, Fields: v.problems}
}

type validator struct {
	c        *Credential
	stored   []string
	problems []FieldError
}

func (v *validator) problem(field, format string, args ...any) {
	v.problems = append(v.problems, FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
}

func (v *validator) name() {
	switch name := v.c.Name; {
	case name == "":
		v.problem("name", "is required")
	case !validName(name):
		v.problem("name", "must have 1 to 63 characters, a to z, 0 to 9 and hyphens, with no hyphen at either end")
	}
}

func validName(name string) bool {
	return name != "" && checkLabel(name) == nil && strings.IndexByte(name, '_') < 0
}

func (v *validator) protocol() {
	switch v.c.Protocol {
	case HTTPS, SFTP:
	case "":
		v.problem("protocol", "is required: https or sftp")
	default:
		v.problem("protocol", "must be https or sftp")
	}
}

func (v *validator) url() {
	c := v.c
	if c.URL == "" {
		v.problem("url", "is required, for example %s", exampleURL(c.Protocol))
		return
	}
	if p := ProtocolOf(c.URL); (c.Protocol == HTTPS || c.Protocol == SFTP) && p != c.Protocol {
		v.problem("url", "%s", wrongPrefix(c.URL, c.Protocol))
		return
	}
	u, err := splitURL(c.URL)
	if err != nil {
		v.problem("url", "%s", err)
		return
	}
	if u.hasQuery {
		v.problem("url", "has a query (from the ? on): remove it; the instance URL ends before it")
	}
	if u.hasFragment {
		v.problem("url", "has a fragment (from the # on): remove it; the instance URL ends before it")
	}
	if c.Protocol == SFTP && !hasPort(u.authority) {
		v.problem("url", "the prefix and the port need to be included: sftp://host:22/")
		return
	}
	if strings.IndexByte(u.authority, '@') >= 0 {
		v.problem("url", "holds a user name or password before an @: remove it; they have fields of their own")
		return
	}
	plain := *c
	plain.URL = u.scheme + "://" + u.authority + u.path // so that each problem is told once
	if _, err := plain.Instance(); err != nil && (c.Protocol == HTTPS || c.Protocol == SFTP) {
		v.problem("url", "%s", err)
	}
}

func exampleURL(p Protocol) string {
	if p == SFTP {
		return "sftp://host:22/"
	}
	return "https://example.service-now.com/"
}

func wrongPrefix(rawURL string, p Protocol) string {
	switch {
	case p == SFTP:
		return "the prefix and the port need to be included: sftp://host:22/"
	case strings.HasPrefix(strings.ToLower(rawURL), "http://"):
		return "begins with http://: a credential is sent over https only, write https://"
	}
	return "must begin with https://, for example " + exampleURL(p)
}

func hasPort(authority string) bool {
	return strings.LastIndexByte(authority, ':') > strings.LastIndexByte(authority, ']')
}

// kind checks the fields against the table of kinds.
func (v *validator) kind() {
	c := v.c
	k, known := kinds[c.Authorization]
	switch {
	case c.Authorization == "":
		v.problem("authorization", "is required: one of %s", listTypes(c.Protocol))
		return
	case !known:
		v.problem("authorization", "is not a known type: use one of %s", listTypes(c.Protocol))
		return
	case (c.Protocol == HTTPS || c.Protocol == SFTP) && !slices.Contains(k.protocols, c.Protocol):
		v.problem("authorization", "%s does not go with protocol %s: use one of %s", c.Authorization, c.Protocol, listTypes(c.Protocol))
		return
	}
	if c.Protocol == SFTP {
		k = sftpKind
	}
	for _, f := range fields {
		given := f.given(c) || slices.Contains(v.stored, f.name)
		switch {
		case slices.Contains(k.required, f.name) && !given:
			v.problem(f.name, "is required by authorization type %s%s", c.Authorization, f.hint)
		case slices.Contains(k.required, f.name), slices.Contains(k.optional, f.name):
			if f.given(c) && f.check != nil {
				f.check(v, f.name)
			}
		case f.given(c):
			v.problem(f.name, "is not used by authorization type %s%s; remove it", c.Authorization, overProtocol(c))
		}
	}
	v.together()
}

func overProtocol(c *Credential) string {
	if c.Protocol == SFTP {
		return " over sftp"
	}
	return ""
}

// together checks what only several fields show.
func (v *validator) together() {
	c := v.c
	if c.Authorization == APIKey && (c.APIKeyHeader == "") == (c.APIKeyQuery == "") {
		v.problem("api_key_header", "name either a header (api_key_header) or a query parameter (api_key_query) for the key, and only one of them")
	}
	if c.Protocol == SFTP && c.Password.IsZero() && c.PrivateKey.IsZero() &&
		!slices.Contains(v.stored, "password") && !slices.Contains(v.stored, "private_key") {
		v.problem("password", "is required, or a private_key instead")
	}
}

func listTypes(p Protocol) string {
	if p != SFTP {
		p = HTTPS
	}
	return joinTypes(AuthorizationTypes(p))
}
