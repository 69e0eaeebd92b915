//! The library counting its own thread: loops of known length, pages, groups, and the counter instruction.

use counterpoise::perf::group::Counters;
use counterpoise::perf::selfread::SelfCounters;
use counterpoise::sys::memory::{Mapping, Pages, page_bytes};
use counterpoise::sys::perf_event::Target;
use counterpoise::sys::spin;

use crate::bed::{self, Setting};

const LENGTHS: [u64; 3] = [1_000, 1_000_000, 20_000_000];

/// The instructions that `count` finds beside those of the loop: one number, whatever the length.
fn overhead(exactly: bool, mut count: impl FnMut(u64) -> u64) -> i64 {
    let beside = |iterations| {
        let counts: Vec<u64> = (0..10).map(|_| count(iterations)).collect();
        let least = *counts.iter().min().unwrap();
        // Elsewhere an interrupt may count as an instruction.
        assert!(
            !exactly || counts.iter().all(|count| *count == least),
            "{counts:?}"
        );
        least as i64 - (spin::INSTRUCTIONS * iterations) as i64
    };
    let all = LENGTHS.map(beside);
    assert!(all[0] >= 0 && all == [all[0]; LENGTHS.len()], "{all:?}");
    all[0]
}

#[test]
fn a_loop_counts_its_instructions_and_always_the_same_beside() {
    if !bed::has_pmu("a loop's instructions") {
        return;
    }
    let instructions = bed::events("instructions:u");
    overhead(bed::in_guest(), |iterations| {
        bed::count(&instructions, || spin::spin(iterations))[0].count
    });
}

#[test]
fn instructions_a_cycle_follow_the_machine() {
    let Some(guest) = bed::guest("known instructions a cycle") else {
        return;
    };
    let readings = bed::count(&bed::events("instructions:u,cycles:u"), || {
        spin::spin(20_000_000)
    });
    let per_cycle = readings[0].count as f64 / readings[1].count as f64;
    let want = 2f64.powi(-guest.shift);
    assert!(
        (per_cycle / want - 1.0).abs() < 1e-4,
        "{per_cycle}, not {want}"
    );
}

#[test]
fn touched_pages_are_page_faults() {
    if !bed::can_count("page faults", "page-faults") {
        return;
    }
    let faults = |pages: usize| {
        let memory = Mapping::new(pages * page_bytes(), Pages::Base).unwrap();
        let touch = || (0..pages).for_each(|page| memory.touch(page * page_bytes()));
        bed::count(&bed::events("page-faults"), touch)[0].count
    };
    // The code of the touching is itself mapped when it first runs.
    faults(1);
    assert_eq!([faults(1), faults(100)], [1, 100]);
}

#[test]
fn the_counts_of_a_group_are_of_one_moment() {
    if bed::guest("a group's moment").is_none() {
        return;
    }
    let twice = bed::events("{instructions:u,instructions:u}");
    let counters = Counters::open(&twice, Target::Myself, bed::ITSELF).unwrap();
    counters.enable().unwrap();
    let mut last = 0;
    for _ in 0..1000 {
        let readings = counters.read().unwrap();
        assert_eq!(readings[0], readings[1]);
        assert!(readings[0].count > last);
        last = readings[0].count;
    }
}

#[test]
fn the_counter_instruction_agrees_with_the_system_call() {
    if bed::guest("the counter instruction").is_none() {
        return;
    }
    let events = bed::events("instructions:u,cycles:u");
    let counters_at = |access: &str| {
        let access = Setting::set("perf_user_access", access);
        let counters = SelfCounters::open(&events, false).unwrap();
        counters.enable().unwrap();
        (counters, access)
    };
    let instructions = |counters: &SelfCounters, iterations: u64| {
        let before = counters.before().unwrap();
        spin::spin(iterations);
        let readings = counters.after().unwrap().since(&before);
        assert_eq!(readings[0].running_share(), Some(1.0));
        readings[0].count
    };

    let (counters, closed) = counters_at("0");
    assert!(!counters.reads_in_user_space());
    let by_call = overhead(true, |iterations| instructions(&counters, iterations));
    drop((counters, closed));

    let (counters, _open) = counters_at("1");
    assert!(counters.reads_in_user_space());
    let by_instruction = overhead(true, |iterations| instructions(&counters, iterations));
    assert!(by_instruction < by_call, "{by_instruction}, {by_call}");

    // Counters of 32 bits start in their middle: past 2^31 this one has overflowed.
    let iterations = 1_100_000_000;
    let long = instructions(&counters, iterations) - spin::INSTRUCTIONS * iterations;
    assert_eq!(long as i64, by_instruction);
}
