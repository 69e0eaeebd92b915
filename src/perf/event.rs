//! Events: how they are spelled, what the kernel calls them. Never opens one.

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

/// The letters after an event's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Modifiers {
    /// `u`: count in user mode. When neither `u`, `k` nor `h` stands there, all are counted.
    pub user: bool,
    /// `k`: count in the kernel.
    pub kernel: bool,
    /// `h`: count in the hypervisor.
    pub hypervisor: bool,
    /// Number of `p`s: wanted skid constraint, 0–3 (`P` is 3 or the most the PMU gives).
    pub precise: u8,
    /// `D`: pinned to the PMU, or in error.
    pub pinned: bool,
    /// `W`: weak group: falls apart into single events when it does not fit.
    pub weak: bool,
}

/// One event to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Canonical spelling without modifiers: `cycles`, `msr/tsc/`, `syscalls:sys_enter_write`.
    pub name: String,
    /// The modifiers.
    pub modifiers: Modifiers,
    /// What the kernel is asked for.
    pub code: Code,
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
    /// The spelling with modifiers, which is the event's identity: `cycles:u`.
    pub fn spelling(&self) -> String {
        todo!()
    }

    /// The unit of its counts once an operation: `cycles:u/op`; clocks count nanoseconds and
    /// give `task-clock-sec/op`.
    pub fn unit(&self) -> Unit {
        todo!()
    }

    /// The attribute that the kernel is asked with: type, configs and exclusions; not enabled,
    /// not inherited, no read format.
    pub fn attr(&self) -> perf_event_attr {
        todo!()
    }
}
