package filestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pillion/creds"
	"pillion/creds/credstest"
)

// The tests need other processes on the same file: this binary again, which then
// plays the part that the variable names, in the directory that it also names.
const (
	partVariable = "FILESTORE_TEST_PART"
	dirVariable  = "FILESTORE_TEST_DIR"
)

var parts = map[string]func(dir string) error{
	"count":        playCount,
	"write":        playWrite,
	"full disk":    playFullDisk,
	"size limit":   playSizeLimit,
	"nobody":       playNobody,
	"hold lock":    playHoldLock,
	"open and end": playOpen,
}

func TestMain(m *testing.M) {
	name := os.Getenv(partVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := parts[name](os.Getenv(dirVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func part(ctx context.Context, t testing.TB, name, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), partVariable+"="+name, dirVariable+"="+dir)
	return cmd
}

func openIn(dir string) (*Store, error) {
	return Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
}

func playOpen(dir string) error {
	_, err := openIn(dir)
	return err
}

// countedEach is how far each of several processes counts.
func countedEach() int { return credstest.Often(50) }

func playCount(dir string) error {
	store, err := openIn(dir)
	if err != nil {
		return err
	}
	return credstest.Count(context.Background(), store, "tokens/counter", countedEach())
}

// playWrite writes records and the index, as saving credentials does, and prints
// the number of each that is confirmed. Its standard input says where to begin.
func playWrite(dir string) error {
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	store, err := openIn(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for n := first; n < first+killWrites; n++ {
		key, data := killRecord(n)
		version, err := store.CAS(ctx, key, creds.NewSecret(data), 0)
		if errors.Is(err, creds.ErrConflict) {
			continue // written before the kill, and not confirmed
		}
		if err != nil {
			return err
		}
		if _, err := store.Patch(ctx, creds.KeyIndex, creds.NewSecret(fmt.Sprintf(`{"kill-%04d":%d}`, n, version))); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

const killWrites = 1000

func killRecord(n int) (key, data string) {
	return fmt.Sprintf("credentials/kill-%04d", n),
		fmt.Sprintf(`{"schema":"1.0","name":"kill-%04d","protocol":"https","url":"https://host-%d.example/","authorization":"basic","username":"user-%d","secrets":{"password":"%016x"}}`, n, n, n, n)
}

// playFullDisk puts the store on a file system of 256 KiB, which exists in this
// process's mount namespace alone and goes with it, and writes until it is full.
func playFullDisk(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		return fmt.Errorf("mounting a small tmpfs: %w", err)
	}
	return fillUp(filepath.Join(dir, "state"), unix.ENOSPC)
}

// playSizeLimit writes until RLIMIT_FSIZE stops it.
func playSizeLimit(dir string) error {
	// The signal that comes with it would end the process; here the write fails.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
		return err
	}
	return fillUp(dir, unix.EFBIG)
}

// fillUp writes 4 KiB records until the disk is full, and looks after what the
// store promises then.
func fillUp(dir string, want error) error {
	store, err := openIn(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	canary := credstest.Canary("record").Reveal()
	data := creds.NewSecret(`{"secret":"` + canary + strings.Repeat("x", 4<<10) + `"}`)
	confirmed := 0
	for ; confirmed < 1000 && err == nil; confirmed++ {
		_, err = store.CAS(ctx, fmt.Sprintf("secrets/%d", confirmed), data, 0)
	}
	confirmed--
	if !errors.Is(err, want) || !errors.Is(err, creds.ErrStoreUnavailable) {
		return fmt.Errorf("after %d records: error %w, want %w", confirmed, err, want)
	}
	if confirmed < 5 || strings.Contains(err.Error(), canary) {
		return fmt.Errorf("after %d records: %w", confirmed, err)
	}
	if exists(store.tmpPath()) {
		return errors.New("a temporary file is left and keeps the disk full")
	}
	again, err := openIn(dir)
	if err != nil {
		return fmt.Errorf("opening the store on the full disk: %w", err)
	}
	for _, s := range []*Store{store, again} {
		keys, err := s.List(ctx, "secrets/")
		if err != nil || len(keys) != confirmed {
			return fmt.Errorf("%d of %d confirmed records are left: %w", len(keys), confirmed, err)
		}
	}
	_ = again.Close() // its open file would keep room
	// With room again it goes on.
	if err := store.Delete(ctx, "secrets/0"); err != nil {
		return fmt.Errorf("deleting on the full disk: %w", err)
	}
	if _, err := store.CAS(ctx, "secrets/small", creds.NewSecret(`{}`), 0); err != nil {
		return fmt.Errorf("writing after room was made: %w", err)
	}
	return nil
}

// playNobody opens the store as a user who is neither root nor the key's owner.
func playNobody(dir string) error {
	if err := syscall.Setuid(nobody); err != nil {
		return err
	}
	_, err := openIn(dir)
	return err
}

const nobody = 65534

// playHoldLock holds the lock until its standard input ends.
func playHoldLock(dir string) error {
	store, err := openIn(dir)
	if err != nil {
		return err
	}
	unlock, err := store.lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
