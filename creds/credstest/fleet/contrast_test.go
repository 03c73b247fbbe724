package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"pillion/creds"
)

// Two kinds of sidecars that are often built, to see what the protocol is for. They
// share one record, sharedKey, of this form.
const sharedKey = "grants/contrast"

type sharedGrant struct {
	Refresh string    `json:"refresh"`
	Access  string    `json:"access"`
	Expires time.Time `json:"expires"`
}

// contrast is what both kinds have.
type contrast struct {
	*worker
	vault  creds.Store
	config oauth2.Config
	http   *http.Client // to the provider

	mu       sync.Mutex
	held     sharedGrant
	notUntil time.Time // after a failure
}

// giveUpFor is how long they leave the provider alone after a failure.
const giveUpFor = 5 * time.Second

// renewAt is how much of a token's life is left when they renew it: a second and a
// half, where a token lives for 10 s. x/oauth2 itself would do it 10 s before the end.
const renewAt = 1500 * time.Millisecond

func newContrast(w *worker) (*contrast, error) {
	store, err := w.store(w.Refresher)
	if err != nil {
		return nil, err
	}
	return &contrast{
		worker: w, vault: store,
		http: &http.Client{Transport: w.Provider.Transport(), Timeout: 10 * time.Second},
		config: oauth2.Config{
			ClientID: w.Provider.ClientID, ClientSecret: w.Provider.ClientSecret,
			// AuthStyle 0 would send a refresh token twice while it finds out.
			Endpoint: oauth2.Endpoint{TokenURL: w.Provider.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader},
		},
	}, nil
}

func (c *contrast) read(ctx context.Context) (sharedGrant, int, error) {
	record, err := c.vault.Get(ctx, sharedKey)
	if err != nil {
		return sharedGrant{}, 0, err
	}
	var g sharedGrant
	err = json.Unmarshal([]byte(record.Data.Reveal()), &g)
	return g, record.Version, err
}

func (g sharedGrant) secret() creds.Secret {
	text, err := json.Marshal(g)
	if err != nil {
		panic(err)
	}
	return creds.NewSecret(string(text))
}

func (g sharedGrant) bearer() bearer { return bearer{header: "Bearer " + g.Access} }

// refresh spends a refresh token.
func (c *contrast) refresh(ctx context.Context, refresh string) (sharedGrant, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.http)
	got, err := c.config.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if err != nil {
		return sharedGrant{}, errors.New("the provider gives no token")
	}
	return sharedGrant{Refresh: got.RefreshToken, Access: got.AccessToken, Expires: got.Expiry}, nil
}

// refused implements sidecar: nothing is done about a 401.
func (c *contrast) refused(context.Context, bearer) (bearer, bool) { return bearer{}, false }

// alone renews with the refresh token that it has, as x/oauth2's TokenSource does,
// and writes back what it gets, so that a restart finds it. Only after a failure does
// it look what others have written.
type alone struct{ *contrast }

func newAlone(ctx context.Context, w *worker, _ int) (sidecar, error) {
	c, err := newContrast(w)
	if err != nil {
		return nil, err
	}
	c.held, _, err = c.read(ctx)
	return &alone{c}, err
}

func (a *alone) token(ctx context.Context) (bearer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if now.Before(a.held.Expires.Add(-renewAt)) || now.Before(a.notUntil) {
		return a.held.bearer(), nil
	}
	got, err := a.refresh(ctx, a.held.Refresh)
	if err != nil {
		a.notUntil = now.Add(giveUpFor)
		if got, _, err = a.read(ctx); err != nil {
			return bearer{}, err
		}
		a.held = got
		return got.bearer(), nil
	}
	a.held = got
	return got.bearer(), a.writeBack(ctx)
}

func (a *alone) writeBack(ctx context.Context) error {
	for range 5 {
		_, version, err := a.read(ctx)
		if err != nil {
			return err
		}
		if _, err = a.vault.CAS(ctx, sharedKey, a.held.secret(), version); !errors.Is(err, creds.ErrConflict) {
			return err
		}
	}
	return nil
}

// checked reads the shared record before it renews, and writes by check-and-set: who
// comes second drops what it got. It asks the provider before it knows that it is
// second.
type checked struct{ *contrast }

func newChecked(ctx context.Context, w *worker, _ int) (sidecar, error) {
	c, err := newContrast(w)
	if err != nil {
		return nil, err
	}
	c.held, _, err = c.read(ctx)
	return &checked{c}, err
}

func (k *checked) token(ctx context.Context) (bearer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if now.Before(k.held.Expires.Add(-renewAt)) || now.Before(k.notUntil) {
		return k.held.bearer(), nil
	}
	current, version, err := k.read(ctx)
	if err != nil {
		return bearer{}, err
	}
	if k.held = current; now.Before(current.Expires.Add(-renewAt)) {
		return current.bearer(), nil
	}
	got, err := k.refresh(ctx, current.Refresh)
	if err != nil {
		k.notUntil = now.Add(giveUpFor)
		return current.bearer(), nil
	}
	switch _, err = k.vault.CAS(ctx, sharedKey, got.secret(), version); {
	case errors.Is(err, creds.ErrConflict):
		if k.held, _, err = k.read(ctx); err != nil {
			return bearer{}, err
		}
	case err != nil:
		return bearer{}, fmt.Errorf("writing the shared grant: %w", err)
	default:
		k.held = got
	}
	return k.held.bearer(), nil
}
