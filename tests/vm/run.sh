#!/bin/bash
# run.sh PROGRAM ARGUMENTS: cargo's runner. Runs PROGRAM as root in a fresh guest, `poise` beside it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
program=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests"
cp "$program" "$work/tests/program"
built=$(dirname "$program")
cp "${built%/deps}/poise" "$work/tests/"
cat >"$work/main" <<END
#!/bin/sh
export POISE_BIN=/tests/poise POISE_VM_SHIFT=${SHIFT:-1} RUST_TEST_THREADS=1
exec /tests/program $(printf '%q ' "$@")
END
chmod +x "$work/main"
"$here/boot.sh" "$work"
