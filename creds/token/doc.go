// Package token turns a credential into what a request carries for it.
//
//	keeper := &token.Keeper{HTTP: guarded, OnEvent: count, Store: live.StoreOf}
//	live.OnChange = func(old, new *creds.Table) { keeper.Forget(gone(old, new)...) }
//
//	authorization, err := keeper.Authorize(ctx, credential)
//	// set authorization.Headers and .Query, send; on a 401:
//	authorization, err = keeper.Refused(ctx, credential, authorization.Token)
//
// A kind of authorization is one file and one line in the table of kinds.go. It
// is either static, built once for a credential, or a grant: one token request.
// Around a grant stands a Source: shared, whose token lies in a store's records and
// serves every process over that store, or cache, which keeps it in this process
// (share: false, or no store). Keeper.wrap is the one place that chooses.
//
//	Keeper -- shared -+- reader ---- reads tokens/NAME, rings at requests/NAME
//	                  '- Refresher - one renewal a credential: grants/NAME, the provider
//
// Who may renew has a Refresher, whose Run also renews ahead of need, answers rings
// and asks, and keeps idle grants alive. Over the file store that is every process;
// over Vault a few, and sidecars hold neither client secrets nor refresh tokens.
//
//	         first use                    refreshing failed
//	none -----------------> ok --------------------------------> degraded
//	  \                      ^ <--------------------------------/    |
//	   \                     |            a token came               | the provider, or our
//	    \                    |                                       v own guard, says no
//	     '-------------------+--------------------------------> config_error
//
// In every state a token that is still good is used, and one that is not is
// never sent.
//
// Token requests are built by golang.org/x/oauth2 and sent, and their answers read,
// by endpoint.go: x/oauth2 puts the answer's body into its error, throws away
// answers that hold a token (expires_in "3600.0", a byte order mark, text/plain, a
// bare JWT), reads a missing expires_in as "never expires" and follows a 307 with
// the client secret.
//
// The package does not log, and no error, event or state of it holds anything
// that a token endpoint wrote, but for error codes that it knows.
package token
