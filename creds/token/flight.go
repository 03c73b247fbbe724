package token

import (
	"errors"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// flight is one attempt to get a token. Its results may be read once done is
// closed.
type flight struct {
	// ahead: a token that is good is at hand, and nobody waits, or need to.
	ahead bool
	// refused is the fingerprint of a token that upstream refused, if one did.
	refused string

	done          chan struct{}
	authorization *creds.Authorization
	err           error
}

// errNothingNew ends a flight ahead that found the token that is at hand, and
// nothing wrong with that.
var errNothingNew = errors.New("there is no newer token yet")

func landed(authorization *creds.Authorization) *flight {
	f := &flight{done: make(chan struct{}), authorization: authorization}
	close(f.done)
	return f
}

const (
	firstBackoff  = 500 * time.Millisecond
	maxBackoff    = 60 * time.Second
	maxRetryAfter = 15 * time.Minute
)

// backoff is how long to wait after one more failure than fails: 0.5 s, 1 s, 2 s
// up to 60 s, of which the second half is drawn, so that a fleet spreads out; at
// once 60 s when only an edit can help.
func backoff(fails int, final bool) time.Duration {
	if final {
		return maxBackoff + rand.N(maxBackoff/10)
	}
	pause := maxBackoff
	if fails < 7 { // 0.5 s x 2^7 is 64 s
		pause = firstBackoff << fails
	}
	return pause/2 + rand.N(pause/2)
}

// failureOf is asFailure for an error that may be nil.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return asFailure(err)
}

func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return badResponse(0, "")
}
