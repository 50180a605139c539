#!/bin/sh
# Builds the image in which nodes and holders run, without a registry and without a base image: the program, the tools
# that put faults on a network (iptables, tc, ip), and exactly the libraries that these need, all from this machine.
#
#   docker/build-image.sh PROGRAM TAG
#
# `tribunal run --on docker` and `tribunal image` run this very script. Needs: docker, iptables, iproute2, Linux.
set -eu

program=$1
tag=$2

fail() { echo "error: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "the image is made of this machine's files, which must be Linux's; on other systems \
build docker/Dockerfile with a registry at hand and give the image with 'cluster: {image: …}'"
[ -x "$program" ] || fail "$program cannot be run"
PATH="$PATH:/usr/sbin:/sbin"
for tool in docker iptables iptables-restore tc ip ldd tar; do
  command -v "$tool" >/dev/null || fail "\`$tool\` is not installed (Debian's packages iptables, iproute2, docker.io)"
done

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/run" "$root/tmp" "$root/etc" "$root/data" "$root/proc" "$root/sys"
chmod 1777 "$root/tmp" "$root/data"
echo 'root:x:0:0:root:/:/usr/bin/tribunal' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
ln -s usr/sbin "$root/sbin"
ln -s usr/bin "$root/bin"

# A file and the libraries it is linked with, each at its own path.
libraries() {
  ldd "$1" 2>/dev/null | sed -n 's/^.*=> \(\/[^ ]*\) .*$/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*$/\1/p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
  done
}
tool() {
  cp -L "$1" "$root/$2"
  libraries "$1"
}
tool "$program" usr/bin/tribunal
tool "$(command -v ip)" usr/sbin/ip
tool "$(command -v tc)" usr/sbin/tc
# One program under many names, which it looks at.
tool "$(command -v iptables)" usr/sbin/iptables
ln -s iptables "$root/usr/sbin/iptables-restore"
# The matches and targets of iptables are libraries that it loads by itself.
for folder in /usr/lib/*/xtables /usr/lib/xtables /usr/lib64/xtables; do
  [ -d "$folder" ] || continue
  mkdir -p "$root$folder"
  cp -L "$folder"/libxt_*.so "$folder"/libipt_*.so "$root$folder" 2>/dev/null || true
done

tar -C "$root" -c . | docker import \
  --change 'ENTRYPOINT ["/usr/bin/tribunal"]' \
  --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' \
  --change 'LABEL tribunal.image=1' \
  --message "made by Tribunal from $program" \
  - "$tag" >/dev/null
echo "$tag"
