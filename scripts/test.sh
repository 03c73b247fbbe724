#!/usr/bin/env bash
# Runs every suite, goes on after one that failed, and closes with one line that
# counts all tests. Results of each suite: .test/SUITE.json (go test -json).
set -uo pipefail
cd "$(dirname "$0")/.."

results=$PWD/.test
mkdir -p "$results/bin"
rm -f "$results"/*.json

# tools/go.mod pins what runs the tests; building it takes a moment once.
gotestsum=$results/bin/gotestsum
(cd tools && go build -o "$gotestsum" gotest.tools/gotestsum) || exit 1

failed=()
times=()

# suite NAME COMMAND...: one suite, timed; its exit code is kept.
suite() {
  local name=$1 started=$SECONDS
  shift
  echo "== $name"
  "$@" || failed+=("$name")
  times+=("$name $((SECONDS - started)) s")
}

# tests NAME DIR ARGUMENTS...: a suite of Go tests, of the module in DIR.
tests() {
  local name=$1 dir=$2
  shift 2
  suite "$name" gotests "$name" "$dir" "$@"
}
vet=(-vet=off) # the suite lint does
[ -z "${NO_LINT:-}" ] || vet=()
gotests() {
  local name=$1 dir=$2
  shift 2
  (cd "$dir" && "$gotestsum" --format pkgname --format-hide-empty-pkg --jsonfile "$results/$name.json" -- "${vet[@]}" "$@")
}

# The program's own tests start processes and listen to them: what they depend
# on is no Go source, so a cached result would prove nothing.
end_to_end=pillion/cmd/pillion
image=pillion/deploy/image # likewise
packages=$(go list ./... | grep -vx -e "$end_to_end" -e "$image") || exit 1

suite modules go mod download
(cd tools/sbom && go mod download) || failed+=(modules)
# A real Vault, in a module of its own: minutes where the build cache is empty.
suite vault-build scripts/vaultcore.sh
# helm, kustomize and kubeconform; likewise.
suite kubetools-build scripts/kubetools.sh
# A real OpenID provider, and what examines pages; their tests skip where there is
# no npm.
if command -v npm >/dev/null; then
  suite oidc-install scripts/npm.sh creds/credstest/oidc
  suite webcheck-install scripts/npm.sh creds/credstest/webcheck
fi
# What was built with the race detector sleeps for a second before it ends.
export GORACE="atexit_sleep_ms=0 ${GORACE:-}"
# Three packages at once: some of them wait more than they work.
# shellcheck disable=SC2086 # one argument a package
tests unit . -race -p 3 -timeout 20m $packages
# With the race detector the model of renewals goes through a few of its paths alone.
tests model . -timeout 10m -run '^TestModel' ./creds/token
# The proxy's promises once more, kept by net/http alone (proxy.fast: off).
PILLION_TEST_ENGINE=net tests proxy-net . -race -timeout 10m -skip 'Guard|Leaf|CA|Publish|Peer|Fuzz|Fast' ./proxy
# They wait more than they work: four at once keep two cores busy.
tests end-to-end . -race -count=1 -parallel 4 -timeout 25m $end_to_end
tests image . -count=1 -timeout 20m $image
# They run programs over files outside of their module: nothing here may be cached.
KUBETOOLS=$(scripts/kubetools.sh) SWAGGER=$(scripts/swagger.sh) tests kubernetes deploy/kubernetes/check -count=1 -timeout 10m ./...
tests compose deploy/compose/check -timeout 5m ./...
[ ! -f bench/go.mod ] || tests bench bench -timeout 10m ./...
[ -n "${NO_LINT:-}" ] || suite lint scripts/lint.sh

# count ACTION: the tests and subtests that ended so. One event stands on each
# line, written by go test itself, so a test's output cannot imitate it.
count() {
  cat "$results"/*.json | grep -Ec '^\{"Time":"[^"]*","Action":"'"$1"'","Package":"[^"]*","Test":'
}
passed=$(count pass)
broken=$(count fail)
skipped=$(count skip)

echo
echo "Time of each suite:"
printf '  %s\n' "${times[@]}"
status=0
if [ ${#failed[@]} -gt 0 ]; then
  echo "Suites that failed: ${failed[*]}"
  status=1
fi
if [ "$skipped" -gt 0 ]; then
  echo "Skipped:"
  cat "$results"/*.json | sed -nE 's/^\{"Time":"[^"]*","Action":"skip","Package":"([^"]*)","Test":"([^"]*)".*/  \1 \2/p'
  if [ "${CI:-}" = true ]; then
    echo "With CI=true nothing may be skipped."
    status=1
  fi
fi
# A suite that did not even compile has no failed test of its own.
if [ "$status" != 0 ] && [ "$broken" = 0 ]; then broken=${#failed[@]}; fi
echo "$passed passed, $broken failed, $skipped skipped"
exit "$status"
