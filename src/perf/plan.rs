//! What of the wanted events can be counted here, and how they are dealt out to the PMU: tried by opening and counting. Never counts a workload.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;

use super::catalog::Catalog;
use super::event::{Code, Event, Group, Modifiers};
use super::group::{Counters, How};
use super::reading::{self, Reading, are_related};
use super::{Access, Error};
use crate::sample::{Cause, Figure, Value};
use crate::sys::perf_event::{Target, bindings};
use crate::unit::Unit;

/// The wanted events, sorted into what is counted always, what is counted in turns, and what
/// cannot be counted.
///
/// Software events never compete for counters: they are in `always`. Hardware events are packed
/// into as few `turns` as the PMU needs, each one group, so that a repeated run takes one turn a
/// run and every count is exact. Events with a ratio between them share a turn.
pub struct Plan {
    /// Groups that are counted in every run.
    pub always: Vec<Vec<Event>>,
    /// Groups of which one is counted a run; in a single run all are opened and share the PMU.
    pub turns: Vec<Vec<Event>>,
    /// Events that cannot be counted, and why.
    pub absent: Vec<(Event, Cause)>,
    /// Events whose user-mode part is counted for want of permission: the wanted spelling and
    /// the cause. They stand in the groups with their `:u`.
    pub user_only: Vec<(String, Cause)>,
    /// What the events were tried with, disabled. The kernel patches its code when the first perf
    /// event of a kind opens and when the last one closes, at half a millisecond a time; with
    /// these open it does so once and not at every run.
    warm: Vec<Counters>,
    /// What [`counts_when_provoked`] said of events that once read 0.
    provoked: RefCell<HashMap<Event, bool>>,
    access: Access,
    /// The units in the wanted order.
    order: Vec<Unit>,
}

/// The counters of one run on one target.
pub struct Counting(Vec<Counters>);

/// The readings of a [`Counting`], group by group.
pub type Readings = Vec<Vec<Reading>>;

/// Whether a value grows with the work done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A count over the whole: to be divided by operations, added over targets.
    Total,
    /// A quotient of two counts.
    Ratio,
}

/// Events that go onto the PMU together.
struct Cluster {
    events: Vec<Event>,
    /// Whether the user demanded it with braces; else it may fall apart.
    rigid: bool,
}

impl Plan {
    /// Tries the wanted groups on `target`: ourselves, or the first CPU of a system-wide count.
    pub fn make(wanted: &[Group], target: Target, access: Access) -> Plan {
        let mut plan = Plan {
            always: Vec::new(),
            turns: Vec::new(),
            absent: Vec::new(),
            user_only: Vec::new(),
            warm: Vec::new(),
            provoked: RefCell::default(),
            access,
            order: Vec::new(),
        };
        let mut clusters: Vec<Cluster> = Vec::new();
        for group in wanted {
            let events: Vec<Event> = group
                .events
                .iter()
                .filter_map(|event| plan.admit(event, target))
                .collect();
            let weak = group.events.iter().any(|event| event.modifiers.weak);
            if group.braced && !weak && !events.is_empty() {
                clusters.push(Cluster {
                    events,
                    rigid: true,
                });
                continue;
            }
            for event in events {
                // Asked for twice, or what is left of another one for want of permission.
                if clusters.iter().any(|known| known.events.contains(&event)) {
                    continue;
                }
                let friend = |cluster: &&mut Cluster| {
                    !cluster.rigid
                        && cluster
                            .events
                            .iter()
                            .any(|other| are_related(other, &event))
                };
                match clusters.iter_mut().find(friend) {
                    Some(cluster) => cluster.events.push(event),
                    None => clusters.push(Cluster {
                        events: vec![event],
                        rigid: false,
                    }),
                }
            }
        }
        for cluster in clusters {
            match cluster.events.iter().all(Event::is_software) {
                true => plan.always_count(cluster),
                false => plan.take_turns(cluster, target),
            }
        }
        plan
    }

    /// The context in which refusals get their meaning.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The groups of one run: those of turn number `turn` (counted round and round), or all.
    fn groups(&self, turn: Option<u64>) -> impl Iterator<Item = &Vec<Event>> {
        let chosen = match turn {
            Some(turn) if !self.turns.is_empty() => {
                let at = (turn % self.turns.len() as u64) as usize;
                &self.turns[at..=at]
            }
            _ => &self.turns[..],
        };
        self.always.iter().chain(chosen)
    }

    /// The spellings of the groups of one run, for a process that opens them on itself.
    pub fn spellings(&self, turn: Option<u64>) -> Vec<Vec<String>> {
        self.groups(turn)
            .map(|events| events.iter().map(Event::spelling).collect())
            .collect()
    }

    /// Opens the groups of one run on `target`; `turn` is as for a rotation, `None` opens all.
    pub fn open(&self, turn: Option<u64>, target: Target, how: How) -> Result<Counting, Error> {
        self.groups(turn)
            .map(|events| Counters::open(events, target, how))
            .collect::<Result<_, _>>()
            .map(Counting)
    }

    /// What the readings of one run say: every wanted event of that run in the wanted order, with
    /// the ratios after them, and the absent ones with their causes.
    ///
    /// `readings` come from a [`Counting`] opened with the same `turn`; values are totals, not
    /// yet divided by operations.
    pub fn values(&self, turn: Option<u64>, readings: &Readings) -> Vec<(Kind, Value)> {
        let mut values = Vec::new();
        for (events, readings) in self.groups(turn).zip(readings) {
            let counted = events.iter().zip(readings);
            values
                .extend(counted.map(|(event, reading)| (Kind::Total, self.value(event, reading))));
            values.extend(
                reading::ratios(events, readings, |event| self.access.residence(event))
                    .into_iter()
                    .map(|value| (Kind::Ratio, value)),
            );
        }
        let absent = |(event, why): &(Event, Cause)| Value {
            unit: event.unit(),
            figure: Figure::absent(why.clone()),
        };
        values.extend(
            self.absent
                .iter()
                .map(|missing| (Kind::Total, absent(missing))),
        );
        // Groups may share events; a sample has one value a unit.
        let mut known = HashSet::new();
        values.retain(|(_, value)| known.insert(value.unit.clone()));
        values.sort_by_key(|(_, value)| {
            self.order
                .iter()
                .position(|unit| *unit == value.unit)
                .unwrap_or(usize::MAX)
        });
        values
    }

    fn value(&self, event: &Event, reading: &Reading) -> Value {
        let figure = match reading.figure(event, self.access.residence(event)) {
            figure
                if figure.number() == Some(0.0)
                    && !event.is_software()
                    && !self.counts_when_provoked(event) =>
            {
                Figure::absent(SILENT)
            }
            figure => figure,
        };
        Value {
            unit: event.unit(),
            figure,
        }
    }

    /// Asked only after a workload's reading was 0, to tell an event that the PMU does not have
    /// from a true zero. Where it cannot be tried, as for whole CPUs, the zero is believed.
    fn counts_when_provoked(&self, event: &Event) -> bool {
        let mut known = self.provoked.borrow_mut();
        *known
            .entry(event.clone())
            .or_insert_with(|| !matches!(provoked_count(event), Ok(0)))
    }

    /// Whether the event can be opened at all, perhaps only in user mode.
    fn admit(&mut self, event: &Event, target: Target) -> Option<Event> {
        self.order.push(event.unit());
        let mut refusal = match open_alone(event, target) {
            Ok(counters) => {
                self.warm.push(counters);
                return Some(event.clone());
            }
            Err(refusal) => refusal,
        };
        if refusal.is_denied()
            && let Some(user) = event.with_user_only()
        {
            match open_alone(&user, target) {
                Ok(counters) => {
                    self.warm.push(counters);
                    let why = self.access.explain(&refusal);
                    self.order.push(user.unit());
                    self.user_only.push((event.spelling(), why));
                    return Some(user);
                }
                // More privilege would not help: this is what stands in the way.
                Err(other) if !other.is_denied() => refusal = other,
                Err(_) => {}
            }
        }
        let why = self.access.explain(&refusal);
        self.absent.push((event.clone(), why));
        None
    }

    /// Software events fit into one group without limit; different PMUs don't mix in one.
    fn always_count(&mut self, cluster: Cluster) {
        let same_pmu = |group: &&mut Vec<Event>| group[0].code.kind == cluster.events[0].code.kind;
        match self.always.iter_mut().find(same_pmu) {
            Some(group) if group.len() + cluster.events.len() <= super::group::MAX_EVENTS => {
                group.extend(cluster.events)
            }
            _ => self.always.push(cluster.events),
        }
    }

    /// Puts a cluster of hardware events into the first turn that has room for it.
    fn take_turns(&mut self, cluster: Cluster, target: Target) {
        for turn in &mut self.turns {
            let together: Vec<Event> = turn.iter().chain(&cluster.events).cloned().collect();
            if matches!(fits(&together, target), Ok(true)) {
                *turn = together;
                return;
            }
        }
        let many = cluster.events.len() > 1;
        let why = match fits(&cluster.events, target) {
            Ok(true) => return self.turns.push(cluster.events),
            Ok(false) | Err(_) if many && !cluster.rigid => {
                for event in cluster.events {
                    self.take_turns(
                        Cluster {
                            events: vec![event],
                            rigid: true,
                        },
                        target,
                    );
                }
                return;
            }
            Ok(false) | Err(_) if many => Cause::new(format!(
                "the PMU cannot count these {} events at once",
                cluster.events.len()
            ))
            .cure("ask for them in smaller groups"),
            Ok(false) => Cause::new("it never got a counter: others hold the PMU")
                .cure("end other perf sessions; echo 0 | sudo tee /proc/sys/kernel/nmi_watchdog"),
            Err(error) => self.access.explain(&error),
        };
        self.absent
            .extend(cluster.events.into_iter().map(|event| (event, why.clone())));
    }
}

/// The differences from earlier readings of the same counters.
pub fn since(later: &Readings, earlier: &Readings) -> Readings {
    combine(later, earlier, Reading::since)
}

/// The sums with readings of the same events on another target.
pub fn plus(one: &Readings, other: &Readings) -> Readings {
    combine(one, other, Reading::plus)
}

fn combine(
    one: &Readings,
    other: &Readings,
    with: impl Fn(&Reading, &Reading) -> Reading,
) -> Readings {
    let groups = one.iter().zip(other);
    groups
        .map(|(one, other)| one.iter().zip(other).map(|(a, b)| with(a, b)).collect())
        .collect()
}

impl Counting {
    /// Starts counting; not needed with `enable_on_exec`.
    pub fn enable(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(Counters::enable)
    }

    /// Stops counting.
    pub fn disable(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(Counters::disable)
    }

    /// Reads every group, one call a group.
    pub fn read(&self) -> Result<Readings, Error> {
        self.0.iter().map(Counters::read).collect()
    }
}

const DISABLED: How = How {
    inherit: false,
    enable_on_exec: false,
    user_access: false,
};

fn open_alone(event: &Event, target: Target) -> Result<Counters, Error> {
    Counters::open(std::slice::from_ref(event), target, DISABLED)
}

/// Whether a group really gets on the PMU as a whole: the kernel's own check at opening knows the
/// number of counters but not who else holds them.
fn fits(events: &[Event], target: Target) -> Result<bool, Error> {
    let counters = Counters::open(events, target, DISABLED)?;
    counters.enable()?;
    exercise();
    let readings = counters.read()?;
    Ok(readings
        .iter()
        .all(|reading| reading.running_share() == Some(1.0)))
}

/// Said of an event that opens and reads 0 whatever is done, as raw events may that the PMU does
/// not have.
const SILENT: &str =
    "it opens but counts nothing, even when provoked: this PMU seems not to have it";

/// Tries whether the event that `name` spells can be opened and, when it is of the hardware,
/// whether it counts. Gives the event as it can be counted: perhaps in user mode only.
pub fn try_out(name: &str, catalog: &Catalog, access: &Access) -> Result<Event, Cause> {
    let parsed = catalog.parse(name);
    let mut groups = parsed.map_err(|error| Cause::new(error.to_string()))?;
    let Some(event) = groups.pop().and_then(|mut group| group.events.pop()) else {
        return Err(Cause::new("it names no event"));
    };
    let tried = |event: &Event| match event.is_software() {
        true => open_alone(event, Target::Myself).map(|_| None),
        false => provoked_count(event).map(Some),
    };
    let mut result = tried(&event);
    let mut countable = event;
    if result.as_ref().is_err_and(Error::is_denied)
        && let Some(user) = countable.with_user_only()
    {
        let other = tried(&user);
        if !other.as_ref().is_err_and(Error::is_denied) {
            (countable, result) = (user, other);
        }
    }
    match result.map_err(|error| access.explain(&error))? {
        Some(0) => Err(Cause::new(SILENT)),
        _ => Ok(countable),
    }
}

/// How many hardware events the PMU counts at once: cycles and so many less one of instructions.
pub fn counter_budget(access: &Access) -> Result<usize, Cause> {
    let hardware = |name: &str, id: u32| {
        let code = Code {
            kind: bindings::PERF_TYPE_HARDWARE,
            config: id.into(),
            ..Code::default()
        };
        // User mode is enough for it and needs the least privilege.
        Event::new(
            name,
            Modifiers {
                user: true,
                ..Modifiers::default()
            },
            code,
        )
    };
    let mut group = vec![hardware("cycles", bindings::PERF_COUNT_HW_CPU_CYCLES)];
    if !fits(&group, Target::Myself).map_err(|error| access.explain(&error))? {
        return Err(Cause::new(
            "cycles never got a counter: others hold the PMU",
        ));
    }
    while group.len() < 32 {
        group.push(hardware(
            "instructions",
            bindings::PERF_COUNT_HW_INSTRUCTIONS,
        ));
        if !matches!(fits(&group, Target::Myself), Ok(true)) {
            return Ok(group.len() - 1);
        }
    }
    Ok(group.len())
}

/// What `event` counts while work is done that provokes every usual event.
fn provoked_count(event: &Event) -> Result<u64, Error> {
    let counters = open_alone(event, Target::Myself)?;
    counters.enable()?;
    exercise();
    provoke();
    Ok(counters.read()?.iter().map(|reading| reading.count).sum())
}

/// A few microseconds of plain work.
fn exercise() {
    let mut x = 1u64;
    for i in 0..2000u64 {
        x = black_box(x.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i));
    }
}

/// Mispredicted branches, cache and TLB misses, page faults and system calls: some milliseconds.
fn provoke() {
    let mut memory = vec![0u8; 8 << 20];
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut taken = 0u64;
    for _ in 0..200_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let at = x as usize % memory.len();
        memory[at] = memory[at].wrapping_add(1);
        if black_box(x) & 1 == 0 {
            taken = black_box(taken + 1);
        }
    }
    drop(black_box((memory, taken)));
    std::thread::yield_now();
    // Our peak of resident memory is the floor under that of every later child (`run::command`):
    // let it forget this (proc_pid_clear_refs(5)). Where that fails, the floor is higher.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::catalog::Catalog;

    #[test]
    fn a_sample_has_one_value_a_unit() {
        let check = |wanted: &str, want: &[&str], opened: usize| {
            let groups = Catalog::default().parse(wanted).unwrap();
            let access = Access::look("/proc".as_ref(), "/sys".as_ref());
            let plan = Plan::make(&groups, Target::Myself, access);
            let counting = plan.open(None, Target::Myself, DISABLED).unwrap();
            counting.enable().unwrap();
            let readings = counting.read().unwrap();
            assert_eq!(readings.iter().map(Vec::len).sum::<usize>(), opened);
            let values = plan.values(None, &readings);
            let units: Vec<&str> = values.iter().map(|(_, v)| v.unit.as_str()).collect();
            assert_eq!(units, want, "{wanted}");
        };
        // `u` is what everybody may count.
        check("page-faults:u", &["page-faults:u/op"], 1);
        check(
            "page-faults:u,major-faults:u,page-faults:u",
            &["page-faults:u/op", "major-faults:u/op"],
            2,
        );
        check(
            "{page-faults:u,major-faults:u},{minor-faults:u,page-faults:u}",
            &["page-faults:u/op", "major-faults:u/op", "minor-faults:u/op"],
            4,
        );
    }
}
