#!/bin/bash
# link.sh: links a static arm64 program of what rustc hands over and the packaged C library.
. "$(dirname "$0")/env.sh"
libc=$arm64/usr/lib/aarch64-linux-gnu
gcc=$arm64/usr/lib/gcc/aarch64-linux-gnu/14
exec "${loader[@]}" "$host/bin/aarch64-linux-gnu-ld" --sysroot="$arm64" -static -L"$libc" -L"$gcc" \
    "$libc"/crt{1,i}.o "$gcc/crtbeginT.o" "$@" --start-group -lgcc -lgcc_eh -lc --end-group \
    "$gcc/crtend.o" "$libc/crtn.o"
