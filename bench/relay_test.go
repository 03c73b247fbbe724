package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestAbsoluteAuthority(t *testing.T) {
	for _, row := range []struct{ head, want string }{
		{"GET http://origin.example:8443/bytes/1 HTTP/1.1\r\n\r\n", "origin.example:8443"},
		{"POST http://a:1 HTTP/1.1\r\n\r\n", "a:1"},
		{"GET /bytes/1 HTTP/1.1\r\n\r\n", ""},
		{"GET http://a", ""},
	} {
		r := bufio.NewReader(strings.NewReader(row.head))
		got, err := absoluteAuthority(r)
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%q: %q, %v", row.head, got, err)
		}
		if rest, _ := r.Peek(len(row.head)); string(rest) != row.head {
			t.Errorf("%q: something was consumed", row.head)
		}
	}
}

func TestReadConnect(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nTLS"))
	got, err := readConnect(r)
	rest, _ := r.Peek(3)
	if got != "a:1" || err != nil || string(rest) != "TLS" {
		t.Errorf("%q, %v, then %q", got, err, rest)
	}
	if _, err := readConnect(bufio.NewReader(strings.NewReader("CONNECT\r\n\r\n"))); err == nil {
		t.Error("a CONNECT without an authority was taken")
	}
}
