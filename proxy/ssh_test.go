package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

func sftpCredential(name, instanceURL string) *creds.Credential {
	return &creds.Credential{Name: name, Protocol: creds.SFTP, URL: instanceURL, Authorization: creds.Basic, Username: "u", Password: creds.NewSecret("p")}
}

// handed is a connection as the gateway gets it.
type handed struct {
	host, chosen string
	port         uint16
	conn         net.Conn
	ctx          context.Context
	end          chan struct{}
}

// gateway is a stand-in that says who came, and holds on until it is told.
func gateway() (server func(*Server, *Config), came chan *handed) {
	came = make(chan *handed, 10)
	return func(s *Server, _ *Config) {
		s.SSH = func(ctx context.Context, conn net.Conn, host string, port uint16, chosen string) {
			h := &handed{host, chosen, port, conn, ctx, make(chan struct{})}
			came <- h
			select {
			case <-h.end:
			case <-ctx.Done():
			}
		}
	}, came
}

func arrived(t *testing.T, came chan *handed) *handed {
	t.Helper()
	select {
	case h := <-came:
		return h
	case <-time.After(10 * time.Second):
		t.Fatal("no connection was handed over within 10 s")
		return nil
	}
}

func TestSSHByConnect(t *testing.T) {
	change, came := gateway()
	r := newRig(t, change, func(_ *Server, c *Config) { c.Tunnel = true })
	r.set(bearer("tool", "https://tool.example/"), sftpCredential("drop", "sftp://drop.example:22/"), sftpCredential("both", "sftp://tool.example:443/"))
	connect := func(authority, head, early string) *wire {
		w := r.dial()
		w.send("CONNECT " + authority + " HTTP/1.1\r\nHost: x\r\n" + head + "\r\n" + early)
		if resp := w.response("CONNECT"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		return w
	}
	t.Run("a target of SFTP alone, and nobody speaks", func(t *testing.T) {
		connect("DROP.example:22", "", "")
		if h := arrived(t, came); h.host != "drop.example" || h.port != 22 || h.chosen != "" {
			t.Errorf("%+v", h)
		} else {
			close(h.end)
		}
	})
	t.Run("a chosen credential, and bytes behind the CONNECT", func(t *testing.T) {
		w := connect("drop.example:22", "Proxy-Authorization: Basic ZHJvcDot\r\n", "SSH-2.0-early\r\n")
		h := arrived(t, came)
		defer close(h.end)
		got := make([]byte, len("SSH-2.0-early\r\n"))
		if _, err := io.ReadFull(h.conn, got); err != nil || string(got) != "SSH-2.0-early\r\n" || h.chosen != "drop" {
			t.Errorf("read %q, %v; chosen %q", got, err, h.chosen)
		}
		if _, err := io.WriteString(h.conn, "SSH-2.0-ours\r\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := w.r.ReadString('\n'); err != nil || line != "SSH-2.0-ours\r\n" {
			t.Errorf("read %q, %v", line, err)
		}
	})
	t.Run("a target of both kinds: the first bytes decide", func(t *testing.T) {
		w := connect("tool.example:443", "", "SS")
		w.send("H-2.0-split\r\n")
		h := arrived(t, came)
		defer close(h.end)
		got := make([]byte, len("SSH-2.0-split"))
		if _, err := io.ReadFull(h.conn, got); err != nil || string(got) != "SSH-2.0-split" {
			t.Errorf("read %q, %v", got, err)
		}
		if resp := r.tunnel("tool.example:443", "tool.example").ask("GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	t.Run("what only begins like it", func(t *testing.T) {
		w := connect("tool.example:443", "", "SSL is not SSH\r\n")
		checkProblem(t, w.response("GET"), kindBadRequest)
	})
}

// TestSSHWithoutCredential: nothing has the target, and the gateway says so.
func TestSSHWithoutCredential(t *testing.T) {
	change, came := gateway()
	r := newRig(t, change)
	w := r.dial()
	w.send("CONNECT other.example:22 HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-x\r\n")
	if h := arrived(t, came); h.host != "other.example" {
		t.Errorf("%+v", h)
	} else {
		close(h.end)
	}
}

// TestSSHWithoutGateway: a clear text, before and after the CONNECT's answer, and
// never a blind tunnel to a target of SFTP.
func TestSSHWithoutGateway(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.Tunnel = true })
	r.set(bearer("tool", "https://tool.example/"), sftpCredential("drop", "sftp://evil.example:22/"))
	w := r.dial()
	w.send("CONNECT evil.example:22 HTTP/1.1\r\nHost: x\r\n\r\n")
	if detail := checkProblem(t, w.response("CONNECT"), kindBadRequest); !strings.Contains(detail, "SFTP gateway") {
		t.Error(detail)
	}
	w = r.dial()
	w.send("CONNECT tool.example:443 HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-x\r\n")
	if resp := w.response("CONNECT"); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if line, err := w.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "pillion: SSH comes through CONNECT, and pillion runs without its SFTP gateway") {
		t.Errorf("read %q, %v", line, err)
	}
	for range 2 {
		if e := r.entry(); e.Error != "bad-request" || !strings.Contains(e.Detail, "SFTP gateway") {
			t.Errorf("%+v", e)
		}
	}
}

// TestSSHCountsForDrain: it is work under way, until it ends or is cut.
func TestSSHCountsForDrain(t *testing.T) {
	change, came := gateway()
	r := newRig(t, change)
	r.set(sftpCredential("drop", "sftp://drop.example:22/"))
	w := r.dial()
	w.send("CONNECT drop.example:22 HTTP/1.1\r\nHost: x\r\n\r\n")
	h := arrived(t, came)
	r.server.Drain()
	if idle := r.server.Idle(); idle != 0 {
		t.Errorf("idle for %v", idle)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Shutdown(ctx) }()
	<-r.server.stopped.Done() // blind tunnels are cut by now
	select {
	case <-h.ctx.Done():
		t.Error("SSH is cut at once")
	case err := <-ended:
		t.Errorf("Shutdown has not waited: %v", err)
	default:
	}
	cancel()
	<-ended
	if h.ctx.Err() == nil {
		t.Error("SSH is not cut")
	}
	w.response("CONNECT")
	w.closed()
}

// TestDialContext: the gateway's way out is the guard's, and the company's proxy
// where there is one.
func TestDialContext(t *testing.T) {
	r := newRig(t)
	conn, err := r.server.DialContext(t.Context(), "tcp", "tool.example:22")
	if err != nil || conn.RemoteAddr().String() != r.origin.addr() { // by upstream.resolve
		t.Fatalf("%v", err)
	}
	conn.Close()
	var forbidden *ForbiddenTargetError
	for _, addr := range []string{r.addr, "169.254.169.254:22"} {
		if _, err := r.server.DialContext(t.Context(), "tcp", addr); !errors.As(err, &forbidden) {
			t.Errorf("%s: %v", addr, err)
		}
	}

	asked := make(chan string, 1)
	company := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		asked <- request.Method + " " + request.RequestURI
		c, buffered, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nSSH-2.0-server\r\n")
		_ = buffered.Flush()
		c.Close()
	}))
	defer company.Close()
	through := newRig(t, func(_ *Server, c *Config) {
		c.UpstreamProxy, _ = url.Parse(company.URL)
	})
	conn, err = through.server.DialContext(t.Context(), "tcp", "sftp.example:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if said, err := io.ReadAll(conn); err != nil || string(said) != "SSH-2.0-server\r\n" {
		t.Errorf("the server says %q, %v", said, err)
	}
	if got := <-asked; got != "CONNECT sftp.example:22" {
		t.Errorf("asked for %q", got)
	}
	if _, err := through.server.DialContext(t.Context(), "tcp", "metadata.google.internal:22"); !errors.As(err, &forbidden) {
		t.Errorf("metadata by the company's proxy: %v", err)
	}
}
