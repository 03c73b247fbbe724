module pillion

go 1.26.0

require (
	filippo.io/age v1.3.2 // the embedded store is a file that the stock age tool reads
	github.com/KimMachineGun/automemlimit v1.0.1 // tells the garbage collector what the container may use
	github.com/chromedp/cdproto v0.159.0 // tests: what chromedp has no words for, such as a browser without scripts
	github.com/chromedp/chromedp v0.23.0 // tests: a real browser at consent and on the page
	github.com/coreos/go-systemd/v22 v22.7.0 // tells systemd that we are ready, reload, end, and live
	github.com/elazarl/goproxy v1.9.2 // takes CONNECT and what is not for a proxy
	github.com/fsnotify/fsnotify v1.10.1 // a changed configuration or store is noticed at once
	github.com/hashicorp/vault/api v1.23.0 // Vault's logins and KV v2
	github.com/pkg/sftp v1.13.12 // the client of put and of the tests; the gateway itself relays
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/prometheus/client_model v0.6.3 // tests: read metrics back as client_golang gives them
	github.com/rogpeppe/go-internal v1.16.0 // tests: testscript drives the program
	github.com/spf13/cobra v1.10.2 // commands, flags, shell completion
	github.com/spf13/pflag v1.0.9 // cobra's flags, walked by the test of the help texts and by suggestions
	go.yaml.in/yaml/v3 v3.0.6 // configuration, import files and manifests, with line numbers
	golang.org/x/crypto v0.58.0 // ssh: host keys
	golang.org/x/net v0.62.0 // idna: host names in one spelling; httpguts: the grammar of fields; http2: its frames and header blocks
	golang.org/x/oauth2 v0.37.0 // token requests as RFC 6749 and what providers made of it want them
	golang.org/x/sys v0.49.0 // who owns the socket of a client (sock_diag), file locks
	software.sslmate.com/src/go-pkcs12 v0.7.4 // Java's truststore
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coder/websocket v1.8.15 // indirect
	github.com/go-jose/go-jose/v4 v4.1.1 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/hashicorp/go-rootcerts v1.0.2 // indirect
	github.com/hashicorp/go-secure-stdlib/parseutil v0.2.0 // indirect
	github.com/hashicorp/go-secure-stdlib/strutil v0.1.2 // indirect
	github.com/hashicorp/go-sockaddr v1.0.7 // indirect
	github.com/hashicorp/hcl v1.0.1-vault-7 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/kr/fs v0.1.0 // indirect
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	github.com/mitchellh/mapstructure v1.5.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pbnjay/memory v0.0.0-20210728143218-7b4eea64cf58 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/ryanuber/go-glob v1.0.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.12.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
