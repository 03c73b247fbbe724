package sftpgw

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// Sessions that end in every way leave no goroutine behind, and no connection to
// the server.
func TestNothingIsLeft(t *testing.T) {
	r, server := acme(t, nil)
	put(t, r.client(t, "acme"), "first", "x") // what is made once is made
	before := runtime.NumGoroutine()
	for i := range 10 {
		good := r.client(t, "acme")
		put(t, good, fmt.Sprint(i), "x")
		good.Close()

		refused := r.client(t, "nobody")
		if err := tryPut(refused, "up", "x"); err == nil {
			t.Error("an upload for nobody")
		}
		refused.Close()

		cut := r.client(t, "acme")
		s, err := sftp.NewClient(cut)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create("cut"); err != nil {
			t.Fatal(err)
		}
		cut.Close()

		outer := r.client(t, "somebody")
		inner, err := outer.Dial("tcp", "sftp.acme.example:22")
		if err != nil {
			t.Fatal(err)
		}
		put(t, r.over(t, inner, ""), "jumped", "x")
		outer.Close()

		silent, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		silent.Close()
	}
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
	log := server.Log()
	if opened := strings.Count(log, "Accepted password"); opened != 31 {
		t.Errorf("%d connections to the server", opened)
	}
	for deadline := time.Now().Add(10 * time.Second); len(server.Sessions()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes of the server are left", len(server.Sessions()))
		}
	}
}
