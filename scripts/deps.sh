#!/usr/bin/env bash
# Installs the Debian packages that `make test` needs and that are missing, or with an
# argument those of `make bench` ("bench") or `make e2e-kubernetes` ("kubernetes").
# Does nothing where nothing is missing; where it cannot install, says what is
# missing and goes on, since the tests of a client that is not there skip, and with
# CI=true fail.
set -euo pipefail

# What proves that it is there, and the package that brings it.
TEST_PACKAGES='
cc                                  gcc
/usr/include/stdlib.h               libc6-dev
git                                 git
curl                                curl
wget                                wget
/usr/bin/python3                    python3
/usr/lib/python3/dist-packages/requests  python3-requests
node                                nodejs
npm                                 npm
javac                               default-jdk-headless
age                                 age
openssl                             openssl
/etc/ssl/certs/ca-certificates.crt  ca-certificates
sftp                                openssh-client
sshd                                openssh-server
/usr/lib/openssh/sftp-server        openssh-sftp-server
lftp                                lftp
rclone                              rclone
/usr/lib/python3/dist-packages/paramiko  python3-paramiko
nc.openbsd                          netcat-openbsd
ncat                                ncat
/usr/lib/proftpd/mod_sftp.so        proftpd-mod-crypto
chromium                            chromium
prometheus                          prometheus
buildah                             buildah
podman                              podman
runc                                runc
catatonit                           catatonit
systemd-analyze                     systemd
'
BENCH_PACKAGES='
nginx                               nginx-light
squid                               squid-openssl
/usr/lib/squid/security_file_certgen  squid-openssl
socat                               socat
sftp                                openssh-client
sshd                                openssh-server
'

KUBERNETES_PACKAGES='
curl                                curl
etcd                                etcd-server
'

case ${1:-test} in
  bench) table=$BENCH_PACKAGES ;;
  kubernetes) table=$KUBERNETES_PACKAGES ;;
  *) table=$TEST_PACKAGES ;;
esac

# Debian keeps daemons where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin

there() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
while read -r proof package; do
  if [ -n "$proof" ] && ! there "$proof"; then missing+=("$package"); fi
done <<<"$table"
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
  echo "missing, and not installed for want of apt-get or root: ${missing[*]}" >&2
  exit 0
fi

echo "installing: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# What is installed for a test is not to be started as a service of this machine
# (invoke-rc.d asks this script).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod 755 $policy
  trap '"${as_root[@]}" rm -f "$policy"; rm -f "$log"' EXIT
fi
{
  "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 && exit 0
tail -n 30 "$log" >&2
echo "apt-get could not install: ${missing[*]}" >&2
# In continuous integration nothing may be missing; elsewhere the tests skip.
[ "${CI:-}" != true ]
