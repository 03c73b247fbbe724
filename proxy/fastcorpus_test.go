package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// requestCorpus is what a client may send: requests in every combination of parts
// that clients, fuzzers and smugglers write, by hand and by dice. TARGET stands for
// the target's beginning: nothing inside a tunnel, http://tool.example outside.
func requestCorpus() []string {
	var all []string
	all = append(all, handWritten()...)
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "get", "PROPFIND", "TRACE", "M-SEARCH", "CONNECTX"} {
		for _, framing := range framings {
			all = append(all, method+" TARGET/m HTTP/1.1\r\nHost: tool.example\r\n"+framing)
		}
	}
	for _, f := range oddFields {
		for _, framing := range framings[:5] {
			all = append(all, "POST TARGET/f HTTP/1.1\r\nHost: tool.example\r\n"+f+framing)
		}
	}
	for _, target := range oddTargets {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			all = append(all, method+" TARGET"+target+" HTTP/1.1\r\nHost: tool.example\r\n\r\n")
		}
	}
	for _, host := range oddHosts {
		all = append(all, "GET TARGET/h HTTP/1.1\r\n"+host+"\r\n")
	}
	return append(all, diced(2000-len(all)/4)...)
}

var framings = []string{
	"\r\n",
	"Content-Length: 0\r\n\r\n",
	"Content-Length: 5\r\n\r\nhello",
	"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"content-length:\t11 \r\n\r\nGET / HTTP/",
	"Transfer-Encoding: Chunked\r\n\r\n1;a=b\r\nx\r\n00a\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	// What must never become two requests.
	"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://tool.example/smuggled HTTP/1.1\r\nHost: tool.example\r\n\r\n",
	"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"transfer_encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
	"Content-Length: 5, 5\r\n\r\nhello",
	"Content-Length: +5\r\n\r\nhello",
	"Content-Length: 05\r\n\r\nhello",
	"Content-Length: 5 5\r\n\r\nhello",
	"Content-Length: 0x5\r\n\r\nhello",
	"Content-Length: -5\r\n\r\nhello",
	"Content-Length: 99999999999999999999\r\n\r\nhello",
	"Content-Length:\r\n\r\n",
	"Content_Length: 5\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n5;\nx\r\nhello\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n0\r\nX y\r\n\r\n",
	"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: mine\r\nContent-Length: 3\r\n\r\n",
	"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\nx\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
}

var oddFields = []string{
	"Authorization: mine\r\n", "authorization: a\r\nAUTHORIZATION: b\r\n", "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n", "Proxy-Authorization: Basic LTo=\r\n",
	"Connection: keep-alive\r\n", "Connection: Keep-Alive, X-Hop\r\nX-Hop: 1\r\n", "Connection: authorization\r\n", "Connection: content-length\r\n",
	"Connection: keep-alive\r\nConnection: keep-alive\r\n", "Proxy-Connection: keep-alive\r\n", "Keep-Alive: timeout=5\r\n",
	"TE: trailers\r\n", "TE: gzip\r\n", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
	"X-Empty:\r\n", "X-Spaces: \t a  b \t \r\n", "X-Bytes: \xff\xfe\xc3\xa9\r\n", "X-Twice: 1\r\nX-Twice: 2\r\nx-twice: 3\r\n", "X-Nul: \x00\r\n", "X-Del: \x7f\r\n",
	"X-Fold: a\r\n b\r\n", " X: leading\r\n", "X\r\n", ": x\r\n", "X : y\r\n", "X\t: y\r\n", "(X): y\r\n", "X-\xc3\xa9: y\r\n", "X_Y: z\r\n",
	"Via: 1.1 x\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\n", "Cookie: a=b; c=d\r\nCookie: e=f\r\n", "User-Agent:\r\n", "Accept-Encoding: gzip\r\n",
	"X-Long: " + strings.Repeat("v", 5000) + "\r\n", strings.Repeat("X-Many: 1\r\n", 70), "Expect:\r\n", "Range: bytes=0-1\r\n", "Date: x\r\n", "Content-Type: text/plain\r\n",
	"X-CR: a\rb\r\n", "\r\n", "Trailer: X-T\r\n", "Trailer: Content-Length\r\n",
}

var oddTargets = []string{
	"/", "/a", "/a?b", "/?", "/a?b?c", "//", "//a", "/a//b", "/.", "/a/../b", "/a/%2e%2e/b", "/%", "/%2", "/%zz", "/%00", "/a?%", "/a?%zz", "/a b", "/a\tb", "/a#b",
	"/\xc3\xa9", "/a?\xff", "/a;b=c", "/a\\b", "/a\"b", "/a<b>", "/{a}", "/a|b", "/^", "/`", "/a\x7fb", "/*", "", "?a", "*", "/" + strings.Repeat("a", 3000), "/a?q=" + strings.Repeat("b", 5000),
	"/http://evil.example/", "/@evil.example/", "/a:b@c",
}

var oddHosts = []string{
	"", "Host:\r\n", "Host: tool.example:443\r\n", "Host: TOOL.example\r\n", "Host: tool.example.\r\n", "Host: evil.example\r\n", "Host: tool.example:80\r\n", "Host: tool.example:0443\r\n",
	"Host: tool.example, evil.example\r\n", "Host: tool.example\r\nHost: tool.example\r\n", "Host: tool.example\r\nhost: evil.example\r\n", "Host: user@tool.example\r\n", "Host: tool.example/a\r\n",
	"Host: tool.example evil.example\r\n", "Host:tool.example\r\n", "Host: \ttool.example \r\n", "Host: [::1]\r\n", "X-Host: evil.example\r\nHost: tool.example\r\n",
	"Host: tool.example:\r\n", "Host: tool%2eexample\r\n", "Host\r\n", "Host : tool.example\r\n",
}

// handWritten are cases of RFC 9112 that the tables do not reach.
func handWritten() []string {
	return []string{
		"\r\nGET TARGET/crlf HTTP/1.1\r\nHost: tool.example\r\n\r\n", // section 2.2
		"GET TARGET/ HTTP/1.0\r\n\r\n",
		"GET TARGET/ HTTP/1.0\r\nHost: tool.example\r\nConnection: keep-alive\r\n\r\n",
		"GET TARGET/ HTTP/1.2\r\nHost: tool.example\r\n\r\n",
		"GET TARGET/ HTTP/2.0\r\nHost: tool.example\r\n\r\n",
		"GET TARGET/ HTTP/1.1 \r\nHost: tool.example\r\n\r\n",
		"GET  TARGET/ HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET TARGET/\r\n\r\n",
		"GET TARGET/ http/1.1\r\nHost: tool.example\r\n\r\n",
		"GET TARGET/ HTTP/1.1\nHost: tool.example\n\n",
		"GET TARGET/ HTTP/1.1\r\nHost: tool.example\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET ftp://tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET HTTP://tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET https://tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET http://tool.example:80/ HTTP/1.1\r\nHost: tool.example:80\r\n\r\n",
		"GET http://tool.example:443/ HTTP/1.1\r\nHost: tool.example:443\r\n\r\n",
		"GET http://u:p@tool.example/ HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET http://tool.example HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET http://tool.example?a=b HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET http:///a HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"GET TARGET/1 HTTP/1.1\r\nHost: tool.example\r\n\r\nPOST TARGET/2 HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 3\r\n\r\nabcGET TARGET/3 HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"POST TARGET/1 HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST TARGET/2 HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET TARGET/3 HTTP/1.1\r\nHost: tool.example\r\n\r\n",
		"POST TARGET/big HTTP/1.1\r\nHost: tool.example\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("0123456789", 20000),
		"POST TARGET/big HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("3e8\r\n"+strings.Repeat("x", 1000)+"\r\n", 150) + "0\r\n\r\n",
		"POST TARGET/tiny HTTP/1.1\r\nHost: tool.example\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", 3000) + "0\r\n\r\n",
		"GET TARGET/ HTTP/1.1\r\nHost: tool.example\r\nX: " + strings.Repeat("v", 70<<10) + "\r\n\r\n",
		"GET TARGET/ HTTP/1.1\r\nHost: tool.example\r\nConnection: close\r\n\r\nGET TARGET/never HTTP/1.1\r\nHost: tool.example\r\n\r\n",
	}
}

// diced puts parts together that the tables above have, from a fixed seed.
func diced(n int) []string {
	dice := rand.New(rand.NewPCG(8, 1))
	pick := func(list []string) string { return list[dice.IntN(len(list))] }
	var all []string
	for range n {
		var b strings.Builder
		for range 1 + dice.IntN(3) {
			target := "/" + fmt.Sprint(dice.IntN(100))
			if dice.IntN(4) == 0 {
				target = pick(oddTargets)
			}
			host := "Host: tool.example\r\n"
			if dice.IntN(12) == 0 {
				host = pick(oddHosts)
			}
			fmt.Fprintf(&b, "%s TARGET%s HTTP/1.1\r\n", pick([]string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"}), target)
			fields := []string{host}
			for range dice.IntN(4) {
				fields = append(fields, pick(oddFields))
			}
			dice.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
			b.WriteString(strings.Join(fields, ""))
			if dice.IntN(3) == 0 {
				b.WriteString(pick(framings))
			} else {
				b.WriteString(pick(framings[:7]))
			}
		}
		text := []byte(b.String())
		if dice.IntN(3) == 0 { // a byte that is lost, doubled or another
			at := dice.IntN(len(text))
			switch dice.IntN(3) {
			case 0:
				text = append(text[:at], text[at+1:]...)
			case 1:
				text = append(text[:at], append([]byte{text[at]}, text[at:]...)...)
			default:
				text[at] = "\r\n\t :;,\x00\xffaZ0/"[dice.IntN(13)]
			}
		}
		all = append(all, string(text))
	}
	return all
}

// answerCorpus is what a tool may answer.
func answerCorpus() []string {
	var all []string
	statuses := []string{"HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 404 Not Found", "HTTP/1.1 500 x", "HTTP/1.1 401 Unauthorized", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 299 Odd"}
	bodies := []string{
		"Content-Length: 2\r\n\r\nhi", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\nh\r\n001\r\ni\r\n0\r\nX-T: 1\r\nProxy-Status: pillion\r\n\r\n", "Connection: close\r\n\r\nhi until the end", "\r\n", "\r\nhi",
		"Content-Length: 2\r\n\r\nhi more than that", "Content-Length: 20\r\n\r\ncut", "Transfer-Encoding: chunked\r\n\r\n14\r\ncut", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
		"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"Transfer-Encoding: gzip\r\n\r\nhi", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: x\r\n\r\nhi", "Content-Length: -1\r\n\r\nhi",
		"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n",
		"Content-Length: 300000\r\n\r\n" + strings.Repeat("0123456789", 30000), "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("ffff\r\n"+strings.Repeat("y", 0xffff)+"\r\n", 4) + "0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nz\r\n", 2000) + "0\r\n\r\n",
	}
	fields := []string{
		"", "X-A: b\r\nX-A: c\r\n", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n", "Keep-Alive: timeout=5\r\n", "Upgrade: h2,h2c\r\nConnection: Upgrade\r\n", "Proxy-Status: pillion; error=x\r\n",
		"Proxy-Authenticate: Basic\r\n", "X-Fold: a\r\n b\r\n", "X-LF: a\nX-B: c\r\n", "X-CR: a\rb\r\n", "X-NUL: \x00\r\n", "X : y\r\n", "no colon\r\n", "X-Bytes: \xff\xe9\r\n", "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n", "WWW-Authenticate: Basic\r\n",
		strings.Repeat("X-Many: 1\r\n", 80), "X-Long: " + strings.Repeat("v", 70<<10) + "\r\n", "Date: x\r\nContent-Type: y\r\n",
	}
	for _, status := range statuses {
		for _, body := range bodies {
			all = append(all, status+"\r\n"+body)
		}
	}
	for _, f := range fields {
		for _, body := range bodies[:6] {
			all = append(all, "HTTP/1.1 200 OK\r\n"+f+body)
		}
	}
	for _, early := range []string{"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 199 x\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 103 x\nLink: x\n\n"} {
		for _, body := range bodies[:4] {
			all = append(all, early+"HTTP/1.1 200 OK\r\n"+body)
		}
	}
	return append(all, "", "\r\n", "HTTP", "HTTP/1.1", "HTTP/1.1 \r\n\r\n", "HTTP/1.1 99 x\r\n\r\n", "HTTP/1.1 600 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\n\nhi")
}
