package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

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

// matchAndInject returns what the fast engine does for a request between its head
// and the way out, with a table of n credentials.
func matchAndInject(tb testing.TB, n int) func() {
	tb.Helper()
	credentials := make([]*creds.Credential, n)
	for i := range credentials {
		name := fmt.Sprintf("tool-%d", i)
		credentials[i] = bearer(name, "https://"+name+".example/")
	}
	table := creds.NewTable(credentials)
	s := &Server{Table: func() *creds.Table { return table }, Metrics: NewMetrics(prometheus.NewRegistry(), false)}
	name := fmt.Sprintf("tool-%d", n/2)
	a, err := (&token.Keeper{}).Authorize(context.Background(), credentials[n/2])
	if err != nil {
		tb.Fatal(err)
	}
	rq := takeRequest()
	head := []byte("GET /api/x?y=1 HTTP/1.1\r\nHost: " + name + ".example\r\nAccept: */*\r\nUser-Agent: connector\r\nAuthorization: mine\r\nConnection: keep-alive\r\n\r\n")
	if !rq.parse(head) {
		tb.Fatal("the head is not in the subset")
	}
	rq.x.target = creds.Target{Scheme: "https", Host: name + ".example", Port: 443, Path: "/api/x"}
	return func() {
		c, err := s.match(&rq.x)
		if err != nil || c.Name != name {
			tb.Fatal(c, err)
		}
		rq.write(a, c.Name)
	}
}

// BenchmarkFastMatchAndInject is flat from 10 to 100,000 credentials.
func BenchmarkFastMatchAndInject(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(n, " credentials"), func(b *testing.B) {
			do := matchAndInject(b, n)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

func TestFastMatchAndInjectDoNotAllocate(t *testing.T) {
	for _, n := range []int{10, 1000} {
		if got := testing.AllocsPerRun(100, matchAndInject(t, n)); got != 0 {
			t.Errorf("with %d credentials: %v allocations", n, got)
		}
	}
}
