package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What Prometheus answers is read as it documents its API; while it does not answer,
// nothing is said to be known.
func TestConsoleFromPrometheus(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var broken atomic.Bool
	var asked atomic.Int64
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		query := r.FormValue("query")
		switch {
		case broken.Load():
			http.Error(w, "no", http.StatusBadGateway)
		case strings.Contains(query, "build_info"):
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"2"]}]}}`, now.Unix())
		case strings.Contains(query, "pod"):
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[
				{"metric":{"credential":"jira","namespace":"tools","pod":"b"},"value":[%d,"10.4"]},
				{"metric":{"credential":"jira","namespace":"tools","pod":"a"},"value":[%d.5,"2"]},
				{"metric":{"credential":"itsm","instance":"10.0.0.1:9180"},"value":[%d,"1"]}]}}`, now.Unix(), now.Unix(), now.Unix())
		case strings.Contains(query, "[10m]"):
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"credential":"jira"},"values":[[%d,"3"],[%d,"9"]]}]}}`, now.Unix()-7200, now.Unix()-1200)
		case strings.Contains(query, "[45]"):
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[%d,"1"]]}]}}`, now.Unix())
		default:
			fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[%d,"4"],[%d,"7"]]}]}}`, now.Unix()-55*60, now.Unix())
		}
	}))
	defer prometheus.Close()
	l := newPrometheusLive(prometheus.URL+"/", slog.New(slog.DiscardHandler))
	l.now = func() time.Time { return now }
	jira, known := l.Usage("jira")
	if !known || jira.Requests != 12 || strings.Join(jira.Clients, " ") != "tools/a tools/b" || now.Sub(jira.Last) != 20*time.Minute {
		t.Errorf("jira: %+v, %v", jira, known)
	}
	if itsm, _ := l.Usage("itsm"); strings.Join(itsm.Clients, " ") != "10.0.0.1:9180" || !itsm.Last.Equal(now) {
		t.Errorf("itsm: %+v", itsm)
	}
	if nobody, known := l.Usage("nobody"); !known || nobody.Requests != 0 {
		t.Errorf("nobody: %+v, %v", nobody, known)
	}
	m := l.Minutes()
	if len(m) != 60 || m[0].Requests != 1 || m[4].Requests != 0 || m[59].Requests != 1 || m[55].Requests != 2 || m[55].Errors != 1 || m[59].Errors != 0 || m[30].Requests != 0 {
		t.Errorf("minutes: %+v", m)
	}
	if asked.Load() != 5 {
		t.Errorf("it was asked %d times", asked.Load())
	}
	broken.Store(true)
	now = now.Add(time.Minute)
	if _, known := l.Usage("jira"); known {
		t.Error("it is known although Prometheus does not answer")
	}
	if l.Minutes() != nil {
		t.Error("the last hour is known although Prometheus does not answer")
	}
}
