package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"pillion/creds"
)

// loginCall is a tool's own way to a token: the request of the credential's
// template, and an answer that holds the token or is one. There is no refresh
// token: a new login costs what the first did.
func loginCall(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context, _ proof) (answer, error) {
		if f := e.ready(c); f != nil {
			return answer{}, f
		}
		template, request, err := loginRequest(ctx, c)
		if err != nil {
			return answer{}, &failure{reason: ReasonForbiddenTarget, detail: "nothing was sent: the login template cannot be filled"}
		}
		got, err := e.send(request, func(status int, body []byte) (answer, error) { return readLogin(template, status, body) })
		return withLifetime(c, got), asLogin(err)
	}
}

func loginRequest(ctx context.Context, c *creds.Credential) (*creds.LoginTemplate, *http.Request, error) {
	template, err := creds.ParseLoginTemplate(c.LoginTemplate)
	if err != nil {
		return nil, nil, err
	}
	header, body, err := template.Fill(c)
	if err != nil {
		return nil, nil, err
	}
	var content io.Reader
	if !body.IsZero() {
		content = strings.NewReader(body.Reveal())
	}
	request, err := http.NewRequestWithContext(ctx, template.Method, withoutFragment(c.AccessTokenURL), content)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("User-Agent", "pillion")
	for name, value := range header {
		request.Header.Set(name, value.Reveal())
	}
	return template, request, nil
}

// asLogin sorts a refusal by its status: a login call knows no OAuth codes, and of
// those that refuse a password some say 400 (Ivanti), some 401 and some 403.
// Asking again would count towards the lock of the account, so it is final.
func asLogin(err error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	switch f.status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return &failure{reason: ReasonInvalidGrant, status: f.status, detail: "the login call refuses the user name, the password or something else in its template"}
	}
	return f
}

// readLogin reads a 2xx answer as the template says.
func readLogin(t *creds.LoginTemplate, status int, body []byte) (answer, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(body) == 0:
		return answer{}, badResponse(status, "the answer is empty")
	case body[0] == '<':
		return answer{}, badResponse(status, "the answer is a web page: the access token URL is probably not the login call")
	case t.Token == "" && (body[0] == '{' || body[0] == '['):
		return answer{}, badResponse(status, "the answer is JSON: say in the template where its token is")
	case t.Token == "":
		return newAnswer(status, fields{token: wholeBody(body)})
	}
	value, ok := decodeJSON(body)
	if !ok {
		return answer{}, badResponse(status, "the answer is not JSON")
	}
	f := fields{token: scalar(pointTo(value, t.Token))}
	if f.token == "" {
		return answer{}, badResponse(status, "the answer holds no text where the template looks for the token")
	}
	if t.ExpiresIn != "" {
		f.expiresIn = scalar(pointTo(value, t.ExpiresIn))
	}
	return newAnswer(status, f)
}

// wholeBody takes the quotes off a body that is one JSON string.
func wholeBody(body []byte) string {
	var text string
	if json.Unmarshal(body, &text) == nil {
		return text
	}
	return string(body)
}

func decodeJSON(body []byte) (value any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&value) != nil {
		return nil, false
	}
	_, err := d.Token()
	return value, err == io.EOF
}

// scalar is a string's content or a number as written.
func scalar(value any, _ bool) string {
	switch v := value.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}
