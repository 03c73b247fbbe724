package creds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The schema of the records that this version writes. A minor step adds fields
// that an older version may ignore; a major one changes what fields mean.
const (
	schemaMajor   = 1
	schemaMinor   = 0
	currentSchema = "1.0"
)

// errNewer is in the error of a record that only a newer version may change.
var errNewer = errors.New("was written by a newer pillion")

// decodeRecord reads a record into the struct that dst points to. A field that
// dst does not have is refused when the record's minor version is ours or
// lower, since then nobody of our kind wrote it, and ignored when it is higher.
// No error repeats a value of the record.
func decodeRecord(data Secret, dst any) error {
	raw := []byte(data.Reveal())
	newer, err := checkSchema(raw)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if !newer {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(dst); err != nil {
		return withoutValues(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("holds more than one JSON object")
	}
	return nil
}

// checkSchema reports whether the record is of a newer minor version.
func checkSchema(raw []byte) (newer bool, err error) {
	var head struct {
		Schema *string `json:"schema"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return false, withoutValues(err)
	}
	if head.Schema == nil {
		return false, errors.New(`has no field "schema": it was not written by pillion`)
	}
	majorText, minorText, _ := strings.Cut(*head.Schema, ".")
	major, err1 := strconv.ParseUint(majorText, 10, 16)
	minor, err2 := strconv.ParseUint(minorText, 10, 16)
	switch {
	case err1 != nil || err2 != nil || major < schemaMajor:
		return false, errors.New("has a schema version that no pillion wrote")
	case major > schemaMajor:
		return false, fmt.Errorf("%w (schema %d.%d, this one reads %d.x): update this one", errNewer, major, minor, schemaMajor)
	}
	return minor > schemaMinor, nil
}

// withoutValues keeps of encoding/json's errors what names a field or a place.
func withoutValues(err error) error {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return fmt.Errorf("has the wrong type of value in field %q", wrongType.Field)
	case errors.As(err, &wrongType):
		return errors.New("is not a JSON object")
	case errors.Is(err, errSecretForm):
		return errSecretForm
	case errors.As(err, &syntax):
		return fmt.Errorf("is not valid JSON (at byte %d)", syntax.Offset)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok && len(field) < 80 {
		return fmt.Errorf("has an unknown field %s", field)
	}
	return errors.New("is not valid JSON")
}

// decodeGrantSecrets reads the member "secrets" of grants/NAME alone: the other
// members are package token's, which checks them itself.
func decodeGrantSecrets(data Secret, dst *secretsRecord) error {
	raw := []byte(data.Reveal())
	if _, err := checkSchema(raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, dst); err != nil {
		return withoutValues(err)
	}
	return nil
}
