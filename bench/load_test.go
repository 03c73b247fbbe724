package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask1 sends one request by the hand-made client to a handler.
func ask1(t *testing.T, l load, handler http.HandlerFunc) error {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	l.Dial, l.Host, l.Target = server.Listener.Addr().String(), "bench", "/"
	d, err := newDialer(&l)
	if err != nil {
		t.Fatal(err)
	}
	c := newHTTP1(&l, d)
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.do(); err != nil {
		return err
	}
	return c.do() // the second one tells whether the first was read to its end
}

func TestTheClientByHand(t *testing.T) {
	for _, row := range []struct {
		name    string
		load    load
		handler http.HandlerFunc
		want    string // of the error
	}{
		{"an answer with a length", load{WantBytes: 5000}, func(w http.ResponseWriter, _ *http.Request) { reply(w, filler[:5000]) }, ""},
		{"an answer in chunks", load{WantBytes: 9000}, func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = w.Write(filler[:3000])
				w.(http.Flusher).Flush()
			}
		}, ""},
		{"an upload", load{Upload: 70000, Want: "70000"}, func(w http.ResponseWriter, r *http.Request) {
			reply(w, fmt.Append(nil, r.ContentLength))
		}, ""},
		{"its Authorization", load{Authorization: "Bearer x", Want: "Bearer x"}, func(w http.ResponseWriter, r *http.Request) {
			reply(w, []byte(r.Header.Get("Authorization")))
		}, ""},
		{"a byte too few", load{WantBytes: 10}, func(w http.ResponseWriter, _ *http.Request) { reply(w, filler[:9]) }, "9 bytes instead of 10"},
		{"another status", load{WantBytes: 9}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(filler[:9])
		}, "status 502"},
		{"another body", load{Want: "7"}, func(w http.ResponseWriter, _ *http.Request) { reply(w, []byte("8")) }, `"8" instead of "7"`},
		{"a length beyond all bounds", load{WantBytes: 1}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99999999")
		}, "bad Content-Length"},
		{"a connection that ends", load{WantBytes: 1}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		err := ask1(t, row.load, row.handler)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: error %v, want %q", row.name, err, row.want)
		}
	}
}

func TestConnectLeavesTheBytesBehindTheHead(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		_, _ = server.Read(make([]byte, 1024))
		_, _ = server.Write([]byte("HTTP/1.1 200 OK\r\nX: y\r\n\r\nTLS"))
	}()
	if err := connect(client, "a:1"); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, 3)
	if _, err := client.Read(rest); err != nil || string(rest) != "TLS" {
		t.Errorf("behind the head came %q, %v", rest, err)
	}
}

func TestConnectTellsARefusal(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		_, _ = server.Read(make([]byte, 1024))
		_, _ = server.Write([]byte("HTTP/1.1 403 Forbidden\r\n\r\n"))
	}()
	if err := connect(client, "a:1"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("error %v", err)
	}
}

// fake answers after a while, and fails when it has been asked often enough.
type fake struct {
	takes time.Duration
	fails int
	asked int
}

var errFake = errors.New("fake")

func (f *fake) do() error {
	f.asked++
	if f.asked == f.fails {
		return errFake
	}
	time.Sleep(f.takes) // the fake's own work, not a synchronisation
	return nil
}

func (f *fake) close() {}

func TestAnOpenLoopKeepsItsRate(t *testing.T) {
	f := &fake{}
	latencies, err := openLoop(f, time.Now(), 0, 4, 400, 100*time.Millisecond)
	if err != nil || len(latencies) != 10 {
		t.Errorf("client 1 of 4 at 400 a second sent %d requests in 100 ms, want 10 (%v)", len(latencies), err)
	}
}

func TestAnOpenLoopCountsTheWaitBehindASlowAnswer(t *testing.T) {
	f := &fake{takes: 20 * time.Millisecond}
	latencies, err := openLoop(f, time.Now(), 0, 1, 1000, 5*time.Millisecond)
	if err != nil || len(latencies) != 5 {
		t.Fatalf("%d requests, %v", len(latencies), err)
	}
	// The fifth was due after 4 ms and answered after 100 at the earliest.
	if latencies[4] < 90*time.Millisecond {
		t.Errorf("the fifth request took %v; the four before it were not counted", latencies[4])
	}
}

func TestAFailedAnswerEndsARun(t *testing.T) {
	for _, rate := range []int{0, 1000} {
		l := load{Rate: rate}
		result := l.run([]requester{&fake{takes: time.Millisecond, fails: 3}}, time.Second)
		if result.Err != errFake.Error() || result.Requests != 2 {
			t.Errorf("rate %d: %d requests, error %q", rate, result.Requests, result.Err)
		}
	}
}

func TestASampleIsRefusedWhereAnythingWasWrong(t *testing.T) {
	good := loadResult{Requests: 10, Elapsed: time.Second}
	for _, row := range []struct {
		name   string
		result loadResult
		after  counts
		want   string
	}{
		{"all well", good, counts{Requests: 10}, ""},
		{"an error", loadResult{Requests: 10, Err: "status 502"}, counts{Requests: 10}, "502"},
		{"no requests", loadResult{}, counts{}, "no request"},
		{"a request without its credential", good, counts{Requests: 10, Unauthorized: 1}, "Authorization"},
		{"a cached answer", good, counts{Requests: 9}, "cached"},
	} {
		err := new(sample).fill(row.result, view{}, view{counts: row.after})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: error %v, want %q", row.name, err, row.want)
		}
	}
}
