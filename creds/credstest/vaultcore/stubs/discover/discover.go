// Package discover stands in for github.com/hashicorp/go-discover, which finds
// the peers of a raft cluster in a dozen clouds and so brings in all their
// libraries. A Vault for tests has no peers: here is what Vault's source names,
// and all of it refuses.
package discover

import (
	"errors"
	"log"
)

var errStub = errors.New("this Vault is built without auto-join")

// Config is what an auto_join text says.
type Config map[string]string

// String is the text again.
func (Config) String() string { return "" }

// Parse refuses.
func Parse(string) (Config, error) { return nil, errStub }

// Provider is one cloud.
type Provider interface {
	Addrs(args map[string]string, l *log.Logger) ([]string, error)
	Help() string
}

// Providers has none.
var Providers = map[string]Provider{}

// Discover finds nothing.
type Discover struct{}

// Option is a setting of New.
type Option func(*Discover) error

// New makes a Discover, which Vault does at each start.
func New(...Option) (*Discover, error) { return &Discover{}, nil }

// WithProviders drops the providers.
func WithProviders(map[string]Provider) Option { return func(*Discover) error { return nil } }

// Addrs refuses.
func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, errStub }
