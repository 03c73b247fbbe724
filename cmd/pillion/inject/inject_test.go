package inject

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write testdata/out anew")

func testSettings() Settings {
	s := Defaults()
	s.Image = "registry.example/pillion:1"
	return s
}

// shapes are the workloads of testdata/in, which testdata/out has with pillion.
func shapes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/in/*")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d shapes of workloads, %v", len(files), err)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestManifest(t *testing.T) {
	for _, file := range shapes(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			in := read(t, file)
			got, _, err := Manifest(in, testSettings())
			if err != nil {
				t.Fatal(err)
			}
			want := filepath.Join("testdata/out", filepath.Base(file))
			if *update {
				if err := os.WriteFile(want, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, read(t, want)) {
				t.Errorf("this is not %s (go test -run TestManifest -update writes it):\n%s", want, got)
			}
			onlyAdds(t, in, got)
			again, reports, err := Manifest(got, testSettings())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, got) {
				t.Errorf("a second time it changes again:\n%s", again)
			}
			for _, r := range reports {
				if r.Added {
					t.Errorf("a second time, %s %s is said to be added to", r.Kind, r.Name)
				}
			}
		})
	}
}

// onlyAdds fails unless what was there is all still there, in its order: every
// character but those that were put between.
func onlyAdds(t *testing.T, in, out []byte) {
	t.Helper()
	rest := out
	for line := range bytes.SplitAfterSeq(in, []byte("\n")) {
		for _, c := range line {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				t.Fatalf("this is not in what came out: %s", line)
			}
			rest = rest[i+1:]
		}
	}
	for line := range bytes.SplitSeq(in, []byte("\n")) {
		if comment := bytes.IndexByte(line, '#'); comment >= 0 && !bytes.Contains(out, line[comment:]) {
			t.Errorf("the comment %s is gone", line[comment:])
		}
	}
}

// The same with the line ends of Windows.
func TestManifestKeepsLineEnds(t *testing.T) {
	in := bytes.ReplaceAll(read(t, "testdata/in/deployment.yaml"), []byte("\n"), []byte("\r\n"))
	out, _, err := Manifest(in, testSettings())
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.ReplaceAll(read(t, "testdata/out/deployment.yaml"), []byte("\n"), []byte("\r\n")); !bytes.Equal(out, want) {
		t.Errorf("line ends differ:\n%q", out)
	}
}

// TestPodIsTheSame: the webhook's patch of a pod makes what the manifest of that pod
// becomes, and has no operation but "add".
func TestPodIsTheSame(t *testing.T) {
	for _, file := range shapes(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			for _, d := range decode(t, read(t, file)) {
				for _, w := range workloadsIn(d.value, nil) {
					pod := w.pod
					pod["apiVersion"], pod["kind"] = "v1", "Pod"
					object := jsonOf(pod)
					patch, _, err := Pod(object, testSettings())
					if err != nil {
						t.Fatal(err)
					}
					out, _, err := Manifest(object, testSettings())
					if err != nil {
						t.Fatal(err)
					}
					got, want := patched(t, object, patch), decode(t, out)[0].value
					if !reflect.DeepEqual(normal(t, got), normal(t, want)) {
						t.Errorf("%s %s: the patch makes\n%s\nthe manifest is\n%s", w.kind, w.name, jsonOf(got), out)
					}
				}
			}
		})
	}
}

func decode(t *testing.T, text []byte) []document {
	t.Helper()
	all, err := decodeAll(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// normal makes the numbers of two decoders alike.
func normal(t *testing.T, value any) (out any) {
	t.Helper()
	if err := json.Unmarshal(jsonOf(value), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// patched applies what of RFC 6902 we use, written anew from its text.
func patched(t *testing.T, object, patch []byte) any {
	t.Helper()
	var operations []map[string]any
	var root any
	if err := json.Unmarshal(patch, &operations); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(object, &root); err != nil {
		t.Fatal(err)
	}
	for _, o := range operations {
		if o["op"] != "add" {
			t.Fatalf("the patch has an operation %v", o["op"])
		}
		steps := strings.Split(o["path"].(string), "/")[1:]
		for i := range steps {
			steps[i] = strings.ReplaceAll(strings.ReplaceAll(steps[i], "~1", "/"), "~0", "~")
		}
		root = add(t, root, steps, o["value"])
	}
	return root
}

func add(t *testing.T, node any, steps []string, value any) any {
	t.Helper()
	switch n := node.(type) {
	case map[string]any:
		if len(steps) == 1 {
			if n[steps[0]] != nil {
				t.Fatalf("the patch replaces %s", steps[0])
			}
			n[steps[0]] = value
			return n
		}
		n[steps[0]] = add(t, n[steps[0]], steps[1:], value)
		return n
	case []any:
		var at int
		if err := json.Unmarshal([]byte(steps[0]), &at); err != nil || at > len(n) {
			t.Fatalf("the patch has the index %s of %d", steps[0], len(n))
		}
		if len(steps) == 1 {
			return append(n[:at:at], append([]any{value}, n[at:]...)...)
		}
		n[at] = add(t, n[at], steps[1:], value)
		return n
	}
	t.Fatalf("the patch goes to %v of nothing", steps)
	return nil
}

// TestStateIsTheSidecarsAlone: in everything that comes out, the volumes with keys
// are mounted by the sidecar and by nobody else, the published folder is another
// volume, and everybody else may only read that.
func TestStateIsTheSidecarsAlone(t *testing.T) {
	seen := 0
	for _, file := range shapes(t) {
		for _, d := range decode(t, read(t, filepath.Join("testdata/out", filepath.Base(file)))) {
			for _, w := range workloadsIn(d.value, nil) {
				spec := mapping(w.pod["spec"])
				for _, c := range append(items(spec["initContainers"]), items(spec["containers"])...) {
					seen += mountsOf(t, mapping(c))
				}
			}
		}
	}
	if seen < 12 {
		t.Errorf("only %d sidecars were looked at", seen)
	}
}

func mountsOf(t *testing.T, c map[string]any) (sidecars int) {
	t.Helper()
	ours := c["name"] == Container
	mounted := map[string]bool{}
	for _, m := range items(c["volumeMounts"]) {
		m := mapping(m)
		name := text(m["name"])
		mounted[name] = true
		if !ours && (name == StateVolume || name == TokenVolume || name == ConfigVolume) {
			t.Errorf("%v mounts %s", c["name"], name)
		}
		if !ours && name == PublicVolume && m["readOnly"] != true {
			t.Errorf("%v may write to %s", c["name"], name)
		}
	}
	if !ours {
		return 0
	}
	if !mounted[StateVolume] || !mounted[TokenVolume] || !mounted[PublicVolume] {
		t.Errorf("the sidecar mounts %v", mounted)
	}
	return 1
}

// FuzzManifest: whatever the text, the answer is an error or a manifest to which the
// second time adds nothing, and that keeps every value that was there.
func FuzzManifest(f *testing.F) {
	seeds, err := filepath.Glob("testdata/in/*")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range seeds {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: app\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, _, err := Manifest(in, testSettings())
		if err != nil {
			return
		}
		again, _, err := Manifest(out, testSettings())
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("the second time: %v\n%s", err, again)
		}
		if len(out) < len(in) {
			t.Error("something is gone")
		}
	})
}

// Everything is decoded by the decoder of the program's own configuration too.
func TestOutIsYAML(t *testing.T) {
	for _, file := range shapes(t) {
		decoder := yaml.NewDecoder(bytes.NewReader(read(t, filepath.Join("testdata/out", filepath.Base(file)))))
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
