package proxy

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"pillion/creds"
	"pillion/creds/token"
)

// BenchmarkInject measures what stands between a matched request and the way out.
func BenchmarkInject(b *testing.B) {
	a, err := (&token.Keeper{}).Authorize(context.Background(), &creds.Credential{
		Name: "tool", Protocol: creds.HTTPS, URL: "https://tool.example/",
		Authorization: creds.Bearer, Token: creds.NewSecret(toolToken),
	})
	if err != nil {
		b.Fatal(err)
	}
	r := &http.Request{
		Method: http.MethodGet, RequestURI: "/api/x?y=1", URL: &url.URL{Path: "/api/x", RawQuery: "y=1"}, Proto: "HTTP/1.1", ProtoMajor: 1,
		Header: http.Header{"Accept": {"*/*"}, "User-Agent": {"connector"}, "Authorization": {"mine"}, "Connection": {"keep-alive"}},
	}
	x := newExchange(r)
	x.target = creds.Target{Scheme: "https", Host: "tool.example", Port: 443, Path: x.path}
	b.ReportAllocs()
	for b.Loop() {
		inject(outgoing(x, r), a)
	}
}
