package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// maxReview is what an API server takes as one object (1.5 MiB in etcd, 3 MiB as a
// request), and room for what it wraps around it.
const maxReview = 8 << 20

// Webhook answers the admission requests of an API server (AdmissionReview of
// admission.k8s.io/v1, POST): of a pod that is created, with the patch that adds
// pillion. A pod that cannot have it is refused, with the reason.
type Webhook struct {
	Settings Settings
	// Done is told of every request. If nil, nobody is.
	Done func(Admission)
}

// Result is how an admission ended.
type Result string

// The results of admissions.
const (
	Injected   Result = "injected"
	Unchanged  Result = "unchanged" // everything was there
	Skipped    Result = "skipped"   // the pod wants nothing, or is not one that is created
	Refused    Result = "refused"   // the pod cannot have it
	BadRequest Result = "bad_request"
)

// Results are all of them.
var Results = []Result{Injected, Unchanged, Skipped, Refused, BadRequest}

// Admission is one request, for the log and the metrics.
type Admission struct {
	Result         Result
	Namespace, Pod string
	UID            string // of the request, as the API server's audit log has it
	DryRun         bool
	Report         Report
	Problem        string // why it was refused
	Took           time.Duration
}

// review is AdmissionReview, as far as it concerns us.
type review struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Request    *reviewRequest  `json:"request,omitempty"`
	Response   *reviewResponse `json:"response,omitempty"`
}

type reviewRequest struct {
	UID  string `json:"uid"`
	Kind struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
	} `json:"kind"`
	SubResource string          `json:"subResource"`
	Namespace   string          `json:"namespace"`
	Operation   string          `json:"operation"`
	Object      json.RawMessage `json:"object"`
	DryRun      bool            `json:"dryRun"`
}

type reviewResponse struct {
	UID       string        `json:"uid"`
	Allowed   bool          `json:"allowed"`
	Status    *reviewStatus `json:"status,omitempty"`
	PatchType string        `json:"patchType,omitempty"`
	Patch     []byte        `json:"patch,omitempty"` // base64, as encoding/json writes bytes
	Warnings  []string      `json:"warnings,omitempty"`
}

type reviewStatus struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"
)

func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	request, status, err := readReview(w, r)
	if err != nil {
		h.done(Admission{Result: BadRequest, Problem: err.Error(), Took: time.Since(begun)})
		http.Error(w, err.Error(), status)
		return
	}
	a := Admission{Namespace: request.Namespace, UID: request.UID, DryRun: request.DryRun}
	response := h.review(request, &a)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review{reviewVersion, reviewKind, nil, response})
	a.Took = time.Since(begun)
	h.done(a)
}

func (h *Webhook) done(a Admission) {
	if h.Done != nil {
		h.Done(a)
	}
}

// readReview returns what is asked, or the HTTP status that says what is wrong.
func readReview(w http.ResponseWriter, r *http.Request) (*reviewRequest, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("this is an admission webhook: POST an AdmissionReview")
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, http.StatusUnsupportedMediaType, errors.New("the content type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the request is larger than %d MiB", maxReview>>20)
	}
	if err != nil {
		return nil, http.StatusBadRequest, errors.New("the request was cut")
	}
	var asked review
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, http.StatusBadRequest, errors.New("the request is no JSON")
	}
	if asked.APIVersion != reviewVersion || asked.Kind != reviewKind || asked.Request == nil || asked.Request.UID == "" {
		return nil, http.StatusBadRequest, fmt.Errorf("the request is no %s of %s: write that into admissionReviewVersions", reviewKind, reviewVersion)
	}
	return asked.Request, http.StatusOK, nil
}

// review decides, and fills in what is said of it.
func (h *Webhook) review(request *reviewRequest, a *Admission) *reviewResponse {
	response := &reviewResponse{UID: request.UID, Allowed: true}
	refuse := func(err error) *reviewResponse {
		a.Result, a.Problem = Refused, err.Error()
		response.Allowed = false
		response.Status = &reviewStatus{http.StatusUnprocessableEntity, "Invalid", "pillion cannot be added: " + err.Error()}
		return response
	}
	if request.Kind.Group != "" || request.Kind.Kind != "Pod" {
		return refuse(fmt.Errorf("the webhook is for pods, and was asked about a %s: name pods alone in its rules", request.Kind.Kind))
	}
	if request.Operation != "CREATE" || request.SubResource != "" {
		a.Result = Skipped
		return response
	}
	patch, report, err := Pod(request.Object, h.Settings)
	a.Pod, a.Report = report.Name, report
	if err != nil {
		return refuse(err)
	}
	for _, w := range report.Warnings {
		response.Warnings = append(response.Warnings, "pillion: "+w)
	}
	switch {
	case report.Skipped != "":
		a.Result = Skipped
	case !report.Added:
		a.Result = Unchanged
	default:
		a.Result = Injected
		response.PatchType, response.Patch = "JSONPatch", patch
	}
	return response
}
