package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// size is how large the fleet is, and how quick its tokens go.
type size struct {
	processes, sidecars int // sidecars in all
	life                time.Duration
	run                 time.Duration
}

// row is one run.
type row struct {
	name string
	kind string // of the sidecars; if empty, those of package token
	// refreshers is how many sidecars are; if 0, all. They are spread over the processes.
	refreshers int
	times      float64 // how long it is, as a share of size.run; if 0, 1
	lives      float64 // how long tokens live, as a share of size.life; if 0, 1
	noJournal  bool

	crash, dieInside float64
	lost             float64 // share of Vault's answers to writes that is lost
	faults           credstest.OIDCFaults
	leeway           time.Duration
	spare            bool          // the administrator sees to it that there is a second consent
	freezes          int           // of Vault, of freezeFor each
	freezeFor        time.Duration // if 0, 6 s
	revokeEvery      time.Duration // access tokens at the provider
	killEvery        time.Duration // a worker, drawn, by SIGKILL

	want expectation
}

// ground is where a row runs.
type ground struct {
	row
	size
	t        *testing.T
	vault    *credstest.Vault
	lossy    *credstest.LossyVault
	mount    string
	provider *credstest.OIDC
	store    creds.Store // the administrator's, who may do everything
	setup    workerSetup

	mu      sync.Mutex
	counted tally
	kills   int
	gone    int // grants lost
	workers []*exec.Cmd
	logs    strings.Builder // what workers say on standard error
	closing bool
}

const credential = "fleet"

func newGround(t *testing.T, r row, s size) *ground {
	g := &ground{row: r, size: s, t: t}
	if g.times != 0 {
		g.run = time.Duration(float64(g.run) * g.times)
	}
	if g.lives != 0 {
		g.life = time.Duration(float64(g.life) * g.lives)
	}
	g.provider = credstest.OIDCSetup{AccessToken: g.life, Leeway: r.leeway}.Start(t)
	g.vault = credstest.SharedVault(t)
	if r.freezes > 0 {
		g.vault = credstest.StartVault(t)
	}
	g.mount = g.vault.Mount(t)
	g.lossy = g.vault.Lossy(t)
	environment := func(name string) string { return map[string]string{"VAULT_TOKEN": g.vault.Root}[name] }
	client, err := vaultstore.New(vaultstore.Config{Address: g.vault.Addr, Mount: g.mount}.WithEnvironment(environment), environment)
	if err != nil {
		t.Fatal(err)
	}
	g.store = client.Store("")
	g.setup = workerSetup{
		Kind: r.kind, Vault: g.vault.Addr, Mount: g.mount, Refresher: g.login("refresher"), Reader: g.login("sidecar"),
		Provider: *g.provider, Resource: startResource(t, g.provider), Credential: credential,
		NoJournal: r.noJournal, Crash: r.crash, DieInside: r.dieInside, Dir: t.TempDir(),
	}
	if r.lost > 0 {
		g.setup.Vault = g.lossy.Addr
	}
	return g
}

// login makes one with the policy that we ship under that name.
func (g *ground) login(policy string) login {
	rules, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "vault", policy+".hcl"))
	if err != nil {
		g.t.Fatal(err)
	}
	name := g.mount + "-" + policy
	g.vault.Policy(g.t, name, strings.ReplaceAll(string(rules), `"pillion/`, `"`+g.mount+`/`))
	roleID, secretID := g.vault.AppRole(g.t, name, name)
	file := filepath.Join(g.t.TempDir(), "secret-id")
	if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return login{roleID, file}
}

// startWorkers starts the processes, and keeps each of them running.
func (g *ground) startWorkers() {
	g.workers = make([]*exec.Cmd, g.processes)
	stdins := make([]io.Closer, g.processes)
	var running sync.WaitGroup
	for n := range g.processes {
		setup := g.setup
		setup.First = g.sidecars * n / g.processes
		setup.Sidecars = g.sidecars*(n+1)/g.processes - setup.First
		setup.Refreshers = setup.Sidecars
		if g.refreshers > 0 {
			setup.Refreshers = g.refreshers*(n+1)/g.processes - g.refreshers*n/g.processes
		}
		running.Go(func() {
			for !g.isClosing() {
				g.runWorker(n, setup, stdins)
			}
		})
	}
	g.t.Cleanup(func() {
		g.mu.Lock()
		g.closing = true
		for _, stdin := range stdins {
			if stdin != nil {
				stdin.Close()
			}
		}
		g.mu.Unlock()
		// One that does not end by itself in time is ended.
		late := time.AfterFunc(15*time.Second, func() {
			g.t.Error("a worker does not end with its standard input")
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, cmd := range g.workers {
				if cmd != nil {
					_ = cmd.Process.Kill()
				}
			}
		})
		running.Wait()
		late.Stop()
		if g.t.Failed() && g.logs.Len() > 0 {
			g.t.Logf("the workers say:\n%s", g.logs.String())
		}
	})
}

func (g *ground) isClosing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closing
}

// runWorker runs one to its end.
func (g *ground) runWorker(n int, setup workerSetup, stdins []io.Closer) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerVariable+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		g.t.Error(err)
		return
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		g.t.Error(err)
		return
	}
	cmd.Stderr = g
	line, err := json.Marshal(setup)
	if err != nil {
		g.t.Error(err)
		return
	}
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		return
	}
	if err := cmd.Start(); err != nil {
		g.closing = true
		g.mu.Unlock()
		g.t.Error(err)
		return
	}
	g.workers[n], stdins[n] = cmd, stdin
	g.mu.Unlock()
	_, _ = stdin.Write(append(line, '\n'))
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var more tally
		if err := json.Unmarshal(lines.Bytes(), &more); err != nil {
			continue // one that died while it wrote
		}
		g.mu.Lock()
		g.counted.add(more)
		g.mu.Unlock()
	}
	_ = cmd.Wait()
}

// Write implements io.Writer for what workers say.
func (g *ground) Write(text []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.logs.Len() < 64<<10 {
		g.logs.Write(text)
	}
	return len(text), nil
}

// disturb does to the fleet what the row says, until ctx ends.
func (g *ground) disturb(ctx context.Context, running *sync.WaitGroup) {
	g.lossy.LoseShare(g.lost)
	g.provider.Fail(g.t, g.faults)
	if g.revokeEvery > 0 {
		running.Go(func() {
			for pause(ctx, g.revokeEvery); ctx.Err() == nil; pause(ctx, g.revokeEvery) {
				g.provider.RevokeAccessTokens(g.t)
			}
		})
	}
	if g.killEvery > 0 {
		running.Go(func() {
			for pause(ctx, g.killEvery); ctx.Err() == nil; pause(ctx, g.killEvery) {
				g.mu.Lock()
				if cmd := g.workers[rand.N(len(g.workers))]; cmd.Process.Kill() == nil {
					g.kills++
				}
				g.mu.Unlock()
			}
		})
	}
	if g.freezes > 0 {
		if g.freezeFor == 0 {
			g.freezeFor = 6 * time.Second
		}
		between := (g.run - time.Duration(g.freezes)*g.freezeFor) / time.Duration(g.freezes+1)
		running.Go(func() {
			for range g.freezes {
				if pause(ctx, between); ctx.Err() != nil {
					return
				}
				g.vault.Freeze(g.t)
				pause(ctx, g.freezeFor)
				g.vault.Thaw(g.t)
			}
		})
	}
}

// settle ends the disturbances.
func (g *ground) settle() {
	g.lossy.LoseShare(0)
	g.provider.Fail(g.t, credstest.OIDCFaults{})
}

// runs is a row from its beginning to its end.
func (r row) runs(t *testing.T, s size) result {
	g := newGround(t, r, s)
	admin := administrator(&shipped{ground: g})
	if r.kind != "" {
		admin = &contrasting{ground: g}
	} else {
		g.setup.Kind = "shipped"
	}
	admin.prepare()
	g.startWorkers()
	admin.begin()
	ctx, stop := context.WithTimeout(t.Context(), g.run)
	defer stop()
	var running sync.WaitGroup
	before := g.provider.Stats(t)
	g.mu.Lock()
	g.counted = tally{}
	g.mu.Unlock()
	begin := time.Now()
	g.disturb(ctx, &running)
	running.Go(func() {
		every(ctx, 250*time.Millisecond, func() { admin.tend(ctx) })
	})
	running.Wait()
	took := time.Since(begin)
	g.mu.Lock()
	counted := g.counted
	counted.Events, counted.Notes = maps.Clone(counted.Events), maps.Clone(counted.Notes)
	g.mu.Unlock()
	after := g.provider.Stats(t)
	g.settle()
	return newResult(g, counted, before, after, took, r.want.deathInside || admin.stored())
}

// noticedAfter is how long it takes the administrator to connect a lost grant again.
const noticedAfter = 10 * time.Second

// administrator consents.
type administrator interface {
	prepare() // before the sidecars start
	begin()   // returns when the grant serves
	// tend looks, now and again, whether a grant was lost, counts it, and after a
	// while consents again.
	tend(ctx context.Context)
	// stored waits until the record holds all that the provider has given, and says
	// whether it does.
	stored() bool
}

// contrasting is the administrator of the contrast rows: they share a record of
// their own form, and somebody else puts the first grant in.
type contrasting struct {
	*ground
	revoked int
}

func (a *contrasting) prepare() { a.again() }
func (a *contrasting) begin()   {}

func (a *contrasting) tend(ctx context.Context) {
	if revoked := a.provider.Stats(a.t).GrantsRevoked; revoked > a.revoked {
		a.revoked = revoked
		a.lose(ctx, a.again)
	}
}

// lose counts a grant that was lost, and has it connected again after a while.
func (g *ground) lose(ctx context.Context, again func()) {
	g.mu.Lock()
	g.gone++
	g.mu.Unlock()
	if pause(ctx, noticedAfter); ctx.Err() == nil {
		again()
	}
}

func (a *contrasting) again() {
	const redirect = "http://127.0.0.1:1/callback"
	config := oauth2.Config{
		ClientID: a.provider.ClientID, ClientSecret: a.provider.ClientSecret, RedirectURL: redirect, Scopes: []string{"openid"},
		Endpoint: oauth2.Endpoint{AuthURL: a.provider.AuthorizationURL(), TokenURL: a.provider.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader},
	}
	verifier := oauth2.GenerateVerifier()
	back := a.provider.Consent(a.t, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: a.provider.Transport()})
	got, err := config.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		a.t.Fatalf("exchanging a code: %v", err)
	}
	grant := sharedGrant{Refresh: got.RefreshToken, Access: got.AccessToken, Expires: got.Expiry}
	for range 100 {
		version := 0
		if record, err := a.store.Get(a.t.Context(), sharedKey); err == nil {
			version = record.Version
		}
		if _, err = a.store.CAS(a.t.Context(), sharedKey, grant.secret(), version); err == nil {
			return
		}
	}
	a.t.Fatalf("writing the grant: %v", err)
}

func (a *contrasting) stored() bool { return true }
