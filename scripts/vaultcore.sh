#!/bin/sh
# Builds the Vault of the tests and prints where the program is: once for each
# state of its sources and version of Go, since even to find it up to date takes
# seconds. Where Go's build cache has nothing of it, it is minutes.
set -eu
cd "$(dirname "$0")/.."

source=creds/credstest/vaultcore
bin=$PWD/.test/bin
state=$( (go version && cat "$source"/*.go "$source"/go.* "$source"/stubs/*/go.mod "$source"/stubs/okta/okta/*.go \
  "$source"/stubs/discover/*.go "$source"/stubs/discover/provider/k8s/*.go) | git hash-object --stdin | cut -c 1-12)
program=$bin/vaultcore-$state

if [ ! -x "$program" ]; then
  mkdir -p "$bin"
  (cd "$source" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off \
    go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$program.$$" .) >&2
  rm -f "$bin"/vaultcore-????????????
  mv "$program.$$" "$program"
fi
echo "$program"
