package inject

import (
	"fmt"
	"slices"
	"strings"

	"pillion/cmd/pillion/clientenv"
)

// Report is what was done to one workload.
type Report struct {
	Kind, Name string
	// Added is false where everything was there, or the workload wants nothing.
	Added   bool
	Skipped string   // why nothing is to be added
	Clients []string // the containers that use pillion
	// Warnings are what may not work as it is; they do not keep it from being added.
	Warnings []string
	// Notes are what is left to the workload's owner.
	Notes []string
}

// plan is the additions to one pod, as they are collected.
type plan struct {
	Settings
	at       []any // the pod's path
	metadata map[string]any
	spec     map[string]any
	there    bool // it has a sidecar
	all      []addition
	report   Report
}

// planFor says what the workload lacks. Its error says why a sidecar would not do
// what its user expects.
func planFor(w workload, s Settings) (*plan, error) {
	p := &plan{report: Report{Kind: w.kind, Name: w.name}, at: w.at}
	p.metadata, p.spec = mapping(w.pod["metadata"]), mapping(w.pod["spec"])
	if p.spec == nil {
		return p, fmt.Errorf("it has no pod template")
	}
	notes := texts(p.metadata["annotations"])
	labels := texts(p.metadata["labels"])
	if notes[InjectKey] == "false" || labels[InjectKey] == "false" {
		p.report.Skipped = InjectKey + " is \"false\""
		return p, nil
	}
	var err error
	if p.Settings, err = s.with(notes); err != nil {
		return p, err
	}
	if err := p.followWhatIsThere(); err != nil {
		return p, err
	}
	if err := p.refuse(); err != nil {
		return p, err
	}
	if err := p.clients(); err != nil {
		return p, err
	}
	p.volumesToAdd()
	p.labelsToAdd(labels, notes)
	p.sidecarToAdd()
	p.warn(w)
	p.report.Added = len(p.all) > 0
	return p, p.keepApart()
}

// followWhatIsThere takes the variant of a sidecar that the pod has already.
func (p *plan) followWhatIsThere() error {
	for _, list := range []string{"initContainers", "containers"} {
		c := named(p.spec[list], Container)
		if c == nil {
			continue
		}
		if named(c["volumeMounts"], PublicVolume) == nil {
			return fmt.Errorf("its container %s is no sidecar of ours, since it does not mount %s: rename it", Container, PublicVolume)
		}
		p.there, p.Plain = true, list == "containers"
	}
	return nil
}

// refuse says where a sidecar on loopback would serve others than its pod, or
// cannot run.
func (p *plan) refuse() error {
	if p.spec["hostNetwork"] == true {
		return fmt.Errorf("it has hostNetwork: true, so that loopback is the node's, and every process there could use its credentials: remove that, or run pillion on the node with proxy.allow_uids")
	}
	if text(mapping(p.spec["os"])["name"]) == "windows" || texts(p.spec["nodeSelector"])["kubernetes.io/os"] == "windows" {
		return fmt.Errorf("it is for Windows, and pillion runs on Linux alone")
	}
	if len(items(p.spec["containers"])) == 0 {
		return fmt.Errorf("it has no containers")
	}
	return nil
}

// clients adds to each container that shall use pillion what it needs for that.
func (p *plan) clients() error {
	wanted := slices.Clone(p.Clients)
	for _, list := range []string{"initContainers", "containers"} {
		for i, item := range items(p.spec[list]) {
			c := mapping(item)
			name := text(c["name"])
			if name == Container || len(p.Clients) > 0 && !slices.Contains(p.Clients, name) {
				continue
			}
			wanted = slices.DeleteFunc(wanted, func(w string) bool { return w == name })
			if list == "initContainers" && p.Plain {
				if len(p.Clients) > 0 {
					p.warnf("the init container %s cannot use pillion, which in the plain variant starts after it", name)
				}
				continue
			}
			if err := p.client(c, name, join(p.at, "spec", list, i)); err != nil {
				return fmt.Errorf("container %s: %w", name, err)
			}
			p.report.Clients = append(p.report.Clients, name)
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("there is no container %s, which shall use pillion", strings.Join(wanted, ", "))
	}
	return nil
}

func (p *plan) client(c map[string]any, name string, at []any) error {
	missing, err := p.missingVariables(c, name)
	if err != nil {
		return err
	}
	p.prepend(c, "env", at, missing)
	for _, m := range items(c["volumeMounts"]) {
		m := mapping(m)
		switch {
		case text(m["name"]) == PublicVolume && m["readOnly"] == true:
			return nil
		case text(m["name"]) == PublicVolume:
			return fmt.Errorf("it mounts %s without readOnly: true, and could replace what other containers trust", PublicVolume)
		case text(m["mountPath"]) == PublicDir:
			return fmt.Errorf("it mounts something else at %s", PublicDir)
		}
	}
	p.prepend(c, "volumeMounts", at, []any{mount(PublicVolume, PublicDir, true)})
	return nil
}

// missingVariables are those that the container does not set. One that it sets
// itself would win over ours: for the proxy that is an error, since its requests
// would not come through pillion.
func (p *plan) missingVariables(c map[string]any, name string) ([]any, error) {
	var missing []any
	for _, v := range p.variables() {
		own := named(c["env"], v.Name)
		switch {
		case own == nil:
			missing = append(missing, variable(v.Name, v.Value))
		case text(own["value"]) == v.Value:
		case slices.Contains(clientenv.ProxyNames, v.Name) || v.Name == "JAVA_TOOL_OPTIONS":
			return nil, fmt.Errorf("it sets %s itself: remove that, or leave the container out of the annotation %sclients", v.Name, Prefix)
		default:
			p.warnf("container %s keeps its own %s", name, v.Name)
		}
	}
	return missing, nil
}

// variables are those of a client.
func (p *plan) variables() []clientenv.Variable {
	place := clientenv.Place{Proxy: p.proxy(), Publish: PublicDir, NoProxy: clientenv.Direct(p.NoProxy)}
	var all []clientenv.Variable
	for _, name := range clientenv.ProxyNames {
		all = append(all, clientenv.Variable{Name: name, Value: "http://" + clientenv.User(p.Credential) + p.proxy()})
	}
	all = append(all, clientenv.Exceptions(place)...)
	for i := range all {
		all[i].Clients = nil // every container gets these
	}
	table := append(clientenv.Trust(place), clientenv.JavaOptions(place))
	if p.Credential != "" {
		table = append(table, clientenv.Login())
	}
	for _, v := range table {
		if v.For(p.Languages) {
			all = append(all, v)
		}
	}
	// For command lines: ssh -F $PILLION_PUBLISH/ssh_config.
	return append(all, clientenv.Variable{Name: "PILLION_PUBLISH", Value: PublicDir})
}

// prepend adds to the front of a sequence of the mapping at a path, or makes it. In
// front, since of two variables of one name the last counts, and an init
// container can use what started before it.
func (p *plan) prepend(parent map[string]any, key string, at []any, more []any) {
	switch {
	case len(more) == 0:
	case parent[key] == nil:
		p.all = append(p.all, addition{at: at, key: key, value: more})
	default:
		p.all = append(p.all, addition{at: join(at, key), front: more})
	}
}

func (p *plan) volumesToAdd() {
	var missing []any
	for _, v := range p.volumes() {
		if named(p.spec["volumes"], v.(object)[0].value.(string)) == nil {
			missing = append(missing, v)
		}
	}
	p.prepend(p.spec, "volumes", join(p.at, "spec"), missing)
}

// labelsToAdd marks the pod for selectors, and keeps kubectl logs and exec with the
// connector where the sidecar comes first.
func (p *plan) labelsToAdd(labels, notes map[string]string) {
	const kubectlDefault = "kubectl.kubernetes.io/default-container"
	var more object
	add := func(key string, name, value string, there map[string]string) {
		if _, ok := there[name]; ok {
			return
		}
		switch {
		case p.metadata == nil:
			more = append(more, field{key, object{{name, value}}})
		case p.metadata[key] == nil:
			p.all = append(p.all, addition{at: join(p.at, "metadata"), key: key, value: object{{name, value}}})
		default:
			p.all = append(p.all, addition{at: join(p.at, "metadata", key), key: name, value: value})
		}
	}
	add("labels", SidecarKey, "true", labels)
	if p.Plain && !p.there {
		add("annotations", kubectlDefault, text(mapping(items(p.spec["containers"])[0])["name"]), notes)
	}
	if more != nil {
		p.all = append(p.all, addition{at: p.at, key: "metadata", value: more})
	}
}

// sidecarToAdd comes last, since it moves the indexes of other containers.
func (p *plan) sidecarToAdd() {
	if p.there {
		return
	}
	list := "initContainers"
	if p.Plain {
		list = "containers"
	}
	p.prepend(p.spec, list, join(p.at, "spec"), []any{p.sidecar()})
}

func (p *plan) warn(w workload) {
	if p.spec["automountServiceAccountToken"] != false {
		p.report.Notes = append(p.report.Notes, "its containers get a token for the Kubernetes API, which pillion does not need: automountServiceAccountToken: false, unless they do")
	}
	if p.Plain && w.ends(p.spec) {
		p.warnf("the plain sidecar does not end with the others, so that this never completes: a native sidecar does (Kubernetes 1.29 and newer)")
	}
	for _, shared := range []string{"shareProcessNamespace", "hostPID"} {
		if p.spec[shared] == true {
			p.warnf("%s: true lets processes of the sidecar's user, or with SYS_PTRACE, read its memory and with it the credentials", shared)
		}
	}
	if grace, ok := number(p.spec["terminationGracePeriodSeconds"]); ok && p.Plain && grace < 25 {
		p.warnf("terminationGracePeriodSeconds: %d is shorter than pillion's drain (20 s unless configured) and some: its last requests may be cut", grace)
	}
}

// keepApart says when another container mounts what is the sidecar's alone.
func (p *plan) keepApart() error {
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		for _, item := range items(p.spec[list]) {
			c := mapping(item)
			if text(c["name"]) == Container {
				continue
			}
			for _, m := range items(c["volumeMounts"]) {
				if volume := text(mapping(m)["name"]); volume == StateVolume || volume == TokenVolume {
					return fmt.Errorf("container %s mounts %s, which holds keys and is for the sidecar alone: remove that", text(c["name"]), volume)
				}
			}
		}
	}
	return nil
}

func (p *plan) warnf(format string, args ...any) {
	p.report.Warnings = append(p.report.Warnings, fmt.Sprintf(format, args...))
}

// named returns the mapping of a sequence that has the name, nil if none has.
func named(list any, name string) map[string]any {
	for _, item := range items(list) {
		if m := mapping(item); text(m["name"]) == name {
			return m
		}
	}
	return nil
}

// number is that of a decoder of YAML or of JSON.
func number(value any) (int, bool) {
	switch n := value.(type) {
	case int:
		return n, true
	case float64:
		return int(n), true
	}
	return 0, false
}
