//! Events that are counted in syscalls: counters of every CPU, which the programs in the kernel read. Never looks at a call itself.

use crate::machine::facts::{Facts, Roots};
use crate::perf;
use crate::perf::Access;
use crate::perf::event::{Event, Group};
use crate::perf::group::{Counters, How};
use crate::perf::plan::Plan;
use crate::perf::reading::{Reading, ratios};
use crate::probe;
use crate::probe::record::EVENTS;
use crate::probe::syscalls::Profiler;
use crate::run::Error;
use crate::sample::{Cause, Value};
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// The counters of one run.
pub(super) struct Counts {
    plan: Plan,
    /// Of each CPU.
    cpus: Vec<(u32, Vec<Counters>)>,
}

/// What counts of calls mean.
#[derive(Clone, Debug, Default)]
pub struct InCalls {
    /// The events, each with the core type that it is counted on where there are several, and for
    /// how long it was on the counters of all CPUs.
    events: Vec<(Event, Option<String>, Reading)>,
    /// Those that are not counted, and why.
    pub absent: Vec<(Unit, Cause)>,
}

const OF_CPU: How = How {
    inherit: false,
    enable_on_exec: false,
    user_access: false,
};

impl Counts {
    /// Opens them on all CPUs and has them count.
    ///
    /// Errors: the cause, when none of the events can be counted, or not all at once.
    pub(super) fn open(wanted: &[Group]) -> Result<Counts, Cause> {
        let access = Access::look("/proc".as_ref(), "/sys".as_ref());
        let online = Facts::new(&Roots::default()).online().unwrap_or_default();
        let first = online.iter().next().unwrap_or(0);
        let plan = Plan::make(wanted, Target::Cpu(first), access);
        let groups: Vec<&Vec<Event>> = plan.always.iter().chain(&plan.turns).collect();
        match groups.iter().map(|group| group.len()).sum() {
            0 => {
                let absent = plan.absent.first();
                let why = absent.map(|(event, cause)| Cause {
                    why: format!("{}: {}", event.spelling(), cause.why),
                    ..cause.clone()
                });
                return Err(why.unwrap_or_else(|| Cause::new("there is no event to count")));
            }
            1..=EVENTS => {}
            _ => {
                let why = format!("at most {EVENTS} events are counted in calls");
                return Err(Cause::new(why).cure("ask for fewer, and run again for the others"));
            }
        }
        if plan.turns.len() > 1 {
            let why = "the PMU cannot count all of these events at once, as calls need it";
            return Err(Cause::new(why).cure("ask for fewer, and run again for the others"));
        }
        let opened = online.iter().map(|cpu| {
            let counters = groups.iter().map(|group| {
                let counters = Counters::open(group, Target::Cpu(cpu), OF_CPU)?;
                counters.enable()?;
                Ok(counters)
            });
            Ok((cpu, counters.collect::<Result<_, perf::Error>>()?))
        });
        let cpus = opened.collect::<Result<_, _>>();
        Ok(Counts {
            cpus: cpus.map_err(|error: perf::Error| plan.access().explain(&error))?,
            plan,
        })
    }

    /// How many events they are.
    pub(super) fn events(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &Event> {
        self.plan.always.iter().chain(&self.plan.turns).flatten()
    }

    /// Has the profiler read them in calls.
    pub(super) fn give(&self, profiler: &mut Profiler) -> Result<(), probe::Error> {
        self.cpus.iter().try_for_each(|(cpu, groups)| {
            profiler.count_on(*cpu, groups.iter().flat_map(Counters::fds))
        })
    }

    /// What counts of calls mean, after the end.
    pub(super) fn read(&self) -> Result<InCalls, Error> {
        let mut readings: Vec<Reading> = vec![Reading::default(); self.events()];
        for (_, groups) in &self.cpus {
            let mut sums = readings.iter_mut();
            for group in groups {
                for reading in group.read().map_err(|error| self.refused(&error))? {
                    if let Some(sum) = sums.next() {
                        *sum = sum.plus(&reading);
                    }
                }
            }
        }
        let access = self.plan.access();
        let residence = |event| access.residence(event).map(str::to_owned);
        let events = self.all().zip(readings);
        let absent = self.plan.absent.iter();
        Ok(InCalls {
            events: events
                .map(|(event, reading)| (event.clone(), residence(event), reading))
                .collect(),
            absent: absent
                .map(|(event, why)| (event.unit(), why.clone()))
                .collect(),
        })
    }

    fn refused(&self, error: &perf::Error) -> Error {
        Error::Count(self.plan.access().explain(error))
    }
}

impl InCalls {
    /// What calls counted, all together.
    pub fn in_all(&self, counts: &[u64]) -> Vec<Value> {
        let figures = self.figures(counts, 1.0).into_iter();
        let named = figures.map(|value| Value {
            unit: in_all(&value.unit),
            ..value
        });
        named.collect()
    }

    /// What one of so many operations counted, and the ratios of that.
    pub fn each(&self, counts: &[u64], operations: u64) -> Vec<Value> {
        let mut values = self.figures(counts, operations as f64);
        let events: Vec<Event> = self
            .events
            .iter()
            .map(|(event, ..)| event.clone())
            .collect();
        let residence = |event: &Event| {
            let mut known = self.events.iter();
            known.find(|(other, ..)| other == event)?.1.as_deref()
        };
        values.extend(ratios(&events, &self.readings(counts), residence));
        values
    }

    fn figures(&self, counts: &[u64], operations: f64) -> Vec<Value> {
        let events = self.events.iter().zip(self.readings(counts));
        let values = events.map(|((event, residence, _), reading)| Value {
            unit: event.unit(),
            figure: reading
                .figure(event, residence.as_deref())
                .map(|count| count / operations),
        });
        values.collect()
    }

    fn readings(&self, counts: &[u64]) -> Vec<Reading> {
        let counted = self.events.iter().zip(counts);
        let readings = counted.map(|((_, _, on_cpus), &count)| Reading { count, ..*on_cpus });
        readings.collect()
    }

    /// What a call that does nothing counted, by unit.
    pub fn null(&self, counts: &[f64]) -> Vec<(String, f64)> {
        let events = self.events.iter().zip(counts);
        let named = events.map(|((event, ..), count)| {
            (
                format!("null-{}", name(&event.unit())),
                count * event.scale(),
            )
        });
        named.collect()
    }
}

/// The unit of the sum over calls: `cycles/op` gives `total-cycles`.
fn in_all(unit: &Unit) -> Unit {
    Unit::named(&format!("total-{}", name(unit)))
}

fn name(unit: &Unit) -> &str {
    unit.as_str().trim_end_matches("/op")
}
