#!/bin/bash
# cargo.sh ARGUMENTS: cargo for the guest. Builds static arm64 programs; `test` and `run` run them in it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
"$here/setup.sh"

target=aarch64-unknown-linux-gnu
export CARGO_BUILD_TARGET=$target CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/../../target}/vm
export RUSTC=$here/rustc.sh
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$here/link.sh
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$here/run.sh
# Nothing but the linker itself is needed to link with; no debug information to carry into the guest.
export RUSTFLAGS="-C linker-flavor=ld -C target-feature=+crt-static -C relocation-model=static"
export CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=0
unset CARGO_ENCODED_RUSTFLAGS
exec cargo "$@"
