package token

import (
	"context"
	"encoding/base64"
	"net/textproto"
	"strings"

	"pillion/creds"
)

// static is the Source of a credential that needs no token.
type static struct{ authorization *creds.Authorization }

var _ Source = static{}

func (s static) Authorization(context.Context) (*creds.Authorization, error) {
	return s.authorization, nil
}

func (static) Refused(context.Context, string) (*creds.Authorization, error) {
	return nil, creds.ErrNoProgress
}

func (static) State() State { return State{Status: StatusNone} }

func (static) Close() {}

func none(*creds.Credential) creds.Authorization { return creds.Authorization{} }

func basic(c *creds.Credential) creds.Authorization {
	pair := c.Username + ":" + c.Password.Reveal()
	return headerOf("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
}

func bearer(c *creds.Credential) creds.Authorization {
	return tokenField(c, c.Token)
}

// tokenField is the header field that carries a token.
func tokenField(c *creds.Credential, token creds.Secret) creds.Authorization {
	return headerOf(c.TokenHeader(), c.Prefix()+token.Reveal())
}

func apiKey(c *creds.Credential) creds.Authorization {
	if c.APIKeyQuery != "" {
		return creds.Authorization{Query: []creds.AuthorizationField{{Name: c.APIKeyQuery, Value: c.APIKey}}}
	}
	return headerOf(c.APIKeyHeader, c.APIKey.Reveal())
}

func headerOf(name, value string) creds.Authorization {
	return creds.Authorization{Headers: []creds.AuthorizationField{{
		Name: textproto.CanonicalMIMEHeaderKey(name), Value: creds.NewSecret(value),
	}}}
}

// withHeaders adds c's extra header fields to what its kind sends. Where both
// name the same field the kind's stands: it is what the type promises.
func withHeaders(c *creds.Credential, authorization creds.Authorization) *creds.Authorization {
	taken := map[string]bool{}
	for _, field := range authorization.Headers {
		taken[field.Name] = true
	}
	for _, header := range c.Headers {
		name := textproto.CanonicalMIMEHeaderKey(header.Name)
		if taken[name] {
			continue
		}
		taken[name] = true
		authorization.Headers = append(authorization.Headers, creds.AuthorizationField{Name: name, Value: header.Value})
	}
	return &authorization
}

// checkFields refuses what would end a header line early or hide in one. A
// credential was validated when it was saved, but not every store's record was
// written by us.
func checkFields(c *creds.Credential, authorization *creds.Authorization) error {
	invalid := &creds.InvalidError{Name: c.Name}
	for _, field := range authorization.Headers {
		if !isFieldName(field.Name) {
			invalid.Fields = append(invalid.Fields, creds.FieldError{
				Field: "headers", Problem: "a header name may hold letters, digits and -_ only",
			})
		} else if !isFieldValue(field.Value.Reveal()) {
			invalid.Fields = append(invalid.Fields, creds.FieldError{
				Field: field.Name, Problem: "what is sent as this header holds a line break or another control character: enter it again without",
			})
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

func isFieldName(name string) bool {
	for i := range len(name) {
		b := name[i]
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, b) >= 0 {
			return false
		}
	}
	return name != ""
}

// isFieldValue is RFC 9110's field-value without tabs.
func isFieldValue(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] == 0x7f {
			return false
		}
	}
	return true
}
