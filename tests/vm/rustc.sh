#!/bin/bash
# rustc.sh: the packaged rustc, in the place of cargo's usual one. Started by cargo.sh.
. "$(dirname "$0")/env.sh"
exec "${loader[@]}" "$host/bin/rustc" --sysroot "$host" "$@"
