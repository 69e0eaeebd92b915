//! How often a trial is wrong, on generated series: records in, rounds until the verdict, as a contest has them.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::sample::{Name, Order, Value};

/// What disturbs the figures, as a change of their logarithm.
#[derive(Clone, Copy, Debug)]
enum Noise {
    Independent,
    /// Each run is like the run before.
    Autoregressive,
    /// The machine becomes slower by 3 % every hundred runs.
    Drift,
    /// One run in twenty takes half as long again.
    Outliers,
    /// Every other run is slower.
    Period,
}

struct Machine {
    random: Pcg64Mcg,
    noise: Noise,
    runs: u64,
    state: f64,
}

impl Machine {
    fn normal(&mut self) -> f64 {
        let (u, v): (f64, f64) = (self.random.random(), self.random.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// The time of one run that takes 1 s by itself, with a coefficient of variation of 2 %.
    fn run(&mut self) -> f64 {
        let own = 0.02 * self.normal();
        self.runs += 1;
        let at = self.runs as f64;
        let shift = match self.noise {
            Noise::Independent => 0.0,
            Noise::Autoregressive => {
                self.state = 0.5 * self.state + own;
                self.state - own
            }
            Noise::Drift => 0.0003 * at,
            Noise::Outliers if self.random.random::<f64>() < 0.05 => 0.4,
            Noise::Outliers => 0.0,
            Noise::Period if self.runs.is_multiple_of(2) => 0.02,
            Noise::Period => 0.0,
        };
        (own + shift).exp()
    }
}

/// The verdict and the number of pairs of one trial, in which the new variant takes `factor`
/// times as long.
fn trial(machine: &mut Machine, factor: f64) -> (Verdict, usize) {
    let judge = Judge {
        rule: Rule::sequential(0.05),
        margin: None,
    };
    let unit = Unit::named("sec/op");
    let mut trial = Trial::of(["old", "new"].map(str::to_owned));
    for round in 0.. {
        let new_first: bool = machine.random.random();
        for position in 0..2 {
            let is_new = (position == 0) == new_first;
            let time = machine.run() * if is_new { factor } else { 1.0 };
            trial.take(&Record::Sample(Sample {
                benchmark: Name::new("simulated"),
                variant: if is_new { "new" } else { "old" }.to_owned(),
                iterations: 1,
                order: Order {
                    sequence: 2 * round + u64::from(position),
                    round,
                    position,
                },
                config: BTreeMap::new(),
                values: vec![Value::new("sec/op", Figure::Exact(time))],
                warnings: Vec::new(),
            }));
        }
        // Between looks there is nothing to be decided.
        if !judge.rule.is_look(round as usize + 1) {
            continue;
        }
        let judgement = trial.judge(&judge, &unit).remove(0).unwrap();
        if !judge.needs_more(&unit, &judgement, false) {
            return (judgement.verdict, judgement.comparison.counts[0]);
        }
    }
    unreachable!("the ladder of looks has an end")
}

/// The share of trials that end in one of `verdicts`, and the mean number of pairs.
fn share(noise: Noise, factor: f64, trials: u32, verdicts: &[Verdict]) -> (f64, f64) {
    let mut machine = Machine {
        random: Pcg64Mcg::seed_from_u64(11),
        noise,
        runs: 0,
        state: 0.0,
    };
    let (mut hits, mut pairs) = (0, 0);
    for _ in 0..trials {
        let (verdict, n) = trial(&mut machine, factor);
        hits += u32::from(verdicts.contains(&verdict));
        pairs += n;
    }
    (
        f64::from(hits) / f64::from(trials),
        pairs as f64 / f64::from(trials),
    )
}

const CHANGED: [Verdict; 2] = [Verdict::Improved, Verdict::Regressed];

/// Of trials of equal things, about 5 % may be called changed. With so many trials the share that
/// is seen has a standard error of 1.1 %: what is above the bound is not by chance.
#[test]
fn equal_things_are_rarely_called_changed() {
    const TRIALS: u32 = 400;
    let most = 0.05 + 3.0 * (0.05 * 0.95 / f64::from(TRIALS)).sqrt();
    for noise in [
        Noise::Independent,
        Noise::Autoregressive,
        Noise::Drift,
        Noise::Outliers,
        Noise::Period,
    ] {
        let (changed, pairs) = share(noise, 1.0, TRIALS, &CHANGED);
        assert!(changed <= most, "{noise:?}: {changed} after {pairs} pairs");
    }
}

#[test]
fn equal_things_are_mostly_found_equivalent() {
    let (equivalent, pairs) = share(Noise::Independent, 1.0, 200, &[Verdict::Equivalent]);
    assert!(
        equivalent >= 0.9 && pairs < 40.0,
        "{equivalent} after {pairs}"
    );
}

#[test]
fn five_percent_are_found_in_few_pairs() {
    for noise in [Noise::Independent, Noise::Drift, Noise::Outliers] {
        let (found, pairs) = share(noise, 1.05, 100, &[Verdict::Regressed]);
        assert!(
            found >= 0.97 && pairs < 16.0,
            "{noise:?}: {found} after {pairs}"
        );
        let (found, _) = share(noise, 1.0 / 1.05, 100, &[Verdict::Improved]);
        assert!(found >= 0.97, "{noise:?}: {found}");
    }
}
