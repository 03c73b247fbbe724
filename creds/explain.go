package creds

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Explanation says which credential a target gets and why, or which ones it
// nearly matches. It holds no secret, so it may be printed and marshalled.
type Explanation struct {
	Target        string            `json:"target"`
	Credential    string            `json:"credential,omitempty"`
	InstanceURL   string            `json:"instance_url,omitempty"`
	Authorization AuthorizationType `json:"authorization,omitempty"`
	Reason        string            `json:"reason"`
	Misses        []Miss            `json:"nearest_misses,omitempty"` // the nearest first
	Err           error             `json:"-"`                        // what Match returned
}

// Miss is a credential that does not match, and each thing that differs.
type Miss struct {
	Credential  string   `json:"credential"`
	InstanceURL string   `json:"instance_url"`
	Reasons     []string `json:"reasons"`
}

// maxMisses is how many near misses are worth a person's reading.
const maxMisses = 5

// Explain tells what Match does with target. It looks at every credential, so
// it is for people, not for requests.
func (t *Table) Explain(target Target) Explanation {
	e := Explanation{Target: target.URL()}
	c, err := t.Match(target)
	if err == nil {
		e.Credential, e.InstanceURL, e.Authorization = c.Name, c.URL, c.Authorization
		e.Reason = matchReason(t.byName[c.Name].instance)
		return e
	}
	e.Err, e.Reason = err, err.Error()
	var none *NoMatchError
	if errors.As(err, &none) {
		e.Misses = t.misses(target)
	}
	return e
}

func matchReason(instance Target) string {
	reason := "scheme, host and port are those of its instance URL"
	if instance.Path != "/" {
		reason += ", and " + strings.TrimSuffix(instance.Path, "/") + " is the longest path prefix that matches"
	}
	return reason
}

func (t *Table) misses(target Target) []Miss {
	type ranked struct {
		Miss
		distance int
	}
	var near []ranked
	for _, c := range t.sorted {
		instance := t.byName[c.Name].instance
		if instance.Host == "" {
			continue
		}
		if reasons, distance := differences(instance, target); distance < tooFar {
			near = append(near, ranked{Miss{c.Name, c.URL, reasons}, distance})
		}
	}
	slices.SortStableFunc(near, func(a, b ranked) int { return cmp.Compare(a.distance, b.distance) })
	var out []Miss
	for _, m := range near[:min(len(near), maxMisses)] {
		out = append(out, m.Miss)
	}
	return out
}

// tooFar is the distance of a credential that has nothing to do with a target.
// A difference in the host weighs more than all others together.
const tooFar = 100

func differences(instance, target Target) (reasons []string, distance int) {
	note := func(weight int, format string, args ...any) {
		reasons = append(reasons, fmt.Sprintf(format, args...))
		distance += weight
	}
	if instance.Host != target.Host {
		text, weight := hostDifference(instance.Host, target.Host)
		if weight >= tooFar || (instance.Scheme == string(SFTP)) != (target.Scheme == string(SFTP)) {
			return nil, tooFar // a file server of a similar name is no slip of the pen
		}
		note(weight, "%s: the credential is for %s, the request for %s", text, instance.Host, target.Host)
	}
	if instance.Scheme != target.Scheme {
		note(3, "scheme differs: the credential is for %s, the request for %s", instance.Scheme, target.Scheme)
	}
	if instance.Port != target.Port {
		note(2, "port differs: the credential is for %d, the request for %d", instance.Port, target.Port)
	}
	switch {
	case covers(instance.Path, target.Path):
	case covers(strings.ToLower(instance.Path), strings.ToLower(target.Path)):
		note(1, "path prefix differs in upper and lower case only: the credential is for %s", strings.TrimSuffix(instance.Path, "/"))
	default:
		note(1, "path prefix differs: the credential is for %s", strings.TrimSuffix(instance.Path, "/"))
	}
	return reasons, distance
}

// hostDifference knows the ways in which people get a host name wrong.
func hostDifference(have, want string) (text string, weight int) {
	switch {
	case strings.HasSuffix(want, "."+have):
		return "host differs: a credential covers its own host only, not the names below it", 20
	case strings.HasSuffix(have, "."+want):
		return "host differs: the credential is for a name below the request's host", 20
	case strings.HasPrefix(want, have+"."):
		return "host differs: the request's host only begins like the credential's", 30
	}
	switch editDistance(have, want, 2) {
	case 1:
		return "host differs in one character", 10
	case 2:
		if len(have) > 6 { // in a short name two characters are half of it
			return "host differs in two characters", 15
		}
	}
	return "", tooFar
}

// editDistance counts the insertions, deletions and replacements between two
// names, as far as limit, and returns limit+1 beyond it. It keeps one row of the
// usual table and stops when the whole row is too far.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner, best := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			replace := corner
			if a[i] != b[j] {
				replace++
			}
			corner = row[j+1]
			row[j+1] = min(replace, row[j]+1, corner+1)
			best = min(best, row[j+1])
		}
		if best > limit {
			return limit + 1
		}
	}
	return min(row[len(b)], limit+1)
}
