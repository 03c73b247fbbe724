package credstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
)

// FreeAddress returns an address on loopback for a program that can listen on no port
// that it chooses itself. Nobody else takes it meanwhile: it lies below the ports that
// the kernel gives to listeners on port 0 and to connections, and is given once.
// t is a test or a script of one.
func FreeAddress(t interface{ Fatalf(string, ...any) }) string {
	address, err := freeAddresses.take()
	if err != nil {
		t.Fatalf("no free port: %v", err)
	}
	return address
}

// freePort returns the port of a free address.
func freePort(t testing.TB) uint16 {
	return netip.MustParseAddrPort(FreeAddress(t)).Port()
}

var freeAddresses addresses

// addresses gives out ports one after another, from a random one on: several test
// processes run at once.
type addresses struct {
	mu   sync.Mutex
	next int
}

// manyPorts is how many ports below the kernel's are given out.
const manyPorts = 12000

func (a *addresses) take() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	end := kernelPorts()
	if a.next == 0 {
		a.next = rand.IntN(manyPorts)
	}
	for range 100 {
		a.next++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", end-1-a.next%manyPorts))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("a hundred ports below %d are taken", end)
}

// kernelPorts is the first port that the kernel gives out by itself.
func kernelPorts() (first int) {
	const linux = 32768
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if _, bad := fmt.Sscan(string(text), &first); err != nil || bad != nil || first < 2*manyPorts {
		return linux
	}
	return first
}
