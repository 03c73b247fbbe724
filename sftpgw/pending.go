package sftpgw

// request is one that the server has not answered yet.
type request struct {
	id    uint32
	kind  byte
	count uint16 // of requests with this id; 0: the slot is free
	size  uint32 // WRITE: bytes of data
	epoch uint64 // how many requests had been refused before it
	file  *file  // OPEN, and READ, WRITE and CLOSE of a file that is followed
}

// pending is the table of requests without an answer, by id: open addressing,
// so that it does not allocate once it has grown to what the client keeps under
// way. It is never more than half full.
type pending struct {
	slots []request // a power of two
	total int       // of requests: more than slots taken where ids were used twice
	taken int
}

const firstSlots = 64

func (t *pending) slot(id uint32) int {
	return int(id*2654435769>>7) & (len(t.slots) - 1) // Fibonacci hashing: ids count up
}

// find returns the slot of id, or the free one where it belongs.
func (t *pending) find(id uint32) *request {
	for i := t.slot(id); ; i = (i + 1) & (len(t.slots) - 1) {
		if s := &t.slots[i]; s.count == 0 || s.id == id {
			return s
		}
	}
}

// add enters a request. If its id is under way already it is only counted, and
// the slot of the first one is returned: which of them an answer is for cannot
// be told, and neither may confirm anything.
func (t *pending) add(r request) (first *request) {
	if 2*(t.taken+1) > len(t.slots) {
		t.grow()
	}
	t.total++
	s := t.find(r.id)
	if s.count > 0 {
		s.count++ // cannot overflow: total is bounded
		return s
	}
	t.taken++
	r.count = 1
	*s = r
	return nil
}

func (t *pending) grow() {
	old := t.slots
	t.slots = make([]request, max(firstSlots, 2*len(old)))
	for _, r := range old {
		if r.count > 0 {
			*t.find(r.id) = r
		}
	}
}

// take removes a request of that id. Of an id used twice the last one to be
// answered is returned, with no kind.
func (t *pending) take(id uint32) (r request, ok bool) {
	if t.taken == 0 {
		return request{}, false
	}
	s := t.find(id)
	if s.count == 0 {
		return request{}, false
	}
	t.total--
	if s.count > 1 {
		s.count--
		return request{}, false
	}
	r = *s
	t.taken--
	t.free(s)
	return r, true
}

// free empties a slot, and moves those up that had to step over it.
func (t *pending) free(s *request) {
	mask := len(t.slots) - 1
	hole := t.slot(s.id)
	for &t.slots[hole] != s {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; t.slots[i].count > 0; i = (i + 1) & mask {
		home := t.slot(t.slots[i].id)
		if (i-home)&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = request{}
}
