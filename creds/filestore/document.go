package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"pillion/creds"
)

// The store decrypts to one JSON document:
//
//	{"format":"pillion-store","version":"1.0","deleted":7,
//	 "records":{"credentials/jira":{"version":8,"created":"2025-11-22T20:00:00.5Z","data":{...}}}}
//
// A record's version grows by one with every write. "deleted" is the highest
// version that any deleted record had, and a new record starts one above it. So a
// key that was deleted and created again never has a version twice, and whoever
// still holds the old one gets a conflict, for the price of one number instead of
// a tombstone for each key.
const (
	formatName  = "pillion-store"
	formatMajor = 1
	formatMinor = 0
	// maxVersion keeps versions exact for every JSON reader.
	maxVersion = 1 << 53
)

type document struct {
	newer   string // the format's version, when a newer minor wrote it
	deleted int
	records map[string]creds.Record
	changed bool
}

type wireDocument struct {
	Format  string                `json:"format"`
	Version string                `json:"version"`
	Deleted int                   `json:"deleted"`
	Records map[string]wireRecord `json:"records"`
}

type wireRecord struct {
	Version int             `json:"version"`
	Created time.Time       `json:"created"`
	Data    json.RawMessage `json:"data"`
}

func (d *document) clone() *document {
	return &document{deleted: d.deleted, records: maps.Clone(d.records)}
}

// put writes a record and returns its new version.
func (d *document) put(key, text string, now time.Time) int {
	version := d.deleted
	if old, ok := d.records[key]; ok {
		version = old.Version
	}
	version++
	d.records[key] = creds.Record{Data: creds.NewSecret(text), Version: version, Created: now}
	d.changed = true
	return version
}

func (d *document) remove(key string) {
	old, ok := d.records[key]
	if !ok {
		return
	}
	d.deleted = max(d.deleted, old.Version)
	delete(d.records, key)
	d.changed = true
}

func (d *document) encode() ([]byte, error) {
	wire := wireDocument{
		Format:  formatName,
		Version: fmt.Sprintf("%d.%d", formatMajor, formatMinor),
		Deleted: d.deleted,
		Records: make(map[string]wireRecord, len(d.records)),
	}
	for key, record := range d.records {
		wire.Records[key] = wireRecord{record.Version, record.Created, json.RawMessage(record.Data.Reveal())}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(wire) != nil {
		return nil, errors.New("a record cannot be written as JSON")
	}
	return b.Bytes(), nil
}

var errForeign = errors.New("holds something else than a pillion store: name another file, or restore the store from a backup")

// decode reads what encode wrote. Its errors complete the sentence "STORE ...".
// An unknown member is refused within our minor version and ignored in a newer
// one, whose file is then only read: writing it would drop what is new in it.
func decode(text []byte) (*document, error) {
	var head struct{ Format, Version string }
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, &head); errors.As(err, &syntax) {
		return nil, fmt.Errorf("holds no JSON from byte %d on: correct it there, or restore it from a backup", syntax.Offset)
	} else if err != nil || head.Format != formatName {
		return nil, errForeign
	}
	major, minor, ok := parseVersion(head.Version)
	switch {
	case !ok || major < formatMajor:
		return nil, errForeign
	case major > formatMajor:
		return nil, fmt.Errorf("was written by a newer pillion (store format %d.%d, this one reads %d): upgrade this one", major, minor, formatMajor)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if minor <= formatMinor {
		d.DisallowUnknownFields()
	}
	var wire wireDocument
	if d.Decode(&wire) != nil || wire.Records == nil || wire.Deleted < 0 || wire.Deleted >= maxVersion {
		return nil, fmt.Errorf("does not follow store format %d.%d: undo what was edited in it, or restore it from a backup", major, minor)
	}
	doc := &document{deleted: wire.Deleted, records: make(map[string]creds.Record, len(wire.Records))}
	if minor > formatMinor {
		doc.newer = head.Version
	}
	return doc, doc.take(wire.Records)
}

func (d *document) take(records map[string]wireRecord) error {
	for key, record := range records {
		text, err := object(key, string(record.Data))
		if err != nil || record.Version < 1 || record.Version >= maxVersion || record.Created.IsZero() {
			return fmt.Errorf("holds a record %q that is not whole: correct it, or restore the store from a backup", key)
		}
		d.records[key] = creds.Record{Data: creds.NewSecret(text), Version: record.Version, Created: record.Created}
	}
	return nil
}

func parseVersion(text string) (major, minor int, ok bool) {
	before, after, _ := strings.Cut(text, ".")
	x, err := strconv.ParseUint(before, 10, 16)
	y, err2 := strconv.ParseUint(after, 10, 16)
	return int(x), int(y), err == nil && err2 == nil
}

// object checks that a record can be stored and read back: a key, and one JSON
// object, which it returns without insignificant space. Invalid UTF-8 is refused
// since encoding/json would silently replace it, and with it part of a password.
func object(key, text string) (string, error) {
	if key == "" || !utf8.ValidString(key) {
		return "", errors.New("writing a record: its key is empty or not UTF-8")
	}
	var b bytes.Buffer
	if !utf8.ValidString(text) || json.Compact(&b, []byte(text)) != nil || !bytes.HasPrefix(b.Bytes(), []byte("{")) {
		return "", fmt.Errorf("writing %s: its data is not a JSON object in UTF-8", key)
	}
	// encoding/json reads a limited depth, and in the document data stands three
	// levels deeper than here: without this the store could not be read again.
	if !json.Valid([]byte("[[[[" + b.String() + "]]]]")) {
		return "", fmt.Errorf("writing %s: its data is nested too deeply", key)
	}
	return b.String(), nil
}
