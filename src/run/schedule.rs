//! Who runs next: rounds over all workloads, each in an order drawn from the seed. Pure: never reads a clock, never runs anything.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::sample::Order;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After so many rounds.
    pub rounds: u64,
    /// After the first whole round that ends later than this.
    pub time: Option<Duration>,
}

/// One run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which workload.
    pub workload: usize,
    /// Its place in the run.
    pub order: Order,
    /// A coin for whatever the workload has to draw.
    pub coin: bool,
    /// A number for whatever else it has to draw.
    pub draw: u64,
    /// Whether this is the only round, so that nothing can be rotated over rounds.
    pub only: bool,
}

/// The order of all runs.
pub struct Schedule {
    random: Pcg64Mcg,
    limits: Limits,
    order: Order,
    blocks: Vec<Vec<usize>>,
    round: Vec<usize>,
    closed: Closed,
}

/// The blocks of which no further round is begun: for whoever knows from the records when there is
/// enough of them.
#[derive(Clone, Debug, Default)]
pub struct Closed(Rc<RefCell<BTreeSet<usize>>>);

impl Closed {
    /// Closes a block, or opens it again, from the next round on.
    pub fn set(&self, block: usize, is_closed: bool) {
        let mut closed = self.0.borrow_mut();
        match is_closed {
            true => closed.insert(block),
            false => closed.remove(&block),
        };
    }
}

impl Schedule {
    /// A schedule for workloads 0 … `workloads` − 1, which are one block.
    pub fn new(seed: u64, workloads: usize, limits: Limits) -> Schedule {
        Schedule::in_blocks(seed, vec![(0..workloads).collect()], limits)
    }

    /// A schedule for blocks of workloads. In each round the workloads of one block run one after
    /// the other, so that what is compared stays close together; blocks and what is in them
    /// have a drawn order.
    pub fn in_blocks(seed: u64, blocks: Vec<Vec<usize>>, limits: Limits) -> Schedule {
        let random = Pcg64Mcg::seed_from_u64(seed);
        let mut schedule = Schedule {
            random,
            limits,
            order: Order::default(),
            blocks,
            round: Vec::new(),
            closed: Closed::default(),
        };
        schedule.draw();
        schedule
    }

    /// Which blocks are closed; at first none.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }

    /// The next run, given the time since the first began; `None` when a limit is reached. A
    /// round that was begun is finished.
    pub fn next(&mut self, elapsed: Duration) -> Option<Turn> {
        if self.order.position as usize == self.round.len() {
            self.order.round += 1;
            self.order.position = 0;
            self.draw();
        }
        let fresh_round = self.order.position == 0;
        let late = self.order.round > 0 && self.limits.time.is_some_and(|limit| elapsed >= limit);
        let over = self.order.round >= self.limits.rounds || late;
        if self.round.is_empty() || fresh_round && over {
            return None;
        }
        let workload = self.round[self.order.position as usize];
        let turn = Turn {
            workload,
            order: self.order,
            coin: self.random.random(),
            draw: self.random.random(),
            only: self.limits.rounds == 1,
        };
        self.order.sequence += 1;
        self.order.position += 1;
        Some(turn)
    }

    fn draw(&mut self) {
        let closed = self.closed.0.borrow();
        let mut open: Vec<usize> = (0..self.blocks.len()).collect();
        open.retain(|block| !closed.contains(block));
        if open.len() > 1 {
            open.shuffle(&mut self.random);
        }
        self.round.clear();
        for block in open {
            let block = &mut self.blocks[block];
            block.shuffle(&mut self.random);
            self.round.extend_from_slice(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seed: u64, workloads: usize, rounds: u64) -> Vec<Turn> {
        let mut schedule = Schedule::new(seed, workloads, Limits { rounds, time: None });
        std::iter::from_fn(|| schedule.next(Duration::ZERO)).collect()
    }

    #[test]
    fn what_is_closed_ends_with_the_round() {
        let limits = Limits {
            rounds: 100,
            time: None,
        };
        let mut schedule = Schedule::new(7, 3, limits);
        for _ in 0..4 {
            schedule.next(Duration::ZERO);
        }
        schedule.closed().set(0, true);
        let rest = std::iter::from_fn(|| schedule.next(Duration::ZERO));
        assert_eq!(rest.count(), 2);
    }

    #[test]
    fn blocks_stay_together_and_end_one_by_one() {
        let limits = Limits {
            rounds: 30,
            time: None,
        };
        let blocks = vec![vec![0, 1], vec![2, 3], vec![4, 5]];
        let mut schedule = Schedule::in_blocks(7, blocks, limits);
        let closed = schedule.closed();
        let mut turns = Vec::new();
        while let Some(turn) = schedule.next(Duration::ZERO) {
            turns.push(turn);
            closed.set(1, turn.order.round >= 9);
            closed.set(2, (9..19).contains(&turn.order.round));
        }
        let runs = |workload| {
            turns
                .iter()
                .filter(|turn| turn.workload == workload)
                .count()
        };
        assert_eq!([0, 1, 2, 3, 4, 5].map(runs), [30, 30, 10, 10, 20, 20]);
        for pair in turns.chunks(2) {
            assert_eq!(pair[0].workload / 2, pair[1].workload / 2);
            assert_eq!(pair[0].order.round, pair[1].order.round);
        }
        let firsts = turns.chunks(2).filter(|pair| pair[0].workload % 2 == 0);
        assert!((15..45).contains(&firsts.count()));
    }

    #[test]
    fn every_round_holds_every_workload_once() {
        let turns = all(7, 3, 50);
        assert_eq!(turns.len(), 150);
        for (round, members) in turns.chunks(3).enumerate() {
            let mut seen: Vec<usize> = members.iter().map(|turn| turn.workload).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
            assert!(members.iter().all(|turn| turn.order.round == round as u64));
        }
        let sequence: Vec<u64> = turns.iter().map(|turn| turn.order.sequence).collect();
        assert_eq!(sequence, (0..150).collect::<Vec<u64>>());
    }

    #[test]
    fn the_order_is_drawn_from_the_seed_alone() {
        assert_eq!(all(1, 4, 20), all(1, 4, 20));
        assert_ne!(all(1, 4, 20), all(2, 4, 20));
        let firsts = all(3, 2, 400)
            .chunks(2)
            .filter(|round| round[0].workload == 0)
            .count();
        assert!(
            (150..250).contains(&firsts),
            "{firsts} of 400 rounds begin with the first"
        );
    }

    #[test]
    fn limits_end_the_run_at_a_whole_round() {
        assert_eq!(all(1, 3, 0), []);
        assert_eq!(all(1, 0, 5), []);
        let mut schedule = Schedule::new(
            1,
            2,
            Limits {
                rounds: 100,
                time: Some(Duration::from_secs(1)),
            },
        );
        let late = Duration::from_secs(2);
        assert!(schedule.next(late).is_some(), "the first round always runs");
        assert!(schedule.next(late).is_some(), "and is finished");
        assert_eq!(schedule.next(late), None);
    }
}
