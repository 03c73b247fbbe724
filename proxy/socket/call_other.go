//go:build !linux || race

package socket

import "syscall"

// With the race detector these are the calls of package syscall: by them it orders
// what the two ends of a connection do, where both are in one process.

// Receive reads what is there from a descriptor that does not block; without anything
// it returns syscall.EAGAIN, at the end 0.
func Receive(fd uintptr, p []byte) (int, error) {
	n, err := syscall.Read(int(fd), p) //nolint:gosec // a descriptor
	return max(n, 0), err
}

// Peek is Receive that leaves what is there.
func Peek(fd uintptr, p []byte) (int, error) {
	n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK) //nolint:gosec // a descriptor
	return max(n, 0), err
}

// Send writes as much to a descriptor that does not block as there is room for;
// without any it returns syscall.EAGAIN.
func Send(fd uintptr, p []byte) (int, error) {
	n, err := syscall.Write(int(fd), p) //nolint:gosec // a descriptor
	return max(n, 0), err
}
