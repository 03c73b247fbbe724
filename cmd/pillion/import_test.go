package main

import (
	"os"
	"testing"

	"pillion/creds"
)

// TestExampleCredentials: the shipped file has one of every type, and is good.
func TestExampleCredentials(t *testing.T) {
	const file = "../../deploy/credentials.example.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseImport(file, data, func(string) (creds.Secret, error) { return creds.NewSecret("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	seen := map[creds.AuthorizationType]bool{}
	for _, c := range all {
		seen[c.Authorization] = true
		if len(c.Headers) > 0 {
			seen["headers"] = true
		}
	}
	for _, kind := range append(creds.AuthorizationTypes(creds.HTTPS), "headers") {
		if !seen[kind] {
			t.Errorf("the example has none of type %s", kind)
		}
	}
	for _, kind := range creds.AuthorizationTypes(creds.SFTP) {
		if !seen[kind] {
			t.Errorf("the example has none of type %s", kind)
		}
	}
}
