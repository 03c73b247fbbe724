package token

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// canary is what a provider writes where it must never come out again.
const canary = "canary-5e1f-do-not-print"

func jwt(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

// TestExpiresIn: what a token endpoint says of a token's life, and what we make of it.
func TestExpiresIn(t *testing.T) {
	halfHour := jwt(`{"iat":1000000000,"exp":1000001800}`)
	for _, row := range []struct {
		name  string
		token string // default: opaque
		raw   string // of expires_in; "" leaves it out
		want  time.Duration
	}{
		{"36 expires_in as number", "", `3600`, time.Hour},
		{"36 expires_in as string", "", `"3600"`, time.Hour},
		{"36 expires_in as float", "", `3600.5`, time.Hour + 500*time.Millisecond},
		{"36 expires_in as string with a fraction", "", `"3600.5"`, time.Hour + 500*time.Millisecond},
		{"36 expires_in in exponent form", "", `3.6e3`, time.Hour},
		{"36 expires_in with blanks", "", `" 3600 "`, time.Hour},
		{"36 expires_in as duration", "", `"1h"`, time.Hour},
		{"36 expires_in missing", "", ``, 300 * time.Second},
		{"36 expires_in null", "", `null`, 300 * time.Second},
		{"36 expires_in empty", "", `""`, 300 * time.Second},
		{"36 expires_in as a word", "", `"never"`, 300 * time.Second},
		{"36 expires_in inf", "", `"inf"`, 300 * time.Second},
		{"36 expires_in NaN", "", `"NaN"`, 300 * time.Second},
		{"36 expires_in as object", "", `{"seconds":3600}`, 300 * time.Second},
		{"36 expires_in true", "", `true`, 300 * time.Second},
		{"36 expires_in 0", "", `0`, 300 * time.Second},
		{"36 expires_in negative", "", `-3600`, 300 * time.Second},
		{"36 expires_in a hair above 0", "", `0.0001`, 300 * time.Second},
		{"36 expires_in huge", "", `31536000`, 24 * time.Hour},
		{"36 expires_in beyond int64", "", `99999999999999999999999`, 24 * time.Hour},
		{"36 expires_in beyond float64", "", `"1e999"`, 24 * time.Hour},
		{"36 missing, a JWT of another clock", halfHour, ``, 30 * time.Minute},
		{"36 0, a JWT", halfHour, `0`, 30 * time.Minute},
		{"36 expires_in wins over a JWT", halfHour, `60`, time.Minute},
		{"36 missing, a JWT without iat", jwt(`{"exp":1000001800}`), ``, 300 * time.Second},
		{"36 missing, a JWT that ends before it began", jwt(`{"iat":2000000000,"exp":1000000000}`), ``, 300 * time.Second},
		{"36 missing, a JWT for ever", jwt(`{"iat":0,"exp":1e300}`), ``, 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t)
			token := row.token
			if token == "" {
				token = "opaque"
			}
			body := fmt.Sprintf(`{"access_token":%q`, token)
			if row.raw != "" {
				body += `,"expires_in":` + row.raw
			}
			f.provider.Next(credstest.Reply(200, "application/json", body+"}"))
			authorization, err := f.Authorize(t.Context(), f.jira)
			if err != nil {
				t.Fatal(err)
			}
			if got := authorization.Expires.Sub(authorization.Issued); got != row.want {
				t.Errorf("lives for %s, want %s", got, row.want)
			}
		})
	}

	t.Run("36 clock skew: a JWT issued in our future is good now", func(t *testing.T) {
		f := newFixture(t)
		ahead := f.clock.Now().Add(3 * time.Hour).Unix()
		token := jwt(fmt.Sprintf(`{"iat":%d,"exp":%d}`, ahead, ahead+600))
		f.provider.Next(credstest.ReplyToken(token, nil))
		if got := f.bearer(t); got != "Bearer "+token {
			t.Errorf("%q", got)
		}
		f.wantCalls(t, 1)
	})

	t.Run("36 expires_in 0 with the token we have prolongs nothing", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(credstest.ReplyToken("ending", 600))
		f.bearer(t)
		f.heard.next(t)
		f.provider.Next(credstest.ReplyToken("ending", 0), credstest.ReplyToken("ending", 0))
		f.clock.pass(301 * time.Second)
		f.bearer(t)
		f.heard.next(t)
		f.clock.pass(300 * time.Second)
		if got := f.refusal(t); got.Reason != ReasonBadResponse {
			t.Errorf("%+v", got)
		}
	})
}

// TestAnswers: bodies of every kind, with a 2xx status.
func TestAnswers(t *testing.T) {
	bare := jwt(`{"iat":1,"exp":601}`)
	for _, row := range []struct {
		name   string
		reply  http.HandlerFunc
		want   string // token; "" for a refusal
		reason string
	}{
		{name: "37 JSON behind a byte order mark", reply: credstest.Reply(200, "application/json", "\xef\xbb\xbf{\"access_token\":\"a\"}"), want: "a"},
		{name: "37 JSON as text/plain", reply: credstest.Reply(200, "text/plain", `{"access_token":"a","expires_in":"3600.0"}`), want: "a"},
		{name: "37 JSON as text/html", reply: credstest.Reply(200, "text/html", ` {"access_token":"a"} `), want: "a"},
		{name: "37 a form", reply: credstest.Reply(200, "application/x-www-form-urlencoded", "access_token=a%2Fb&expires_in=60"), want: "a/b"},
		{name: "37 a form as text/plain", reply: credstest.Reply(200, "text/plain", "token_type=bearer&access_token=a"), want: "a"},
		{name: "37 a bare JWT", reply: credstest.Reply(200, "text/plain", bare+"\n"), want: bare},
		{name: "37 a quoted JWT", reply: credstest.Reply(200, "application/json", `"`+bare+`"`), want: bare},
		{name: "37 201", reply: credstest.Reply(201, "application/json", `{"access_token":"a"}`), want: "a"},
		{name: "37 error null beside a token", reply: credstest.Reply(200, "application/json", `{"access_token":"a","error":null}`), want: "a"},
		{name: "37 token_type of an odd kind", reply: credstest.Reply(200, "application/json", `{"access_token":"a","token_type":{"x":1}}`), want: "a"},

		{name: "37 empty 200", reply: credstest.Reply(200, "application/json", ""), reason: ReasonBadResponse},
		{name: "37 204", reply: credstest.Reply(204, "application/json", ""), reason: ReasonBadResponse},
		{name: "37 HTML 200", reply: credstest.Reply(200, "text/html", "<!doctype html>"+canary), reason: ReasonBadResponse},
		{name: "37 a 1 MiB body", reply: credstest.Reply(200, "application/json", `{"access_token":"a","x":"`+strings.Repeat("x", 1<<20)+`"}`), reason: ReasonBadResponse},
		{name: "37 a token of 40 KiB", reply: credstest.ReplyToken(strings.Repeat("x", 40<<10), 60), reason: ReasonBadResponse},
		{name: "37 cut JSON", reply: credstest.Reply(200, "application/json", `{"access_token":"`+canary), reason: ReasonBadResponse},
		{name: "37 a JSON array", reply: credstest.Reply(200, "application/json", `["`+canary+`"]`), reason: ReasonBadResponse},
		{name: "37 a word", reply: credstest.Reply(200, "text/plain", canary), reason: ReasonBadResponse},
		{name: "37 no token", reply: credstest.Reply(200, "application/json", `{"id_token":"`+canary+`"}`), reason: ReasonBadResponse},
		{name: "37 ACCESS_TOKEN", reply: credstest.Reply(200, "application/json", `{"ACCESS_TOKEN":"`+canary+`"}`), reason: ReasonBadResponse},
		{name: "37 token null", reply: credstest.Reply(200, "application/json", `{"access_token":null}`), reason: ReasonBadResponse},
		{name: "37 token as object", reply: credstest.Reply(200, "application/json", `{"access_token":{"v":"`+canary+`"}}`), reason: ReasonBadResponse},

		{name: "19 token with CR LF", reply: credstest.ReplyToken("a\r\nX-Evil: "+canary, 60), reason: ReasonBadResponse},
		{name: "19 token with NUL", reply: credstest.ReplyToken("a\x00"+canary, 60), reason: ReasonBadResponse},
		{name: "19 token with a space", reply: credstest.ReplyToken("a "+canary, 60), reason: ReasonBadResponse},
		{name: "19 token beyond ASCII", reply: credstest.ReplyToken("tök"+canary, 60), reason: ReasonBadResponse},

		{name: "38 error in a 200", reply: credstest.ReplyError(200, "invalid_grant", canary), reason: ReasonInvalidGrant},
		{name: "38 error of its own kind in a 200", reply: credstest.Reply(200, "application/json", `{"error":{"message":"`+canary+`"},"access_token":"`+canary+`"}`), reason: ReasonBadResponse},
		{name: "38 the secret in an error's description", reply: credstest.ReplyError(400, "invalid_scope", canary), reason: ReasonOther4xx},
		{name: "38 the secret as error code", reply: credstest.ReplyError(400, canary, canary), reason: ReasonOther4xx},
		{name: "38 401 without a body", reply: credstest.Reply(401, "text/plain", canary), reason: ReasonInvalidClient},
		{name: "38 a form of an error", reply: credstest.Reply(400, "text/plain", "error=invalid_client&x="+canary), reason: ReasonInvalidClient},
		{name: "38 403 invalid_grant", reply: credstest.ReplyError(403, "invalid_grant", canary), reason: ReasonInvalidGrant},
		{name: "38 404", reply: credstest.Reply(404, "text/html", "<p>"+canary), reason: ReasonOther4xx},
		{name: "38 500 with a stack trace", reply: credstest.Reply(500, "text/html", "<p>"+canary), reason: ReasonServer5xx},
		{name: "38 temporarily_unavailable", reply: credstest.ReplyError(400, "temporarily_unavailable", canary), reason: ReasonServer5xx},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t)
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
			if report.OK {
				t.Error("Check is content")
			}
			out := printed(err, f.State("jira"), f.heard.next(t), report, strings.Join(report.Lines, "\n"))
			if strings.Contains(out, canary) || strings.Contains(out, f.provider.ClientSecret) {
				t.Errorf("a secret came out:\n%s", out)
			}
		})
	}
}

func TestSlowDrip(t *testing.T) {
	for status, want := range map[int]string{200: ReasonTimeout, 500: ReasonServer5xx} {
		t.Run(fmt.Sprintf("37 a slow drip of a %d", status), func(t *testing.T) {
			f := newFixture(t)
			f.Check(t.Context(), f.jira) // the connection stands when the time begins
			f.Timeout = 250 * time.Millisecond
			f.provider.Answer(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				credstest.ReplyDrip()(w, r)
			})
			// On a machine so busy that not even the status came, that is a time-out too.
			if got := f.refusal(t); got.Reason != want && (got.Status != 0 || got.Reason != ReasonTimeout) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestRedirectsAreRefused(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprintf("23 a token endpoint's %d", status), func(t *testing.T) {
			f := newFixture(t)
			thief := credstest.NewProvider(t)
			f.HTTP = thief.Transport() // trusts both: they present the same certificate
			f.provider.Answer(credstest.ReplyRedirect(status, thief.URL()))
			if got := f.refusal(t); got.Reason != ReasonRedirect || got.Status != status {
				t.Errorf("%+v", got)
			}
			if f.State("jira").Status != StatusConfigError || f.heard.next(t).Reason != ReasonRedirect {
				t.Error("neither state nor event tell")
			}
			if thief.Calls() != 0 || f.provider.Calls() != 1 {
				t.Errorf("the other host was asked %d times", thief.Calls())
			}
		})
	}
}

type forbidden struct{ error }

func (forbidden) Forbidden() bool { return true }

func TestTransportErrors(t *testing.T) {
	secretURL := fmt.Errorf("Post %q: ", "https://x/?key="+canary)
	for _, row := range []struct {
		name   string
		err    error
		reason string
		words  string
	}{
		{"27 the dial guard says no", fmt.Errorf("dialing: %w", forbidden{secretURL}), ReasonForbiddenTarget, "does not connect to"},
		{"connection refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, ReasonNetwork, "refused"},
		{"no such host", &net.DNSError{Name: canary}, ReasonNetwork, "cannot be resolved"},
		{"a time-out", &net.DNSError{IsTimeout: true}, ReasonTimeout, ""},
		{"deadline", context.DeadlineExceeded, ReasonTimeout, ""},
		{"EOF", errors.Join(io.ErrUnexpectedEOF, secretURL), ReasonNetwork, "broke"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t)
			f.HTTP = roundTrip(func(*http.Request) (*http.Response, error) { return nil, row.err })
			refused := f.refusal(t)
			event := f.heard.next(t)
			if refused.Reason != row.reason || event.Reason != row.reason || !strings.Contains(event.Detail, row.words) {
				t.Errorf("%v, %+v", refused, event)
			}
			if out := printed(refused, event, f.State("jira")); strings.Contains(out, canary) {
				t.Errorf("a secret came out:\n%s", out)
			}
		})
	}

	t.Run("an authority that is not trusted", func(t *testing.T) {
		f := newFixture(t)
		f.HTTP = &http.Transport{}
		if got := f.refusal(t); got.Reason != ReasonNetwork || !strings.Contains(f.State("jira").Detail, "not trusted") {
			t.Errorf("%v, %+v", got, f.State("jira"))
		}
		f.wantCalls(t, 0)
	})
}

func TestTokenURLMustBeHTTPS(t *testing.T) {
	for _, raw := range []string{"http://127.0.0.1/token", "https://user:pw@127.0.0.1/", "https:///x", "://", "file:///etc/passwd", ""} {
		f := newFixture(t)
		f.jira.AccessTokenURL = raw
		f.HTTP = roundTrip(func(r *http.Request) (*http.Response, error) {
			t.Errorf("sent to %s", r.URL)
			return nil, io.EOF
		})
		if got := f.refusal(t).Reason; got != ReasonForbiddenTarget {
			t.Errorf("%q: %s", raw, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	providersNow := now.Add(-time.Hour)
	for value, want := range map[string]time.Duration{
		"":    0,
		"7":   7 * time.Second,
		"-7":  0,
		"7.5": 0,
		providersNow.Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		providersNow.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		header := http.Header{"Retry-After": {value}, "Date": {providersNow.Format(http.TimeFormat)}}
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// FuzzAnswer: whatever a provider sends, there is a sane token or a failure.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a","expires_in":3600}`, "\xef\xbb\xbf{}", "access_token=a&expires_in=1h", "<html>", "",
		jwt(`{"iat":1,"exp":601}`), `"` + jwt(`{}`) + `"`, `{"error":"invalid_grant"}`, `{"error":{}}`, `{"expires_in":1e400,"access_token":"a"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readAnswer(200, body)
		if err != nil {
			failed := asFailure(err)
			known := false
			for _, reason := range Reasons() {
				known = known || reason == failed.reason
			}
			if !known || failed.code != knownCode(failed.code) {
				t.Errorf("failure %+v", failed)
			}
			return
		}
		if !isToken(got.token.Reveal()) || got.lifetime < minLifetime || got.lifetime > maxLifetime {
			t.Errorf("token %q for %s", got.token.Reveal(), got.lifetime)
		}
		if strings.ContainsAny(got.kind, "\r\n\x00 ") {
			t.Errorf("token type %q", got.kind)
		}
	})
}
