package console

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"pillion/creds"
)

// Part is a part of the store: over Vault what lies under one prefix, else all.
type Part struct {
	Name    string // the prefix; "" for the root of the mount
	Store   creds.Store
	Listing *creds.Listing // of Store
}

// Label is what people read.
func (p Part) Label() string { return cmp.Or(p.Name, "the mount’s root") }

// partParameter is what says, in an address and in the form of a new credential, which
// of several parts is meant.
const partParameter = "prefix"

// choose makes the part that an address names the one that the session is about; it
// reports false where there is none of that name. An address without one means the
// first part that has the credential, which is the one that a pillion uses.
func (s *Session) choose(ctx context.Context, query url.Values, credential string) bool {
	if query.Has(partParameter) {
		return s.enter(query.Get(partParameter))
	}
	s.At = s.Parts[0]
	if credential == "" || !s.Several() {
		return true
	}
	for _, p := range s.Parts {
		if _, err := p.Store.Get(ctx, creds.KeyCredentials+credential); err == nil {
			s.At = p
			break
		}
	}
	return true
}

// enter makes the part of that name the one that the session is about.
func (s *Session) enter(name string) bool {
	name = strings.Trim(name, "/")
	i := slices.IndexFunc(s.Parts, func(p Part) bool { return p.Name == name })
	if i >= 0 {
		s.At = s.Parts[i]
	}
	return i >= 0
}

// Several reports whether there are several parts, so that it has to be said which.
func (s *Session) Several() bool { return len(s.Parts) > 1 }

// Address is that of a credential of the part At, or of what can be done with it:
// action is "", "/delete" and so on.
func (s *Session) Address(credential, action string) string {
	return s.address(credential, action, nil)
}

func (s *Session) address(credential, action string, query url.Values) string {
	return s.addressIn(s.At, credential, action, query)
}

func (s *Session) addressIn(p Part, credential, action string, query url.Values) string {
	return s.withPart(p, "/credentials/"+url.PathEscape(credential)+action, query)
}

func (s *Session) withPart(p Part, address string, query url.Values) string {
	if s.Several() {
		if query == nil {
			query = url.Values{}
		}
		query.Set(partParameter, p.Name)
	}
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	return address
}

// inventory is what a person may see of all parts.
type inventory struct {
	all    []entry // sorted by name
	bad    []badOne
	hidden int    // that the person may not read
	closed []Part // that the person may not even list
}

// entry is a credential and where it lies.
type entry struct {
	*creds.Credential
	part Part
}

type badOne struct {
	creds.BadRecord
	part Part
}

// inventory reads all parts. A part that is closed to the person is no error, unless
// all are.
func (s *Session) inventory(ctx context.Context) (inventory, error) {
	var inv inventory
	for _, p := range s.Parts {
		list, err := p.Listing.Read(ctx)
		if errors.Is(err, creds.ErrStoreDenied) && len(inv.closed) < len(s.Parts)-1 {
			inv.closed = append(inv.closed, p)
			continue
		}
		if err != nil {
			return inventory{}, err
		}
		for _, c := range list.Credentials {
			inv.all = append(inv.all, entry{c, p})
		}
		for _, b := range list.Bad {
			inv.bad = append(inv.bad, badOne{b, p})
		}
		inv.hidden += list.Hidden
	}
	slices.SortStableFunc(inv.all, func(a, b entry) int { return cmp.Compare(a.Name, b.Name) })
	return inv, nil
}

// used are the credentials that a pillion with these parts uses: of those with one
// name the one in the first part.
func (inv inventory) used() []*creds.Credential {
	var used []*creds.Credential
	for i, c := range inv.all {
		if i == 0 || inv.all[i-1].Name != c.Name {
			used = append(used, c.Credential)
		}
	}
	return used
}

// namesakes are the credentials that share a name: a pillion that reads both parts
// uses the first of them alone.
func (inv inventory) namesakes() [][]entry {
	var out [][]entry
	for from := 0; from < len(inv.all); {
		to := from + 1
		for to < len(inv.all) && inv.all[to].Name == inv.all[from].Name {
			to++
		}
		if to > from+1 {
			out = append(out, inv.all[from:to])
		}
		from = to
	}
	return out
}

func (inv inventory) has(name string, at Part) bool {
	return slices.ContainsFunc(inv.all, func(c entry) bool { return c.Name == name && c.part.Name == at.Name })
}
