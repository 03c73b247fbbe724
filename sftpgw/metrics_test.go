package sftpgw

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/credstest"
)

// series are the values of a registry, "name{label=value,...}" to value.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			name := fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "pillion_sftp_"), strings.Join(labels, ","))
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	server := credstest.StartSSHD(t, credstest.SSHDOptions{})
	r := newRig(t, func(r *rig) { r.Metrics = NewMetrics(reg) })
	good, bad := r.credential(server, "acme", "sftp.acme.example:22"), r.credential(server, "wrong", "sftp.wrong.example:22")
	bad.HostKeys = []string{"SHA256:" + strings.Repeat("A", 43)}
	r.use(t, good, bad)
	has := func(name string, want float64) {
		t.Helper()
		if got, ok := series(t, reg)[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	for _, c := range []string{"acme", "wrong"} {
		for _, result := range matchedResults {
			has("sessions_total{credential="+c+",result="+result+"}", 0)
		}
		has("bytes_total{credential="+c+",direction=in}", 0)
		has("host_key_mismatches_total{credential="+c+"}", 0)
	}
	for _, result := range unmatchedResults {
		has("sessions_total{credential=,result="+result+"}", 0)
	}
	put(t, r.client(t, "acme"), "a", strings.Repeat("x", 100_000))
	if tryPut(r.client(t, "wrong"), "b", "x") == nil || tryPut(r.client(t, "nobody"), "c", "x") == nil {
		t.Error("uploads that cannot be")
	}
	r.log.wait(t, "sftp session", 3)
	has("sessions_total{credential=acme,result=ok}", 1)
	has("sessions_total{credential=wrong,result="+dialHostKey+"}", 1)
	has("host_key_mismatches_total{credential=wrong}", 1)
	has("sessions_total{credential=,result="+kindNoCredential+"}", 1)
	if in := series(t, reg)["bytes_total{credential=acme,direction=in}"]; in < 100_000 || in > 110_000 {
		t.Error(in, "bytes in")
	}
	old := r.table.Load()
	r.Metrics.Follow(old, creds.NewTable([]*creds.Credential{bad}))
	for name := range series(t, reg) {
		if strings.Contains(name, "acme") {
			t.Error("a credential that has gone has", name)
		}
	}
	known := slices.Concat(unmatchedResults, matchedResults)
	for name := range series(t, reg) {
		if _, result, ok := strings.Cut(name, "result="); ok && !slices.Contains(known, strings.TrimSuffix(result, "}")) {
			t.Error("an unknown result:", name)
		}
	}
}
