package token

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// steppedStore is a process's way to a store: each call of it is a step.
type steppedStore struct {
	creds.Store
	actor *actor
	// name describes a record for states: without what is drawn at random.
	name func(creds.Record) string
	fix  func(creds.Secret) creds.Secret // of what is written, if not nil
	read func(creds.Record)              // of what was read, if not nil
}

func (s *steppedStore) Get(ctx context.Context, key string) (record creds.Record, err error) {
	o := s.actor.step(ctx, "get", "get "+key, func() { record, err = s.Store.Get(context.Background(), key) })
	if o != answered {
		return creds.Record{}, unanswered(ctx)
	}
	s.actor.see("get", key, s.name(record), fmt.Sprint(err))
	if s.read != nil && strings.HasPrefix(key, creds.KeyGrants) {
		s.read(record)
	}
	return record, err
}

func (s *steppedStore) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	if s.fix != nil {
		data = s.fix(data)
	}
	return s.write(ctx, key, fmt.Sprintf("write %s over version %d", key, version), version, func() (int, error) {
		return s.Store.CAS(context.Background(), key, data, version)
	})
}

func (s *steppedStore) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	return s.write(ctx, key, "patch "+key, -1, func() (int, error) { return s.Store.Patch(context.Background(), key, data) })
}

func (s *steppedStore) write(ctx context.Context, key, what string, over int, do func() (int, error)) (next int, err error) {
	c := s.actor.call(ctx, "write", what, func() { next, err = do() })
	c.stale = func() bool {
		record, _ := s.Store.Get(context.Background(), key)
		return over >= 0 && record.Version != over
	}
	if c.wait() != answered {
		return 0, unanswered(ctx)
	}
	s.actor.see("write", key, fmt.Sprint(next, err))
	return next, err
}

func (s *steppedStore) Delete(ctx context.Context, key string) (err error) {
	_, err = s.write(ctx, key, "delete "+key, -1, func() (int, error) { return 0, s.Store.Delete(context.Background(), key) })
	return err
}

// unanswered is how a store says it.
func unanswered(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("simulated: %w: %w", creds.ErrStoreUnavailable, ctx.Err())
	}
	return fmt.Errorf("simulated: %w", creds.ErrStoreUnavailable)
}

// steppedProvider is a process's way to a token endpoint.
type steppedProvider struct {
	*simProvider
	actor *actor
}

// RoundTrip implements http.RoundTripper.
func (p *steppedProvider) RoundTrip(request *http.Request) (response *http.Response, err error) {
	body, _ := io.ReadAll(request.Body)
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	user, _, _ := request.BasicAuth()
	what := "spend " + form.Get("refresh_token") + form.Get("code")
	c := p.actor.call(request.Context(), "token", what, nil)
	c.effect = func() {
		before := p.rotations
		response = p.answer(user, form)
		c.acted = p.rotations > before
	}
	switch c.wait() {
	case refused:
		p.actor.see(what, "refused")
		return p.reply(http.StatusServiceUnavailable, map[string]any{}), nil
	case lost:
		if request.Context().Err() != nil {
			return nil, request.Context().Err()
		}
		return nil, io.ErrUnexpectedEOF
	}
	p.actor.see(what, fmt.Sprint(response.StatusCode))
	return response, nil
}

var drawn = regexp.MustCompile(`"(op|id|nonce|taken)":"([^"]+)"`)

// namer gives what is drawn at random a name by who wrote it first, so that a state
// is the same however the dice fell.
type namer struct {
	world *world
	names map[string]string
	count map[string]int
}

func (n *namer) name(text string) string {
	return drawn.ReplaceAllStringFunc(text, func(member string) string {
		parts := drawn.FindStringSubmatch(member)
		if n.names[parts[2]] == "" {
			by := "-"
			if n.world.acting != nil {
				by = n.world.acting.name
			}
			n.count[by]++
			n.names[parts[2]] = fmt.Sprintf("%s%d", by, n.count[by])
		}
		return parts[1] + "=" + n.names[parts[2]]
	})
}

// The explorer itself: two processes that read, add one and write lose an addition
// on some paths, and on none with check-and-set.
func TestTheExplorerFindsALostUpdate(t *testing.T) {
	for _, careful := range []bool{false, true} {
		e := &explorer{}
		ends := map[string]int{}
		if problem := explore(t, e, counters(careful, ends)); problem != "" {
			t.Error(problem)
		}
		if lost := ends[`{"n":1}`] > 0; lost == careful || ends[`{"n":2}`] == 0 {
			t.Errorf("careful %v: the ends are %v", careful, ends)
		}
		if e.executions < 5 {
			t.Errorf("careful %v: %d executions are too few", careful, e.executions)
		}
	}
}

func counters(careful bool, ends map[string]int) func(w *world) func() string {
	return func(w *world) func() string {
		store := newSimStore(time.Now)
		content := func() string {
			record, _ := store.Get(context.Background(), "n")
			return record.Data.Reveal()
		}
		_, _ = store.Patch(context.Background(), "n", creds.NewSecret(`{"n":0}`))
		for _, name := range []string{"a", "b"} {
			w.add(name, func(a *actor) {
				view := &steppedStore{Store: store, actor: a, name: func(r creds.Record) string { return r.Data.Reveal() }}
				for !addOne(a.ctx, view, careful) {
				}
			})
		}
		w.monitor = keyed(content)
		return func() string { ends[content()]++; return "" }
	}
}

func addOne(ctx context.Context, store creds.Store, careful bool) bool {
	record, _ := store.Get(ctx, "n")
	var n int
	_, _ = fmt.Sscanf(record.Data.Reveal(), `{"n":%d}`, &n)
	data := creds.NewSecret(fmt.Sprintf(`{"n":%d}`, n+1))
	var err error
	if careful {
		_, err = store.CAS(ctx, "n", data, record.Version)
	} else {
		_, err = store.Patch(ctx, "n", data)
	}
	return err == nil
}

// keyed is a monitor that only tells the state.
type keyed func() string

func (keyed) happened(*world, *call, string) {}
func (k keyed) key() string                  { return k() }
