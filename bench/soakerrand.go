package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// errand is a request of the soak: an order, how it is sent, and what has to come of it.
type errand struct {
	order
	kind   string // names it in the log and in the report
	key    soakKey
	method string

	unknown bool          // the body's length is not said ahead
	expect  bool          // Expect: 100-continue
	own     bool          // an Authorization of the client's own, which must not arrive
	slow    time.Duration // between the pieces that the client sends, or reads
	fresh   bool          // over a connection of its own
	leave   leaving       // when the client leaves
}

// problems are what pillion itself has to answer, by the kind of request; to all others it has nothing to say.
var problems = map[string]string{
	soakHangup:   "upstream-unreachable",
	soakNowhere:  "no-credential",
	soakCutShort: "upstream-unreachable", // in the log: the client sees the cut
}

// Kinds that somebody looks for.
const (
	soakHangup   = "hang-up"   // the origin closes instead of answering
	soakCutShort = "cut-short" // the origin closes in the middle of its answer
	soakNowhere  = "nowhere"   // no credential is for that place
)

// errRetried is the client's library having sent a request twice, since a connection that pillion had kept open was not.
var errRetried = errors.New("the connection had ended, and the client had to send again")

// send sends e over client, and checks everything that comes back. The URL is the way's affair.
func (e *errand) send(ctx context.Context, transport http.RoundTripper, url string) error {
	ctx, cancel := context.WithTimeout(ctx, soakPatience)
	defer cancel()
	var connections, hints, wrong int
	used := "a new connection"
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connections++
			if before, ok := lastOn.Swap(info.Conn.LocalAddr().String(), e.kind); ok && info.Reused {
				used = fmt.Sprintf("a connection that had served %v", before)
			}
		},
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			switch {
			case code == http.StatusEarlyHints && strings.HasPrefix(h.Get("Link"), fmt.Sprintf("</style-%d.css>", hints)):
				hints++
			case code != http.StatusContinue || !e.expect:
				wrong++
			}
			return nil
		},
	})
	request, err := e.request(ctx, url)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("over %s: %w", used, err)
	}
	defer response.Body.Close()
	if err := e.check(response); err != nil {
		return err
	}
	switch {
	case connections != 1:
		return errRetried
	case wrong > 0 || hints != e.Hints:
		return fmt.Errorf("%d answers 103 and %d other 1xx ones, want %d", hints, wrong, e.Hints)
	}
	return nil
}

// lastOn is the kind of what a client's connection, named by its address, has served last: what breaks one is often noticed by the next.
var lastOn sync.Map

// soakPatience is when a client gives up: no answer of the soak takes half of it.
const soakPatience = time.Minute

func (e *errand) request(ctx context.Context, url string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, e.method, url, e.body())
	if err != nil {
		return nil, err
	}
	if e.Up > 0 && !e.unknown {
		request.ContentLength = int64(e.Up)
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	if e.expect {
		request.Header.Set("Expect", "100-continue")
	}
	if e.own {
		request.Header.Set("Authorization", "Bearer of-the-client")
	}
	if e.Sent {
		request.Trailer = http.Header{soakTrailer: {e.trailer()}}
	}
	request.Close = e.fresh
	return request, nil
}

// body hides its length, and that it could be sent again: a client's library must not be able to repair what pillion breaks.
func (e *errand) body() io.Reader {
	if e.Up == 0 {
		return nil
	}
	return &slowly{data: e.up(), pause: e.slow}
}

// slowly gives its data in pieces.
type slowly struct {
	data  []byte
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(s.data)
	if s.pause > 0 {
		time.Sleep(s.pause)
		n = min(n, soakPieces)
	}
	n = copy(p, s.data[:n])
	s.data = s.data[n:]
	return n, nil
}

// unhurried reads in pieces.
type unhurried struct {
	io.Reader
	pause time.Duration
}

func (u unhurried) Read(p []byte) (int, error) {
	if u.pause > 0 {
		time.Sleep(u.pause)
		p = p[:min(len(p), soakPieces)]
	}
	return u.Reader.Read(p)
}

// check compares an answer with the order.
func (e *errand) check(r *http.Response) error {
	if problem := problems[e.kind]; problem != "" && e.Cut != cutBody {
		return checkProblem(r, problem)
	}
	status, body := e.status(), e.down()
	if r.StatusCode == http.StatusUnauthorized && e.mayBeRefused() {
		status, body = r.StatusCode, e.refusal()
	}
	if r.StatusCode != status {
		start, _ := io.ReadAll(io.LimitReader(r.Body, 300))
		return fmt.Errorf("status %d, want %d: %s", r.StatusCode, status, printable(start))
	}
	if got := r.Header[http.CanonicalHeaderKey(soakID)]; !slices.Equal(got, []string{fmt.Sprint(e.ID)}) {
		return fmt.Errorf("the answer is that of %q, want %d", got, e.ID)
	}
	if e.method == http.MethodHead || !e.hasBody() {
		body = nil
	} else if !e.Chunked && !e.Trailers && r.ContentLength != int64(len(body)) {
		return fmt.Errorf("a length of %d is said, want %d", r.ContentLength, len(body))
	}
	err := verify(unhurried{r.Body, e.slow}, body)
	if e.Cut == cutBody {
		return checkCut(err, len(body))
	}
	if err != nil {
		return err
	}
	if got := r.Trailer.Get(soakTrailer); e.Trailers && e.method != http.MethodHead && got != e.trailer() {
		return fmt.Errorf("trailer %q, want %q", got, e.trailer())
	}
	return nil
}

// mayBeRefused tells requests whose 401 reaches the client: those of a credential that is never taken, and those that cannot be sent again when a token
// turns out to have been revoked.
func (e *errand) mayBeRefused() bool {
	switch e.key.Kind {
	case keyRefused:
		return true
	case keyOAuth:
		return e.Up > keptForRetry || e.Sent
	}
	return false
}

// keptForRetry is how much of a body pillion keeps, to send it again after a 401.
const keptForRetry = 64 << 10

// checkCut wants what has arrived to be right, and the end to be missed.
func checkCut(err error, whole int) error {
	var broke *different
	switch {
	case err == nil:
		return errors.New("an answer that the origin cut came as a whole")
	case errors.As(err, &broke) && broke.err == nil:
		if broke.at <= whole/2 { // it ended in order, as if that were all
			return fmt.Errorf("an answer that the origin cut ended in order: %w", err)
		}
		return err
	}
	return nil
}

// checkProblem wants a refusal of pillion's own.
func checkProblem(r *http.Response, want string) error {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the problem %s: %w", want, err)
	}
	if r.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(string(text), "urn:pillion:error:"+want) {
		return fmt.Errorf("status %d, %s; want the problem %s", r.StatusCode, printable(text), want)
	}
	return nil
}

// printable shows the beginning of a body that could be a text of pillion's.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return "other bytes"
	}
	return fmt.Sprintf("%q", b[:min(len(b), 300)])
}
