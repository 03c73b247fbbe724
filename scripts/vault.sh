#!/bin/sh
# make vault: a real Vault on loopback, in memory, as deploy/vault/setup.sh
# prepares one, with a login of each kind and an example credential. Ctrl-C ends
# it, and everything in it is gone.
#
# Elsewhere: VAULT_LISTEN, and VAULT_DIR for the files that a sidecar logs in with.
set -eu
cd "$(dirname "$0")/.."

listen=${VAULT_LISTEN:-127.0.0.1:8200}
dir=${VAULT_DIR:-.state/vault}
echo "building Vault: some minutes the first time" >&2
vault=$(scripts/vaultcore.sh)

# Only a directory that an earlier run made and did not come to remove goes.
if [ -e "$dir" ]; then
  if ! pid=$(cat "$dir/make-vault.pid" 2>/dev/null); then
    echo "make vault: $dir is there and was not made by make vault; VAULT_DIR names another place" >&2
    exit 1
  elif kill -0 "$pid" 2>/dev/null; then
    echo "make vault: it runs already, as process $pid, with its files in $dir" >&2
    exit 1
  fi
  rm -rf "$dir"
fi
umask 077
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
echo $$ >"$dir/make-vault.pid"

# Who signs the tokens of the logins jwt and kubernetes: a cluster, in earnest.
openssl genrsa -out "$dir/issuer.key" 2048 2>/dev/null
openssl rsa -in "$dir/issuer.key" -pubout -out "$dir/issuer.pub" 2>/dev/null

vault_pid=''
end() {
  trap - EXIT INT TERM
  exec 4>&- 3<&-
  # shellcheck disable=SC2086 # an empty pid is no argument
  kill $vault_pid 2>/dev/null || :
  wait
  rm -rf "$dir"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# It ends with its standard input, and says when it answers.
mkfifo "$dir/in" "$dir/out"
"$vault" -listen "$listen" -tls "$dir" -issuer "$dir/issuer.pub" <"$dir/in" >"$dir/out" &
vault_pid=$!
exec 4>"$dir/in" 3<"$dir/out"
read -r said <&3 || {
  echo "make vault: Vault did not start; VAULT_LISTEN names another address" >&2
  exit 1
}
field() { printf '%s' "$said" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
VAULT_ADDR=$(field address) VAULT_TOKEN=$(field root_token) VAULT_CACERT=$dir/ca.crt
export VAULT_ADDR VAULT_TOKEN VAULT_CACERT
unset VAULT_NAMESPACE
printf '%b' "$(field kubernetes_ca)" >"$dir/kubernetes-ca.crt"
printf '%s' "$VAULT_TOKEN" >"$dir/root-token"

# post PATH JSON
post() {
  printf 'header = "X-Vault-Token: %s"\n' "$VAULT_TOKEN" |
    curl -sS --noproxy '*' --fail -K - --cacert "$VAULT_CACERT" -H 'Content-Type: application/json' --data "$2" "$VAULT_ADDR/v1/$1"
}
# member NAME: of the JSON on standard input.
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# token SUBJECT MORE: a token for the audience "vault", for a day.
token() {
  now=$(date +%s)
  head=$(printf '{"alg":"RS256","typ":"JWT"}' | base64url)
  body=$(printf '{"iss":"https://issuer.example/","sub":"%s","aud":["vault"],"iat":%s,"exp":%s%s}' "$1" "$now" $((now + 86400)) "$2" | base64url)
  printf '%s.%s.%s' "$head" "$body" "$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -sign "$dir/issuer.key" -binary | base64url)"
}
base64url() { base64 | tr -d '\n=' | tr '+/' '-_'; }

setup=deploy/vault/setup.sh
$setup
$setup approle sidecar pillion-sidecar
JWT_KEY_FILE=$dir/issuer.pub JWT_ISSUER=https://issuer.example/ $setup jwt sidecar pillion-sidecar connector
KUBERNETES_HOST=$(field kubernetes) KUBERNETES_CA_FILE=$dir/kubernetes-ca.crt $setup kubernetes sidecar pillion-sidecar connector default
post auth/approle/role/sidecar/role-id '{"role_id":"sidecar"}'
post auth/approle/role/sidecar/secret-id '{}' | member secret_id >"$dir/secret-id"
token connector '' >"$dir/jwt"
token system:serviceaccount:default:connector \
  ',"kubernetes.io":{"namespace":"default","serviceaccount":{"name":"connector","uid":"3f0a2c1e-demo"}}' >"$dir/service-account-token"
# Somebody who edits credentials, as the page does for who has logged in.
post auth/token/create-orphan '{"policies":["pillion-console"],"ttl":"24h"}' | member client_token >"$dir/editor-token"

# record KEY JSON: a first version.
record() { post "pillion/data/$1" "{\"options\":{\"cas\":0},\"data\":$2}" >/dev/null; }
record secrets/demo '{"schema":"1.0","secrets":{"00112233445566aa":["https://demo.example:443","demo-token-that-the-client-never-sees"]}}'
record credentials/demo '{"schema":"1.0","name":"demo","protocol":"https","url":"https://demo.example/","authorization":"bearer","secrets":{"token":"00112233445566aa"}}'
record index '{"schema":"1.0","revisions":{"demo":"1.00112233445566bb"}}'

# config METHOD KEYS: a configuration of a sidecar with that login.
config() {
  cat >"$dir/$1.yaml" <<EOF
state: sidecar-$1
store:
  vault:
    address: $VAULT_ADDR
    ca_file: ca.crt
    auth: {method: $1, $2}
EOF
}
config approle 'role_id: sidecar, secret_id_file: secret-id'
config jwt 'role: sidecar, token_file: jwt'
config kubernetes 'role: sidecar, token_file: service-account-token'

shown=${dir#"$PWD"/}
cat <<EOF

  Vault       $VAULT_ADDR, KV at pillion/, its authority in $shown/ca.crt
  as root     VAULT_TOKEN=\$(cat $shown/root-token)
  as editor   VAULT_TOKEN=\$(cat $shown/editor-token)

A sidecar, in another terminal, in this directory; jwt.yaml and kubernetes.yaml log in otherwise:

  make build
  bin/pillion run --config $shown/approle.yaml

Ctrl-C ends Vault and removes these files.

EOF
wait "$vault_pid"
