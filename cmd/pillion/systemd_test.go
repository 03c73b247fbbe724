package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What systemd hears of a unit with Type=notify and WatchdogSec, in the words of
// sd_notify(3), from the start to the end.
func TestSystemdHears(t *testing.T) {
	t.Parallel()
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	good, err := os.ReadFile(sidecar.config)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "notify")
	ear, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()

	// With the umask of the unit, too.
	command := exec.Command("sh", "-c", `umask 077; exec "$0" "$@"`, sidecar.binary, "run", "--config", sidecar.config, "--state", sidecar.state)
	command.Env = append(plainEnvironment(t), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000")
	command.Stderr = t.Output()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = command.Process.Kill(), command.Wait() }()

	// hears waits for a message that has all the words.
	hears := func(words ...string) {
		t.Helper()
		message := make([]byte, 4096)
		_ = ear.SetReadDeadline(time.Now().Add(10 * time.Second))
		var all []string
	next:
		for {
			n, err := ear.Read(message)
			if err != nil {
				t.Fatalf("systemd did not hear %q, only %q", words, all)
			}
			all = append(all, string(message[:n]))
			for _, word := range words {
				if !strings.Contains(string(message[:n]), word) {
					continue next
				}
			}
			return
		}
	}
	hears("READY=1", "STATUS=serving 1 credentials")
	hears("WATCHDOG=1")
	hears("WATCHDOG=1")
	if info, err := os.Stat(filepath.Join(sidecar.state, "public")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the published folder: %v, %v; clients are other users", info, err)
	}

	if err := os.WriteFile(sidecar.config, append(good, "unknown: key\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	hears("STATUS=serving 1 credentials; the last reload was refused")
	if err := os.WriteFile(sidecar.config, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Signal(syscall.SIGHUP); err != nil { // systemctl reload
		t.Fatal(err)
	}
	hears("RELOADING=1", "MONOTONIC_USEC=")
	hears("READY=1", "STATUS=serving 1 credentials")
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
	if err := command.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
