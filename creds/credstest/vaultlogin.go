package credstest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// enable mounts a login once for each Vault and configures it.
func (v *Vault) enable(t testing.TB, login string, config map[string]any) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.enabled[login] {
		return
	}
	v.Write(t, "sys/auth/"+login, map[string]any{"type": login})
	if config != nil {
		v.Write(t, "auth/"+login+"/config", config)
	}
	v.enabled[login] = true
}

// role is what each login's role sets: batch tokens of an hour, as pillion asks.
// A test that needs others writes to the role: "auth/jwt/role/NAME".
func role(policies []string, more map[string]any) map[string]any {
	settings := map[string]any{"token_policies": policies, "token_type": "batch", "token_ttl": "1h", "token_max_ttl": "1h"}
	for name, value := range more {
		settings[name] = value
	}
	return settings
}

// AppRole makes a role of the login approle and returns its role id and a secret
// id. More secret ids: SecretID.
func (v *Vault) AppRole(t testing.TB, name string, policies ...string) (roleID, secretID string) {
	t.Helper()
	v.enable(t, "approle", nil)
	v.Write(t, "auth/approle/role/"+name, role(policies, nil))
	answer := v.must(t, http.MethodGet, "auth/approle/role/"+name+"/role-id", nil, nil)
	roleID, _ = answer.Data()["role_id"].(string)
	return roleID, v.SecretID(t, name)
}

// SecretID returns a new secret id of a role of AppRole.
func (v *Vault) SecretID(t testing.TB, name string) string {
	t.Helper()
	answer := v.Write(t, "auth/approle/role/"+name+"/secret-id", map[string]any{})
	secretID, _ := answer.Data()["secret_id"].(string)
	return secretID
}

// WrappedSecretID returns a token that unwraps, once, to a new secret id.
func (v *Vault) WrappedSecretID(t testing.TB, name string, ttl time.Duration) string {
	t.Helper()
	answer := v.must(t, http.MethodPost, "auth/approle/role/"+name+"/secret-id", map[string]any{},
		http.Header{"X-Vault-Wrap-Ttl": {ttl.String()}})
	wrap, _ := answer.Body["wrap_info"].(map[string]any)
	token, _ := wrap["token"].(string)
	return token
}

// Userpass makes a user of the login userpass.
func (v *Vault) Userpass(t testing.TB, user, password string, policies ...string) {
	t.Helper()
	v.enable(t, "userpass", nil)
	v.Write(t, "auth/userpass/users/"+user, map[string]any{"password": password, "token_policies": policies, "token_ttl": "1h"})
}

// OIDC mounts a login by OpenID Connect at path, over a provider: the method jwt with
// a discovery URL. OIDCRole makes its roles.
func (v *Vault) OIDC(t testing.TB, path string, provider *OIDC) {
	t.Helper()
	v.Write(t, "sys/auth/"+path, map[string]any{"type": "jwt"})
	v.Write(t, "auth/"+path+"/config", map[string]any{
		"oidc_discovery_url": provider.Issuer, "oidc_discovery_ca_pem": string(provider.CA), "oidc_client_id": provider.ClientID,
		"oidc_client_secret": provider.ClientSecret, "jwt_supported_algs": []string{"ES256"},
	})
}

// OIDCRole makes a role of OIDC's for browsers that come back to redirectURL. more are
// further settings, such as bound_subject.
func (v *Vault) OIDCRole(t testing.TB, path, name, redirectURL string, policies []string, more map[string]any) {
	t.Helper()
	settings := map[string]any{
		"role_type": "oidc", "user_claim": "sub", "allowed_redirect_uris": []string{redirectURL}, "token_policies": policies, "token_ttl": "1h",
	}
	maps.Copy(settings, more)
	v.Write(t, "auth/"+path+"/role/"+name, settings)
}

// JWT makes a role of the login jwt for tokens of that subject, with the audience
// "vault". Sign makes the tokens:
//
//	vault.JWT(t, "sidecar", "connector", "pillion-sidecar")
//	token := vault.Sign(t, credstest.Claims("connector", "vault", time.Hour))
func (v *Vault) JWT(t testing.TB, name, subject string, policies ...string) {
	t.Helper()
	v.enable(t, "jwt", map[string]any{"jwt_validation_pubkeys": []string{string(v.issuerPEM())}, "bound_issuer": issuerName})
	v.Write(t, "auth/jwt/role/"+name, role(policies, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": subject, "bound_audiences": []string{"vault"},
	}))
}

// Kubernetes makes a role of the login kubernetes for a service account. The API
// server that Vault asks is played by its own process; ServiceAccountToken makes
// the tokens that it finds genuine.
func (v *Vault) Kubernetes(t testing.TB, name, namespace, account string, policies ...string) {
	t.Helper()
	v.enable(t, "kubernetes", map[string]any{
		"kubernetes_host": v.kubernetes, "kubernetes_ca_cert": v.kubernetesCA, "disable_local_ca_jwt": true,
	})
	v.Write(t, "auth/kubernetes/role/"+name, role(policies, map[string]any{
		"bound_service_account_names": []string{account}, "bound_service_account_namespaces": []string{namespace},
		"audience": "vault",
	}))
}

// ServiceAccountToken makes a projected service account token for the audience
// "vault". One that has expired is refused by the API server.
func (v *Vault) ServiceAccountToken(t testing.TB, namespace, account string, ttl time.Duration) string {
	t.Helper()
	claims := Claims("system:serviceaccount:"+namespace+":"+account, "vault", ttl)
	claims["kubernetes.io"] = map[string]any{
		"namespace":      namespace,
		"serviceaccount": map[string]string{"name": account, "uid": "uid-of-" + namespace + "-" + account},
	}
	return v.Sign(t, claims)
}

const issuerName = "https://issuer.example/"

// Claims are those of a token for subject that was issued just now. A negative
// ttl makes one that has expired.
func Claims(subject, audience string, ttl time.Duration) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": issuerName, "sub": subject, "aud": []string{audience},
		"iat": now.Add(min(ttl, 0)).Unix(), "nbf": now.Add(min(ttl, 0)).Unix(), "exp": now.Add(ttl).Unix(),
	}
}

// Sign makes a JWT of the claims, with the key that the logins jwt and kubernetes
// of this Vault trust.
func (v *Vault) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(payload)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, v.issuer, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature)
}

// Issuer is the public key, in PEM form, that the tokens of Sign are signed for.
func (v *Vault) Issuer() string { return string(v.issuerPEM()) }

// APIServer is the Kubernetes API server that finds the tokens of
// ServiceAccountToken genuine, and a file with the authority of its certificate.
func (v *Vault) APIServer(t testing.TB) (host, caFile string) {
	t.Helper()
	caFile = filepath.Join(t.TempDir(), "kubernetes-ca.crt")
	if err := os.WriteFile(caFile, []byte(v.kubernetesCA), 0o600); err != nil {
		t.Fatal(err)
	}
	return v.kubernetes, caFile
}
