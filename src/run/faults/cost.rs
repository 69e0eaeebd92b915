//! What one page fault costs on this machine: the workload that regresses the CPU time of the heap loop on its faults, one fresh process a block. Never looks into the kernel.

use std::io;
use std::path::PathBuf;

use super::super::batch::{self, Job, Report, Request};
use super::super::interrupt::Interrupt;
use super::super::loops::{LoopSpec, Point};
use super::super::schedule::Turn;
use super::super::surroundings::Surroundings;
use super::super::{Error, Observed, Outcome, Workload, exact};
use crate::sample::{Figure, Name, Value};
use crate::stats::order::median;
use crate::stats::regression::{correlation, theil_sen};

/// The heap loop, swept over sizes.
///
/// In each block CPU time is fitted to faults and touches: what a touch costs is the median, over
/// the sizes, of half the difference between three passes and one; what a fault costs is the slope
/// by Theil and Sen of the rest on the faults. A block is one process, so that blocks are
/// independent, and their median and its interval stand for the machine.
pub struct FaultCost<'s> {
    spec: LoopSpec,
    name: Name,
    surroundings: &'s Surroundings,
    scratch: PathBuf,
}

impl<'s> FaultCost<'s> {
    /// Of the loop `spec`, which is `heap`, as benchmark `name`: its size is the largest.
    pub fn new(spec: LoopSpec, name: Name, surroundings: &'s Surroundings) -> FaultCost<'s> {
        FaultCost {
            spec,
            name,
            surroundings,
            scratch: std::env::temp_dir(),
        }
    }
}

impl Workload for FaultCost<'_> {
    fn benchmark(&self) -> &Name {
        &self.name
    }

    fn variant(&self) -> &str {
        "base"
    }

    fn config(&self, turn: &Turn) -> Vec<(String, String)> {
        self.surroundings.config(turn)
    }

    fn observe(
        &mut self,
        turn: &Turn,
        interrupt: &Interrupt,
        _partly: &mut dyn FnMut(Observed) -> io::Result<()>,
    ) -> Result<Outcome, Error> {
        let request = Request {
            spec: self.spec.to_string(),
            groups: Vec::new(),
            scratch: self.scratch.clone(),
            job: Job::Sweep { seed: turn.draw },
        };
        let answer = match batch::ask(&request, self.surroundings, Some(turn), interrupt) {
            // What this machine does not have is no error: the other kinds of pages are measured.
            Err(Error::Prepare(why)) => {
                return Ok(Outcome::Observed(Observed {
                    values: UNITS
                        .map(|unit| Value::new(unit, Figure::absent(why.clone())))
                        .into(),
                    ..Observed::default()
                }));
            }
            answer => answer?,
        };
        match answer {
            Err(signal) => Ok(Outcome::Interrupted(signal)),
            Ok(Report::Swept { points }) => {
                Ok(Outcome::Observed(fitted(&points, self.spec.is_populated())))
            }
            Ok(_) => Err(Error::Prepare(
                "the measured process answered another question".to_owned(),
            )),
        }
    }
}

/// The units of the slopes: of the whole by the base page; of mapping and touching, and of
/// unmapping, by the fault.
const UNITS: [&str; 3] = ["sec/page", "sec/fault", "unmap-sec/fault"];

/// The block's figures. The pages that mmap populates are no faults.
fn fitted(points: &[Point], is_populated: bool) -> Observed {
    let of = |figure: fn(&Point) -> f64| points.iter().map(figure).collect::<Vec<f64>>();
    let faults = of(|point| point.faults as f64);
    let pages = of(|point| point.pages as f64);
    let touches = of(|point| (point.pages * point.passes) as f64);
    let touch_sec = touch_sec(points);
    let filling: Vec<f64> = points
        .iter()
        .zip(&touches)
        .map(|(point, touches)| point.fill_ns as f64 / 1e9 - touch_sec.unwrap_or(0.0) * touches)
        .collect();
    let unmapping = of(|point| point.unmap_ns as f64 / 1e9);
    let whole: Vec<f64> = filling.iter().zip(&unmapping).map(|(a, b)| a + b).collect();
    let slope = |unit: &str, x: &[f64], y: &[f64]| {
        let line = theil_sen(x, y);
        Value::new(
            unit,
            line.map_or_else(
                || Figure::absent("the points make no line"),
                |line| Figure::Exact(line.slope),
            ),
        )
    };
    let mut values = vec![slope(UNITS[0], &pages, &whole)];
    if !is_populated {
        values.push(slope(UNITS[1], &faults, &filling));
        values.push(slope(UNITS[2], &faults, &unmapping));
    }
    values.extend(touch_sec.map(|sec| exact("sec/touch", sec)));
    values.extend(correlation(&faults, &touches).map(|r| exact("faults-touches-correlation", r)));
    Observed {
        iterations: points.iter().map(|point| point.faults).sum(),
        values,
        ..Observed::default()
    }
}

/// What writing to a page costs that is there: half the difference between three passes and one,
/// by the page.
fn touch_sec(points: &[Point]) -> Option<f64> {
    let sizes = points
        .iter()
        .filter(|point| point.passes == 1 && point.pages > 0);
    let each: Vec<f64> = sizes
        .filter_map(|once| {
            let thrice = points
                .iter()
                .find(|point| point.passes == 3 && point.pages == once.pages)?;
            let more_ns = thrice.fill_ns as f64 - once.fill_ns as f64;
            Some(more_ns / 1e9 / (2.0 * once.pages as f64))
        })
        .collect();
    median(&each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_touches_are_told_apart() {
        let point = |pages: u64, passes: u64| Point {
            pages,
            passes,
            faults: pages + 3,
            fill_ns: 5000 + 2000 * (pages + 3) + 10 * pages * passes,
            unmap_ns: 700 + 300 * pages,
        };
        let points: Vec<Point> = [0, 1024, 2048, 8192]
            .into_iter()
            .flat_map(|pages| [1, 3].map(|passes| point(pages, passes)))
            .collect();
        let observed = fitted(&points, false);
        let check = |unit: &str, want: f64| {
            let value = observed.values.iter().find(|v| v.unit.as_str() == unit);
            let got = value.unwrap().figure.number().unwrap();
            assert!((got - want).abs() <= 1e-9 * want, "{unit}: {got}");
        };
        check("sec/fault", 2e-6);
        check("unmap-sec/fault", 3e-7);
        check("sec/page", 2.3e-6);
        check("sec/touch", 1e-8);
    }
}
