package credstest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Vault is a real Vault, in a process of its own on loopback, that does what an
// outage does when it is told to. It is the core of HashiCorp's Vault with KV and
// the logins approle, jwt, kubernetes and userpass; see the module vaultcore.
//
//	vault := credstest.SharedVault(t)
//	mount := vault.Mount(t)
//	vault.Policy(t, "reader", `path "`+mount+`/data/*" { capabilities = ["read"] }`)
//	token := vault.Token(t, "reader")
//
// Methods that change what others see (Seal, Freeze, Kill, Restart) are for a
// Vault of the test's own: StartVault.
type Vault struct {
	// Addr is where it answers, such as http://127.0.0.1:39201. It stays the
	// same through Restart.
	Addr string
	// Root is the root token.
	Root string
	// CAFile holds the authority of its certificate; "" without TLS.
	CAFile string

	process   *process
	unsealKey string
	client    *http.Client

	kubernetes, kubernetesCA string
	issuer                   *ecdsa.PrivateKey

	mu      sync.Mutex
	enabled map[string]bool // logins that are mounted and configured
	mounts  int
}

// VaultSetup is how a Vault is started; the zero value is in memory, without TLS.
type VaultSetup struct {
	// TLS makes it speak TLS, with a certificate of its own CA.
	TLS bool
	// Keep stores the data in files, so that Restart finds it again. Otherwise
	// what is killed is gone.
	Keep bool
}

// StartVault starts a Vault for the test alone; it ends with the test.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	return VaultSetup{}.Start(t)
}

var sharedVault = sync.OnceValues(func() (*Vault, error) {
	dir, err := os.MkdirTemp("", "pillion-vault-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // it is read while Vault starts, and never again
	return VaultSetup{}.start(dir)
})

// SharedVault returns the Vault of all tests of a package, which ends with their
// process. Take a mount, and name policies and roles so that no other test's get
// in the way.
func SharedVault(t testing.TB) *Vault {
	t.Helper()
	v, err := sharedVault()
	if err != nil {
		t.Fatalf("starting a Vault: %v", err)
	}
	return v
}

// Start starts a Vault that ends with the test.
func (s VaultSetup) Start(t testing.TB) *Vault {
	t.Helper()
	v, err := s.start(t.TempDir())
	if err != nil {
		t.Fatalf("starting a Vault: %v", err)
	}
	t.Cleanup(v.process.kill)
	return v
}

func (s VaultSetup) start(dir string) (*Vault, error) {
	// It takes minutes where Go's build cache has nothing of it.
	binary, err := prepared("vaultcore.sh", "creds/credstest/vaultcore")
	if err != nil {
		return nil, err
	}
	v := &Vault{enabled: map[string]bool{}}
	args := []string{"-issuer", filepath.Join(dir, "issuer.pub")}
	if err := v.newIssuer(args[1]); err != nil {
		return nil, err
	}
	if s.TLS {
		args = append(args, "-tls", dir)
	}
	if s.Keep {
		args = append(args, "-data", dir)
	}
	address, err := freeAddresses.take() // nobody takes it while this Vault is away
	if err != nil {
		return nil, err
	}
	v.process = &process{binary: binary, args: args, listen: address}
	if err := v.run(); err != nil {
		return nil, err
	}
	v.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}} // Proxy is nil
	if v.CAFile == "" {
		return v, nil
	}
	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		v.process.kill()
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	v.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return v, nil
}

// newIssuer makes the key that signs the tokens of the logins jwt and kubernetes.
func (v *Vault) newIssuer(file string) error {
	var err error
	if v.issuer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	return os.WriteFile(file, v.issuerPEM(), 0o600)
}

func (v *Vault) issuerPEM() []byte {
	public, err := x509.MarshalPKIXPublicKey(v.issuer.Public())
	if err != nil {
		panic("credstest: encoding a key of ours: " + err.Error())
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
}

// run starts the process and takes over what it says of itself.
func (v *Vault) run() error {
	line, err := v.process.start()
	if err != nil {
		return err
	}
	var said struct {
		Address      string `json:"address"`
		CAFile       string `json:"ca_file"`
		RootToken    string `json:"root_token"`
		UnsealKey    string `json:"unseal_key"`
		Kubernetes   string `json:"kubernetes"`
		KubernetesCA string `json:"kubernetes_ca"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		v.process.kill()
		return fmt.Errorf("reading what it says at its start: %w", err)
	}
	v.Addr, v.CAFile, v.Root, v.unsealKey = said.Address, said.CAFile, said.RootToken, said.UnsealKey
	v.kubernetes, v.kubernetesCA = said.Kubernetes, said.KubernetesCA
	return nil
}

// VaultAnswer is what a request to Vault's API got.
type VaultAnswer struct {
	Status int
	Header http.Header
	Body   map[string]any // nil when there is none
}

// Data returns the member "data" of the body.
func (a VaultAnswer) Data() map[string]any { return a.member("data") }

// Auth returns the member "auth" of the body, which a login has.
func (a VaultAnswer) Auth() map[string]any { return a.member("auth") }

func (a VaultAnswer) member(name string) map[string]any {
	m, _ := a.Body[name].(map[string]any)
	return m
}

// Do sends a request to the API; path is what follows /v1/, and body, when it is
// not nil, goes as JSON. A PATCH goes as a merge patch, as KV wants it.
func (v *Vault) Do(t testing.TB, token, method, path string, body any) VaultAnswer {
	t.Helper()
	answer, err := v.do(token, method, path, body, nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (v *Vault) do(token, method, path string, body any, header http.Header) (VaultAnswer, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return VaultAnswer{}, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, v.Addr+"/v1/"+path, content)
	if err != nil {
		return VaultAnswer{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return VaultAnswer{}, err
	}
	defer resp.Body.Close()
	answer := VaultAnswer{Status: resp.StatusCode, Header: resp.Header}
	text, err := io.ReadAll(resp.Body)
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, &answer.Body)
	}
	return answer, err
}

// Write writes to path as root and fails the test unless Vault takes it:
// vault.Write(t, "auth/approle/role/sidecar", map[string]any{"token_ttl": "3s"}).
func (v *Vault) Write(t testing.TB, path string, body any) VaultAnswer {
	t.Helper()
	return v.must(t, http.MethodPost, path, body, nil)
}

func (v *Vault) must(t testing.TB, method, path string, body any, header http.Header) VaultAnswer {
	t.Helper()
	answer, err := v.do(v.Root, method, path, body, header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if answer.Status >= 300 {
		t.Fatalf("%s %s: Vault answers %d %v", method, path, answer.Status, answer.Body["errors"])
	}
	return answer
}
