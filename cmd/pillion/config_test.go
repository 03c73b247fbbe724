package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// noEnvironment is a process without any variable but a home.
func noEnvironment(name string) string {
	if name == "HOME" {
		return "/home/somebody"
	}
	return ""
}

// TestBadConfigurations reads testdata/config: one file a rule, whose problems
// stand in it behind "#! ".
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/config/bad-*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				if text, ok := strings.CutPrefix(line, "#! "); ok {
					want = append(want, strings.TrimSuffix(text, "\n"))
				}
			}
			c, err := parseConfig(file, data, noEnvironment, "")
			var got []string
			var problems *problemsError
			if errors.As(err, &problems) {
				got = problems.lines()
			} else if err != nil {
				t.Fatal(err)
			} else {
				for _, p := range c.checkFiles() {
					got = append(got, p.String())
				}
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") || len(want) == 0 {
				t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestExampleConfiguration: the shipped file is good, names the defaults as they
// are, and mentions every key.
func TestExampleConfiguration(t *testing.T) {
	const file = "../../deploy/config.example.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(file, data, noEnvironment, "")
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := parseConfig("", nil, noEnvironment, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Proxy != defaults.Proxy || !reflect.DeepEqual(c.SFTP, defaults.SFTP) || c.Metrics != defaults.Metrics || c.Drain != defaults.Drain || c.Log != defaults.Log || c.Admin != defaults.Admin || c.Refresher != defaults.Refresher ||
		c.Upstream.Private != defaults.Upstream.Private || c.State != defaults.State || c.Publish != defaults.Publish || *c.Store.File != *defaults.Store.File {
		t.Errorf("the example's values are not the defaults:\n%+v\n%+v", c, defaults)
	}
	// With its commented keys as well it is still good, but for what excludes
	// one another or does not exist on this machine.
	var all []string
	for line := range strings.Lines(string(data)) {
		if i := strings.Index(line, "# "); i >= 0 && strings.TrimSpace(line[:i]) == "" {
			if rest := line[i+2:]; plainKeyLine(rest) {
				line = line[:i] + rest
			}
		}
		if strings.Contains(line, "Credentials in HashiCorp Vault") {
			break // instead of what stands above: read by itself below
		}
		all = append(all, line)
	}
	full, err := parseConfig("full.yaml", []byte(strings.Join(all, "")), noEnvironment, "")
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(all, ""))
	}
	if full.Upstream.Proxy == "" || full.Upstream.Resolve["demo.example"] == "" || len(full.names()) == 0 || full.Proxy.AllowUIDs == nil || len(full.SFTP.Listeners) != 2 || full.sftpPolicy == 0 {
		t.Errorf("commented keys were not read: %+v", full)
	}
	vault := vaultExample(t, string(data))
	if v := vault.vault; v.Auth.Role != "pillion" || len(v.Prefixes) != 2 || v.MaxDenied != 5*time.Minute {
		t.Errorf("the example of Vault was not read: %+v", v)
	}
	// Of the keys of logins some exclude one another: these stand in comments twice.
	login := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^# +# ([a-z_]+): `).FindAllSubmatch(data, -1) {
		login["store.vault.auth."+string(found[1])] = true
	}
	for _, key := range allKeys() {
		if full.places[key] == "" && vault.places[key] == "" && !login[key] {
			t.Errorf("the example does not have %s", key)
		}
		delete(login, key)
	}
	for key := range login {
		t.Errorf("the example has %s, which is no key", key)
	}
}

// Other configurations that are shipped are good as well.
func TestShippedConfigurations(t *testing.T) {
	for _, file := range []string{"../../deploy/systemd/pillion.yaml", "../../deploy/compose/pillion.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		environment := map[string]string{"HOME": "/home/somebody", "VAULT_ADDR": "http://vault:8200"}
		if _, err := parseConfig(file, data, func(name string) string { return environment[name] }, ""); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// vaultExample reads the part of the example that is about Vault.
func vaultExample(t *testing.T, example string) *config {
	t.Helper()
	_, part, _ := strings.Cut(example, "VAULT_CACERT, ...) are stronger.\n")
	if part == "" {
		t.Fatal("the example has no part about Vault")
	}
	var lines []string
	for line := range strings.Lines(part) {
		lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
	}
	c, err := parseConfig("vault.yaml", []byte(strings.Join(lines, "")), noEnvironment, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// plainKeyLine tells a commented key from a sentence.
func plainKeyLine(line string) bool {
	key, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	return ok && key != "" && strings.ToLower(key) == key && !strings.ContainsAny(key, " /,()") && (rest == "" || rest[0] == ' ') &&
		key != "console" && !strings.Contains(line, "vault")
}

func TestPrecedence(t *testing.T) {
	file := []byte("proxy: {listen: '127.0.0.1:1111'}\nstate: here\nlog: {level: warn}\n")
	environment := map[string]string{"HOME": "/home/somebody", "PILLION_PROXY_LISTEN": "127.0.0.1:2222", "PILLION_STATE": "/from/environment", "PILLION_METRICS_LISTEN": "off"}
	c, err := parseConfig("/etc/pillion/pillion.yaml", file, func(n string) string { return environment[n] }, "/from/flag")
	if err != nil {
		t.Fatal(err)
	}
	if c.Proxy.Listen != "127.0.0.1:2222" || c.State != "/from/flag" || c.Metrics.Listen != off || c.Log.Level != "warn" || c.Drain != 20*time.Second {
		t.Errorf("%+v", c)
	}
	if c, err = parseConfig("/etc/pillion/pillion.yaml", file, noEnvironment, ""); err != nil || c.State != "/etc/pillion/here" {
		t.Errorf("a relative state: %v, %v", c, err)
	}
	environment = map[string]string{"HOME": "/home/somebody", "PILLION_PROXY_LISTEN": "3128"}
	_, err = parseConfig("", nil, func(n string) string { return environment[n] }, "")
	want := "the configuration has 1 problem:\n  PILLION_PROXY_LISTEN: proxy.listen: \"3128\" is not an address: write IP:PORT, such as 127.0.0.1:3128, or off"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestWhoRefreshes(t *testing.T) {
	const vault = "store: {vault: {address: 'https://vault.example:8200'}}\n"
	for _, row := range []struct {
		text string
		want bool
	}{
		{"", true},
		{"refresher: {enabled: auto}\n", true},
		{"refresher: {enabled: false}\n", false},
		{vault, false},
		{vault + "refresher: {enabled: auto}\n", false},
		{vault + "refresher: {enabled: true}\n", true},
		{vault + "refresher: {enabled: false}\n", false},
		{vault + "refresher:\n", false},
	} {
		c, err := parseConfig("p.yaml", []byte(row.text), noEnvironment, "")
		if err != nil {
			t.Fatal(err)
		}
		if c.refreshes() != row.want {
			t.Errorf("%q: refreshes is %t", row.text, c.refreshes())
		}
	}
}
