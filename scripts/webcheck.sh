#!/bin/sh
# Installs what the tests examine the page with, from its lock file, and prints where
# it is: once for each state of that file, seconds where npm has the packages.
set -eu
cd "$(dirname "$0")/.."

source=creds/credstest/webcheck
state=$( (node --version && cat "$source/package-lock.json") | git hash-object --stdin | cut -c 1-12)
dir=$PWD/.test/webcheck-$state

if [ ! -d "$dir/node_modules" ]; then
  rm -rf .test/webcheck-????????????
  mkdir -p "$dir.$$"
  cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$dir.$$/"
  (cd "$dir.$$" && npm ci --loglevel=error) >&2
  mv "$dir.$$" "$dir"
fi
echo "$dir"
