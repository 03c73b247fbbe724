// Package creds is the domain of pillion: what a credential is, which one a
// request's target asks for, and the contract of the stores that keep them.
//
//	store, err := filestore.Open(...)          // or vaultstore
//	live := &creds.Live{Store: store}
//	err = live.Reload(ctx)                     // again whenever the store changed
//	target, err := creds.ParseTarget("https://example.service-now.com/api/now")
//	c, err := live.Table().Match(target)       // *NoMatchError, *AmbiguousError
//
// It knows no HTTP, no TLS and no storage technology, and it never dials.
// Packages around it (proxy, sftpgw, creds/token, creds/filestore, ...) import
// it and never one another; cmd/pillion ties them together.
package creds
