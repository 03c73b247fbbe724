// Package credstest is what the tests of several packages share: the contract of
// creds.Store as tests (TestStore), planted secrets and the search for them
// (Canary, FindCanaries), an OAuth token endpoint that does as it is told
// (NewProvider), a real OpenID provider that rotates strictly (StartOIDC), a real
// Vault that can be sealed, frozen, killed and made to lose its answers
// (SharedVault, StartVault), and a real OpenSSH server with an account of its own
// (StartSSHD).
//
//	credstest.TestStore(t, func(t *testing.T) creds.Store { return open(t, dir) })
//
// Nothing but tests imports it.
package credstest
