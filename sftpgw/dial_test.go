package sftpgw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/creds/credstest"
)

// bareDialer is a dialer without a guard, that gives up at once what it may try again.
func bareDialer() *dialer {
	return &dialer{network: (&net.Dialer{}).DialContext, retryFor: -1, handshake: 10 * time.Second}
}

func keyLine(t *testing.T, line string) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// dialled opens a session and closes it.
func dialled(t *testing.T, d *dialer, c *creds.Credential) error {
	t.Helper()
	u, err := d.dial(t.Context(), c)
	if err != nil {
		return err
	}
	defer u.close()
	s, err := u.open(t.Context())
	if err != nil {
		return err
	}
	_ = s.ch.CloseWrite() // the server ends in good order, and has room again
	<-s.exited
	s.close()
	return nil
}

func wantDialError(t *testing.T, err error, kind string, parts ...string) *dialError {
	t.Helper()
	var failed *dialError
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a dialError of kind %s", err, kind)
	}
	if failed.kind != kind {
		t.Errorf("kind %s (%s), want %s", failed.kind, failed.sentence, kind)
	}
	for _, part := range parts {
		if !strings.Contains(failed.sentence, part) {
			t.Errorf("sentence %q lacks %q", failed.sentence, part)
		}
	}
	if !strings.HasSuffix(failed.sentence, ".") {
		t.Errorf("sentence %q has no full stop", failed.sentence)
	}
	return failed
}

// A server with three keys, and pins of every form of each: OpenSSH shows the
// one that is asked for, so the pin must decide what is asked for.
func TestPins(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	for _, line := range server.HostKeys {
		key := keyLine(t, line)
		for form, pin := range map[string]string{
			"line": line, "known_hosts": fmt.Sprintf("[127.0.0.1]:%d %s", server.Port, line),
			"base64": strings.Fields(line)[1], "SHA256": ssh.FingerprintSHA256(key),
		} {
			t.Run(key.Type()+" "+form, func(t *testing.T) {
				c := server.Credential("acme")
				c.HostKeys = []string{pin}
				d := bareDialer()
				for range 2 {
					before := strings.Count(server.Log(), "Connection from")
					if err := dialled(t, d, c); err != nil {
						t.Fatal(err)
					}
					if n := strings.Count(server.Log(), "Connection from") - before; form != "SHA256" && n != 1 {
						t.Errorf("%d connections", n)
					} else if n > 3 {
						t.Errorf("%d connections for three types", n)
					}
				}
				before := strings.Count(server.Log(), "Connection from")
				if err := dialled(t, d, c); err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(server.Log(), "Connection from") - before; n != 1 {
					t.Errorf("%d connections once the type is known", n)
				}
			})
		}
	}
	t.Run("several", func(t *testing.T) {
		other := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"rsa"}})
		c := server.Credential("acme")
		c.HostKeys = []string{other.HostKeys[0], server.HostKeys[1]}
		if err := dialled(t, bareDialer(), c); err == nil {
			t.Log("the union of types let the pinned key be shown")
		} else {
			// The server may show its RSA key, for which another is pinned.
			wantDialError(t, err, dialHostKey)
		}
	})
}

// 55: with a wrong host key the server sees no user name and no password.
func TestWrongPin(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	other := credstest.StartSSHD(t, credstest.SSHDOptions{})
	for i, name := range []string{"line", "SHA256"} {
		c := server.Credential("acme")
		c.HostKeys = other.HostKeys[:1]
		shown, pinned := ssh.FingerprintSHA256(keyLine(t, server.HostKeys[0])), ssh.FingerprintSHA256(keyLine(t, other.HostKeys[0]))
		if i == 1 {
			c.HostKeys = []string{pinned}
		}
		failed := wantDialError(t, dialled(t, bareDialer(), c), dialHostKey, shown, pinned, "host key of "+server.Addr+" is ")
		if !strings.Contains(failed.detail, "set the fingerprint to: "+server.HostKeys[0]) {
			t.Errorf("%s: the log has no line to set: %s", name, failed.detail)
		}
		if strings.Contains(failed.sentence, "AAAA") {
			t.Errorf("%s: the client is told the key itself: %s", name, failed.sentence)
		}
	}
	server.WaitLog(t, "Connection from", 4) // one, and one for each type
	log := server.Log()
	for _, attempt := range []string{server.Username, "Failed", "Accepted", "Postponed", "userauth"} {
		if strings.Contains(log, attempt) {
			t.Errorf("the server has seen %q:\n%s", attempt, log)
		}
	}
}

func TestPinOfAnotherType(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"ed25519"}})
	other := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"rsa"}})
	c := server.Credential("acme")
	c.HostKeys = other.HostKeys
	wantDialError(t, dialled(t, bareDialer(), c), dialHostKey, "offers ssh-ed25519", "pins ssh-rsa SHA256:")
}

func TestOwnKey(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	d := bareDialer()
	d.own = keyLine(t, server.HostKeys[0])
	wantDialError(t, dialled(t, d, server.Credential("acme")), dialLoop)
}

func TestLogins(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	for name, change := range map[string]func(*creds.Credential){
		"password":             func(*creds.Credential) {},
		"private key":          func(c *creds.Credential) { c.PrivateKey, c.Password = server.Key, creds.Secret{} },
		"private key and both": func(c *creds.Credential) { c.PrivateKey = server.Key },
	} {
		t.Run(name, func(t *testing.T) {
			c := server.Credential("acme")
			change(c)
			if err := dialled(t, bareDialer(), c); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("key and password asked for", func(t *testing.T) {
		both := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "AuthenticationMethods publickey,password\n"})
		c := both.Credential("acme")
		c.PrivateKey = both.Key
		if err := dialled(t, bareDialer(), c); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("no method in common", func(t *testing.T) {
		keys := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"})
		wantDialError(t, dialled(t, bareDialer(), keys.Credential("acme")), dialLogin, "by publickey only", "has a password")
		if strings.Contains(keys.Log(), "Failed password") {
			t.Error("a password was sent")
		}
	})
}

// A refused login is not repeated: not beside, not after, until it changes or a
// minute has passed.
func TestRefusalIsRemembered(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	wrong := server.Credential("acme")
	wrong.Password = credstest.Canary("wrong-password")
	now := time.Now()
	var mu sync.Mutex
	d := bareDialer()
	d.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			wantDialError(t, dialled(t, d, wrong), dialLogin, server.Addr+" refused the login of user", "by password")
		})
	}
	all.Wait()
	wantDialError(t, dialled(t, d, wrong), dialLogin)
	if n := strings.Count(server.Log(), "Failed password"); n != 1 {
		t.Errorf("%d attempts:\n%s", n, server.Log())
	}
	mu.Lock()
	now = now.Add(61 * time.Second)
	mu.Unlock()
	wantDialError(t, dialled(t, d, wrong), dialLogin)
	server.WaitLog(t, "Failed password", 2)
	if err := dialled(t, d, server.Credential("acme")); err != nil {
		t.Errorf("after the credential was mended: %v", err)
	}
}

// promptServer asks for what it is told to, by keyboard-interactive, and counts.
type promptServer struct {
	addr     string
	key      ssh.Signer
	answers  atomic.Int64
	received sync.Map
}

func startPromptServer(t *testing.T, rounds [][]string, echo bool, password string) *promptServer {
	t.Helper()
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &promptServer{key: key}
	config := &ssh.ServerConfig{
		BannerCallback: func(ssh.ConnMetadata) string { return "Authorised users only.\n" + password + "\n" },
		KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			for _, questions := range rounds {
				echos := make([]bool, len(questions))
				for i := range echos {
					echos[i] = echo
				}
				answers, err := ask("", "", questions, echos)
				if err != nil {
					return nil, err
				}
				for _, a := range answers {
					p.answers.Add(1)
					p.received.Store(a, true)
				}
			}
			if _, ok := p.received.Load(password); ok {
				return nil, nil
			}
			return nil, errors.New("wrong")
		},
	}
	config.AddHostKey(key)
	l := listen(t)
	p.addr = l.Addr().String()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, channels, requests, err := ssh.NewServerConn(conn, config)
				if err != nil {
					conn.Close()
					return
				}
				go ssh.DiscardRequests(requests)
				for channel := range channels {
					_ = channel.Reject(ssh.Prohibited, "not here")
				}
			}()
		}
	}()
	return p
}

func (p *promptServer) credential(password creds.Secret) *creds.Credential {
	return &creds.Credential{
		Name: "acme", Protocol: creds.SFTP, URL: "sftp://" + p.addr + "/", Authorization: creds.Basic, Username: "u", Password: password,
		HostKeys: []string{string(ssh.MarshalAuthorizedKey(p.key.PublicKey()))},
	}
}

// One hidden prompt is answered, once. A naive client would answer "New
// password:" with the old one, and a code's prompt with the password.
func TestPrompts(t *testing.T) {
	password := credstest.Canary("prompted-password")
	for _, row := range []struct {
		name    string
		rounds  [][]string
		echo    bool
		answers int64
		says    string // "" for a login that is accepted
	}{
		{"one", [][]string{{"Password: "}}, false, 1, ""},
		{"a message before and after", [][]string{nil, {"Password: "}, nil}, false, 1, ""},
		{"a second", [][]string{{"Password: "}, {"New password: "}}, false, 1, `for more than the password: "New password:"`},
		{"two at once", [][]string{{"Password: ", "Code: "}}, false, 0, `something else than a password: "Password: Code:"`},
		{"a visible one", [][]string{{"Your pet: "}}, true, 0, `something else than a password: "Your pet:"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := startPromptServer(t, row.rounds, row.echo, password.Reveal())
			err := dialled(t, bareDialer(), server.credential(password))
			if row.says == "" {
				wantDialError(t, err, dialProtocol, "refuses a session: not here") // logged in
			} else {
				failed := wantDialError(t, err, dialLogin, row.says, "it says: Authorised users only. [secret]")
				if strings.Contains(failed.Error()+failed.detail, password.Reveal()) {
					t.Error("the password is repeated")
				}
			}
			if n := server.answers.Load(); n != row.answers {
				t.Errorf("%d answers, want %d", n, row.answers)
			}
		})
	}
}

// answering listens, and does as it is told with each connection.
func answering(t *testing.T, do func(n int, conn net.Conn)) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			do(n, conn)
		}
	}()
	return l.Addr().String()
}

func TestNotAnSSHServer(t *testing.T) {
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, says, kind string
		want             string
	}{
		{"HTTP", "HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", dialProtocol, "it says: HTTP/1.1 400 Bad Request"},
		{"FTP", "220 files.example FTP ready\r\n", dialProtocol, "it says: 220 files.example FTP ready"},
		{"busy", "Exceeded MaxStartups\r\n", dialProtocol, "it says: Exceeded MaxStartups"},
		{"nothing", "", dialUnreachable, "closed the connection before the login"},
		{"noise", "\x00\x1b[31m\xff\n", dialProtocol, "it says: [31m"},
		{"a banner alone", "SSH-2.0-x\r\n", dialUnreachable, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			addr := answering(t, func(_ int, conn net.Conn) {
				_, _ = io.WriteString(conn, row.says)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			})
			c := (&promptServer{addr: addr, key: key}).credential(credstest.Canary("unsent"))
			failed := wantDialError(t, dialled(t, bareDialer(), c), row.kind, row.want)
			if strings.ContainsAny(failed.sentence, "\x00\x1b\n") {
				t.Errorf("%q", failed.sentence)
			}
		})
	}
}

func TestSilentServer(t *testing.T) {
	key, err := LoadHostKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{"", "SSH-2.0-slow\r\n"} {
		addr := answering(t, func(_ int, conn net.Conn) { _, _ = io.WriteString(conn, first) })
		c := (&promptServer{addr: addr, key: key}).credential(credstest.Canary("unsent"))
		d := bareDialer()
		d.handshake = 300 * time.Millisecond
		begin := time.Now()
		wantDialError(t, dialled(t, d, c), dialTimeout, "within 300ms")
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
	}
}

// What nobody decided is tried again: a refused connection, a busy server.
func TestTransientDials(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	var tries atomic.Int64
	busy := answering(t, func(_ int, conn net.Conn) {
		_, _ = io.WriteString(conn, "Exceeded MaxStartups\r\n")
		conn.Close()
	})
	closed := listen(t)
	closed.Close()
	d := bareDialer()
	d.retryFor = 30 * time.Second
	d.network = func(ctx context.Context, network, addr string) (net.Conn, error) {
		switch tries.Add(1) {
		case 1:
			addr = closed.Addr().String()
		case 2:
			addr = busy
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	if err := dialled(t, d, server.Credential("acme")); err != nil || tries.Load() != 3 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
	tries.Store(10)
	d.network = func(context.Context, string, string) (net.Conn, error) {
		tries.Add(1)
		return nil, &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}
	}
	wantDialError(t, dialled(t, d, server.Credential("acme")), dialUnreachable, "name is not known")
	if tries.Load() != 11 {
		t.Errorf("a name that does not exist was looked up %d times", tries.Load()-10)
	}
}

// With reuse ten sessions share a connection, OpenSSH's MaxSessions, and the
// eleventh makes another.
func TestReuse(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	d := bareDialer()
	d.reuse = true
	defer d.close()
	c := server.Credential("acme")
	var sessions []*session
	var ups []*upstream
	for range 11 {
		u, err := d.dial(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		s, err := u.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sessions, ups = append(sessions, s), append(ups, u)
	}
	if n := strings.Count(server.Log(), "Accepted password"); n != 2 {
		t.Errorf("%d logins for 11 sessions", n)
	}
	for i, s := range sessions {
		_ = s.ch.CloseWrite()
		<-s.exited
		s.close()
		ups[i].close()
	}
	if err := dialled(t, d, c); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(server.Log(), "Accepted password"); n != 2 {
		t.Errorf("%d logins: the connection was not kept", n)
	}
	changed := server.Credential("acme")
	changed.HostKeys = append(slices.Clone(c.HostKeys), server.HostKeys[1])
	if err := dialled(t, d, changed); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(server.Log(), "Accepted password"); n != 3 {
		t.Errorf("%d logins: a changed credential used the old one's connection", n)
	}
}

// A server that allows fewer sessions refuses, and another connection is made.
func TestReuseRefused(t *testing.T) {
	server := credstest.StartSSHD(t, credstest.SSHDOptions{Config: "MaxSessions 1\n"})
	d := bareDialer()
	d.reuse = true
	defer d.close()
	c := server.Credential("acme")
	u, err := d.dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	first, err := u.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.close()
	second, err := d.dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.open(t.Context()); err == nil {
		t.Fatal("the server allows a second session")
	}
	second.close()
	if err := dialled(t, d, c); err != nil {
		t.Errorf("after a refused session: %v", err)
	}
}
