#!/bin/bash
# setup.sh: prepares the test bed from Debian packages, in a cache directory outside the checkout.
#
# Installs nothing on this machine. Done once: a second call returns at once, unless the recipe
# (this script and mkdtb.py) has changed; a call that was interrupted is made up for.
set -euo pipefail
. "$(dirname "$0")/env.sh"

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

recipe=$(cat "$here/setup.sh" "$here/mkdtb.py" | sha256sum)
is_ready() { [ "$(cat "$cache/ready" 2>/dev/null)" = "$recipe" ]; }
is_ready && exit 0

for program in apt-get dpkg-deb python3 tar xz flock; do
    command -v $program >/dev/null || die "cannot set up: $program is missing"
done
[ "$(dpkg --print-architecture)" = amd64 ] || die "cannot set up: only written for x86-64 machines"
[ -r $keyring ] || die "cannot set up: $keyring is missing (package debian-archive-keyring)"
# shellcheck disable=SC2016 # apt-get expands these itself
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian //p' | head -n 1)
[ "$mirror" ] || die "cannot set up: this machine's apt knows no Debian mirror"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
is_ready && exit 0
rm -rf "$cache"/{ready,apt,roots,dtb}
mkdir -p "$cache"/{debs/partial,dtb} "$cache"/apt/{lists/partial,cache,etc/apt.conf.d,etc/preferences.d}

# An apt of our own. It takes these packages for installed, of which only the dependencies matter.
for package in adduser binutils gcc initramfs-tools kmod libc-dev linux-base passwd; do
    printf '%s\n' "Package: $package" "Status: install ok installed" "Architecture: amd64" \
        "Multi-Arch: foreign" "Version: 99:0" "Maintainer: nobody" "Description: assumed" ""
done >"$cache/apt/status"
echo "deb [signed-by=$keyring arch=amd64,arm64] $mirror $suite main" >"$cache/apt/sources"
cat >"$cache/apt/conf" <<END
Dir::State "$cache/apt";
Dir::State::status "$cache/apt/status";
Dir::Cache "$cache/apt/cache";
Dir::Cache::archives "$cache/debs";
Dir::Etc "$cache/apt/etc";
Dir::Etc::sourcelist "$cache/apt/sources";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
END
export APT_CONFIG=$cache/apt/conf

fetch() {
    apt-get -qq update &&
        # With all that they need to run here …
        apt-get -qq --download-only install cpio device-tree-compiler qemu-system-arm rustc-web \
            binutils-aarch64-linux-gnu linux-image-arm64:arm64 busybox-static:arm64 &&
        # … and by themselves, to be linked with.
        (cd "$cache/debs" && apt-get -qq download {libstd-rust-web-dev,libc6-dev,libgcc-14-dev}:arm64) &&
        apt-get -qq autoclean
}
echo "tests/vm: fetching Debian packages (280 MB) into $cache"
fetch >"$cache/log" 2>&1 || die "cannot set up: apt-get cannot fetch the packages; $cache/log says why"

echo "tests/vm: unpacking"
for deb in "$cache"/debs/*.deb; do
    root=$cache/roots/host
    parts=()
    case ${deb##*/} in
        libstd-rust-web-dev_*_arm64.deb) ;; # a library for rustc, which runs here
        linux-image-*) root=$arm64 parts=(--wildcards './boot/vmlinuz-*' '*/drivers/cpufreq/*') ;;
        *_arm64.deb) root=$arm64 ;;
    esac
    mkdir -p "$root"
    [[ $deb = */linux-image-arm64_* ]] && continue # names the newest kernel, is none
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" "${parts[@]}"
done
mv "$arm64"/boot/vmlinuz-* "$arm64/vmlinuz"
mkdir "$arm64/ko"
for module in cpufreq-dt cpufreq_{powersave,userspace,ondemand,conservative}; do
    xz -dc "$arm64"/usr/lib/modules/*/kernel/drivers/cpufreq/"$module".ko.xz >"$arm64/ko/$module.ko"
done

# The machine as QEMU describes it, with a cpufreq that it does not have.
cd "$cache/dtb"
for shape in 1-1 2-1 2-2; do
    cpus=${shape%-*} policies=${shape#*-}
    tool qemu-system-aarch64 -M virt,dumpdtb=plain.dtb -cpu cortex-a57 -smp "$cpus" -nodefaults -nographic
    tool dtc -q -I dtb -O dts plain.dtb | python3 "$here/mkdtb.py" "$policies" |
        tool dtc -q -I dts -O dtb -o "$shape.dtb"
done

rm -rf plain.dtb "$cache/apt" # half a gigabyte of lists; the packages stay, for the next recipe
echo "$recipe" >"$cache/ready"
