package creds

import (
	"encoding/json"
	"reflect"
	"testing"
)

// The table of RFC 7396, appendix A.
var mergeTable = [][3]string{
	{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
	{`{"a":"b"}`, `{"a":null}`, `{}`},
	{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
	{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
	{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
	{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`["a","b"]`, `["c","d"]`, `["c","d"]`},
	{`{"a":"b"}`, `["c"]`, `["c"]`},
	{`{"a":"foo"}`, `null`, `null`},
	{`{"a":"foo"}`, `"bar"`, `"bar"`},
	{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
	{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
	{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	// Ours: no record yet, and digits that a float64 has no room for.
	{``, `{"a":{"b":null}}`, `{"a":{}}`},
	{`{"n":12345678901234567890}`, `{"f":1.10}`, `{"f":1.10,"n":12345678901234567890}`},
}

func TestMergePatchTable(t *testing.T) {
	for _, row := range mergeTable {
		if got, err := MergePatch(row[0], row[1]); err != nil || got != row[2] {
			t.Errorf("%s patched by %s is %s, want %s (%v)", row[0], row[1], got, row[2], err)
		}
	}
}

// What RFC 7396 promises of any target and patch.
func FuzzMergePatch(f *testing.F) {
	for _, row := range mergeTable {
		f.Add(row[0], row[1])
	}
	f.Fuzz(func(t *testing.T, target, patch string) {
		if target != "" && !json.Valid([]byte(target)) || !json.Valid([]byte(patch)) {
			if _, err := MergePatch(target, patch); err == nil && !json.Valid([]byte(patch)) && !startsWithValue(patch) {
				t.Fatal("a patch that is not JSON is applied")
			}
			return
		}
		once := mustMerge(t, target, patch)
		if twice := mustMerge(t, once, patch); twice != once {
			t.Errorf("a patch applied twice is not the patch applied once: %s, %s", twice, once)
		}
		by, isObject := value(t, patch).(map[string]any)
		if !isObject {
			if !reflect.DeepEqual(value(t, once), value(t, patch)) {
				t.Errorf("%s does not replace, but gives %s", patch, once)
			}
			return
		}
		got, ok := value(t, once).(map[string]any)
		if !ok {
			t.Fatalf("an object gives %s", once)
		}
		var was map[string]any
		if target != "" {
			was, _ = value(t, target).(map[string]any)
		}
		checkMembers(t, was, by, got)
	})
}

// startsWithValue: a decoder reads one value and leaves what follows; stores ask
// object first, which does not.
func startsWithValue(text string) bool {
	_, err := decodeValue(text)
	return err == nil
}

func checkMembers(t *testing.T, was, by, got map[string]any) {
	t.Helper()
	for name, v := range got {
		_, patched := by[name]
		if old, there := was[name]; !patched && (!there || !reflect.DeepEqual(old, v)) {
			t.Errorf("member %q changed without being in the patch", name)
		}
	}
	for name, v := range was {
		if _, patched := by[name]; !patched && !reflect.DeepEqual(got[name], v) {
			t.Errorf("member %q is lost", name)
		}
	}
	for name, v := range by {
		left, there := got[name]
		_, isObject := v.(map[string]any)
		switch {
		case v == nil && there:
			t.Errorf("member %q is not removed", name)
		case v != nil && !isObject && !reflect.DeepEqual(left, v):
			t.Errorf("member %q is not set", name)
		case isObject && !there:
			t.Errorf("member %q is not merged", name)
		}
	}
}

func mustMerge(t *testing.T, target, patch string) string {
	t.Helper()
	merged, err := MergePatch(target, patch)
	if err != nil {
		t.Fatal(err)
	}
	return merged
}

func value(t *testing.T, text string) any {
	t.Helper()
	v, err := decodeValue(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
