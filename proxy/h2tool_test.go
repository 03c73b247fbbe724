package proxy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// h2Tool is a tool that does what the path says, for the tests of HTTP/2.
type h2Tool struct {
	held, left chan string   // paths of requests that wait, and of those whose client left
	on         chan struct{} // lets events go on
	endless    atomic.Int64  // answers without an end that have ended
}

func newH2Tool() *h2Tool {
	return &h2Tool{held: make(chan string, 1000), left: make(chan string, 1000), on: make(chan struct{})}
}

func (h *h2Tool) serve(w http.ResponseWriter, r *http.Request) {
	w.Header()["Date"] = nil
	out := http.NewResponseController(w)
	part := strings.Split(r.URL.Path, "/")
	arg := func(i int) int {
		if i >= len(part) {
			return 0
		}
		n, _ := strconv.Atoi(part[i])
		return n
	}
	switch part[1] {
	case "bytes": // bytes/length/seed
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(arg(2)))
		_, _ = w.Write(pattern(arg(3), arg(2)))
	case "chunked":
		b := pattern(arg(3), arg(2))
		for len(b) > 0 {
			n := min(len(b), 10_000)
			_, _ = w.Write(b[:n])
			_ = out.Flush()
			b = b[n:]
		}
	case "sum":
		hash := sha256.New()
		n, err := io.Copy(hash, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x %v %s", n, hash.Sum(nil), err, r.Header.Get("Content-Length"))
	case "status":
		if len(part) > 3 {
			w.Header().Set("Content-Length", part[3])
		}
		w.WriteHeader(arg(2))
	case "hints":
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "after hints")
	case "trailers": // announced, or not
		if arg(2) == 1 {
			w.Header().Set("Trailer", "X-Sum")
		}
		_, _ = io.WriteString(w, "body")
		_ = out.Flush()
		if arg(2) == 1 {
			w.Header().Set("X-Sum", "42")
		} else {
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		}
	case "seen":
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s|%v|%v", b, r.Header["Cookie"], r.Trailer)
	case "hold":
		h.held <- r.URL.Path
		if r.Method == http.MethodPost {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				return
			}
		} else {
			<-r.Context().Done()
		}
		h.left <- r.URL.Path
	case "amid": // begins to answer, and waits
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "begins")
		_ = out.Flush()
		h.held <- r.URL.Path
		<-r.Context().Done()
		h.left <- r.URL.Path
	case "endless":
		defer h.endless.Add(1)
		for {
			if _, err := w.Write(pattern(1, 32<<10)); err != nil {
				return
			}
		}
	case "events":
		for _, event := range []string{"one", "two"} {
			_, _ = io.WriteString(w, event)
			_ = out.Flush()
			<-h.on
		}
		_, _ = io.WriteString(w, "end")
	case "break":
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "not all of it")
		_ = out.Flush()
		panic(http.ErrAbortHandler)
	case "early": // answers an upload that it has not read
		_ = out.EnableFullDuplex()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large")
	case "head":
		w.Header().Set("X-Large", strings.Repeat("h", arg(2)))
		_, _ = io.WriteString(w, "hello")
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello from the tool")
	}
}

// onBothEngines runs f before a tool of each.
func onBothEngines(t *testing.T, f func(t *testing.T, r *rig, tool *h2Tool), change ...func(*Server, *Config)) {
	t.Helper()
	fast, reference := engineRigs(t, change...)
	for name, r := range map[string]*rig{engineFast: fast, engineNet: reference} {
		tool := newH2Tool()
		r.origin.Config.ErrorLog = nil
		r.origin.handle(tool.serve)
		t.Run(name, func(t *testing.T) { f(t, r, tool) })
		if strings.Contains(r.logText.String(), `"msg":"fault"`) {
			t.Errorf("%s panicked", name)
		}
	}
}
