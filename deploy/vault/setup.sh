#!/bin/sh
# Prepares a Vault for pillion, with curl alone. All of it may be run again.
#
#   setup.sh                                       the KV mount and the three policies
#   setup.sh approle ROLE POLICY                   a login with role id and secret id
#   setup.sh kubernetes ROLE POLICY SERVICEACCOUNT NAMESPACE...
#   setup.sh jwt ROLE POLICY SUBJECT
#
# It asks for VAULT_ADDR and VAULT_TOKEN (of somebody who may do this), and obeys
# VAULT_CACERT and VAULT_NAMESPACE. MOUNT and PREFIX: see policy.sh; with a PREFIX
# the policies are pillion-PREFIX-ROLE, else pillion-ROLE.
#
# kubernetes and jwt must be told once whom to believe, where they are new:
#   KUBERNETES_HOST, KUBERNETES_CA_FILE, KUBERNETES_REVIEWER_FILE
#       the API server, its authority, and the token of a service account that may review
#       tokens (system:auth-delegator): for a Vault outside of the cluster. Without them,
#       the cluster that Vault itself runs in, whose service account then reviews.
#   JWT_JWKS_URL or JWT_DISCOVERY_URL or JWT_KEY_FILE (PEM), and JWT_ISSUER
#
# Example: VAULT_ADDR=https://vault.example:8200 VAULT_TOKEN=$(cat token) deploy/vault/setup.sh
set -eu
here=$(dirname "$0")
mount=${MOUNT:-pillion}
prefix=${PREFIX:-}
: "${VAULT_ADDR:?name your Vault, such as https://vault.example:8200}"
: "${VAULT_TOKEN:?a token that may mount, and write policies and roles}"

# call METHOD PATH [JSON]: prints the answer's body; fails where Vault refuses.
# Token and body go by standard input: a command line is seen by every process.
call() {
  {
    printf 'header = "X-Vault-Token: %s"\n' "$VAULT_TOKEN"
    [ -z "${3:-}" ] || printf 'data = "%s"\n' "$(printf '%s' "$3" | sed 's/[\\"]/\\&/g')"
  } |
    curl -sS --noproxy '*' --fail-with-body -K - -X "$1" \
      ${VAULT_CACERT:+--cacert "$VAULT_CACERT"} ${VAULT_NAMESPACE:+-H "X-Vault-Namespace: $VAULT_NAMESPACE"} \
      -H 'Content-Type: application/json' "$VAULT_ADDR/v1/$2"
}
must() {
  answer=$(call "$@") || {
    echo "setup.sh: $1 $2: $answer" >&2
    exit 1
  }
}
# text FILE: its content as a JSON string.
text() { awk 'BEGIN { printf "\"" } { gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); printf "%s\\n", $0 } END { printf "\"" }' "$1"; }

policy_name() { echo "pillion-${prefix:+$(echo "$prefix" | tr / -)-}$1"; }

mount_and_policies() {
  if ! answer=$(call GET "sys/mounts/$mount" 2>/dev/null); then
    must POST "sys/mounts/$mount" '{"type":"kv","options":{"version":"2"},"description":"credentials of pillion"}'
    must GET "sys/mounts/$mount"
  fi
  case $answer in
    *'"options":{'*'"version":"2"'*) ;;
    *) # Version 1 would take the configuration for a secret.
      echo "setup.sh: what is mounted at $mount/ is no KV version 2: name another MOUNT" >&2
      exit 1
      ;;
  esac
  # A new engine prepares itself for a moment.
  tries=50
  until answer=$(call POST "$mount/config" '{"cas_required":true,"max_versions":5}' 2>&1); do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || {
      echo "setup.sh: $mount/ cannot be configured: $answer" >&2
      exit 1
    }
    sleep 0.1
  done
  for role in sidecar refresher console; do
    rules=$("$here/policy.sh" "$role")
    # Vault takes a policy in base64, which needs no quoting.
    must PUT "sys/policies/acl/$(policy_name "$role")" "{\"policy\":\"$(printf '%s\n' "$rules" | base64 | tr -d '\n')\"}"
  done
}

# login METHOD: enables it where it is not.
login() {
  call GET "sys/auth/$1" >/dev/null 2>&1 || must POST "sys/auth/$1" "{\"type\":\"$1\"}"
}
# Batch tokens cost Vault no storage and cannot be renewed: pillion logs in again.
tokens() { printf '"token_policies":["%s"],"token_type":"batch","token_ttl":"1h","token_max_ttl":"1h"' "$1"; }

case ${1:-} in
  '') mount_and_policies ;;
  approle)
    [ $# = 3 ] || { echo "usage: setup.sh approle ROLE POLICY" >&2; exit 2; }
    login approle
    must POST "auth/approle/role/$2" "{$(tokens "$3")}"
    ;;
  kubernetes)
    [ $# -ge 5 ] || { echo "usage: setup.sh kubernetes ROLE POLICY SERVICEACCOUNT NAMESPACE..." >&2; exit 2; }
    role=$2 policy=$3 account=$4 spaces=''
    shift 4
    for space in "$@"; do spaces="${spaces:+$spaces,}\"$space\""; done
    login kubernetes
    if [ -n "${KUBERNETES_HOST:-}" ]; then
      must POST auth/kubernetes/config "{\"kubernetes_host\":\"$KUBERNETES_HOST\",\"disable_local_ca_jwt\":true${KUBERNETES_CA_FILE:+,\"kubernetes_ca_cert\":$(text "$KUBERNETES_CA_FILE")}${KUBERNETES_REVIEWER_FILE:+,\"token_reviewer_jwt\":\"$(cat "$KUBERNETES_REVIEWER_FILE")\"}}"
    elif ! call GET auth/kubernetes/config >/dev/null 2>&1; then
      must POST auth/kubernetes/config '{"kubernetes_host":"https://kubernetes.default.svc"}'
    fi
    must POST "auth/kubernetes/role/$role" "{$(tokens "$policy"),\"bound_service_account_namespaces\":[$spaces],\"bound_service_account_names\":[\"$account\"],\"audience\":\"vault\"}"
    ;;
  jwt)
    [ $# = 4 ] || { echo "usage: setup.sh jwt ROLE POLICY SUBJECT" >&2; exit 2; }
    login jwt
    if [ -n "${JWT_KEY_FILE:-}" ]; then
      believe="\"jwt_validation_pubkeys\":[$(text "$JWT_KEY_FILE")]"
    elif [ -n "${JWT_JWKS_URL:-}" ]; then
      believe="\"jwks_url\":\"$JWT_JWKS_URL\""
    elif [ -n "${JWT_DISCOVERY_URL:-}" ]; then
      believe="\"oidc_discovery_url\":\"$JWT_DISCOVERY_URL\""
    else
      believe=''
    fi
    if [ -n "$believe" ]; then
      must POST auth/jwt/config "{$believe${JWT_ISSUER:+,\"bound_issuer\":\"$JWT_ISSUER\"}}"
    fi
    must POST "auth/jwt/role/$2" "{$(tokens "$3"),\"role_type\":\"jwt\",\"user_claim\":\"sub\",\"bound_audiences\":[\"vault\"],\"bound_subject\":\"$4\"}"
    ;;
  *)
    echo "setup.sh: no part $1: approle, kubernetes, jwt, or nothing" >&2
    exit 2
    ;;
esac
