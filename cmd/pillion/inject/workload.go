package inject

import "strings"

// templates tells where the pod of each kind of workload stands, by group and kind.
var templates = map[string][]any{
	"/Pod":                   {},
	"/PodTemplate":           {"template"},
	"/ReplicationController": {"spec", "template"},
	"apps/DaemonSet":         {"spec", "template"},
	"apps/Deployment":        {"spec", "template"},
	"apps/ReplicaSet":        {"spec", "template"},
	"apps/StatefulSet":       {"spec", "template"},
	"batch/Job":              {"spec", "template"},
	"batch/CronJob":          {"spec", "jobTemplate", "spec", "template"},
}

// workload is a pod, or what makes pods, and where it stands in a document.
type workload struct {
	kind, name string
	object     map[string]any
	template   []any // the path of the pod
}

// workloadsIn returns the workloads of a document: itself, or those of a List.
// Everything else is not ours to look at.
func workloadsIn(document any, at []any) []workload {
	o, ok := document.(map[string]any)
	if !ok {
		return nil
	}
	version, kind := text(o["apiVersion"]), text(o["kind"])
	if items, ok := o["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		var all []workload
		for i, item := range items {
			all = append(all, workloadsIn(item, join(at, "items", i))...)
		}
		return all
	}
	group, _, found := strings.Cut(version, "/")
	if !found {
		group = ""
	}
	path, ok := templates[group+"/"+kind]
	if !ok {
		return nil
	}
	return []workload{{kind, nameOf(mapping(o["metadata"])), o, join(at, path...)}}
}

func nameOf(metadata map[string]any) string {
	if name := text(metadata["name"]); name != "" {
		return name
	}
	if prefix := text(metadata["generateName"]); prefix != "" {
		return prefix + "..."
	}
	return "without a name"
}

// pod returns the pod of the workload, nil if it has none.
func (w workload) pod() map[string]any {
	pod := w.object
	for _, step := range templates[w.key()] {
		pod = mapping(pod[step.(string)])
	}
	return pod
}

func (w workload) key() string {
	group, _, found := strings.Cut(text(w.object["apiVersion"]), "/")
	if !found {
		group = ""
	}
	return group + "/" + w.kind
}

// ends reports whether the pods are expected to end by themselves.
func (w workload) ends(spec map[string]any) bool {
	policy := text(spec["restartPolicy"])
	return w.kind == "Job" || w.kind == "CronJob" || policy == "Never" || policy == "OnFailure"
}

// text, mapping and items look at decoded documents; of another kind is nothing.
func text(value any) string {
	s, _ := value.(string)
	return s
}

func mapping(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func items(value any) []any {
	s, _ := value.([]any)
	return s
}

// texts is a mapping to strings: labels, annotations.
func texts(value any) map[string]string {
	m := map[string]string{}
	for k, v := range mapping(value) {
		m[k] = text(v)
	}
	return m
}

func join(path []any, steps ...any) []any {
	return append(append([]any{}, path...), steps...)
}
