//! Bisections of histories that are made up, by the same engine as real ones, and by plain `git bisect` for comparison: how often they are right, and what they cost. Never measures anything real.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Bisection, Event, Order, Outcome, Pair, Settings, Step};
use crate::compare::Judge;
use crate::sample::UnitMeta;
use crate::stats::sequential::Rule;
use crate::unit::{Assume, Better, Unit};

/// A kind of history, with one step at a random place, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    /// Commits, both ends among them.
    pub commits: usize,
    /// The change of the figure, as a share; 0 for none.
    pub step: f64,
    /// What disturbs the figures.
    pub noise: Noise,
    /// The share of commits that cannot be built.
    pub unbuildable: f64,
    /// What a build takes, in runs.
    pub build_cost: f64,
}

/// What disturbs figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// The standard deviation of the logarithm of the ratio of two runs side by side. Each of them
    /// has a √2nd of it.
    pub pair: f64,
    /// The share of runs that take half as long again.
    pub outliers: f64,
    /// How far the machine's speed strays, as a standard deviation of its logarithm: AR(1), with
    /// 0.98 from run to run, and on and on while something is built.
    pub drift: f64,
}

/// How the culprit is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The posterior.
    Posterior,
    /// The steepest step, and so many pairs of each commit.
    Metric(usize),
    /// Plain bisection: the mean of so many pairs of each commit, against the middle of the
    /// ends' means.
    Bisect(usize),
    /// The same with runs alone, without the reference beside them.
    BisectAlone(usize),
}

/// What came of many trials.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Trial {
    /// Trials.
    pub count: u64,
    /// Those that ended with the right commit, or rightly with no change.
    pub right: u64,
    /// Those that ended with a wrong commit.
    pub wrong: u64,
    /// Those that ended undecided.
    pub undecided: u64,
    /// Builds, of all together.
    pub builds: u64,
    /// Measurements, of all together: pairs, or runs alone.
    pub measurements: u64,
    /// Runs of a commit or of the reference, of all together.
    pub runs: u64,
}

/// Draws `count` histories and looks for the culprit in each.
pub fn simulate(history: &History, strategy: Strategy, count: u64, seed: u64) -> Trial {
    let mut trial = Trial::default();
    for at in 0..count {
        let mut machine = Machine::new(history, seed.wrapping_add(at));
        let answer = match strategy {
            Strategy::Posterior => engine(&mut machine, Order::Posterior, 0),
            Strategy::Metric(runs) => engine(&mut machine, Order::Metric, runs),
            Strategy::Bisect(runs) => plainly(&mut machine, runs, true),
            Strategy::BisectAlone(runs) => plainly(&mut machine, runs, false),
        };
        let made = (history.step != 0.0).then_some(machine.made);
        trial.count += 1;
        match answer {
            Answer::Undecided => trial.undecided += 1,
            Answer::Is(place) if place == made => trial.right += 1,
            // Whoever says that nothing changed accuses nobody.
            Answer::Is(None) => trial.undecided += 1,
            Answer::Is(Some(_)) => trial.wrong += 1,
        }
        trial.builds += machine.builds;
        trial.measurements += machine.measurements;
        trial.runs += machine.runs;
    }
    trial
}

enum Answer {
    /// The place of the culprit, or that there is none.
    Is(Option<usize>),
    Undecided,
}

struct Machine<'h> {
    history: &'h History,
    random: Pcg64Mcg,
    /// The place of the step. It can be built, or the next that can has it.
    made: usize,
    unbuildable: Vec<bool>,
    state: f64,
    builds: u64,
    measurements: u64,
    runs: u64,
}

impl Machine<'_> {
    fn new(history: &History, seed: u64) -> Machine<'_> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let last = history.commits - 1;
        let unbuildable: Vec<bool> = (0..=last)
            .map(|at| 0 < at && at < last && random.random::<f64>() < history.unbuildable)
            .collect();
        let made = random.random_range(1..history.commits);
        let made = (made..=last).find(|&at| !unbuildable[at]).unwrap_or(last);
        Machine {
            history,
            random,
            made,
            unbuildable,
            state: 0.0,
            builds: 0,
            measurements: 0,
            runs: 0,
        }
    }

    fn normal(&mut self) -> f64 {
        let (u, v): (f64, f64) = (self.random.random(), self.random.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Lets the machine stray for as long as `runs` runs take.
    fn pass(&mut self, runs: f64) {
        if self.history.noise.drift > 0.0 {
            let kept = 0.98_f64.powf(runs);
            let fresh = (1.0 - kept * kept).sqrt() * self.history.noise.drift;
            self.state = kept * self.state + fresh * self.normal();
        }
    }

    fn build(&mut self, place: usize) -> bool {
        self.pass(self.history.build_cost);
        self.builds += 1;
        !self.unbuildable[place]
    }

    /// The logarithm of the figure of one run.
    fn run(&mut self, place: usize) -> f64 {
        self.runs += 1;
        self.pass(1.0);
        let noise = self.history.noise;
        let own = noise.pair * std::f64::consts::FRAC_1_SQRT_2 * self.normal();
        let slow = match noise.outliers > 0.0 && self.random.random::<f64>() < noise.outliers {
            true => 1.5_f64.ln(),
            false => 0.0,
        };
        let step = match place >= self.made {
            true => self.history.step.ln_1p(),
            false => 0.0,
        };
        step + own + slow + self.state
    }

    fn pair(&mut self, place: usize, against: usize) -> Pair {
        self.measurements += 1;
        let first = self.random.random();
        let (figure, other) = match first {
            true => {
                let figure = self.run(place);
                (figure, self.run(against))
            }
            false => {
                let other = self.run(against);
                (self.run(place), other)
            }
        };
        Pair {
            place,
            against,
            figure: figure.exp(),
            other: other.exp(),
            first,
            void: false,
            sec: 2.0,
        }
    }
}

fn engine(machine: &mut Machine, order: Order, iterations: usize) -> Answer {
    let mut bisection = Bisection::new(Settings {
        places: machine.history.commits,
        skipped: Vec::new(),
        unit: UnitMeta {
            unit: Unit::named("sec/op"),
            better: Some(Better::Lower),
            assume: Assume::Nothing,
        },
        judge: Judge {
            rule: Rule::sequential(0.05),
            margin: None,
        },
        order,
        iterations,
        most_runs: Some(10_000),
        all: false,
        scan: 0,
    });
    loop {
        let event = match bisection.step() {
            Step::Build(place) if machine.build(place) => Event::Built {
                place,
                sec: Some(machine.history.build_cost),
            },
            Step::Build(place) => Event::Unbuildable { place },
            Step::Pair { place, against } => Event::Pair(machine.pair(place, against)),
            Step::Single(place) => Event::Single {
                place,
                figure: machine.run(place).exp(),
            },
            Step::Done(findings) => {
                return match findings.first().map(|finding| &finding.outcome) {
                    Some(Outcome::Found(culprit)) => Answer::Is(Some(*culprit.places.end())),
                    Some(Outcome::NoChange(_)) => Answer::Is(None),
                    _ => Answer::Undecided,
                };
            }
        };
        bisection.take(event);
    }
}

/// What `git bisect run` does with a script that measures and compares with a limit.
fn plainly(machine: &mut Machine, runs: usize, paired: bool) -> Answer {
    let mean = |machine: &mut Machine, place: usize| {
        let one = |_| match paired {
            true => {
                let pair = machine.pair(place, 0);
                (pair.figure / pair.other).ln()
            }
            false => {
                machine.measurements += 1;
                machine.run(place)
            }
        };
        (0..runs).map(one).sum::<f64>() / runs as f64
    };
    let (mut good, mut bad) = (0, machine.history.commits - 1);
    machine.build(good);
    let low = mean(machine, good);
    machine.build(bad);
    let limit = f64::midpoint(low, mean(machine, bad));
    let rises = limit > low;
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        // The next that can be built, then those before.
        let mut near = (middle..bad).chain((good + 1..middle).rev());
        let Some(place) = near.find(|&place| machine.build(place)) else {
            break;
        };
        match (mean(machine, place) > limit) == rises {
            true => bad = place,
            false => good = place,
        }
    }
    Answer::Is(Some(bad))
}

impl Trial {
    /// The share of right answers.
    pub fn share(&self) -> f64 {
        self.right as f64 / self.count as f64
    }

    /// Builds of one trial, in the mean.
    pub fn mean_builds(&self) -> f64 {
        self.builds as f64 / self.count as f64
    }

    /// Measurements of one trial, in the mean.
    pub fn mean_measurements(&self) -> f64 {
        self.measurements as f64 / self.count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Noise = Noise {
        pair: 0.05,
        outliers: 0.0,
        drift: 0.0,
    };

    /// The history that the bars are set for.
    const HISTORY: History = History {
        commits: 1684,
        step: 0.05,
        noise: QUIET,
        unbuildable: 0.0,
        build_cost: 60.0,
    };

    #[track_caller]
    fn assert_right(trial: &Trial, builds: f64, measurements: f64) {
        assert!(
            trial.share() >= 0.95
                && trial.mean_builds() <= builds
                && trial.mean_measurements() <= measurements,
            "{trial:?}"
        );
    }

    #[test]
    fn a_step_as_high_as_the_noise_is_found_in_300_pairs() {
        let trial = simulate(&HISTORY, Strategy::Posterior, 30, 1);
        assert_right(&trial, 15.0, 300.0);
        // What it is held against needs more than twice as much to be right as often.
        for plain in [34, 55] {
            let plain = simulate(&HISTORY, Strategy::Bisect(plain), 200, 1);
            let enough = plain.mean_measurements() > 2.0 * trial.mean_measurements();
            assert!(enough || plain.share() < 0.95, "{plain:?}");
        }
    }

    #[test]
    fn a_high_step_is_found_in_50_pairs() {
        let history = History {
            step: 0.2,
            ..HISTORY
        };
        assert_right(&simulate(&history, Strategy::Posterior, 100, 2), 15.0, 50.0);
        let outliers = History {
            noise: Noise {
                pair: 0.02,
                outliers: 0.05,
                drift: 0.0,
            },
            ..history
        };
        assert_right(&simulate(&outliers, Strategy::Posterior, 60, 3), 15.0, 60.0);
        let patchy = History {
            unbuildable: 0.3,
            ..history
        };
        assert_right(&simulate(&patchy, Strategy::Posterior, 60, 4), 21.0, 60.0);
    }

    #[test]
    fn drift_misleads_only_who_does_not_pair() {
        let history = History {
            noise: Noise {
                drift: 0.1,
                ..QUIET
            },
            ..HISTORY
        };
        let trial = simulate(&history, Strategy::Posterior, 25, 5);
        assert_right(&trial, 15.0, 350.0);
        let alone = simulate(&history, Strategy::BisectAlone(55), 100, 5);
        assert!(alone.share() < 0.5, "{alone:?}");
    }

    #[test]
    fn without_a_change_nobody_is_accused() {
        for (pair, count, builds, least) in [(0.02, 200, 2.1, 0.97), (0.05, 100, 3.0, 0.85)] {
            let history = History {
                step: 0.0,
                noise: Noise { pair, ..QUIET },
                ..HISTORY
            };
            let trial = simulate(&history, Strategy::Posterior, count, 6);
            assert_eq!(trial.wrong, 0, "{trial:?}");
            assert!(trial.share() >= least, "{trial:?}");
            assert!(trial.mean_builds() <= builds, "{trial:?}");
        }
    }

    #[test]
    fn the_steepest_step_needs_runs_enough_from_the_beginning() {
        let share = |runs| simulate(&HISTORY, Strategy::Metric(runs), 12, 7).share();
        let (few, many) = (share(3), share(55));
        assert!(few < 0.5 && many >= 0.9, "{few} {many}");
    }
}
