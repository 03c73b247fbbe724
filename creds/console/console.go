package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
)

// Server is the page. Its fields are set before Handler is called, and then left
// alone.
type Server struct {
	// URL is where people open it: "https://pillion.example", without a path. The
	// hosts that it answers to, and the redirect URL of consents, follow from it and
	// never from a request.
	URL string
	// Login says who may come in.
	Login Login
	// Provider lets people in who log in elsewhere. If nil, nobody.
	Provider Provider
	// SessionKey seals cookies: at least 32 random bytes, the same in all replicas.
	SessionKey []byte
	// SessionTime is how long a login lasts, at most. If 0, 8 hours.
	SessionTime time.Duration
	// IdleTime is how long it lasts without a click. If 0, an hour.
	IdleTime time.Duration

	// Grants does what needs a secret: consents, refreshes and tests. If nil, the
	// page says that it cannot.
	Grants Grants
	// ScanHostKeys asks an SFTP server for its host keys, without logging in. If nil,
	// the page says that it cannot.
	ScanHostKeys func(ctx context.Context, host string, port uint16) ([]creds.HostKey, error)
	// Live knows of requests. If nil, the page says that they are not known here.
	Live Live
	// Changed is called after every change of a credential, if not nil.
	Changed func(context.Context)
	// Audit hears of everything that a person does, if not nil.
	Audit func(Action)
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	sealer *sealer
	used   onceSet // of nonces, logins, and sessions that were ended
	secure bool    // people come by TLS
	host   string  // of URL
}

// Action is one line for the audit: who did what, never a value.
type Action struct {
	Who        string
	What       string   // login, logout, create, edit, delete, connect, refresh, test
	Credential string   // "" for login and logout
	Prefix     *string  // where it lies, if there are several parts
	Fields     []string // that were changed, by the names of the import file
	Problem    string   // "" when it was done
}

// callbackPath ends the one redirect URL of all consents.
const callbackPath = "/connect/callback"

const (
	defaultSessionTime = 8 * time.Hour
	defaultIdleTime    = time.Hour
)

// RedirectURL is what people register at a provider.
func (s *Server) RedirectURL() string { return s.URL + callbackPath }

// Handler returns the page. The error says which field of s cannot be used.
func (s *Server) Handler() (http.Handler, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.TrimRight(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the console's URL must be like https://pillion.example, without a path")
	}
	s.URL, s.host, s.secure = u.Scheme+"://"+u.Host, strings.ToLower(u.Host), u.Scheme == "https"
	if s.Login == nil {
		return nil, errors.New("the console needs a login")
	}
	if s.sealer, err = newSealer(s.SessionKey); err != nil {
		return nil, fmt.Errorf("the console's session key: %w", err)
	}
	s.used.now = s.now
	return s.guarded(s.routes()), nil
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func (s *Server) sessionTime() time.Duration {
	if s.SessionTime == 0 {
		return defaultSessionTime
	}
	return s.SessionTime
}

func (s *Server) idleTime() time.Duration {
	if s.IdleTime == 0 {
		return defaultIdleTime
	}
	return s.IdleTime
}

func (s *Server) audit(a Action) {
	if s.Audit != nil {
		s.Audit(a)
	}
}

func (s *Server) changed(ctx context.Context) {
	if s.Changed != nil {
		s.Changed(ctx)
	}
}
