#!/bin/bash
# test.sh: proves the counters on a real PMU, and the holding of the machine on a real cpufreq.
# Prepares the virtual machine, builds for it, runs tests/pmu and the unit tests of what is nearest
# to the kernel in it, one test again at other numbers of instructions a cycle, and tests/hold with
# one frequency policy and with two; sums up.
set -euo pipefail
. "$(dirname "$0")/env.sh"
"$here/setup.sh"
cd "$here/../.."
"$here/cargo.sh" test --no-run --lib --test pmu --test hold

results=$(mktemp)
trap 'rm -f "$results"' EXIT
status=0
run() { "$here/cargo.sh" test "$@" 2>&1 | tee -a "$results" || status=1; }

run --test pmu
for shift in 0 2 3; do SHIFT=$shift run --test pmu instructions_a_cycle; done
run --lib -- perf:: sys:: machine::hold:: probe::
SECONDS_AT_MOST=1200 run --test hold real:: # hundreds of kills
CPUS=2 POLICIES=2 run --test hold real::a_

sum() { sed -n "s/^test result: .* \([0-9]*\) $1;.*/\1/p" "$results" | awk '{ n += $1 } END { print n + 0 }'; }
[ "$status" = 0 ] || [ "$(sum failed)" != 0 ] || echo "tests/vm: something else than a test failed"
echo "$(sum passed) passed, $(sum failed) failed"
exit $status
