// Package check_test reads deploy/compose.yaml as docker compose does.
package check_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load refuses what the specification does not know, and what does not fit
// together, such as a volume that nobody declares.
func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../compose.yaml"}, cli.WithInterpolation(true), cli.WithConsistency(true), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func service(t *testing.T, name string) types.ServiceConfig {
	t.Helper()
	s, err := load(t).GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFilesAreThere(t *testing.T) {
	project := load(t)
	files := 0
	for _, s := range project.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			files++
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
			if !v.ReadOnly {
				t.Errorf("%s may write to %s", s.Name, v.Source)
			}
		}
	}
	for name, secret := range project.Secrets {
		files++
		if _, err := os.Stat(secret.File); err != nil {
			t.Errorf("the secret %s: %v", name, err)
		}
	}
	if files < 6 {
		t.Errorf("only %d files", files)
	}
}

func TestImagesHaveVersions(t *testing.T) {
	for _, s := range load(t).Services {
		if !strings.Contains(s.Image, ":") || strings.HasSuffix(s.Image, ":latest") && s.Image != "pillion:latest" {
			t.Errorf("%s runs %s", s.Name, s.Image)
		}
	}
}

func TestPillionIsConfined(t *testing.T) {
	for _, name := range []string{"pillion", "credential"} {
		s := service(t, name)
		if !s.ReadOnly || s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.User != "" || len(s.Ports) > 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// The connector shares pillion's loopback, and of its volumes the public one alone.
func TestConnectorSharesLoopbackAlone(t *testing.T) {
	project := load(t)
	connector := service(t, "connector")
	if connector.NetworkMode != "service:pillion" {
		t.Errorf("its network is %q", connector.NetworkMode)
	}
	for _, v := range connector.Volumes {
		if v.Source != "public" || !v.ReadOnly {
			t.Errorf("it has %+v", v)
		}
	}
	for _, secret := range []string{"state", "login"} {
		for _, s := range project.Services {
			for _, v := range s.Volumes {
				if v.Source == secret && s.Name != "pillion" && (secret != "login" || s.Name != "vault-setup") {
					t.Errorf("%s has the volume %s", s.Name, secret)
				}
			}
		}
	}
}
