#!/bin/sh
# Names every system package that is missing, with the one command that installs them all.
#   check-system.sh [--tests] [--arm64] [PYTHON]
# --tests: also what only the tests need; --arm64: also what the ARM64 build and its tests need
tests="" arm64=""
while :; do
    case "${1:-}" in
    --tests) tests=yes ;;
    --arm64) arm64=yes ;;
    *) break ;;
    esac
    shift
done
python="${1:-python3.11}"
missing=""
need() { # COMMAND-THAT-SUCCEEDS-WHEN-PRESENT PACKAGE
    sh -c "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need "command -v $python" python3.11
need "$python -c 'import ensurepip, venv'" python3.11-venv
need "command -v cmake" cmake
need "command -v c++" g++
need "command -v make" make
header() { # HEADER PACKAGE
    need "printf '#include <stdio.h>\n#include <$1>\n' | c++ -x c++ -fsyntax-only -" "$2"
}
header jpeglib.h libjpeg62-turbo-dev
header png.h libpng-dev
header nlohmann/json.hpp nlohmann-json3-dev
header CLI/CLI.hpp libcli11-dev
if [ -n "$tests" ]; then
    header doctest/doctest.h doctest-dev
    header webp/decode.h libwebp-dev # without it the harness reads all images but WebP
    need "command -v ssh" openssh-client
    need "test -x /usr/sbin/sshd" openssh-server # the tests of --device ssh:// start one of their own
    need "command -v mksh" mksh # Android's shell and
    need "command -v toybox" toybox # tools: what --device adb: runs must work with them
    need "command -v javac" default-jdk-headless # a desktop JVM and a Kotlin compiler for
    need "command -v kotlinc" kotlin # the Android module of targets/tflite
    need "command -v clang++" clang # reads the Objective-C++ of targets/coreml, which g++ does not
fi
if [ -n "$arm64" ]; then
    need "command -v aarch64-linux-gnu-g++" g++-aarch64-linux-gnu
    need "command -v qemu-aarch64" qemu-user
    need "command -v apt-get" apt # fetches arm64 packages into the sysroot
    need "command -v dpkg-deb" dpkg
fi
if [ -n "$missing" ]; then
    echo "edgevit: missing system packages:$missing" >&2
    echo "edgevit: install them with: apt-get install -y$missing" >&2
    exit 1
fi
