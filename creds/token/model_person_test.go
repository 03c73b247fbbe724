package token

import (
	"context"
	"errors"
	"fmt"

	"pillion/creds"
)

// What a person does while refreshers are at work, as one more process.

// consents connects the credential again. The new grant is what stands in the end,
// whatever the old one's renewal brings.
func (f *fleet) consents() {
	code := f.provider.consent(f.family(f.current))
	f.process("C", f.current, func(a *actor, r *renewal) { f.exchanges(a, r, code) })
}

// moves edits the credential's address, and then connects it. Nothing of before is
// used for the new address.
func (f *fleet) moves() {
	f.current = moved(f.current)
	code := f.provider.consent(movedName)
	f.process("M", f.current, func(a *actor, r *renewal) {
		if _, _, err := r.renew(a.ctx, want{}); !errors.Is(err, creds.ErrNeedsConsent) && a.starts == 1 {
			f.violate("M gets a token for a new address, or not the right error: %v", err)
		}
		f.exchanges(a, r, code)
	})
}

// removes removes the credential.
func (f *fleet) removes() {
	f.world.add("R", func(a *actor) {
		view := &steppedStore{Store: f.store, actor: a, name: f.describe}
		f.removed = true
		if err := creds.Remove(a.ctx, view, modelName); err != nil {
			f.violate("R cannot remove it: %v", err)
		}
	})
}

// exchanges hands a code over and has it exchanged, then wants a token. After a death
// that is one whose code was spent, and the exchange says so.
func (f *fleet) exchanges(a *actor, r *renewal, code string) {
	if a.starts == 1 {
		_ = f.again(a, func() error {
			return putConsent(a.ctx, r.store, modelName, "consent-of-"+a.name, Consent{Code: creds.NewSecret(code), Verifier: creds.NewSecret("verifier")})
		})
	}
	_ = f.again(a, func() error {
		if err := r.exchange(a.ctx); errors.Is(err, creds.ErrStoreUnavailable) {
			return err
		}
		return nil
	})
	f.renewed(a, r, want{})
}

// nothingLeft checks that a removed credential has left nothing behind.
func (f *fleet) nothingLeft() string {
	for _, prefix := range []string{creds.KeyCredentials, creds.KeyGrants, creds.KeyTokens} {
		if keys, err := f.store.List(context.Background(), prefix); err != nil || len(keys) > 0 {
			return fmt.Sprintf("after its removal there is %q, %v", keys, err)
		}
	}
	return f.wrong
}
