package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"pillion/creds"
)

// Case 51a: who may use the proxy.
func TestAttackForbiddenClients(t *testing.T) {
	nobodyElse := func(_ *Server, c *Config) { c.AllowUIDs, c.BaseURL = []uint32{4_000_000}, true }
	t.Run("51a a uid that is not listed", func(t *testing.T) {
		r := newRig(t, nobodyElse)
		for name, text := range map[string]string{
			"plain":     "GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"CONNECT":   "CONNECT tool.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
			"base URL":  "GET /c/tool/ HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n",
			"malformed": "GET / HTTP/1.1\nHost: x\n\n",
			"upload":    "POST http://tool.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nbegins",
		} {
			w := r.dial()
			r.refuses(kindForbiddenClient, func() *http.Response { return w.ask(text) })
			if name != "upload" {
				w.closed()
			}
		}
	})
	t.Run("51a our own uid, when it is listed", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.AllowUIDs = []uint32{uint32(os.Getuid())} })
		r.passes(func() *http.Response { return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n") })
	})
	t.Run("51a an empty list serves nobody", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.AllowUIDs = []uint32{} })
		r.refuses(kindForbiddenClient, func() *http.Response { return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n") })
	})
	t.Run("51a a connection from another machine", func(t *testing.T) {
		outside := outsideAddress(t)
		r := newRig(t)
		l, err := net.Listen("tcp", net.JoinHostPort(outside, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() { _ = r.server.Serve(l) }()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		w := r.wire(c)
		r.refuses(kindForbiddenClient, func() *http.Response { return w.ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n") })
	})
	t.Run("51a the client token", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.ClientToken, c.BaseURL = creds.NewSecret("client-token"), true })
		for _, given := range []string{"", "Basic LTo=", "Basic " + basicOf("-:client-tokem"), "Basic " + basicOf("-:client-token "), "Basic !!", "Bearer client-token", "Basic " + basicOf("client-token"), "Basic " + basicOf("client-token:")} {
			field := "Proxy-Authorization: " + given + "\r\n"
			if given == "" {
				field = ""
			}
			for _, text := range []string{"GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n", "CONNECT tool.example:443 HTTP/1.1\r\nHost: x\r\n", "GET /c/tool/ HTTP/1.1\r\nHost: " + r.addr + "\r\n"} {
				w := r.dial()
				var resp *http.Response
				r.refuses(kindProxyAuth, func() *http.Response { resp = w.ask(text + field + "\r\n"); return resp })
				if resp.Header.Get("Proxy-Authenticate") == "" {
					t.Error("no Proxy-Authenticate")
				}
			}
		}
		right := "Proxy-Authorization: basic " + basicOf("-:client-token") + "\r\n\r\n"
		seen, _ := r.passes(func() *http.Response { return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n" + right) })
		if seen.Header["Proxy-Authorization"] != nil {
			t.Error("the tool got the client token")
		}
		if strings.Contains(r.logText.String(), "client-tok") {
			t.Error("the log holds a client token")
		}
	})
}

func basicOf(pair string) string { return base64.StdEncoding.EncodeToString([]byte(pair)) }

// outsideAddress is one of this machine's that is not loopback.
func outsideAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// TestAttackProcessOfAnotherUser starts this test again as another user's client.
func TestAttackProcessOfAnotherUser(t *testing.T) {
	if address := os.Getenv("ATTACK_PROXY"); address != "" {
		actAsClient(t, address)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to start a process of another user")
	}
	const nobody = 65534
	client := func(t *testing.T, r *rig) string {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		// By file: the path of this program may be closed to the other user.
		child := exec.Command("/proc/self/fd/3", "-test.run=^TestAttackProcessOfAnotherUser$", "-test.v")
		child.Dir = "/"
		child.Env = []string{"ATTACK_PROXY=" + r.addr}
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		child.ExtraFiles = []*os.File{self}
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	t.Run("51a a process of another user on the same machine", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.AllowUIDs = []uint32{0} })
		if out := client(t, r); !strings.Contains(out, "status 403") || !strings.Contains(out, "urn:pillion:error:forbidden-client") {
			t.Errorf("the client got: %s", out)
		}
		if e := r.entry(); e.Error != "forbidden-client" || len(r.origin.requests()) != 0 {
			t.Errorf("the log says %+v, %d requests reached the tool", e, len(r.origin.requests()))
		}
	})
	t.Run("51a a container whose uid is listed", func(t *testing.T) {
		r := newRig(t, func(_ *Server, c *Config) { c.AllowUIDs = []uint32{nobody} })
		if out := client(t, r); !strings.Contains(out, "status 200") {
			t.Errorf("the client got: %s", out)
		}
		r.entry()
		r.refuses(kindForbiddenClient, func() *http.Response { return r.dial().ask("GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n") })
	})
}

func actAsClient(t *testing.T, address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET http://tool.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("status %d %s\n", resp.StatusCode, body)
}

// Case 51a: a web page in a browser on the same machine.
func TestAttackWebPages(t *testing.T) {
	r := newRig(t, func(_ *Server, c *Config) { c.BaseURL = true })
	_, port, _ := net.SplitHostPort(r.addr)
	for _, row := range []struct{ name, head string }{
		{"fetch from a page", "Host: " + r.addr + "\r\nOrigin: https://evil.example\r\n"},
		{"fetch from a sandboxed frame", "Host: " + r.addr + "\r\nOrigin: null\r\n"},
		{"a plain POST of a form", "Host: " + r.addr + "\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\n"},
		{"an image", "Host: " + r.addr + "\r\nSec-Fetch-Dest: image\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: cross-site\r\n"},
		{"a link that is followed", "Host: " + r.addr + "\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n"},
		{"a page of the same host", "Host: " + r.addr + "\r\nSec-Fetch-Site: same-origin\r\n"},
		{"a rebound name", "Host: evil.example:" + port + "\r\n"},
		{"a rebound name without the port", "Host: evil.example\r\n"},
		{"a rebound name that looks like ours", "Host: 127.0.0.1.evil.example:" + port + "\r\n"},
		{"another loopback address", "Host: 127.0.0.2:" + port + "\r\n"},
		{"another port", "Host: 127.0.0.1:1\r\n"},
		{"localhost with a trailing dot", "Host: localhost.:" + port + "\r\n"},
		{"0.0.0.0", "Host: 0.0.0.0:" + port + "\r\n"},
	} {
		t.Run("51a base URL: "+row.name, func(t *testing.T) {
			r.use(t)
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				r.refuses(kindForbiddenClient, func() *http.Response {
					return r.dial().ask(method + " /c/tool/x HTTP/1.1\r\n" + row.head + "\r\n")
				})
			}
		})
	}
	t.Run("51a no answer lets a page read it", func(t *testing.T) {
		r.use(t)
		resp := r.dial().ask("OPTIONS /c/tool/x HTTP/1.1\r\nHost: " + r.addr + "\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\n\r\n")
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("the answer has %s", name)
			}
		}
		checkProblem(t, resp, kindForbiddenClient)
		r.entry()
	})
	t.Run("51a a client that is no browser", func(t *testing.T) {
		r.use(t)
		for _, head := range []string{"Host: " + r.addr + "\r\n", "Host: localhost:" + port + "\r\nSec-Fetch-Mode: cors\r\n"} {
			r.passes(func() *http.Response { return r.dial().ask("GET /c/tool/x HTTP/1.1\r\n" + head + "\r\n") })
		}
	})
	t.Run("51a base URL mode is off unless it is switched on", func(t *testing.T) {
		r := newRig(t)
		r.refuses(kindBadRequest, func() *http.Response {
			return r.dial().ask("GET /c/tool/x HTTP/1.1\r\nHost: " + r.addr + "\r\n\r\n")
		})
	})
}
