package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

// schema is that of the records of this package; see creds.Store for their keys.
const schema = "1.0"

// A grant is kept in two records. Times are milliseconds of the store's clock.
//
//	grants/NAME  refreshers alone: what buys a token, who is buying one now, and
//	             the last one bought, from which tokens/NAME is repaired
//	tokens/NAME  every sidecar: the access token, and how the grant stands
//
// grants/NAME also holds the member "secrets", which package creds keeps there,
// and "consent", which the page may write but never read: both are written back as
// they were read, as is every member that is not known here.
type grantRecord struct {
	Schema  string `json:"schema"`
	Refresh *bound `json:"refresh_token,omitempty"`
	Spare   *bound `json:"spare,omitempty"` // of a second consent, for the day the first is lost
	// Lost is the refresh token that the provider did not take any more: what was
	// bought with it, and comes to light in a journal, is better than none.
	Lost *bound `json:"lost,omitempty"`
	// Gen counts consents and token requests that brought a token.
	Gen   int    `json:"gen,omitempty"`
	Lease *lease `json:"lease,omitempty"`

	NotBefore int64        `json:"not_before,omitempty"` // no token request earlier: the back-off that all share
	Fails     int          `json:"fails,omitempty"`      // in a row
	LastError *recordError `json:"last_error,omitempty"`
	// Asked is a digest of all that shaped the last token (scope, parameters,
	// client secret ...): another one asks for a new token, while the old serves.
	Asked string `json:"asked,omitempty"`
	// Tried is that digest at the last failure: an edit since then lifts the back-off
	// of a failure that only an edit could help.
	Tried       string       `json:"tried,omitempty"`
	Token       *tokenRecord `json:"token,omitempty"`
	ConsentedAt int64        `json:"consented_at,omitempty"`
	RotatedAt   int64        `json:"rotated_at,omitempty"`
	ForcedAt    int64        `json:"forced_at,omitempty"` // the last refresh that a 401 forced
	// GrantEndsAt is when Refresh buys nothing any more, as far as that is known.
	GrantEndsAt int64 `json:"grant_ends_at,omitempty"`
	SpareEndsAt int64 `json:"spare_ends_at,omitempty"`
	// SpareServes: Refresh was the spare once, and the first consent is lost.
	SpareServes bool `json:"spare_serves,omitempty"`
	// WantedUntil: before it the token is renewed ahead of its end; afterwards only
	// when somebody asks, and once a week for a grant that ends by disuse.
	WantedUntil int64          `json:"wanted_until,omitempty"`
	Consent     *consentRecord `json:"consent,omitempty"`
	Op          string         `json:"op,omitempty"` // random, of each write: tells a lost answer from a conflict

	rest map[string]json.RawMessage // the members that are not known here
}

// lease is who is asking for a token now. Its age is the store's time since the
// record's version was written.
type lease struct {
	ID     string `json:"id"`
	Holder string `json:"holder"` // of the process, random at each start
	TTL    int64  `json:"ttl"`    // milliseconds
	Blind  bool   `json:"blind,omitempty"`
}

// consentRecord is a code that waits for a refresher to exchange it. It stays until
// the answer is written, since the journal of that answer is sealed with it.
type consentRecord struct {
	ID          string `json:"id"` // of the ask in requests/NAME
	Code        string `json:"code"`
	Verifier    string `json:"verifier"`
	RedirectURL string `json:"redirect_url"`
	Spare       bool   `json:"spare"` // also when false: a patch merges into what is there
	At          int64  `json:"at"`
	// Taken is ID once a refresher has begun: a code works once, and some providers
	// take back all that it brought when it comes again.
	Taken string `json:"taken,omitempty"`
}

// tokenRecord is the JSON of tokens/NAME.
type tokenRecord struct {
	Schema      string       `json:"schema"`
	Gen         int          `json:"gen"`
	AccessToken *bound       `json:"access_token,omitempty"`
	Type        string       `json:"type,omitempty"`
	IssuedAt    int64        `json:"issued_at,omitempty"`
	ExpiresAt   int64        `json:"expires_at,omitempty"`
	RenewAt     int64        `json:"renew_at,omitempty"` // no renewal ahead of the end before
	Status      Status       `json:"status"`             // ok, degraded, needs_consent or config_error
	Error       *recordError `json:"error,omitempty"`
	Fails       int          `json:"fails,omitempty"`
	RetryAt     int64        `json:"retry_at,omitempty"`
	// Of the grant, for warnings: when a person consented, when that ends, and whether a
	// spare is there.
	ConsentedAt int64 `json:"consented_at,omitempty"`
	GrantEndsAt int64 `json:"grant_ends_at,omitempty"`
	Spare       bool  `json:"spare,omitempty"`
}

// recordError is a *failure as records keep it: nothing in it was written by the
// token endpoint.
type recordError struct {
	Reason string `json:"reason"`
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
	At     int64  `json:"at"`
}

// bound is a refresh token or an access token with the purpose that it was given
// for, and is as good as none for another one. In JSON it is an array, [for, value]:
// a merge patch (RFC 7396) replaces an array whole, so who may patch a record
// without reading it cannot aim its token elsewhere.
type bound struct{ For, Value string }

var errBoundForm = errors.New("holds a token that is not a pair of strings")

// MarshalJSON writes [for, value].
func (b bound) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{b.For, b.Value}) }

// UnmarshalJSON reads exactly two strings. Its error holds neither.
func (b *bound) UnmarshalJSON(data []byte) error {
	var parts []string
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) != 2 {
		return errBoundForm
	}
	b.For, b.Value = parts[0], parts[1]
	return nil
}

// secret returns the value if it is for that purpose, else the zero Secret.
func (b *bound) secret(purpose string) creds.Secret {
	if b == nil || b.For != purpose {
		return creds.Secret{}
	}
	return creds.NewSecret(b.Value)
}

// value returns the value, whatever it is for.
func (b *bound) value() creds.Secret {
	if b == nil {
		return creds.Secret{}
	}
	return creds.NewSecret(b.Value)
}

// purposeOf binds a grant and its tokens to where they came from and where they go:
// whoever can edit a credential alone cannot aim a stored token at a host of his
// own, and a reader never sends the token of an older edit to a new place.
func purposeOf(c *creds.Credential) string {
	origin := c.URL
	if instance, err := c.Instance(); err == nil {
		origin = instance.Origin()
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{string(c.Authorization), c.ClientID, c.Username, c.AccessTokenURL, origin}, "\n")))
	return hex.EncodeToString(sum[:16])
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// decodeGrant reads grants/NAME. No error holds a value of it.
func decodeGrant(data creds.Secret) (grantRecord, error) {
	var g grantRecord
	if err := decode(data, &g); err != nil {
		return g, fmt.Errorf("reading a grant: %w", err)
	}
	_ = json.Unmarshal([]byte(data.Reveal()), &g.rest) // decode has read it already
	for _, name := range memberNames(g) {
		delete(g.rest, name)
	}
	return g, nil
}

// encode makes the JSON of grants/NAME, with the members that are not known here.
func (g grantRecord) encode() creds.Secret {
	if g.Schema == "" {
		g.Schema = schema
	}
	known, members := marshal(g), map[string]json.RawMessage{}
	_ = json.Unmarshal(known, &members) // known is an object
	for name, value := range g.rest {
		members[name] = value
	}
	return creds.NewSecret(string(marshal(members)))
}

// decodeToken reads tokens/NAME. No error holds a value of it.
func decodeToken(data creds.Secret) (tokenRecord, error) {
	var t tokenRecord
	if err := decode(data, &t); err != nil {
		return t, fmt.Errorf("reading a token: %w", err)
	}
	return t, nil
}

func (t tokenRecord) encode() creds.Secret { return creds.NewSecret(string(marshal(t))) }

var (
	errRecordForm   = errors.New("the record is not one of pillion's")
	errRecordSchema = errors.New("the record was written by a newer pillion: update this one")
)

// decode reads a record of our major version; members that dst does not have are
// those of a newer minor one, or of package creds.
func decode(data creds.Secret, dst any) error {
	var head struct {
		Schema string `json:"schema"`
	}
	raw := []byte(data.Reveal())
	if json.Unmarshal(raw, &head) != nil {
		return errRecordForm
	}
	if major, _, _ := strings.Cut(head.Schema, "."); major != "1" {
		if version, err := strconv.Atoi(major); err == nil && version > 1 {
			return errRecordSchema
		}
		return errRecordForm
	}
	if json.Unmarshal(raw, dst) != nil {
		return errRecordForm
	}
	return nil
}

// marshal encodes a struct of this package, none of which can fail to.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("token: encoding a record: " + err.Error())
	}
	return data
}

// memberNames are the JSON names of a struct's fields.
func memberNames(v any) []string {
	var names []string
	for field := range reflect.TypeOf(v).Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
