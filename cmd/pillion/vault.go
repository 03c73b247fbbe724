package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pillion/creds"
	"pillion/creds/filestore"
	"pillion/creds/vaultstore"
)

// vaultStoreConfig is the section store.vault; vaultstore.Config says what each
// key means.
type vaultStoreConfig struct {
	Address    string          `yaml:"address"`
	Namespace  string          `yaml:"namespace"`
	Mount      string          `yaml:"mount"`
	Prefixes   []string        `yaml:"prefixes"`
	Auth       vaultAuthConfig `yaml:"auth"`
	CAFile     string          `yaml:"ca_file"`
	SkipVerify bool            `yaml:"skip_verify"`
	Cache      bool            `yaml:"cache"`
}

type vaultAuthConfig struct {
	Method       string `yaml:"method"`
	Role         string `yaml:"role"`
	Path         string `yaml:"path"`
	TokenFile    string `yaml:"token_file"`
	RoleID       string `yaml:"role_id"`
	RoleIDFile   string `yaml:"role_id_file"`
	SecretIDFile string `yaml:"secret_id_file"`
	Wrapped      bool   `yaml:"wrapped"`
}

// paths are the fields that name files.
func (v *vaultStoreConfig) paths() []*string {
	return []*string{&v.CAFile, &v.Auth.TokenFile, &v.Auth.RoleIDFile, &v.Auth.SecretIDFile}
}

// fillVault makes c.vault of the section and the environment.
func (c *config) fillVault(d *document, getenv func(string) string) {
	for key, value := range map[string]time.Duration{"store.max_stale": c.Store.MaxStale, "store.max_denied": c.Store.MaxDenied} {
		switch {
		case d.places[key] == "":
		case c.Store.Vault == nil:
			d.add(key, "belongs to a store over a network: remove it, or configure store.vault")
		case value <= 0:
			d.add(key, "must be longer than 0s: write one such as 12h or 5m")
		}
	}
	if c.Store.Vault == nil {
		return
	}
	v := vaultConfigOf(c).WithEnvironment(getenv)
	for _, p := range v.Problems(getenv) {
		if p.Field != "max_stale" && p.Field != "max_denied" {
			d.add("store.vault."+p.Field, "%s", p.Problem)
		}
	}
	c.vault = &v
}

func vaultConfigOf(c *config) vaultstore.Config {
	v := c.Store.Vault
	return vaultstore.Config{
		Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, Prefixes: v.Prefixes,
		Auth: vaultstore.Auth{
			Method: v.Auth.Method, Role: v.Auth.Role, Path: v.Auth.Path, TokenFile: v.Auth.TokenFile,
			RoleID: v.Auth.RoleID, RoleIDFile: v.Auth.RoleIDFile, SecretIDFile: v.Auth.SecretIDFile, Wrapped: v.Auth.Wrapped,
		},
		CAFile: v.CAFile, SkipVerify: v.SkipVerify, Cache: v.Cache,
		MaxStale: c.Store.MaxStale, MaxDenied: c.Store.MaxDenied,
	}
}

// operatorsVault opens Vault for the person who runs a command: with his own token
// (VAULT_TOKEN, or what vault login left), else with the configured login, unless
// that can be made only once.
func (a *app) operatorsVault(config vaultstore.Config) (*vaultstore.Store, error) {
	switch {
	case vaultstore.HasOperatorToken(a.getenv):
		config.Auth = vaultstore.Auth{}
	case config.Auth.Wrapped:
		return nil, errors.New("to log in here would use up the wrapped secret id of pillion run: set VAULT_TOKEN, or run vault login")
	}
	prefix := config.Prefixes[0]
	if a.flags.prefix != "" {
		prefix = strings.Trim(a.flags.prefix, "/")
		if !slices.Contains(config.Prefixes, prefix) {
			config.Prefixes = append(slices.Clone(config.Prefixes), prefix)
		}
	}
	client, err := vaultstore.New(config, a.getenv)
	if err != nil {
		return nil, err
	}
	return client.Store(prefix), nil
}

// asRunWould returns the store by run's own login, where one is configured: what a
// sidecar uses is not what the person who asks may read. A login that can be made
// only once is left to run.
func (a *app) asRunWould(c *config, store creds.Store) (creds.Store, error) {
	if c.vault == nil || c.vault.Auth.Method == "" {
		return store, nil
	}
	if c.vault.Auth.Wrapped {
		fmt.Fprintln(a.stderr, "note: this is read with your own token: the login of pillion run would use up its wrapped secret id")
		return store, nil
	}
	client, err := vaultstore.New(*c.vault, a.getenv)
	if err != nil {
		return nil, err
	}
	return client.Store(c.vault.Prefixes[0]), nil
}

// liveOver is what run would use of a store.
func (c *config) liveOver(store creds.Store) *creds.Live {
	live := &creds.Live{Store: store, Names: c.names()}
	if v, ok := store.(*vaultstore.Store); ok {
		live.More, live.WithoutGrants = v.Others(), !c.refreshes()
	}
	return live
}

// storeName is how messages call the store.
func (c *config) storeName() string {
	if c.vault == nil {
		return c.Store.File.Path
	}
	return c.vault.Address + ", mount " + c.vault.Mount
}

// openVault makes the store of a running pillion. It asks Vault for nothing.
func (d *daemon) openVault(config vaultstore.Config) error {
	client, err := vaultstore.New(config, d.app.getenv)
	if err != nil {
		return fmt.Errorf("opening the credential store: %w", err)
	}
	client.OnLogin = func(err error) {
		d.metrics.loggedIn(err)
		if err != nil {
			d.log.Warn("login at Vault failed", "error", oneLine(err.Error()))
			return
		}
		d.log.Info("logged in at Vault", "expires", client.Session().Expires)
	}
	d.vault = client
	stores := client.Stores()
	for i := range stores {
		stores[i] = countedStore{stores[i], d.metrics}
	}
	d.live = &creds.Live{
		Store: stores[0], More: stores[1:], OnChange: d.credentialsChanged, Names: d.config.Load().names(),
		MaxStale: config.MaxStale, MaxDenied: config.MaxDenied, WithoutGrants: !d.config.Load().refreshes(),
	}
	d.store = client.Store(config.Prefixes[0])
	return nil
}

// openFromVault opens the store in Vault and reads it, if it can be read.
func (d *daemon) openFromVault(ctx context.Context, c *config) error {
	if err := d.openVault(*c.vault); err != nil {
		return err
	}
	if c.vault.Cache {
		var err error
		if d.cache, err = openVaultCache(c); err != nil {
			return err
		}
	}
	d.readVault(ctx)
	d.logSkippedOnce()
	return nil
}

// readVault reads the credentials for the first time. A Vault that is away does
// not keep pillion from starting: it uses what it kept, if it may, or says
// "not ready" and goes on asking.
func (d *daemon) readVault(ctx context.Context) {
	err := d.live.Reload(ctx)
	if err == nil && d.cache != nil {
		d.cache.keep(ctx, d.live, d.log.Warn)
	}
	if err == nil {
		return
	}
	d.log.Error("the credential store cannot be read: pillion goes on asking", "problem", oneLine(err.Error()))
	if d.cache == nil {
		return
	}
	if err := d.cache.restore(ctx, d.live, err); err != nil {
		d.log.Warn("what was kept of the credentials cannot be used", "problem", oneLine(err.Error()))
		return
	}
	since, _ := d.live.Stale()
	d.log.Warn("older credentials serve, from the sealed cache", "credentials", d.live.Table().Len(), "read", since.UTC())
}

// followVault polls until ctx ends.
func (d *daemon) followVault(ctx context.Context) {
	go d.vault.KeepLoggedIn(ctx)
	poller := &creds.Poller{Live: d.live, OnRound: func(sweep bool, err error) { d.polled(ctx, sweep, err) }}
	poller.Run(ctx)
}

// polled tells what changed in how the store answers, once.
func (d *daemon) polled(ctx context.Context, sweep bool, err error) {
	text := ""
	if err != nil {
		text = oneLine(err.Error())
	}
	said := &d.said
	if sweep {
		said = &d.saidOfSweep
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return
	case text != "" && text != *said && sweep:
		d.log.Warn("the index of the credentials could not be repaired", "problem", text)
	case text != "" && text != *said:
		d.sayAway(text)
	case text == "" && *said != "" && !sweep:
		d.log.Info("the credential store answers again", "credentials", d.live.Table().Len())
	}
	*said = text
	if err == nil && !sweep {
		d.forgiveStore()
		d.logSkippedOnce()
		if d.cache != nil {
			d.cache.keep(ctx, d.live, d.log.Warn)
		}
	}
}

// forgiveStore takes back that a reload failed, if it was the store alone that did not
// answer then.
func (d *daemon) forgiveStore() {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.configOld.Load() || len(d.lastProblems()) == 0 {
		return
	}
	d.problems.Store(&[]string{})
	d.metrics.reloaded(true, time.Now())
}

// sayAway says that the store does not answer, and what serves meanwhile.
func (d *daemon) sayAway(problem string) {
	if !d.live.Loaded() {
		d.log.Warn("the credential store does not answer: nothing was read from it yet", "problem", problem)
		return
	}
	since, _ := d.live.Stale()
	attrs := []any{"since", since.UTC(), "problem", problem, "credentials", d.live.Table().Len()}
	if until := d.live.ServesUntil(); !until.IsZero() {
		attrs = append(attrs, "until", until.UTC())
	}
	d.log.Warn("the credential store does not answer: what was read last serves", attrs...)
}

// logSkippedOnce is logSkipped when there is something new to say.
func (d *daemon) logSkippedOnce() {
	now := fmt.Sprint(d.live.Bad())
	if was := d.skipped.Swap(&now); was == nil || *was != now {
		d.logSkipped()
	}
}

// vaultCache is what a new pod may start with while Vault is away: the credentials
// in one file of the state directory, sealed with its key.
type vaultCache struct {
	path   string
	sealer *filestore.Sealer
	saved  time.Time
	table  *creds.Table
}

// keepEvery is how often an unchanged cache is written anew: it may serve that
// much less long than max_stale allows.
const keepEvery = 10 * time.Minute

func openVaultCache(c *config) (*vaultCache, error) {
	sealer, err := filestore.OpenSealer(c.Store.File.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("opening the key of the sealed cache: %w", err)
	}
	return &vaultCache{path: filepath.Join(c.State, "vault-cache.age"), sealer: sealer}, nil
}

func (v *vaultCache) restore(ctx context.Context, live *creds.Live, why error) error {
	sealed, err := os.ReadFile(v.path)
	if err != nil {
		return fmt.Errorf("%s: %s", v.path, fileProblem(err))
	}
	snapshot, err := v.sealer.Unseal(sealed)
	if err != nil {
		return fmt.Errorf("%s %w", v.path, err)
	}
	return live.Restore(ctx, snapshot, why)
}

// keep writes the cache if it is old or the credentials changed. A cache that
// cannot be written costs nothing now, so it is said and no more.
func (v *vaultCache) keep(ctx context.Context, live *creds.Live, warn func(string, ...any)) {
	if live.Table() == v.table && time.Since(v.saved) < keepEvery {
		return
	}
	table := live.Table()
	err := v.write(ctx, live)
	if err != nil {
		warn("the sealed cache of the credentials cannot be written: a new pillion could not start while Vault is away", "problem", oneLine(err.Error()))
	}
	v.table, v.saved = table, time.Now()
}

func (v *vaultCache) write(ctx context.Context, live *creds.Live) error {
	snapshot, err := live.Snapshot(ctx)
	if err != nil {
		return err
	}
	sealed, err := v.sealer.Seal(snapshot)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(v.path), ".vault-cache-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	_, err = temporary.Write(sealed)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), v.path)
}
