package credstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pillion/creds"
)

// OIDC is a real OpenID provider on loopback TLS: the npm package oidc-provider, in
// a process of its own, with strict rotation. A refresh token is good for one use;
// its second use revokes the grant with all its tokens.
//
//	provider := credstest.StartOIDC(t)
//	redirect := provider.Consent(t, authorizationURL) // login and consent, by plain HTTP
//	provider.Fail(t, credstest.OIDCFaults{Unavailable: 0.3})
//	provider.Stats(t).Reused // how often a used refresh token came again
//
// Redirect URLs on loopback, with any port and path, are registered, and so is
// https://console.example/oauth/callback. PKCE with S256 is asked for.
type OIDC struct {
	// Issuer is its URL, such as https://127.0.0.1:39201.
	Issuer string
	// CA is its certificate in PEM form.
	CA []byte
	// Two clients with one secret, which holds characters that a form must escape:
	// ClientID is of client_secret_basic, PostClientID of client_secret_post.
	ClientID, PostClientID, ClientSecret string

	process *process
	client  *http.Client
}

// OIDCSetup is how a provider is started. Lives are whole seconds.
type OIDCSetup struct {
	// AccessToken and RefreshToken are their lives. If 0, an hour and 90 days.
	AccessToken, RefreshToken time.Duration
	// Leeway is how long after its first use a refresh token may be used again, as
	// at Ory Hydra; each use gives a pair of its own. If 0, not at all.
	Leeway time.Duration
	// Host is the name in its URLs, which must lead to 127.0.0.1 for who asks. If
	// empty, 127.0.0.1.
	Host string
}

// StartOIDC starts a provider for the test alone; it ends with the test. Where
// there is no Node.js the test is skipped.
func StartOIDC(t testing.TB) *OIDC {
	t.Helper()
	return OIDCSetup{}.Start(t)
}

// Start starts a provider that ends with the test.
func (s OIDCSetup) Start(t testing.TB) *OIDC {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s: %v", program, err)
		}
	}
	o, err := s.start()
	if err != nil {
		t.Fatalf("starting the OpenID provider: %v", err)
	}
	t.Cleanup(o.process.kill)
	return o
}

// oidcClient is a client as the provider's setup has it.
type oidcClient struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
	Auth   string `json:"auth"`
}

func (s OIDCSetup) start() (*OIDC, error) {
	dir, err := prepared("npm.sh", "creds/credstest/oidc")
	if err != nil {
		return nil, err
	}
	if s.Host == "" {
		s.Host = "127.0.0.1"
	}
	certificate, key, err := loopbackCertificate(s.Host)
	if err != nil {
		return nil, err
	}
	o := &OIDC{CA: certificate, ClientID: "pillion-basic", PostClientID: "pillion-post", ClientSecret: Canary("oidc-client").Reveal() + "+/%&="}
	input, err := json.Marshal(map[string]any{
		"host": s.Host, "cert": string(certificate), "key": string(key),
		"access_token":  milliseconds(s.AccessToken, time.Hour),
		"refresh_token": milliseconds(s.RefreshToken, 90*24*time.Hour),
		"leeway":        s.Leeway.Milliseconds(),
		"clients": []oidcClient{
			{o.ClientID, o.ClientSecret, "client_secret_basic"},
			{o.PostClientID, o.ClientSecret, "client_secret_post"},
		},
	})
	if err != nil {
		return nil, err
	}
	o.process = &process{binary: "node", args: []string{filepath.Join(dir, "server.mjs")}, input: append(input, '\n')}
	line, err := o.process.start()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, o); err != nil || o.Issuer == "" {
		o.process.kill()
		return nil, fmt.Errorf("it says %q at its start", line)
	}
	o.client = &http.Client{Transport: o.Transport(), Timeout: 30 * time.Second}
	return o, nil
}

func milliseconds(d, otherwise time.Duration) int64 {
	if d == 0 {
		d = otherwise
	}
	return d.Milliseconds()
}

// loopbackCertificate makes one for a name and for 127.0.0.1, which signs itself.
func loopbackCertificate(host string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
		DNSNames: []string{"localhost", host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

// RootCAs holds the certificate that the provider presents.
func (o *OIDC) RootCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(o.CA)
	return pool
}

// Transport returns one that trusts the provider and asks nobody for a proxy.
func (o *OIDC) Transport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: o.RootCAs(), MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second}
}

// TokenURL is the address of the token endpoint.
func (o *OIDC) TokenURL() string { return o.Issuer + "/token" }

// AuthorizationURL is where a person consents.
func (o *OIDC) AuthorizationURL() string { return o.Issuer + "/auth" }

// Credential returns one of the type authorization code for https://NAME.example/
// whose tokens come from here, for the client of client_secret_basic.
func (o *OIDC) Credential(name string) *creds.Credential {
	return &creds.Credential{
		Name:             name,
		Protocol:         creds.HTTPS,
		URL:              "https://" + name + ".example/",
		Authorization:    creds.AuthorizationCode,
		ClientID:         o.ClientID,
		ClientSecret:     creds.NewSecret(o.ClientSecret),
		AccessTokenURL:   o.TokenURL(),
		AuthorizationURL: o.AuthorizationURL(),
		Scope:            "openid offline_access",
	}
}

// PostCredential is Credential for the client of client_secret_post.
func (o *OIDC) PostCredential(name string) *creds.Credential {
	c := o.Credential(name)
	c.ClientID, c.AuthStyle = o.PostClientID, creds.AuthStyleBody
	return c
}
