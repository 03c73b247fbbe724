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
	return "the last 24 hours of all pillions that Prometheus reads"
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
	now := l.now()
	if now.Sub(l.asked) < prometheusFresh {
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

// ask fills usage and minutes. The caller holds mu.
func (l *prometheusLive) ask(ctx context.Context, now time.Time) error {
	used, err := l.query(ctx, `sum by (credential, namespace, pod, instance) (increase(pillion_requests_total{credential!=""}[24h])) > 0`, now, 0, 0)
	if err != nil {
		return err
	}
	steps, err := l.query(ctx, `sum by (credential) (increase(pillion_requests_total{credential!=""}[10m])) > 0`, now, prometheusBack, prometheusStep)
	if err != nil {
		return err
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
		usage[name] = u
	}
	for _, s := range steps {
		u := usage[s.Metric["credential"]]
		u.Last = s.last().at
		usage[s.Metric["credential"]] = u
	}
	minutes := make([]console.Minute, 60)
	for expression, count := range map[string]func(*console.Minute, int){
		`sum(increase(pillion_requests_total[1m]))`:                 func(m *console.Minute, n int) { m.Requests = n },
		`sum(increase(pillion_requests_total{code=~"[45].*"}[1m]))`: func(m *console.Minute, n int) { m.Errors = n },
	} {
		series, err := l.query(ctx, expression, now, 59*time.Minute, time.Minute)
		if err != nil {
			return err
		}
		for _, s := range series {
			for _, p := range s.points {
				if i := 59 - int(now.Sub(p.at)/time.Minute); i >= 0 && i < 60 {
					count(&minutes[i], int(p.value+0.5))
				}
			}
		}
	}
	l.usage, l.minutes = usage, minutes
	return nil
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

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
