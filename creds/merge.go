package creds

import (
	"bytes"
	"encoding/json"
	"errors"
)

// MergePatch applies patch to target as RFC 7396 says, for stores: a null removes
// a member, an object is merged, anything else replaces. An empty target is no
// record yet. Numbers keep their digits. Errors quote nothing.
func MergePatch(target, patch string) (string, error) {
	var to any
	if target != "" {
		var err error
		if to, err = decodeValue(target); err != nil {
			return "", err
		}
	}
	by, err := decodeValue(patch)
	if err != nil {
		return "", err
	}
	return encodeValue(merge(to, by))
}

func merge(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = merge(merged[name], value)
		}
	}
	return merged
}

func decodeValue(text string) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if d.Decode(&value) != nil {
		return nil, errors.New("the record or the change is not JSON")
	}
	return value, nil
}

func encodeValue(value any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(value) != nil {
		return "", errors.New("the changed record cannot be written as JSON")
	}
	return string(bytes.TrimSpace(b.Bytes())), nil
}
