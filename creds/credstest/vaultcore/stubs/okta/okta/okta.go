// Package okta stands in for Okta's client, a fifth of the time that it takes to
// build Vault and used for one second factor. Here is what Vault's source names;
// making a client refuses, and so nothing else is ever called.
package okta

import (
	"context"
	"errors"
	"net/http"
)

var errStub = errors.New("this Vault is built without Okta")

type (
	Configuration struct{ Context context.Context }
	ConfigSetter  func(*Configuration)
	APIClient     struct {
		UserAPI       users
		UserFactorAPI factors
	}
)

func WithToken(string) ConfigSetter  { return nil }
func WithOrgUrl(string) ConfigSetter { return nil }
func WithCache(bool) ConfigSetter    { return nil }

func NewConfiguration(...ConfigSetter) (*Configuration, error) { return nil, errStub }
func NewAPIClient(*Configuration) *APIClient                   { return &APIClient{} }

func (*APIClient) GetConfig() *Configuration { return &Configuration{Context: context.Background()} }

// request is any call.
type request[T any] struct{}

func (r request[T]) Filter(string) request[T] { return r }

func (request[T]) Execute() (T, *http.Response, error) {
	var none T
	return none, nil, errStub
}

type (
	users   struct{}
	User    struct{ id }
	factors struct{}
	Factor  struct{ UserFactorPush *UserFactorPush }

	UserFactorPush struct{ id }
	Verified       struct{ Links map[string]any }
	Transaction    struct {
		UserFactorPushTransactionWaiting, UserFactorPushTransaction         *struct{}
		UserFactorPushTransactionRejected, UserFactorPushTransactionTimeout *struct{}
	}
)

type id struct{}

func (id) GetId() string { return "" }

func (Verified) GetFactorResult() string { return "" }

func (users) ListUsers(context.Context) request[[]User]               { return request[[]User]{} }
func (factors) ListFactors(context.Context, string) request[[]Factor] { return request[[]Factor]{} }
func (factors) VerifyFactor(context.Context, string, string) request[*Verified] {
	return request[*Verified]{}
}
func (factors) GetFactorTransactionStatus(context.Context, string, string, string) request[*Transaction] {
	return request[*Transaction]{}
}
