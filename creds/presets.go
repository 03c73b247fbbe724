package creds

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Preset is what pillion knows of a tool: from the instance URL it makes the URLs
// and settings of each type of authorization that the tool has.
type Preset struct {
	Name string // as in credential set --preset
	Tool string // for people

	// at returns what holds for an instance URL; the type to be recommended first.
	at func(u presetURL) ([]variant, error)
}

// variant is one type of authorization of a tool.
type variant struct {
	Credential        // what it sets; the URLs may hold {base} and {url}, of the headers the names count
	note       string // for who sets it up, in words that fit the page and the command line
}

// Left is what a preset leaves to whoever sets a credential up.
type Left struct {
	Note    string   // in words; may be ""
	Headers []string // names of the extra headers that the tool asks for
}

// presetURL is an instance URL in the parts that presets use.
type presetURL struct {
	base string // https://host[:port]
	url  string // with the path prefix, without a slash at its end
	host string
}

// Presets returns all presets, sorted by name.
func Presets() []Preset {
	return []Preset{
		{"4me", "4me", preset4me},
		{"bmc", "BMC Helix", always(variant{note: "the REST API often has a host of its own, such as NAME-restapi.onbmc.com: that is the instance URL", Credential: Credential{
			Authorization: Login, AccessTokenURL: "{base}/api/jwt/login", HeaderPrefix: text("AR-JWT"), TokenLifetime: time.Hour,
			LoginTemplate: NewSecret(`{"form": {"username": "{{username}}", "password": "{{password}}"}}`),
		}})},
		{"cherwell", "Cherwell", always(variant{note: "each login takes a licence seat until it ends", Credential: Credential{
			Authorization: PasswordGrant, AccessTokenURL: "{base}/CherwellAPI/token", AuthStyle: AuthStyleBody, TokenLifetime: 20 * time.Minute,
		}})},
		{"freshservice", "Freshservice", always(
			variant{note: "the token is KEY:X in Base64, with the API key for KEY", Credential: Credential{Authorization: Bearer, HeaderPrefix: text("Basic")}},
			variant{note: "access token URL and authorization code URL are those of your organization: https://ORG.myfreshworks.com/org/oauth/v2/token and https://ORG.myfreshworks.com/org/oauth/v2/authorize",
				Credential: Credential{Authorization: AuthorizationCode, AuthStyle: AuthStyleHeader, TokenLifetime: 30 * time.Minute}},
		)},
		{"ivanti", "Ivanti", always(
			variant{note: "the token is an API key, which Ivanti makes under Configure, Security Controls, API Keys", Credential: Credential{Authorization: Bearer, HeaderPrefix: text("rest_api_key=")}},
			variant{note: "the token request also needs a parameter role: the internal name of a role, such as role=Admin", Credential: Credential{
				Authorization: Login, AccessTokenURL: "{url}/api/rest/authentication/login", HeaderPrefix: text(""), TokenLifetime: 30 * time.Minute,
				LoginTemplate: NewSecret(`{"json": {"tenant": "{{host}}", "username": "{{username}}", "password": "{{password}}", "role": "{{param.role}}"}}`),
			}},
		)},
		{"jira", "Jira", presetJira},
		{"servicenow", "ServiceNow", always(
			variant{Credential: Credential{Authorization: ClientCredentials, AccessTokenURL: "{base}/oauth_token.do", AuthStyle: AuthStyleBody, TokenLifetime: 30 * time.Minute}},
			variant{Credential: Credential{Authorization: AuthorizationCode, AccessTokenURL: "{base}/oauth_token.do", AuthorizationURL: "{base}/oauth_auth.do",
				AuthStyle: AuthStyleBody, TokenLifetime: 30 * time.Minute, RefreshTokenLifetime: 100 * day}},
			variant{Credential: Credential{Authorization: PasswordGrant, AccessTokenURL: "{base}/oauth_token.do", AuthStyle: AuthStyleBody, TokenLifetime: 30 * time.Minute}},
			variant{Credential: Credential{Authorization: Basic}},
		)},
	}
}

const day = 24 * time.Hour

// FindPreset returns the preset of that name.
func FindPreset(name string) (Preset, error) {
	var names []string
	for _, p := range Presets() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Preset{}, fmt.Errorf("there is no such preset: there are %s", strings.Join(names, ", "))
}

func always(variants ...variant) func(presetURL) ([]variant, error) {
	return func(presetURL) ([]variant, error) { return variants, nil }
}

// preset4me finds the region's OAuth host beside its API host. 4me never says how
// long a token lives; it is an hour by its documentation.
func preset4me(u presetURL) ([]variant, error) {
	rest, ok := strings.CutPrefix(u.host, "api.")
	if !ok {
		return nil, fmt.Errorf("must be that of 4me's API: https://api.4me.com/, or your region's, such as https://api.us.4me.com/")
	}
	const note = "4me also needs to be told your account, in an extra header X-4me-Account"
	account := []Header{{Name: "X-4me-Account"}}
	oauth := Credential{Headers: account, AccessTokenURL: "https://oauth." + rest + "/token", AuthStyle: AuthStyleBody, TokenLifetime: time.Hour}
	code := oauth
	oauth.Authorization, code.Authorization = ClientCredentials, AuthorizationCode
	code.AuthorizationURL = "https://oauth." + rest + "/authorize"
	return []variant{{oauth, note}, {code, note}, {Credential{Authorization: Bearer, Headers: account}, note}}, nil
}

// presetJira tells the cloud, whose tokens come from one host for all, from an
// installation of one's own.
func presetJira(u presetURL) ([]variant, error) {
	cloud := Credential{
		Authorization: AuthorizationCode, AccessTokenURL: "https://auth.atlassian.com/oauth/token", AuthorizationURL: "https://auth.atlassian.com/authorize",
		AuthStyle: AuthStyleBody, Scope: "read:jira-work write:jira-work offline_access", TokenLifetime: time.Hour, RefreshTokenLifetime: 90 * day,
		AuthorizationParams: map[string]string{"audience": "api.atlassian.com", "prompt": "consent"},
	}
	token := variant{Credential{Authorization: Basic}, "the user name is the e-mail address, the password an API token of id.atlassian.com"}
	switch {
	case u.host == "api.atlassian.com":
		return []variant{{cloud, ""}, token}, nil
	case strings.HasSuffix(u.host, ".atlassian.net"):
		return []variant{token, {cloud, "Atlassian takes such tokens at https://api.atlassian.com/ex/jira/CLOUD-ID/ alone: make that the instance URL, and the connector's; https://" + u.host + "/_edge/tenant_info shows the CLOUD-ID"}}, nil
	}
	return []variant{
		{Credential{Authorization: AuthorizationCode, AccessTokenURL: "{url}/rest/oauth2/latest/token", AuthorizationURL: "{url}/rest/oauth2/latest/authorize",
			AuthStyle: AuthStyleBody, Scope: "WRITE", TokenLifetime: 2 * time.Hour}, ""},
		{Credential{Authorization: Bearer}, "the token is a personal access token"},
		{Credential{Authorization: Basic}, ""},
	}, nil
}

// Types returns the types of authorization that the tool has at an instance URL, the
// recommended one first.
func (p Preset) Types(instanceURL string) ([]AuthorizationType, error) {
	variants, _, err := p.variants(instanceURL)
	var types []AuthorizationType
	for _, v := range variants {
		types = append(types, v.Authorization)
	}
	return types, err
}

func (p Preset) variants(instanceURL string) ([]variant, presetURL, error) {
	c := Credential{Protocol: HTTPS, URL: instanceURL}
	instance, err := c.Instance()
	if err != nil {
		return nil, presetURL{}, fmt.Errorf("applying the preset %s: the instance URL %w", p.Name, err)
	}
	u := presetURL{host: instance.Host, url: strings.TrimSuffix(instance.URL(), "/")}
	instance.Path = ""
	u.base = instance.URL()
	variants, err := p.at(u)
	if err != nil {
		return nil, u, fmt.Errorf("applying the preset %s: the instance URL %w", p.Name, err)
	}
	return variants, u, nil
}

// Apply fills what c leaves open, for its instance URL and its type of authorization,
// or the recommended one if it has none.
func (p Preset) Apply(c *Credential) (Left, error) {
	variants, u, err := p.variants(c.URL)
	if err != nil {
		return Left{}, err
	}
	i := 0
	if c.Authorization != "" {
		i = slices.IndexFunc(variants, func(v variant) bool { return v.Authorization == c.Authorization })
	}
	if i < 0 {
		types, _ := p.Types(c.URL)
		return Left{}, fmt.Errorf("applying the preset %s: it knows nothing of type %s there: there are %s", p.Name, c.Authorization, joinTypes(types))
	}
	variants[i].fill(c, strings.NewReplacer("{base}", u.base, "{url}", u.url))
	left := Left{Note: variants[i].note}
	for _, h := range variants[i].Headers {
		left.Headers = append(left.Headers, h.Name)
	}
	return left, nil
}

func (v variant) fill(c *Credential, urls *strings.Replacer) {
	setIf := func(at *string, value string) {
		if *at == "" {
			*at = urls.Replace(value)
		}
	}
	c.Authorization = v.Authorization
	setIf(&c.AccessTokenURL, v.AccessTokenURL)
	setIf(&c.AuthorizationURL, v.AuthorizationURL)
	setIf(&c.Scope, v.Scope)
	if c.AuthStyle == "" {
		c.AuthStyle = v.AuthStyle
	}
	if c.HeaderPrefix == nil {
		c.HeaderPrefix = v.HeaderPrefix
	}
	if c.TokenLifetime == 0 {
		c.TokenLifetime = v.TokenLifetime
	}
	if c.RefreshTokenLifetime == 0 {
		c.RefreshTokenLifetime = v.RefreshTokenLifetime
	}
	if c.AuthorizationParams == nil {
		c.AuthorizationParams = v.AuthorizationParams
	}
	if c.LoginTemplate.IsZero() {
		c.LoginTemplate = v.LoginTemplate
	}
}

func joinTypes(types []AuthorizationType) string {
	var names []string
	for _, t := range types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func text(s string) *string { return &s }
