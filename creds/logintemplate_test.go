package creds

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

func loginCredential(template string) *Credential {
	return &Credential{Name: "a", Protocol: HTTPS, URL: "https://tool.example:8443/", Authorization: Login, AccessTokenURL: "https://tool.example:8443/login",
		Username: `me"&{{password}}`, Password: NewSecret(`p"w\<>&=+ä{{username}}`), Params: map[string]string{"role": "Admin"}, LoginTemplate: NewSecret(template)}
}

// TestLoginTemplateFill: what a password holds never changes the request's shape.
func TestLoginTemplateFill(t *testing.T) {
	for _, row := range []struct {
		template, contentType, body string
		header                      map[string]string
	}{
		{`{"form": {"username": "{{username}}", "password": "{{ password }}", "authString": ""}}`, "application/x-www-form-urlencoded",
			`authString=&password=p%22w%5C%3C%3E%26%3D%2B%C3%A4%7B%7Busername%7D%7D&username=me%22%26%7B%7Bpassword%7D%7D`, nil},
		{`{"json": {"tenant": "{{host}}", "user": {"name": "{{username}}", "pass": ["{{password}}"]}, "n": 12345678901234567890, "role": "x-{{param.role}}", "{{username}}": null}}`, "application/json",
			`{"n":12345678901234567890,"role":"x-Admin","tenant":"tool.example","user":{"name":"me\"&{{password}}","pass":["p\"w\\<>&=+ä{{username}}"]},"{{username}}":null}`, nil},
		{`{"json": "{{username}}", "header": {"content-type": "application/json;charset=UTF-8", "X-Requested-By": "{{param.role}}"}}`, "application/json;charset=UTF-8",
			`"me\"&{{password}}"`, map[string]string{"X-Requested-By": "Admin"}},
		{`{"method": "GET", "header": {"Authorization": "Basic {{basic}}"}, "token": "/token"}`, "", "",
			map[string]string{"Authorization": "Basic bWUiJnt7cGFzc3dvcmR9fTpwIndcPD4mPSvDpHt7dXNlcm5hbWV9fQ=="}},
	} {
		c := loginCredential(row.template)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", row.template, err)
			continue
		}
		template, err := ParseLoginTemplate(c.LoginTemplate)
		if err != nil {
			t.Fatal(err)
		}
		header, body, err := template.Fill(c)
		if err != nil || body.Reveal() != row.body || header["Content-Type"].Reveal() != row.contentType {
			t.Errorf("%s:\n%s %v\nwant\n%s", row.template, body.Reveal(), err, row.body)
		}
		for name, want := range row.header {
			if got := header[name].Reveal(); got != want {
				t.Errorf("%s: %s: %q", row.template, name, got)
			}
		}
	}
}

func TestLoginTemplateProblems(t *testing.T) {
	for _, row := range []struct{ template, problem string }{
		{"", "is not valid JSON"},
		{planted, "is not valid JSON (at byte 1): it is a JSON object with method"},
		{`["` + planted + `"]`, "is not a JSON object"},
		{`{"form": "` + planted + `"}`, `has the wrong type of value in field "form"`},
		{`{"from": {}}`, `has an unknown field "from"`},
		{`{} {}`, "holds more than one JSON object"},
		{`{"method": "` + planted + `"}`, "has a method other than POST, PUT or GET"},
		{`{"form": {}, "json": 1}`, "has both form and json"},
		{`{"method": "GET", "form": {}}`, "has a body, which GET does not send"},
		{`{"token": "access_token"}`, `has a "token" that is no JSON pointer`},
		{`{"token": "/a~2"}`, `has a "token" that is no JSON pointer`},
		{`{"token": "/a", "expires_in": "b"}`, `has an "expires_in" that is no JSON pointer`},
		{`{"expires_in": "/b"}`, `has an "expires_in", but takes the whole body`},
		{`{"form": {"a": "{{` + planted + `}}"}}`, "has a placeholder that is not known"},
		{`{"json": {"a": ["{{username"]}}`, "has a placeholder that is not known"},
		{`{"header": {"a": "{{param.}}"}}`, "has a placeholder that is not known"},
		{`{"header": {"a": "b\r\nHost: c"}}`, "has a header with a line break"},
		{strings.Repeat(" ", maxTemplate) + "{}", "is longer than 65536 bytes"},
	} {
		_, err := ParseLoginTemplate(NewSecret(row.template))
		if err == nil || !strings.HasPrefix(err.Error(), row.problem) || strings.Contains(err.Error(), planted) {
			t.Errorf("%.60s: %v, want %s", row.template, err, row.problem)
		}
	}
}

// FuzzLoginTemplate: whatever is pasted, no panic; what is accepted can be filled,
// and what was put in comes out of the body as it was.
func FuzzLoginTemplate(f *testing.F) {
	for _, seed := range []string{
		`{"form": {"u": "{{username}}", "p": "{{password}}"}}`,
		`{"method":"PUT","json": [{"u": "{{username}}"}, "{{basic}}", 1.0, null], "token": "/a/b~0c/0", "expires_in": "/e"}`,
		`{"header": {"X": "{{param.role}}{{host}}"}}`, `{"json": "{{"}`, `{"json": null}`, "{}", "null", "[]", `{"form": null}`,
	} {
		f.Add(seed, `"},{"x":"`)
	}
	f.Fuzz(func(t *testing.T, text, password string) {
		template, err := ParseLoginTemplate(NewSecret(text))
		if err != nil {
			return
		}
		c := &Credential{URL: "https://tool.example/", Protocol: HTTPS, Username: "u", Password: NewSecret(strings.ToValidUTF8(password, "?")), Params: map[string]string{}}
		_, _, err = template.Fill(c)
		if (err != nil) != (len(template.missing(c, []string{"password"})) > 0) {
			t.Fatalf("filled: %v; missing: %q", err, template.missing(c, nil))
		}
		if err != nil || template.JSON == nil && template.Form == nil {
			return
		}
		_, body, _ := template.Fill(c)
		if template.Form != nil {
			form, err := url.ParseQuery(body.Reveal())
			if err != nil || len(form) != len(template.Form) {
				t.Fatalf("%v: %q", err, body.Reveal())
			}
			return
		}
		var before, after any
		_ = json.Unmarshal(template.JSON, &before)
		if err := json.Unmarshal([]byte(body.Reveal()), &after); err != nil || shape(before) != shape(after) {
			t.Fatalf("%v: %q of %q", err, body.Reveal(), text)
		}
	})
}

// shape is a JSON value without its strings.
func shape(value any) string {
	blank, _ := mapStrings(value, func(string) (string, error) { return "", nil })
	data, _ := json.Marshal(blank)
	return string(data)
}
