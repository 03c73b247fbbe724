package sftpgw

import (
	"bytes"
	"testing"
)

// A room grows behind a reading that filled it, and takes along what is kept.
func TestRoom(t *testing.T) {
	type reading struct{ used, kept, next int }
	readings := []reading{
		{0, 0, smallRoom},
		{smallRoom - 1, 10, smallRoom},
		{smallRoom, smallRoom / 2, largeRoom},
		{largeRoom, 100, largeRoom},
	}
	for range roomSpare - 1 {
		readings = append(readings, reading{smallRoom - 1, 100, largeRoom})
	}
	readings = append(readings, reading{smallRoom, 100, largeRoom})
	for range roomSpare - 1 {
		readings = append(readings, reading{100, 50, largeRoom})
	}
	readings = append(readings, reading{smallRoom - 1, smallRoom / 2, smallRoom}, reading{1, 0, smallRoom}, reading{smallRoom, 0, largeRoom})
	var r room
	var into, kept []byte
	for i, row := range readings {
		if row.used > 0 {
			copy(into, random(row.used))
			kept = into[row.used-row.kept : row.used]
		}
		want := bytes.Clone(kept)
		into = r.after(row.used, kept)
		if len(into) != row.next || !bytes.Equal(into[:row.kept], want) {
			t.Errorf("reading %d: %d bytes, kept in front: %v", i, len(into), bytes.Equal(into[:row.kept], want))
		}
	}
	if r.release(); r.large != nil {
		t.Error("the large part is not given back")
	}
}
