package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

// pod is what a node needs to know of one.
type pod struct {
	Metadata struct{ Name, UID string }
	Spec     struct {
		InitContainers, Containers []podContainer
		Volumes                    []podVolume
	}
}

type podContainer struct {
	Name, RestartPolicy string
	Args                []string
	Env                 []struct{ Name, Value string }
	VolumeMounts        []struct{ Name, MountPath string }
}

type podVolume struct {
	Name      string
	ConfigMap *struct{ Name string }
	Secret    *struct{ SecretName string }
	Projected *struct {
		Sources []struct {
			ServiceAccountToken *struct{ Audience, Path string }
		}
	}
}

// pod reads a pod, or the one that a workload would make.
func (c *cluster) pod(t *testing.T, namespace, kind, name string) pod {
	t.Helper()
	path := "{@}"
	if kind != "pod" {
		path = "{.spec.template}"
	}
	var p pod
	text := c.Kubectl(t, "", "get", kind, name, "--namespace", namespace, "--output", "jsonpath="+path)
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// node runs a pod's containers as processes of this machine: files and ports are
// elsewhere, and nothing else differs from what the pod says.
type node struct {
	pod     pod
	volumes map[string]string // the folder of each
	ports   map[string]string // the addresses of the sidecar, and what they are here
}

func (c *cluster) node(t *testing.T, namespace, kind, name string) *node {
	t.Helper()
	n := &node{pod: c.pod(t, namespace, kind, name), volumes: map[string]string{}, ports: map[string]string{"127.0.0.1:3128": credstest.FreeAddress(t), ":9180": credstest.FreeAddress(t)}}
	for _, v := range n.pod.Spec.Volumes {
		n.volumes[v.Name] = t.TempDir()
	}
	first := append(n.pod.Spec.InitContainers, n.pod.Spec.Containers...)[0]
	for _, v := range n.pod.Spec.Volumes {
		for name, text := range c.content(t, namespace, n.pod, v) {
			if err := os.WriteFile(filepath.Join(n.volumes[v.Name], name), []byte(n.place(first, text)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// content is what is in a volume when the pod starts, by the name of the file. A
// token is one that the API server made for this pod.
func (c *cluster) content(t *testing.T, namespace string, p pod, v podVolume) map[string]string {
	t.Helper()
	files := map[string]string{}
	switch {
	case v.ConfigMap != nil:
		c.data(t, namespace, "configmap", v.ConfigMap.Name, &files)
	case v.Secret != nil:
		encoded := map[string][]byte{}
		c.data(t, namespace, "secret", v.Secret.SecretName, &encoded)
		for name, text := range encoded {
			files[name] = string(text)
		}
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if account := source.ServiceAccountToken; account != nil {
				arguments := []string{"create", "token", "default", "--namespace", namespace,
					"--bound-object-kind", "Pod", "--bound-object-name", p.Metadata.Name, "--bound-object-uid", p.Metadata.UID}
				if account.Audience != "" {
					arguments = append(arguments, "--audience", account.Audience)
				}
				files[account.Path] = strings.TrimSpace(c.Kubectl(t, "", arguments...))
			}
		}
	}
	return files
}

// data reads the data of a ConfigMap, or of a Secret.
func (c *cluster) data(t *testing.T, namespace, kind, name string, into any) {
	t.Helper()
	text := c.Kubectl(t, "", "get", kind, name, "--namespace", namespace, "--output", "jsonpath={.data}")
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// place turns the files and addresses of a container into those of this machine.
func (n *node) place(c podContainer, text string) string {
	for _, m := range c.VolumeMounts {
		text = strings.ReplaceAll(text, m.MountPath, n.volumes[m.Name])
	}
	for there, here := range n.ports {
		if strings.HasPrefix(there, ":") && text != there {
			continue // it is part of other addresses
		}
		text = strings.ReplaceAll(text, there, here)
	}
	return text
}

func (n *node) arguments(c podContainer) []string {
	var arguments []string
	for _, a := range c.Args {
		arguments = append(arguments, n.place(c, a))
	}
	return arguments
}

func (n *node) environment(t *testing.T, c podContainer) []string {
	t.Helper()
	environment := plainEnvironment(t)
	for _, v := range c.Env {
		if v.Value != "" { // else from a field of the pod
			environment = append(environment, v.Name+"="+n.place(c, v.Value))
		}
	}
	return environment
}
