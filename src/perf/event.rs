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
    pub fn new(name: impl Into<String>, modifiers: Modifiers, code: Code) -> Event {
        let event = Event {
            name: name.into(),
            label: None,
            modifiers: Modifiers::default(),
            code,
            measure: Measure::default(),
        };
        let unit = if event.is_clock() { "ns" } else { "" };
        Event {
            measure: Measure::new(1.0, unit),
            ..event
        }
        .with(modifiers)
    }

    /// The same event with `more` modifiers beside those that it has.
    ///
    /// `task-clock` and `cpu-clock` run in user and kernel mode alike, whatever they are asked
    /// for. So they drop `u`, `k` and `h`: a name must not promise a part that was not told apart.
    pub fn with(self, more: Modifiers) -> Event {
        let mut modifiers = self.modifiers.and(more);
        if self.is_clock() {
            modifiers = Modifiers {
                user: false,
                kernel: false,
                hypervisor: false,
                ..modifiers
            };
        }
        Event { modifiers, ..self }
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
    /// with the kernel; for clocks, which everybody may read; for `msr`, which knows no modes
    /// and refuses to leave one out; and for events that happen in the kernel, of which it would
    /// count 0 ([`Event::is_blind_in_user_mode`]).
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
        let knows_modes = !self.is_clock() && self.pmu() != Some("msr");
        if !counts_both || !knows_modes || self.is_blind_in_user_mode() {
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
        check(event("msr/tsc/", 9, 0), None);
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
}
