// A module of its own: nothing of Kubernetes becomes a dependency of pillion.
module pillion/deploy/kubernetes/check

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.20.0 // the type Certificate, decoded strictly
	github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring v0.92.0 // the types PodMonitor and PrometheusRule
	go.yaml.in/yaml/v3 v3.0.4 // documents of what was rendered
	k8s.io/api v0.36.3 // Kubernetes' types
	k8s.io/apimachinery v0.36.3 // the strict decoder
	k8s.io/pod-security-admission v0.36.3 // the levels of Pod Security, as API servers judge them
)

require (
	github.com/fxamacker/cbor/v2 v2.9.2 // indirect
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.3-0.20250322232337-35a7c28c31ee // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/text v0.38.0 // indirect
	gopkg.in/inf.v0 v0.9.1 // indirect
	k8s.io/apiextensions-apiserver v0.36.2 // indirect
	k8s.io/component-base v0.36.3 // indirect
	k8s.io/klog/v2 v2.140.0 // indirect
	k8s.io/kube-openapi v0.0.0-20260603220949-865597e52e25 // indirect
	k8s.io/utils v0.0.0-20260507154919-ff6756f316d2 // indirect
	sigs.k8s.io/gateway-api v1.5.0 // indirect
	sigs.k8s.io/json v0.0.0-20250730193827-2d320260d730 // indirect
	sigs.k8s.io/randfill v1.0.0 // indirect
	sigs.k8s.io/structured-merge-diff/v6 v6.4.0 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
