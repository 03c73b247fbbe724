module pillion/deploy/kubernetes/check

go 1.26.0

require (
	k8s.io/api v0.36.3 // indirect
	k8s.io/apimachinery v0.36.3 // indirect
	k8s.io/pod-security-admission v0.36.3 // indirect
)
