package proxy

import "golang.org/x/sys/unix"

// hasLeft reports whether the other side has closed, or closed its half of, the
// connection, whatever it left to read. It may be called by anybody at any time.
func (s *socket) hasLeft() bool {
	left := false
	err := s.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} //nolint:gosec // a descriptor
		n, err := unix.Poll(fds, 0)
		left = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return left && err == nil
}
