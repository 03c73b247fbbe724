package proxy

import "testing"

// A token that its first request has waited for is younger than that request: its
// age there is 0, and not below.
func TestTokenAge(t *testing.T) {
	r, _ := oauthRig(t)
	age := func() float64 {
		t.Helper()
		response, err := r.client("").Get("http://tool.example/x")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return r.entry().TokenAge.Seconds()
	}
	if first := age(); first != 0 {
		t.Errorf("at its first request the token is %g s old", first)
	}
	if second := age(); second <= 0 {
		t.Errorf("at the next request it is %g s old", second)
	}
}
