package console

import (
	"slices"
	"strings"

	"pillion/creds"
)

// use is a type of authorization over a protocol, as one word for HTML: the type's
// own name over HTTPS, "sftp" over SFTP.
func use(p creds.Protocol, t creds.AuthorizationType) string {
	if p == creds.SFTP {
		return "sftp"
	}
	return string(t)
}

// field is one field of the form: what people read, and where its value belongs. Its
// name is that of the import file, which problems are told by.
type field struct {
	name, label string
	hint        string
	input       string   // text, url, area, secret, secret-area, choice
	uses        string   // which it belongs to, separated by spaces
	optional    string   // of these it may be left empty
	options     []option // of a choice
	more        bool     // stands under "More settings"

	get func(*creds.Credential) string
	set func(*creds.Credential, string) string // returns what is wrong, or ""
	// secret is the place of a secret; get and set are nil then.
	secret func(*creds.Credential) *creds.Secret
}

type option struct{ Value, Label string }

func (f field) belongs(u string) bool { return slices.Contains(strings.Fields(f.uses), u) }

func (f field) optionalFor(u string) bool { return slices.Contains(strings.Fields(f.optional), u) }

const (
	oauth    = "oauth2-client-credentials oauth2-authorization-code oauth2-password"
	fetched  = oauth + " login"
	https    = "none basic bearer api-key " + fetched
	anything = https + " sftp"
)

// fields are the fields of the form, in its order, but for name, protocol, instance
// URL, type and extra headers, which have forms of their own.
func fields() []field {
	return []field{
		{name: "host_key", label: "SFTP server fingerprint", input: "area", uses: "sftp",
			hint: "The server’s public key or its SHA256 fingerprint, one a line. Nothing is sent to a server that shows another one.",
			get:  func(c *creds.Credential) string { return strings.Join(c.HostKeys, "\n") },
			set:  func(c *creds.Credential, v string) string { c.HostKeys = lines(v); return "" }},
		text("username", "Username", "basic oauth2-password login sftp", "", func(c *creds.Credential) *string { return &c.Username }),
		{name: "password", label: "Password", input: "secret", uses: "basic oauth2-password login sftp", optional: "login sftp",
			secret: func(c *creds.Credential) *creds.Secret { return &c.Password }},
		{name: "private_key", label: "Private key", input: "secret-area", uses: "sftp", optional: "sftp",
			hint:   "Instead of a password: the whole file, from the BEGIN to the END line, without a passphrase.",
			secret: func(c *creds.Credential) *creds.Secret { return &c.PrivateKey }},
		{name: "token", label: "Token", input: "secret", uses: "bearer",
			secret: func(c *creds.Credential) *creds.Secret { return &c.Token }},
		{name: "api_key", label: "API key", input: "secret", uses: "api-key",
			secret: func(c *creds.Credential) *creds.Secret { return &c.APIKey }},
		hinted(text("api_key_header", "Header of the key", "api-key", "api-key", func(c *creds.Credential) *string { return &c.APIKeyHeader }),
			"Such as X-Api-Key. Fill in this or the next field, not both."),
		hinted(text("api_key_query", "Query parameter of the key", "api-key", "api-key", func(c *creds.Credential) *string { return &c.APIKeyQuery }),
			"Ends up in the tool’s access log: prefer a header."),
		text("client_id", "Client ID", oauth, "", func(c *creds.Credential) *string { return &c.ClientID }),
		{name: "client_secret", label: "Client secret", input: "secret", uses: oauth, optional: "oauth2-password",
			secret: func(c *creds.Credential) *creds.Secret { return &c.ClientSecret }},
		address("access_token_url", "Access token URL", fetched, func(c *creds.Credential) *string { return &c.AccessTokenURL }),
		address("authorization_url", "Authorization code URL", "oauth2-authorization-code", func(c *creds.Credential) *string { return &c.AuthorizationURL }),
		hinted(text("scope", "Scope", oauth, oauth, func(c *creds.Credential) *string { return &c.Scope }),
			"Separated by spaces. Many providers renew a consent only with offline_access."),
		{name: "login_template", label: "Login call", input: "secret-area", uses: "login",
			hint:   `The request that returns a token, as JSON: {"json": {"user": "{{username}}", "pass": "{{password}}"}, "token": "/token"}`,
			secret: func(c *creds.Credential) *creds.Secret { return &c.LoginTemplate }},
		{name: "header_prefix", label: "Header prefix", input: "text", uses: "bearer " + fetched, optional: "bearer " + fetched,
			hint: "The word sent before the token. After one that ends in = no space follows.",
			get:  prefixOf, set: setPrefix},

		more(hinted(text("header_name", "Header", "bearer "+fetched, "bearer "+fetched, func(c *creds.Credential) *string { return &c.HeaderName }),
			"What carries the token. Empty: Authorization.")),
		more(field{name: "auth_style", label: "Client ID and secret go", input: "choice", uses: oauth,
			options: []option{{"header", "in the Authorization header"}, {"body", "among the form fields"}},
			hint:    "A provider that answers invalid_client to right values wants the other one.",
			get: func(c *creds.Credential) string {
				if c.AuthStyle == "" {
					return string(creds.AuthStyleHeader)
				}
				return string(c.AuthStyle)
			},
			set: func(c *creds.Credential, v string) string {
				if c.AuthStyle = creds.AuthStyle(v); c.AuthStyle == creds.AuthStyleHeader {
					c.AuthStyle = ""
				}
				return ""
			}}),
		more(field{name: "param", label: "Parameters of the token request", input: "area", uses: fetched, optional: fetched,
			hint: "NAME=VALUE, one a line.",
			get:  func(c *creds.Credential) string { return pairLines(c.Params) },
			set:  func(c *creds.Credential, v string) (problem string) { c.Params, problem = pairs(v); return problem }}),
		more(field{name: "authorization_param", label: "Parameters of the authorization code URL", input: "area",
			uses: "oauth2-authorization-code", optional: "oauth2-authorization-code", hint: "NAME=VALUE, one a line.",
			get: func(c *creds.Credential) string { return pairLines(c.AuthorizationParams) },
			set: func(c *creds.Credential, v string) (problem string) {
				c.AuthorizationParams, problem = pairs(v)
				return problem
			}}),
		more(field{name: "token_lifetime", label: "Life of a token", input: "text", uses: fetched, optional: fetched,
			hint: "Such as 30m or 2h, for a provider whose answers do not say it.",
			get:  func(c *creds.Credential) string { return lifetime(c.TokenLifetime) },
			set:  func(c *creds.Credential, v string) string { return setLifetime(&c.TokenLifetime, v) }}),
		more(field{name: "refresh_token_lifetime", label: "Life of a consent", input: "text", uses: "oauth2-authorization-code", optional: "oauth2-authorization-code",
			hint: "Such as 2400h (100 days), for a provider that does not say it: pillion warns two weeks before.",
			get:  func(c *creds.Credential) string { return lifetime(c.RefreshTokenLifetime) },
			set:  func(c *creds.Credential, v string) string { return setLifetime(&c.RefreshTokenLifetime, v) }}),
		more(field{name: "share", label: "Shared token", input: "choice", uses: "oauth2-client-credentials",
			options: []option{{"true", "one for all processes"}, {"false", "one for each process"}},
			get: func(c *creds.Credential) string {
				if c.Unshared {
					return "false"
				}
				return "true"
			},
			set: func(c *creds.Credential, v string) string { c.Unshared = v == "false"; return "" }}),
	}
}

func text(name, label, uses, optional string, at func(*creds.Credential) *string) field {
	return field{name: name, label: label, input: "text", uses: uses, optional: optional,
		get: func(c *creds.Credential) string { return *at(c) },
		set: func(c *creds.Credential, v string) string { *at(c) = strings.TrimSpace(v); return "" }}
}

func address(name, label, uses string, at func(*creds.Credential) *string) field {
	f := text(name, label, uses, "", at)
	f.input = "url"
	return f
}

func hinted(f field, hint string) field { f.hint = hint; return f }

func more(f field) field { f.more = true; return f }

// fieldNamed returns the field of a name; ok is false for those with a form of
// their own.
func fieldNamed(name string) (f field, ok bool) {
	for _, f := range fields() {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}
