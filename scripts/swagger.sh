#!/bin/sh
# Fetches the definitions of Kubernetes' API, as its Go module has them, and prints
# where the file is. The module is in Go's cache afterwards; its sum is pinned here,
# since no go.mod of ours asks for it.
set -eu

module=k8s.io/kubernetes version=v1.36.3
sum=h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=

cd /
said=$(GOFLAGS=-mod=mod GOWORK=off go mod download -json "$module@$version")
field() { printf '%s\n' "$said" | sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }
if [ "$(field Sum)" != "$sum" ]; then
  echo "swagger.sh: $module@$version has the sum $(field Sum), and not $sum" >&2
  exit 1
fi
echo "$(field Dir)/api/openapi-spec/swagger.json"
