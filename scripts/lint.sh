#!/usr/bin/env bash
# gofmt, go vet, staticcheck and golangci-lint over every module of ours, with
# the versions that tools/go.mod pins. Runs all of them, then fails if one did.
set -uo pipefail
cd "$(dirname "$0")/.."

bin=$PWD/.test/bin
mkdir -p "$bin"
(cd tools && go build -o "$bin/" honnef.co/go/tools/cmd/staticcheck github.com/golangci/golangci-lint/v2/cmd/golangci-lint) || exit 1

status=0
unformatted=$(gofmt -l . 2>&1)
if [ -n "$unformatted" ]; then
  echo "not gofmt-ed:"
  echo "$unformatted"
  status=1
fi
for module in . bench deploy/compose/check deploy/kubernetes/check; do
  [ -f "$module/go.mod" ] || continue
  (
    cd "$module" || exit 1
    status=0
    go vet ./... || status=1
    "$bin/staticcheck" ./... || status=1
    "$bin/golangci-lint" run --allow-parallel-runners ./... || status=1
    exit $status
  ) || status=1
done
exit $status
