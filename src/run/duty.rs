//! Tracing in short slices, one at a drawn place in each block of time, and what they say of the whole. Never attaches by itself: it tells a profiler when.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::perf;
use crate::perf::event::{Code, Event, Modifiers};
use crate::perf::group::{Counters, How};
use crate::probe;
use crate::probe::profile::{Call, Profile};
use crate::probe::syscalls::{Profiler, Tare};
use crate::sys::perf_event::Target;
use crate::sys::perf_event::bindings::{PERF_COUNT_SW_TASK_CLOCK, PERF_TYPE_SOFTWARE};

/// How long a slice is, and so how often it is time for the next one.
pub const SLICE: Duration = Duration::from_millis(20);

/// The slices of one run.
pub(super) struct Duty {
    /// Slices a block, of which one is traced.
    block: u32,
    place: u32,
    drawn: u32,
    random: Pcg64Mcg,
    /// Since when it is traced.
    on: Option<(Instant, f64)>,
    clock: Clock,
    traced_sec: f64,
    /// By the clock.
    passed_sec: f64,
    tare: Option<Tare>,
    slices: Vec<Slice>,
    calls: u64,
}

/// What passes while a program gets something done: its own CPU time, or else the time of day.
pub(super) enum Clock {
    /// CPU time of a process and what it creates.
    Cpu(Counters),
    /// Time since then.
    Wall(Instant),
}

impl Clock {
    /// The CPU time of `pid`, from its next exec on.
    pub(super) fn of(pid: i32) -> Result<Clock, perf::Error> {
        let code = Code {
            kind: PERF_TYPE_SOFTWARE,
            config: u64::from(PERF_COUNT_SW_TASK_CLOCK),
            ..Code::default()
        };
        let event = Event::new("task-clock", Modifiers::default(), code);
        let how = How {
            inherit: true,
            enable_on_exec: true,
            user_access: false,
        };
        Counters::open(&[event], Target::Thread(pid), how).map(Clock::Cpu)
    }

    fn seconds(&self) -> f64 {
        match self {
            Clock::Cpu(counters) => {
                let readings = counters.read().unwrap_or_default();
                readings
                    .first()
                    .map_or(0.0, |clock| clock.count as f64 / 1e9)
            }
            Clock::Wall(began) => began.elapsed().as_secs_f64(),
        }
    }
}

/// What one slice held, and how much would have passed by its clock untraced.
struct Slice {
    seconds: f64,
    calls: u64,
}

impl Slice {
    /// A traced program gets less done: what tracing took of each call is taken off. CPU times of
    /// threads add up; by the time of day they are taken for one thread, unless there were more
    /// calls than one has time for.
    fn new(traced_sec: f64, calls: u64, tare: Option<&Tare>) -> Slice {
        let (added_sec, traced_call_sec) = tare.map_or((0.0, 0.0), |tare| {
            let added_ns = (tare.traced_ns - tare.untraced_ns).max(0.0);
            (added_ns / 1e9, tare.traced_ns / 1e9)
        });
        let threads = (calls as f64 * traced_call_sec / traced_sec).max(1.0);
        Slice {
            seconds: traced_sec - calls as f64 * added_sec / threads,
            calls,
        }
    }
}

/// What slices are of a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// How many there were.
    pub slices: usize,
    /// How long they were together.
    pub traced_sec: f64,
    /// How much more was in the whole than in them.
    pub scale: f64,
    /// Seconds a block.
    pub period_sec: f64,
    /// All calls, by the 95 % interval of the bootstrap over slices; `None` of too few slices.
    pub calls: Option<(f64, f64)>,
}

impl Duty {
    /// Slices that are this share of the time, where tracing costs so much.
    pub(super) fn new(share: f64, seed: u64, clock: Clock, tare: Option<Tare>) -> Duty {
        let block = (1.0 / share).round().max(1.0) as u32;
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        Duty {
            block,
            place: 0,
            drawn: random.random_range(0..block),
            random,
            on: None,
            clock,
            traced_sec: 0.0,
            passed_sec: 0.0,
            tare,
            slices: Vec::new(),
            calls: 0,
        }
    }

    /// The next slice of time begins: traced, or not.
    pub(super) fn turn(&mut self, profiler: &mut Profiler) -> Result<(), probe::Error> {
        self.stop(profiler);
        if self.place == self.block {
            (self.place, self.drawn) = (0, self.random.random_range(0..self.block));
        }
        if self.place == self.drawn {
            profiler.resume()?;
            self.on = Some((Instant::now(), self.clock.seconds()));
        }
        self.place += 1;
        Ok(())
    }

    fn stop(&mut self, profiler: &mut Profiler) {
        let Some((since, at_sec)) = self.on.take() else {
            return;
        };
        let traced_sec = since.elapsed().as_secs_f64();
        let passed_sec = self.clock.seconds() - at_sec;
        profiler.pause();
        let profile: Profile = profiler.read();
        let calls: u64 = profile.calls.iter().map(Call::all).sum();
        let slice = Slice::new(passed_sec, calls - self.calls, self.tare.as_ref());
        self.slices.push(slice);
        self.traced_sec += traced_sec;
        self.passed_sec += passed_sec;
        self.calls = calls;
    }

    /// What the slices are of the whole run, which has just ended.
    pub(super) fn finish(mut self, profiler: &mut Profiler) -> Sampling {
        self.stop(profiler);
        let untraced_sec: f64 = self.slices.iter().map(|slice| slice.seconds).sum();
        // What tracing took of the run, it would not have taken either.
        let whole_sec = self.clock.seconds() - (self.passed_sec - untraced_sec);
        Sampling {
            slices: self.slices.len(),
            traced_sec: self.traced_sec,
            scale: whole_sec / untraced_sec,
            period_sec: SLICE.as_secs_f64() * f64::from(self.block),
            calls: self.interval(whole_sec),
        }
    }

    /// The interval of all calls in `whole_sec`.
    fn interval(&mut self, whole_sec: f64) -> Option<(f64, f64)> {
        const LEAST: usize = 6;
        const RESAMPLES: usize = 2000;
        let n = self.slices.len();
        if n < LEAST {
            return None;
        }
        let mut totals: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let (mut calls, mut seconds) = (0, 0.0);
                for _ in 0..n {
                    let slice = &self.slices[self.random.random_range(0..n)];
                    calls += slice.calls;
                    seconds += slice.seconds;
                }
                calls as f64 / seconds * whole_sec
            })
            .collect();
        totals.sort_by(f64::total_cmp);
        let at = |q: f64| totals[(q * (RESAMPLES - 1) as f64).round() as usize];
        Some((at(0.025), at(0.975)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_an_even_rate_and_widens_with_an_uneven_one() {
        let of = |calls: &[u64]| {
            let mut duty = Duty::new(0.05, 7, Clock::Wall(Instant::now()), None);
            assert_eq!(duty.block, 20);
            duty.slices.extend(calls.iter().map(|&calls| Slice {
                seconds: 0.02,
                calls,
            }));
            duty.interval(10.0)
        };
        assert_eq!(of(&[100; 5]), None);
        let (low, high) = of(&[100; 20]).unwrap();
        assert!((low - 50_000.0).abs() < 1e-6 && (high - 50_000.0).abs() < 1e-6);
        let uneven = [0, 200].repeat(10);
        let (low, high) = of(&uneven).unwrap();
        assert!(low < 45_000.0 && high > 55_000.0, "{low} {high}");
    }

    #[test]
    fn what_tracing_took_is_taken_off() {
        let tare = Tare {
            untraced_ns: 200.0,
            bystander_ns: 300.0,
            traced_ns: 400.0,
            recorded_ns: None,
            counts: Default::default(),
        };
        let check = |calls: u64, want_ms: f64| {
            let slice = Slice::new(0.02, calls, Some(&tare));
            assert!((slice.seconds * 1e3 - want_ms).abs() < 1e-9, "{calls}");
        };
        check(0, 20.0);
        // All of the time in calls, by one thread and by two.
        check(50_000, 10.0);
        check(100_000, 10.0);
        check(5_000, 19.0);
    }
}
