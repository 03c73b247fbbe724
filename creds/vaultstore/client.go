package vaultstore

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"pillion/creds"
)

// Client is a login at one Vault. Its Stores are what it may read and write
// there. It is safe for concurrent use.
type Client struct {
	// Now is the clock. If nil, time.Now. Set it before first use.
	Now func() time.Time
	// OnRequest, if not nil, is told of every request: what it was for ("login",
	// "get", ...), the status (0 when there was no answer) and how long it took.
	OnRequest func(operation string, status int, took time.Duration)
	// OnLogin, if not nil, is told how every login went.
	OnLogin func(err error)

	config Config
	getenv func(string) string
	vault  *api.Client

	transport *http.Transport // shared with those that As returns

	session session
	clock   clock
	mount   mountCheck
	history history
}

const (
	// requestTimeout is for one request; VAULT_CLIENT_TIMEOUT replaces it.
	requestTimeout = 5 * time.Second
	// maxAnswer is far above the largest record: KV's own limit is 1 MiB.
	maxAnswer = 8 << 20
)

// New makes a client of what WithEnvironment returned. It asks Vault for nothing
// yet: a Vault that is away is no reason not to start.
func New(config Config, getenv func(string) string) (*Client, error) {
	if problems := config.Problems(getenv); len(problems) > 0 {
		var all []error
		for _, p := range problems {
			all = append(all, fmt.Errorf("store.vault.%s: %s", p.Field, p.Problem))
		}
		return nil, errors.Join(all...)
	}
	c := &Client{config: config, getenv: getenv}
	transport, err := newTransport(config, getenv)
	if err != nil {
		return nil, err
	}
	timeout := requestTimeout
	if text := getenv("VAULT_CLIENT_TIMEOUT"); text != "" {
		if timeout, err = parseTimeout(text); err != nil {
			return nil, err
		}
	}
	if c.vault, err = c.connection(transport, timeout); err != nil {
		return nil, err
	}
	c.transport = transport
	return c, nil
}

// connection is what c speaks through.
func (c *Client) connection(transport *http.Transport, timeout time.Duration) (*api.Client, error) {
	vault, err := api.NewClient(&api.Config{
		Address: c.config.Address,
		// Not vault/api's: it takes HTTP_PROXY, which in a pod is us.
		HttpClient: &http.Client{
			Transport:     &watchedTransport{transport, c},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// A retried write looks like a conflict with itself: see write.go.
		MaxRetries: 0,
		Timeout:    timeout,
	})
	if err != nil {
		// Its text may quote variables such as VAULT_HEADERS.
		return nil, errors.New("setting up the client of Vault: one of the VAULT_ variables cannot be used: look at VAULT_HEADERS, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY and VAULT_RATE_LIMIT")
	}
	vault.ClearToken()
	vault.ClearNamespace()
	if c.config.Namespace != "" {
		vault.SetNamespace(c.config.Namespace)
	}
	return vault, nil
}

// parseTimeout reads seconds, or a duration.
func parseTimeout(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 0 && seconds < 3600 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, errors.New("VAULT_CLIENT_TIMEOUT must be seconds or a duration such as 5s")
}

func newTransport(config Config, getenv func(string) string) (*http.Transport, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: getenv("VAULT_TLS_SERVER_NAME"),
		InsecureSkipVerify: config.SkipVerify} //nolint:gosec // only where the configuration says so
	var err error
	if t.RootCAs, err = rootCAs(config, getenv); err != nil {
		return nil, err
	}
	certificate, key := getenv("VAULT_CLIENT_CERT"), getenv("VAULT_CLIENT_KEY")
	switch {
	case certificate == "" && key == "":
	case certificate == "" || key == "":
		return nil, errors.New("VAULT_CLIENT_CERT and VAULT_CLIENT_KEY belong together: set both or none")
	default:
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, errors.New("VAULT_CLIENT_CERT and VAULT_CLIENT_KEY do not name a certificate and its key, in PEM form, that this user may read")
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{
		Proxy:               nil, // in a pod HTTP_PROXY is ourselves
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     t,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,              // a list is read by so many at a time
		IdleConnTimeout:     3 * time.Minute, // longer than a poll
	}, nil
}

// rootCAs returns nil, the system's, unless authorities are named.
func rootCAs(config Config, getenv func(string) string) (*x509.CertPool, error) {
	var files []string
	name := "store.vault.ca_file"
	switch {
	case getenv("VAULT_CACERT") != "":
		name, files = "VAULT_CACERT", []string{getenv("VAULT_CACERT")}
	case getenv("VAULT_CACERT_BYTES") != "":
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(getenv("VAULT_CACERT_BYTES"))) {
			return nil, errors.New("VAULT_CACERT_BYTES holds no certificate: it must be PEM, with lines BEGIN CERTIFICATE")
		}
		return pool, nil
	case getenv("VAULT_CAPATH") != "":
		name = "VAULT_CAPATH"
		entries, err := os.ReadDir(getenv("VAULT_CAPATH"))
		if err != nil {
			return nil, errors.New("VAULT_CAPATH is no directory that this user may read")
		}
		for _, e := range entries {
			if !e.IsDir() {
				files = append(files, filepath.Join(getenv("VAULT_CAPATH"), e.Name()))
			}
		}
	case config.CAFile != "":
		files = []string{config.CAFile}
	default:
		return nil, nil //nolint:nilnil // documented
	}
	pool := x509.NewCertPool()
	found := false
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil && len(files) == 1 {
			return nil, fmt.Errorf("%s: the file %s cannot be read: write the path of Vault's authority in PEM form", name, file)
		}
		found = pool.AppendCertsFromPEM(data) || found
	}
	if !found {
		return nil, fmt.Errorf("%s holds no certificate: it must be PEM, with lines BEGIN CERTIFICATE", name)
	}
	return pool, nil
}

// watchedTransport notes Vault's clock and bounds what an answer may hold.
type watchedTransport struct {
	*http.Transport
	client *Client
}

// RoundTrip implements http.RoundTripper.
func (t *watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	t.client.clock.note(response.Header.Get("Date"), time.Now())
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxAnswer), response.Body}
	return response, nil
}

// request is one call of Vault's API.
type request struct {
	operation string // for metrics and errors
	method    string
	path      string // after /v1/
	query     map[string]string
	body      any
	merge     bool   // a JSON merge patch
	token     string // "" for none
	root      bool   // outside every namespace
}

// answer is what Vault said with a status below 400, or 404 with a body.
type answer struct {
	status int
	raw    []byte
}

func (a answer) decode(into any) error {
	if err := json.Unmarshal(a.raw, into); err != nil {
		return errors.New("its answer cannot be understood") // encoding/json quotes what it reads
	}
	return nil
}

// send does one request, without a login. Errors are *problem.
func (c *Client) send(ctx context.Context, q request) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, c.cancelled(q, err)
	}
	begin := time.Now()
	a, err := c.roundTrip(ctx, q)
	if c.OnRequest != nil {
		c.OnRequest(q.operation, a.status, time.Since(begin))
	}
	return a, err
}

func (c *Client) roundTrip(ctx context.Context, q request) (answer, error) {
	own, cancel := context.WithTimeout(ctx, c.vault.ClientTimeout())
	defer cancel()
	r := c.vault.NewRequest(q.method, "/v1/"+q.path)
	r.ClientToken = q.token
	for name, value := range q.query {
		r.Params.Set(name, value)
	}
	if q.body != nil {
		data, err := json.Marshal(q.body)
		if err != nil {
			return answer{}, errors.New("encoding a request to Vault")
		}
		r.BodyBytes = data
	}
	if q.merge {
		r.Headers.Set("Content-Type", "application/merge-patch+json")
	}
	vault := c.vault
	if q.root {
		vault = vault.WithNamespace("")
	}
	//lint:ignore SA1019 the one call that hands back status, headers and the raw body
	response, err := vault.RawRequestWithContext(own, r) //nolint:staticcheck // see above
	a := answer{}
	if response != nil {
		defer func() { _ = response.Body.Close() }()
		a.status = response.StatusCode
		var readErr error
		a.raw, readErr = io.ReadAll(response.Body)
		if err == nil && readErr != nil {
			err = readErr
		}
	}
	if err == nil && a.status < 300 {
		return a, nil
	}
	if ctx.Err() != nil {
		return a, c.cancelled(q, ctx.Err())
	}
	return a, c.problemOf(q, a, err)
}

// errorsOf returns the texts that Vault gives for a refusal, to be searched for
// what is known and never shown: what they quote is anybody's guess.
func (a answer) errorsOf() (texts string, isVault bool) {
	var body struct {
		Errors *[]string       `json:"errors"`
		Data   json.RawMessage `json:"data"`
	}
	if json.Unmarshal(bytes.TrimSpace(a.raw), &body) != nil {
		return strings.ToLower(string(a.raw)), false
	}
	if body.Errors == nil {
		return "", len(body.Data) > 0
	}
	return strings.ToLower(strings.Join(*body.Errors, "\n")), true
}

// clock follows Vault's Date.
type clock struct {
	mu    sync.Mutex
	date  time.Time
	at    time.Time // when it was that, with a monotonic reading
	heard time.Time // when the last answer came
}

func (c *clock) note(date string, at time.Time) {
	t, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = at
	// Several answers fall into one second: the first of them is the most exact,
	// and going back would let a lease grow younger.
	if known := c.date.Add(at.Sub(c.at)); !c.date.IsZero() && t.Before(known) && known.Sub(t) < 2*time.Second {
		return
	}
	c.date, c.at = t, at
}

// read returns Vault's time, if an answer came within fresh.
func (c *clock) read(fresh time.Duration) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() || time.Since(c.heard) > fresh {
		return time.Time{}, false
	}
	return c.date.Add(time.Since(c.at)), true
}

var _ http.RoundTripper = (*watchedTransport)(nil)

// Store returns what the prefix holds, which is one of Config's.
func (c *Client) Store(prefix string) *Store { return &Store{client: c, prefix: prefix} }

// Stores returns those of all prefixes, in order.
func (c *Client) Stores() []creds.Store {
	var all []creds.Store
	for _, p := range c.config.Prefixes {
		all = append(all, c.Store(p))
	}
	return all
}
