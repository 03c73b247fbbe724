package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"pillion/creds"
)

// mortal is a store at whose writes of a grant the process dies: when a claim is
// stored; when an answer is in the journal and not yet in the store; when it is in
// the store, and tokens/NAME and the journal are not yet as they should be. It also
// counts blind claims, at once: what counts them otherwise may die first.
type mortal struct {
	creds.Store
	worker *worker

	mu  sync.Mutex
	gen int // of the grant, as far as this process knows
}

// grantOf is what it needs of a grant's record.
type grantOf struct {
	Gen   int `json:"gen"`
	Lease *struct {
		Blind bool `json:"blind"`
	} `json:"lease"`
}

func readGrant(data creds.Secret) grantOf {
	var g grantOf
	_ = json.Unmarshal([]byte(data.Reveal()), &g)
	return g
}

// Get implements creds.Store.
func (m *mortal) Get(ctx context.Context, key string) (creds.Record, error) {
	record, err := m.Store.Get(ctx, key)
	if err == nil && strings.HasPrefix(key, creds.KeyGrants) {
		m.mu.Lock()
		m.gen = readGrant(record.Data).Gen
		m.mu.Unlock()
	}
	return record, err
}

// CAS implements creds.Store.
func (m *mortal) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	if !strings.HasPrefix(key, creds.KeyGrants) {
		return m.Store.CAS(ctx, key, data, version)
	}
	g := readGrant(data)
	m.mu.Lock()
	answer := g.Gen > m.gen
	m.mu.Unlock()
	if answer {
		m.worker.dies(m.worker.Crash)
	}
	next, err := m.Store.CAS(ctx, key, data, version)
	if err != nil {
		return next, err
	}
	if g.Lease != nil && g.Lease.Blind {
		m.worker.count(func(t *tally) { t.Blind++ })
		m.worker.send()
	}
	if answer || g.Lease != nil {
		m.worker.dies(m.worker.Crash)
	}
	return next, nil
}

// deadly is the way to the provider, on which the process dies when the provider has
// renewed a token and nobody has read that yet. Consents are left alone: one that is
// lost is begun again by the person who waits for it.
type deadly struct {
	http.RoundTripper
	worker *worker
}

// RoundTrip implements http.RoundTripper.
func (d deadly) RoundTrip(r *http.Request) (*http.Response, error) {
	form, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(form))
	response, err := d.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	if bytes.Contains(form, []byte("grant_type=refresh_token")) {
		d.worker.dies(d.worker.DieInside)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}
