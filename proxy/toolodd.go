package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/http/httpguts"
)

// finishOdd reads an answer that is outside the fast engine's subset by net/http,
// which knows all of HTTP/1, and relays it. It is called outside the poll.
func (k *toolAsk) finishOdd() {
	early := bytes.NewReader(bytes.Clone(k.unread()))
	k.release()
	in := &io.LimitedReader{R: io.MultiReader(early, k.up.conn), N: upstreamMaxHead}
	reader := bufio.NewReader(in)
	k.dirty = true
	resp, err := k.readOdd(reader)
	if err != nil {
		k.oddFailed(err)
		return
	}
	defer resp.Body.Close()
	in.N = math.MaxInt64
	k.headAt = time.Now()
	k.oddHead(resp)
	if k.onHead(&k.answer) {
		k.outcome = askDropped
		return
	}
	k.begun = true
	k.sink.begin(&k.answer)
	if err := k.oddBody(resp); err != nil {
		k.oddFailed(err)
		return
	}
	k.outcome = askDone
	k.dirty = resp.Close || reader.Buffered() > 0 || early.Len() > 0
}

func (k *toolAsk) oddFailed(err error) {
	k.outcome, k.err = askBroken, err
	if errors.Is(err, errClientGone) {
		k.outcome = askGone
	}
}

// readOdd returns the final answer.
func (k *toolAsk) readOdd(in *bufio.Reader) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: k.method})
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case resp.StatusCode < 100 || resp.StatusCode > 999:
			return nil, errors.New("the tool's status code is none")
		case resp.StatusCode >= 200:
			return resp, nil
		}
		if k.heads++; k.heads > maxEarlyAnswers {
			return nil, errEarlyAnswers
		}
		if resp.StatusCode != http.StatusContinue {
			k.oddHead(resp)
			if err := k.sink.early(&k.answer); err != nil {
				return nil, err
			}
		}
	}
}

// oddHead makes the head of resp the answer's.
func (k *toolAsk) oddHead(resp *http.Response) {
	a := &k.answer
	*a = toolAnswer{status: resp.StatusCode, length: resp.ContentLength, fields: a.fields[:0], trailers: a.trailers[:0], closing: resp.Close}
	a.bodyless = k.method == http.MethodHead || a.status == http.StatusNoContent || a.status == http.StatusNotModified || a.status < 200
	h := http.Header{}
	toolsFields(h, resp.Header)
	delete(h, "Content-Length")
	for name := range resp.Trailer {
		h.Add("Trailer", name)
		a.length = -1 // HTTP/1.1 has room for trailers behind chunks alone
	}
	a.fields = headerFields(a.fields, h)
}

func headerFields(fields []field, h http.Header) []field {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				continue // net/http reads more than it writes
			}
			fields = append(fields, field{[]byte(name), []byte(value)})
		}
	}
	return fields
}

func (k *toolAsk) oddBody(resp *http.Response) error {
	buf := relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	defer relayBuffers.Put(buf)
	b := *buf
	const from = 8 * roomBefore
	if k.answer.length < 0 && !k.answer.bodyless {
		if err := k.sink.data(b, from, from, false); err != nil { // the body may take its time
			return err
		}
	}
	for {
		n, err := resp.Body.Read(b[from : len(b)-roomAfter])
		last := errors.Is(err, io.EOF)
		if last {
			trailers := http.Header{}
			toolsFields(trailers, resp.Trailer)
			delete(trailers, "Content-Length")
			k.answer.trailers = headerFields(k.answer.trailers, trailers)
		}
		if n > 0 || last || err == nil {
			if sent := k.sink.data(b, from, from+n, last); sent != nil {
				return sent
			}
		}
		if last {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
