package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// reviews is the one part of a Kubernetes API server that Vault's kubernetes
// login asks: whether a service account's token is genuine.
type reviews struct{ issuer crypto.PublicKey }

// serveReviews answers TokenReviews for tokens that the key in issuerFile has
// signed, and returns where, and the authority of its certificate.
func serveReviews(issuerFile string) (address, ca string, err error) {
	text, err := os.ReadFile(issuerFile)
	if err != nil {
		return "", "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", "", fmt.Errorf("%s holds no PEM block", issuerFile)
	}
	issuer, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", "", err
	}
	cert, key, err := newCertificate()
	if err != nil {
		return "", "", err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return "", "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	server := &http.Server{Handler: reviews{issuer}, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listenTLS(listener, pair)) }()
	return "https://" + listener.Addr().String(), string(cert), nil
}

func (rs reviews) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Token     string   `json:"token"`
			Audiences []string `json:"audiences,omitempty"`
		} `json:"spec"`
		Status struct {
			Authenticated bool     `json:"authenticated"`
			Error         string   `json:"error,omitempty"`
			Audiences     []string `json:"audiences,omitempty"`
			User          struct {
				Username string   `json:"username"`
				UID      string   `json:"uid"`
				Groups   []string `json:"groups"`
			} `json:"user"`
		} `json:"status"`
	}
	if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
		http.NotFound(w, r)
		return
	}
	account, err := rs.account(review.Spec.Token)
	if err != nil {
		review.Status.Error = err.Error()
	} else {
		review.Status.Authenticated = true
		review.Status.Audiences = review.Spec.Audiences
		review.Status.User.Username = account.Subject
		review.Status.User.UID = account.Kubernetes.ServiceAccount.UID
		review.Status.User.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + account.Kubernetes.Namespace}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(review)
}

// account is what a projected service account token says.
type account struct {
	jwt.Claims
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

func (rs reviews) account(token string) (*account, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return nil, err
	}
	var a account
	if err := parsed.Claims(rs.issuer, &a); err != nil {
		return nil, err
	}
	return &a, a.Validate(jwt.Expected{Time: time.Now()})
}
