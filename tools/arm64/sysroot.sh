#!/bin/sh
# Makes the folder that ARM64 builds are compiled against and that qemu runs them in.
#   sysroot.sh PYTHON OUT
# Debian's arm64 packages are unpacked there, not installed: neither root nor a foreign architecture
# in the system's dpkg is needed. LiteRT comes from its arm64 wheel, in the version of
# constraints.txt.
set -eu
python="$1"
out="$2"
here=$(cd "$(dirname "$0")" && pwd)
litert=$(grep '^ai-edge-litert==' "$here/../../constraints.txt")
# What it is made of: a change of any remakes it.
stamp="$litert $(cat "$here/sysroot.sh" "$here/cpuinfo" | cksum)"
if [ -e "$out/.ready" ] && [ "$(cat "$out/.ready")" = "$stamp" ]; then exit 0; fi

rm -rf "$out"
work=$(mktemp -d "${TMPDIR:-/tmp}/edgevit-arm64.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$out"
: >"$work/status"

# apt with a state of its own, in which this is an arm64 machine with nothing installed.
arm64_apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
arm64_apt update
(cd "$work/debs" && arm64_apt download libjpeg62-turbo-dev libpng-dev zlib1g-dev \
    libwebp-dev nlohmann-json3-dev libcli11-dev doctest-dev)
for package in "$work"/debs/*.deb; do
    dpkg-deb --extract "$package" "$out"
done

"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --platform manylinux_2_27_aarch64 --dest "$work/wheel" "$litert"
"$python" -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
cp "$work/unpacked/ai_edge_litert/libLiteRt.so" "$out/"

# What a program finds of the system under `qemu-aarch64 -L`: the cross compiler's C library, and an
# ARM /proc/cpuinfo, for LiteRT's cpuinfo stops at an x86 one.
ln -sfn /usr/aarch64-linux-gnu/lib "$out/lib"
mkdir -p "$out/proc"
cp "$here/cpuinfo" "$out/proc/cpuinfo"
printf '%s' "$stamp" >"$out/.ready"
