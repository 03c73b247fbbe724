package main

import (
	"os"
	"strings"
	"testing"

	"pillion/creds"
)

// exampleSecret stands for the files that the example names.
func exampleSecret(file string) (creds.Secret, error) {
	if strings.HasSuffix(file, "-login.json") {
		return creds.NewSecret(`{"form": {"username": "{{username}}", "password": "{{password}}"}}`), nil
	}
	return creds.NewSecret("from a file"), nil
}

// TestExampleCredentials: the shipped file has one of every type, and is good.
func TestExampleCredentials(t *testing.T) {
	const file = "../../deploy/credentials.example.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseImport(file, data, exampleSecret)
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
