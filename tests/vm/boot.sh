#!/bin/bash
# boot.sh DIR: boots a fresh guest, runs DIR/main in it as root, relays its output and exit status.
#
# The guest's / is DIR laid over a busybox. Its CPUs take 2^-SHIFT instructions a cycle of
# 1 GHz, with one CPU exactly. Environment: SHIFT (1), CPUS (1), POLICIES of cpufreq (1), SECONDS_AT_MOST (600).
set -euo pipefail
shopt -s lastpipe
. "$(dirname "$0")/env.sh"
"$here/setup.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin"
cp "$arm64/usr/bin/busybox" "$work/root/bin/"
cp -r "$arm64/ko" "$work/root/"
cp "$here/guest-init" "$work/root/init"
cp -r "$1/." "$work/root/"
chmod -R a+rX "$work/root"
(cd "$work/root" && find . | tool cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"

# The self-tests of the kernel's ciphers would take the CPU during the first seconds.
arguments="console=ttyAMA0 quiet loglevel=3 panic=-1 cryptomgr.notests"
status=
timeout --foreground "${SECONDS_AT_MOST:-600}" \
    "${loader[@]}" "$host/bin/qemu-system-aarch64" -L "$host/share/qemu" \
    -M virt -cpu cortex-a57 -smp "${CPUS:-1}" -m 1024 -icount "shift=${SHIFT:-1},sleep=off" \
    -dtb "$cache/dtb/${CPUS:-1}-${POLICIES:-1}.dtb" -nodefaults -nographic -serial stdio -no-reboot \
    -kernel "$arm64/vmlinuz" -initrd "$work/initrd" -append "$arguments" </dev/null |
    while IFS= read -r line || [ "$line" ]; do
        case $line in
            *"tests/vm: exit status "*) status=${line##* } ;;
            *) printf '%s\n' "$line" ;;
        esac
    done || true
[ "$status" ] || die "the guest ended without telling an exit status"
exit "${status%$'\r'}"
