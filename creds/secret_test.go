package creds

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const planted = "hunter2-canary"

type holder struct {
	Exported   Secret
	unexported Secret
	Pointer    *Secret
	Slice      []Secret
	Map        map[string]Secret
	Any        any
	nested     struct{ inner []Secret }
}

func newHolder() holder {
	s := NewSecret(planted)
	h := holder{Exported: s, unexported: s, Pointer: &s, Slice: []Secret{s}, Map: map[string]Secret{"k": s}, Any: s}
	h.nested.inner = []Secret{s}
	return h
}

func TestSecretNeverPrints(t *testing.T) {
	h := newHolder()
	s := NewSecret(planted)
	values := map[string]any{"bare": s, "pointer": &s, "holder": h, "pointer to holder": &h, "slice": []Secret{s}, "map": map[string]Secret{"k": s},
		"array": [1]Secret{s}, "credential": &Credential{Password: s, Headers: []Header{{"X", s}}}, "record": Record{Data: s},
		"authorization": Authorization{Headers: []AuthorizationField{{"X", s}}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%e", "%p", "%T", "%08b", "%-20s", "%!"} {
		for name, value := range values {
			if out := fmt.Sprintf(verb, value); leaks(out) {
				t.Errorf("%s of %s prints it: %s", verb, name, out)
			}
		}
		if out := fmt.Sprintf(verb, s); verb != "%p" && verb != "%T" && verb != "%!" && out != redacted {
			t.Errorf("%s prints %q", verb, out)
		}
	}
	if out := fmt.Sprint(s, &s) + fmt.Errorf("x: %v", s).Error() + s.String() + s.GoString(); leaks(out) {
		t.Error(out)
	}
}

// leaks looks for the value as it is, quoted, and in hex.
func leaks(out string) bool {
	lower := strings.ToLower(out)
	return strings.Contains(lower, planted) || strings.Contains(lower, fmt.Sprintf("%x", planted)) || strings.Contains(lower, fmt.Sprintf("% x", planted))
}

func TestSecretRefusesToBeMarshalled(t *testing.T) {
	h, s := newHolder(), NewSecret(planted)
	for name, value := range map[string]any{"bare": s, "pointer": &s, "holder": h, "slice": []Secret{s}, "credential": &Credential{Password: s}} {
		refused := map[string]func() ([]byte, error){
			"json": func() ([]byte, error) { return json.Marshal(value) },
			"xml":  func() ([]byte, error) { return xml.Marshal(value) },
			"yaml": func() ([]byte, error) { return yaml.Marshal(value) },
			"gob": func() ([]byte, error) {
				var b bytes.Buffer
				err := gob.NewEncoder(&b).Encode(value)
				return b.Bytes(), err
			},
		}
		for format, marshal := range refused {
			out, err := marshal()
			if err == nil {
				t.Errorf("%s of %s is marshalled to %s", format, name, out)
			}
			if leaks(string(out)) || err != nil && leaks(err.Error()) {
				t.Errorf("%s of %s leaks: %s, %v", format, name, out, err)
			}
		}
	}
}

func TestSecretInLogs(t *testing.T) {
	h, s := newHolder(), NewSecret(planted)
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		log := slog.New(handler)
		log.Info("x", "bare", s, "pointer", &s, "holder", h, "pointer to holder", &h, "slice", []Secret{s}, "map", h.Map, "group", slog.GroupValue(slog.Any("s", s)))
		log.With("bare", s).Info("y", "credential", &Credential{Password: s})
	}
	if leaks(out.String()) || strings.Count(out.String(), redacted) < 6 {
		t.Error(out.String())
	}
}

func TestSecretInTemplates(t *testing.T) {
	var out bytes.Buffer
	err := template.Must(template.New("").Parse(`<a title="{{.Exported}}">{{.Exported}} {{.Slice}} {{.Map}}</a><script>var x = {{.Exported}}</script>`)).Execute(&out, newHolder())
	if leaks(out.String()) || err != nil && leaks(err.Error()) {
		t.Errorf("%s, %v", &out, err)
	}
}

func TestSecretValue(t *testing.T) {
	a, b := NewSecret("a"), NewSecret("a")
	if a.Reveal() != "a" || !a.Equal(b) || a.Equal(NewSecret("b")) || a.IsZero() {
		t.Error("the value does not come back")
	}
	if !NewSecret("").IsZero() || !(Secret{}).Equal(NewSecret("")) || (Secret{}).Reveal() != "" || (Secret{}).String() != redacted {
		t.Error("the zero Secret is not the empty one")
	}
	if f := a.Fingerprint(); f != b.Fingerprint() || len(f) != 12 || f == NewSecret("b").Fingerprint() {
		t.Errorf("fingerprint %q", f)
	}
}
