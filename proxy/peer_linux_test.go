package proxy

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ends returns what peerUID wants of a connection that a listener accepted.
func ends(conn net.Conn) (local, remote netip.AddrPort) {
	return conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
}

// connected returns both ends of a connection to address, the accepted one first.
func connected(t testing.TB, network, address, dialNetwork string) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("listening on %s: %v", address, err)
	}
	defer listener.Close()
	port := netip.MustParseAddrPort(listener.Addr().String()).Port()
	host := "127.0.0.1"
	if dialNetwork == "tcp6" {
		host = "::1"
	}
	client, err = net.DialTCP(dialNetwork, nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), port)))
	if err != nil {
		t.Fatal(err)
	}
	server, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return server, client
}

func TestPeerUID(t *testing.T) {
	for _, row := range []struct{ name, network, address, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "tcp4"},
		{"IPv6", "tcp6", "[::1]:0", "tcp6"},
		{"IPv4 client of a listener for both, whose addresses are mapped", "tcp", "[::]:0", "tcp4"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server, client := connected(t, row.network, row.address, row.dial)
			uid, err := peerUID(ends(server))
			if err != nil || int(uid) != os.Getuid() {
				t.Fatalf("got %d, %v, want our own uid %d", uid, err, os.Getuid())
			}
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if uid, err := peerUID(ends(server)); err != nil || int(uid) != os.Getuid() {
				t.Errorf("half-closed: got %d, %v, want our own uid", uid, err)
			}
		})
	}
	t.Run("an IPv6 socket that connects to an IPv4 address, as Java's do", func(t *testing.T) {
		listener := listenLoopback(t)
		at := netip.MustParseAddrPort(listener.Addr().String())
		fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip("no IPv6:", err)
		}
		defer syscall.Close(fd)
		mapped := netip.AddrFrom16(at.Addr().As16())
		if err := syscall.Connect(fd, &syscall.SockaddrInet6{Port: int(at.Port()), Addr: mapped.As16()}); err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		if uid, err := peerUID(ends(server)); err != nil || int(uid) != os.Getuid() {
			t.Errorf("got %d, %v, want our own uid", uid, err)
		}
	})
	t.Run("51a a client that has closed its socket is nobody", func(t *testing.T) {
		server, client := connected(t, "tcp4", "127.0.0.1:0", "tcp4")
		client.Close()
		if _, err := io.ReadAll(server); err != nil {
			t.Fatal(err)
		}
		if uid, err := peerUID(ends(server)); err == nil {
			t.Errorf("got uid %d, want an error", uid)
		}
	})
	t.Run("51a a listener on the port of a client that has gone does not answer for it", func(t *testing.T) {
		listener := listenLoopback(t)
		at := netip.MustParseAddrPort(listener.Addr().String())
		if uid, err := peerUID(netip.MustParseAddrPort("127.0.0.1:1"), at); err == nil {
			t.Errorf("got uid %d, want an error", uid)
		}
	})
	t.Run("a connection that does not exist", func(t *testing.T) {
		_, err := peerUID(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"))
		if err == nil || !strings.Contains(err.Error(), "no such connection") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("two families", func(t *testing.T) {
		if _, err := peerUID(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("[::1]:2")); err == nil {
			t.Error("no error")
		}
	})
}

// TestPeerUIDOfAnotherUser starts this test again as its own client.
func TestPeerUIDOfAnotherUser(t *testing.T) {
	if address := os.Getenv("PEER_TEST_DIAL"); address != "" {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, bufio.NewReader(conn)) // until the parent closes
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to start a process of another user")
	}
	const nobody = 65534
	listener := listenLoopback(t)
	child := exec.Command("/proc/self/exe", "-test.run=^TestPeerUIDOfAnotherUser$")
	child.Dir = "/"
	child.Env = []string{"PEER_TEST_DIAL=" + listener.Addr().String()}
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	// /proc/self/exe would be that of the child: pass the program as a file.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	child.ExtraFiles = []*os.File{self}
	child.Path = "/proc/self/fd/3"
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("51a a process of another user on the same machine", func(t *testing.T) {
		if uid, err := peerUID(ends(conn)); err != nil || uid != nobody {
			t.Errorf("got %d, %v, want %d", uid, err, nobody)
		}
	})
	conn.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOwnerOf(t *testing.T) {
	src, dst := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:3128")
	answer := func(edit func(body []byte)) []byte {
		a := make([]byte, nlmsgHeader+diagMsg)
		binary.NativeEndian.PutUint16(a[4:], unix.SOCK_DIAG_BY_FAMILY)
		body := a[nlmsgHeader:]
		body[0], body[diagMsgState] = unix.AF_INET, unix.BPF_TCP_ESTABLISHED
		request, err := diagMessage(src, dst)
		if err != nil {
			t.Fatal(err)
		}
		copy(body[diagMsgID:], request[nlmsgHeader+diagID:])
		binary.NativeEndian.PutUint32(body[diagMsgUID:], 1000)
		binary.NativeEndian.PutUint32(body[diagMsgInode:], 7)
		if edit != nil {
			edit(body)
		}
		return a
	}
	if uid, err := ownerOf(answer(nil), src, dst); err != nil || uid != 1000 {
		t.Fatalf("a good answer: got %d, %v", uid, err)
	}
	for name, bad := range map[string][]byte{
		"nothing":        nil,
		"cut":            answer(nil)[:nlmsgHeader+diagMsg-1],
		"orphan":         answer(func(b []byte) { b[diagMsgInode] = 0 }),
		"listener":       answer(func(b []byte) { b[diagMsgState] = unix.BPF_TCP_LISTEN }),
		"time-wait":      answer(func(b []byte) { b[diagMsgState] = unix.BPF_TCP_TIME_WAIT }),
		"half-made":      answer(func(b []byte) { b[diagMsgState] = unix.BPF_TCP_SYN_RECV }),
		"another port":   answer(func(b []byte) { b[diagMsgID]++ }),
		"another peer":   answer(func(b []byte) { b[diagMsgID+20]++ }),
		"another kind":   append([]byte{76, 0, 0, 0, 3, 0}, answer(nil)[6:]...),
		"kernel refuses": append([]byte{76, 0, 0, 0, unix.NLMSG_ERROR, 0}, answer(nil)[6:]...),
	} {
		if uid, err := ownerOf(bad, src, dst); err == nil {
			t.Errorf("51a %s: got uid %d, want an error", name, uid)
		}
	}
}

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func BenchmarkPeerUID(b *testing.B) {
	server, _ := connected(b, "tcp4", "127.0.0.1:0", "tcp4")
	local, remote := ends(server)
	for b.Loop() {
		if _, err := peerUID(local, remote); err != nil {
			b.Fatal(err)
		}
	}
}
