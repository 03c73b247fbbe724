package creds

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPresetsFillOnlyWhatIsOpen(t *testing.T) {
	preset, err := FindPreset("servicenow")
	if err != nil {
		t.Fatal(err)
	}
	c := &Credential{URL: "https://example.service-now.com/", Authorization: AuthorizationCode, AccessTokenURL: "https://own.example/token",
		AuthStyle: AuthStyleHeader, HeaderPrefix: pointer("X"), TokenLifetime: time.Minute, Scope: "own"}
	if _, err := preset.Apply(c); err != nil {
		t.Fatal(err)
	}
	if c.AccessTokenURL != "https://own.example/token" || c.AuthStyle != AuthStyleHeader || *c.HeaderPrefix != "X" || c.TokenLifetime != time.Minute || c.Scope != "own" ||
		c.AuthorizationURL != "https://example.service-now.com/oauth_auth.do" || c.RefreshTokenLifetime != 100*day {
		t.Errorf("%+v", c)
	}
}

// TestPresetsAreWhole: every preset has a type that its instance URL alone chooses,
// and what it sets goes with each of its types.
func TestPresetsAreWhole(t *testing.T) {
	var names []string
	for _, preset := range Presets() {
		names = append(names, preset.Name)
		for _, instanceURL := range []string{"https://api.tool.example/", "https://api.atlassian.com/ex/jira/1/", "https://x.atlassian.net/", "https://api.4me.com:8443/x/"} {
			types, err := preset.Types(instanceURL)
			if err != nil && preset.Name != "4me" || err == nil && len(types) == 0 {
				t.Errorf("%s at %s: %v, %v", preset.Name, instanceURL, types, err)
			}
			for i, kind := range append([]AuthorizationType{""}, types...) {
				c := &Credential{Name: "a", Protocol: HTTPS, URL: instanceURL, Authorization: kind}
				if err != nil {
					continue
				}
				left, err := preset.Apply(c)
				if err != nil || i == 0 && c.Authorization != types[0] {
					t.Errorf("%s at %s: %s, %v", preset.Name, instanceURL, c.Authorization, err)
				}
				if strings.Contains(left.Note, "--") || len(c.Headers) > 0 || preset.Name == "4me" && !slices.Equal(left.Headers, []string{"X-4me-Account"}) {
					t.Errorf("%s at %s leaves %+v", preset.Name, instanceURL, left) // the page has no flags
				}
				for line := range strings.SplitSeq(problems(c.Validate()), "\n") {
					// What is missing a person gives; nothing may be wrong.
					if line != "<nil>" && !strings.Contains(line, "is required") && !strings.Contains(line, " needs ") {
						t.Errorf("%s at %s: %s", preset.Name, instanceURL, line)
					}
				}
			}
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
	if preset, _ := FindPreset("jira"); preset.Tool != "Jira" {
		t.Errorf("%+v", preset)
	}
}

func TestPresetRefusals(t *testing.T) {
	if _, err := FindPreset(planted); err == nil || strings.Contains(err.Error(), planted) {
		t.Error(err)
	}
	for _, row := range []struct{ name, url, kind, want string }{
		{"4me", "https://example.4me.com/", "", "applying the preset 4me: the instance URL must be that of 4me's API"},
		{"bmc", "https://bmc.example/", "basic", "applying the preset bmc: it knows nothing of type basic there: there are login"},
		{"bmc", "nothing", "", "applying the preset bmc: the instance URL has no scheme"},
	} {
		preset, err := FindPreset(row.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := preset.Apply(&Credential{URL: row.url, Authorization: AuthorizationType(row.kind)}); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%v", err)
		}
	}
}
