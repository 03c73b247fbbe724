#!/bin/sh
# Prepares the Vault of deploy/compose.yaml: mount, policies, and the login of the
# sidecar, whose secret id goes to DIR/secret-id: vault-setup.sh DIR. With curl alone.
set -eu
setup=$(dirname "$0")/../vault/setup.sh
"$setup"
"$setup" approle sidecar pillion-sidecar

# post PATH JSON
post() {
  printf 'header = "X-Vault-Token: %s"\n' "$VAULT_TOKEN" |
    curl -sS --noproxy '*' --fail -K - -H 'Content-Type: application/json' --data "$2" "$VAULT_ADDR/v1/auth/approle/role/sidecar/$1"
}
post role-id '{"role_id":"sidecar"}'
# Read by pillion's user: the volume is mounted in its container alone.
post secret-id '{}' | sed -n 's/.*"secret_id":"\([^"]*\)".*/\1/p' >"$1/secret-id"
[ -s "$1/secret-id" ] || {
  echo "vault-setup.sh: Vault gave no secret id" >&2
  exit 1
}
chmod 444 "$1/secret-id"
echo "Vault is ready for the sidecar"
