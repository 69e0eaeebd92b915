# shellcheck shell=bash disable=SC2034
# What the scripts of the test bed share; to be sourced. Does nothing by itself.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${COUNTERPOISE_VM:-${XDG_CACHE_HOME:-$HOME/.cache}/counterpoise-vm}
host=$cache/roots/host/usr    # packages that run here
arm64=$cache/roots/arm64      # packages that run in the guest, or are linked into its programs

die() { echo "tests/vm: $*" >&2; exit 1; }

# Runs a program of the unpacked packages with their own C library, whatever this machine has.
tool() {
    local program=$1
    shift
    "${loader[@]}" "$host/bin/$program" "$@"
}
loader=("$host/lib64/ld-linux-x86-64.so.2" --library-path "$host/lib/x86_64-linux-gnu")
