package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// Case 52: bodies and connections pass as they came.
func TestAttackBodies(t *testing.T) {
	target := func(way string) (func(*rig) *wire, string) {
		if way == plain {
			return (*rig).dial, "http://tool.example"
		}
		return (*rig).toTool, ""
	}
	for _, way := range []string{tunnelH1, plain} {
		open, prefix := target(way)
		t.Run("52 an upload's header arrives at once, and each piece as it is sent, "+way, func(t *testing.T) {
			for _, framing := range []string{"Content-Length: 5000000000\r\n", "Transfer-Encoding: chunked\r\n"} {
				r := newRig(t)
				pieces := make(chan string)
				r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
					pieces <- req.Header.Get("Authorization")
					buf := make([]byte, 100)
					for {
						n, err := req.Body.Read(buf)
						pieces <- string(buf[:n])
						if err != nil {
							return
						}
					}
				})
				w := open(r)
				w.send("POST " + prefix + "/up HTTP/1.1\r\nHost: tool.example\r\n" + framing + "\r\n")
				if got := <-pieces; got != "Bearer "+toolToken {
					t.Errorf("the tool got Authorization %q", got)
				}
				for n := range 3 { // the next piece leaves only when this one has arrived
					piece := fmt.Sprintf("piece %d", n)
					if framing[0] == 'T' {
						w.send(fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
					} else {
						w.send(piece)
					}
					if got := <-pieces; got != piece {
						t.Errorf("the tool got %q", got)
					}
				}
				_ = w.conn.Close()
				for range pieces { // until the tool sees the end
					break
				}
				if e := r.entry(); e.Error != "client-gone" || e.In != 21 {
					t.Errorf("the log says %+v", e)
				}
			}
		})
		t.Run("52 100-continue both ways, "+way, func(t *testing.T) {
			r := newRig(t)
			w := open(r)
			w.send("POST " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
			if resp := w.response("POST"); resp.StatusCode != 100 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			w.send("abc")
			if resp := w.response("POST"); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
		t.Run("52 a tool that refuses the expectation: the client is never asked for its body, "+way, func(t *testing.T) {
			r := newRig(t)
			r.origin.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusExpectationFailed) })
			w := open(r)
			resp := w.ask("POST " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
			if resp.StatusCode != 417 || !resp.Close {
				t.Errorf("status %d, closing %v", resp.StatusCode, resp.Close)
			}
			w.body(resp)
			_ = w.conn.Close() // as "Connection: close" asks: the body will not come
		})
		t.Run("52 another Expect is refused, "+way, func(t *testing.T) {
			r := newRig(t)
			w := open(r)
			r.refuses(kindBadRequest, func() *http.Response {
				return w.ask("POST " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\nExpect: 200-ok\r\n\r\n")
			})
			w.closed()
		})
		t.Run("52 an answer in the middle of an upload, "+way, func(t *testing.T) {
			r := newRig(t)
			r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "close")
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				_, _ = io.WriteString(w, "too much")
			})
			w := open(r)
			resp := w.ask("POST " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 1000000000\r\n\r\nbegins")
			if body := w.body(resp); resp.StatusCode != 413 || body != "too much" {
				t.Errorf("status %d, %q", resp.StatusCode, body)
			}
			_ = w.conn.Close()
			if e := r.entry(); e.Status != 413 {
				t.Errorf("the log says %+v", e)
			}
		})
		t.Run("52 pipelined requests are answered in order, "+way, func(t *testing.T) {
			r := newRig(t)
			r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
				body, _ := io.ReadAll(req.Body)
				_, _ = fmt.Fprintf(w, "%s %s", req.URL.Path, body)
			})
			var all strings.Builder
			for n := range 50 {
				switch n % 3 {
				case 0:
					fmt.Fprintf(&all, "GET %s/%d HTTP/1.1\r\nHost: tool.example\r\n\r\n", prefix, n)
				case 1:
					fmt.Fprintf(&all, "POST %s/%d HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\n\r\nabc", prefix, n)
				case 2:
					fmt.Fprintf(&all, "POST %s/%d HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\n\r\n", prefix, n)
				}
			}
			w := open(r)
			w.send(all.String())
			for n := range 50 {
				want := fmt.Sprintf("/%d abc", n)
				if n%3 == 0 {
					want = fmt.Sprintf("/%d ", n)
				}
				if body := w.body(w.response("POST")); body != want {
					t.Fatalf("answer %d is %q", n, body)
				}
			}
		})
		t.Run("52 a client of HTTP/1.0, "+way, func(t *testing.T) {
			r := newRig(t)
			r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "a")
				_ = http.NewResponseController(w).Flush() // chunked, from the tool
				_, _ = io.WriteString(w, "b")
			})
			w := open(r)
			resp := w.ask("GET " + prefix + "/ HTTP/1.0\r\n\r\n")
			if body := w.body(resp); body != "ab" || len(resp.TransferEncoding) > 0 || !resp.Close {
				t.Errorf("%q, %v, closing %v", body, resp.TransferEncoding, resp.Close)
			}
			w.closed()
		})
		t.Run("52 Connection: close, "+way, func(t *testing.T) {
			r := newRig(t)
			w := open(r)
			_, resp := r.passes(func() *http.Response {
				return w.ask("GET " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\nConnection: close\r\n\r\n")
			})
			if !resp.Close {
				t.Error("the answer does not close the connection")
			}
			w.closed()
		})
		t.Run("52 HEAD, 204 and 304 have no body, and the connection goes on, "+way, func(t *testing.T) {
			r := newRig(t)
			r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Etag", `"x"`)
				switch req.URL.Path {
				case "/204":
					w.WriteHeader(http.StatusNoContent)
				case "/304":
					w.WriteHeader(http.StatusNotModified)
				default:
					w.Header().Set("Content-Length", "5000000000")
				}
			})
			w := open(r)
			for path, status := range map[string]int{"/204": 204, "/304": 304, "/": 200} {
				method := "GET"
				if status == 200 {
					method = "HEAD"
				}
				resp := w.ask(method + " " + prefix + path + " HTTP/1.1\r\nHost: tool.example\r\n\r\n")
				if body := w.body(resp); resp.StatusCode != status || body != "" || resp.Header.Get("Etag") != `"x"` {
					t.Errorf("%s: status %d, %q, %v", path, resp.StatusCode, body, resp.Header)
				}
				if status == 200 && resp.ContentLength != 5000000000 {
					t.Errorf("HEAD: Content-Length is %d", resp.ContentLength)
				}
				if e := r.entry(); e.Error != "" || e.Out != 0 {
					t.Errorf("%s: the log says %+v", path, e)
				}
			}
		})
		t.Run("52 a client abort cancels upstream, "+way, func(t *testing.T) {
			r := newRig(t)
			began, cancelled := make(chan struct{}), make(chan struct{})
			r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
				close(began)
				<-req.Context().Done()
				close(cancelled)
			})
			w := open(r)
			w.send("GET " + prefix + "/ HTTP/1.1\r\nHost: tool.example\r\n\r\n")
			<-began
			_ = w.conn.Close()
			<-cancelled
			if e := r.entry(); e.Error != "client-gone" || e.Status != 499 {
				t.Errorf("the log says %+v", e)
			}
		})
	}

	t.Run("52 an upload's header arrives at once, "+tunnelH2, func(t *testing.T) {
		r := newRig(t)
		pieces := make(chan string)
		r.origin.handle(func(_ http.ResponseWriter, req *http.Request) {
			pieces <- req.Header.Get("Authorization")
			buf := make([]byte, 100)
			for {
				n, err := req.Body.Read(buf)
				if err != nil {
					close(pieces)
					return
				}
				pieces <- string(buf[:n])
			}
		})
		w := r.http2("tool.example:443", "tool.example")
		id := w.head(false, ":method: POST", ":scheme: https", ":authority: tool.example", ":path: /up")
		if got := <-pieces; got != "Bearer "+toolToken {
			t.Errorf("the tool got Authorization %q", got)
		}
		w.must(w.framer.WriteData(id, false, []byte("piece")))
		if got := <-pieces; got != "piece" {
			t.Errorf("the tool got %q", got)
		}
		w.must(w.framer.WriteRSTStream(id, http2.ErrCodeCancel))
		<-pieces // closed: the tool was told
		if e := r.entry(); e.Error != "client-gone" {
			t.Errorf("the log says %+v", e)
		}
	})
	t.Run("52 a tool that cannot be reached is told of before the upload's end", func(t *testing.T) {
		r := newRig(t)
		r.origin.Close()
		for _, framing := range []string{"Content-Length: 100000", "Content-Length: 10000000", "Transfer-Encoding: chunked"} {
			w := r.toTool()
			r.refuses(kindUnreachable, func() *http.Response {
				return w.ask("POST / HTTP/1.1\r\nHost: tool.example\r\n" + framing + "\r\n\r\n5\r\nhello\r\n")
			})
		}
	})
	t.Run("52 a client abort cancels upstream, "+tunnelH2, func(t *testing.T) {
		r := newRig(t)
		began, cancelled := make(chan struct{}), make(chan struct{})
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.WriteString(w, "begins")
			_ = http.NewResponseController(w).Flush()
			close(began)
			<-req.Context().Done()
			close(cancelled)
		})
		w := r.http2("tool.example:443", "tool.example")
		id := w.get()
		<-began
		for {
			frame, err := w.framer.ReadFrame()
			w.must(err)
			if f, ok := frame.(*http2.DataFrame); ok && string(f.Data()) == "begins" {
				break
			}
		}
		w.must(w.framer.WriteRSTStream(id, http2.ErrCodeCancel))
		<-cancelled
		if e := r.entry(); e.Error != "client-gone" || e.Status != 200 {
			t.Errorf("the log says %+v", e)
		}
	})
}

// Case 52, what is the same for every client: seen through an ordinary one.
func TestAttackBodiesPassUntouched(t *testing.T) {
	clients := func(r *rig) map[string]func(*http.Request) *http.Response {
		do := func(c *http.Client, scheme string) func(*http.Request) *http.Response {
			c.Transport.(*http.Transport).DisableCompression = true
			return func(req *http.Request) *http.Response {
				req.URL.Scheme = scheme
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
		}
		h2 := r.client("")
		h2.Transport.(*http.Transport).Protocols = new(http.Protocols)
		h2.Transport.(*http.Transport).Protocols.SetHTTP2(true)
		return map[string]func(*http.Request) *http.Response{tunnelH1: do(r.client(""), "https"), tunnelH2: do(h2, "https"), plain: do(r.client(""), "http")}
	}
	newRequest := func(method, path string, body io.Reader) *http.Request {
		req, err := http.NewRequest(method, "https://tool.example"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	t.Run("52 a large answer is not cut", func(t *testing.T) {
		r := newRig(t)
		const large = 256 << 20
		block := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/length" {
				w.Header().Set("Content-Length", fmt.Sprint(large))
			}
			size := large
			if req.URL.Path != "/length" {
				size = 16 << 20
			}
			for range size / len(block) {
				_, _ = w.Write(block)
			}
		})
		for way, do := range clients(r) {
			for path, size := range map[string]int64{"/length": large, "/chunks": 16 << 20} {
				if path == "/length" && way != tunnelH1 {
					continue // once is enough
				}
				resp := do(newRequest("GET", path, nil))
				n, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || n != size {
					t.Errorf("%s %s: %d bytes, %v", way, path, n, err)
				}
				if e := r.entry(); e.Out != size || e.Error != "" {
					t.Errorf("%s %s: the log says %+v", way, path, e)
				}
			}
		}
	})
	t.Run("52 a large upload is not cut", func(t *testing.T) {
		const size = 16 << 20
		r := newRig(t)
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			n, err := io.Copy(io.Discard, req.Body)
			_, _ = fmt.Fprint(w, n, err)
		})
		for way, do := range clients(r) {
			resp := do(newRequest("POST", "/", io.LimitReader(zeros{}, size)))
			if body, _ := io.ReadAll(resp.Body); string(body) != fmt.Sprint(size, " <nil>") {
				t.Errorf("%s: the tool got %s", way, body)
			}
			if e := r.entry(); e.In != size {
				t.Errorf("%s: the log says %+v", way, e)
			}
		}
	})
	t.Run("52 gzip passes through", func(t *testing.T) {
		r := newRig(t)
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write([]byte("hello"))
		_ = z.Close()
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("X-Accept", fmt.Sprint(req.Header["Accept-Encoding"]))
			_, _ = w.Write(packed.Bytes())
		})
		for way, do := range clients(r) {
			for _, accept := range [][]string{nil, {"gzip;q=0.5, br"}} {
				req := newRequest("GET", "/", nil)
				req.Header["Accept-Encoding"] = accept
				resp := do(req)
				if body, _ := io.ReadAll(resp.Body); !bytes.Equal(body, packed.Bytes()) || resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("X-Accept") != fmt.Sprint(accept) {
					t.Errorf("%s: %q, %v", way, body, resp.Header)
				}
			}
		}
	})
	t.Run("52 trailers, both ways", func(t *testing.T) {
		r := newRig(t)
		r.origin.handle(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Trailer", "X-Announced")
			_, _ = io.Copy(w, req.Body)
			w.Header().Set("X-Announced", req.Trailer.Get("X-Client"))
		})
		for way, do := range clients(r) {
			req := newRequest("POST", "/", io.MultiReader(strings.NewReader("abc")))
			req.Trailer = http.Header{"X-Client": {"sum"}}
			resp := do(req)
			if body, _ := io.ReadAll(resp.Body); string(body) != "abc" || !slices.Equal(resp.Trailer["X-Announced"], []string{"sum"}) {
				t.Errorf("%s: %q, %v", way, body, resp.Trailer)
			}
		}
	})
	t.Run("52 SSE is flushed", func(t *testing.T) {
		r := newRig(t)
		for way, do := range clients(r) {
			next := make(chan struct{})
			r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for {
					_ = http.NewResponseController(w).Flush()
					if _, more := <-next; !more {
						return
					}
					_, _ = io.WriteString(w, "data: x\n\n")
				}
			})
			resp := do(newRequest("GET", "/", nil)) // the head alone is there already
			event := make([]byte, 9)
			for range 5 {
				next <- struct{}{} // nothing more comes until this one was read
				if _, err := io.ReadFull(resp.Body, event); err != nil || string(event) != "data: x\n\n" {
					t.Fatalf("%s: %q, %v", way, event, err)
				}
			}
			close(next)
			_ = resp.Body.Close()
		}
	})
	t.Run("52 nothing is added to a request or an answer", func(t *testing.T) {
		r := newRig(t)
		r.origin.handle(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
			_, _ = io.WriteString(w, "<html>")
		})
		for way, do := range clients(r) {
			req := newRequest("GET", "/", nil)
			req.Header["User-Agent"] = []string{""} // none
			resp := do(req)
			_ = resp.Body.Close()
			for name := range resp.Header {
				if name != "Content-Length" {
					t.Errorf("%s: the client got %s", way, name)
				}
			}
			seen := r.origin.requests()
			for name := range seen[len(seen)-1].Header {
				if name != "Authorization" {
					t.Errorf("%s: the tool got %s %q", way, name, seen[len(seen)-1].Header[name])
				}
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
