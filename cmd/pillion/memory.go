package main

import "os"

// heapRoom is how much garbage the heap may hold beyond what lives. Go's own
// floor of 4 MiB means a collection every few hundred requests, and a quarter more
// CPU for each; a higher GOGC would cost as much again for every open tunnel.
const heapRoom = 4 << 20

// ballast counts as live, so that the next collection is that much further off.
// Nobody writes to it, so it never becomes resident; for that it must be the
// first large thing that the process allocates, and be held until its end. A
// GOGC in the environment stands for itself.
func ballast() []byte {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return make([]byte, heapRoom)
}
