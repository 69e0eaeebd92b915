//! `poise bisect --simulate`: the same engine on histories that are made up, beside plain bisection and the order of benchmany. Measures nothing.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use clap::Args;

use super::super::options;
use crate::bisect::{History, Noise, Strategy, Trial, simulate};

/// What histories are made up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Simulation")]
pub(super) struct Options {
    /// Bisect nothing, but histories that are made up: how often the answer is right, and what it
    /// costs, beside plain git bisect and benchmany's metric order.
    #[arg(long)]
    pub(super) simulate: bool,

    /// Histories.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "simulate", value_parser = clap::value_parser!(u64).range(1..))]
    trials: u64,

    /// Commits of each.
    #[arg(long, value_name = "N", default_value_t = 1684, requires = "simulate", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    commits: u32,

    /// The change; 0 for none.
    #[arg(long, value_name = "PERCENT", default_value = "5%", requires = "simulate", value_parser = options::share)]
    step: f64,

    /// The noise of a pair: the standard deviation of the ratio of two runs side by side.
    #[arg(long, value_name = "PERCENT", default_value = "5%", requires = "simulate", value_parser = options::share)]
    noise: f64,

    /// Runs that take half as long again.
    #[arg(long, value_name = "PERCENT", default_value = "0%", requires = "simulate", value_parser = options::share)]
    outliers: f64,

    /// How far the machine's speed strays.
    #[arg(long, value_name = "PERCENT", default_value = "0%", requires = "simulate", value_parser = options::share)]
    drift: f64,

    /// Commits that cannot be built.
    #[arg(long, value_name = "PERCENT", default_value = "0%", requires = "simulate", value_parser = options::share)]
    unbuildable: f64,

    /// What a build takes, in runs.
    #[arg(
        long,
        value_name = "RUNS",
        default_value_t = 60.0,
        requires = "simulate"
    )]
    build_cost: f64,
}

/// The numbers of measurements that plain strategies are tried with.
const LADDER: [usize; 11] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144];

/// Right so often, a strategy is good enough.
const ENOUGH: f64 = 0.95;

pub(super) fn main(options: &Options, seed: Option<u64>) -> anyhow::Result<u8> {
    let seed = seed.unwrap_or(1);
    let history = History {
        commits: options.commits as usize,
        step: options.step,
        noise: Noise {
            pair: options.noise,
            outliers: options.outliers,
            drift: options.drift,
        },
        unbuildable: options.unbuildable,
        build_cost: options.build_cost,
    };
    let mut text = format!(
        "{} histories of {} commits, seed {seed}\n{:<40}{:>8}{:>8}{:>11}{:>9}{:>14}{:>9}\n",
        options.trials,
        options.commits,
        "strategy",
        "right",
        "wrong",
        "undecided",
        "builds",
        "measurements",
        "runs"
    );
    let mut row = |name: &str, trial: &Trial| {
        let share = |count: u64| format!("{:.1} %", 100.0 * count as f64 / trial.count as f64);
        let mean = |sum: u64| sum as f64 / trial.count as f64;
        let _ = writeln!(
            text,
            "{name:<40}{:>8}{:>8}{:>11}{:>9.1}{:>14.0}{:>9.0}",
            share(trial.right),
            share(trial.wrong),
            share(trial.undecided),
            mean(trial.builds),
            mean(trial.measurements),
            mean(trial.runs)
        );
    };
    let waits = io::stderr().is_terminal();
    let tell = |name: &str| {
        if waits {
            super::remark(&format!("simulating {name}"));
        }
    };
    tell("the posterior");
    let run = |strategy| simulate(&history, strategy, options.trials, seed);
    row("posterior, paired", &run(Strategy::Posterior));
    type Kind = (&'static str, fn(usize) -> Strategy);
    let kinds: [Kind; 3] = [
        ("git bisect, mean of k pairs", Strategy::Bisect),
        ("git bisect, mean of k runs", Strategy::BisectAlone),
        ("metric order, mean of k pairs", Strategy::Metric),
    ];
    for (name, strategy) in kinds {
        tell(name);
        // Without a change no number is enough, and the least shows what there is to see.
        let tries = LADDER
            .into_iter()
            .take(if options.step == 0.0 { 1 } else { LADDER.len() });
        let mut best: Option<(usize, Trial)> = None;
        for runs in tries {
            let trial = run(strategy(runs));
            let better = best
                .as_ref()
                .is_none_or(|(_, best)| trial.right > best.right);
            let enough = trial.share() >= ENOUGH;
            if better || enough {
                best = Some((runs, trial));
            }
            if enough {
                break;
            }
        }
        if let Some((runs, trial)) = best {
            row(&format!("{name}, k = {runs}"), &trial);
        }
    }
    text += "\nA measurement is a run beside one of the reference, or a run alone. Of the last three, k is the\n\
             least number with 95 % right, or the best one tried; nobody knows it beforehand.\n";
    super::super::print(&text)?;
    Ok(0)
}
