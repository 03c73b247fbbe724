#!/usr/bin/env bash
# fuzz.sh TIME: runs each fuzz target of the module for TIME, one after another
# (go test -fuzz takes one at a time), and fails if one of them found something.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-5m}
status=0
for package in $(go list ./...); do
  targets=$(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
  for target in $targets; do
    echo "== $package $target, $time"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 100x "$package" || status=1
  done
done
exit $status
