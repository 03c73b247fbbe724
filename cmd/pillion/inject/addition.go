package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// addition is one thing that is added: a key to a mapping that does not have it,
// or items to the front of a sequence. Nothing is ever changed or taken away.
type addition struct {
	at    []any // the parent: keys (string) and indexes (int)
	key   string
	value any   // of key
	front []any // where key is ""
}

// object is a mapping whose keys keep their order, in YAML and in JSON.
type object []field

type field struct {
	key   string
	value any // string, int, bool, object or []any
}

// MarshalJSON writes the keys in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(jsonOf(f.key))
		out.WriteByte(':')
		out.Write(jsonOf(f.value))
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// jsonOf cannot fail for what additions are made of.
func jsonOf(value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // it stands in YAML
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(out.Bytes())
}

// plain returns value as a decoder would give it.
func plain(value any) any {
	switch v := value.(type) {
	case object:
		m := map[string]any{}
		for _, f := range v {
			m[f.key] = plain(f.value)
		}
		return m
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = plain(v[i])
		}
		return items
	}
	return value
}

// apply returns root with the addition made; what is shared is copied first.
func (a addition) apply(root any) (any, error) {
	return a.within(root, a.at)
}

func (a addition) within(node any, path []any) (any, error) {
	if len(path) == 0 {
		return a.here(node)
	}
	switch step := path[0].(type) {
	case string:
		m, ok := node.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: no mapping", pointer(a.at))
		}
		child, err := a.within(m[step], path[1:])
		if err != nil {
			return nil, err
		}
		m = maps.Clone(m)
		m[step] = child
		return m, nil
	case int:
		items, ok := node.([]any)
		if !ok || step >= len(items) {
			return nil, fmt.Errorf("%s: no sequence", pointer(a.at))
		}
		child, err := a.within(items[step], path[1:])
		if err != nil {
			return nil, err
		}
		items = slices.Clone(items)
		items[step] = child
		return items, nil
	}
	return nil, fmt.Errorf("%s: no path", pointer(a.at))
}

func (a addition) here(node any) (any, error) {
	if a.key == "" {
		items, ok := node.([]any)
		if !ok {
			return nil, fmt.Errorf("%s: no sequence", pointer(a.at))
		}
		return append(slices.Clone(plain(a.front).([]any)), items...), nil
	}
	m, ok := node.(map[string]any)
	if !ok || m[a.key] != nil {
		return nil, fmt.Errorf("%s: not a mapping without %s", pointer(a.at), a.key)
	}
	m = maps.Clone(m)
	m[a.key] = plain(a.value)
	return m, nil
}

// patchOperation is one of RFC 6902.
type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patchOf returns the additions as a JSON patch, which has nothing but "add".
func patchOf(all []addition) []byte {
	operations := []patchOperation{}
	for _, a := range all {
		if a.key != "" {
			operations = append(operations, patchOperation{"add", pointer(append(slices.Clone(a.at), a.key)), a.value})
		}
		for i, item := range a.front {
			operations = append(operations, patchOperation{"add", pointer(append(slices.Clone(a.at), i)), item})
		}
	}
	return jsonOf(operations)
}

// pointer writes a path as RFC 6901 does.
func pointer(path []any) string {
	var out strings.Builder
	for _, step := range path {
		out.WriteByte('/')
		switch s := step.(type) {
		case string:
			out.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(s))
		case int:
			out.WriteString(strconv.Itoa(s))
		}
	}
	return out.String()
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
