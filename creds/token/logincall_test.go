package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// loginFixture is a fixture whose credential is of type login.
func loginFixture(t *testing.T, template string) *fixture {
	t.Helper()
	f := newFixture(t)
	f.jira = &creds.Credential{
		Name: "bmc", Protocol: creds.HTTPS, URL: "https://bmc.example/", Authorization: creds.Login, Version: 1,
		Username: "me", Password: creds.NewSecret("p&w" + canary), AccessTokenURL: f.provider.URL(), LoginTemplate: creds.NewSecret(template),
	}
	if err := f.jira.Validate(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLoginRequest(t *testing.T) {
	f := loginFixture(t, `{"form": {"username": "{{username}}", "password": "{{password}}"}, "header": {"X-Requested-By": "me", "Accept": "text/plain"}}`)
	prefix := "AR-JWT"
	f.jira.HeaderPrefix = &prefix
	token := jwt(`{"iat":1,"exp":601}`)
	f.provider.Answer(credstest.Reply(200, "text/plain", token))
	authorization, err := f.Authorize(t.Context(), f.jira)
	if err != nil {
		t.Fatal(err)
	}
	if got := value(authorization, "Authorization"); got != "AR-JWT "+token || authorization.Expires.Sub(authorization.Issued) != 10*time.Minute {
		t.Errorf("%q for %s", got, authorization.Expires.Sub(authorization.Issued))
	}
	request := f.provider.Requests()[0]
	if request.Method != "POST" || request.Form.Get("username") != "me" || request.Form.Get("password") != "p&w"+canary || len(request.Form) != 2 {
		t.Errorf("%s %v", request.Method, request.Form)
	}
	if request.Header.Get("X-Requested-By") != "me" || request.Header.Get("Accept") != "text/plain" || request.Header.Get("User-Agent") != "pillion" || request.Header.Get("Authorization") != "" {
		t.Errorf("%v", request.Header)
	}
	f.bearer(t)
	f.wantCalls(t, 1)

	t.Run("in another header", func(t *testing.T) {
		f := loginFixture(t, `{"method": "GET", "header": {"Authorization": "Basic {{basic}}"}, "token": "/a/0/b~1c", "expires_in": "/life"}`)
		f.jira.HeaderName = "x-auth-token"
		f.provider.Answer(credstest.Reply(200, "application/json", `{"a":[{"b/c":"t"}],"life":"60"}`))
		authorization, err := f.Authorize(t.Context(), f.jira)
		if err != nil {
			t.Fatal(err)
		}
		if value(authorization, "X-Auth-Token") != "t" || value(authorization, "Authorization") != "" || authorization.Expires.Sub(authorization.Issued) != time.Minute {
			t.Errorf("%+v", authorization)
		}
		if request := f.provider.Requests()[0]; request.Method != "GET" || request.User != "me" || request.Password != "p&w"+canary {
			t.Errorf("%s as %q", request.Method, request.User)
		}
		if lines, err := Describe(f.jira); err != nil || len(lines) != 1 || lines[0] != "X-Auth-Token: [secret]" {
			t.Errorf("%q, %v", lines, err)
		}
	})
	t.Run("as a cookie, for a stated time", func(t *testing.T) {
		f := loginFixture(t, `{"json": null, "token": "/id"}`)
		f.jira.HeaderName, f.jira.TokenLifetime = "Cookie", time.Hour
		prefix := "session="
		f.jira.HeaderPrefix = &prefix
		f.provider.Answer(credstest.Reply(200, "application/json", `{"id":7}`))
		authorization, err := f.Authorize(t.Context(), f.jira)
		if err != nil || value(authorization, "Cookie") != "session=7" || authorization.Expires.Sub(authorization.Issued) != time.Hour {
			t.Errorf("%+v, %v", authorization, err)
		}
	})
}

// TestLoginAnswers: 37 and 38, of a login call.
func TestLoginAnswers(t *testing.T) {
	const whole, pointed = `{}`, `{"token": "/data/token", "expires_in": "/data/ttl"}`
	for _, row := range []struct {
		name, template string
		reply          http.HandlerFunc
		want, reason   string
	}{
		{name: "37 a word", template: whole, reply: credstest.Reply(200, "text/plain", "abc\r\n"), want: "abc"},
		{name: "37 a JSON string", template: whole, reply: credstest.Reply(200, "application/json", "\xef\xbb\xbf\"t#S\\u0031#2\""), want: "t#S1#2"},
		{name: "37 a member", template: pointed, reply: credstest.Reply(201, "text/html", `{"data":{"token":"abc","ttl":3600.5}}`), want: "abc"},
		{name: "37 an odd lifetime", template: pointed, reply: credstest.Reply(200, "", `{"data":{"token":"abc","ttl":{}}}`), want: "abc"},

		{name: "37 empty", template: whole, reply: credstest.Reply(200, "text/plain", " "), reason: ReasonBadResponse},
		{name: "37 a web page", template: whole, reply: credstest.Reply(200, "text/html", "<html>"+canary), reason: ReasonBadResponse},
		{name: "37 JSON for a word", template: whole, reply: credstest.Reply(200, "text/html", `{"token":"`+canary+`"}`), reason: ReasonBadResponse},
		{name: "37 a sentence", template: whole, reply: credstest.Reply(200, "text/plain", "wrong password "+canary), reason: ReasonBadResponse},
		{name: "37 no such member", template: pointed, reply: credstest.Reply(200, "", `{"data":{"Token":"`+canary+`"}}`), reason: ReasonBadResponse},
		{name: "37 null", template: pointed, reply: credstest.Reply(200, "", `{"data":{"token":null}}`), reason: ReasonBadResponse},
		{name: "37 cut JSON", template: pointed, reply: credstest.Reply(200, "", `{"data":{"token":"`+canary), reason: ReasonBadResponse},
		{name: "37 two values", template: pointed, reply: credstest.Reply(200, "", `{"data":{"token":"a"}} {}`), reason: ReasonBadResponse},
		{name: "19 a token with a line end", template: pointed, reply: credstest.Reply(200, "", `{"data":{"token":"a\r\nX: `+canary+`"}}`), reason: ReasonBadResponse},
		{name: "23 a redirect", template: whole, reply: credstest.ReplyRedirect(307, "https://other.example/"), reason: ReasonRedirect},
		{name: "38 400", template: whole, reply: credstest.Reply(400, "application/json", `["`+canary+`"]`), reason: ReasonInvalidGrant},
		{name: "38 401", template: whole, reply: credstest.Reply(401, "", canary), reason: ReasonInvalidGrant},
		{name: "38 404", template: whole, reply: credstest.Reply(404, "", canary), reason: ReasonOther4xx},
		{name: "38 500", template: whole, reply: credstest.Reply(500, "", canary), reason: ReasonServer5xx},
		{name: "38 503", template: whole, reply: credstest.Reply(503, "", canary), reason: ReasonServer5xx},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := loginFixture(t, row.template)
			f.provider.Answer(row.reply)
			if row.want != "" {
				if got := f.bearer(t); got != "Bearer "+row.want {
					t.Errorf("%q", got)
				}
				return
			}
			authorization, err := f.Authorize(t.Context(), f.jira)
			var refused *creds.TokenError
			if authorization != nil || !errors.As(err, &refused) || refused.Reason != row.reason {
				t.Errorf("%v, %v; want %s", authorization, err, row.reason)
			}
			report := f.Check(t.Context(), f.jira)
			if report.OK || len(report.Lines) != 3 || !strings.Contains(report.Lines[0], `(login, user name "me")`) {
				t.Errorf("%q", report.Lines)
			}
			if out := printed(err, f.State("bmc"), f.heard.next(t), report, strings.Join(report.Lines, "\n")); strings.Contains(out, canary) {
				t.Errorf("a secret came out:\n%s", out)
			}
		})
	}
}

func TestPointer(t *testing.T) {
	// The document of RFC 6901, section 5.
	const document = `{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}`
	value, _ := decodeJSON([]byte(document))
	for pointer, want := range map[string]string{
		"/foo": "[bar baz]", "/foo/0": "bar", "/foo/1": "baz", "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4", `/i\j`: "5", `/k"l`: "6", "/ ": "7", "/m~0n": "8",
	} {
		if got, ok := pointTo(value, pointer); !ok || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %t", pointer, got, ok)
		}
	}
	for _, pointer := range []string{"foo", "/foo/2", "/foo/-", "/foo/01", "/foo/+1", "/foo/0/0", "/FOO", "/foo/99999999999999999999"} {
		if got, ok := pointTo(value, pointer); ok {
			t.Errorf("%s: %v", pointer, got)
		}
	}
}

// FuzzPointer: no panic, and what a pointer made of member names finds is there.
func FuzzPointer(f *testing.F) {
	for _, seed := range [][2]string{{`{"a":{"b~/c":[1,{"":2}]}}`, "/a/b~0~1c/1/"}, {`[[]]`, "/0/0"}, {`"x"`, ""}, {`{`, "/"}} {
		f.Add(seed[0], seed[1])
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	f.Fuzz(func(t *testing.T, document, pointer string) {
		value, ok := decodeJSON([]byte(document))
		if !ok {
			return
		}
		_, _ = pointTo(value, pointer)
		object, _ := value.(map[string]any)
		for name, member := range object {
			got, ok := pointTo(value, "/"+escape.Replace(name))
			want, _ := json.Marshal(member)
			if have, _ := json.Marshal(got); !ok || string(have) != string(want) {
				t.Fatalf("%q of %s: %v", name, document, got)
			}
		}
	})
}
