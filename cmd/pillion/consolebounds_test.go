package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pillion/creds/console"
)

// Slow and huge requests of the page end: the head by size and time, the form by time
// (by size and number of fields in the page's own tests). The times are those of
// boundedServer, shortened.
func TestConsoleIsBounded(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	page := &console.Server{URL: "http://" + server.Listener.Addr().String(), Login: &console.Links{}, SessionKey: []byte(strings.Repeat("k", 32))}
	handler, err := page.Handler()
	if err != nil {
		t.Fatal(err)
	}
	server.Config = boundedServer(handler)
	if c := server.Config; c.ReadHeaderTimeout > 5*time.Second || c.ReadTimeout > 30*time.Second || c.WriteTimeout > 2*time.Minute || c.IdleTimeout > 2*time.Minute || c.MaxHeaderBytes > 32<<10 {
		t.Errorf("the bounds are %+v", c)
	}
	server.Config.ReadHeaderTimeout, server.Config.ReadTimeout = 200*time.Millisecond, 400*time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	send := func(text string) (status int, ended bool) {
		t.Helper()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, strings.ReplaceAll(text, "HOST", server.Listener.Addr().String()))
		answers := bufio.NewReader(conn)
		response, err := http.ReadResponse(answers, nil)
		if err == nil {
			status = response.StatusCode
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		_, err = answers.ReadByte()
		return status, err != nil && !strings.Contains(err.Error(), "timeout")
	}
	const form = "POST /login HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
	for what, row := range map[string]struct {
		text string
		want []int // 0: no answer
	}{
		"a head of 40 KiB":          {"GET / HTTP/1.1\r\nHost: HOST\r\nCookie: " + strings.Repeat("a", 40<<10) + "\r\n\r\n", []int{431}},
		"a thousand long fields":    {"GET / HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat(fmt.Sprintf("X: %s\r\n", strings.Repeat("a", 100)), 1000) + "\r\n", []int{431}},
		"a head that never ends":    {"GET / HTTP/1.1\r\nHost: HOST\r\nX", []int{0, 400, 408}},
		"a form that never ends":    {form + "way=link", []int{400}},
		"a form that never begins":  {form, []int{400}},
		"a connection without word": {"", []int{0}},
	} {
		if status, ended := send(row.text); !ended || !slices.Contains(row.want, status) {
			t.Errorf("%s is answered %d, the connection ended: %v", what, status, ended)
		}
	}
}
