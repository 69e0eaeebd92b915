//! The choice of the CPU to measure on. Only looks; binds nobody.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::facts::CpuList;
use super::{Busy, Facts, Roots};

/// A CPU to measure on.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The CPU.
    pub cpu: u32,
    /// Whether the scheduler leaves it alone (`isolcpus=`).
    pub isolated: bool,
    /// The share of the last moment in which the other CPUs of its core were busy; `None` when it
    /// has none, or when there was nothing to choose.
    pub siblings_busy: Option<f64>,
}

/// Long against the ticks in which the kernel counts.
const WINDOW: Duration = Duration::from_millis(100);

/// The best CPU of those that we may run on: isolated if there is one, else not CPU 0, where
/// interrupts and the kernel's own work go; of equals the fastest, then the one whose core is least
/// busy. Watches the machine for a tenth of a second when there is a choice.
pub fn choose(roots: &Roots) -> Option<Choice> {
    let facts = Facts::new(roots);
    let allowed = facts.myself()?.cpus;
    let isolated = facts.isolated().unwrap_or_default();
    let candidates = candidates(&allowed, &isolated);
    let busy = match candidates.len() {
        0 | 1 => BTreeMap::new(),
        _ => busy_shares(&roots.proc).unwrap_or_default(),
    };
    let rated = candidates.into_iter().map(|cpu| {
        let others = facts.siblings(cpu);
        let others = others.iter().filter(|&other| other != cpu);
        let shares: Vec<f64> = others
            .filter_map(|other| busy.get(&other).copied())
            .collect();
        let siblings = (!shares.is_empty()).then(|| shares.iter().sum());
        let own = busy.get(&cpu).copied().unwrap_or_default();
        (speed(&facts, cpu), siblings, own, cpu)
    });
    let (.., siblings_busy, _, cpu) = rated.min_by(|a, b| {
        let load = |r: &(u64, Option<f64>, f64, u32)| r.1.unwrap_or_default() + r.2;
        b.0.cmp(&a.0)
            .then(load(a).partial_cmp(&load(b)).unwrap_or(Ordering::Equal))
            .then(a.3.cmp(&b.3))
    })?;
    Some(Choice {
        cpu,
        isolated: isolated.contains(cpu),
        siblings_busy,
    })
}

fn candidates(allowed: &CpuList, isolated: &CpuList) -> Vec<u32> {
    let both: Vec<u32> = allowed
        .iter()
        .filter(|&cpu| isolated.contains(cpu))
        .collect();
    let but_first: Vec<u32> = allowed.iter().filter(|&cpu| cpu != 0).collect();
    match (both.is_empty(), but_first.is_empty()) {
        (false, _) => both,
        (true, false) => but_first,
        (true, true) => allowed.iter().collect(),
    }
}

/// How fast a CPU is beside the others of a machine with cores of several kinds; 0 where they are
/// all alike, or nobody knows.
fn speed(facts: &Facts<'_>, cpu: u32) -> u64 {
    facts
        .capacity(cpu)
        .or_else(|| facts.highest_khz(cpu))
        .unwrap_or(0)
}

/// The share of the last moment in which each CPU was busy.
fn busy_shares(proc: &Path) -> std::io::Result<BTreeMap<u32, f64>> {
    let (began, before) = (Instant::now(), Busy::read_each(proc)?);
    std::thread::sleep(WINDOW);
    let after = Busy::read_each(proc)?;
    let elapsed_sec = began.elapsed().as_secs_f64();
    let share = |(cpu, now): (u32, Busy)| {
        let spent = now.since(before.get(&cpu)?);
        Some((cpu, (spent.busy_sec + spent.steal_sec) / elapsed_sec))
    };
    Ok(after.into_iter().filter_map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{self, ALL_CAPABILITIES, Fake};

    #[test]
    fn isolated_cpus_come_first_and_the_first_cpu_last() {
        let check = |allowed: &str, isolated: &str, want: &[u32]| {
            let list = |text| CpuList::parse(text).unwrap();
            assert_eq!(candidates(&list(allowed), &list(isolated)), want);
        };
        check("0-7", "4-7", &[4, 5, 6, 7]);
        check("0-5", "4-7", &[4, 5]);
        check("0-3", "4-7", &[1, 2, 3]);
        check("0-3", "", &[1, 2, 3]);
        check("0", "", &[0]);
        check("0", "0", &[0]);
        check("", "1", &[]);
    }

    #[test]
    fn a_cpu_is_chosen_on_every_machine_that_tells_which_it_has() {
        let check = |fake: &Fake, want| {
            assert_eq!(choose(&fake.roots).map(|choice| choice.cpu), want);
        };
        check(&fake::bare_vm(), Some(1));
        check(&fake::laptop(), Some(1));
        let server = fake::amd_server();
        server.status(0, ALL_CAPABILITIES, 0);
        check(&server, Some(1));
        check(&Fake::new(), None);
    }

    #[test]
    fn the_faster_core_is_preferred() {
        let board = fake::arm_board();
        board.allow("0-5");
        for (cpu, capacity) in [(0, 446), (1, 446), (2, 446), (3, 446), (4, 1024), (5, 1024)] {
            board.sys(
                &format!("devices/system/cpu/cpu{cpu}/cpu_capacity"),
                format!("{capacity}\n"),
            );
        }
        assert_eq!(choose(&board.roots).map(|choice| choice.cpu), Some(4));
    }

    #[test]
    fn one_is_chosen_here() {
        let choice = choose(&Roots::default()).unwrap();
        let allowed = Facts::new(&Roots::default()).myself().unwrap().cpus;
        assert!(allowed.contains(choice.cpu), "{choice:?}");
        assert!(choice.cpu != 0 || allowed.len() == 1, "{choice:?}");
    }
}
