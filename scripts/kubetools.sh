#!/bin/sh
# Builds what examines the files for Kubernetes (helm, kustomize, kubeconform), in
# the versions that tools/kubernetes/go.mod pins, and prints the directory that
# they are in: once for each state of that file and version of Go.
set -eu
cd "$(dirname "$0")/.."

source=tools/kubernetes
state=$( (go version && cat "$source"/go.* "scripts/${0##*/}") | git hash-object --stdin | cut -c 1-12)
dir=$PWD/.test/bin/kubetools-$state

if [ ! -d "$dir" ]; then
  # Helm takes the version of Kubernetes that it renders for from its linker.
  kubernetes=helm.sh/helm/v3/pkg/chartutil.k8sVersion
  (cd "$source" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X ${kubernetes}Major=1 -X ${kubernetes}Minor=36" -o "$dir.$$/" \
    helm.sh/helm/v3/cmd/helm sigs.k8s.io/kustomize/kustomize/v5 github.com/yannh/kubeconform/cmd/kubeconform) >&2
  rm -rf "$PWD"/.test/bin/kubetools-????????????
  mv "$dir.$$" "$dir"
fi
echo "$dir"
