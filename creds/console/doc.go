// Package console is the web page "Connector credentials": people list, make, edit,
// connect, test and delete credentials with a browser. It is served by the server
// alone, in plain HTML forms: scripts make some things quicker and nothing possible.
//
//	page := &console.Server{URL: "http://127.0.0.1:8180", Login: &console.Links{Store: store}, SessionKey: key}
//	handler, err := page.Handler()
//	fmt.Println("open", page.URL+links.New())
//
// Whoever is logged in acts with a store of his own: over Vault one that has his
// token, so that Vault's policies decide and its audit log tells.
//
// What it does not do: it never reads a secret, and never sends one to the browser.
// It asks no token endpoint and dials no server; Grants and ScanHostKeys do.
package console
