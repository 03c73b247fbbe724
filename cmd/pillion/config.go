package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pillion/creds/vaultstore"
	"pillion/sftpgw"
)

// config is the whole configuration: the file, what the environment and the
// flags put over it, and the defaults for the rest. The tags are the keys of
// the file; deploy/config.example.yaml says what each means.
type config struct {
	Proxy     proxyConfig     `yaml:"proxy"`
	SFTP      sftpConfig      `yaml:"sftp"`
	Metrics   metricsConfig   `yaml:"metrics"`
	Console   consoleConfig   `yaml:"console"`
	Refresher refresherConfig `yaml:"refresher"`
	Store     storeConfig     `yaml:"store"`
	State     string          `yaml:"state"`
	Upstream  upstreamConfig  `yaml:"upstream"`
	Publish   string          `yaml:"publish"`
	Drain     time.Duration   `yaml:"drain"`
	Log       logConfig       `yaml:"log"`
	Admin     adminConfig     `yaml:"admin"`

	// sftpPolicy is sftp.allow.
	sftpPolicy sftpgw.Policy
	// vault is store.vault with defaults and the VAULT_ variables; nil without it.
	vault *vaultstore.Config
	// file is where it was read from; "" when there is none.
	file string
	// places are where its keys were written.
	places map[string]string
	// notes are what check and run say and then go on.
	notes []string
}

type proxyConfig struct {
	Listen          string    `yaml:"listen"`
	Unmatched       string    `yaml:"unmatched"`
	BaseURL         bool      `yaml:"base_url"`
	Fast            string    `yaml:"fast"`
	AllowUIDs       *[]uint32 `yaml:"allow_uids"`
	ClientTokenFile string    `yaml:"client_token_file"`
}

type metricsConfig struct {
	Listen        string `yaml:"listen"`
	PerCredential bool   `yaml:"per_credential"`
}

type storeConfig struct {
	File        *fileStoreConfig  `yaml:"file"`
	Vault       *vaultStoreConfig `yaml:"vault"`
	Credentials *[]string         `yaml:"credentials"`
	MaxStale    time.Duration     `yaml:"max_stale"`
	MaxDenied   time.Duration     `yaml:"max_denied"`
}

type fileStoreConfig struct {
	Path    string `yaml:"path"`
	KeyFile string `yaml:"key_file"`
}

type upstreamConfig struct {
	CAFile  string            `yaml:"ca_file"`
	Allow   []string          `yaml:"allow"`
	Resolve map[string]string `yaml:"resolve"`
	Proxy   string            `yaml:"proxy"`
	Private bool              `yaml:"private"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

type adminConfig struct {
	PProf bool `yaml:"pprof"`
}

// off as a listen address switches a role off.
const off = "off"

func defaultConfig() *config {
	return &config{
		Proxy:     proxyConfig{Listen: "127.0.0.1:3128", Unmatched: "deny", Fast: "on"},
		SFTP:      sftpConfig{Listen: "127.0.0.1:2022"},
		Metrics:   metricsConfig{Listen: "127.0.0.1:9180"},
		Console:   consoleConfig{Listen: off, Session: consoleSessionConfig{Idle: time.Hour, Absolute: 8 * time.Hour}},
		Refresher: refresherConfig{Enabled: "auto"},
		Upstream:  upstreamConfig{Private: true},
		Drain:     20 * time.Second,
		Log:       logConfig{Level: "info", Format: "json"},
	}
}

// The environment variables, each over one key of the file.
const (
	envConfig        = "PILLION_CONFIG"
	envState         = "PILLION_STATE"
	envPublish       = "PILLION_PUBLISH"
	envProxyListen   = "PILLION_PROXY_LISTEN"
	envSFTPListen    = "PILLION_SFTP_LISTEN"
	envMetricsListen = "PILLION_METRICS_LISTEN"
	envConsoleListen = "PILLION_CONSOLE_LISTEN"
	envLogLevel      = "PILLION_LOG_LEVEL"
)

// overrides maps each variable to the path and the field that it sets.
func (c *config) overrides() map[string]struct {
	path  string
	field *string
} {
	return map[string]struct {
		path  string
		field *string
	}{
		envState:         {"state", &c.State},
		envPublish:       {"publish", &c.Publish},
		envProxyListen:   {"proxy.listen", &c.Proxy.Listen},
		envSFTPListen:    {"sftp.listen", &c.SFTP.Listen},
		envMetricsListen: {"metrics.listen", &c.Metrics.Listen},
		envConsoleListen: {"console.listen", &c.Console.Listen},
		envLogLevel:      {"log.level", &c.Log.Level},
	}
}

// loadConfig reads the configuration that the flags and the environment name.
// Its error is a *problemsError with everything that is wrong, or says why
// the file could not be read.
func (a *app) loadConfig() (*config, error) {
	file, place := a.flags.config, "--config"
	if file == "" {
		file, place = a.getenv(envConfig), envConfig
	}
	var data []byte
	if file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("reading the configuration that %s names: %w", place, err)
		}
	}
	return parseConfig(file, data, a.getenv, a.flags.state)
}

// parseConfig is loadConfig for content that was already read.
func parseConfig(file string, data []byte, getenv func(string) string, stateFlag string) (*config, error) {
	c := defaultConfig()
	c.file = file
	d := readStrict(filepath.Base(file), data, c)
	base := ""
	if file != "" {
		base = filepath.Dir(file)
	}
	c.resolvePaths(base)
	for name, o := range c.overrides() {
		if value := getenv(name); value != "" {
			*o.field = value
			d.places[o.path] = name
		}
	}
	if stateFlag != "" {
		c.State = stateFlag
		d.places["state"] = "--state"
	}
	c.fillPaths(d, getenv)
	c.fillVault(d, getenv)
	c.check(d)
	c.places = d.places
	if len(d.problems) > 0 {
		byLine(d.problems)
		return nil, &problemsError{"the configuration", d.problems}
	}
	return c, nil
}

// resolvePaths makes the file's relative paths relative to the file, so that
// its meaning does not depend on where pillion was started.
func (c *config) resolvePaths(base string) {
	paths := append(c.Console.paths(), &c.State, &c.Publish, &c.Proxy.ClientTokenFile, &c.Upstream.CAFile)
	if c.Store.File != nil {
		paths = append(paths, &c.Store.File.Path, &c.Store.File.KeyFile)
	}
	if c.Store.Vault != nil {
		paths = append(paths, c.Store.Vault.paths()...)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
}

// fillPaths sets the paths that follow from others.
func (c *config) fillPaths(d *document, getenv func(string) string) {
	if c.State == "" {
		c.State = defaultState(getenv)
	}
	if c.State == "" {
		d.add("state", "neither HOME nor XDG_STATE_HOME is set: name a directory with --state or %s", envState)
		return
	}
	if abs, err := filepath.Abs(c.State); err == nil {
		c.State = abs
	}
	if c.Store.File == nil {
		c.Store.File = &fileStoreConfig{}
	}
	if c.Store.File.Path == "" {
		c.Store.File.Path = filepath.Join(c.State, "store.age")
	}
	if c.Store.File.KeyFile == "" {
		c.Store.File.KeyFile = filepath.Join(c.State, "key.txt")
	}
	if c.Publish == "" {
		c.Publish = filepath.Join(c.State, "public")
	}
	if abs, err := filepath.Abs(c.Publish); err == nil {
		c.Publish = abs
	}
}

func defaultState(getenv func(string) string) string {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pillion")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "pillion")
	}
	return ""
}

// adminSocket is where the administrator's socket stands.
func (c *config) adminSocket() string { return filepath.Join(c.State, "admin.sock") }

// fileProblem says why a file cannot be used, without its path: somebody may
// have put the secret where the path of its file belongs.
func fileProblem(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not read the file"
	default:
		return "the file cannot be read"
	}
}
