#!/bin/sh
# Installs the OpenID provider of the tests from its lock file and prints where it
# is: once for each state of that file, seconds where npm has the packages.
set -eu
cd "$(dirname "$0")/.."

source=creds/credstest/oidc
state=$( (node --version && cat "$source/package-lock.json") | git hash-object --stdin | cut -c 1-12)
dir=$PWD/.test/oidc-$state

if [ ! -d "$dir/node_modules" ]; then
  rm -rf .test/oidc-????????????
  mkdir -p "$dir.$$"
  cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$dir.$$/"
  (cd "$dir.$$" && npm ci --loglevel=error) >&2
  mv "$dir.$$" "$dir"
fi
# Node looks for packages beside the file that asks for them.
cmp -s "$source/server.mjs" "$dir/server.mjs" || cp "$source/server.mjs" "$dir/server.mjs"
echo "$dir/server.mjs"
