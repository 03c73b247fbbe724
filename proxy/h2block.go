package proxy

import (
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Head is a header block as it was decoded.
type h2Head struct {
	method, path, scheme, authority string
	protocol                        bool // :protocol stood there
	pseudo                          int  // pseudo-header fields
	fields                          []hpack.HeaderField
	truncated                       bool // the list was too long: fields has its beginning
}

// count is how often a field stands there.
func (h *h2Head) count(name string) (n int) {
	for i := range h.fields {
		if h.fields[i].Name == name {
			n++
		}
	}
	return n
}

// h2Block decodes the header blocks of a connection, one after the other. Each goes
// through the decoder to its end, whatever is wrong with it, or the next would be read
// wrongly.
type h2Block struct {
	h2Head
	decoder *hpack.Decoder
	room    uint32 // of the list (RFC 9113 section 6.5.2)
	invalid bool
}

func (b *h2Block) begin() {
	b.decoder = hpack.NewDecoder(4096, b.field)
	b.decoder.SetMaxStringLength(maxHead)
}

// decode reads the block that begins with f. Its error is of the stream or the
// connection.
func (c *h2Conn) decode(f *http2.HeadersFrame) error {
	b := &c.block
	b.h2Head = h2Head{fields: b.fields[:0]}
	b.room, b.invalid = maxHead, false
	id, fragment, ended := f.StreamID, f.HeaderBlockFragment(), f.HeadersEnded()
	for {
		if _, err := b.decoder.Write(fragment); err != nil {
			return http2.ConnectionError(http2.ErrCodeCompression)
		}
		if ended {
			break
		}
		next, err := c.framer.ReadFrame() // which is at hand: see frameSize
		if err != nil {
			return err
		}
		more, ok := next.(*http2.ContinuationFrame)
		if !ok {
			return h2Protocol
		}
		fragment, ended = more.HeaderBlockFragment(), more.HeadersEnded()
	}
	if b.decoder.Close() != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	if b.invalid {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	return nil
}

// field takes one field of the block, and holds it to RFC 9113 section 8.2.1.
func (b *h2Block) field(f hpack.HeaderField) {
	size := f.Size()
	switch {
	case b.truncated || b.invalid:
	case size > b.room:
		b.truncated = true
	case f.IsPseudo():
		b.invalid = len(b.fields) > 0 || !httpguts.ValidHeaderFieldValue(f.Value) || !b.pseudoField(f)
	case !isWireName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value):
		b.invalid = true
	default:
		b.fields = append(b.fields, f)
	}
	b.room -= min(size, b.room)
}

// pseudoField takes one of a request's, which stand once each.
func (b *h2Block) pseudoField(f hpack.HeaderField) bool {
	b.pseudo++
	var to *string
	switch f.Name {
	case ":method":
		to = &b.method
	case ":path":
		to = &b.path
	case ":scheme":
		to = &b.scheme
	case ":authority":
		to = &b.authority
	case ":protocol":
		b.protocol = true
		return true
	default:
		return false
	}
	if *to != "" || f.Value == "" {
		return false
	}
	*to = f.Value
	return true
}

// isWireName reports whether name is a token without upper case.
func isWireName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !tokenBytes[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return name != ""
}
