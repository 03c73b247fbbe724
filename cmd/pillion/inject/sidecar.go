package inject

import "strconv"

// Names of what is added to a pod, and where things lie in it.
const (
	// Container is the sidecar's name.
	Container = "pillion"
	// PublicVolume is shared with the connectors, who may only read it: what
	// clients need, nothing secret.
	PublicVolume = "pillion-public"
	// StateVolume holds the keys, and TokenVolume the login at Vault: no other
	// container mounts them.
	StateVolume = "pillion-state"
	TokenVolume = "pillion-vault-token"
	// ConfigVolume is the ConfigMap.
	ConfigVolume = "pillion-config"

	// PublicDir is the same in every container, since ssh_config names files in it.
	PublicDir = "/run/pillion/public"
	stateDir  = "/var/lib/pillion"
	tokenDir  = "/var/run/secrets/vault" //nolint:gosec // a place
	configDir = "/etc/pillion"

	metricsPort = "pillion-metrics"
)

// sidecar is the container.
func (s Settings) sidecar() object {
	c := object{
		{"name", Container},
		{"image", s.Image},
		{"args", []any{"run"}},
	}
	if !s.Plain {
		c = append(c, field{"restartPolicy", "Always"})
	}
	return append(c,
		field{"env", []any{
			// Not a flag: commands that are run in the container find it too.
			variable("PILLION_CONFIG", configDir+"/pillion.yaml"),
			// A directory that pillion makes itself: the volume's own belongs to root.
			variable("PILLION_STATE", stateDir+"/state"),
			variable("PILLION_PUBLISH", PublicDir),
			variable("PILLION_PROXY_LISTEN", s.proxy()),
			variable("PILLION_METRICS_LISTEN", ":"+strconv.Itoa(s.MetricsPort)),
		}},
		field{"ports", []any{object{{"name", metricsPort}, {"containerPort", s.MetricsPort}}}},
		// Three minutes for a Vault that is away; liveness asks neither Vault nor tools.
		field{"startupProbe", s.probe("/readyz", 1, 180)},
		field{"readinessProbe", s.probe("/readyz", 5, 2)},
		field{"livenessProbe", s.probe("/livez", 10, 6)},
		field{"resources", object{
			{"requests", object{{"cpu", s.CPURequest}, {"memory", s.MemoryRequest}}},
			{"limits", object{{"memory", s.MemoryLimit}}},
		}},
		field{"securityContext", s.securityContext()},
		field{"volumeMounts", []any{
			mount(ConfigVolume, configDir, true),
			mount(TokenVolume, tokenDir, true),
			mount(StateVolume, stateDir, false),
			mount(PublicVolume, PublicDir, false),
		}},
	)
}

func (s Settings) proxy() string { return "127.0.0.1:" + strconv.Itoa(s.ProxyPort) }

// probe names no host: Pod Security forbids that from 1.34 on.
func (s Settings) probe(path string, period, failures int) object {
	return object{
		{"httpGet", object{{"path", path}, {"port", s.MetricsPort}}},
		{"periodSeconds", period}, {"timeoutSeconds", 5}, {"failureThreshold", failures},
	}
}

// securityContext is what Pod Security's "restricted" asks for, and more.
func (s Settings) securityContext() object {
	c := object{{"runAsNonRoot", true}}
	if s.UID != 0 {
		c = append(c, field{"runAsUser", s.UID}, field{"runAsGroup", s.UID})
	}
	return append(c,
		field{"allowPrivilegeEscalation", false},
		field{"readOnlyRootFilesystem", true},
		field{"capabilities", object{{"drop", []any{"ALL"}}}},
		field{"seccompProfile", object{{"type", "RuntimeDefault"}}},
	)
}

// volumes are those of the pod. In memory: keys never reach a disk.
func (s Settings) volumes() []any {
	memory := func(name, limit string) object {
		return object{{"name", name}, {"emptyDir", object{{"medium", "Memory"}, {"sizeLimit", limit}}}}
	}
	return []any{
		object{{"name", ConfigVolume}, {"configMap", object{{"name", s.ConfigMap}}}},
		object{{"name", TokenVolume}, {"projected", object{{"sources", []any{object{{"serviceAccountToken", object{
			{"path", "token"}, {"audience", s.Audience}, {"expirationSeconds", 3600}}}}}}}}},
		memory(StateVolume, "64Mi"),
		memory(PublicVolume, "16Mi"),
	}
}

func mount(name, at string, readOnly bool) object {
	m := object{{"name", name}, {"mountPath", at}}
	if readOnly {
		m = append(m, field{"readOnly", true})
	}
	return m
}

func variable(name, value string) object {
	return object{{"name", name}, {"value", value}}
}
