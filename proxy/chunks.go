package proxy

import "golang.org/x/net/http/httpguts"

// chunkScanner follows a chunked body (RFC 9112 section 7.1) beside whoever reads
// it, to know where it ends. It accepts what net/http accepts and nothing that
// another parser could read otherwise: no bare CR or LF, no control character in
// an extension, bounded sizes and trailers.
type chunkScanner struct {
	state  chunkState
	remain int64 // bytes of this chunk's data that are still to come
	digits int   // of the size
	line   int   // bytes of this line, or of all trailers, so far
	excess int64 // bytes that carry no data, beyond what is reasonable
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // hexadecimal digits
	chunkExtension                   // until CR
	chunkSizeLF                      // LF behind the size line
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailerStart // first byte of a trailer line
	chunkTrailerName
	chunkTrailerValue
	chunkTrailerLF
	chunkEndLF // LF of the empty line that ends the body
	chunkDone
)

const (
	maxChunkDigits = 15 // below 2^60: no overflow
	maxChunkLine   = 256
	maxTrailers    = 4000 // with all line ends: net/http wants them within 4096
	maxExcess      = 16 << 10
)

// scan reads on in b and returns how many of its bytes belong to the body. It
// returns less than len(b) only when the body has ended there (done) or err.
func (s *chunkScanner) scan(b []byte) (n int, err error) {
	for n < len(b) && s.state != chunkDone {
		if s.state == chunkData {
			step := int(min(s.remain, int64(len(b)-n)))
			n += step
			s.skip(int64(step))
			continue
		}
		if err := s.step(b[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// skip passes over n bytes of a chunk's data, of which there are that many.
func (s *chunkScanner) skip(n int64) {
	if s.remain -= n; s.remain == 0 {
		s.state = chunkDataCR
	}
}

// inTrailer reports whether the next byte belongs to the trailer section.
func (s *chunkScanner) inTrailer() bool {
	switch s.state {
	case chunkTrailerStart, chunkTrailerName, chunkTrailerValue, chunkTrailerLF, chunkEndLF:
		return true
	}
	return false
}

func (s *chunkScanner) done() bool { return s.state == chunkDone }

// step takes one byte outside chunk data.
func (s *chunkScanner) step(c byte) error {
	switch s.state {
	case chunkSize:
		return s.size(c)
	case chunkExtension:
		return s.extension(c)
	case chunkSizeLF:
		return s.lineEnd(c)
	case chunkDataCR:
		return s.expect(c, '\r', chunkDataLF)
	case chunkDataLF:
		s.digits, s.line = 0, 0
		return s.expect(c, '\n', chunkSize)
	case chunkTrailerStart, chunkTrailerName, chunkTrailerValue:
		return s.trailer(c)
	case chunkTrailerLF:
		return s.expect(c, '\n', chunkTrailerStart)
	case chunkEndLF:
		return s.expect(c, '\n', chunkDone)
	}
	return badRequest("the chunked body goes on behind its end")
}

func (s *chunkScanner) expect(c, want byte, next chunkState) error {
	if c != want {
		return badRequest("the chunked body is out of step")
	}
	s.state = next
	return nil
}

func (s *chunkScanner) size(c byte) error {
	switch {
	case isHex(c) && s.digits < maxChunkDigits:
		s.digits++
		s.remain = s.remain<<4 | int64(hexValue(c))
	case c == ';' && s.digits > 0:
		s.state = chunkExtension
	case c == '\r' && s.digits > 0:
		s.state = chunkSizeLF
	default:
		return badRequest("a chunk size is not a hexadecimal number")
	}
	return nil
}

func (s *chunkScanner) extension(c byte) error {
	s.line++
	switch {
	case c == '\r':
		s.state = chunkSizeLF
	case c < ' ' && c != '\t', c == 0x7f:
		return badRequest("a chunk extension has a control character")
	case s.line > maxChunkLine:
		return badRequest("a chunk extension is longer than %d bytes", maxChunkLine)
	}
	return nil
}

// lineEnd ends a size line. Chunks that are small next to their line are borne
// for a while, as net/http does: a sender may stream single bytes.
func (s *chunkScanner) lineEnd(c byte) error {
	s.excess = max(0, s.excess+int64(s.digits+s.line+2)-16-2*s.remain)
	if s.excess > maxExcess {
		return badRequest("the chunked body is mostly chunk extensions")
	}
	s.line = 0
	if s.remain == 0 {
		return s.expect(c, '\n', chunkTrailerStart)
	}
	return s.expect(c, '\n', chunkData)
}

func (s *chunkScanner) trailer(c byte) error {
	s.line++
	switch {
	case s.line > maxTrailers:
		return badRequest("the trailers are longer than %d bytes", maxTrailers)
	case c == '\r' && s.state == chunkTrailerStart:
		s.state = chunkEndLF
	case c == '\r' && s.state == chunkTrailerValue:
		s.line++ // its LF
		s.state = chunkTrailerLF
	case s.state == chunkTrailerValue && (c >= ' ' || c == '\t') && c != 0x7f:
	case s.state == chunkTrailerName && c == ':':
		s.state = chunkTrailerValue
	case s.state != chunkTrailerValue && httpguts.IsTokenRune(rune(c)):
		s.state = chunkTrailerName
	default:
		return badRequest("a trailer is malformed")
	}
	return nil
}

func hexValue(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// unframe takes the framing out of b[raw:w], in place: what it holds of the body goes
// behind b[:to], and what it holds of trailers behind those of trailer, if that is not
// nil. It returns where both have come to; with an error raw is the byte that is wrong.
func (s *chunkScanner) unframe(b []byte, to, raw, w int, trailer *[]byte) (newTo, newRaw int, err error) {
	for raw < w && !s.done() {
		if s.state == chunkData {
			n := int(min(s.remain, int64(w-raw)))
			if to != raw {
				copy(b[to:], b[raw:raw+n])
			}
			to += n
			raw += n
			s.skip(int64(n))
			continue
		}
		if trailer != nil && s.inTrailer() {
			*trailer = append(*trailer, b[raw])
		}
		if err := s.step(b[raw]); err != nil {
			return to, raw, err
		}
		raw++
	}
	return to, raw, nil
}
