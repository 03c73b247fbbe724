package token

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
)

// refusedWith asks with a refresh token and returns the failure.
func refusedWith(ctx context.Context, t *testing.T, ask grant) *failure {
	t.Helper()
	_, err := ask(ctx, proof{refresh: creds.NewSecret("r")})
	var failed *failure
	if !errors.As(err, &failed) {
		t.Fatalf("%v", err)
	}
	return failed
}

// hangUp ends the connection, having read the request.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// TestMayHaveActed: after which answers a rotating refresh token may be spent.
func TestMayHaveActed(t *testing.T) {
	for _, row := range []struct {
		name    string
		reply   http.HandlerFunc
		unknown bool
	}{
		{"connection cut after the request", hangUp, true},
		{"cut inside a 200's body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"access_token":`)
			panic(http.ErrAbortHandler)
		}, true},
		{"500", credstest.Reply(500, "text/html", "<p>"), true},
		{"500 server_error", credstest.ReplyError(500, "server_error", ""), true},
		{"502", credstest.Reply(502, "text/html", "<p>"), true},
		{"504", credstest.Reply(504, "text/html", "<p>"), true},
		{"524 of a proxy in front", credstest.Reply(524, "text/html", "<p>"), true},
		{"200 and empty", credstest.Reply(200, "application/json", ""), true},
		{"200 and a web page", credstest.Reply(200, "text/html", "<p>"), true},
		{"200 without a token", credstest.Reply(200, "application/json", `{"id_token":"x"}`), true},
		{"200 with a token that no header may carry", credstest.ReplyToken("a\r\nb", 60), true},
		{"200 with an error of its own kind", credstest.Reply(200, "application/json", `{"error":{"x":1}}`), true},
		{"200, too long", credstest.Reply(200, "application/json", string(make([]byte, maxBody+1))), true},
		{"204", credstest.Reply(204, "", ""), true},

		{"500 invalid_grant", credstest.ReplyError(500, "invalid_grant", ""), false},
		{"200 invalid_grant", credstest.ReplyError(200, "invalid_grant", ""), false},
		{"400 server_error", credstest.ReplyError(400, "server_error", ""), false},
		{"400", credstest.Reply(400, "text/html", "<p>"), false},
		{"401", credstest.Reply(401, "text/html", "<p>"), false},
		{"403 invalid_grant", credstest.ReplyError(403, "invalid_grant", ""), false},
		{"404", credstest.Reply(404, "text/html", "<p>"), false},
		{"429", credstest.Reply(429, "text/html", "<p>"), false},
		{"501", credstest.Reply(501, "text/html", "<p>"), false},
		{"503", credstest.Reply(503, "text/html", "<p>"), false},
		{"503 temporarily_unavailable", credstest.ReplyError(503, "temporarily_unavailable", ""), false},
		{"307", credstest.ReplyRedirect(307, "https://other.example/"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, ask := asked(t, authorizationCodeCredential)
			f.provider.Answer(row.reply)
			failed := refusedWith(t.Context(), t, ask)
			if failed.unknown != row.unknown {
				t.Errorf("unknown %t: %s", failed.unknown, failed.words())
			}
			f.wantCalls(t, 1)
		})
	}

	t.Run("no answer in time", func(t *testing.T) {
		f, ask := asked(t, authorizationCodeCredential)
		ctx, leave := context.WithCancel(t.Context())
		f.provider.Answer(func(w http.ResponseWriter, r *http.Request) {
			leave()
			<-r.Context().Done()
		})
		if failed := refusedWith(ctx, t, ask); !failed.unknown {
			t.Errorf("%s", failed.words())
		}
	})

	t.Run("cut on a connection that was kept: not asked again", func(t *testing.T) {
		f, ask := asked(t, authorizationCodeCredential)
		f.provider.Answer(credstest.ReplyToken("a", 60))
		if _, err := ask(t.Context(), proof{refresh: creds.NewSecret("r")}); err != nil {
			t.Fatal(err)
		}
		f.provider.Answer(hangUp)
		if failed := refusedWith(t.Context(), t, ask); !failed.unknown {
			t.Errorf("%s", failed.words())
		}
		f.wantCalls(t, 2) // a POST that was written is never repeated by net/http
	})
}

// TestNeverLeft: what fails before the request is written is sure to have done nothing.
func TestNeverLeft(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for name, edit := range map[string]func(f *fixture){
		"refused":      func(f *fixture) { f.jira.AccessTokenURL = "https://" + dead.Addr().String() + "/token" },
		"no such host": func(f *fixture) { f.jira.AccessTokenURL = "https://nowhere.invalid/token" },
		"not trusted":  func(f *fixture) { f.HTTP = &http.Transport{} },
		"no way out":   func(f *fixture) { f.HTTP = nil },
		"not https":    func(f *fixture) { f.jira.AccessTokenURL = "http://login.example/token" },
		"dialled too long": func(f *fixture) {
			f.HTTP = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, context.DeadlineExceeded
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			authorizationCodeCredential(f.jira)
			edit(f)
			if failed := refusedWith(t.Context(), t, authorizationCode(f.jira, f.endpoint())); failed.unknown {
				t.Errorf("%s", failed.words())
			}
		})
	}

	t.Run("a transport that says nothing is not believed", func(t *testing.T) {
		f := newFixture(t)
		f.HTTP = roundTrip(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
		if failed := refusedWith(t.Context(), t, authorizationCode(f.jira, f.endpoint())); !failed.unknown {
			t.Errorf("%s", failed.words())
		}
	})
}
