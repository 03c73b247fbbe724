#!/bin/sh
# Builds Kubernetes' API server and kubectl for the tests, puts the definitions of
# the custom resources that deploy/helm uses beside them, and prints the folder: once
# for each state of the module, of this script and version of Go. Where Go's build
# cache has nothing of them, it is minutes.
set -eu
cd "$(dirname "$0")/.."

source=tools/apiserver
state=$( (go version && cat "$source"/go.* "scripts/${0##*/}") | git hash-object --stdin | cut -c 1-12)
dir=$PWD/.test/apiserver-$state

# definitions MODULE@VERSION SUM FILE...: files of a module, if it is the one that was
# looked at.
definitions() {
  module=$1 sum=$2
  shift 2
  about=$(cd "$source" && go mod download -json "$module")
  printf '%s' "$about" | grep -qF "\"Sum\": \"$sum\"" || {
    echo "apiserver.sh: $module is not the one that was looked at: $about" >&2
    exit 1
  }
  from=$(printf '%s' "$about" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  for file in "$@"; do cp "$from/$file" "$dir.$$/definitions/"; done
}

if [ ! -d "$dir" ]; then
  rm -rf .test/apiserver-????????????
  version=$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$source/go.mod")
  minor=${version#v1.}
  at=k8s.io/component-base/version
  mkdir -p "$dir.$$/definitions"
  (cd "$source" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%.*}" -o "$dir.$$/" tool) >&2
  definitions github.com/prometheus-operator/prometheus-operator@v0.93.0 h1:AohlYJT+En8TmNpAcEUJ3GsaJTAqfEBwHmGTVpRm/Io= \
    example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml \
    example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml
  definitions github.com/cert-manager/cert-manager@v1.21.2 h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68= \
    deploy/crds/cert-manager.io_certificates.yaml deploy/crds/cert-manager.io_issuers.yaml
  chmod -R u+w "$dir.$$"
  mv "$dir.$$" "$dir"
fi
echo "$dir"
