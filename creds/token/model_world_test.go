package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pillion/creds"
)

// fleet is what the processes of an execution share: one credential at one provider,
// one store, a disk each. It is the monitor of what must never happen:
//
//   - a refresh token arrives at the provider twice, without a blind claim since
//     the first time;
//   - a rotation is lost, and nobody died or lost the answer while the provider worked
//     (or before the answer was on the disk);
//   - a token is kept or used for another purpose than it was given for;
//   - a call a process makes after the credential was removed brings it back.
type fleet struct {
	world    *world
	rules    rules
	provider *simProvider
	store    *simStore
	namer    *namer
	disks    map[string]*disk
	current  *creds.Credential // as it stands in credentials/
	removed  bool              // it does not stand there any more

	seq     int
	spentAt map[string]int           // refresh token -> when it last arrived
	blindAt int                      // when anybody last laid a blind claim
	loose   map[string]string        // process -> refresh token that it spent, whose answer the store does not have
	stood   map[string]time.Duration // process -> for how long it had stood still by then
	tooLate map[string]bool          // refresh token -> its answer came when another may have been told to spend it
	excused bool                     // a rotation may have been lost where no client can help it
	records map[string]string        // key -> digest, for states
	wrong   string
}

// rules are switches that leave one rule of the protocol out, to show that the model
// would find a protocol without it.
type rules struct {
	noJournal, noWatch, noDeadline, noSettle bool
}

const modelName = "jira"

func newFleet(w *world, life time.Duration, rules rules) *fleet {
	f := &fleet{
		world: w, rules: rules, provider: newSimProvider(life), store: newSimStore(time.Now),
		namer: &namer{world: w, names: map[string]string{}, count: map[string]int{}},
		disks: map[string]*disk{}, spentAt: map[string]int{},
		loose: map[string]string{}, stood: map[string]time.Duration{}, tooLate: map[string]bool{}, records: map[string]string{},
	}
	f.provider.used = f.spent
	f.store.wrote = f.wrote
	f.current = f.provider.credential(modelName, creds.AuthorizationCode)
	w.monitor = f
	f.put(creds.KeyCredentials+modelName, map[string]any{"schema": "1.0", "name": modelName})
	return f
}

// put writes a record as it stands at the beginning.
func (f *fleet) put(key string, record any) {
	if _, err := f.store.CAS(context.Background(), key, creds.NewSecret(string(marshal(record))), 0); err != nil {
		panic(err) // a test's own mistake
	}
}

// consented puts a grant into the store whose access token is good for so long yet.
func (f *fleet) consented(left time.Duration) {
	purpose := purposeOf(f.current)
	refresh := f.provider.granted(modelName)
	now := time.Now()
	token := &tokenRecord{
		Schema: schema, Gen: 1, AccessToken: &bound{purpose, strings.Replace(refresh, "rt/", "at/", 1)}, Type: "Bearer",
		IssuedAt: toMillis(now.Add(left - f.provider.life)), ExpiresAt: toMillis(now.Add(left)), Status: StatusOK,
	}
	f.put(creds.KeyGrants+modelName, grantRecord{Schema: schema, Refresh: &bound{purpose, refresh}, Gen: 1, Token: token})
	f.put(creds.KeyTokens+modelName, token)
}

// violate notes the first thing that is wrong.
func (f *fleet) violate(format string, args ...any) {
	if f.wrong == "" {
		f.wrong = fmt.Sprintf(format, args...)
		f.world.note("WRONG: " + f.wrong)
	}
}

// spent hears of a refresh token at the provider.
func (f *fleet) spent(token string, before int) {
	f.seq++
	if before > 0 && f.blindAt < f.spentAt[token] {
		f.violate("%s spends %s, which was spent before, and there was no blind claim since", f.actingName(), token)
	}
	f.spentAt[token] = f.seq
	// Who has an answer and stands still for longer than anybody may watch it is as
	// good as dead.
	for name, loose := range f.loose {
		if loose == token && f.stoodTooLong(name) {
			f.excused = true
		}
	}
	f.excused = f.excused || f.tooLate[token]
}

func (f *fleet) stoodTooLong(name string) bool {
	times := modelTimes(rules{})
	return f.world.stoodStill(name)-f.stood[name] >= times.rescue+times.settle
}

func (f *fleet) actingName() string {
	if f.world.acting == nil {
		return "-"
	}
	return f.world.acting.name
}

// wrote hears of every write.
func (f *fleet) wrote(key string, record creds.Record) {
	f.seq++
	text := f.namer.name(record.Data.Reveal())
	sum := sha256.Sum256([]byte(fmt.Sprint(text, record.Version, record.Created.Sub(f.world.start))))
	f.records[key] = string(sum[:8])
	switch key {
	case creds.KeyGrants + modelName:
		f.wroteGrant(record)
	case creds.KeyTokens + modelName:
		f.wroteToken(record)
	}
}

func (f *fleet) wroteGrant(record creds.Record) {
	g, err := decodeGrant(record.Data)
	if err != nil {
		f.violate("%s writes a grant that cannot be read: %v", f.actingName(), err)
		return
	}
	if g.Lease != nil && g.Lease.Blind {
		f.blindAt = f.seq
	}
	if g.Refresh != nil {
		f.bindsRight(g.Refresh, "refresh token")
		for name, spent := range f.loose {
			if g.Refresh.Value != spent {
				f.tooLate[spent] = f.tooLate[spent] || f.stoodTooLong(name)
				delete(f.loose, name) // it is in the store, or somebody else's is
			}
		}
	}
	if g.Token != nil && g.Token.AccessToken != nil {
		f.bindsRight(g.Token.AccessToken, "access token")
	}
}

func (f *fleet) wroteToken(record creds.Record) {
	token, err := decodeToken(record.Data)
	if err != nil {
		f.violate("%s writes a token that cannot be read: %v", f.actingName(), err)
	} else if token.AccessToken != nil {
		f.bindsRight(token.AccessToken, "access token")
	}
}

// bindsRight: a token says for what it was given, and the provider knows.
func (f *fleet) bindsRight(b *bound, what string) {
	family, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(b.Value, "rt/"), "at/"), ".")
	if want := f.purposes()[family]; want != b.For {
		f.violate("%s keeps a %s of %s for another purpose", f.actingName(), what, family)
	}
}

// purposes of the families of tokens, by name.
func (f *fleet) purposes() map[string]string {
	c := f.provider.credential(modelName, creds.AuthorizationCode)
	return map[string]string{modelName: purposeOf(c), movedName: purposeOf(moved(c))}
}

// movedName is the family of tokens for the credential after an edit.
const movedName = modelName + "-moved"

func moved(c *creds.Credential) *creds.Credential {
	edited := *c
	edited.URL = "https://elsewhere.example/"
	return &edited
}

func (f *fleet) family(c *creds.Credential) string {
	if f.purposes()[movedName] == purposeOf(c) {
		return movedName
	}
	return modelName
}

// happened implements monitor.
func (f *fleet) happened(w *world, c *call, how string) {
	name := c.actor.name
	switch {
	case c.kind == "token" && c.acted && (how == "killed after" || how == "lost after" || c.ctx.Err() != nil):
		f.excused = true
	case c.kind == "token" && c.acted && (how == "" || how == "frozen after" || how == "thawed" && f.loose[name] == ""):
		f.loose[name], f.stood[name] = strings.TrimPrefix(c.what, "spend "), w.stoodStill(name)
	case f.loose[name] != "" && c.kind == "journal" && how == "killed":
		f.excused = true // between the answer and the disk: a death inside the request
	}
}

// key implements monitor.
func (f *fleet) key() string {
	var b strings.Builder
	fmt.Fprintln(&b, f.excused, f.tooLate, f.wrong)
	for _, key := range slices.Sorted(maps.Keys(f.records)) {
		fmt.Fprintf(&b, "%s %x\n", key, f.records[key])
	}
	for _, name := range slices.Sorted(maps.Keys(f.provider.families)) {
		family := f.provider.families[name]
		fmt.Fprintln(&b, name, family.n, family.uses, family.revoked)
	}
	for _, token := range slices.Sorted(maps.Keys(f.spentAt)) {
		fmt.Fprint(&b, " ", f.blindAt < f.spentAt[token])
	}
	for _, a := range f.world.actors {
		fmt.Fprint(&b, a.name, f.loose[a.name])
		if f.loose[a.name] != "" {
			fmt.Fprint(&b, " ", f.world.stoodStill(a.name)-f.stood[a.name])
		}
		if d := f.disks[a.name]; d != nil {
			fmt.Fprint(&b, slices.Sorted(maps.Keys(d.files)))
		}
	}
	return b.String()
}

// disk is a process's journal: it outlives the process.
type disk struct {
	actor *actor
	files map[int][]byte
}

var _ journal = (*disk)(nil)

// disk returns a process's own, with what its predecessor left there.
func (f *fleet) disk(a *actor) *disk {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	d := &disk{actor: a, files: map[int][]byte{}}
	if old := f.disks[a.name]; old != nil {
		d.files = old.files
	}
	f.disks[a.name] = d
	return d
}

func (d *disk) store(name string, gen int, data []byte) error {
	o := d.actor.step(context.Background(), "journal", fmt.Sprintf("journal %d", gen), func() { d.files[gen] = data })
	d.actor.see("journal", fmt.Sprint(gen, o))
	return nil
}

func (d *disk) load(string) (map[int][]byte, error) {
	d.actor.see("journal", fmt.Sprint(slices.Sorted(maps.Keys(d.files))))
	return maps.Clone(d.files), nil
}

func (d *disk) remove(_ string, gen int) error {
	o := d.actor.step(context.Background(), "journal", fmt.Sprintf("journal %d away", gen), func() { delete(d.files, gen) })
	d.actor.see("journal", fmt.Sprint(gen, o))
	return nil
}

// process is one run of a refresher: it hands in what it finds on its disk, and then
// does its work.
func (f *fleet) process(name string, c *creds.Credential, work func(*actor, *renewal)) {
	f.world.add(name, func(a *actor) {
		r := f.renewal(a, c)
		if r.journal != nil {
			_ = f.again(a, func() error { return r.handIn(a.ctx) })
		}
		work(a, r)
	})
}

// again does something until it works, or cannot.
func (f *fleet) again(a *actor, do func() error) error {
	for {
		err := do()
		var unavailable *creds.TokenError
		switch {
		case err == nil, errors.Is(err, creds.ErrNeedsConsent), errors.Is(err, creds.ErrNotFound):
			return err
		case errors.As(err, &unavailable):
			time.Sleep(max(time.Second, undrawnBackoff(unavailable.RetryAfter)))
		default:
			time.Sleep(time.Second)
		}
		a.see("again", fmt.Sprint(err))
	}
}
