package inject

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pillion/cmd/pillion/clientenv"
)

// Settings are what the sidecar is like. The flags of `pillion inject` and
// `pillion webhook` fill them; annotations of a pod are stronger.
type Settings struct {
	Image     string
	ConfigMap string // in the pod's namespace; its key pillion.yaml is the configuration
	// Plain adds an ordinary container in place of a native sidecar, for clusters
	// before 1.29, which do not know those.
	Plain       bool
	Clients     []string // containers that use pillion; none: all
	Languages   []string // of clientenv: whose certificate variables are set
	NoProxy     string   // hosts that clients ask directly, with commas
	Credential  string   // where several match
	ProxyPort   int
	MetricsPort int
	Audience    string // of the token for Vault
	// UID is the user of the sidecar; 0 leaves it to the cluster, as OpenShift wants it.
	UID           int
	CPURequest    string
	MemoryRequest string
	MemoryLimit   string
}

// Defaults returns settings that fit most pods.
func Defaults() Settings {
	return Settings{
		ConfigMap: "pillion",
		Languages: clientenv.Clients,
		// The API server is known to clients in a pod by its address, which kubelet
		// puts in here.
		NoProxy:   ".svc,.cluster.local,$(KUBERNETES_SERVICE_HOST)",
		ProxyPort: 3128, MetricsPort: 9180,
		Audience: "vault", UID: 65532,
		// Idle it takes 18 MiB, and some 40 KB a tunnel; the limit also holds what lies
		// in the volumes in memory.
		CPURequest: "10m", MemoryRequest: "48Mi", MemoryLimit: "256Mi",
	}
}

// Prefix is that of our labels and annotations.
const Prefix = "pillion/"

const (
	// InjectKey as a label with the value "true" asks the webhook for a sidecar; with
	// "false", as a label or an annotation, nothing is added.
	InjectKey = Prefix + "inject"
	// SidecarKey is the label of pods that have one, for selectors.
	SidecarKey = Prefix + "sidecar"
)

// annotations are those of a pod that change its settings.
var annotations = map[string]func(s *Settings, value string) error{
	"clients":        func(s *Settings, v string) error { s.Clients = list(v); return notEmpty(s.Clients) },
	"languages":      func(s *Settings, v string) error { return s.SetLanguages(v) },
	"no-proxy":       func(s *Settings, v string) error { return s.AddNoProxy(v) },
	"credential":     func(s *Settings, v string) error { s.Credential = v; return nil },
	"config-map":     func(s *Settings, v string) error { s.ConfigMap = v; return nil },
	"variant":        func(s *Settings, v string) error { return s.setVariant(v) },
	"proxy-port":     func(s *Settings, v string) error { return setPort(&s.ProxyPort, v) },
	"metrics-port":   func(s *Settings, v string) error { return setPort(&s.MetricsPort, v) },
	"cpu-request":    func(s *Settings, v string) error { s.CPURequest = v; return nil },
	"memory-request": func(s *Settings, v string) error { s.MemoryRequest = v; return nil },
	"memory-limit":   func(s *Settings, v string) error { s.MemoryLimit = v; return nil },
}

// Annotations are the names of the annotations that a pod may have, sorted.
func Annotations() []string {
	names := []string{InjectKey}
	for name := range annotations {
		names = append(names, Prefix+name)
	}
	slices.Sort(names)
	return names
}

// with returns s as the annotations of a pod change it.
func (s Settings) with(of map[string]string) (Settings, error) {
	s.Languages = slices.Clone(s.Languages)
	for _, key := range sortedKeys(of) {
		name, ours := strings.CutPrefix(key, Prefix)
		if !ours || key == InjectKey {
			continue
		}
		set, known := annotations[name]
		if !known {
			return s, fmt.Errorf("the annotation %s is not known: write one of %s", key, strings.Join(Annotations(), ", "))
		}
		if err := set(&s, strings.TrimSpace(of[key])); err != nil {
			return s, fmt.Errorf("the annotation %s: %w", key, err)
		}
	}
	return s, s.Check()
}

// SetLanguages takes a list with commas; "all" is every one, Java included.
func (s *Settings) SetLanguages(text string) error {
	s.Languages = list(text)
	known := append(slices.Clone(clientenv.Clients), clientenv.Java)
	if slices.Equal(s.Languages, []string{"all"}) {
		s.Languages = known
		return nil
	}
	for _, l := range s.Languages {
		if !slices.Contains(known, l) {
			return fmt.Errorf("%q is not known: write all, or some of %s", l, strings.Join(known, ", "))
		}
	}
	return notEmpty(s.Languages)
}

// AddNoProxy adds hosts that clients ask directly.
func (s *Settings) AddNoProxy(text string) error {
	for _, host := range list(text) {
		if strings.ContainsAny(host, " |*/") && !cidr.MatchString(host) {
			return fmt.Errorf("%q is no host: write names, with a leading dot for a domain, and addresses, with commas", host)
		}
		s.NoProxy += "," + host
	}
	return nil
}

var cidr = regexp.MustCompile(`^[0-9a-fA-F.:]+/[0-9]{1,3}$`)

func (s *Settings) setVariant(text string) error {
	if text != "native" && text != "plain" {
		return fmt.Errorf("%q is not known: write native or plain", text)
	}
	s.Plain = text == "plain"
	return nil
}

func setPort(to *int, text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q is no port: write a number from 1 to 65535", text)
	}
	*to = int(port)
	return nil
}

// Check says what of the settings makes no sense.
func (s Settings) Check() error {
	switch {
	case s.Image == "":
		return fmt.Errorf("the sidecar needs an image")
	case !objectName.MatchString(s.ConfigMap):
		return fmt.Errorf("%q is no name of a ConfigMap", s.ConfigMap)
	case s.Credential != "" && !objectName.MatchString(s.Credential):
		return fmt.Errorf("%q is no name of a credential", s.Credential)
	case s.Audience == "":
		return fmt.Errorf("the token for Vault needs an audience, such as vault")
	case s.ProxyPort == s.MetricsPort:
		return fmt.Errorf("proxy and metrics cannot share port %d", s.ProxyPort)
	case s.ProxyPort < 1024 || s.MetricsPort < 1024 || s.ProxyPort > 65535 || s.MetricsPort > 65535:
		return fmt.Errorf("ports must lie between 1024 and 65535: the sidecar has no capability to listen on others")
	case s.UID < 0:
		return fmt.Errorf("%d is no user id", s.UID)
	}
	for _, q := range []string{s.CPURequest, s.MemoryRequest, s.MemoryLimit} {
		if !quantity.MatchString(q) {
			return fmt.Errorf("%q is no quantity: write one as Kubernetes does, such as 10m or 64Mi", q)
		}
	}
	return nil
}

var (
	objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	quantity   = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)
)

// list cuts a list with commas.
func list(text string) []string {
	var words []string
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}

func notEmpty(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("an empty list would switch pillion off here: write %s: \"false\" for that", InjectKey)
	}
	return nil
}
