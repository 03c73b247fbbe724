#!/bin/sh
# npm.sh FOLDER: installs the npm packages that tests need from the lock file in
# FOLDER, and prints where they are: once for each state of that file, seconds where
# npm has the packages. The scripts of FOLDER stand beside them, since Node looks for
# packages beside the file that asks for them.
set -eu
cd "$(dirname "$0")/.."

source=$1
name=$(basename "$source")
state=$( (node --version && cat "$source/package-lock.json") | git hash-object --stdin | cut -c 1-12)
dir=$PWD/.test/$name-$state

if [ ! -d "$dir/node_modules" ]; then
  rm -rf ".test/$name"-????????????
  mkdir -p "$dir.$$"
  cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$dir.$$/"
  (cd "$dir.$$" && npm ci --loglevel=error) >&2
  mv "$dir.$$" "$dir"
fi
for script in "$source"/*.mjs; do
  [ ! -e "$script" ] || cmp -s "$script" "$dir/${script##*/}" || cp "$script" "$dir/"
done
echo "$dir"
