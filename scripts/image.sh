#!/usr/bin/env bash
# make image: builds the image with docker, podman or buildah, the first of them
# that works here. Arguments go to it, such as --platform linux/arm64 or --push.
#
#   IMAGE          its name and tag (default pillion:VERSION)
#   IMAGE_BUILDER  docker, podman or buildah
#   VERSION        what it calls itself (default: git describe)
#   SOURCE         the URL of the source, for a label (default: the remote "origin")
#   GO_IMAGE, BASE_IMAGE, GOPROXY  mirrors, instead of the defaults of Dockerfile
#
# Where neither a daemon nor user namespaces are to be had, as inside a container:
# IMAGE_BUILDER=buildah BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs.
set -euo pipefail
cd "$(dirname "$0")/.."

works() {
  case $1 in
    docker | podman) "$1" info >/dev/null 2>&1 ;; # the command may be there without an engine
    *) command -v "$1" >/dev/null ;;
  esac
}
builder=${IMAGE_BUILDER:-}
for candidate in docker podman buildah; do
  if [ -z "$builder" ] && works $candidate; then builder=$candidate; fi
done
if [ -z "$builder" ]; then
  echo "make image: none of docker, podman and buildah works here: install one, such as Debian's package buildah" >&2
  exit 1
fi

from_git() { git "$@" 2>/dev/null || echo unknown; }
# A remote's URL may hold a login, which is not for a label; a path means nothing elsewhere.
source_url() {
  case $1 in
    http://* | https://*) sed -E 's,//[^/@]*@,//,' <<<"$1" ;;
    *) echo unknown ;;
  esac
}
version=${VERSION:-$(from_git describe --tags --always --dirty)}
image=${IMAGE:-pillion:$version}
arguments=(
  --build-arg "VERSION=$version"
  --build-arg "REVISION=$(from_git rev-parse HEAD)"
  --build-arg "SOURCE=${SOURCE:-$(source_url "$(from_git remote get-url origin)")}"
)
for name in GO_IMAGE BASE_IMAGE GOPROXY; do
  if [ -n "${!name:-}" ]; then arguments+=(--build-arg "$name=${!name}"); fi
done

# The time of the commit stands for that of the build: two builds are one image.
stamp=$(git log -1 --format=%ct 2>/dev/null || echo 0)
case $builder in
  docker) build=(docker build --build-arg "SOURCE_DATE_EPOCH=$stamp") ;;
  podman) build=(podman build --timestamp "$stamp") ;;
  buildah) build=(buildah build --timestamp "$stamp") ;;
  *)
    echo "make image: IMAGE_BUILDER=$builder: docker, podman or buildah" >&2
    exit 1
    ;;
esac
"${build[@]}" --tag "$image" --file Dockerfile "${arguments[@]}" "$@" .
echo "$image, by $builder"
