package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pillion/creds/console"
)

// prometheusLive is what the page tells of the requests of a fleet, asked of the
// Prometheus that reads the fleet's metrics. That knows no single requests.
type prometheusLive struct {
	url  string // as in the configuration, without a slash at its end
	http *http.Client
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	asked   time.Time
	known   bool // the last time that it was asked it answered
	usage   map[string]console.Usage
	minutes []console.Minute
}

var _ console.Live = (*prometheusLive)(nil)

const (
	prometheusFresh   = 30 * time.Second // how long an answer is used
	prometheusRetry   = 5 * time.Second  // and that there is none
	prometheusTimeout = 5 * time.Second  // for all questions together
	prometheusBack    = 24 * time.Hour   // how far back use is looked for
	prometheusStep    = 10 * time.Minute // how exactly
	shownClients      = 20
)

func newPrometheusLive(address string, log *slog.Logger) *prometheusLive {
	return &prometheusLive{
		url: strings.TrimRight(address, "/"), log: log, now: time.Now,
		http: &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, // Proxy is nil: in a pod that would be us
	}
}

// Source says whose requests they are.
func (l *prometheusLive) Source() string {
	return "requests of the last 24 hours through all pillions that Prometheus reads"
}

// Usage returns who used a credential; false while Prometheus does not answer.
func (l *prometheusLive) Usage(name string) (console.Usage, bool) {
	l.refresh()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usage[name], l.known
}

// Requests are none: Prometheus counts, and keeps none of them.
func (*prometheusLive) Requests(int) []console.Request { return nil }

// Minutes returns the last hour.
func (l *prometheusLive) Minutes() []console.Minute {
	l.refresh()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.minutes)
}

// refresh asks again when the last answers are old. One that waits keeps the others
// waiting for the same answers.
func (l *prometheusLive) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, fresh := l.now(), prometheusFresh
	if !l.known {
		fresh = prometheusRetry
	}
	if now.Sub(l.asked) < fresh {
		return
	}
	l.asked = now
	ctx, cancel := context.WithTimeout(context.Background(), prometheusTimeout)
	defer cancel()
	if err := l.ask(ctx, now); err != nil {
		if l.known || l.usage == nil {
			l.log.Warn("Prometheus does not answer the page", "problem", err.Error())
		}
		l.known, l.usage, l.minutes = false, map[string]console.Usage{}, nil
		return
	}
	l.known = true
}

// usedSeries are what counts the use of a credential: requests, and sessions of SFTP.
const usedSeries = `{__name__=~"pillion_requests_total|pillion_sftp_sessions_total",credential!=""}`

// hourQueries are what the last hour is made of, in steps of hourStep: there are two
// samples in each also where Prometheus looks but once a minute.
var hourQueries = []struct {
	expression string
	of         func(*console.Minute) *int
}{
	{`sum(increase({__name__=~"pillion_requests_total|pillion_sftp_sessions_total"}[5m]))`, func(m *console.Minute) *int { return &m.Requests }},
	{`sum(increase(pillion_requests_total{code=~"[45].*"}[5m]) or increase(pillion_sftp_sessions_total{result!="ok"}[5m]))`, func(m *console.Minute) *int { return &m.Errors }},
}

const hourStep = 5 // minutes

// ask fills usage and minutes. The caller holds mu.
func (l *prometheusLive) ask(ctx context.Context, now time.Time) error {
	pillions, err := l.query(ctx, `count(pillion_build_info)`, now, 0, 0)
	if err != nil {
		return err
	}
	if len(pillions) == 0 {
		return errors.New("it reads the metrics of no pillion")
	}
	usage, err := l.askUsage(ctx, now)
	if err != nil {
		return err
	}
	minutes := make([]console.Minute, 60)
	for _, q := range hourQueries {
		found, err := l.query(ctx, q.expression, now, (60-hourStep)*time.Minute, hourStep*time.Minute)
		if err != nil {
			return err
		}
		for _, s := range found {
			for _, p := range s.points {
				last := 59 - int(now.Sub(p.at).Round(time.Minute)/time.Minute)
				spread(minutes, last, int(p.value+0.5), q.of)
			}
		}
	}
	l.usage, l.minutes = usage, minutes
	return nil
}

// spread puts what was counted in a step onto its minutes, of which the last is given;
// the sum stays.
func spread(minutes []console.Minute, last, n int, of func(*console.Minute) *int) {
	for i := range hourStep {
		if at := last - i; at >= 0 && at < len(minutes) {
			share := n / (hourStep - i)
			*of(&minutes[at]) += share
			n -= share
		}
	}
}

// askUsage asks who used what in the last 24 hours, and when last.
func (l *prometheusLive) askUsage(ctx context.Context, now time.Time) (map[string]console.Usage, error) {
	used, err := l.query(ctx, `sum by (credential, namespace, pod, instance) (increase(`+usedSeries+`[24h])) > 0`, now, 0, 0)
	if err != nil {
		return nil, err
	}
	steps, err := l.query(ctx, `sum by (credential) (increase(`+usedSeries+`[10m])) > 0`, now, prometheusBack, prometheusStep)
	if err != nil {
		return nil, err
	}
	usage := map[string]console.Usage{}
	for _, s := range used {
		u := usage[s.Metric["credential"]]
		u.Requests += int(s.last().value + 0.5)
		if client := clientOf(s.Metric); client != "" && len(u.Clients) < shownClients {
			u.Clients = append(u.Clients, client)
		}
		usage[s.Metric["credential"]] = u
	}
	for name, u := range usage {
		slices.Sort(u.Clients)
		u.Last = now // within the last step, unless that knows better
		usage[name] = u
	}
	for _, s := range steps {
		u := usage[s.Metric["credential"]]
		u.Last = s.last().at
		usage[s.Metric["credential"]] = u
	}
	return usage, nil
}

// clientOf names a pod by what Prometheus knows of it.
func clientOf(labels map[string]string) string {
	if pod := labels["pod"]; pod != "" && labels["namespace"] != "" {
		return labels["namespace"] + "/" + pod
	}
	return cmp.Or(labels["pod"], labels["instance"])
}

// series is one of an answer of Prometheus.
type series struct {
	Metric map[string]string `json:"metric"`
	Value  *point            `json:"value"`  // of an instant
	Values []point           `json:"values"` // of a range

	points []point
}

func (s series) last() point {
	if len(s.points) == 0 {
		return point{}
	}
	return s.points[len(s.points)-1]
}

// point is [seconds, "value"].
type point struct {
	at    time.Time
	value float64
}

func (p *point) UnmarshalJSON(data []byte) error {
	var pair [2]any
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	seconds, ok1 := pair[0].(float64)
	text, ok2 := pair[1].(string)
	value, err := strconv.ParseFloat(text, 64)
	if !ok1 || !ok2 || err != nil || value < 0 || value > 1e15 {
		return errors.New("a value that is none")
	}
	p.at, p.value = time.UnixMilli(int64(seconds*1000)), value
	return nil
}

// query asks for an instant, or with back for a range that ends now.
func (l *prometheusLive) query(ctx context.Context, expression string, now time.Time, back, step time.Duration) ([]series, error) {
	form, path := url.Values{"query": {expression}, "time": {unix(now)}}, "/api/v1/query"
	if back > 0 {
		form, path = url.Values{"query": {expression}, "start": {unix(now.Add(-back))}, "end": {unix(now)}, "step": {strconv.Itoa(int(step.Seconds()))}}, "/api/v1/query_range"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("console.prometheus is no URL")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := l.http.Do(request)
	if err != nil {
		return nil, errors.New(rootCause(err))
	}
	defer response.Body.Close()
	var answer struct {
		Status string `json:"status"`
		Data   struct {
			Result []series `json:"result"`
		} `json:"data"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, 16<<20)).Decode(&answer)
	if err != nil || response.StatusCode != http.StatusOK || answer.Status != "success" {
		return nil, fmt.Errorf("it answers %d, and not as Prometheus does", response.StatusCode)
	}
	for i := range answer.Data.Result {
		s := &answer.Data.Result[i]
		if s.points = s.Values; s.Value != nil {
			s.points = []point{*s.Value}
		}
	}
	return answer.Data.Result, nil
}

// unix is a time as Prometheus takes it, to the millisecond: of a whole second the last
// samples would be missing.
func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
