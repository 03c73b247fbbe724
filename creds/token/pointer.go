package token

import (
	"strconv"
	"strings"
)

var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

// pointTo returns what a JSON pointer (RFC 6901) refers to in a decoded value.
func pointTo(value any, pointer string) (any, bool) {
	if pointer == "" {
		return value, true
	}
	if pointer[0] != '/' {
		return nil, false
	}
	for name := range strings.SplitSeq(pointer[1:], "/") {
		var ok bool
		switch in := value.(type) {
		case map[string]any:
			value, ok = in[unescapePointer.Replace(name)]
		case []any:
			var i int
			if i, ok = index(name, len(in)); ok {
				value = in[i]
			}
		}
		if !ok {
			return nil, false
		}
	}
	return value, true
}

// index reads an element's number as RFC 6901 writes it: digits, without a zero in
// front.
func index(name string, length int) (int, bool) {
	i, err := strconv.ParseUint(name, 10, 31)
	return int(i), err == nil && int(i) < length && strconv.FormatUint(i, 10) == name
}
