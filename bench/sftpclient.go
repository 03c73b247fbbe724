package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// endpoint is where a client connects to, and as whom. Everybody is offered the same key; pillion does not ask for it.
type endpoint struct{ Addr, User string }

// openSSH is the command line of a real client that runs one command of sftp, without anything that the machine's own configuration says.
func openSSH(to endpoint, key, batch string) []string {
	host, port, _ := net.SplitHostPort(to.Addr)
	return []string{"sftp", "-q", "-b", batch, "-P", port, "-i", key, "-F", "none", "-c", sshCipher, "-o", "KexAlgorithms=" + sshExchange, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", to.User + "@" + host}
}

// runAll runs commands at once, and returns what the first that failed says.
func runAll(ctx context.Context, commands [][]string) error {
	failures := make([]error, len(commands))
	var wg sync.WaitGroup
	for i, args := range commands {
		wg.Go(func() {
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Env = withoutProxies(os.Environ())
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is ours alone
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			if out, err := cmd.CombinedOutput(); err != nil {
				failures[i] = fmt.Errorf("%s: %w: %s", args[0], err, bytes.TrimSpace(out))
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(failures...)
}

// smallFiles is what the client of many small files is told.
type smallFiles struct {
	To          endpoint
	Key         string
	Dir         string
	Files, Size int
	Sessions    int // requests at a time, over one connection
}

// name and content of the i-th file: no two are alike, so that none can be taken for another.
func (s smallFiles) name(i int) string { return filepath.Join(s.Dir, fmt.Sprintf("file-%05d", i)) }

func (s smallFiles) content(i int) []byte {
	content := bytes.Clone(filler[:s.Size])
	binary.BigEndian.PutUint64(content, uint64(i)) //nolint:gosec // an index
	return content
}

// serveFiles is the subcommand "files": it answers "ready", and at the next line logs in, stores all files and answers an error or "".
func serveFiles(stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	first, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading what to store: %w", err)
	}
	var s smallFiles
	if err := json.Unmarshal(first, &s); err != nil {
		return fmt.Errorf("reading what to store: %w", err)
	}
	fmt.Fprintln(stdout, `"ready"`)
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting to begin: %w", err)
	}
	failed := ""
	if err := s.store(); err != nil {
		failed = err.Error()
	}
	if err := json.NewEncoder(stdout).Encode(failed); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

func (s smallFiles) store() error {
	config, err := clientConfig(s.To.User, s.Key, "")
	if err != nil {
		return err
	}
	conn, err := ssh.Dial("tcp", s.To.Addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, err := sftp.NewClient(conn)
	if err != nil {
		return err
	}
	defer client.Close()
	var next atomic.Int64
	failures := make([]error, s.Sessions)
	var wg sync.WaitGroup
	for worker := range failures {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(s.Files) && failures[worker] == nil; i = next.Add(1) - 1 {
				failures[worker] = s.storeOne(client, int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

func (s smallFiles) storeOne(client *sftp.Client, i int) error {
	f, err := client.OpenFile(s.name(i), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(s.content(i))
	return errors.Join(err, f.Close())
}

// check reads all files where the server has stored them.
func (s smallFiles) check() error {
	for i := range s.Files {
		content, err := os.ReadFile(s.name(i))
		if err != nil {
			return fmt.Errorf("looking for what was stored: %w", err)
		}
		if !bytes.Equal(content, s.content(i)) {
			return fmt.Errorf("%s is not what was sent", filepath.Base(s.name(i)))
		}
	}
	return nil
}

// clientConfig logs in by a key. Without a host key it takes any: what is measured does not depend on it.
func clientConfig(user, key, hostKey string) (*ssh.ClientConfig, error) {
	signer, err := readSigner(key)
	if err != nil {
		return nil, err
	}
	c := &ssh.ClientConfig{
		Config:          ssh.Config{Ciphers: []string{sshCipher}, KeyExchanges: []string{sshExchange}},
		User:            user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // on loopback, to a server that was made for the run
	}
	if hostKey != "" {
		pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
		if err != nil {
			return nil, fmt.Errorf("reading the host key: %w", err)
		}
		c.HostKeyCallback = ssh.FixedHostKey(pinned)
		c.HostKeyAlgorithms = []string{pinned.Type()}
	}
	return c, nil
}

func readSigner(file string) (ssh.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	return ssh.ParsePrivateKey(text)
}

// sameContent compares two files.
func sameContent(one, other string) error {
	a, err := os.Open(one)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(other)
	if err != nil {
		return err
	}
	defer b.Close()
	left, right := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(a, left)
		m, errB := io.ReadFull(b, right)
		if !bytes.Equal(left[:n], right[:m]) {
			return fmt.Errorf("%s is not what was sent", filepath.Base(other))
		}
		if errA != nil || errB != nil {
			return nil // both at their end, since both had as much
		}
	}
}
