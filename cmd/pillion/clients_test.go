package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestClients holds what docs/clients.md says: real clients, as connectors use
// them, reach a tool through pillion with the variables that `pillion env`
// prints and nothing else. Each prints the tool's answer, the tool sees the
// credential, and the client's process (with all that it starts) holds no trace
// of it: not in its environment, its arguments, its memory or its output.
func TestClients(t *testing.T) {
	t.Parallel()
	const credential = "Bearer canary-6b1f0c5d-of-the-client-matrix"
	origin := startOrigin(t, "tool.example")
	sidecar := newSidecar(t, origin)
	sidecar.run(t, strings.TrimPrefix(credential, "Bearer "), "credential", "set", "tool",
		"--url", "https://tool.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)
	goClient := buildProgram(t, "./testdata/clients/goclient")

	const (
		tunnel  = "https://tool.example"
		upgrade = "http://tool.example"
	)
	base := "http://" + sidecar.proxy + "/c/tool"
	python := "/usr/bin/python3" // Debian's, which its package of requests belongs to
	requests := "/usr/lib/python3/dist-packages/requests"
	script := func(name string) string { return filepath.Join("testdata", "clients", name) }
	classes := javaClasses(t, script("HttpClientGet.java"), script("URLConnectionGet.java"))
	rows := []struct {
		client, way string
		url         string
		needs       string
		command     []string // the URL is put behind it
	}{
		{"curl", "CONNECT", tunnel, "curl", []string{"curl", "-sS", "--fail"}},
		{"curl", "plain", upgrade, "curl", []string{"curl", "-sS", "--fail"}},
		{"curl", "base URL", base, "curl", []string{"curl", "-sS", "--fail"}},
		{"curl HTTP/2", "CONNECT", tunnel, "curl", []string{"curl", "-sS", "--fail", "--http2"}},
		{"wget", "CONNECT", tunnel, "wget", []string{"sh", "-c", `exec wget -q -O - --ca-certificate="$SSL_CERT_FILE" "$0"`}},
		{"wget", "plain", upgrade, "wget", []string{"wget", "-q", "-O", "-"}},
		{"wget", "base URL", base, "wget", []string{"wget", "-q", "-O", "-"}},
		{"Python urllib", "CONNECT", tunnel, python, []string{python, script("urllib_get.py")}},
		{"Python urllib", "plain", upgrade, python, []string{python, script("urllib_get.py")}},
		{"Python urllib", "base URL", base, python, []string{python, script("urllib_get.py")}},
		{"Python requests", "CONNECT", tunnel, requests, []string{python, script("requests_get.py")}},
		{"Python requests", "plain", upgrade, requests, []string{python, script("requests_get.py")}},
		{"Python requests", "base URL", base, requests, []string{python, script("requests_get.py")}},
		{"Node http", "plain", upgrade, "node", []string{"node", script("plain.mjs")}},
		{"Node https with an agent", "CONNECT", tunnel, "node", []string{"node", script("connect.mjs")}},
		{"Node fetch", "base URL", base, "node", []string{"node", script("fetch.mjs")}},
		{"Java HttpClient", "CONNECT", tunnel, "javac", []string{"java", "-cp", classes, "HttpClientGet"}},
		{"Java HttpClient", "plain", upgrade, "javac", []string{"java", "-cp", classes, "HttpClientGet"}},
		{"Java HttpClient", "base URL", base, "javac", []string{"java", "-cp", classes, "HttpClientGet"}},
		{"Java HttpURLConnection", "CONNECT", tunnel, "javac", []string{"java", "-cp", classes, "URLConnectionGet"}},
		{"Java HttpURLConnection", "plain", upgrade, "javac", []string{"java", "-cp", classes, "URLConnectionGet"}},
		{"Java HttpURLConnection", "base URL", base, "javac", []string{"java", "-cp", classes, "URLConnectionGet"}},
		{"Go", "CONNECT", tunnel, "go", []string{goClient}},
		{"Go", "plain", upgrade, "go", []string{goClient}},
		{"Go", "base URL", base, "go", []string{goClient}},
	}
	for _, row := range rows {
		t.Run(row.client+" by "+row.way, func(t *testing.T) {
			need(t, row.needs)
			path := fmt.Sprintf("/api/%d?q=1", len(origin.seen()))
			client := sidecar.connector(t, append(row.command, row.url+path))
			client.runAgainst(t, origin, credential)
			if want := answerTo(path); client.stdout.String() != want {
				t.Errorf("client printed %q, the tool answered %q", client.stdout.String(), want)
			}
			arrived := origin.seen()
			if len(arrived) == 0 || arrived[len(arrived)-1].path != path {
				t.Errorf("the tool saw no request for %s", path)
			}
		})
	}

	for way, url := range map[string]string{"CONNECT": tunnel, "plain": upgrade, "base URL": base} {
		t.Run("git by "+way, func(t *testing.T) {
			need(t, "git")
			target := t.TempDir()
			client := sidecar.connector(t, []string{"git", "clone", "-q", url + "/repository.git", target})
			client.runAgainst(t, origin, credential)
			cloned, err := os.ReadFile(filepath.Join(target, "file.txt"))
			if err != nil || string(cloned) != repositoryFile {
				t.Errorf("cloned file: %q, %v; want %q", cloned, err, repositoryFile)
			}
		})
	}

	for _, request := range origin.seen() {
		if request.authorization != credential {
			t.Errorf("%s %s arrived with %d bytes of authorization, not with the credential's", request.method, request.path, len(request.authorization))
		}
	}
}

// javaClasses compiles the clients in Java. Where there is no compiler, their rows say so.
func javaClasses(t *testing.T, sources ...string) string {
	t.Helper()
	classes := t.TempDir()
	compiler, err := exec.LookPath("javac")
	if err != nil {
		return classes
	}
	if output, err := exec.Command(compiler, append([]string{"-d", classes}, sources...)...).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, output)
	}
	return classes
}

// TestClientsChooseByName: two credentials have one instance URL, and the client
// names the one that it wants as the user of its proxy.
func TestClientsChooseByName(t *testing.T) {
	t.Parallel()
	origin := startOrigin(t, "tool.example")
	sidecar := newSidecar(t, origin)
	for _, name := range []string{"left", "right"} {
		sidecar.run(t, "canary-of-"+name, "credential", "set", name,
			"--url", "https://tool.example/", "--authorization", "bearer", "--token-file", "-")
	}
	sidecar.start(t)
	python := "/usr/bin/python3"
	for client, command := range map[string][]string{
		"curl":            {"curl", "-sS", "--fail"},
		"wget":            {"sh", "-c", `exec wget -q -O - --ca-certificate="$SSL_CERT_FILE" "$0"`},
		"git":             {"git", "ls-remote", "-q"},
		"Python urllib":   {python, "testdata/clients/urllib_get.py"},
		"Python requests": {python, "testdata/clients/requests_get.py"},
		"Go":              {buildProgram(t, "./testdata/clients/goclient")},
	} {
		for _, scheme := range []string{"https", "http"} {
			t.Run(client+" by "+scheme, func(t *testing.T) {
				need(t, map[string]string{"wget": "wget", "Python requests": "/usr/lib/python3/dist-packages/requests"}[client], command[0])
				before := len(origin.seen())
				sidecar.connector(t, append(command, scheme+"://tool.example/repository.git"), "--credential", "right").
					runAgainst(t, origin, "Bearer canary-of-right")
				arrived := origin.seen()[before:]
				if len(arrived) == 0 {
					t.Error("the tool saw no request")
				}
				for _, request := range arrived {
					if request.authorization != "Bearer canary-of-right" {
						t.Errorf("%s %s did not arrive with the credential that was chosen", request.method, request.path)
					}
				}
			})
		}
	}
}

// A connectorProcess is a connector: a shell that takes what `pillion env` prints
// into its environment and becomes the client.
type connectorProcess struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
}

func (s *sidecarProcess) connector(t *testing.T, command []string, envFlags ...string) *connectorProcess {
	t.Helper()
	if command[0] == "java" {
		envFlags = append(envFlags, "--java")
	}
	shell := `eval "$("$PILLION" env --config "$CONFIG" --state "$STATE" ` + strings.Join(envFlags, " ") + `)" && exec "$@"`
	// `env -u`: what pillion itself is told by must not reach the client.
	arguments := append([]string{"-c", shell, "sh", "env", "-u", "PILLION", "-u", "CONFIG", "-u", "STATE"}, command...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	client := &connectorProcess{Cmd: exec.CommandContext(ctx, "sh", arguments...)}
	client.Env = append(plainEnvironment(t), "PILLION="+s.binary, "CONFIG="+s.config, "STATE="+s.state)
	client.Stdout, client.Stderr = &client.stdout, &client.stderr
	return client
}

// runAgainst runs the client, and looks through its process while the tool
// holds back the end of its answer.
func (c *connectorProcess) runAgainst(t *testing.T, origin *origin, credential string) {
	t.Helper()
	started := make(chan struct{})
	origin.whileAnswering(func() {
		<-started
		for _, trace := range processTraces(c.Process.Pid, strings.TrimPrefix(credential, "Bearer ")) {
			t.Errorf("the credential stands in %s", trace)
		}
	})
	defer origin.whileAnswering(nil)
	err := c.Start()
	close(started)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", c.Args[len(c.Args)-1], err, c.stdout.String(), c.stderr.String())
	}
	for _, output := range []string{c.stdout.String(), c.stderr.String()} {
		if strings.Contains(output, strings.TrimPrefix(credential, "Bearer ")) {
			t.Error("the client printed the credential")
		}
	}
}

// processTraces tells where a process and its descendants hold secret.
func processTraces(pid int, secret string) []string {
	var traces []string
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	for _, name := range []string{"environ", "cmdline"} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil && bytes.Contains(data, []byte(secret)) {
			traces = append(traces, fmt.Sprintf("%s of process %d", name, pid))
		}
	}
	found, err := memoryHolds(folder, []byte(secret))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		traces = append(traces, fmt.Sprintf("nothing that was read, since the memory of process %d could not be: %v", pid, err))
	}
	if found {
		traces = append(traces, fmt.Sprintf("memory of process %d", pid))
	}
	children, _ := os.ReadFile(filepath.Join(folder, "task", strconv.Itoa(pid), "children"))
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			traces = append(traces, processTraces(pid, secret)...)
		}
	}
	return traces
}

// memoryHolds reads what a process may write (its heaps and stacks).
func memoryHolds(folder string, secret []byte) (bool, error) {
	maps, err := os.ReadFile(filepath.Join(folder, "maps"))
	if err != nil {
		return false, err
	}
	memory, err := os.Open(filepath.Join(folder, "mem"))
	if err != nil {
		return false, err
	}
	defer memory.Close()
	block := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil || !strings.HasPrefix(rights, "rw") {
			continue
		}
		// Blocks overlap by the secret's length, so that none cuts it.
		for at := from; at < to; at += int64(len(block) - len(secret)) {
			n, _ := memory.ReadAt(block[:min(int64(len(block)), to-at)], at)
			if bytes.Contains(block[:n], secret) {
				return true, nil
			}
		}
	}
	return false, nil
}

// TestProcessTraces shows that what TestClients does not find could be found.
func TestProcessTraces(t *testing.T) {
	const secret = "canary-of-a-careless-client"
	// Each answers once it has what it shall have: a process that has only just
	// been started need not show its environment yet.
	for place, command := range map[string]*exec.Cmd{
		"environ": {Path: "/bin/sh", Args: []string{"sh", "-c", "read line; echo; read line"}, Env: []string{"TOKEN=" + secret}},
		"cmdline": {Path: "/bin/sh", Args: []string{"sh", "-c", "read line; echo; read line", secret}},
		"memory":  {Path: "/bin/sh", Args: []string{"sh", "-c", "read token; echo; read line; : $token"}},
	} {
		t.Run(place, func(t *testing.T) {
			input, err := command.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			output, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = input.Write([]byte(secret + "\n"))
			_, _ = output.Read(make([]byte, 1))
			traces := strings.Join(processTraces(command.Process.Pid, secret), ", ")
			if !strings.Contains(traces, place) {
				t.Errorf("found %q, want the %s", traces, place)
			}
			_ = input.Close()
			_ = command.Wait()
		})
	}
}
