package proxy

import (
	"strings"

	"golang.org/x/net/http2"
)

// h2FrameCases are faults of frames that belong to streams.
var h2FrameCases = []h2Case{
	{"6.1", "DATA on stream 0", func(p *h2Peer) { p.greet(); p.data(0, true, "x") }, goProtocol, ""},
	{"6.1", "DATA on an idle stream", func(p *h2Peer) { p.greet(); p.data(1, true, "x") }, goProtocol, ""},
	{"6.1", "padded DATA", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameData, 9, 1, "\x05hello"+nuls(5)) }, "200", ""},
	{"6.1", "DATA that is padding alone", func(p *h2Peer) {
		p.greet()
		p.post(1, "content-length: 0")
		p.frame(http2.FrameData, 9, 1, "\xff"+nuls(255))
	}, "200", ""},
	{"6.1", "padding as long as the payload", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameData, 9, 1, "\x06hello") }, goProtocol, ""},
	{"6.1", "padded DATA without a length of the padding", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameData, 9, 1, "") }, goProtocol, "closed|" + goSize},
	{"6.1", "empty DATA frames", func(p *h2Peer) {
		p.greet()
		p.post(1)
		for range 1000 {
			p.data(1, false, "")
		}
		p.data(1, true, "")
	}, "200", goCalm},
	{"6.2", "HEADERS on stream 0", func(p *h2Peer) { p.greet(); p.get(0) }, goProtocol, ""},
	{"6.2", "padded HEADERS", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End|8, 1, "\x07"+p.fields(h2Get...)+nuls(7))
	}, "200", ""},
	{"6.2", "HEADERS with a priority", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End|0x20, 1, u32(0)+"\x10"+p.fields(h2Get...))
	}, "200", ""},
	{"6.2", "padded HEADERS with a priority", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End|0x28, 1, "\x03"+u32(1<<31|9)+"\x10"+p.fields(h2Get...)+nuls(3))
	}, "200", ""},
	{"6.2", "padding longer than the payload", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End|8, 1, "\xf0"+h2Static)
	}, goProtocol, rstProto},
	{"6.2", "HEADERS too short for its priority", func(p *h2Peer) { p.greet(); p.frame(http2.FrameHeaders, h2Whole|h2End|0x20, 1, "\x00\x00") }, goProtocol + "|" + goSize, "closed"},
	{"6.3", "PRIORITY", func(p *h2Peer) { p.greet(); p.frame(http2.FramePriority, 0, 1, u32(0)+"\x10"); p.get(1) }, "200", ""},
	{"6.3", "PRIORITY of an idle stream above", func(p *h2Peer) { p.greet(); p.frame(http2.FramePriority, 0, 777, u32(3)+"\x10"); p.get(1) }, "200", ""},
	{"6.3", "PRIORITY of a closed stream", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.frame(http2.FramePriority, 0, 1, u32(3)+"\x10") }, "ok", ""},
	{"6.3", "PRIORITY on stream 0", func(p *h2Peer) { p.greet(); p.frame(http2.FramePriority, 0, 0, u32(3)+"\x10") }, goProtocol, ""},
	{"6.3", "PRIORITY of 4 bytes", func(p *h2Peer) { p.greet(); p.frame(http2.FramePriority, 0, 1, u32(3)) }, rstSize + "|" + goSize, ""},
	{"5.3.1", "a stream that depends on itself", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2Whole|h2End|0x20, 1, u32(1)+"\x10"+p.fields(h2Get...))
	}, rstProto + "|200", ""}, // RFC 9113 took the rule away
	{"5.3.1", "PRIORITY that depends on itself", func(p *h2Peer) { p.greet(); p.frame(http2.FramePriority, 0, 777, u32(777)+"\x10"); p.get(1) }, "200|" + rstProto, ""},
	{"6.4", "RST_STREAM on stream 0", func(p *h2Peer) { p.greet(); p.frame(http2.FrameRSTStream, 0, 0, u32(8)) }, goProtocol, ""},
	{"6.4", "RST_STREAM on an idle stream", func(p *h2Peer) { p.greet(); p.frame(http2.FrameRSTStream, 0, 1, u32(8)) }, goProtocol, ""},
	{"6.4", "RST_STREAM of 3 bytes", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameRSTStream, 0, 1, nuls(3)) }, goSize, ""},
	{"6.4", "RST_STREAM with a code nobody knows", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameRSTStream, 0, 1, u32(0xdeadbeef)) }, "ok", ""},
	{"6.4", "RST_STREAM twice", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameRSTStream, 0, 1, u32(8))
		p.frame(http2.FrameRSTStream, 0, 1, u32(8))
	}, "ok", ""},
	{"6.6", "PUSH_PROMISE of a client", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FramePushPromise, h2Whole, 1, u32(2)+p.fields(h2Get...))
	}, goProtocol, ""},
	{"6.6", "PUSH_PROMISE on stream 0", func(p *h2Peer) { p.greet(); p.frame(http2.FramePushPromise, h2Whole, 0, u32(2)+p.fields(h2Get...)) }, goProtocol, ""},
	{"6.9", "WINDOW_UPDATE of 0", func(p *h2Peer) { p.greet(); p.frame(http2.FrameWindowUpdate, 0, 0, u32(0)) }, goProtocol, ""},
	{"6.9", "WINDOW_UPDATE of 0 of a stream", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameWindowUpdate, 0, 1, u32(0)) }, rstProto + "|" + goProtocol, ""},
	{"6.9", "WINDOW_UPDATE of 0 of an idle stream", func(p *h2Peer) { p.greet(); p.frame(http2.FrameWindowUpdate, 0, 1, u32(0)) }, goProtocol, rstProto},
	{"6.9", "WINDOW_UPDATE of 3 bytes", func(p *h2Peer) { p.greet(); p.frame(http2.FrameWindowUpdate, 0, 0, nuls(3)) }, goSize, ""},
	{"6.9", "WINDOW_UPDATE on an idle stream", func(p *h2Peer) { p.greet(); p.frame(http2.FrameWindowUpdate, 0, 1, u32(1)) }, goProtocol, ""},
	{"6.9", "WINDOW_UPDATE on a stream that we would open", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.frame(http2.FrameWindowUpdate, 0, 2, u32(1)) }, goProtocol + "|ok", ""},
	{"6.9.1", "a connection's window over 2^31-1", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<31-1))
		p.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<31-1))
	}, goFlow, ""},
	{"6.9.1", "a stream's window over 2^31-1", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameWindowUpdate, 0, 1, u32(1<<31-1))
		p.frame(http2.FrameWindowUpdate, 0, 1, u32(1<<31-1))
	}, rstFlow, ""},
	{"6.9.2", "an initial window that makes a stream's too large", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameWindowUpdate, 0, 1, u32(1<<30))
		p.frame(http2.FrameSettings, 0, 0, setting(4, 1<<31-1))
	}, goFlow, ""},
	{"6.10", "CONTINUATION", func(p *h2Peer) { p.greet(); p.inPieces(1, true, 1, p.fields(h2Get...)) }, "200", ""},
	{"6.10", "many empty CONTINUATION frames", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		for range 20_000 {
			p.frame(http2.FrameContinuation, 0, 1, "")
		}
	}, goCalm + "|" + goProtocol, "closed|nothing within the time"},
	{"6.10", "CONTINUATION without an end", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		for range 100 {
			p.frame(http2.FrameContinuation, 0, 1, "\x00\x01x\x7f\x81\x07"+zeroes(262))
			p.frame(http2.FrameContinuation, 0, 1, strings.Repeat("\x00\x01x\x01y", 3000))
		}
	}, goCalm + "|" + goProtocol, "closed|431"},
	{"6.10", "CONTINUATION first", func(p *h2Peer) { p.greet(); p.frame(http2.FrameContinuation, h2Whole, 1, p.fields(h2Get...)) }, goProtocol, ""},
	{"6.10", "CONTINUATION behind the end of a header block", func(p *h2Peer) { p.greet(); p.post(1); p.frame(http2.FrameContinuation, h2Whole, 1, p.fields("x: y")) }, goProtocol, ""},
	{"6.10", "CONTINUATION behind DATA", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.data(1, false, "x")
		p.frame(http2.FrameContinuation, h2Whole, 1, p.fields("x: y"))
	}, goProtocol, ""},
	{"6.10", "CONTINUATION of another stream", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		p.frame(http2.FrameContinuation, h2Whole, 3, "")
	}, goProtocol, ""},
	{"6.10", "CONTINUATION on stream 0", func(p *h2Peer) {
		p.greet()
		p.frame(http2.FrameHeaders, h2End, 1, p.fields(h2Get...))
		p.frame(http2.FrameContinuation, h2Whole, 0, "")
	}, goProtocol, ""},
}

// inPieces sends a header block, of so many bytes a frame.
func (p *h2Peer) inPieces(id uint32, end bool, size int, block string) {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = h2End
	}
	for len(block) > size {
		p.frame(kind, flags, id, block[:size])
		block, kind, flags = block[size:], http2.FrameContinuation, 0
	}
	p.frame(kind, flags|h2Whole, id, block)
}

// h2StreamCases are about the states of streams, and their numbers.
var h2StreamCases = []h2Case{
	{"5.1", "DATA behind the end of a body", func(p *h2Peer) { p.greet(); p.get(1); p.data(1, true, "x") }, rstClosed + "|" + goClosed + "|200", ""},
	{"5.1", "DATA behind the end of an open request", func(p *h2Peer) {
		p.greet()
		p.get(1, ":path: /hold")
		p.data(1, true, "x")
	}, rstClosed + "|" + goClosed + "|200", ""},
	{"5.1", "HEADERS behind the end of a body", func(p *h2Peer) { p.greet(); p.get(1); p.get(1) }, rstClosed + "|" + goClosed + "|" + goProtocol + "|200", ""},
	{"5.1", "DATA on a stream that the client gave up", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameRSTStream, 0, 1, u32(8))
		p.data(1, true, "x")
	}, rstClosed + "|" + goClosed + "|ok", ""},
	{"5.1", "HEADERS on a stream that the client gave up", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameRSTStream, 0, 1, u32(8))
		p.get(1)
	}, rstClosed + "|" + goClosed + "|" + goProtocol + "|ok", ""},
	{"5.1", "DATA on a closed stream", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.data(1, true, "x") }, rstClosed + "|" + goClosed + "|ok", ""},
	{"5.1", "HEADERS on a closed stream", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.get(1) }, rstClosed + "|" + goClosed + "|" + goProtocol + "|ok", ""},
	{"5.1", "WINDOW_UPDATE on a closed stream", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.frame(http2.FrameWindowUpdate, 0, 1, u32(9)) }, "ok", ""},
	{"5.1", "RST_STREAM on a closed stream", func(p *h2Peer) { p.greet(); p.get(1); p.answer(1); p.frame(http2.FrameRSTStream, 0, 1, u32(8)) }, "ok", ""},
	{"5.1", "CONTINUATION on a closed stream", func(p *h2Peer) {
		p.greet()
		p.get(1)
		p.answer(1)
		p.frame(http2.FrameContinuation, h2Whole, 1, p.fields("x: y"))
	}, goProtocol + "|" + goClosed, ""},
	{"5.1.1", "an even number", func(p *h2Peer) { p.greet(); p.get(2) }, goProtocol, ""},
	{"5.1.1", "a lower number", func(p *h2Peer) { p.greet(); p.get(5, ":path: /5"); p.get(3) }, goProtocol, ""},
	{"5.1.1", "a number that was left out", func(p *h2Peer) { p.greet(); p.get(11); p.answer(11); p.get(7) }, goProtocol, ""},
	{"5.1.1", "the highest number, and then another", func(p *h2Peer) { p.greet(); p.get(1<<31 - 1); p.answer(1<<31 - 1); p.get(1) }, goProtocol, ""},
	{"5.1.2", "one stream more than are allowed", func(p *h2Peer) {
		p.greet()
		for id := uint32(3); id < 3+2*h2MaxStreams; id += 2 {
			p.post(id)
		}
		p.get(3 + 2*h2MaxStreams)
		for id := uint32(3); id < 3+2*h2MaxStreams; id += 2 {
			p.frame(http2.FrameRSTStream, 0, id, u32(8))
		}
	}, rstRefused + "|" + rstProto, goProtocol},
	{"8.1", "trailers", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.data(1, false, "x")
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields("x-trailer: y"))
	}, "200", ""},
	{"8.1", "trailers behind no body", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields("x-trailer: y"))
	}, "200", ""},
	{"8.1", "a second HEADERS that does not end the stream", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameHeaders, h2Whole, 1, p.fields("x-trailer: y"))
	}, rstProto, goProtocol},
	{"8.1", "pseudo fields in trailers", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields(":method: GET", "x-trailer: y"))
	}, rstProto, goProtocol},
	{"8.1", "an unknown pseudo field in trailers", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields(":x: GET"))
	}, rstProto, goProtocol},
	{"8.1", "an upper-case name in trailers", func(p *h2Peer) {
		p.greet()
		p.post(1)
		p.frame(http2.FrameHeaders, h2Whole|h2End, 1, p.fields("X-T: y"))
	}, rstProto, ""},
}
