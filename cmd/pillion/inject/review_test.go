package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// asks sends one request to a webhook and returns what it answers and tells.
func asks(t *testing.T, method, contentType, body string) (*httptest.ResponseRecorder, Admission) {
	t.Helper()
	var told []Admission
	h := &Webhook{Settings: testSettings(), Done: func(a Admission) { told = append(told, a) }}
	r := httptest.NewRequest(method, "/inject", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if len(told) != 1 {
		t.Fatalf("it told of %d admissions", len(told))
	}
	return w, told[0]
}

const smallPod = `{"metadata": {"generateName": "shop-"}, "spec": {"containers": [{"name": "app", "image": "a"}]}}`

func reviewOf(operation, kind, object string) string {
	return fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
		"kind": {"group": "", "version": "v1", "kind": %q}, "namespace": "tools", "operation": %q, "dryRun": true, "object": %s}}`, kind, operation, object)
}

func TestWebhookAdds(t *testing.T) {
	w, a := asks(t, "POST", "application/json", reviewOf("CREATE", "Pod", smallPod))
	var answer struct {
		APIVersion, Kind string
		Response         struct {
			UID, PatchType string
			Allowed        bool
			Patch          []byte
			Status         any
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	r := answer.Response
	if answer.APIVersion != "admission.k8s.io/v1" || answer.Kind != "AdmissionReview" || r.UID != "u-1" || !r.Allowed || r.PatchType != "JSONPatch" || r.Status != nil {
		t.Errorf("it answers %s", w.Body)
	}
	got := patched(t, []byte(smallPod), r.Patch)
	spec := mapping(mapping(got)["spec"])
	if named(spec["initContainers"], Container) == nil || named(named(spec["containers"], "app")["env"], "HTTPS_PROXY") == nil {
		t.Errorf("the patch makes %s", jsonOf(got))
	}
	a.Took = 0
	want := Admission{Result: Injected, Namespace: "tools", Pod: "shop-...", UID: "u-1", DryRun: true, Report: a.Report}
	if !reflect.DeepEqual(a, want) || !reflect.DeepEqual(a.Report.Clients, []string{"app"}) {
		t.Errorf("it tells of %+v", a)
	}
	// The pod as it is now, asked about again.
	w, a = asks(t, "POST", "application/json; charset=utf-8", reviewOf("CREATE", "Pod", string(jsonOf(got))))
	if a.Result != Unchanged || strings.Contains(w.Body.String(), "patch") || !strings.Contains(w.Body.String(), `"allowed":true`) {
		t.Errorf("the second time it is %s: %s", a.Result, w.Body)
	}
}

func TestWebhookLeavesAlone(t *testing.T) {
	unwanted := strings.Replace(smallPod, `"generateName": "shop-"`, `"name": "shop", "labels": {"pillion/inject": "false"}`, 1)
	for _, body := range []string{
		reviewOf("CREATE", "Pod", unwanted),
		reviewOf("UPDATE", "Pod", smallPod),
		reviewOf("DELETE", "Pod", "null"),
		strings.Replace(reviewOf("CREATE", "Pod", smallPod), `"uid"`, `"subResource": "ephemeralcontainers", "uid"`, 1),
	} {
		w, a := asks(t, "POST", "application/json", body)
		if a.Result != Skipped || !strings.Contains(w.Body.String(), `{"uid":"u-1","allowed":true}`) {
			t.Errorf("it is %s: %s\n%s", a.Result, w.Body, body)
		}
	}
}

// A pod that cannot have a sidecar is not let in without one.
func TestWebhookRefuses(t *testing.T) {
	for body, want := range map[string]string{
		reviewOf("CREATE", "Pod", strings.Replace(smallPod, `"image"`, `"env": [{"name": "HTTP_PROXY", "value": "x"}], "image"`, 1)): "container app: it sets HTTP_PROXY itself",
		reviewOf("CREATE", "Pod", `"text"`):           "the object is no JSON",
		reviewOf("CREATE", "Pod", `{"spec": "text"}`): "it has no pod template",
		reviewOf("CREATE", "Deployment", smallPod):    "the webhook is for pods",
	} {
		w, a := asks(t, "POST", "application/json", body)
		var answer review
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		r := answer.Response
		if a.Result != Refused || r.Allowed || r.Patch != nil || r.Status == nil || r.Status.Code != 422 || !strings.HasPrefix(r.Status.Message, "pillion cannot be added: "+want) {
			t.Errorf("it is %s: %s", a.Result, w.Body)
		}
	}
}

func TestWebhookBadRequests(t *testing.T) {
	good := reviewOf("CREATE", "Pod", smallPod)
	for _, row := range []struct {
		method, contentType, body string
		status                    int
	}{
		{"GET", "", "", http.StatusMethodNotAllowed},
		{"POST", "text/plain", good, http.StatusUnsupportedMediaType},
		{"POST", "application/json", "{", http.StatusBadRequest},
		{"POST", "application/json", "{}", http.StatusBadRequest},
		{"POST", "application/json", strings.Replace(good, "k8s.io/v1", "k8s.io/v1beta1", 1), http.StatusBadRequest},
		{"POST", "application/json", strings.Replace(good, "u-1", "", 1), http.StatusBadRequest},
		{"POST", "application/json", `"` + strings.Repeat("x", maxReview), http.StatusRequestEntityTooLarge},
	} {
		w, a := asks(t, row.method, row.contentType, row.body)
		if w.Code != row.status || a.Result != BadRequest || a.Problem == "" {
			t.Errorf("%s %s %.40s: %d, %s %q", row.method, row.contentType, row.body, w.Code, a.Result, a.Problem)
		}
	}
}

// FuzzWebhook: whatever is sent, nothing falls over, and what is allowed with a patch
// has a sidecar afterwards.
func FuzzWebhook(f *testing.F) {
	f.Add([]byte(reviewOf("CREATE", "Pod", smallPod)))
	f.Add([]byte(reviewOf("CREATE", "Pod", `{"spec": {"containers": [{"name": "a", "env": null}], "initContainers": [], "volumes": [null]}}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := &Webhook{Settings: testSettings()}
		r := httptest.NewRequest("POST", "/inject", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var asked, answer review
		if w.Code != 200 {
			return
		}
		if json.Unmarshal(body, &asked) != nil || json.Unmarshal(w.Body.Bytes(), &answer) != nil {
			t.Fatal("it answers what is no JSON")
		}
		if answer.Response.Patch != nil {
			got := patched(t, asked.Request.Object, answer.Response.Patch)
			spec := mapping(mapping(got)["spec"])
			if named(spec["initContainers"], Container) == nil && named(spec["containers"], Container) == nil {
				t.Errorf("there is no sidecar in %s", jsonOf(got))
			}
		}
	})
}
