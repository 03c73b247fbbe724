package sftpgw

import "sync"

// room is where a direction is read to: small, and large behind a reading that filled
// it, until so many in a row would have fitted in the small one again. So who sends much
// is read much at a time, and who answers in a few bytes costs no more memory than
// those. The zero value is ready for use by one goroutine.
type room struct {
	small  [smallRoom]byte
	large  *[largeRoom]byte // nil while it is not wanted
	little int              // readings in a row that did not need it
}

// Sizes of a room. The large one is eight of the packets that x/crypto takes and
// OpenSSH sends: x/crypto tells the sender after each reading of a channel that there
// is room again, by a packet of its own, and with four those cost a twentieth of many
// transfers at once. A head fits in the small one: see maxText.
const (
	smallRoom = 16 << 10
	largeRoom = 256 << 10
	roomSpare = 8 // readings that do not need the large one, until it is given back
)

var largeRooms = sync.Pool{New: func() any { return new([largeRoom]byte) }}

// after returns the room for the next reading. The last one ended at used; kept, a
// part of the room from before, stands at the front.
func (r *room) after(used int, kept []byte) []byte {
	if used < smallRoom {
		r.little++
	} else if r.little = 0; r.large == nil {
		r.large = largeRooms.Get().(*[largeRoom]byte) //nolint:forcetypeassert // nothing else is put there
	}
	if r.large != nil && r.little < roomSpare {
		copy(r.large[:], kept)
		return r.large[:]
	}
	copy(r.small[:], kept)
	r.release()
	return r.small[:]
}

// release gives the large part back.
func (r *room) release() {
	if r.large != nil {
		largeRooms.Put(r.large)
		r.large = nil
	}
}
