#!/bin/sh
# make run: pillion and its demonstration origin on loopback, with the embedded
# store in .state and one example credential. Ctrl-C ends both.
#
# Elsewhere: PILLION_STATE, PILLION_PROXY_LISTEN, PILLION_SFTP_LISTEN,
# PILLION_METRICS_LISTEN, PILLION_CONSOLE_LISTEN, and DEMO_LISTEN for the demonstration
# origin.
set -eu
cd "$(dirname "$0")/.."

pillion=bin/pillion
state=${PILLION_STATE:-.state}
proxy=${PILLION_PROXY_LISTEN:-127.0.0.1:3128}
sftp=${PILLION_SFTP_LISTEN:-127.0.0.1:2022}
metrics=${PILLION_METRICS_LISTEN:-127.0.0.1:9180}
console=${PILLION_CONSOLE_LISTEN:-127.0.0.1:8180}
demo=${DEMO_LISTEN:-127.0.0.1:8443}
config=$state/pillion.yaml

if [ -S "$state/admin.sock" ] && "$pillion" health --config "$config" >/dev/null 2>&1; then
  echo "make run: one is running on $state already; PILLION_STATE names another directory" >&2
  exit 1
fi
mkdir -p "$state"
chmod 0700 "$state"
cat >"$config" <<EOF
# Written by make run at every start. For a configuration of your own, copy it.
state: .
proxy: {listen: "$proxy"}
sftp: {listen: "$sftp"}
metrics: {listen: "$metrics"}
console: {listen: "$console"}
upstream:
  # demo.example is the demonstration origin: on loopback, which is refused
  # unless listed, and with a certificate of a CA of its own.
  resolve: {demo.example: "$demo"}
  allow: [demo.example]
  ca_file: demo/ca.crt
EOF

demo_pid='' pillion_pid=''
end() {
  trap - EXIT INT TERM
  # shellcheck disable=SC2086 # an empty pid is no argument
  kill $pillion_pid $demo_pid 2>/dev/null || :
  wait
  rm -f "$state/demo.fifo"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The demonstration origin says when it listens; its end closes the pipe.
rm -f "$state/demo.fifo"
mkfifo "$state/demo.fifo"
"$pillion" demo-origin --config "$config" --listen "$demo" >"$state/demo.fifo" &
demo_pid=$!
exec 3<"$state/demo.fifo"
read -r line <&3 || {
  echo "make run: the demonstration origin did not start; DEMO_LISTEN names another address" >&2
  exit 1
}

"$pillion" credential get demo --config "$config" >/dev/null 2>&1 ||
  echo 'demo-token-that-the-client-never-sees' |
  "$pillion" credential set demo --config "$config" --url https://demo.example/ --authorization bearer --token-file -

"$pillion" run --config "$config" &
pillion_pid=$!
until "$pillion" health --config "$config" >/dev/null 2>&1; do
  kill -0 "$pillion_pid" 2>/dev/null || {
    echo "make run: pillion did not start; PILLION_PROXY_LISTEN, PILLION_SFTP_LISTEN, PILLION_METRICS_LISTEN and PILLION_CONSOLE_LISTEN name other addresses" >&2
    exit 1
  }
  sleep 0.1
done

# PILLION_CONSOLE_LISTEN=off switches the page off.
page=$("$pillion" console-link --config "$config" 2>/dev/null) || page='off'

cat <<EOF

  proxy                http://$proxy
  SFTP                 $sftp (docs/sftp.md)
  metrics and health   http://$metrics/metrics  /livez  /readyz
  page                 $page
                       (good once, for ten minutes; $pillion console-link --config $config makes another)
  demonstration origin https://demo.example/ (on $demo, reached through the proxy alone)
  state                $state (credentials: store.age; for clients: public/)

In another terminal, in this directory:

  eval "\$($pillion env --config $config)" && curl https://demo.example/hello

The answer shows an Authorization header that curl did not send. For the other commands of the README, there:

  export PATH="\$PWD/bin:\$PATH" PILLION_CONFIG=$(cd "$state" && pwd)/pillion.yaml

Ctrl-C here ends both.

EOF
wait "$pillion_pid"
