// Package sftpgw is the SFTP half of pillion: an SSH server on loopback, for the
// subsystem sftp alone, whose clients need no password. It finds the credential
// that a client means, checks the server's pinned host key, logs in there, and
// relays.
//
//	s := &sftpgw.Server{Table: live.Table, Dial: guard.DialContext, HostKey: key, Log: log, Metrics: metrics}
//	err := s.Serve(listener)
//
// Clients name the target in one of four ways, and all end in session.go:
//
//	sftp -P 2022 acme@127.0.0.1                  user: a credential's name, host, or host:port
//	sftp -o 'ProxyCommand nc -X connect ...'     CONNECT: ServeConn, from the proxy's listener
//	sftp -J 127.0.0.1:2022 files.example         jump: direct-tcpip, ended here as well
//	sftp -P 2023 127.0.0.1                       a listener for one credential: ServeFor
//
//	accept -> names.find -> dialer.dial (pinned, then logged in) -> relay
//
// The relay passes the bytes of SFTP through as they are and acknowledges nothing
// itself: what the server has not confirmed, no client takes for stored.
//
// Nobody logs in to it with a secret: who may connect is decided by Server.Allow,
// as for the proxy. It does not serve shells, commands or the old scp protocol,
// and forwards no port: what a jump asks for must be a credential's target, and
// is ended here.
package sftpgw

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"pillion/creds"
)

// Server is the gateway. Its fields are set before the first connection.
type Server struct {
	Table    func() *creds.Table                                               // the credentials now
	StoreErr func() error                                                      // why none may be used now; nil: always may
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error) // the way out: the guard's
	HostKey  ssh.Signer                                                        // see LoadHostKey
	Allow    func(net.Conn) error                                              // who may connect; nil: anybody
	Policy   func() Policy                                                     // what clients may do now; nil: everything
	Log      *slog.Logger
	Metrics  *Metrics
	OnEntry  func(Entry)      // sees every finished session; nil: nobody does
	Now      func() time.Time // if nil, time.Now

	// Reuse keeps connections to servers for the next session: one upload a
	// connection then costs a round trip instead of a log-in.
	Reuse bool

	MaxConns         int           // at once; 0: 64
	MaxSessions      int           // and jumps, at once on one connection; 0: 16
	HandshakeTimeout time.Duration // until a client has logged in, and asked for the subsystem; 0: 20 s
	IdleTimeout      time.Duration // of a connection without a session; 0: 5 min

	start    sync.Once
	config   *ssh.ServerConfig
	dialer   *dialer
	names    names
	sessions atomic.Int64
	lastUsed atomic.Int64 // Unix nanoseconds of the last session's end

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	draining  bool
	closed    chan struct{} // by Shutdown
	running   sync.WaitGroup
}

func (s *Server) begin() {
	s.start.Do(func() {
		s.config = s.serverConfig()
		s.dialer = &dialer{network: s.Dial, now: s.now, own: s.HostKey.PublicKey(), reuse: s.Reuse}
		s.listeners = map[net.Listener]struct{}{}
		s.conns = map[*conn]struct{}{}
		s.closed = make(chan struct{})
		s.lastUsed.Store(s.now().UnixNano())
	})
}

// serverConfig lets everybody in who may connect at all. Clients that insist on
// sending something (rclone and paramiko do) may send any password or key.
func (s *Server) serverConfig() *ssh.ServerConfig {
	config := &ssh.ServerConfig{
		NoClientAuth:     true,
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return &ssh.Permissions{}, nil },
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
			return &ssh.Permissions{}, nil
		},
		KeyboardInteractiveCallback: func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			return &ssh.Permissions{}, nil // without a question
		},
		ServerVersion: "SSH-2.0-pillion",
		Config:        ssh.Config{Ciphers: clientCiphers()},
	}
	config.AddHostKey(s.HostKey)
	return config
}

// clientCiphers leaves out chacha20, OpenSSH's own first choice, where the CPU
// does AES by itself: it costs 2.5 times the CPU then. libssh2 1.10 and paramiko
// know no GCM.
func clientCiphers() []string {
	ciphers := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR}
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM {
		return ciphers
	}
	return append([]string{ssh.CipherChaCha20Poly1305}, ciphers...)
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Server) maxConns() int                   { return cmp.Or(s.MaxConns, 64) }
func (s *Server) maxSessions() int                { return cmp.Or(s.MaxSessions, 16) }
func (s *Server) handshakeTimeout() time.Duration { return cmp.Or(s.HandshakeTimeout, 20*time.Second) }
func (s *Server) idleTimeout() time.Duration      { return cmp.Or(s.IdleTimeout, 5*time.Minute) }

func (s *Server) policy() Policy {
	if s.Policy == nil {
		return 0
	}
	return s.Policy()
}

// Drain makes clients go: from now on a connection ends with its last session.
// Listeners still accept, for uploads that the end of something else starts.
func (s *Server) Drain() {
	s.begin()
	s.mu.Lock()
	s.draining = true
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.rest()
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Server) sessionBegins() {
	s.sessions.Add(1)
	s.Metrics.open.Inc()
}

func (s *Server) sessionEnds() {
	s.lastUsed.Store(s.now().UnixNano())
	s.sessions.Add(-1)
	s.Metrics.open.Dec()
}

// InFlight is the number of sessions that are open.
func (s *Server) InFlight() int { return int(s.sessions.Load()) }

// Idle reports for how long no session has been open.
func (s *Server) Idle() time.Duration {
	s.begin()
	if s.sessions.Load() > 0 {
		return 0
	}
	return s.now().Sub(time.Unix(0, s.lastUsed.Load()))
}

// Shutdown stops accepting, waits for open sessions until ctx ends, then cuts
// what is left. Clients that are cut in mid-upload see their connection go, and
// take nothing for stored that the server has not confirmed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.begin()
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.Drain()
	defer s.dialer.close()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		go c.close() // a jump's waits for the connection around it
	}
	s.mu.Unlock()
	<-ended
	return ctx.Err()
}
