package sftpgw

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Policy is what clients may do on a server, as sftp.allow lists it. The zero
// Policy is none at all: every packet passes, extensions included.
//
// With a policy each request is judged by its own packet. What is not known is
// refused, and the session speaks version 3 of SFTP, whose packets are known.
// Paths are the server's: a policy knows operations, not places. Asking for a
// file's attributes is always allowed, because hardly any client can store a
// file without it.
type Policy uint8

// The operations, and the names that sftp.allow gives them.
const (
	AllowWrite  Policy = 1 << iota // write: create, write, truncate, set attributes, mkdir, links
	AllowRead                      // read: contents of files
	AllowList                      // list: directories, targets of links
	AllowRemove                    // remove: files and directories
	AllowRename                    // rename, which may replace the target
)

// operations lists the names in the order of the constants.
var operations = [...]string{"write", "read", "list", "remove", "rename"}

// ParsePolicy reads the list sftp.allow. No list is no policy; an empty one
// would allow nothing, which nobody means.
func ParsePolicy(names []string) (Policy, error) {
	if names == nil {
		return 0, nil
	}
	if len(names) == 0 {
		return 0, errors.New("is empty: list what is allowed (" + strings.Join(operations[:], ", ") + "), or leave it out to allow everything")
	}
	var p Policy
	for _, name := range names {
		i := slices.Index(operations[:], name)
		if i < 0 {
			return 0, fmt.Errorf("knows no operation %q: use %s", name, strings.Join(operations[:], ", "))
		}
		p |= 1 << i
	}
	return p, nil
}

// String lists the operations as sftp.allow does.
func (p Policy) String() string {
	var names []string
	for i, name := range operations {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Verdicts beside the operations that a packet needs.
const (
	needNothing Policy = 0
	needUnknown Policy = 1 << 7 // never in a policy
)

// The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02).
const (
	pktInit     = 1
	pktVersion  = 2
	pktOpen     = 3
	pktClose    = 4
	pktRead     = 5
	pktWrite    = 6
	pktLstat    = 7
	pktFstat    = 8
	pktSetstat  = 9
	pktFsetstat = 10
	pktOpendir  = 11
	pktReaddir  = 12
	pktRemove   = 13
	pktMkdir    = 14
	pktRmdir    = 15
	pktRealpath = 16
	pktStat     = 17
	pktRename   = 18
	pktReadlink = 19
	pktSymlink  = 20
	pktStatus   = 101
	pktHandle   = 102
	pktData     = 103
	pktExtended = 200
)

// packetNeeds says what each packet of a client needs. OPEN is judged by its
// flags, EXTENDED by its name.
var packetNeeds = [...]Policy{
	0:           needUnknown,
	pktInit:     needNothing,
	pktVersion:  needUnknown,
	pktOpen:     needUnknown,
	pktClose:    needNothing,
	pktRead:     AllowRead,
	pktWrite:    AllowWrite,
	pktLstat:    needNothing,
	pktFstat:    needNothing,
	pktSetstat:  AllowWrite,
	pktFsetstat: AllowWrite,
	pktOpendir:  AllowList,
	pktReaddir:  AllowList,
	pktRemove:   AllowRemove,
	pktMkdir:    AllowWrite,
	pktRmdir:    AllowRemove,
	pktRealpath: needNothing,
	pktStat:     needNothing,
	pktRename:   AllowRename,
	pktReadlink: AllowList,
	pktSymlink:  AllowWrite,
}

// extensionNeeds says what the extensions need that servers have. One that is
// not here is refused.
func extensionNeeds(name []byte) Policy {
	switch string(name) { // does not allocate
	case "posix-rename@openssh.com":
		return AllowRename
	case "hardlink@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com":
		return AllowWrite
	case "copy-data", "copy-file":
		return AllowRead | AllowWrite
	case "md5-hash", "md5-hash-handle", "check-file", "check-file-handle", "check-file-name":
		return AllowRead
	case "users-groups-by-id@openssh.com":
		return AllowList
	case "statvfs@openssh.com", "fstatvfs@openssh.com", "limits@openssh.com",
		"expand-path@openssh.com", "home-directory", "space-available", "vendor-id":
		return needNothing
	}
	return needUnknown
}

// The flags of OPEN. From version 5 on 2 and 4 are the access bits of writing
// and appending, so that one mask finds both.
const (
	flagRead   = 0x01
	flagWrite  = 0x02
	flagAppend = 0x04
)

// openNeeds takes every flag but that of reading for writing: creating and
// truncating change the server, and so may what is not known.
func openNeeds(flags uint32) Policy {
	var p Policy
	if flags&flagRead != 0 {
		p |= AllowRead
	}
	if flags&^flagRead != 0 {
		p |= AllowWrite
	}
	if p == 0 {
		p = AllowRead
	}
	return p
}

// needs returns what a request needs.
func (h *head) needs() Policy {
	switch {
	case h.malformed:
		return needUnknown
	case h.kind == pktOpen:
		return openNeeds(h.flags)
	case h.kind == pktExtended:
		return extensionNeeds(h.text)
	case int(h.kind) < len(packetNeeds):
		return packetNeeds[h.kind]
	}
	return needUnknown
}

// permits reports whether the policy, if there is one, has all that is needed.
func (p Policy) permits(needed Policy) bool { return p == 0 || needed&^p == 0 }
