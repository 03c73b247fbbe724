package check

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	strict "k8s.io/apimachinery/pkg/runtime/serializer/json"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// decoder refuses what the types of Kubernetes, of the Prometheus operator and of
// cert-manager do not have.
func decoder(t *testing.T) *strict.Serializer {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, apps.AddToScheme, batch.AddToScheme, networking.AddToScheme, disruption.AddToScheme,
		rbac.AddToScheme, admissionregistration.AddToScheme, monitoring.AddToScheme, certmanager.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return strict.NewSerializerWithOptions(strict.DefaultMetaFactory, scheme, scheme, strict.SerializerOptions{Strict: true})
}

func decode(decoder *strict.Serializer, object map[string]any) (runtime.Object, error) {
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	decoded, _, err := decoder.Decode(data, &schema.GroupVersionKind{}, nil)
	return decoded, err
}

// podOf is the pod of a workload; nil of anything else.
func podOf(object runtime.Object) (*meta.ObjectMeta, *core.PodSpec) {
	of := func(template *core.PodTemplateSpec) (*meta.ObjectMeta, *core.PodSpec) {
		return &template.ObjectMeta, &template.Spec
	}
	switch o := object.(type) {
	case *core.Pod:
		return &o.ObjectMeta, &o.Spec
	case *core.PodTemplate:
		return of(&o.Template)
	case *apps.Deployment:
		return of(&o.Spec.Template)
	case *apps.StatefulSet:
		return of(&o.Spec.Template)
	case *apps.DaemonSet:
		return of(&o.Spec.Template)
	case *apps.ReplicaSet:
		return of(&o.Spec.Template)
	case *batch.Job:
		return of(&o.Spec.Template)
	case *batch.CronJob:
		return of(&o.Spec.JobTemplate.Spec.Template)
	}
	return nil, nil
}

// TestStrict: every object has known fields alone, and every pod passes Pod Security
// "restricted", of the newest version and of 1.34, the first that looks at probes.
func TestStrict(t *testing.T) {
	decoder := decoder(t)
	pods := 0
	for name, text := range everything(t) {
		for _, object := range documents(t, text) {
			decoded, err := decode(decoder, object)
			if err != nil {
				t.Errorf("%s: %s: %v", name, named(object), err)
				continue
			}
			metadata, spec := podOf(decoded)
			if spec == nil {
				continue
			}
			pods++
			if problem := restricted(t, metadata, spec); problem != "" {
				t.Errorf("%s: %s: %s", name, named(object), problem)
			}
		}
	}
	if pods < 25 {
		t.Errorf("only %d pods were looked at", pods)
	}
}

func restricted(t *testing.T, metadata *meta.ObjectMeta, spec *core.PodSpec) string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []podsecurity.Version{podsecurity.LatestVersion(), podsecurity.MajorMinorVersion(1, 34)} {
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: version}, metadata, spec))
		if !result.Allowed {
			return fmt.Sprintf("%s: %s", version, result.ForbiddenDetail())
		}
	}
	return ""
}

// TestStrictRefuses: the checks themselves see what is wrong.
func TestStrictRefuses(t *testing.T) {
	decoder := decoder(t)
	container := map[string]any{"name": "app", "image": "a"}
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a"}, "spec": map[string]any{"containers": []any{container}}}
	decoded, err := decode(decoder, pod)
	if err != nil {
		t.Fatal(err)
	}
	metadata, spec := podOf(decoded)
	if problem := restricted(t, metadata, spec); !strings.Contains(problem, "runAsNonRoot") {
		t.Errorf("of a pod without any security context it says %q", problem)
	}
	container["restartpolicy"] = "Always"
	if _, err := decode(decoder, pod); err == nil || !strings.Contains(err.Error(), `unknown field "spec.containers[0].restartpolicy"`) {
		t.Errorf("of an unknown field it says %v", err)
	}
}
