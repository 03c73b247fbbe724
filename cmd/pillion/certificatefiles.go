package main

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// certificateFiles follows the files of a certificate, which are renewed while we
// run: it looks at most once a minute.
type certificateFiles struct {
	what      string // what they were named by
	cert, key string

	mu     sync.Mutex
	looked time.Time
	now    *tls.Certificate
}

func (f *certificateFiles) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil && time.Since(f.looked) < time.Minute {
		return f.now, nil
	}
	f.looked = time.Now()
	fresh, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err == nil {
		f.now = &fresh
	}
	if f.now == nil {
		return nil, fmt.Errorf("%s: certificate and key cannot be used: both must be PEM files that this user may read, and belong together", f.what)
	}
	return f.now, nil
}

// expiry is when the certificate in use ends; the zero time where there is none.
func (f *certificateFiles) expiry() time.Time {
	c, err := f.certificate(nil)
	if err != nil || c.Leaf == nil {
		return time.Time{}
	}
	return c.Leaf.NotAfter
}
