//! The real frequency of a CPU under load: its cycles, counted on a thread that spins there, over the time that they took. Never sets one.

use std::io;
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::perf::catalog::Catalog;
use crate::perf::event::Event;
use crate::perf::group::{Counters, How};
use crate::perf::reading::Reading;
use crate::perf::{self, Access};
use crate::sample::{Cause, Figure, Part};
use crate::sys::clock::monotonic_ns;
use crate::sys::perf_event::Target;
use crate::sys::spin::spin;

/// How long is spun before the first measurement: governors and firmware need some milliseconds
/// to follow the load.
const WARM_UP_NS: u64 = 10_000_000;

/// How long is spun for one measurement.
const SPIN_NS: u64 = 2_000_000;

/// Measurements, of which the median counts: interrupts and hypervisors spoil single ones.
const MEASUREMENTS: usize = 5;

/// Hz of `cpu` while it is busy: some 20 ms of spinning on it.
///
/// It is Δ`msr/aperf/` ÷ Δt where the CPU has that counter and we may read it, and Δ`cycles` ÷ Δt
/// else, Δt being the time that the thread was on the CPU by the kernel's account. APERF (Intel SDM
/// vol. 3, "Determining the processor frequency"; AMD APM vol. 2, "Effective frequency") and cycles
/// count at the real frequency as long as the CPU does not sleep, and a spinning one does not.
/// Of cycles counted in user mode alone, those of interrupts are missing: a partial figure.
///
/// Absent where there is neither, as in most virtual machines, and where we may not run on `cpu`.
pub fn measured(cpu: u32, catalog: &Catalog, access: &Access) -> Figure {
    let on_cpu = || {
        bind(cpu)
            .map_err(|error| Cause::new(format!("we cannot run on CPU {cpu}: {error}")))
            .and_then(|()| measure(catalog, access))
    };
    // A thread of its own, so that ours is not bound.
    let measured = thread::scope(|scope| {
        let spawned = thread::Builder::new().spawn_scoped(scope, on_cpu);
        let joined = spawned.map(|thread| thread.join());
        match joined {
            Ok(Ok(measured)) => measured,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(Cause::new(format!("no thread can be started: {error}"))),
        }
    });
    measured.unwrap_or_else(Figure::absent)
}

fn bind(cpu: u32) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu as usize)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// What the best event that counts here gives, on the calling thread's CPU.
fn measure(catalog: &Catalog, access: &Access) -> Result<Figure, Cause> {
    let mut names = vec!["msr/aperf/".to_owned()];
    match access.core_pmus.as_slice() {
        [] | [_] => names.push("cycles".to_owned()),
        // Which of them counts here depends on the type of the core.
        types => names.extend(types.iter().map(|(_, pmu)| format!("{pmu}/cycles/"))),
    }
    let mut refusal = Cause::new("nothing here counts cycles");
    for name in names {
        let Some(event) = event(catalog, &name) else {
            continue;
        };
        let user = event.with_user_only();
        for event in [Some(event), user].into_iter().flatten() {
            match hz(&event) {
                Ok(Some(hz)) if event.modifiers.user => {
                    let part = Part("user mode only".to_owned());
                    return Ok(Figure::Partial { value: hz, part });
                }
                Ok(Some(hz)) => return Ok(Figure::Exact(hz)),
                Ok(None) => refusal = Cause::new("the counter of cycles is taken by others"),
                Err(error) => refusal = access.explain(&error),
            }
        }
    }
    Err(refusal)
}

fn event(catalog: &Catalog, name: &str) -> Option<Event> {
    let mut groups = catalog.parse(name).ok()?;
    groups.pop()?.events.pop()
}

/// The median frequency by `event`; `None` when it never counted.
fn hz(event: &Event) -> Result<Option<f64>, perf::Error> {
    let how = How {
        inherit: false,
        enable_on_exec: false,
        user_access: false,
    };
    let counters = Counters::open(std::slice::from_ref(event), Target::Myself, how)?;
    counters.enable()?;
    let read =
        || -> Result<Reading, perf::Error> { Ok(counters.read()?.pop().unwrap_or_default()) };
    spin_for(WARM_UP_NS);
    let mut each_hz = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let before = read()?;
        spin_for(SPIN_NS);
        let Reading {
            count, running_ns, ..
        } = read()?.since(&before);
        if count > 0 && running_ns > 0 {
            each_hz.push(count as f64 * 1e9 / running_ns as f64);
        }
    }
    each_hz.sort_by(f64::total_cmp);
    Ok(each_hz.get(each_hz.len() / 2).copied())
}

fn spin_for(ns: u64) {
    let start_ns = monotonic_ns();
    while monotonic_ns() - start_ns < ns {
        spin(10_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stderr, reason = "a test says what it could not run")]
    fn a_cpu_has_a_plausible_frequency() {
        let access = Access::look("/proc".as_ref(), "/sys".as_ref());
        let cpus = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpu = (0..CpuSet::count()).find(|&cpu| cpus.is_set(cpu).unwrap());
        let figure = measured(cpu.unwrap() as u32, &Catalog::default(), &access);
        match figure.number() {
            Some(hz) => assert!((1e8..2e10).contains(&hz), "{hz}"),
            None => eprintln!("not run: the real frequency: {figure:?}"),
        }
        // We are where we were.
        assert_eq!(
            nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap(),
            cpus
        );
    }

    #[test]
    fn what_cannot_be_run_on_has_no_frequency() {
        let access = Access::look("/proc".as_ref(), "/sys".as_ref());
        for cpu in [1023, u32::MAX] {
            let Figure::Absent { why } = measured(cpu, &Catalog::default(), &access) else {
                panic!("CPU {cpu} has a frequency")
            };
            assert!(why.why.contains(&format!("CPU {cpu}")), "{why}");
        }
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test says what it could not run")]
    fn what_counts_with_the_time_gives_its_own_frequency() {
        let tsc = event(&Catalog::default(), "msr/tsc/");
        let twice = tsc.map(|tsc| (hz(&tsc), hz(&tsc)));
        match twice {
            Some((Ok(Some(one)), Ok(Some(other)))) => {
                assert!((one / other - 1.0).abs() < 0.02, "{one}, {other}");
                assert!((5e8..1e10).contains(&one), "{one}");
            }
            refused => eprintln!("not run: the frequency of the time stamp counter: {refused:?}"),
        }
    }
}
