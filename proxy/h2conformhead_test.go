package proxy

import (
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// head is the case of a request that has this header alone.
func head(section, name, want, net string, fields ...string) h2Case {
	return h2Case{section, name, func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields(fields...))
	}, want, net}
}

// body is the case of a request with a length, and one DATA frame.
func body(name, length, text, want, net string) h2Case {
	return h2Case{"8.1.1", name, func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: "+length)
		p.data(1, true, text)
	}, want, net}
}

// block is the case of a header block as bytes, behind a good one.
func block(section, name, want, bytes string) h2Case {
	return h2Case{section, name, func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, bytes)
	}, want, ""}
}

// h2HeaderCases are about what a request's header may be.
var h2HeaderCases = []h2Case{
	head("8.2.1", "an upper-case name", rstProto, "", with("X-Test: y")...),
	head("8.2.1", "a name with a space", rstProto, "", with("x test: y")...),
	head("8.2.1", "a name with a colon", rstProto, "", with("x:test: y")...),
	head("8.2.1", "an empty name", rstProto, "", append(with(), "\x00: y")...),
	head("8.2.1", "LF in a value", rstProto, "", with("x-test: a\nb")...),
	head("8.2.1", "CR in a value", rstProto, "", with("x-test: a\rb")...),
	head("8.2.1", "NUL in a value", rstProto, "", with("x-test: a\x00b")...),
	head("8.2.1", "CR LF in a pseudo field", rstProto, "", with(":path: /\r\nX: y")...),
	head("8.2.2", "connection", "400|"+rstProto, "", with("connection: close")...),
	head("8.2.2", "connection: keep-alive", "400|"+rstProto, "", with("connection: keep-alive")...),
	head("8.2.2", "transfer-encoding", "400|"+rstProto, "", with("transfer-encoding: chunked")...),
	head("8.2.2", "upgrade", "400|"+rstProto, "", with("upgrade: h2c")...),
	head("8.2.2", "keep-alive", "400|"+rstProto, "", with("keep-alive: timeout=5")...),
	head("8.2.2", "proxy-connection", "400|"+rstProto, "", with("proxy-connection: keep-alive")...),
	head("8.2.2", "te: trailers", "200", "", with("te: trailers")...),
	head("8.2.2", "te: trailers, deflate", "400|"+rstProto, "", with("te: trailers, deflate")...),
	head("8.2.2", "te: gzip", "400|"+rstProto, "", with("te: gzip")...),
	head("8.2.2", "te twice", "400|"+rstProto, "", with("te: trailers", "te: gzip")...),
	head("8.2.2", "te: trailers, twice", "400|"+rstProto, "", with("te: trailers", "te: trailers")...),
	head("8.2.3", "cookies in crumbs", "200", "", with("cookie: a=b", "cookie: c=d")...),
	head("8.3", "an unknown pseudo field", rstProto, "", append([]string{":test: x"}, h2Get...)...),
	head("8.3", "a pseudo field of answers", rstProto, "", append([]string{":status: 200"}, h2Get...)...),
	head("8.3", "a pseudo field of answers alone", rstProto, "", ":status: 200"),
	head("8.3", "a pseudo field behind a regular one", rstProto, "", ":method: GET", ":scheme: https", "x-test: y", ":path: /"),
	head("8.3.1", "no :method", rstProto, "", h2Get[1:]...),
	head("8.3.1", "no :scheme", rstProto, "", ":method: GET", ":authority: tool.example", ":path: /"),
	head("8.3.1", "no :path", rstProto, "", ":method: GET", ":scheme: https", ":authority: tool.example"),
	head("8.3.1", "no :authority, and no host", "200|400|"+rstProto, "", ":method: GET", ":scheme: https", ":path: /"),
	head("8.3.1", ":authority without a value", "400|"+rstProto, "200", with(":authority: ")...), // net/http takes it for none
	head("8.3.1", "host instead of :authority", "200", "", ":method: GET", ":scheme: https", ":path: /", "host: tool.example"),
	head("8.3.1", "host beside :authority, alike", "200", "", with("host: tool.example")...),
	head("8.3.1", "host beside :authority, another", "400|421", "", with("host: evil.example")...),
	head("8.3.1", "an empty :path", rstProto, "", with(":path: ")...),
	head("8.3.1", "a :path that is none", "400|"+rstProto, "", with(":path: x")...),
	head("8.3.1", ":method twice", rstProto, "", append([]string{":method: GET"}, h2Get...)...),
	head("8.3.1", ":scheme twice", rstProto, "", append([]string{":scheme: https"}, h2Get...)...),
	head("8.3.1", ":path twice", rstProto, "", append([]string{":path: /"}, h2Get...)...),
	head("8.3.1", ":authority twice", rstProto, "", append([]string{":authority: tool.example"}, h2Get...)...),
	head("8.3.1", "a :scheme that nobody knows", "400|"+rstProto, "", with(":scheme: ftp")...),
	head("8.3.1", "OPTIONS *", "400", "", with(":method: OPTIONS", ":path: *")...),
	head("8.5", "CONNECT", "405", "", ":method: CONNECT", ":authority: tool.example:443"),
	head("8.5", "CONNECT with a path", rstProto, "", with(":method: CONNECT")...),
	head("8441", "extended CONNECT, that we did not offer", rstProto, "", with(":method: CONNECT", ":protocol: websocket")...),
	head("8.3", "nothing at all", rstProto, ""),
	{"6.5.2", "a header list that is too large", func(p *h2Peer) {
		p.greet()
		p.enc.SetMaxDynamicTableSize(0)
		p.inPieces(1, true, 16000, p.fields(with("x-a: "+strings.Repeat("\xfe", 40<<10), "x-b: "+strings.Repeat("\xfe", 10<<10), "x-c: "+strings.Repeat("\xfe", 10<<10))...))
	}, "200|431|" + goCalm + "|" + goProtocol, "closed"},
	{"6.5.2", "a header list of many short fields", func(p *h2Peer) {
		p.greet()
		p.inPieces(1, true, 16000, p.fields(append(with(), repeated("x: y", 3000)...)...))
	}, "431", ""},

	body("a body as long as it says", "5", "hello", "200", ""),
	body("a body shorter than it says", "6", "hello", rstProto, "RST_STREAM INTERNAL_ERROR"),
	body("a body longer than it says", "4", "hello", rstProto, ""),
	body("a body instead of none", "0", "hello", rstProto, ""),
	body("a length that is none", "x", "hello", "400|"+rstProto, ""),
	body("a length below 0", "-5", "hello", "400|"+rstProto, ""),
	body("a length with a sign", "+5", "hello", "400|"+rstProto, ""),
	body("a length that is too large", "99999999999999999999", "hello", "400|"+rstProto, ""),
	{"8.1.1", "two lengths that differ", func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: 5", "content-length: 4")
		p.data(1, true, "hello")
	}, "400|" + rstProto, "200"},
	{"8.1.1", "a length, and no body", func(p *h2Peer) { p.greet(); p.get(1, "content-length: 5") }, rstProto, "200"},
	{"8.1.1", "a body in pieces, shorter than it says", func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: 20000")
		p.data(1, false, nuls(9000))
		p.data(1, true, nuls(9000))
	}, rstProto, "RST_STREAM INTERNAL_ERROR"},
	{"8.1.1", "a body in pieces, longer than it says", func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: 10000")
		p.data(1, false, nuls(9000))
		p.data(1, true, nuls(9000))
	}, rstProto, ""},
	{"8.1.1", "a body shorter than it says, and trailers", func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: 6")
		p.data(1, false, "hello")
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields("x-trailer: y"))
	}, rstProto, "RST_STREAM INTERNAL_ERROR"},
}

func repeated(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// A GET of / by the static table alone, but for the authority.
const h2Static = "\x82\x87\x84\x01\x0ctool.example"

// h2HpackCases are about header blocks. RFC 7541's sections.
var h2HpackCases = []h2Case{
	block("7541 6.1", "by the static table", "200", h2Static),
	block("7541 6.1", "index 0", goHpack, h2Static+"\x80"),
	block("7541 2.3.3", "an index that is not in the table", goHpack, h2Static+"\xfe"),
	block("7541 2.3.3", "the first index of an empty dynamic table", goHpack, h2Static+"\xbe"),
	block("7541 2.3.3", "a name of an index that is not in the table", goHpack, h2Static+"\x7f\x07\x01y"),
	block("7541 5.1", "an integer in more bytes than need be", "200|"+goHpack, h2Static+"\x00\x01x\x7f\x81\x80\x00"+zeroes(128)),
	block("7541 5.1", "an integer without an end", goHpack, h2Static+"\xff"+strings.Repeat("\x80", 10)+"\x01"),
	block("7541 5.1", "an integer over 2^64", goHpack, h2Static+"\xff"+strings.Repeat("\xff", 10)+"\x01"),
	block("7541 5.2", "a string longer than the block", goHpack, h2Static+"\x00\x01x\x7fy"),
	block("7541 5.2", "a block that ends amid a string's length", goHpack, h2Static+"\x00\x01x\x7f"),
	block("7541 5.2", "Huffman's code", "200", h2Static+"\x00\x01x"+string(hpack.AppendHuffmanString([]byte{0x80 | byte(hpack.HuffmanEncodeLength("hello"))}, "hello"))),
	block("7541 5.2", "padding of Huffman's code longer than 7 bits", goHpack, h2Static+"\x00\x01x\x82\x1f\xff"),
	block("7541 5.2", "padding of zeros", goHpack, h2Static+"\x00\x01x\x81\x18"),
	block("7541 5.2", "the end of Huffman's strings, as a symbol", goHpack, h2Static+"\x00\x01x\x84\xff\xff\xff\xff"),
	block("7541 6.3", "a table size at the beginning", "200", "\x3f\xe1\x1f"+h2Static),
	block("7541 6.3", "two table sizes at the beginning", "200", "\x20\x3f\xe1\x1f"+h2Static),
	block("7541 6.3", "a table size over ours", goHpack, "\x3f\xe2\x1f"+h2Static),
	block("7541 6.3", "a table size of 4 GiB", goHpack, "\x3f\xe0\xff\xff\xff\x0f"+h2Static),
	// x/net lets these pass while the table is empty, which then changes nothing.
	block("7541 4.2", "a table size at the end", goHpack+"|200", h2Static+"\x20"),
	block("7541 4.2", "a table size in the middle", goHpack+"|200", "\x82\x20\x87\x84\x01\x0ctool.example"),
	{"7541 4.4", "an entry larger than the table empties it", func(p *h2Peer) {
		p.greet()
		// 127 + 0x01 + 0x20<<7 = 4224 bytes
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, h2Static+"\x40\x01x\x01y"+"\x40\x01z\x7f\x81\x20"+zeroes(4224)+"\xbe")
	}, goHpack, ""},
	{"7541 2.3.2", "the dynamic table from one block to the next", func(p *h2Peer) {
		p.greet()
		p.get(1, "x-kept: "+zeroes(100))
		p.answer(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 3, h2Static+"\xbe")
		p.judged = 3
	}, "200", ""},
	{"7541 2.3.2", "the dynamic table of a request that was refused", func(p *h2Peer) {
		p.greet()
		p.get(3, "Upper: case", "x-kept: "+zeroes(100))
	}, rstProto, ""},
	{"7541 4.2", "a table size in the middle of a table in use", func(p *h2Peer) {
		p.greet()
		p.get(1, "x-kept: "+zeroes(100))
		p.answer(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 3, h2Static+"\x20\xbe")
	}, goHpack, ""},
	{"7541 2.3.2", "the dynamic table behind trailers that nobody wants", func(p *h2Peer) {
		p.greet()
		p.post(3)
		p.frame(http2.FrameRSTStream, 0, 3, u32(8))
		p.frame(http2.FrameHeaders, h2Whole|h2End, 3, p.fields("x-new: 1"))
		p.frame(http2.FrameHeaders, h2Whole|h2End, 5, h2Static+"\xbe")
	}, "ok|" + rstClosed + "|" + goClosed + "|" + goProtocol, ""},
}
