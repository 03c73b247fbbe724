package sftpgw

import "encoding/binary"

// Limits of what the scanner takes.
const (
	// packetLimit is the largest packet: what OpenSSH takes, and the header of
	// servers that let 256 KiB of data follow it.
	packetLimit = 256<<10 + 1024
	// maxText is the longest path, handle or name of an extension that is read.
	// A path may have 4,096 bytes on any system that we know, a handle 256. A
	// head with it must fit in smallRoom.
	maxText = 8 << 10
	// maxOutstanding bounds the requests without an answer. A client that sends
	// more waits: paramiko's prefetch asks for a whole file at once.
	maxOutstanding = 4096
)

// head is the beginning of an SFTP packet, as far as it is of interest.
//
//	length u32 | type u8 | id u32 | text string | flags u32            OPEN
//	                              | handle      | offset u64 | size u32  WRITE, READ
//	                              | handle                             CLOSE, HANDLE
//	                              | name                               EXTENDED
//	                              | code u32                           STATUS
//	                              | size u32                           DATA
//	length u32 | type u8 | version u32                                 INIT, VERSION
//
// A packet that is shorter than its fields is malformed: it passes unread, or
// is refused where a policy stands.
type head struct {
	length    uint32 // of the whole packet, the length field included
	kind      byte
	id        uint32 // version in INIT and VERSION
	hasID     bool
	text      []byte // of the buffer that was parsed
	flags     uint32 // OPEN: flags, from version 5 on the access mask
	size      uint32 // WRITE, DATA: bytes of data; READ: bytes asked for
	code      uint32
	malformed bool
}

// parseHead reads the head of the packet at the start of p. ok is false when
// more of it must be there first. version is the one that the server answered.
func parseHead(p []byte, version uint32, h *head) (ok bool, err error) {
	if len(p) < 4 {
		return false, nil
	}
	length := binary.BigEndian.Uint32(p)
	if length == 0 || length > packetLimit {
		return false, &packetError{length}
	}
	if len(p) < 5 {
		return false, nil
	}
	*h = head{length: 4 + length, kind: p[4]}
	if length < 5 {
		h.malformed = true
		return true, nil
	}
	if len(p) < 9 {
		return false, nil
	}
	h.id = binary.BigEndian.Uint32(p[5:])
	h.hasID = h.kind != pktInit && h.kind != pktVersion
	body := p[9:min(len(p), int(h.length))]
	whole := int(h.length) - 9 // of body, when all of it is there
	switch h.kind {
	case pktOpen:
		return h.parseOpen(body, whole, version), nil
	case pktWrite, pktRead:
		return h.parseTransfer(body, whole), nil
	case pktClose, pktHandle, pktExtended:
		return h.parseText(body, whole, 0), nil
	case pktStatus, pktData:
		return h.parseNumber(body, whole), nil
	}
	return true, nil
}

// parseText reads the string at the start of body, behind which rest bytes
// must follow, and be there. It reports whether enough of the packet is there.
func (h *head) parseText(body []byte, whole, rest int) bool {
	if whole < 4 {
		h.malformed = true
		return true
	}
	if len(body) < 4 {
		return false
	}
	n := binary.BigEndian.Uint32(body)
	if n > maxText || 4+int(n)+rest > whole {
		h.malformed = true
		return true
	}
	if len(body) < 4+int(n)+rest {
		return false
	}
	h.text = body[4 : 4+n]
	return true
}

// parseTransfer reads handle, offset and size of WRITE and READ.
func (h *head) parseTransfer(body []byte, whole int) bool {
	if !h.parseText(body, whole, 12) {
		return false
	}
	if h.malformed {
		return true
	}
	h.size = binary.BigEndian.Uint32(body[4+len(h.text)+8:])
	h.malformed = h.kind == pktWrite && int64(h.size) > int64(whole-4-len(h.text)-12)
	return true
}

// parseOpen reads the flags behind the path. Version 5 put an access mask there,
// whose bits for writing and appending are the same, and the flags after it,
// whose lowest three bits are 2 (open existing) where nothing is created or
// truncated.
func (h *head) parseOpen(body []byte, whole int, version uint32) bool {
	rest := 4
	if version >= 5 {
		rest = 8
	}
	if !h.parseText(body, whole, rest) {
		return false
	}
	if h.malformed {
		return true
	}
	behind := body[4+len(h.text):]
	h.flags = binary.BigEndian.Uint32(behind)
	if version >= 5 && binary.BigEndian.Uint32(behind[4:])&7 != 2 {
		h.flags |= flagWrite
	}
	return true
}

// parseNumber reads the code of STATUS and the size of DATA.
func (h *head) parseNumber(body []byte, whole int) bool {
	if whole < 4 {
		h.malformed = true
		return true
	}
	if len(body) < 4 {
		return false
	}
	h.code = binary.BigEndian.Uint32(body)
	if h.kind == pktData {
		h.size = h.code
		h.malformed = int64(h.size) > int64(whole-4)
	}
	return true
}
