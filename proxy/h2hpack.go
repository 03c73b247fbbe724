package proxy

import (
	"net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
)

// Header blocks (RFC 7541) are written without Huffman's code and without the dynamic
// table: what both save on loopback is less than what they cost. All that is sent is
// literals, but for names and statuses of the static table.

// hpackStatus are the statuses of the static table.
var hpackStatus = map[int]byte{200: 0x88, 204: 0x89, 206: 0x8a, 304: 0x8b, 400: 0x8c, 404: 0x8d, 500: 0x8e}

// hpackNames are the names of the static table that answers have.
var hpackNames = map[string]byte{
	"accept-ranges": 18, "age": 21, "allow": 22, "cache-control": 24, "content-disposition": 25, "content-encoding": 26,
	"content-language": 27, "content-length": 28, "content-location": 29, "content-range": 30, "content-type": 31, "date": 33,
	"etag": 34, "expires": 36, "last-modified": 44, "link": 45, "location": 46, "proxy-authenticate": 48, "retry-after": 53,
	"server": 54, "set-cookie": 55, "strict-transport-security": 56, "vary": 59, "via": 60, "www-authenticate": 61,
}

func appendHpackStatus(b []byte, status int) []byte {
	if code := hpackStatus[status]; code != 0 {
		return append(b, code)
	}
	return strconv.AppendInt(append(b, 8, 3), int64(status), 10)
}

// appendHpackField writes a literal without indexing. Names become lower case, as
// HTTP/2 wants them.
func appendHpackField(b, name, value []byte) []byte {
	start := len(b)
	b = append(b, 0)
	b = appendHpackInt(b, 0x7f, len(name))
	at := len(b)
	for _, c := range name {
		b = append(b, foldByte(c))
	}
	if index := hpackNames[string(b[at:])]; index != 0 {
		b = append(b[:start], 0x0f, index-0x0f)
	}
	return append(appendHpackInt(b, 0x7f, len(value)), value...)
}

// appendHpackInt writes n in the low bits of a byte and behind it (RFC 7541 section
// 5.1); mask is of these bits.
func appendHpackInt(b []byte, mask byte, n int) []byte {
	if n < int(mask) {
		return append(b, byte(n))
	}
	b = append(b, mask)
	for n -= int(mask); n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func appendHpackFields(b []byte, fields []field) []byte {
	for _, f := range fields {
		b = appendHpackField(b, f.name, f.value)
	}
	return b
}

func appendHpackLength(b []byte, n int64) []byte {
	var text [20]byte
	return appendHpackField(b, []byte("content-length"), strconv.AppendInt(text[:0], n, 10))
}

// appendHpackHeader leaves out what HTTP/2 does not know (RFC 9113 section 8.2.2).
func appendHpackHeader(b []byte, h http.Header) []byte {
	for name, values := range h {
		for _, value := range values {
			if httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value) && (name == "Trailer" || !isHopByHop(name)) {
				b = appendHpackField(b, []byte(name), []byte(value))
			}
		}
	}
	return b
}
