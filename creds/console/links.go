package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/url"
	"sync"
	"time"

	"pillion/creds"
)

// Links lets in whoever has the link that New made last: once, and within LinkTime.
// It is for the embedded store, whose administrator is who can read the program's
// log or its state directory.
type Links struct {
	// Embedded is the store of whoever comes in.
	Embedded creds.Store
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	mu   sync.Mutex
	hash [sha256.Size]byte // of the link that is good now
	ends time.Time
}

var _ Login = (*Links)(nil)

// LinkTime is how long a link is good.
const LinkTime = 10 * time.Minute

// New returns the path and query of a new link. The one before is void.
func (l *Links) New() string {
	secret := rand.Text() + rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hash, l.ends = sha256.Sum256([]byte(secret)), l.now().Add(LinkTime)
	return "/login?link=" + secret
}

// Ways is the link alone.
func (l *Links) Ways() []Way { return []Way{WayLink} }

// LogIn uses a link up.
func (l *Links) LogIn(_ context.Context, _ Way, form url.Values) (Person, error) {
	given := sha256.Sum256([]byte(form.Get("link")))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends.IsZero() || l.now().After(l.ends) || subtle.ConstantTimeCompare(given[:], l.hash[:]) != 1 {
		return Person{}, &BadLogin{"This link was used, is older than 10 minutes, or was replaced by a newer one"}
	}
	l.ends = time.Time{}
	return Person{Who: "administrator"}, nil
}

// Parts is the embedded store, the same for all.
func (l *Links) Parts(Person) ([]Part, error) {
	return []Part{{Store: l.Embedded, Listing: &creds.Listing{Store: l.Embedded}}}, nil
}

// Ended is false: the embedded store knows nobody.
func (l *Links) Ended(error) bool { return false }

// LogOut does nothing: there is nothing elsewhere.
func (l *Links) LogOut(context.Context, Person) {}

func (l *Links) now() time.Time {
	if l.Now == nil {
		return time.Now()
	}
	return l.Now()
}
