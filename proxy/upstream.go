package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// The bounds of an upstream connection's life. Idle ones are capped because each
// costs some 40 KB, in every pod.
const (
	upstreamHandshake   = 10 * time.Second
	upstreamHead        = 5 * time.Minute // some tools think that long over a report
	upstreamIdle        = 90 * time.Second
	upstreamIdleTotal   = 128
	upstreamIdlePerHost = 64
	upstreamMaxHead     = 256 << 10 // of an answer
)

// newTransport makes the one way out: verified TLS 1.2 or later, HTTP/2 where
// the tool offers it, every dial through the guard. It never looks at the
// environment: HTTP_PROXY is meant for connectors, and may name ourselves.
func newTransport(guard *Guard, roots *x509.CertPool, corporate *url.URL) *http.Transport {
	t := &http.Transport{
		DialContext:            guard.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256)},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    upstreamHandshake,
		ResponseHeaderTimeout:  upstreamHead,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        upstreamIdle,
		MaxIdleConns:           upstreamIdleTotal,
		MaxIdleConnsPerHost:    upstreamIdlePerHost,
		MaxResponseHeaderBytes: upstreamMaxHead,
		DisableCompression:     true, // bytes pass as they are
		// A dead connection of HTTP/2 is found by a ping, not by its next user.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
	}
	if corporate != nil {
		// The company's proxy is dialled as it was configured; the guard has
		// judged the target's name before (Server.roundTrip).
		dialer := &net.Dialer{Timeout: upstreamHandshake}
		t.Proxy = http.ProxyURL(corporate)
		t.DialContext = dialer.DialContext
	}
	return t
}
