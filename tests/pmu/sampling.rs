//! Sampling on a real PMU: as many records as are due, from where the work is.
//!
//! Only `cycles` are sampled here. The virtual machine counts `instructions` exactly, but loses most
//! of their records: its emulator looks for their overflow no oftener than the kernel ticks, 250
//! times a second, so that of 4000 due in 0.4 s there were 101.

use counterpoise::perf::reading::Reading;
use counterpoise::perf::record::{Body, Layout, Mode, Overflow};
use counterpoise::perf::ring::{Rate, Recording, Ring};
use counterpoise::sys::perf_event::Target;
use counterpoise::sys::spin;

use crate::bed;

/// What sampling `cycles:u` of a loop gives, or `None` after saying why it is not run.
fn sample(what: &str, rate: Rate) -> Option<(Vec<Overflow>, Reading)> {
    if !bed::has_pmu(what) {
        return None;
    }
    let how = Recording {
        rate,
        layout: Layout {
            address: false,
            callchain: true,
        },
        tasks: false,
        enable_on_exec: false,
        bytes: Recording::USUAL_BYTES,
    };
    let mut ring = Ring::open(&bed::events("cycles:u"), Target::Myself, how).unwrap();
    ring.enable().unwrap();
    spin::spin(100_000_000);
    ring.disable().unwrap();
    let mut overflows = Vec::new();
    for record in ring.take().unwrap() {
        match record.unwrap().body {
            Body::Overflow(overflow) => overflows.push(overflow),
            // A throttled event is due fewer records.
            Body::Throttled | Body::Unthrottled => {
                assert!(!bed::in_guest(), "throttled");
                return None;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ring.lost().unwrap(), 0);
    Some((overflows, ring.readings().unwrap()[0]))
}

#[test]
fn a_period_gives_the_due_number_of_records_from_within_the_loop() {
    const PERIOD: u64 = 500_000;
    let Some((overflows, reading)) = sample("sampling by period", Rate::Period(PERIOD)) else {
        return;
    };
    let (got, due) = (overflows.len() as f64, (reading.count / PERIOD) as f64);
    assert!(due > 50.0, "{reading:?}");
    let tolerance = if bed::in_guest() { 0.0 } else { 0.03 };
    assert!((got / due - 1.0).abs() <= tolerance, "{got} of {due}");
    let code = spin::spin as fn(u64) as usize as u64;
    let within = |overflow: &&Overflow| (code..code + 64).contains(&overflow.ip);
    let from_loop = overflows.iter().filter(within).count() as f64;
    assert!(from_loop > 0.95 * got, "{from_loop} of {got}");
    for overflow in &overflows {
        assert_eq!((overflow.mode, overflow.period), (Mode::User, PERIOD));
        assert_eq!(overflow.callchain[0].ip, overflow.ip);
    }
}

#[test]
fn a_frequency_gives_records_that_stand_for_all_counts() {
    let Some((overflows, reading)) = sample("sampling by frequency", Rate::Frequency(2000)) else {
        return;
    };
    let stood_for: u64 = overflows.iter().map(|overflow| overflow.period).sum();
    let share = stood_for as f64 / reading.count as f64;
    assert!((share - 1.0).abs() < 0.1, "{share} of {reading:?}");
}
