package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// peerLookupTimeout is generous: the kernel answers within the call itself.
const peerLookupTimeout = time.Second

// Sizes and offsets in bytes, of linux/inet_diag.h and netlink's own header.
const (
	nlmsgHeader  = 16
	diagRequest  = 56 // struct inet_diag_req_v2
	diagID       = 8  // its id: ports, addresses, interface, cookie
	diagMsg      = 72 // struct inet_diag_msg
	diagMsgState = 1
	diagMsgID    = 4
	diagMsgUID   = 64
	diagMsgInode = 68
)

// peerUID returns the user id of the process at the other end of a TCP
// connection on this machine, of which local and remote are our end's addresses.
//
// It asks the kernel (sock_diag) for the one socket with the two addresses
// swapped. An answer is taken only for a socket that some process still holds:
// one that was closed already is nobody's, and the kernel shows it as root's, so
// a client could send a request, close, and pass for root. That is why a look-up
// belongs right behind Accept, and why every doubt is an error.
//
// A user of another user namespace shows as the overflow uid, 65534.
func peerUID(local, remote netip.AddrPort) (uint32, error) {
	uid, err := lookUpSocket(remote, local)
	if err != nil {
		return 0, fmt.Errorf("looking up the process behind %s: %w", remote, err)
	}
	return uid, nil
}

// lookUpSocket returns the owner of the socket that is bound to src and
// connected to dst.
func lookUpSocket(src, dst netip.AddrPort) (uint32, error) {
	request, err := diagMessage(src, dst)
	if err != nil {
		return 0, err
	}
	// A socket a call: 10 microseconds once a connection, against a pool whose
	// late answers would have to be told from its current ones.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(peerLookupTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, fmt.Errorf("setting a time-out: %w", err)
	}
	if err := retryEINTR(func() error {
		return unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return 0, fmt.Errorf("asking the kernel: %w", err)
	}
	var buf [4096]byte
	var n int
	if err := retryEINTR(func() error {
		count, from, err := unix.Recvfrom(fd, buf[:], 0)
		if sender, ok := from.(*unix.SockaddrNetlink); err == nil && (!ok || sender.Pid != 0) {
			return errors.New("the answer is not the kernel's")
		}
		n = count
		return err
	}); err != nil {
		return 0, fmt.Errorf("reading the kernel's answer: %w", err)
	}
	return ownerOf(buf[:n], src, dst)
}

// ownerOf reads the answer to a look-up of the socket from src to dst.
func ownerOf(answer []byte, src, dst netip.AddrPort) (uint32, error) {
	native := binary.NativeEndian
	if len(answer) < nlmsgHeader+4 {
		return 0, errors.New("the kernel's answer is too short")
	}
	body := answer[nlmsgHeader:]
	switch kind := native.Uint16(answer[4:]); kind {
	case unix.NLMSG_ERROR:
		errno := unix.Errno(-int32(native.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, errors.New("there is no such connection")
		}
		return 0, fmt.Errorf("the kernel refuses: %w", errno)
	case unix.SOCK_DIAG_BY_FAMILY:
	default:
		return 0, fmt.Errorf("the kernel's answer is of an unknown kind, %d", kind)
	}
	if len(body) < diagMsg {
		return 0, errors.New("the kernel's answer is too short")
	}
	// A look-up that misses goes on to listeners: someone else's, perhaps.
	if gotSrc, gotDst := diagAddresses(body); gotSrc != unmap(src) || gotDst != unmap(dst) {
		return 0, errors.New("the kernel's answer is about another socket")
	}
	switch body[diagMsgState] {
	case unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSE_WAIT:
	default:
		return 0, errors.New("the connection is not open")
	}
	if native.Uint32(body[diagMsgInode:]) == 0 {
		return 0, errors.New("the process has closed the connection")
	}
	return native.Uint32(body[diagMsgUID:]), nil
}

// diagAddresses reads the socket's two ends. A socket of IPv6 that is connected
// over IPv4, as Java's are, has its addresses in the mapped form.
func diagAddresses(body []byte) (src, dst netip.AddrPort) {
	id := body[diagMsgID:]
	addr := func(at int) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(id[at:]))
		}
		return netip.AddrFrom16([16]byte(id[at:])).Unmap()
	}
	port := binary.BigEndian.Uint16
	return netip.AddrPortFrom(addr(4), port(id[0:])), netip.AddrPortFrom(addr(20), port(id[2:]))
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone("").Unmap(), a.Port())
}

// diagMessage is a netlink message with a struct inet_diag_req_v2.
func diagMessage(src, dst netip.AddrPort) ([]byte, error) {
	srcAddr, dstAddr := unmap(src).Addr(), unmap(dst).Addr()
	if !srcAddr.IsValid() || srcAddr.BitLen() != dstAddr.BitLen() {
		return nil, errors.New("the addresses are not of one family")
	}
	// IPv4 for mapped addresses too: the kernel's tables know one connection.
	family := byte(unix.AF_INET)
	if srcAddr.Is6() {
		family = unix.AF_INET6
	}
	native := binary.NativeEndian
	m := make([]byte, nlmsgHeader+diagRequest)
	native.PutUint32(m[0:], uint32(len(m)))
	native.PutUint16(m[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST) // no dump: exactly one
	native.PutUint32(m[8:], 1)                  // sequence number
	request := m[nlmsgHeader:]
	request[0] = family
	request[1] = unix.IPPROTO_TCP
	native.PutUint32(request[4:], ^uint32(0)) // any state
	id := request[diagID:]
	binary.BigEndian.PutUint16(id[0:], src.Port())
	binary.BigEndian.PutUint16(id[2:], dst.Port())
	copy(id[4:20], srcAddr.AsSlice())
	copy(id[20:36], dstAddr.AsSlice())
	native.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return m, nil
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
