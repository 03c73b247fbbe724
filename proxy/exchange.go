package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"pillion/creds"
)

// exchange is one request on its way through the pipeline.
type exchange struct {
	entry         Entry
	target        creds.Target
	plain         *creds.Target // the target as it was asked for in http://, before the upgrade to TLS
	webSocket     bool          // whether the client asks to become one
	early         *earlyAnswers // where 1xx answers of the tool go
	chosen        string        // credential named by the client; "" for none
	path, query   string        // as on the wire, of the target
	credential    *creds.Credential
	authorization *creds.Authorization
	in            atomic.Int64       // bytes read of the request's body
	bodyBroke     atomic.Bool        // whether it could not be read to its end
	uploaded      atomic.Bool        // whether it was
	giveUp        context.CancelFunc // ends the request to the tool; nil where it has no body
	head          time.Duration      // until the answer's head was written
	wrote         bool               // whether it was
}

// uploading reports whether the request has a body that has not all been read.
func (x *exchange) uploading() bool { return x.giveUp != nil && !x.uploaded.Load() }

func newExchange(r *http.Request) *exchange {
	x := &exchange{entry: Entry{Time: time.Now(), Method: r.Method, Protocol: r.Proto}, webSocket: isWebSocket(r)}
	x.path, x.query = wirePath(r.RequestURI)
	x.entry.Path = x.path
	return x
}

// wirePath returns path and query of a request target as they stood on the wire.
// Parsing and printing them again could change what the tool sees. A target that
// has no path, such as CONNECT's, has none here.
func wirePath(uri string) (path, query string) {
	if !strings.HasPrefix(uri, "/") {
		_, rest, ok := strings.Cut(uri, "://")
		if !ok {
			return "", ""
		}
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0:
			return "/", ""
		case rest[i] == '?':
			return "/", rest[i+1:]
		}
		uri = rest[i:]
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

// outgoing builds the request to the tool: same method, path and body, the
// end-to-end fields, and the target's own Host. It takes r's header over.
func outgoing(x *exchange, r *http.Request) *http.Request {
	u := &url.URL{Scheme: x.target.Scheme, Host: hostField(x.target), RawQuery: x.query, ForceQuery: r.URL.ForceQuery}
	if strings.HasPrefix(x.path, "//") {
		// In Opaque this would read as an authority. EscapedPath keeps it as it
		// was, but for characters that no URL may hold.
		u.Path, u.RawPath = r.URL.Path, r.URL.RawPath
		if path, err := url.PathUnescape(x.path); err == nil {
			u.Path, u.RawPath = path, x.path
		}
	} else {
		u.Opaque = x.path
	}
	ctx := r.Context()
	if r.ContentLength != 0 {
		ctx, x.giveUp = context.WithCancel(ctx)
	}
	if x.early != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: x.early.send})
	}
	out := (&http.Request{
		Method:        r.Method,
		URL:           u,
		Host:          u.Host,
		Header:        requestHeader(x, r),
		ContentLength: r.ContentLength,
	}).WithContext(ctx)
	// Over HTTP/2 a request without a body has a Body as well; with one the transport
	// would not send it again, when a connection turns out to have ended.
	if r.ContentLength != 0 {
		out.Trailer = r.Trailer // filled in by net/http behind the body, in place
		cleanTrailer(out.Trailer, nil)
		if out.Trailer != nil {
			// Or the transport reads ahead, to see whether there is a body, while it
			// writes the names of the trailers that the reading fills in.
			out.TransferEncoding = []string{"chunked"}
		}
		out.Body = &countedBody{r.Body, x, out.Trailer}
	}
	return out
}

// hostField is the target as Host: and :authority write it, without its scheme's
// own port.
func hostField(t creds.Target) string {
	if t.Scheme == "https" && t.Port == 443 || t.Scheme == "http" && t.Port == 80 {
		if strings.Contains(t.Host, ":") {
			return "[" + t.Host + "]"
		}
		return t.Host
	}
	return t.Authority()
}

// countedBody counts what passes, and remembers that it broke: net/http hides a
// body's error inside one of its own.
type countedBody struct {
	io.Reader
	x       *exchange
	trailer http.Header
}

// Close leaves the body to the server that reads from the client, which closes it
// behind the answer. Its Close waits for what the client has still to send: the
// transport, which closes a body that it gave up, would hold our answer back.
func (b *countedBody) Close() error { return nil }

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.x.in.Add(int64(n))
	if err == io.EOF {
		cleanTrailer(b.trailer, b.x.authorization)
		b.x.uploaded.Store(true)
	} else if err != nil {
		b.x.bodyBroke.Store(true)
	}
	return n, err
}

// maxReplay bounds the body that is kept for a second try after 401.
const maxReplay = 64 << 10

// keptBody keeps the beginning of a body while it is sent.
type keptBody struct {
	io.ReadCloser
	kept     []byte
	tooLarge bool
	ended    atomic.Bool // whether all of it was read; written before the answer arrives
	none     bool
}

// keepBody keeps out's body, where a second try is possible at all.
func keepBody(out *http.Request, a *creds.Authorization) *keptBody {
	if out.Body == nil {
		return &keptBody{none: true}
	}
	if a.Token == "" || out.ContentLength > maxReplay || len(out.Trailer) > 0 {
		return &keptBody{}
	}
	b := &keptBody{ReadCloser: out.Body}
	out.Body = b
	return b
}

func (b *keptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if len(b.kept)+n > maxReplay {
		b.tooLarge, b.kept = true, nil
	}
	if !b.tooLarge {
		b.kept = append(b.kept, p[:n]...)
	}
	if err == io.EOF && !b.tooLarge {
		b.ended.Store(true)
	}
	return n, err
}

// whole reports whether the request can be sent again from what was kept.
func (b *keptBody) whole() bool { return b.none || b.ended.Load() }

func (b *keptBody) rewind(r *http.Request) {
	if b.none {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(b.kept)))
	r.ContentLength = int64(len(b.kept))
}

// drain reads the rest of a small answer, so that its connection can be used
// again, and closes it.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxReplay)
	_ = body.Close()
}

// ended closes a request's account: its log line, its counts.
func (s *Server) ended(x *exchange) {
	e := &x.entry
	now := time.Now()
	e.In = x.in.Load()
	e.Duration = now.Sub(e.Time)
	if x.authorization != nil && !x.authorization.Issued.IsZero() {
		e.TokenAge = max(0, e.Time.Sub(x.authorization.Issued)) // this request may have waited for it
	}
	s.Metrics.inFlight.Dec()
	s.Metrics.count(e, x.head)
	s.log(e, now)
	s.lastUsed.Store(now.UnixNano())
	s.requests.Add(-1)
}
