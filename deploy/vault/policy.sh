#!/bin/sh
# Prints the policy of a role, for all credentials or for some:
#
#   policy.sh sidecar
#   policy.sh sidecar servicenow jira
#
# MOUNT (default pillion) is where KV version 2 is mounted, PREFIX (default none)
# the path inside it, such as team-a: store.vault.mount and store.vault.prefixes.
#
# A policy for some credentials does not hide the names of the others: they stand
# in the index. To hide those too, give each team a prefix of its own.
set -eu
mount=${MOUNT:-pillion}
prefix=${PREFIX:-}
role=${1:?usage: policy.sh sidecar|refresher|console [NAME...]}
shift
file=$(dirname "$0")/$role.hcl
[ -f "$file" ] || {
  echo "policy.sh: no role $role: sidecar, refresher or console" >&2
  exit 2
}
# What these hold becomes part of the rules, where + and * would open others.
for part in "$mount" ${prefix:+"$prefix"} "$@"; do
  case $part in
    '' | *[!a-zA-Z0-9._/-]* | /* | */ | *..*)
      echo "policy.sh: $part is no mount, prefix or name" >&2
      exit 2
      ;;
  esac
done

sed -e "s|^path \"pillion/\([a-z]*\)/|path \"$mount/\1/${prefix:+$prefix/}|" "$file" |
  awk -v names="$*" '
    BEGIN { count = split(names, name, " ") }
    count > 0 && /^path "[^"]*\/\*"/ {
      for (i = 1; i <= count; i++) {
        line = $0
        sub(/\/\*"/, "/" name[i] "\"", line)
        print line
      }
      next
    }
    { print }'
