package creds

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// A credential is stored as two or three records, so that the page can edit
// what it must never read, and a sidecar need not hold what only refreshers use:
//
//	credentials/NAME  {"schema":"1.0", "name":.., public fields.., "secrets": {"password": ID}}
//	secrets/NAME      {"schema":"1.0", "secrets": {ID: ["https://host:443", value]}}
//	grants/NAME       the same member "secrets", beside the state of the grant
//
// ID is random and new for every value, so writing a secret never changes one
// that a stored credential refers to. The first element binds a secret to where it
// may be sent: whoever can write credentials/ alone cannot aim a stored password at
// a host of his own. Nor can one who may patch secrets/ unread: a merge patch
// (RFC 7396) replaces an array whole, so the new place comes with a new value.

// credentialRecord is the JSON of credentials/NAME.
type credentialRecord struct {
	Schema           string            `json:"schema"`
	Name             string            `json:"name"`
	Protocol         Protocol          `json:"protocol"`
	URL              string            `json:"url"`
	Authorization    AuthorizationType `json:"authorization"`
	Username         string            `json:"username,omitempty"`
	HostKeys         []string          `json:"host_key,omitempty"`
	HeaderName       string            `json:"header_name,omitempty"`
	HeaderPrefix     *string           `json:"header_prefix,omitempty"`
	APIKeyHeader     string            `json:"api_key_header,omitempty"`
	APIKeyQuery      string            `json:"api_key_query,omitempty"`
	ClientID         string            `json:"client_id,omitempty"`
	AccessTokenURL   string            `json:"access_token_url,omitempty"`
	AuthorizationURL string            `json:"authorization_url,omitempty"`
	Scope            string            `json:"scope,omitempty"`
	AuthStyle        AuthStyle         `json:"auth_style,omitempty"`
	Params           map[string]string `json:"param,omitempty"`
	Headers          []string          `json:"header,omitempty"`  // their names, in order
	Secrets          map[string]string `json:"secrets,omitempty"` // secret's name -> ID

	AuthorizationParams map[string]string `json:"authorization_param,omitempty"`
	TokenLifetime       int64             `json:"token_lifetime,omitempty"` // seconds
	RefreshLifetime     int64             `json:"refresh_token_lifetime,omitempty"`
	Unshared            bool              `json:"unshared,omitempty"`
}

type secretsRecord struct {
	Schema  string                  `json:"schema"`
	Secrets map[string]*secretEntry `json:"secrets"` // a nil entry, in a patch, removes
}

// secretEntry is a value and where it may be sent.
type secretEntry struct{ Value, For string }

var errSecretForm = errors.New("has a secret that is not a pair of strings")

// MarshalJSON writes [for, value].
func (e secretEntry) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{e.For, e.Value}) }

// UnmarshalJSON reads exactly two strings. Its error holds neither.
func (e *secretEntry) UnmarshalJSON(data []byte) error {
	var parts []string
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) != 2 {
		return errSecretForm
	}
	e.For, e.Value = parts[0], parts[1]
	return nil
}

func publicRecord(c *Credential) *credentialRecord {
	r := &credentialRecord{
		Schema: currentSchema, Name: c.Name, Protocol: c.Protocol, URL: c.URL, Authorization: c.Authorization,
		Username: c.Username, HostKeys: c.HostKeys, HeaderName: c.HeaderName, HeaderPrefix: c.HeaderPrefix,
		APIKeyHeader: c.APIKeyHeader, APIKeyQuery: c.APIKeyQuery,
		ClientID: c.ClientID, AccessTokenURL: c.AccessTokenURL, AuthorizationURL: c.AuthorizationURL,
		Scope: c.Scope, AuthStyle: c.AuthStyle, Params: c.Params, AuthorizationParams: c.AuthorizationParams,
		TokenLifetime: int64(c.TokenLifetime / time.Second), RefreshLifetime: int64(c.RefreshTokenLifetime / time.Second),
		Unshared: c.Unshared, Secrets: map[string]string{},
	}
	for _, h := range c.Headers {
		r.Headers = append(r.Headers, h.Name)
	}
	return r
}

// credential returns the record's public part; its secrets are zero.
func (r *credentialRecord) credential(version int) *Credential {
	c := &Credential{
		Name: r.Name, Protocol: r.Protocol, URL: r.URL, Authorization: r.Authorization,
		Username: r.Username, HostKeys: r.HostKeys, HeaderName: r.HeaderName, HeaderPrefix: r.HeaderPrefix,
		APIKeyHeader: r.APIKeyHeader, APIKeyQuery: r.APIKeyQuery,
		ClientID: r.ClientID, AccessTokenURL: r.AccessTokenURL, AuthorizationURL: r.AuthorizationURL,
		Scope: r.Scope, AuthStyle: r.AuthStyle, Params: r.Params, AuthorizationParams: r.AuthorizationParams,
		TokenLifetime: seconds(r.TokenLifetime, maxTokenLifetime), RefreshTokenLifetime: seconds(r.RefreshLifetime, maxRefreshTokenLifetime),
		Unshared: r.Unshared, Version: version,
	}
	for _, name := range r.Headers {
		c.Headers = append(c.Headers, Header{Name: name})
	}
	return c
}

// seconds keeps a number that no duration can be from turning into a small one: it
// is refused by the validation then.
func seconds(n int64, most time.Duration) time.Duration {
	if limit := int64(2 * most / time.Second); n < -limit || n > limit {
		n = limit
	}
	return time.Duration(n) * time.Second
}

// headerSecret precedes a header's name in the name of its secret.
const headerSecret = "header:"

// secretField is one secret of a credential under its stored name.
type secretField struct {
	name  string
	value *Secret
}

func (c *Credential) secretFields() []secretField {
	all := []secretField{
		{"password", &c.Password}, {"private_key", &c.PrivateKey}, {"token", &c.Token},
		{"api_key", &c.APIKey}, {"client_secret", &c.ClientSecret}, {"login_template", &c.LoginTemplate},
	}
	for i := range c.Headers {
		all = append(all, secretField{headerSecret + c.Headers[i].Name, &c.Headers[i].Value})
	}
	return all
}

// place is where a secret is kept, and what it is bound to.
type place struct {
	key     string // KeySecrets or KeyGrants
	purpose string // the entry's For
}

// placeOf keeps with the grant what only token requests carry; but what every
// process needs, to ask for a token of its own, with the other secrets. A secret is bound
// to every server that gets it, or gets what it buys: a client secret to its token
// endpoint, and to the instance URL where the tokens go. An SFTP secret is bound to
// the pinned host keys as well: they, not the name, say who receives it.
func (c *Credential) placeOf(secret string) place {
	at := place{key: KeySecrets}
	if secret == "client_secret" || secret == "login_template" ||
		secret == "password" && (c.Authorization == PasswordGrant || c.Authorization == Login) {
		if !c.Unshared {
			at.key = KeyGrants
		}
		if c.AccessTokenURL != "" {
			at.purpose = originOf(c.AccessTokenURL) + " "
		}
	}
	instance, err := c.Instance()
	if err != nil {
		return at
	}
	at.purpose += instance.Origin()
	if c.Protocol == SFTP {
		at.purpose += pinList(c.HostKeys, instance)
	}
	return at
}

func originOf(rawURL string) string {
	target, err := ParseTarget(rawURL)
	if err != nil {
		return ""
	}
	return target.Origin()
}

// pinList names the pins in one order, without their comments.
func pinList(hostKeys []string, instance Target) string {
	pins, _ := ParseHostKeys(hostKeys, instance.Host, instance.Port)
	var hashes []string
	for _, pin := range pins {
		hashes = append(hashes, pin.SHA256)
	}
	slices.Sort(hashes)
	return " " + strings.Join(slices.Compact(hashes), " ")
}

func newSecretID() string {
	var id [8]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(id[:])
}

// encode makes a record's JSON. The structs of this file cannot fail to marshal.
func encode(record any) Secret {
	data, err := json.Marshal(record)
	if err != nil {
		panic("creds: encoding a record: " + err.Error())
	}
	return NewSecret(string(data))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedSet(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

// equal reports whether c and d are the same version with the same content.
func (c *Credential) equal(d *Credential) bool {
	if c.Version != d.Version || !encode(publicRecord(c)).Equal(encode(publicRecord(d))) {
		return false
	}
	theirs := d.secretFields()
	for i, field := range c.secretFields() {
		if !field.value.Equal(*theirs[i].value) {
			return false
		}
	}
	return true
}
