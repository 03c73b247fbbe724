//go:build !race

package socket

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receive reads what is there from a descriptor; without anything it returns
// syscall.EAGAIN, at the end 0.
func Receive(fd uintptr, p []byte) (int, error) { return receive(fd, p, unix.MSG_DONTWAIT) }

// Peek is Receive that leaves what is there.
func Peek(fd uintptr, p []byte) (int, error) {
	return receive(fd, p, unix.MSG_DONTWAIT|unix.MSG_PEEK)
}

func receive(fd uintptr, p []byte, flags uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return result(n, errno)
}

// Send writes as much to a descriptor as there is room for; without any it returns
// syscall.EAGAIN.
func Send(fd uintptr, p []byte) (int, error) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return result(n, errno)
}

func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil //nolint:gosec // at most the length of a slice
}
