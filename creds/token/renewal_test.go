package token

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
)

// rig is a grant in a real store and a strict provider, in a bubble of fake time.
type rig struct {
	t        *testing.T
	store    creds.Store
	provider *credstest.Rotating
	c        *creds.Credential
	dir      string

	mu     sync.Mutex
	events []Event
}

// overGrant runs a test over a fresh store whose grant has a refresh token.
func overGrant(t *testing.T, test func(t *testing.T, g *rig)) {
	t.Helper()
	provider, dir := credstest.NewRotating(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		g := newRig(t, store, provider, provider.AuthorizationCode("jira"), dir)
		g.connect(provider.Consent())
		test(t, g)
	})
}

func newRig(t *testing.T, store creds.Store, provider *credstest.Rotating, c *creds.Credential, dir string) *rig {
	t.Helper()
	c.Version = 0
	if err := creds.Save(t.Context(), store, c); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, store: store, provider: provider, c: c, dir: dir}
}

// connect stores a refresh token, as a consent would.
func (g *rig) connect(refresh string) {
	g.t.Helper()
	g.patch(map[string]any{"refresh_token": bound{purposeOf(g.c), refresh}, "gen": 1})
}

func (g *rig) patch(members map[string]any) {
	g.t.Helper()
	members["schema"] = schema
	if _, err := g.store.Patch(g.t.Context(), creds.KeyGrants+g.c.Name, creds.NewSecret(string(marshal(members)))); err != nil {
		g.t.Fatal(err)
	}
}

// process is one that has just started, with a journal of its own.
func (g *rig) process(holder string) *renewal {
	found, err := kindOf(g.c)
	if err != nil {
		g.t.Fatal(err)
	}
	return &renewal{
		store: g.store, credential: g.c, holder: holder, now: time.Now, timeout: 15 * time.Second,
		grant:   found.grant(g.c, endpoint{http: g.provider.Direct(), now: time.Now}),
		journal: directory{filepath.Join(g.dir, holder)},
		onEvent: g.hear,
	}
}

func (g *rig) hear(e Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
}

func (g *rig) heard(kind EventKind) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// record reads grants/NAME.
func (g *rig) record() grantRecord {
	g.t.Helper()
	stored, err := g.store.Get(g.t.Context(), creds.KeyGrants+g.c.Name)
	if err != nil {
		g.t.Fatal(err)
	}
	record, err := decodeGrant(stored.Data)
	if err != nil {
		g.t.Fatal(err)
	}
	return record
}

// token reads tokens/NAME.
func (g *rig) token() tokenRecord {
	g.t.Helper()
	stored, err := g.store.Get(g.t.Context(), creds.KeyTokens+g.c.Name)
	if err != nil {
		g.t.Fatal(err)
	}
	record, err := decodeToken(stored.Data)
	if err != nil {
		g.t.Fatal(err)
	}
	return record
}

// gets renews, and wants a token that upstream takes.
func (g *rig) gets(r *renewal, w want) string {
	g.t.Helper()
	token, now, err := r.renew(g.t.Context(), w)
	if err != nil {
		g.t.Fatalf("%s: %v", r.holder, err)
	}
	access := token.AccessToken.secret(purposeOf(g.c)).Reveal()
	if !token.usable(purposeOf(g.c), now) || !g.provider.Honours(access) {
		g.t.Fatalf("%s got %q, which nobody takes", r.holder, access)
	}
	return access
}

// sound checks that nothing was lost: the grant's refresh token buys the next one,
// none was ever sent twice, and readers see what refreshers have.
func (g *rig) sound() {
	g.t.Helper()
	counts := g.provider.Counts()
	if counts.Reuse != 0 || counts.Revocations != 0 {
		g.t.Errorf("refresh tokens sent twice: %d, grants revoked: %d", counts.Reuse, counts.Revocations)
	}
	record, token := g.record(), g.token()
	if record.Lease != nil || token.Gen != record.Gen || token.Status != StatusOK {
		g.t.Errorf("lease %v, generation %d of %d, status %s", record.Lease, token.Gen, record.Gen, token.Status)
	}
	g.gets(g.process("last"), want{force: true})
}

func TestRenew(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		r := g.process("a")
		first := g.gets(r, want{})
		if again := g.gets(r, want{}); again != first {
			t.Error("a good token was renewed")
		}
		if g.gets(r, want{ahead: true}) != first {
			t.Error("renewed ahead as soon as it was there")
		}
		time.Sleep(25 * time.Minute) // 58 % are left
		second := g.gets(r, want{ahead: true, wanted: 24 * time.Hour})
		if second == first {
			t.Error("not renewed ahead")
		}
		if until := fromMillis(g.record().WantedUntil); until.Before(time.Now().Add(23 * time.Hour)) {
			t.Errorf("wanted until %s", until)
		}
		time.Sleep(time.Hour)
		if g.gets(r, want{}) == second {
			t.Error("an expired token was given")
		}
		token := g.token()
		if token.Status != StatusOK || token.Gen != 4 || token.AccessToken.Value != g.record().Token.AccessToken.Value {
			t.Errorf("tokens/NAME is of generation %d, %s", token.Gen, token.Status)
		}
		if n := g.provider.Calls(); n != 3 {
			t.Errorf("%d token calls, want 3", n)
		}
		if g.heard(EventRequest) != 3 || g.heard(EventState) != 1 || g.heard(EventLeaseConflict)+g.heard(EventRescue)+g.heard(EventBlindClaim) != 0 {
			t.Errorf("events %+v", g.events)
		}
		g.sound()
	})
}

// What is not ours in grants/NAME stays as it is: the secrets, and what a newer
// version keeps there.
func TestRenewKeepsTheRest(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.patch(map[string]any{"newer": map[string]int{"x": 1}})
		g.gets(g.process("a"), want{})
		if got := string(g.record().rest["newer"]); got != `{"x":1}` {
			t.Errorf("newer: %s", got)
		}
		loaded, err := creds.LoadCredential(t.Context(), g.store, g.c.Name)
		if err != nil || !loaded.ClientSecret.Equal(g.c.ClientSecret) {
			t.Errorf("the client secret is gone: %v", err)
		}
	})
}

// Many processes, one token call a rotation.
func renewInManyProcesses(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				r := g.process(newNonce())
				for range 5 {
					g.gets(r, want{})
					time.Sleep(time.Hour)
				}
			})
		}
		wg.Wait()
		if n := g.provider.Calls(); n != 5 {
			t.Errorf("%d token calls, want 5", n)
		}
		g.sound()
	})
}

// Who asked first leaves; the request goes on, and what it brings is stored.
func renewWhenItsCallerLeaves(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := g.process("a")
		ask := r.grant
		r.grant = func(ctx context.Context, p proof) (answer, error) {
			cancel()
			time.Sleep(2 * time.Second)
			return ask(ctx, p)
		}
		if _, _, err := r.renew(ctx, want{}); err != nil {
			t.Fatal(err)
		}
		g.sound()
	})
}

// One forced refresh in half a minute, and none where somebody has been faster.
func renewRefused(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a, b := g.process("a"), g.process("b")
		first := creds.NewSecret(g.gets(a, want{})).Fingerprint()
		second := creds.NewSecret(g.gets(a, want{refused: first})).Fingerprint()
		if got := creds.NewSecret(g.gets(b, want{refused: first})).Fingerprint(); got != second || first == second {
			t.Errorf("b got %s, a %s, refused was %s", got, second, first)
		}
		if _, _, err := b.renew(t.Context(), want{refused: second}); !errors.Is(err, creds.ErrNoProgress) {
			t.Errorf("at once again: %v", err)
		}
		time.Sleep(31 * time.Second)
		g.gets(b, want{refused: second})
		if n := g.provider.Calls(); n != 3 {
			t.Errorf("%d token calls, want 3", n)
		}
		g.sound()
	})
}

// A provider in trouble is asked at growing distances by all processes together,
// and the old token serves.
func renewBacksOff(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a, b := g.process("a"), g.process("b")
		g.gets(a, want{})
		time.Sleep(30 * time.Minute)
		g.provider.Answer(credstest.ReplyError(503, "temporarily_unavailable", ""))
		begun := time.Now()
		for time.Since(begun) < 20*time.Minute {
			_, _, err := a.renew(t.Context(), want{ahead: true})
			var refused *creds.TokenError
			if !errors.As(err, &refused) || refused.RetryAfter <= 0 {
				t.Fatalf("%v", err)
			}
			g.gets(b, want{})
			if _, _, err := b.renew(t.Context(), want{ahead: true}); !errors.As(err, &refused) || refused.RetryAfter <= 0 {
				t.Fatalf("%v", err)
			}
			if token := g.token(); token.Status != StatusDegraded || token.Error.Reason != ReasonServer5xx || token.RetryAt == 0 {
				t.Fatalf("%s, %+v", token.Status, token.Error)
			}
			time.Sleep(time.Second)
		}
		if n := g.provider.Calls(); n < 22 || n > 50 {
			t.Errorf("%d token calls in twenty minutes", n)
		}
	})
}

// What only an edit can help is asked seldom, and at once after an edit.
func TestRenewConfigError(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.provider.Next(credstest.ReplyError(401, "invalid_client", ""))
		a := g.process("a")
		_, _, err := a.renew(t.Context(), want{})
		var refused *creds.TokenError
		if !errors.As(err, &refused) || refused.Reason != ReasonInvalidClient || refused.RetryAfter < time.Minute {
			t.Fatalf("%v", err)
		}
		if _, _, err := g.process("b").renew(t.Context(), want{}); !errors.As(err, &refused) || g.provider.Calls() != 1 {
			t.Fatalf("%v after %d calls", err, g.provider.Calls())
		}
		if status := g.token().Status; status != StatusConfigError {
			t.Errorf("status %s", status)
		}
		edited := *g.c
		edited.AuthStyle = creds.AuthStyleBody
		g.c = &edited
		g.gets(g.process("a"), want{})
		g.sound()
	})
}

// 35, and the unclear ends of a request: nobody sends the refresh token until the
// lease is over; then it is asked for once more, soon enough for a provider that
// takes a refresh token twice within half a minute.
func renewUnknownOutcome(t *testing.T) {
	for _, committed := range []bool{false, true} {
		t.Run(map[bool]string{false: "the provider did not act", true: "a leeway heals it"}[committed], func(t *testing.T) {
			overGrant(t, func(t *testing.T, g *rig) {
				if committed {
					g.provider.Leeway = 30 * time.Second
					g.provider.Lose(1)
				} else {
					g.provider.Next(credstest.Reply(502, "text/html", "<html>"))
				}
				a, b := g.process("a"), g.process("b")
				_, _, err := a.renew(t.Context(), want{})
				var refused *creds.TokenError
				if !errors.As(err, &refused) || refused.RetryAfter > 25*time.Second {
					t.Fatalf("%v", err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if _, _, err := b.renew(ctx, want{}); !errors.Is(err, context.DeadlineExceeded) || g.provider.Calls() != 1 {
					t.Fatalf("b: %v after %d calls", err, g.provider.Calls())
				}
				g.gets(a, want{})
				if g.provider.Calls() != 2 || g.heard(EventUnknownOutcome) != 1 || g.heard(EventBlindClaim) != 1 {
					t.Errorf("%d calls, events %+v", g.provider.Calls(), g.events)
				}
				if counts := g.provider.Counts(); counts.Revocations != 0 {
					t.Errorf("%+v", counts)
				}
			})
		})
	}
}

// invalid_grant after somebody was faster: theirs is used, and nothing is sent
// again.
func renewAdopts(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a, b := g.process("a"), g.process("b")
		g.gets(a, want{})
		time.Sleep(time.Hour)
		a.grant = func(context.Context, proof) (answer, error) {
			// Another one has claimed over us, and been served.
			record := g.record()
			record.Lease = nil
			g.put(record)
			g.gets(b, want{})
			return answer{}, classifyAnswer(400, "invalid_grant")
		}
		g.gets(a, want{})
		if g.heard(EventRequest) != 3 {
			t.Errorf("%d requests", g.heard(EventRequest))
		}
		g.sound()
	})
}

// put writes grants/NAME as another tool might.
func (g *rig) put(record grantRecord) {
	g.t.Helper()
	key := creds.KeyGrants + g.c.Name
	stored, err := g.store.Get(g.t.Context(), key)
	if err == nil {
		record.Op = newNonce()
		_, err = g.store.CAS(g.t.Context(), key, record.encode(), stored.Version)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// A lost grant: a spare serves; without one a person is needed, and says so to all.
func TestRenewLost(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.patch(map[string]any{"spare": bound{purposeOf(g.c), g.provider.Consent()}})
		g.provider.Next(credstest.ReplyError(403, "invalid_grant", ""))
		r := g.process("a")
		g.gets(r, want{})
		if token := g.token(); token.Status != StatusDegraded || token.Spare || !strings.Contains(token.Error.Detail, "spare") {
			t.Errorf("%s, spare %t, %+v", token.Status, token.Spare, token.Error)
		}
		time.Sleep(time.Hour)
		g.provider.Next(credstest.ReplyError(400, "invalid_grant", ""))
		_, _, err := r.renew(t.Context(), want{})
		var refused *creds.TokenError
		if !errors.Is(err, creds.ErrNeedsConsent) || !errors.As(err, &refused) || refused.Reason != ReasonInvalidGrant {
			t.Fatalf("%v", err)
		}
		calls := g.provider.Calls()
		if _, _, err := g.process("b").renew(t.Context(), want{force: true}); !errors.Is(err, creds.ErrNeedsConsent) || g.provider.Calls() != calls {
			t.Errorf("b: %v, %d calls", err, g.provider.Calls()-calls)
		}
		if record, token := g.record(), g.token(); token.Status != StatusNeedsConsent || record.Refresh != nil || record.Lease != nil {
			t.Errorf("%s, refresh token %v, lease %v", token.Status, record.Refresh != nil, record.Lease)
		}
		g.consent(false)
		if err := r.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.sound()
	})
}

// A password grant whose refresh token is refused begins anew by itself.
func TestRenewPasswordGrant(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		c := *g.c
		c.Authorization, c.Username, c.Password = creds.PasswordGrant, "me", creds.NewSecret("canary-password")
		g.c = &c
		g.connect("spent long ago")
		password := replyTokens(g.provider.Consent())
		g.provider.Next(credstest.ReplyError(400, "invalid_grant", ""), password)
		token, now, err := g.process("a").renew(t.Context(), want{})
		if err != nil || !token.usable(purposeOf(g.c), now) {
			t.Fatalf("%v", err)
		}
		requests := g.provider.Requests()
		if len(requests) != 2 || requests[1].Form.Get("grant_type") != "password" {
			t.Errorf("%d requests, the last %q", len(requests), requests[len(requests)-1].Form.Get("grant_type"))
		}
		if g.token().Status != StatusOK {
			t.Errorf("status %s", g.token().Status)
		}
		g.sound()
	})
}

func replyTokens(refresh string) http.HandlerFunc {
	body, _ := json.Marshal(map[string]any{"access_token": "canary-access", "refresh_token": refresh, "expires_in": 3600})
	return credstest.Reply(200, "application/json", string(body))
}

// Nothing is known of another purpose: an edited URL sees neither token nor refresh
// token, and finds them again when it is edited back.
func TestRenewOfAnotherPurpose(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.gets(g.process("a"), want{})
		old, c := g.c, *g.c
		c.URL = "https://elsewhere.example/"
		g.c = &c
		if _, _, err := g.process("a").renew(t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) || g.provider.Calls() != 1 {
			t.Errorf("%v after %d calls", err, g.provider.Calls())
		}
		g.c = old
		g.gets(g.process("a"), want{})
		g.sound()
	})
}

// What is deleted during a request stays deleted.
func renewOfADeletedCredential(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		r := g.process("a")
		ask := r.grant
		r.grant = func(ctx context.Context, p proof) (answer, error) {
			if err := creds.Remove(ctx, g.store, g.c.Name); err != nil {
				t.Error(err)
			}
			return ask(ctx, p)
		}
		if _, _, err := r.renew(t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) {
			t.Errorf("%v", err)
		}
		for _, prefix := range []string{creds.KeyCredentials, creds.KeyGrants, creds.KeyTokens} {
			if keys, err := g.store.List(t.Context(), prefix); err != nil || len(keys) != 0 {
				t.Errorf("%s: %v, %v", prefix, keys, err)
			}
		}
		if files, err := r.journal.load(g.c.Name); err != nil || len(files) != 0 {
			t.Errorf("journal: %d, %v", len(files), err)
		}
	})
}

// consent puts a code into the grant, as the page or the command line does.
func (g *rig) consent(spare bool) {
	g.patch(map[string]any{"consent": consentRecord{
		ID: newNonce(), Code: g.provider.Code(), Verifier: "canary-verifier", RedirectURL: "http://127.0.0.1:1/callback",
		Spare: spare, At: toMillis(time.Now()),
	}})
}
