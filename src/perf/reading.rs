//! Readings, the kernel's own truth about an event, and the labelled figures and ratios made of them. Never opens or reads a counter.

use super::event::Event;
use crate::sample::{Figure, Part, Value};
use crate::unit::Unit;

/// What the kernel said of one event: never pre-scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reading {
    /// The raw count.
    pub count: u64,
    /// Nanoseconds that the event was enabled.
    pub enabled_ns: u64,
    /// Nanoseconds of these that it was on a counter.
    pub running_ns: u64,
}

impl Reading {
    /// The difference from an earlier reading of the same event.
    pub fn since(&self, earlier: &Reading) -> Reading {
        Reading {
            count: self.count.wrapping_sub(earlier.count),
            enabled_ns: self.enabled_ns.saturating_sub(earlier.enabled_ns),
            running_ns: self.running_ns.saturating_sub(earlier.running_ns),
        }
    }

    /// The sum with the same event's reading on another task or CPU.
    pub fn plus(&self, other: &Reading) -> Reading {
        Reading {
            count: self.count.wrapping_add(other.count),
            enabled_ns: self.enabled_ns.saturating_add(other.enabled_ns),
            running_ns: self.running_ns.saturating_add(other.running_ns),
        }
    }

    /// Share of the enabled time on a counter, in [0, 1]; `None` when it was never enabled.
    ///
    /// The kernel can report a little more running than enabled time; that is taken as 1.
    pub fn running_share(&self) -> Option<f64> {
        (self.enabled_ns > 0).then(|| (self.running_ns as f64 / self.enabled_ns as f64).min(1.0))
    }

    /// The count of `event` in base units with its label. `residence` names the core type on a
    /// hybrid machine: there, time not running is time on the other core type, so the count is
    /// never extrapolated but partial.
    pub fn figure(&self, event: &Event, residence: Option<&str>) -> Figure {
        let value = self.count as f64 * event.scale();
        match self.running_share() {
            None => Figure::absent("it was never enabled: the task did not run"),
            Some(0.0) => Figure::absent(match residence {
                Some(core) => format!("the task never ran on a {core} core"),
                None => "it never got a counter: the PMU is busy with other users (perf, the NMI watchdog)".to_owned(),
            }),
            Some(1.0) => Figure::Exact(value),
            Some(_) if let Some(core) = residence => {
                Figure::Partial { value, part: Part(format!("{core} cores only")) }
            }
            Some(running) => Figure::Scaled { value: value / running, running },
        }
    }
}

/// Ratios worth showing, by the events they are made of: (numerator, denominator, unit).
const RATIOS: &[(&str, &str, &str)] = &[
    ("instructions", "cycles", "IPC"),
    ("branch-misses", "branches", "branch-miss-rate"),
    ("cache-misses", "cache-references", "cache-miss-rate"),
    (
        "L1-dcache-load-misses",
        "L1-dcache-loads",
        "L1-dcache-load-miss-rate",
    ),
    ("LLC-load-misses", "LLC-loads", "LLC-load-miss-rate"),
    ("dTLB-load-misses", "dTLB-loads", "dTLB-load-miss-rate"),
    ("iTLB-load-misses", "iTLB-loads", "iTLB-load-miss-rate"),
];

/// Whether a ratio of these two events is shown, so that they belong into one group.
pub fn are_related(a: &Event, b: &Event) -> bool {
    let pair = |n: &str, d: &str| (a.name == n && b.name == d) || (a.name == d && b.name == n);
    a.modifiers == b.modifiers && RATIOS.iter().any(|(n, d, _)| pair(n, d))
}

/// The ratios that the readings of **one group** allow: numerator and denominator were on the PMU
/// during the same time. Each has the weaker of their labels; `residence` is as for
/// [`Reading::figure`].
pub fn ratios<'r>(
    events: &[Event],
    readings: &[Reading],
    residence: impl Fn(&Event) -> Option<&'r str>,
) -> Vec<Value> {
    let group = || events.iter().zip(readings);
    let mut values = Vec::new();
    for &(n, d, unit) in RATIOS {
        for (event, above) in group().filter(|(event, _)| event.name == n) {
            let is_below = |other: &Event| other.name == d && other.modifiers == event.modifiers;
            let Some((other, below)) = group().find(|(other, _)| is_below(other)) else {
                continue;
            };
            let spelling = event.spelling();
            let unit = spelling
                .strip_prefix(n)
                .map(|modifiers| format!("{unit}{modifiers}"));
            let Some(unit) = unit.and_then(|text| Unit::new(text).ok()) else {
                continue;
            };
            let below = below.figure(other, residence(other));
            let figure = match below.number() {
                Some(0.0) => Figure::absent(format!("no {d} were counted")),
                _ => above
                    .figure(event, residence(event))
                    .weaker(below, |above, below| above / below),
            };
            values.push(Value { unit, figure });
        }
    }
    values
}
