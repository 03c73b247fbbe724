package creds

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// problems returns "field: problem" for each, a line each.
func problems(err error) string {
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		return fmt.Sprint(err)
	}
	var lines []string
	for _, f := range invalid.Fields {
		lines = append(lines, f.Field+": "+f.Problem)
	}
	return strings.Join(lines, "\n")
}

func TestOneOfEachIsValid(t *testing.T) {
	types := map[AuthorizationType]bool{}
	for _, c := range oneOfEach(t) {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		types[c.Authorization] = true
	}
	if len(types) != len(kinds) || len(types) != len(AuthorizationTypes(HTTPS)) {
		t.Errorf("%d types tried of %d", len(types), len(kinds))
	}
	if got := fmt.Sprint(AuthorizationTypes(SFTP)); got != "[basic]" {
		t.Error(got)
	}
}

func TestEveryTableEntryHasAField(t *testing.T) {
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
	}
	kindsAndSFTP := []kind{sftpKind}
	for _, k := range kinds {
		kindsAndSFTP = append(kindsAndSFTP, k)
	}
	for _, k := range kindsAndSFTP {
		for _, name := range append(k.required, k.optional...) {
			if !known[name] {
				t.Errorf("a kind asks for %q, which is no field", name)
			}
		}
	}
}

func TestValidateURL(t *testing.T) {
	for _, c := range []struct{ url, problem string }{
		{"https://a.example", ""},
		{"https://a.example/", ""},
		{"HTTPS://A.Example:8443/", ""},
		{"https://a.example/itsm", ""},
		{"https://a.example/itsm/Tenant_1/", ""},
		{"https://[2001:db8::1]:8443/", ""},
		{"sftp://a.example:22/", ""},
		{"sftp://a.example:2222", ""},

		{"", "is required, for example https://example.service-now.com/"},
		{"a.example", "must begin with https://"},
		{"http://a.example/", "a credential is sent over https only, write https://"},
		{"ftp://a.example/", "must begin with https://"},
		{"https://", "the host is missing"},
		{"https://user:hunter2@a.example/", "holds a user name or password before an @: remove it; they have fields of their own"},
		{"https://a.example/?q=hunter2", "has a query (from the ? on): remove it"},
		{"https://a.example/#hunter2", "has a fragment (from the # on): remove it"},
		{"https://a.example:0/", "the port is not a number"},
		{"https://a.example:443x/", "the port is not a number"},
		{"https://127.1/", "ends in a number"},
		{"https://a.example/a/../b", "has a dot segment"},
		{"https://a.example/./", "has a dot segment"},
		{"https://a.example//", "has an empty segment"},
		{"https://a.example/a//b", "has an empty segment"},
		{"https://a.example/a%2fb", "has a character in its path"},
		{"https://a.example/a;b", "has a character in its path"},
		{"https://a.example/a\\b", "has a character in its path"},
		{"https://a.example/ü", "has a character in its path"},
		{"https://a.example/a b", "holds a space"},
		{"https://a b/", "holds a space"},
		{"sftp://a.example/", "the prefix and the port need to be included: sftp://host:22/"},
		{"sftp://[::1]/", "the prefix and the port need to be included: sftp://host:22/"},
		{"sftp://a.example:/", "the port is not a number"},
		{"sftp://u:hunter2@a.example:22/", "holds a user name or password"},
		{"sftp://a.example:22/upload", "has a path: remove it"},
	} {
		cred := testCredential("a", c.url)
		if cred.Protocol == SFTP {
			cred.Authorization, cred.Username, cred.Password, cred.HostKeys = Basic, "u", NewSecret("p"), []string{hostKeyLine(fixedKey(t, 1))}
		}
		if cred.Protocol == "" {
			cred.Protocol = HTTPS
		}
		got := problems(cred.Validate())
		switch {
		case c.problem == "" && got != "<nil>":
			t.Errorf("%q: %s", c.url, got)
		case c.problem != "" && (!strings.HasPrefix(got, "url: ") || !strings.Contains(got, c.problem) || strings.Contains(got, "hunter2") || strings.Count(got, "\n") != 0):
			t.Errorf("%q: got %s, want %q alone", c.url, got, c.problem)
		}
		if _, err := cred.Instance(); (err == nil) != (c.problem == "") && !strings.Contains(c.problem, "the prefix and the port") {
			t.Errorf("%q: Instance and Validate differ: %v", c.url, err)
		}
	}
}

func TestSFTPNeedsItsPrefix(t *testing.T) {
	c := &Credential{Name: "a", Protocol: SFTP, URL: "files.example:22", Authorization: Basic, Username: "u", Password: NewSecret("p"), HostKeys: []string{hostKeyLine(fixedKey(t, 1))}}
	if got := problems(c.Validate()); got != "url: the prefix and the port need to be included: sftp://host:22/" {
		t.Error(got)
	}
	c.URL, c.Password = "sftp://files.example:22/", Secret{}
	if got := problems(c.Validate()); got != "password: is required, or a private_key instead" {
		t.Error(got)
	}
	if err := c.ValidateKeeping("private_key"); err != nil {
		t.Error(err)
	}
	c.Authorization, c.Token = Bearer, NewSecret("t")
	if got := problems(c.Validate()); got != "authorization: bearer does not go with protocol sftp: use one of basic" {
		t.Error(got)
	}
}

func TestValidateTellsAllProblemsAtOnce(t *testing.T) {
	c := &Credential{Name: "Not Good", Protocol: "ftp", URL: "https://a.example/?q#f", Authorization: Bearer,
		Username: "u", Password: NewSecret(planted), HeaderPrefix: pointer("Bearer "), Scope: "s", HostKeys: []string{"x"},
		Headers: []Header{{"Host", NewSecret(planted)}, {"X-A", Secret{}}}}
	want := `name: must have 1 to 63 characters, a to z, 0 to 9 and hyphens, with no hyphen at either end
protocol: must be https or sftp
url: has a query (from the ? on): remove it; the instance URL ends before it
url: has a fragment (from the # on): remove it; the instance URL ends before it
username: is not used by authorization type bearer; remove it
password: is not used by authorization type bearer; remove it
host_key: is not used by authorization type bearer; remove it
token: is required by authorization type bearer
header_prefix: begins or ends with a space: remove it; the space before the token is added, unless the prefix ends in =
scope: is not used by authorization type bearer; remove it
header: Host: is a header that belongs to the connection, not to the request: it cannot be set
header: X-A: has no value`
	if got := problems(c.Validate()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if text := c.Validate().Error(); !strings.HasPrefix(text, `credential "Not Good" is not valid:`+"\n  name: must") || strings.Contains(text, planted) {
		t.Error(text)
	}
	if got := problems((&Credential{}).Validate()); got != "name: is required\nprotocol: is required: https or sftp\nurl: is required, for example https://example.service-now.com/\nauthorization: is required: one of none, basic, bearer, api-key, oauth2-client-credentials, oauth2-authorization-code, oauth2-password, login" {
		t.Error(got)
	}
}

func TestValidateNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"a": true, "jira": true, "4me": true, "service-now-2": true, strings.Repeat("a", 63): true,
		"-": false, "a-": false, "-a": false, "A": false, "a_b": false, "a.b": false, "a/b": false, "..": false, "a b": false, "ä": false, strings.Repeat("a", 64): false, "a\n": false,
	} {
		if err := testCredential(name, "https://a.example/").Validate(); (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestValidateFields changes one field of a valid credential. Case 19: nothing
// that ends a header line early gets into a credential.
func TestValidateFields(t *testing.T) {
	const at = "login.example/token"
	secret := func(set func(*Credential, Secret)) func(*Credential, string) {
		return func(c *Credential, v string) { set(c, NewSecret(v)) }
	}
	password := secret(func(c *Credential, s Secret) { c.Password = s })
	token := secret(func(c *Credential, s Secret) { c.Token = s })
	apiKey := secret(func(c *Credential, s Secret) { c.APIKey = s })
	clientSecret := secret(func(c *Credential, s Secret) { c.ClientSecret = s })
	headerValue := func(c *Credential, v string) { c.Headers = []Header{{"X-A", NewSecret(v)}} }
	headerName := func(c *Credential, v string) { c.Headers = []Header{{v, NewSecret("v")}} }
	param := func(c *Credential, v string) { c.Params = map[string]string{v: "x"} }
	for _, c := range []struct {
		index   int
		set     func(*Credential, string)
		value   string
		problem string // "" is valid
	}{
		{1, password, "with spaces: and colons", ""},
		{1, password, "pass\r\nX: y", "password: holds a line break or another control character: remove it"},
		{1, password, "pass\x00", "password: holds a line break or another control"},
		{1, password, "pass\n", "password: ends in a line break: remove it"},
		{1, password, strings.Repeat("x", 16385), "password: is longer than 16384 characters"},
		{1, func(c *Credential, v string) { c.Username = v }, "a:b", "username: holds a colon"},
		{1, func(c *Credential, v string) { c.Username = v }, "a\nb", "username: holds a line break"},
		{9, func(c *Credential, v string) { c.Username = v }, "a:b", ""},
		{7, func(c *Credential, v string) { c.Username = v }, "a:b", ""},
		{2, token, "abc.def-ghi", ""},
		{2, token, "abc\r\nX: y", "token: holds a line break"},
		{2, token, "abc\n", "token: ends in a line break"},
		{2, token, " abc", "token: begins or ends with a space"},
		{2, token, "abc\x7f", "token: holds a line break or another control"},
		{2, func(c *Credential, v string) { c.HeaderPrefix = &v }, "", ""},
		{2, func(c *Credential, v string) { c.HeaderPrefix = &v }, "rest_api_key=", ""},
		{2, func(c *Credential, v string) { c.HeaderPrefix = &v }, "AR-JWT", ""},
		{2, func(c *Credential, v string) { c.HeaderPrefix = &v }, "A\r\nB", "header_prefix: holds a character"},
		{2, func(c *Credential, v string) { c.HeaderPrefix = &v }, "Ü", "header_prefix: holds a character"},
		{3, apiKey, "k\x00", "api_key: holds a line break or another control"},
		{3, func(c *Credential, v string) { c.APIKeyHeader = v }, "Authorization", ""},
		{3, func(c *Credential, v string) { c.APIKeyHeader = v }, "X Key", "api_key_header: has letters, digits and hyphens only"},
		{3, func(c *Credential, v string) { c.APIKeyHeader = v }, "Content-Length", "api_key_header: is a header that belongs to the connection"},
		{3, func(c *Credential, v string) { c.APIKeyHeader = v }, "", "api_key_header: name either a header"},
		{3, func(c *Credential, v string) { c.APIKeyQuery = v }, "key", "api_key_header: name either a header"},
		{4, func(c *Credential, v string) { c.APIKeyQuery = v }, "a&b", "api_key_query: must have letters"},
		{4, func(c *Credential, v string) { c.APIKeyQuery = v }, "ä", "api_key_query: must have letters"},
		{5, clientSecret, "s\r\n", "client_secret: ends in a line break"},
		{5, func(c *Credential, v string) { c.ClientID = v }, "a\rb", "client_id: holds a line break"},
		{5, func(c *Credential, v string) { c.Scope = v }, "a\tb", "scope: holds a line break or another control"},
		{5, func(c *Credential, v string) { c.AuthStyle = AuthStyle(v) }, "auto", "auth_style: must be header or body"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "http://" + at, "access_token_url: must begin with https://"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, at, "access_token_url: must begin with https://"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "https://" + at + "#f", "access_token_url: has a fragment"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "https://u:p@" + at, "access_token_url: holds a user name or password"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "https://" + at + "?a b", "access_token_url: holds a space or a control character in its query"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "https:///token", "access_token_url: the host is missing"},
		{5, func(c *Credential, v string) { c.AccessTokenURL = v }, "", "access_token_url: is required by authorization type oauth2-client-credentials"},
		{6, func(c *Credential, v string) { c.AuthorizationURL = v }, "http://login.example/", "authorization_url: must begin with https://"},
		{5, param, "grant_type", "param: grant_type: is set by pillion itself: remove it"},
		{5, param, "a b", "param: has a parameter whose name"},
		{5, param, "", "param: has a parameter whose name"},
		{5, func(c *Credential, v string) { c.Params = map[string]string{"audience": v} }, "a\nb", "param: audience: holds a line break"},
		{6, func(c *Credential, v string) { c.AuthorizationParams = map[string]string{v: "x"} }, "state", "authorization_param: state: is set by pillion itself: remove it"},
		{6, func(c *Credential, v string) { c.AuthorizationParams = map[string]string{v: "x"} }, "prompt", ""},
		{5, func(c *Credential, v string) { c.AuthorizationParams = map[string]string{v: "x"} }, "prompt", "authorization_param: is not used by authorization type oauth2-client-credentials"},
		{6, func(c *Credential, _ string) { c.Unshared = true }, "", "share: is not used by authorization type oauth2-authorization-code; remove it"},
		{5, func(c *Credential, _ string) { c.TokenLifetime = time.Second }, "", "token_lifetime: must be between 10s and 24h"},
		{5, func(c *Credential, _ string) { c.TokenLifetime = 90*time.Second + 1 }, "", "token_lifetime: must be between 10s and 24h"},
		{5, func(c *Credential, _ string) { c.TokenLifetime = time.Hour }, "", ""},
		{6, func(c *Credential, _ string) { c.RefreshTokenLifetime = time.Hour - 1 }, "", "refresh_token_lifetime: must be between 1h and 87600h"},
		{6, func(c *Credential, _ string) { c.RefreshTokenLifetime = 100 * day }, "", ""},
		{5, func(c *Credential, _ string) { c.RefreshTokenLifetime = 100 * day }, "", "refresh_token_lifetime: is not used by authorization type oauth2-client-credentials"},
		{2, func(c *Credential, v string) { c.HeaderName = v }, "X-Auth-Token", ""},
		{2, func(c *Credential, v string) { c.HeaderName = v }, "Cookie", ""},
		{2, func(c *Credential, v string) { c.HeaderName = v }, "Host", "header_name: is a header that belongs to the connection"},
		{2, func(c *Credential, v string) { c.HeaderName, c.Headers = v, []Header{{"x-auth", NewSecret("v")}} }, "X-Auth", "header: x-auth: is set by authorization type bearer: remove it"},
		{8, secret(func(c *Credential, s Secret) { c.LoginTemplate = s }), "{", "login_template: is not valid JSON"},
		{8, secret(func(c *Credential, s Secret) { c.LoginTemplate = s }), `{"header":{"Host":"x"}}`, "login_template: Host: is a header that belongs to the connection"},
		{8, secret(func(c *Credential, s Secret) { c.LoginTemplate = s }), `{"json":["{{param.tenant}}"]}`, "login_template: needs the parameter tenant: set it as param"},
		{8, func(c *Credential, _ string) {
			c.Username, c.LoginTemplate = "", NewSecret(`{"header":{"X":"{{basic}}"}}`)
		}, "", "login_template: needs a user name"},
		{8, func(c *Credential, _ string) {
			c.Password, c.LoginTemplate = Secret{}, NewSecret(`{"form":{"p":"{{password}}"}}`)
		}, "", "login_template: needs a password"},
		{8, func(c *Credential, v string) { c.AccessTokenURL = v }, "", "access_token_url: is required by authorization type login"},
		{0, headerValue, "a b", ""},
		{0, headerValue, "a\r\nHost: b", "header: X-A: holds a line break"},
		{0, headerValue, "a ", "header: X-A: begins or ends with a space"},
		{0, headerName, "X A", "header: a name of a header has letters"},
		{0, headerName, "X-A\r\nB", "header: a name of a header has letters"},
		{0, headerName, ":authority", "header: a name of a header has letters"},
		{0, headerName, "", "header: a name of a header has letters"},
		{0, headerName, "Authorization", ""},
		{1, headerName, "authorization", "header: authorization: is set by authorization type basic: remove it"},
		{3, headerName, "x-api-KEY", "header: x-api-KEY: carries the API key: remove it"},
		{0, func(c *Credential, v string) { c.Headers = []Header{{"X-A", NewSecret(v)}, {"x-a", NewSecret(v)}} }, "v", "header: x-a: stands there twice: remove it"},
		{9, func(c *Credential, v string) { c.HostKeys = []string{v} }, "hello", "host_key: is not a host key; paste the server's public key as one line, for example ecdsa-sha2-nistp256 AAAA... (print it with: ssh-keyscan -p 2222 files.example)"},
		{9, func(c *Credential, v string) { c.HostKeys = nil }, "", "host_key: is required by authorization type basic: paste the server's public key"},
		{9, func(c *Credential, v string) { c.HostKeys = []string{v} }, "", "host_key: is required: without the server's key"},
		{9, secret(func(c *Credential, s Secret) { c.PrivateKey = s }), "-----BEGIN", "private_key: is not a private key"},
		{1, secret(func(c *Credential, s Secret) { c.PrivateKey = s }), "x", "private_key: is not used by authorization type basic; remove it"},
		{9, headerName, "X-A", "header: is not used by authorization type basic over sftp; remove it"},
	} {
		cred := oneOfEach(t)[c.index]
		c.set(cred, c.value)
		got := problems(cred.Validate())
		switch {
		case c.problem == "" && got != "<nil>":
			t.Errorf("%s with %q: %s", cred.Name, c.value, got)
		case c.problem != "" && (!strings.HasPrefix(got, c.problem) || strings.Contains(got, "\n")):
			t.Errorf("%s with %q: got %s, want %s alone", cred.Name, c.value, got, c.problem)
		}
	}
}

func TestFramingHeadersAreNeverStatic(t *testing.T) {
	for _, name := range []string{"Host", "Content-Length", "transfer-encoding", "Connection", "TE", "Trailer", "Upgrade", "Keep-Alive", "Expect", "HTTP2-Settings", "Proxy-Authorization", "proxy-connection"} {
		c := testCredential("a", "https://a.example/")
		c.Headers = []Header{{name, NewSecret("v")}}
		if got := problems(c.Validate()); !strings.Contains(got, name+": is a header that belongs to the connection") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestKeptSecretsCountAsGiven(t *testing.T) {
	for _, c := range oneOfEach(t) {
		var stored []string
		for _, field := range c.secretFields() {
			if !field.value.IsZero() {
				stored = append(stored, field.name)
				*field.value = Secret{}
			}
		}
		if len(stored) > 0 && c.Validate() == nil {
			t.Errorf("%s is valid without its secrets", c.Name)
		}
		if err := c.ValidateKeeping(stored...); err != nil {
			t.Error(err)
		}
	}
}

func TestPrivateKeyMustOpen(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	open, _ := ssh.MarshalPrivateKey(private, "")
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	c := oneOfEach(t)[9]
	c.Password, c.PrivateKey = Secret{}, NewSecret(string(pem.EncodeToMemory(open)))
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.PrivateKey = NewSecret(string(pem.EncodeToMemory(locked)))
	if got := problems(c.Validate()); !strings.HasPrefix(got, "private_key: is locked with a passphrase") {
		t.Error(got)
	}
}

func TestPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"Bearer": "Bearer ", "AR-JWT": "AR-JWT ", "rest_api_key=": "rest_api_key=", "": ""} {
		if got := (&Credential{HeaderPrefix: &prefix}).Prefix(); got != want {
			t.Errorf("%q gives %q", prefix, got)
		}
	}
	for header, want := range map[string]string{"": "Bearer ", "authorization": "Bearer ", "X-Auth-Token": ""} {
		if got := (&Credential{HeaderName: header}).Prefix(); got != want {
			t.Errorf("the default in header %q is %q", header, got)
		}
	}
}
