#!/usr/bin/env python3
"""Adds a cpufreq to the device tree of QEMU's virt machine: mkdtb.py POLICIES <in.dts >out.dts

A CPU clock of 600 MHz, 1.2, 1.8 or 2.4 GHz is muxed by three GPIO lines, and cpufreq-dt drives it
by a table of operating points. With 1 policy all CPUs share clock and table; with 2, two CPUs have
one each.
"""

import re
import sys

RATES_MHZ = [600, 1200, 1800, 2400]
# The GPIO lines of each policy's muxes; line 3 is the machine's power key.
LINES = [(4, 5, 6), (0, 1, 2)]
OSCILLATOR = 0x9000


def policy_base(policy):
    """Handles of a policy: three muxes, the last of which is its clock, and a table."""
    return 0x9100 + 0x10 * policy


def mux(name, handle, inputs, gpio, line):
    return f"""
    {name} {{
        compatible = "gpio-mux-clock"; #clock-cells = <0>; phandle = <{handle:#x}>;
        clocks = <{inputs[0]:#x}>, <{inputs[1]:#x}>; select-gpios = <{gpio:#x} {line} 0>;
    }};"""


def policy_nodes(policy, gpio, shared):
    base = policy_base(policy)
    first, second, third = LINES[policy]
    slow, fast = OSCILLATOR, OSCILLATOR + 2
    nodes = mux(f"mux-{policy}-0", base, (slow, slow + 1), gpio, first)
    nodes += mux(f"mux-{policy}-1", base + 1, (fast, fast + 1), gpio, second)
    nodes += mux(f"mux-{policy}-2", base + 2, (base, base + 1), gpio, third)
    points = "".join(
        f"""
        opp-{mhz} {{ opp-hz = /bits/ 64 <{mhz}000000>; clock-latency-ns = <50000>; }};"""
        for mhz in RATES_MHZ
    )
    return nodes + f"""
    opp-table-{policy} {{
        compatible = "operating-points-v2"; phandle = <{base + 3:#x}>;{" opp-shared;" if shared else ""}{points}
    }};"""


def main():
    policies = int(sys.argv[1])
    tree = sys.stdin.read()
    gpio = int(re.search(r"pl061@9030000 \{\s*phandle = <(0x[0-9a-f]+)>", tree).group(1), 16)

    def clocked(cpu):
        base = policy_base(int(cpu.group(1), 16) % policies)
        return f"{cpu.group(0)}\n clocks = <{base + 2:#x}>; operating-points-v2 = <{base + 3:#x}>;"

    tree = re.sub(r"cpu@([0-9a-f]+) \{", clocked, tree)
    nodes = "".join(
        f"""
    oscillator-{mhz} {{
        compatible = "fixed-clock"; #clock-cells = <0>; phandle = <{OSCILLATOR + i:#x}>;
        clock-frequency = <{mhz}000000>; clock-output-names = "oscillator-{mhz}";
    }};"""
        for i, mhz in enumerate(RATES_MHZ)
    )
    for policy in range(policies):
        nodes += policy_nodes(policy, gpio, shared=policies == 1)
    end = tree.rindex("};")
    sys.stdout.write(tree[:end] + nodes + "\n" + tree[end:])


main()
