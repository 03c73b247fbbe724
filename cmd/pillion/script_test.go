package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
)

// scriptCommands are what the scripts know beside testscript's own commands.
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"port":   scriptPort,
		"expand": scriptExpand,
	}
}

// scriptPort puts a free port into a variable: port NAME.
func scriptPort(ts *testscript.TestScript, _ bool, args []string) {
	_, port, _ := net.SplitHostPort(credstest.FreeAddress(ts))
	ts.Setenv(args[0], port)
}

// scriptExpand replaces $VARIABLES in files of the script.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// patience bounds every waiting of a script.
const patience = 30 * time.Second

// until polls done; what it waits for is another process.
func until(what string, done func() bool) {
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			fatalf("no %s after %s", what, patience)
		}
	}
}

func fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "ask: "+format+"\n", args...)
	os.Exit(1)
}

func running() (status, error) {
	return newAdminClient(filepath.Join(os.Getenv("PILLION_STATE"), "admin.sock")).status(context.Background())
}

// askMain is the program `ask` of the scripts: it waits for something, or asks a
// running pillion.
func askMain() {
	switch args := os.Args[1:]; args[0] {
	case "ready": // until pillion run is
		until("readiness", func() bool { s, err := running(); return err == nil && s.Ready })
	case "dial": // until ADDRESS serves TLS: its CA is written then
		until("listener", func() bool {
			c, err := tls.Dial("tcp", args[1], &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	case "contains": // until FILE contains TEXT
		until(strconv.Quote(args[2])+" in "+args[1], func() bool {
			data, err := os.ReadFile(args[1])
			return err == nil && bytes.Contains(data, []byte(args[2]))
		})
	case "in-flight": // until so many requests are under way
		until("requests in flight", func() bool { s, err := running(); return err == nil && strconv.Itoa(s.InFlight) == args[1] })
	case "signal": // TERM or HUP to the running pillion
		s, err := running()
		if err == nil {
			err = syscall.Kill(s.PID, map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}[args[1]])
		}
		if err != nil {
			fatalf("%v", err)
		}
	case "get": // a path of the metrics listener, with METHOD as third argument
		askMetrics(append(args, http.MethodGet)[1], append(args, http.MethodGet)[2])
	case "hold": // a request through the proxy whose body ends when FILE is there
		askThroughProxy(args[1], &heldBody{file: args[2]})
	case "fetch":
		askThroughProxy(args[1], nil)
	case "logged": // FILE URL TEXT: fetch URL until FILE contains TEXT
		until(strconv.Quote(args[3])+" in "+args[1], func() bool {
			data, err := os.ReadFile(args[1])
			if err == nil && bytes.Contains(data, []byte(args[3])) {
				return true
			}
			askThroughProxy(args[2], nil)
			return false
		})
	case "newer-store": // make the store one of a newer version
		rewriteStore(func(text []byte) []byte {
			return bytes.Replace(text, []byte(`"version":"1.0"`), []byte(`"version":"2.0"`), 1)
		})
	default:
		fatalf("what is %s?", args[0])
	}
}

func askMetrics(path, method string) {
	s, err := running()
	if err != nil {
		fatalf("%v", err)
	}
	request, err := http.NewRequest(method, "http://"+s.Listeners["metrics"]+path, nil)
	if err != nil {
		fatalf("%v", err)
	}
	request.Host = "any.host.example"
	response, err := (&http.Transport{}).RoundTrip(request)
	if err != nil {
		fatalf("%v", err)
	}
	fmt.Println(response.Status)
	_ = response.Header.Write(os.Stdout)
	_, _ = io.Copy(os.Stdout, response.Body)
}

// heldBody is empty, and does not end before its file is there.
type heldBody struct{ file string }

func (b *heldBody) Read([]byte) (int, error) {
	until("file "+b.file, func() bool { _, err := os.Stat(b.file); return err == nil })
	return 0, io.EOF
}

func askThroughProxy(url string, body io.Reader) {
	c, err := parseConfig("", nil, os.Getenv, "")
	if err != nil {
		fatalf("%v", err)
	}
	s, err := running()
	if err != nil {
		fatalf("%v", err)
	}
	client, err := proxyClient(c, proxyPlace{s.Listeners["proxy"], s.Publish}, "")
	if err != nil {
		fatalf("%v", err)
	}
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		fatalf("%v", err)
	}
	response, err := client.RoundTrip(request)
	if err != nil {
		fatalf("%v", err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		fatalf("%v", err)
	}
	fmt.Printf("%s, close %t\n%s", response.Status, response.Close, text)
}

// rewriteStore does what pillion never does: it edits the store by hand.
func rewriteStore(edit func([]byte) []byte) {
	state := os.Getenv("PILLION_STATE")
	key, err := os.ReadFile(filepath.Join(state, "key.txt"))
	if err != nil {
		fatalf("%v", err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		fatalf("%v", err)
	}
	file := filepath.Join(state, "store.age")
	sealed, err := os.ReadFile(file)
	if err != nil {
		fatalf("%v", err)
	}
	plain, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if err != nil {
		fatalf("%v", err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		fatalf("%v", err)
	}
	edited := edit(text)
	if bytes.Equal(edited, text) {
		fatalf("nothing was edited")
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, identities[0].(*age.X25519Identity).Recipient())
	if err != nil {
		fatalf("%v", err)
	}
	_, _ = w.Write(edited)
	if err := errors.Join(w.Close(), os.WriteFile(file, out.Bytes(), 0o600)); err != nil {
		fatalf("%v", err)
	}
}

// writerMain is the program `writer`: it changes credentials until it is killed,
// and prints a line for every change that was confirmed.
//
//	writer FIRST    counts from FIRST; the value written is the number
func writerMain() {
	state := os.Getenv("PILLION_STATE")
	first, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fatalf("%v", err)
	}
	store, err := filestore.Open(filepath.Join(state, "store.age"), filepath.Join(state, "key.txt"))
	if err != nil {
		fatalf("%v", err)
	}
	ctx := context.Background()
	out := bufio.NewWriter(os.Stdout)
	for n := first; ; n++ {
		name := fmt.Sprintf("c%d", n%writtenCredentials)
		c, _, err := creds.LoadPublic(ctx, store, name)
		if errors.Is(err, creds.ErrNotFound) {
			c, err = &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: "https://" + name + ".example/", Authorization: creds.Bearer}, nil
		}
		if err != nil {
			fatalf("%v", err)
		}
		c.Token = creds.NewSecret(strconv.Itoa(n))
		if err := creds.Save(ctx, store, c); err != nil {
			fatalf("%v", err)
		}
		if err := json.NewEncoder(out).Encode(n); err != nil {
			fatalf("%v", err)
		}
		if err := out.Flush(); err != nil {
			os.Exit(0)
		}
	}
}

const writtenCredentials = 20

// lines sends the numbers that a writer prints.
func lines(r io.Reader) <-chan int {
	ch := make(chan int)
	go func() {
		defer close(ch)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			n, err := strconv.Atoi(strings.TrimSpace(scanner.Text()))
			if err != nil {
				return
			}
			ch <- n
		}
	}()
	return ch
}
