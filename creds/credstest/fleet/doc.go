// Package fleet holds only tests: many sidecars in several processes, over a real
// Vault and a real OpenID provider that rotates strictly, while processes die, Vault
// loses answers or freezes, and the provider stumbles. `make fleet` prints what
// became of the grant, the tokens and the requests, as a table; a short form runs in
// `make test`.
//
//	parent (the test) --- Vault, before it one that loses answers
//	   |  |  |            OpenID provider
//	   |  |  |            resource server: knows from the provider which tokens are good
//	   |  |  +-- worker process: sidecar, sidecar, ...   each 4 requests a second
//	   |  +----- worker process: sidecar, sidecar, ...
//	   +-------- administrator: consents, and again where a grant is lost
//
// A worker is this test's own binary, run again. It dies by SIGKILL wherever the
// row says so, and the parent starts it anew with the same state directory.
// Beside the sidecars of package token there are two kinds that do what is often
// done instead: see contrast_test.go.
package fleet
