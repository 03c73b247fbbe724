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
	at         []any          // the path of the pod
	pod        map[string]any // nil if it has none
}

// workloadsIn returns the workloads of a document: itself, or those of a List.
// Everything else is not ours to look at.
func workloadsIn(document any, at []any) []workload {
	o := mapping(document)
	kind := text(o["kind"])
	if strings.HasSuffix(kind, "List") {
		var all []workload
		for i, item := range items(o["items"]) {
			all = append(all, workloadsIn(item, join(at, "items", i))...)
		}
		return all
	}
	group, _, found := strings.Cut(text(o["apiVersion"]), "/")
	if !found {
		group = "" // v1
	}
	path, ok := templates[group+"/"+kind]
	if !ok {
		return nil
	}
	w := workload{kind, nameOf(mapping(o["metadata"])), join(at, path...), o}
	for _, step := range path {
		w.pod = mapping(w.pod[step.(string)])
	}
	return []workload{w}
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
