package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// lab is what all peers of a run share: a directory, a CA, the origin, and the token that must arrive there.
type lab struct {
	dir     string
	self    string // this program, for its subcommands
	pillion string // the binary under test
	pki     pki
	token   string
	origin  *process
	addrs   originAddrs
}

func (l *lab) authorization() string { return "Bearer " + l.token }

// authority is the name and port under which clients ask for one of the origin's listeners.
func authority(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(originName, port)
}

// hosts maps both authorities to where the origin listens.
func (l *lab) hosts() map[string]string {
	return map[string]string{authority(l.addrs.HTTP1): l.addrs.HTTP1, authority(l.addrs.HTTP2): l.addrs.HTTP2}
}

// openLab makes the directory and starts the origin. The directory may be entered by others: squid gives up root.
func openLab(ctx context.Context, pillion string) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "pillion-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	l := &lab{dir: dir, self: self, pillion: pillion, token: "bench-0123456789abcdef0123456789abcdef"}
	if err := l.open(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) open(ctx context.Context) (err error) {
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	if l.pki, err = newPKI(l.dir); err != nil {
		return err
	}
	if l.origin, err = startTalking(l.dir, "origin", l.self, "origin"); err != nil {
		return err
	}
	if err := l.origin.tell(originConfig{Cert: l.pki.LeafCert, Key: l.pki.LeafKey, Authorization: l.authorization()}); err != nil {
		return err
	}
	line, err := l.origin.line(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(line, &l.addrs)
}

func (l *lab) close() {
	if l.origin != nil {
		l.origin.stop()
	}
	_ = os.RemoveAll(l.dir)
}

// folder is the directory of one peer in one round.
func (l *lab) folder(name string, round int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, round))
}
