//! Events: how they are spelled, what the kernel calls them, what one count of them stands for. Never opens one, never reads a file.

use std::fmt;

use crate::sys::perf_event::bindings as abi;
use crate::sys::perf_event::bindings::perf_event_attr;
use crate::unit::Unit;

/// What the kernel is asked for: the identifying fields of `perf_event_attr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Code {
    /// `PERF_TYPE_*`, or a PMU's number from its `type` file.
    pub kind: u32,
    /// `attr.config`.
    pub config: u64,
    /// `attr.config1`.
    pub config1: u64,
    /// `attr.config2`.
    pub config2: u64,
}

/// How far a sampled instruction may lie from the event: the `p`s of perf, `attr.precise_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Precise {
    /// No `p`: anywhere.
    #[default]
    Arbitrary,
    /// `p`: at a constant distance.
    Constant,
    /// `pp`: no distance, if it can be had.
    Requested,
    /// `ppp`: no distance.
    Exact,
    /// `P`: as near as the PMU gives. Whoever samples finds it by trying from `Exact` downwards;
    /// plain counting asks for nothing.
    Most,
}

/// The letters after an event's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Modifiers {
    /// `u`: count in user mode. When neither `u`, `k` nor `h` stands there, all are counted.
    pub user: bool,
    /// `k`: count in the kernel.
    pub kernel: bool,
    /// `h`: count in the hypervisor.
    pub hypervisor: bool,
    /// `p`, `pp`, `ppp`, `P`.
    pub precise: Precise,
    /// `D`: pinned to the PMU, or in error.
    pub pinned: bool,
    /// `W`: weak group: falls apart into single events when it does not fit.
    pub weak: bool,
}

/// What one count of an event stands for: a factor, and the base unit that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Measure {
    /// The bits of an `f64`, so that events can be compared and hashed.
    factor_bits: u64,
    base: String,
}

/// One event to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Canonical spelling without modifiers: `cycles`, `msr/tsc/`, `syscalls:sys_enter_write`.
    pub name: String,
    /// What the user calls it instead (`pmu/…,name=label/`).
    pub label: Option<String>,
    /// The modifiers.
    pub modifiers: Modifiers,
    /// What the kernel is asked for.
    pub code: Code,
    /// What one count stands for.
    pub measure: Measure,
}

/// Events that must be on the PMU at the same time (`{a,b}`), or a single one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// The members, the leader first.
    pub events: Vec<Event>,
    /// Whether braces stood around it: then it is never split (unless weak).
    pub braced: bool,
}

impl Event {
    /// An event whose counts are plain counts, or nanoseconds when it is one of the kernel's
    /// clocks.
    ///
    /// `task-clock` and `cpu-clock` run in user and kernel mode alike, whatever they are asked
    /// for. So they drop `u`, `k` and `h`: a name must not promise a part that was not told apart.
    pub fn new(name: impl Into<String>, modifiers: Modifiers, code: Code) -> Event {
        let mut event = Event {
            name: name.into(),
            label: None,
            modifiers,
            code,
            measure: Measure::default(),
        };
        if event.is_clock() {
            event.measure = Measure::new(1.0, "ns");
            event.modifiers = Modifiers {
                user: false,
                kernel: false,
                hypervisor: false,
                ..modifiers
            };
        }
        event
    }

    /// The spelling with all modifiers, from which [`Catalog::parse`](super::catalog::Catalog::parse)
    /// makes the same event again: `cycles:u`, `msr/tsc/u`.
    pub fn spelling(&self) -> String {
        with_letters(&self.name, &self.modifiers.to_string())
    }

    /// The unit of its figures once an operation: `cycles:u/op`; with a base unit where one is
    /// known, as in `task-clock-sec/op` and `power/energy-pkg/-Joules/op`.
    ///
    /// Modifiers that change what is counted are part of it; `D` and `W`, which only say how the
    /// counter is scheduled, are not.
    pub fn unit(&self) -> Unit {
        let scheduled = Modifiers {
            pinned: false,
            weak: false,
            ..self.modifiers
        };
        let mut name = with_letters(
            self.label.as_ref().unwrap_or(&self.name),
            &scheduled.to_string(),
        );
        if !self.measure.base.is_empty() {
            name.push('-');
            name.push_str(&self.measure.base);
        }
        Unit::per_op(&name)
    }

    /// The factor from the raw count to base units: 1e-9 for clocks, what sysfs says for a PMU's
    /// events, else 1.
    pub fn scale(&self) -> f64 {
        self.measure.factor()
    }

    /// The attribute that the kernel is asked with: type, configs, exclusions, precision,
    /// pinning; not enabled, not inherited, no read format.
    ///
    /// `exclude_guest` is set only beside `precise_ip`, where hosts need it. Elsewhere it would
    /// change nothing for a process, and PMUs without exclusion (`msr`) would refuse it.
    pub fn attr(&self) -> perf_event_attr {
        let mut attr = perf_event_attr {
            type_: self.code.kind,
            config: self.code.config,
            ..perf_event_attr::default()
        };
        attr.__bindgen_anon_3.config1 = self.code.config1;
        attr.__bindgen_anon_4.config2 = self.code.config2;
        let Modifiers {
            user,
            kernel,
            hypervisor,
            precise,
            pinned,
            weak: _,
        } = self.modifiers;
        let chosen = user || kernel || hypervisor;
        // A clock ignores the exclusions, but the kernel checks permission by them: with them
        // set an ordinary user gets the same clock.
        let clock = self.is_clock();
        attr.set_exclude_user((chosen && !user).into());
        attr.set_exclude_kernel((chosen && !kernel || clock).into());
        attr.set_exclude_hv((chosen && !hypervisor || clock).into());
        let level = match precise {
            Precise::Arbitrary | Precise::Most => 0,
            Precise::Constant => 1,
            Precise::Requested => 2,
            Precise::Exact => 3,
        };
        attr.set_precise_ip(level);
        attr.set_exclude_guest((level > 0).into());
        attr.set_pinned(pinned.into());
        attr
    }

    /// Whether it takes no counter of any hardware: what the kernel schedules in its software
    /// context, which never has to be shared.
    pub fn is_software(&self) -> bool {
        matches!(
            self.code.kind,
            abi::PERF_TYPE_SOFTWARE | abi::PERF_TYPE_TRACEPOINT | abi::PERF_TYPE_BREAKPOINT
        ) || matches!(self.pmu(), Some("msr" | "kprobe" | "uprobe"))
    }

    /// The PMU that its spelling names: `msr` of `msr/tsc/`.
    pub fn pmu(&self) -> Option<&str> {
        self.name.split_once('/').map(|(pmu, _)| pmu)
    }

    /// The same event in user mode only, for those who may not count in the kernel.
    ///
    /// `None` when that would be no help or no truth: when it does not count user mode together
    /// with the kernel; for clocks, which everybody may read; and for events that happen in the
    /// kernel, of which the kernel would count 0 ([`Event::is_blind_in_user_mode`]).
    pub fn with_user_only(&self) -> Option<Event> {
        let Modifiers {
            user,
            kernel,
            hypervisor,
            ..
        } = self.modifiers;
        let counts_both = if user {
            kernel || hypervisor
        } else {
            !kernel && !hypervisor
        };
        if !counts_both || self.is_clock() || self.is_blind_in_user_mode() {
            return None;
        }
        let modifiers = Modifiers {
            user: true,
            kernel: false,
            hypervisor: false,
            ..self.modifiers
        };
        Some(Event {
            modifiers,
            ..self.clone()
        })
    }

    /// Whether the event happens inside the kernel, so that counting it in user mode gives 0
    /// whatever happened: switches, migrations, and tracepoints other than a system call's own.
    ///
    /// The kernel judges by the registers that the event came with. `syscalls:*` come with the
    /// caller's registers, all other static tracepoints with the kernel's. (Tracepoints that a
    /// user made from uprobes are not known as such and count as the kernel's too.)
    pub fn is_blind_in_user_mode(&self) -> bool {
        match self.code.kind {
            abi::PERF_TYPE_SOFTWARE => [
                abi::PERF_COUNT_SW_CONTEXT_SWITCHES,
                abi::PERF_COUNT_SW_CPU_MIGRATIONS,
                abi::PERF_COUNT_SW_CGROUP_SWITCHES,
            ]
            .iter()
            .any(|&id| self.code.config == u64::from(id)),
            abi::PERF_TYPE_TRACEPOINT => !self.name.starts_with("syscalls:"),
            _ => false,
        }
    }

    fn is_clock(&self) -> bool {
        self.code.kind == abi::PERF_TYPE_SOFTWARE
            && [abi::PERF_COUNT_SW_CPU_CLOCK, abi::PERF_COUNT_SW_TASK_CLOCK]
                .iter()
                .any(|&id| self.code.config == u64::from(id))
    }
}

/// `cycles`, `u` → `cycles:u`; after a PMU's closing slash no colon stands.
fn with_letters(name: &str, letters: &str) -> String {
    match letters {
        "" => name.to_owned(),
        _ if name.ends_with('/') => format!("{name}{letters}"),
        _ => format!("{name}:{letters}"),
    }
}

impl Group {
    /// The spelling from which the same group is parsed: `{cycles:u,instructions:u}`.
    pub fn spelling(&self) -> String {
        let events: Vec<String> = self.events.iter().map(Event::spelling).collect();
        let events = events.join(",");
        if self.braced {
            format!("{{{events}}}")
        } else {
            events
        }
    }
}

impl Modifiers {
    /// What both ask for together: modifiers of a group come on top of those of its members.
    pub fn and(self, more: Modifiers) -> Modifiers {
        Modifiers {
            user: self.user || more.user,
            kernel: self.kernel || more.kernel,
            hypervisor: self.hypervisor || more.hypervisor,
            precise: self.precise.max(more.precise),
            pinned: self.pinned || more.pinned,
            weak: self.weak || more.weak,
        }
    }
}

impl fmt::Display for Modifiers {
    /// The letters in a fixed order, so that `ku` and `uk` are one identity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |given, letter| if given { letter } else { "" };
        let precise = match self.precise {
            Precise::Arbitrary => "",
            Precise::Constant => "p",
            Precise::Requested => "pp",
            Precise::Exact => "ppp",
            Precise::Most => "P",
        };
        f.write_str(letter(self.user, "u"))?;
        f.write_str(letter(self.kernel, "k"))?;
        f.write_str(letter(self.hypervisor, "h"))?;
        f.write_str(precise)?;
        f.write_str(letter(self.pinned, "D"))?;
        f.write_str(letter(self.weak, "W"))
    }
}

impl Measure {
    /// `factor` of `unit` a count; times and sizes are turned into `sec` and `bytes`, a unit of
    /// another kind keeps its word. A factor that is no positive number counts as 1.
    pub fn new(factor: f64, unit: &str) -> Measure {
        let (times, base) = match unit {
            "ns" => (1e-9, "sec"),
            "us" => (1e-6, "sec"),
            "ms" => (1e-3, "sec"),
            "s" | "sec" => (1.0, "sec"),
            "B" | "Bytes" | "bytes" => (1.0, "bytes"),
            "KiB" | "KB" => (1024.0, "bytes"),
            "MiB" | "MB" => (1_048_576.0, "bytes"),
            "GiB" | "GB" => (1_073_741_824.0, "bytes"),
            other => (1.0, other),
        };
        let factor = if factor.is_finite() && factor > 0.0 {
            factor * times
        } else {
            times
        };
        Measure {
            factor_bits: factor.to_bits(),
            base: base.to_owned(),
        }
    }

    /// What a raw count is multiplied with.
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.factor_bits)
    }

    /// The base unit's word (`sec`, `bytes`, `Joules`); empty for plain counts.
    pub fn base(&self) -> &str {
        &self.base
    }
}

impl Default for Measure {
    fn default() -> Measure {
        Measure::new(1.0, "")
    }
}

/// An event that the kernel's interface itself names: the names of perf, ours first, and the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Our name, then perf's other names for it.
    pub(crate) names: Vec<String>,
    /// What the kernel is asked for.
    pub(crate) code: Code,
}

/// The generalised hardware events.
pub(crate) fn hardware() -> impl Iterator<Item = Symbol> {
    const NAMES: &[(u32, &[&str])] = &[
        (abi::PERF_COUNT_HW_CPU_CYCLES, &["cycles", "cpu-cycles"]),
        (abi::PERF_COUNT_HW_INSTRUCTIONS, &["instructions"]),
        (abi::PERF_COUNT_HW_CACHE_REFERENCES, &["cache-references"]),
        (abi::PERF_COUNT_HW_CACHE_MISSES, &["cache-misses"]),
        (
            abi::PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
            &["branches", "branch-instructions"],
        ),
        (abi::PERF_COUNT_HW_BRANCH_MISSES, &["branch-misses"]),
        (abi::PERF_COUNT_HW_BUS_CYCLES, &["bus-cycles"]),
        (
            abi::PERF_COUNT_HW_STALLED_CYCLES_FRONTEND,
            &["stalled-cycles-frontend", "idle-cycles-frontend"],
        ),
        (
            abi::PERF_COUNT_HW_STALLED_CYCLES_BACKEND,
            &["stalled-cycles-backend", "idle-cycles-backend"],
        ),
        (abi::PERF_COUNT_HW_REF_CPU_CYCLES, &["ref-cycles"]),
    ];
    NAMES
        .iter()
        .map(|&(id, names)| symbol(abi::PERF_TYPE_HARDWARE, id, names))
}

/// The events that the kernel counts itself.
pub(crate) fn software() -> impl Iterator<Item = Symbol> {
    const NAMES: &[(u32, &[&str])] = &[
        (abi::PERF_COUNT_SW_TASK_CLOCK, &["task-clock"]),
        (abi::PERF_COUNT_SW_CPU_CLOCK, &["cpu-clock"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS, &["page-faults", "faults"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS_MIN, &["minor-faults"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS_MAJ, &["major-faults"]),
        (
            abi::PERF_COUNT_SW_CONTEXT_SWITCHES,
            &["context-switches", "cs"],
        ),
        (
            abi::PERF_COUNT_SW_CPU_MIGRATIONS,
            &["cpu-migrations", "migrations"],
        ),
        (abi::PERF_COUNT_SW_CGROUP_SWITCHES, &["cgroup-switches"]),
        (abi::PERF_COUNT_SW_ALIGNMENT_FAULTS, &["alignment-faults"]),
        (abi::PERF_COUNT_SW_EMULATION_FAULTS, &["emulation-faults"]),
        (abi::PERF_COUNT_SW_BPF_OUTPUT, &["bpf-output"]),
        (abi::PERF_COUNT_SW_DUMMY, &["dummy"]),
    ];
    NAMES
        .iter()
        .map(|&(id, names)| symbol(abi::PERF_TYPE_SOFTWARE, id, names))
}

fn symbol(kind: u32, id: u32, names: &[&str]) -> Symbol {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Symbol {
        names,
        code: Code {
            kind,
            config: id.into(),
            ..Code::default()
        },
    }
}

const LOAD: u32 = abi::PERF_COUNT_HW_CACHE_OP_READ;
const STORE: u32 = abi::PERF_COUNT_HW_CACHE_OP_WRITE;
const PREFETCH: u32 = abi::PERF_COUNT_HW_CACHE_OP_PREFETCH;

/// The names of one part of a cache event, and its number.
type Names = (u32, &'static [&'static str]);

/// Caches, the operations that exist on each, and perf's names for them.
const CACHES: &[(Names, &[u32])] = &[
    (
        (
            abi::PERF_COUNT_HW_CACHE_L1D,
            &["L1-dcache", "L1-d", "L1d", "L1-data"],
        ),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_L1I,
            &["L1-icache", "L1-i", "L1i", "L1-instruction"],
        ),
        &[LOAD, PREFETCH],
    ),
    (
        (abi::PERF_COUNT_HW_CACHE_LL, &["LLC", "L2"]),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_DTLB,
            &["dTLB", "d-TLB", "Data-TLB"],
        ),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_ITLB,
            &["iTLB", "i-TLB", "Instruction-TLB"],
        ),
        &[LOAD],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_BPU,
            &["branch", "branches", "bpu", "btb", "bpc"],
        ),
        &[LOAD],
    ),
    (
        (abi::PERF_COUNT_HW_CACHE_NODE, &["node"]),
        &[LOAD, STORE, PREFETCH],
    ),
];

/// The first two are those of our own names: `…-load-misses`, `…-loads`.
const OPERATIONS: &[Names] = &[
    (LOAD, &["load", "loads", "read"]),
    (STORE, &["store", "stores", "write"]),
    (
        PREFETCH,
        &[
            "prefetch",
            "prefetches",
            "speculative-read",
            "speculative-load",
        ],
    ),
];

const RESULTS: &[Names] = &[
    (
        abi::PERF_COUNT_HW_CACHE_RESULT_ACCESS,
        &["refs", "reference", "ops", "access"],
    ),
    (abi::PERF_COUNT_HW_CACHE_RESULT_MISS, &["misses", "miss"]),
];

/// The generalised cache events, each under our name.
pub(crate) fn caches() -> impl Iterator<Item = Symbol> {
    let operations = |ops: &'static [u32]| OPERATIONS.iter().filter(|op| ops.contains(&op.0));
    CACHES.iter().flat_map(move |&(cache, ops)| {
        operations(ops).flat_map(move |&operation| {
            RESULTS
                .iter()
                .map(move |&result| cache_symbol(cache, operation, result))
        })
    })
}

/// The cache event that `word` means in any of perf's ways to say it, in any case of letters:
/// a cache, then optionally an operation (else loads) and a result (else accesses) in any order.
pub(crate) fn cache(word: &str) -> Option<Symbol> {
    let (&(cache, operations), mut rest) = CACHES
        .iter()
        .filter_map(|entry| Some((entry, strip(word, entry.0.1)?)))
        .min_by_key(|(_, rest)| rest.len())?;
    let (mut operation, mut result) = (None, None);
    while !rest.is_empty() {
        let take = |names: &'static [Names]| {
            names
                .iter()
                .find_map(|&names| Some((names, strip(rest, names.1)?)))
        };
        (operation, result, rest) = match (take(OPERATIONS), take(RESULTS)) {
            (Some((found, rest)), _) if operation.is_none() => (Some(found), result, rest),
            (_, Some((found, rest))) if result.is_none() => (operation, Some(found), rest),
            _ => return None,
        };
    }
    let operation = operation.unwrap_or(OPERATIONS[0]);
    operations
        .contains(&operation.0)
        .then(|| cache_symbol(cache, operation, result.unwrap_or(RESULTS[0])))
}

fn cache_symbol(cache: Names, operation: Names, result: Names) -> Symbol {
    let name = if result.0 == abi::PERF_COUNT_HW_CACHE_RESULT_MISS {
        format!("{}-{}-{}", cache.1[0], operation.1[0], result.1[0])
    } else {
        format!("{}-{}", cache.1[0], operation.1[1])
    };
    symbol(
        abi::PERF_TYPE_HW_CACHE,
        cache.0 | operation.0 << 8 | result.0 << 16,
        &[&name],
    )
}

/// What is left of `text` after the longest of `names` and the hyphen that ends it.
fn strip<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    let after = |name: &&str| {
        let head = text.get(..name.len())?;
        let rest = &text[name.len()..];
        let whole = rest.is_empty() || (rest.len() > 1 && rest.starts_with('-'));
        (head.eq_ignore_ascii_case(name) && whole).then(|| rest.trim_start_matches('-'))
    };
    names.iter().filter_map(after).min_by_key(|rest| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, kind: u32, config: u32) -> Event {
        Event::new(
            name,
            Modifiers::default(),
            Code {
                kind,
                config: config.into(),
                ..Code::default()
            },
        )
    }

    fn cycles(modifiers: Modifiers) -> Event {
        Event::new("cycles", modifiers, Code::default())
    }

    const USER: Modifiers = Modifiers {
        user: true,
        kernel: false,
        hypervisor: false,
        precise: Precise::Arbitrary,
        pinned: false,
        weak: false,
    };
    const NONE: Modifiers = Modifiers {
        user: false,
        ..USER
    };

    #[test]
    fn modifiers_are_part_of_the_identity() {
        let all = Modifiers {
            user: true,
            kernel: true,
            hypervisor: true,
            precise: Precise::Requested,
            pinned: true,
            weak: true,
        };
        let check = |modifiers, spelling: &str, unit: &str| {
            let event = cycles(modifiers);
            assert_eq!(
                (event.spelling().as_str(), event.unit().as_str()),
                (spelling, unit)
            );
        };
        check(NONE, "cycles", "cycles/op");
        check(USER, "cycles:u", "cycles:u/op");
        check(all, "cycles:ukhppDW", "cycles:ukhpp/op");
        check(
            Modifiers {
                pinned: true,
                ..NONE
            },
            "cycles:D",
            "cycles/op",
        );
        check(
            Modifiers {
                precise: Precise::Most,
                ..USER
            },
            "cycles:uP",
            "cycles:uP/op",
        );
        let tsc = Event {
            name: "msr/tsc/".to_owned(),
            ..cycles(USER)
        };
        assert_eq!(tsc.spelling(), "msr/tsc/u");
        let named = Event {
            label: Some("ticks".to_owned()),
            ..tsc
        };
        assert_eq!(
            (named.spelling().as_str(), named.unit().as_str()),
            ("msr/tsc/u", "ticks:u/op")
        );
    }

    #[test]
    fn units_follow_the_dimension() {
        use crate::unit::Dimension;
        let clock = event(
            "task-clock",
            abi::PERF_TYPE_SOFTWARE,
            abi::PERF_COUNT_SW_TASK_CLOCK,
        );
        assert_eq!(
            (clock.unit().as_str(), clock.scale()),
            ("task-clock-sec/op", 1e-9)
        );
        assert_eq!(clock.unit().dimension(), Dimension::Seconds);
        let faults = event(
            "page-faults",
            abi::PERF_TYPE_SOFTWARE,
            abi::PERF_COUNT_SW_PAGE_FAULTS,
        );
        assert_eq!(
            (faults.unit().as_str(), faults.scale()),
            ("page-faults/op", 1.0)
        );
        let energy = Event {
            measure: Measure::new(0.25, "Joules"),
            ..event("power/energy-pkg/", 20, 2)
        };
        assert_eq!(
            (energy.unit().as_str(), energy.scale()),
            ("power/energy-pkg/-Joules/op", 0.25)
        );
        let read = Event {
            measure: Measure::new(0.5, "MiB"),
            ..event("uncore_imc/data_reads/", 21, 1)
        };
        assert_eq!(
            (read.unit().as_str(), read.scale()),
            ("uncore_imc/data_reads/-bytes/op", 524_288.0)
        );
        assert_eq!(read.unit().dimension(), Dimension::Bytes);
    }

    #[test]
    fn factors_that_are_no_factors_count_as_one() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Measure::new(bad, "Joules").factor(), 1.0, "{bad}");
        }
    }

    #[test]
    fn attr_says_what_is_left_out() {
        let check = |modifiers, user, kernel, hypervisor| {
            let attr = cycles(modifiers).attr();
            let got = (
                attr.exclude_user(),
                attr.exclude_kernel(),
                attr.exclude_hv(),
            );
            assert_eq!(got, (user, kernel, hypervisor), "{modifiers}");
        };
        check(NONE, 0, 0, 0);
        check(USER, 0, 1, 1);
        check(
            Modifiers {
                kernel: true,
                ..USER
            },
            0,
            0,
            1,
        );
        check(
            Modifiers {
                kernel: true,
                ..NONE
            },
            1,
            0,
            1,
        );
        check(
            Modifiers {
                hypervisor: true,
                ..NONE
            },
            1,
            1,
            0,
        );
    }

    #[test]
    fn attr_carries_precision_and_pinning() {
        let check = |precise, pinned, want: (u64, u64, u64)| {
            let attr = cycles(Modifiers {
                precise,
                pinned,
                ..NONE
            })
            .attr();
            assert_eq!(
                (attr.precise_ip(), attr.exclude_guest(), attr.pinned()),
                want,
                "{precise:?}"
            );
        };
        check(Precise::Arbitrary, false, (0, 0, 0));
        check(Precise::Constant, true, (1, 1, 1));
        check(Precise::Exact, false, (3, 1, 0));
        check(Precise::Most, false, (0, 0, 0));
        let code = Code {
            kind: 9,
            config: 1,
            config1: 2,
            config2: 3,
        };
        let attr = Event::new("x/y/", NONE, code).attr();
        assert_eq!((attr.type_, attr.config), (9, 1));
        assert_eq!(
            (attr.disabled(), attr.inherit(), attr.read_format),
            (0, 0, 0)
        );
    }

    #[test]
    fn clocks_do_not_pretend_to_know_modes() {
        let code = Code {
            kind: abi::PERF_TYPE_SOFTWARE,
            config: 1,
            ..Code::default()
        };
        let clock = Event::new(
            "task-clock",
            Modifiers {
                pinned: true,
                ..USER
            },
            code,
        );
        assert_eq!(clock.spelling(), "task-clock:D");
        assert_eq!(clock.unit().as_str(), "task-clock-sec/op");
        assert_eq!(
            (clock.attr().exclude_user(), clock.attr().exclude_kernel()),
            (0, 1)
        );
    }

    #[test]
    fn the_fallback_never_invents_a_zero() {
        let check = |event: Event, want: Option<&str>| {
            assert_eq!(
                event.with_user_only().map(|e| e.spelling()).as_deref(),
                want,
                "{}",
                event.spelling()
            );
        };
        check(cycles(NONE), Some("cycles:u"));
        check(
            cycles(Modifiers {
                kernel: true,
                ..USER
            }),
            Some("cycles:u"),
        );
        check(cycles(USER), None);
        check(
            cycles(Modifiers {
                kernel: true,
                ..NONE
            }),
            None,
        );
        let software = |name, config| event(name, abi::PERF_TYPE_SOFTWARE, config);
        check(
            software("page-faults", abi::PERF_COUNT_SW_PAGE_FAULTS),
            Some("page-faults:u"),
        );
        check(software("task-clock", abi::PERF_COUNT_SW_TASK_CLOCK), None);
        check(
            software("context-switches", abi::PERF_COUNT_SW_CONTEXT_SWITCHES),
            None,
        );
        check(
            software("cpu-migrations", abi::PERF_COUNT_SW_CPU_MIGRATIONS),
            None,
        );
        let tracepoint = |name| event(name, abi::PERF_TYPE_TRACEPOINT, 7);
        check(
            tracepoint("syscalls:sys_enter_write"),
            Some("syscalls:sys_enter_write:u"),
        );
        check(tracepoint("sched:sched_switch"), None);
    }

    #[test]
    fn software_takes_no_counter() {
        let check =
            |name, kind, want| assert_eq!(event(name, kind, 0).is_software(), want, "{name}");
        check("page-faults", abi::PERF_TYPE_SOFTWARE, true);
        check("sched:sched_switch", abi::PERF_TYPE_TRACEPOINT, true);
        check("breakpoint/config=0/", abi::PERF_TYPE_BREAKPOINT, true);
        check("msr/tsc/", 9, true);
        check("cycles", abi::PERF_TYPE_HARDWARE, false);
        check("cpu/event=0x3c/", abi::PERF_TYPE_RAW, false);
        check("power/energy-pkg/", 20, false);
    }

    #[test]
    fn cache_events_are_understood_in_all_of_perfs_ways() {
        let check = |word, want: Option<(&str, u64)>| {
            let got = cache(word);
            let got = got.as_ref().map(|s| (s.names[0].as_str(), s.code.config));
            assert_eq!(got, want, "{word}");
        };
        check("L1-dcache-loads", Some(("L1-dcache-loads", 0)));
        check("L1-dcache", Some(("L1-dcache-loads", 0)));
        check("l1-d-loads", Some(("L1-dcache-loads", 0)));
        check("l1d-read-access", Some(("L1-dcache-loads", 0)));
        check(
            "L1-dcache-load-misses",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check(
            "L1-dcache-loads-misses",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check(
            "L1-dcache-misses-loads",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check("LLC-misses", Some(("LLC-load-misses", 0x10002)));
        check("LLC-store-misses", Some(("LLC-store-misses", 0x10102)));
        check("L2-prefetches", Some(("LLC-prefetches", 0x202)));
        check("dTLB-load-misses", Some(("dTLB-load-misses", 0x10003)));
        check("iTLB-loads", Some(("iTLB-loads", 4)));
        check("branch-load-misses", Some(("branch-load-misses", 0x10005)));
        check("branches-loads", Some(("branch-loads", 5)));
        check(
            "node-prefetch-misses",
            Some(("node-prefetch-misses", 0x10206)),
        );
        check(
            "node-speculative-read-miss",
            Some(("node-prefetch-misses", 0x10206)),
        );
        check("iTLB-stores", None);
        check("L1-icache-stores", None);
        check("L1-dcache-", None);
        check("L1-dcache-loads-loads", None);
        check("L1-dcache-foo", None);
        check("L1", None);
        check("ünode", None);
        for symbol in caches() {
            assert_eq!(cache(&symbol.names[0]), Some(symbol));
        }
    }
}
