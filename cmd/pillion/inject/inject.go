// Package inject adds pillion to a pod: the sidecar, its volumes, and to the other
// containers the variables that make them use it.
//
//	out, reports, err := inject.Manifest(in, settings)   // pillion inject
//	patch, report, err := inject.Pod(object, settings)   // pillion webhook
//
// It only adds. What it does not know (a field of a newer Kubernetes, a comment, an
// order) stays as it is, since text is inserted and nothing is written anew: a
// library of Kubernetes' types would drop what its version does not have. Twice is
// the same as once, byte for byte.
//
// It does not ask the cluster, and decides nothing by the workload's name.
package inject

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Manifest returns a manifest (YAML documents or JSON, lists among them) with
// pillion in every workload, and what was done to each. An error names the
// workload, or the line.
func Manifest(text []byte, s Settings) ([]byte, []Report, error) {
	if err := s.Check(); err != nil {
		return nil, nil, err
	}
	documents, err := decodeAll(text)
	if err != nil {
		return nil, nil, err
	}
	if len(documents) == 0 {
		return nil, nil, errors.New("there is nothing in the manifest")
	}
	var reports []Report
	var insertions []insertion
	editor := newEditor(text)
	wanted := make([]any, len(documents))
	for i, d := range documents {
		wanted[i] = d.value
		for _, w := range workloadsIn(d.value, nil) {
			p, err := planFor(w, s)
			if err != nil {
				return nil, nil, fmt.Errorf("%s %s: %w", w.kind, w.name, err)
			}
			reports = append(reports, p.report)
			for _, a := range p.all {
				if wanted[i], err = a.apply(wanted[i]); err != nil {
					return nil, nil, fmt.Errorf("%s %s: %w", w.kind, w.name, err)
				}
			}
			// Additions move indexes, the sidecar last of all: those of the text are as before.
			found, err := editor.insertions(d.node, p.all)
			if err != nil {
				return nil, nil, fmt.Errorf("%s %s: %w", w.kind, w.name, err)
			}
			insertions = append(insertions, found...)
		}
	}
	out := insertAll(text, insertions)
	return out, reports, compare(out, wanted)
}

// Pod returns the JSON patch (RFC 6902) for a pod, as the API server gives it to a
// webhook.
func Pod(object []byte, s Settings) (patch []byte, report Report, err error) {
	var pod map[string]any
	if err := json.Unmarshal(object, &pod); err != nil {
		return nil, report, errors.New("the object is no JSON")
	}
	if err := s.Check(); err != nil {
		return nil, report, err
	}
	p, err := planFor(workload{kind: "Pod", name: nameOf(mapping(pod["metadata"])), pod: pod}, s)
	if err != nil {
		return nil, p.report, err
	}
	return patchOf(p.all), p.report, nil
}

// document is one of a stream: its nodes, which know where they stand, and its value.
type document struct {
	node  *yaml.Node
	value any
}

func decodeAll(text []byte) ([]document, error) {
	var all []document
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var d document
		d.node = &yaml.Node{}
		err := decoder.Decode(d.node)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the manifest: %w", err)
		}
		if err := d.node.Decode(&d.value); err != nil {
			return nil, fmt.Errorf("reading the manifest: %s", withoutValues(err))
		}
		all = append(all, d)
	}
}

var lineNumber = regexp.MustCompile(`line [0-9]+`)

// withoutValues keeps of the decoder's error what says where: there may be Secrets in
// the manifest.
func withoutValues(err error) string {
	where := cmp.Or(lineNumber.FindString(err.Error()), "a line that the decoder does not tell")
	switch {
	case strings.Contains(err.Error(), "already defined"):
		return where + ": a key stands there a second time"
	case strings.Contains(err.Error(), "invalid map key"):
		return "a key is no text: is it a template that is still to be filled in?"
	}
	return where + ": a value cannot be read"
}

// compare holds what was written against what was meant: text with anchors may put
// an insertion into other places as well.
func compare(out []byte, wanted []any) error {
	documents, err := decodeAll(out)
	if err == nil && len(documents) == len(wanted) {
		same := true
		for i := range documents {
			same = same && reflect.DeepEqual(documents[i].value, wanted[i])
		}
		if same {
			return nil
		}
	}
	return errors.New("the manifest cannot be added to as it is written (anchors, an unusual layout): give it as kubectl writes it, by kubectl create --dry-run=client -o yaml -f FILE")
}
