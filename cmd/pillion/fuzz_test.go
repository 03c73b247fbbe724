package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"pillion/creds"
)

// FuzzConfig: no input panics, what is accepted is accepted again, and no error
// repeats the value of a key whose name speaks of a secret or a token.
func FuzzConfig(f *testing.F) {
	seeds := 0
	for _, pattern := range []string{"testdata/config/*.yaml", "../../deploy/config.example.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			seeds++
		}
	}
	if seeds < 20 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Add([]byte("proxy: {client_token_file: [hunter2-hunter2]}"))
	f.Add([]byte("store: {secret_key: hunter2-hunter2, token: *hunter2}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parse := func(data []byte) (*config, error) { return parseConfig("fuzz.yaml", data, noEnvironment, "") }
		c, err := parse(data)
		if (c == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err == nil {
			return
		}
		if _, ok := errors.AsType[*problemsError](err); !ok {
			t.Fatalf("%T: %v", err, err)
		}
		noSecretIn(t, data, err.Error(), func(data []byte) string {
			if _, err := parse(data); err != nil {
				return err.Error()
			}
			return ""
		})
	})
}

// FuzzImport is the same for import files, whose secrets stand in them.
func FuzzImport(f *testing.F) {
	example, err := os.ReadFile("../../deploy/credentials.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	// Files are not read: a name that the fuzzer finds could be a pipe.
	fixed := func(file string) (creds.Secret, error) {
		if strings.Contains(file, "missing") {
			return creds.Secret{}, os.ErrNotExist
		}
		return exampleSecret(file)
	}
	f.Add(example)
	f.Add([]byte("credentials: [{name: a, url: 'https://a.example/', authorization: bearer, token: canary-1234}]"))
	f.Add([]byte("credentials: [{name: a, url: b, authorization: basic, client_secret: \"canary\\n1234\", token: [canary-1234]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseImport("fuzz.yaml", data, fixed)
		if err == nil {
			for _, c := range all {
				if c.Validate() != nil {
					t.Fatalf("%s was let through: %v", c.Name, c.Validate())
				}
			}
			_ = creds.NewTable(all)
			return
		}
		noSecretIn(t, data, err.Error(), func(data []byte) string {
			if _, err := parseImport("fuzz.yaml", data, fixed); err != nil {
				return err.Error()
			}
			return ""
		})
	})
}

// noSecretIn fails when message holds the value of a key that speaks of a secret
// or a token, and no longer holds it once the value is another.
func noSecretIn(t *testing.T, data []byte, message string, again func([]byte) string) {
	t.Helper()
	var root yaml.Node
	if yaml.Unmarshal(data, &root) != nil {
		return
	}
	for _, value := range secretValues(&root, 0) {
		if len(value) < 8 || !strings.Contains(message, value) || strings.Count(string(data), value) != 1 {
			continue
		}
		other := strings.Repeat("q", len(value))
		if !strings.Contains(again([]byte(strings.Replace(string(data), value, other, 1))), value) {
			t.Errorf("the error repeats %q:\n%s", value, message)
		}
	}
}

func secretValues(n *yaml.Node, depth int) []string {
	if depth > 50 || n.Kind == yaml.AliasNode {
		return nil
	}
	var values []string
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := strings.ToLower(n.Content[i].Value)
			if strings.Contains(key, "secret") || strings.Contains(key, "token") {
				values = append(values, scalars(n.Content[i+1], depth)...)
			}
		}
	}
	for _, child := range n.Content {
		values = append(values, secretValues(child, depth+1)...)
	}
	return values
}

func scalars(n *yaml.Node, depth int) []string {
	if depth > 50 || n.Kind == yaml.AliasNode {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var values []string
	for _, child := range n.Content {
		values = append(values, scalars(child, depth+1)...)
	}
	return values
}
