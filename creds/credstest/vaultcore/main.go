// Vaultcore is a Vault for tests: the real core, over memory or over files, with
// KV, the logins that pillion uses, and nothing else. It initialises and unseals
// itself, prints one line of JSON when it answers, and ends with its standard
// input, so that it never outlives the test that started it:
//
//	{"address":"http://127.0.0.1:39201","root_token":"hvs...","unseal_key":"..."}
//
// Nothing is mounted and no login is enabled: tests do that by the API, as an
// administrator would. It is no Vault for anything but tests: the key and the
// root token stand on its output and, with -data, in a file.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vaultcore:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("vaultcore", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`address` to listen on")
	tlsDir := flags.String("tls", "", "speak TLS, with a certificate kept in this `directory`, whose ca.crt clients trust")
	data := flags.String("data", "", "keep the data in this `directory`, with the key that unseals it (default: in memory)")
	issuer := flags.String("issuer", "", "review Kubernetes tokens, in an API server's place, that this public key `file` vouches for")
	level := flags.String("log", "off", "`level` of Vault's own log, on standard error")
	if err := flags.Parse(args); err != nil {
		return err
	}

	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(*level), Output: os.Stderr})
	core, err := newCore(*data, logger)
	if err != nil {
		return fmt.Errorf("making the core: %w", err)
	}
	opened, err := open(core, *data)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	opened.Address = "http://" + listener.Addr().String()
	if *tlsDir != "" {
		pair, err := certificateIn(*tlsDir)
		if err != nil {
			return fmt.Errorf("setting up TLS: %w", err)
		}
		opened.Address = "https://" + listener.Addr().String()
		opened.CAFile = filepath.Join(*tlsDir, "ca.crt")
		listener = listenTLS(listener, pair)
	}
	if *issuer != "" {
		if opened.Kubernetes, opened.KubernetesCA, err = serveReviews(*issuer); err != nil {
			return fmt.Errorf("starting the TokenReview endpoint: %w", err)
		}
	}

	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: core, ListenerConfig: &configutil.Listener{}, DisablePrintableCheck: true,
	})}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if err := json.NewEncoder(stdout).Encode(opened); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		failed <- nil
	}()
	return <-failed
}

// newCore makes a sealed core.
func newCore(data string, logger hclog.Logger) (*vault.Core, error) {
	var storage physical.Backend
	var err error
	if data == "" {
		storage, err = inmem.NewInmem(nil, logger)
	} else {
		storage, err = file.NewFileBackend(map[string]string{"path": filepath.Join(data, "storage")}, logger)
	}
	if err != nil {
		return nil, err
	}
	factories := builtins{
		credential: map[string]logical.Factory{
			"approle": approle.Factory, "jwt": jwt.Factory, "kubernetes": kubernetes.Factory, "userpass": userpass.Factory,
		},
		secret: map[string]logical.Factory{"kv": kv.Factory},
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical: storage, BuiltinRegistry: factories, LogicalBackends: factories.secret, CredentialBackends: factories.credential,
		Logger: logger, DisableMlock: true, DefaultLeaseTTL: 768 * time.Hour, MaxLeaseTTL: 768 * time.Hour,
	})
}

// opened is the line that says how to reach this Vault.
type opened struct {
	Address   string `json:"address"`
	CAFile    string `json:"ca_file,omitempty"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`

	// Where TokenReviews are answered, and the authority of its certificate.
	Kubernetes   string `json:"kubernetes,omitempty"`
	KubernetesCA string `json:"kubernetes_ca,omitempty"`
}

// open unseals the core, with the key that is kept beside its data; at the first
// start it initialises it, with one share, and keeps the key there.
func open(core *vault.Core, data string) (opened, error) {
	var known opened
	kept := filepath.Join(data, "opened.json")
	text, err := os.ReadFile(kept)
	switch {
	case data != "" && err == nil:
		if err := json.Unmarshal(text, &known); err != nil {
			return known, fmt.Errorf("reading %s: %w", kept, err)
		}
	case data != "" && !errors.Is(err, fs.ErrNotExist):
		return known, err
	default:
		result, err := core.Initialize(context.Background(), &vault.InitParams{
			BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
			RecoveryConfig: &vault.SealConfig{},
		})
		if err != nil {
			return known, fmt.Errorf("initialising: %w", err)
		}
		known = opened{RootToken: result.RootToken, UnsealKey: hex.EncodeToString(result.SecretShares[0])}
		if data != "" {
			text, _ := json.Marshal(known)
			if err := os.WriteFile(kept, text, 0o600); err != nil {
				return known, err
			}
		}
	}
	key, err := hex.DecodeString(known.UnsealKey)
	if err != nil {
		return known, fmt.Errorf("reading the unseal key: %w", err)
	}
	if unsealed, err := core.Unseal(key); err != nil || !unsealed {
		return known, fmt.Errorf("unsealing (%v): %w", unsealed, err)
	}
	return known, nil
}
