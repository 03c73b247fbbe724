package creds

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
)

// LoginTemplate is the request that returns a token, where a tool has a login call
// of its own instead of OAuth. It goes to the credential's access token URL.
//
//	{
//	  "method": "POST",                             POST (default), PUT or GET
//	  "header": {"X-Requested-By": "pillion"},
//	  "form": {"username": "{{username}}"},         the body: a form,
//	  "json": {"user": {"name": "{{username}}"}},   or JSON of any shape; or none
//	  "token": "/session/token",                    where the token is: a JSON pointer
//	                                                (RFC 6901); "": the whole body
//	  "expires_in": "/session/seconds"              its lifetime in seconds; optional
//	}
//
// Placeholders stand in values: {{username}} and {{password}}; {{basic}}, which is
// both as Basic authorization has them; {{host}}, that of the instance URL; and
// {{param.NAME}}, a parameter of the credential. They are put in after the parsing,
// so that no password can end the string that it stands in.
type LoginTemplate struct {
	Method    string            `json:"method"`
	Header    map[string]string `json:"header"`
	Form      map[string]string `json:"form"`
	JSON      json.RawMessage   `json:"json"`
	Token     string            `json:"token"`
	ExpiresIn string            `json:"expires_in"`
}

// maxTemplate is far more than a login call needs.
const maxTemplate = 64 << 10

// ParseLoginTemplate reads a template. Its error says where, never what: the text
// may be a secret, and need not be a template at all.
func ParseLoginTemplate(text Secret) (*LoginTemplate, error) {
	if len(text.Reveal()) > maxTemplate {
		return nil, fmt.Errorf("is longer than %d bytes", maxTemplate)
	}
	d := json.NewDecoder(strings.NewReader(text.Reveal()))
	d.DisallowUnknownFields()
	t := &LoginTemplate{}
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("%w: it is a JSON object with method, header, form or json, token, expires_in", withoutValues(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("holds more than one JSON object")
	}
	if t.Method == "" {
		t.Method = "POST"
	}
	if string(t.JSON) == "null" {
		t.JSON = nil
	}
	return t, t.check()
}

func (t *LoginTemplate) check() error {
	switch {
	case !slices.Contains([]string{"POST", "PUT", "GET"}, t.Method):
		return errors.New("has a method other than POST, PUT or GET")
	case t.Form != nil && t.JSON != nil:
		return errors.New("has both form and json: keep one")
	case t.Method == "GET" && (t.Form != nil || t.JSON != nil):
		return errors.New("has a body, which GET does not send: use POST")
	case !isPointer(t.Token):
		return errors.New(`has a "token" that is no JSON pointer: write "/name", "/outer/inner", or "" for the whole body`)
	case !isPointer(t.ExpiresIn):
		return errors.New(`has an "expires_in" that is no JSON pointer: write "/name" or "/outer/inner"`)
	case t.Token == "" && t.ExpiresIn != "":
		return errors.New(`has an "expires_in", but takes the whole body for the token: use token_lifetime`)
	}
	for text := range t.values() {
		if _, err := expand(text, func(name string) (string, bool) { return "", isPlaceholder(name) }); err != nil {
			return err
		}
	}
	for _, value := range t.Header {
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("has a header with a line break or another control character")
		}
	}
	return nil
}

// isPointer reports whether text is a JSON pointer.
func isPointer(text string) bool {
	for i := range len(text) {
		if text[i] == '~' && (i+1 == len(text) || text[i+1] != '0' && text[i+1] != '1') {
			return false
		}
	}
	return text == "" || text[0] == '/'
}

// values are the texts in which placeholders may stand.
func (t *LoginTemplate) values() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, m := range []map[string]string{t.Header, t.Form} {
			for _, value := range m {
				if !yield(value) {
					return
				}
			}
		}
		_, _ = mapStrings(decodeAny(t.JSON), func(text string) (string, error) {
			if !yield(text) {
				return "", io.EOF
			}
			return "", nil
		})
	}
}

const paramPlaceholder = "param."

func isPlaceholder(name string) bool {
	return slices.Contains([]string{"username", "password", "basic", "host"}, name) ||
		strings.HasPrefix(name, paramPlaceholder) && len(name) > len(paramPlaceholder)
}

// expand puts values in the places of {{NAME}}; what it puts in is not looked at again.
func expand(text string, value func(name string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}}")
		put, known := value(strings.TrimSpace(name))
		if !closed || !known {
			return "", errors.New("has a placeholder that is not known: there are {{username}}, {{password}}, {{basic}}, {{host}} and {{param.NAME}}")
		}
		out.WriteString(put)
		text = after
	}
}

// missing says which values of c the template needs and c does not have; stored are
// secrets that count as given.
func (t *LoginTemplate) missing(c *Credential, stored []string) []string {
	needs := map[string]bool{}
	for text := range t.values() {
		_, _ = expand(text, func(name string) (string, bool) { needs[name] = true; return "", true })
	}
	var problems []string
	if (needs["username"] || needs["basic"]) && c.Username == "" {
		problems = append(problems, "needs a user name: set username")
	}
	if (needs["password"] || needs["basic"]) && c.Password.IsZero() && !slices.Contains(stored, "password") {
		problems = append(problems, "needs a password: set password")
	}
	for _, name := range sortedKeys(needs) {
		param, isParam := strings.CutPrefix(name, paramPlaceholder)
		if _, given := c.Params[param]; isParam && !given {
			label := "one of its parameters"
			if !strings.ContainsFunc(param, func(r rune) bool { return !isTokenChar(r) }) && len(param) <= 64 {
				label = "the parameter " + param
			}
			problems = append(problems, "needs "+label+": set it as param")
		}
	}
	return problems
}

// Fill returns the request for c: its header fields, Content-Type among them, and
// its body.
func (t *LoginTemplate) Fill(c *Credential) (header map[string]Secret, body Secret, err error) {
	value := placeholders(c)
	header = map[string]Secret{}
	set := func(name, text string) error {
		full, err := expand(text, value)
		header[name] = NewSecret(full)
		return err
	}
	switch {
	case t.Form != nil:
		header["Content-Type"] = NewSecret("application/x-www-form-urlencoded")
		form := url.Values{}
		for name, text := range t.Form {
			full, err := expand(text, value)
			if err != nil {
				return nil, Secret{}, err
			}
			form.Set(name, full)
		}
		body = NewSecret(form.Encode())
	case t.JSON != nil:
		header["Content-Type"] = NewSecret("application/json")
		filled, err := mapStrings(decodeAny(t.JSON), func(text string) (string, error) { return expand(text, value) })
		if err != nil {
			return nil, Secret{}, err
		}
		body = encodeAny(filled)
	}
	for name, text := range t.Header {
		if strings.EqualFold(name, "Content-Type") {
			name = "Content-Type"
		}
		if err := set(name, text); err != nil {
			return nil, Secret{}, err
		}
	}
	return header, body, nil
}

func placeholders(c *Credential) func(string) (string, bool) {
	return func(name string) (string, bool) {
		switch name {
		case "username":
			return c.Username, true
		case "password":
			return c.Password.Reveal(), true
		case "basic":
			return base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal())), true
		case "host":
			instance, err := c.Instance()
			return instance.Host, err == nil
		}
		param, isParam := strings.CutPrefix(name, paramPlaceholder)
		value, given := c.Params[param]
		return value, isParam && given
	}
}

// mapStrings replaces the strings in a decoded JSON value, but for the names of
// members.
func mapStrings(value any, change func(string) (string, error)) (any, error) {
	var err error
	switch v := value.(type) {
	case string:
		return change(v)
	case []any:
		for i := range v {
			if v[i], err = mapStrings(v[i], change); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			if v[name], err = mapStrings(v[name], change); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// decodeAny keeps numbers as they are written.
func decodeAny(raw json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var value any
	_ = d.Decode(&value) // it was valid as a part of the template
	return value
}

// encodeAny leaves <, > and & as they are: servers compare passwords, not JSON.
func encodeAny(value any) Secret {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(value) // it came out of a decoder
	return NewSecret(strings.TrimSuffix(out.String(), "\n"))
}
