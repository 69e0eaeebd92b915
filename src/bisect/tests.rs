//! What the engine asks for, in small histories whose figures are known.

use std::collections::BTreeMap;

use super::*;
use crate::stats::comparison::{Basis, Verdict};
use crate::stats::sequential::Rule;
use crate::unit::{Assume, Better, Unit};

fn settings(places: usize, unit: &str) -> Settings {
    Settings {
        places,
        skipped: Vec::new(),
        unit: UnitMeta {
            unit: Unit::named(unit),
            better: Some(Better::Lower),
            assume: Assume::Nothing,
        },
        judge: Judge {
            rule: Rule::sequential(0.05),
            margin: None,
        },
        order: Order::Posterior,
        iterations: 5,
        most_runs: None,
        all: false,
        scan: 0,
    }
}

/// A world in which every run of a place has a figure: what it is, and how far noise goes.
struct World<'a> {
    figure: &'a dyn Fn(usize) -> f64,
    noise: f64,
    unbuildable: &'a [usize],
    failing: &'a [usize],
    runs: u64,
    log: Vec<Event>,
}

impl<'a> World<'a> {
    fn new(figure: &'a dyn Fn(usize) -> f64, noise: f64) -> World<'a> {
        World {
            figure,
            noise,
            unbuildable: &[],
            failing: &[],
            runs: 0,
            log: Vec::new(),
        }
    }

    /// Noise that no draw makes: a low-discrepancy sequence, turned into nearly normal figures.
    fn run(&mut self, place: usize) -> f64 {
        self.runs += 1;
        let part = |times: f64| (self.runs as f64 * times).fract() - 0.5;
        let z = part(0.618_033_988_749_895) + part(0.754_877_666_246_693) + part(0.569_840_290_998);
        (self.figure)(place) * (1.0 + 2.0 * self.noise * z)
    }

    fn event(&mut self, step: &Step) -> Event {
        match *step {
            Step::Build(place) if self.unbuildable.contains(&place) => Event::Unbuildable { place },
            Step::Build(place) => Event::Built {
                place,
                sec: Some(20.0),
            },
            Step::Pair { place, .. } | Step::Single(place) if self.failing.contains(&place) => {
                Event::Failed { place }
            }
            Step::Single(place) => Event::Single {
                place,
                figure: self.run(place),
            },
            Step::Pair { place, against } => Event::Pair(Pair {
                place,
                against,
                figure: self.run(place),
                other: self.run(against),
                first: self.runs.is_multiple_of(3),
                void: false,
                sec: 1.0,
            }),
            Step::Done(_) => panic!("nothing is to be done"),
        }
    }

    fn bisect(&mut self, settings: Settings) -> Vec<Finding> {
        let mut bisection = Bisection::new(settings);
        let mut built = std::collections::BTreeSet::new();
        loop {
            let step = bisection.step();
            match &step {
                Step::Done(findings) => return findings.clone(),
                Step::Build(place) => assert!(built.insert(*place), "{place} is built already"),
                Step::Pair { place, against } => {
                    assert!(built.contains(place) && built.contains(against));
                    assert!(against <= place);
                }
                Step::Single(place) => assert!(built.contains(place)),
            }
            let event = self.event(&step);
            self.log.push(event);
            bisection.take(event);
            assert!(self.log.len() < 5000, "it does not end");
        }
    }
}

fn culprit(finding: &Finding) -> &Culprit {
    match &finding.outcome {
        Outcome::Found(culprit) => culprit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_noisy_step_is_found_and_confirmed() {
    let figure = |place: usize| if place >= 137 { 1.1 } else { 1.0 };
    let mut world = World::new(&figure, 0.02);
    let findings = world.bisect(settings(200, "sec/op"));
    let found = culprit(&findings[0]);
    assert_eq!((found.places.clone(), found.parent), (137..=137, 136));
    assert_eq!(found.judgement.verdict, Verdict::Regressed);
    assert_eq!(found.judgement.comparison.basis, Basis::Pairs);
    let (change, interval) = found.change.unwrap();
    assert!(interval.contains(0.1) && interval.contains(change));
    assert!(found.probability >= 0.95);
    let builds = |event: &&Event| matches!(event, Event::Built { .. });
    assert!(world.log.iter().filter(builds).count() <= 11);
}

#[test]
fn what_does_not_vary_is_searched_by_halves() {
    let figure = |place: usize| if place >= 1234 { 105.0 } else { 104.0 };
    let mut world = World::new(&figure, 0.0);
    let findings = world.bisect(settings(1684, "allocs/op"));
    let found = culprit(&findings[0]);
    assert_eq!(found.places, 1234..=1234);
    assert_eq!(found.judgement.comparison.basis, Basis::Exact);
    assert_eq!(found.judgement.verdict, Verdict::Regressed);
    // log₂ 1684 is 10.7; three runs of each end, and two more of culprit and parent.
    assert!(world.runs <= 11 + 6 + 4, "{}", world.runs);
    let nothing = |_: usize| 104.0;
    let findings = World::new(&nothing, 0.0).bisect(settings(1684, "allocs/op"));
    assert!(matches!(findings[0].outcome, Outcome::NoChange(_)));
    // A clock that shows the same twice is not exact.
    let mut world = World::new(&nothing, 0.0);
    world.bisect(settings(1684, "sec/op"));
    assert!(
        world
            .log
            .iter()
            .all(|event| !matches!(event, Event::Single { .. }))
    );
}

#[test]
fn what_varies_after_all_is_searched_as_such() {
    // The first runs agree by chance; inside they do not.
    let figure = |place: usize| if place >= 60 { 130.0 } else { 100.0 };
    let mut world = World::new(&figure, 0.0);
    let mut bisection = Bisection::new(settings(100, "page-faults/op"));
    let mut singles = 0;
    let found = loop {
        let step = bisection.step();
        if let Step::Done(findings) = &step {
            break findings.clone();
        }
        if let Step::Single(_) = step {
            singles += 1;
        }
        // From the tenth run on, figures vary.
        world.noise = if world.runs < 8 { 0.0 } else { 0.02 };
        bisection.take(world.event(&step));
    };
    assert_eq!(culprit(&found[0]).places, 60..=60);
    assert!(singles >= 6);
}

#[test]
fn who_cannot_be_measured_is_part_of_the_answer() {
    let figure = |place: usize| if place >= 50 { 1.2 } else { 1.0 };
    for (unbuildable, failing) in [
        (&[48, 49, 50, 51][..], &[][..]),
        (&[][..], &[48, 49, 50, 51][..]),
    ] {
        for unit in ["sec/op", "allocs/op"] {
            let mut world = World::new(&figure, if unit == "sec/op" { 0.01 } else { 0.0 });
            (world.unbuildable, world.failing) = (unbuildable, failing);
            let findings = world.bisect(settings(100, unit));
            let found = culprit(&findings[0]);
            assert_eq!(
                (found.parent, found.places.clone()),
                (47, 48..=52),
                "{unit}"
            );
        }
    }
    let mut world = World::new(&figure, 0.01);
    let skipped = Settings {
        skipped: vec![50],
        ..settings(100, "sec/op")
    };
    let findings = world.bisect(skipped);
    assert_eq!(culprit(&findings[0]).places, 50..=51);
    for end in [0, 99] {
        let broken = [end];
        let mut world = World::new(&figure, 0.01);
        world.unbuildable = &broken;
        let findings = world.bisect(settings(100, "sec/op"));
        assert!(matches!(findings[0].outcome, Outcome::Unmeasurable(at) if at == end));
        let mut world = World::new(&figure, 0.01);
        world.failing = &broken;
        let findings = world.bisect(settings(100, "sec/op"));
        assert!(matches!(findings[0].outcome, Outcome::Unmeasurable(at) if at == end));
    }
}

#[test]
fn histories_of_one_or_two_commits_are_no_trouble() {
    let figure = |place: usize| if place >= 1 { 1.2 } else { 1.0 };
    let findings = World::new(&figure, 0.01).bisect(settings(2, "sec/op"));
    assert_eq!(culprit(&findings[0]).places, 1..=1);
    let findings = World::new(&figure, 0.01).bisect(settings(1, "sec/op"));
    assert!(matches!(
        findings[0].outcome,
        Outcome::Undecided(Doubt::Exhausted)
    ));
    let findings = World::new(&figure, 0.0).bisect(settings(2, "allocs/op"));
    assert_eq!(culprit(&findings[0]).places, 1..=1);
}

#[test]
fn several_steps_are_found_one_by_one() {
    let figure = |place: usize| match place {
        0..20 => 1.0,
        20..90 => 1.3,
        _ => 1.6,
    };
    for (unit, noise) in [("sec/op", 0.01), ("instructions:u/op", 0.0)] {
        let all = Settings {
            all: true,
            ..settings(120, unit)
        };
        let findings = World::new(&figure, noise).bisect(all);
        let mut made: Vec<usize> = findings
            .iter()
            .filter_map(|finding| match &finding.outcome {
                Outcome::Found(culprit) => Some(*culprit.places.end()),
                _ => None,
            })
            .collect();
        made.sort_unstable();
        assert_eq!(made, [20, 90], "{unit}: {findings:?}");
        let others = findings.len() - 2;
        assert_eq!(others, 3, "both sides of each are looked at");
    }
}

#[test]
fn a_scan_finds_steps_that_cancel() {
    let figure = |place: usize| if (30..70).contains(&place) { 1.3 } else { 1.0 };
    for (unit, noise) in [("sec/op", 0.01), ("instructions:u/op", 0.0)] {
        let found = |scan: usize, all: bool| -> Vec<usize> {
            let settings = Settings {
                scan,
                all,
                ..settings(100, unit)
            };
            let findings = World::new(&figure, noise).bisect(settings);
            assert!(
                matches!(findings[0].outcome, Outcome::NoChange(_)),
                "{findings:?}"
            );
            let culprits = findings
                .iter()
                .filter_map(|finding| match &finding.outcome {
                    Outcome::Found(culprit) => Some(*culprit.places.end()),
                    _ => None,
                });
            culprits
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        assert_eq!(found(0, false), [0; 0], "{unit}");
        assert_eq!(found(4, false), [30], "{unit}");
        assert_eq!(found(4, true), [30, 70], "{unit}");
    }
}

#[test]
fn told_the_same_again_it_goes_on_where_it_was() {
    let figure = |place: usize| if place >= 77 { 1.1 } else { 1.0 };
    for (unit, noise) in [("sec/op", 0.03), ("allocs/op", 0.0)] {
        let mut world = World::new(&figure, noise);
        world.unbuildable = &[75, 50];
        let findings = world.bisect(settings(100, unit));
        let log = world.log.clone();
        for cut in 0..=log.len() {
            let mut again = Bisection::new(settings(100, unit));
            for event in &log[..cut] {
                again.step();
                again.take(*event);
            }
            // The next event of the log is an answer to what it asks for now.
            let wanted = match (again.step(), log.get(cut)) {
                (Step::Done(again), None) => {
                    assert_eq!(format!("{again:?}"), format!("{findings:?}"));
                    true
                }
                (
                    Step::Build(a),
                    Some(Event::Built { place, .. } | Event::Unbuildable { place }),
                ) => a == *place,
                (Step::Pair { place, against }, Some(Event::Pair(pair))) => {
                    (place, against) == (pair.place, pair.against)
                }
                (Step::Single(a), Some(Event::Single { place, .. })) => a == *place,
                _ => false,
            };
            assert!(wanted, "{unit} at {cut}");
        }
    }
}

#[test]
fn void_pairs_and_limits() {
    let figure = |place: usize| if place >= 7 { 1.1 } else { 1.0 };
    let limited = Settings {
        most_runs: Some(8),
        ..settings(100, "sec/op")
    };
    let mut world = World::new(&figure, 0.03);
    let findings = world.bisect(limited.clone());
    assert!(matches!(
        findings[0].outcome,
        Outcome::Undecided(Doubt::Limit)
    ));
    assert_eq!(world.runs, 16);
    // Void ones count as runs, and for nothing else.
    let mut bisection = Bisection::new(limited);
    let mut world = World::new(&figure, 0.03);
    while !matches!(bisection.step(), Step::Done(_)) {
        let mut event = world.event(&bisection.step());
        if let Event::Pair(pair) = &mut event {
            pair.void = true;
        }
        bisection.take(event);
    }
    assert!(bisection.findings()[0].posterior.is_none());
}

#[test]
fn orders_of_benchmany() {
    let figure = |place: usize| if place >= 11 { 1.2 } else { 1.0 };
    let run = |order: Order| {
        let mut world = World::new(&figure, 0.01);
        let findings = world.bisect(Settings {
            order,
            iterations: 3,
            ..settings(16, "sec/op")
        });
        assert_eq!(culprit(&findings[0]).places, 11..=11, "{order:?}");
        let mut first = Vec::new();
        let mut counts = BTreeMap::new();
        for event in &world.log {
            if let Event::Pair(pair) = event
                && pair.against == 0
            {
                if !first.contains(&pair.place) {
                    first.push(pair.place);
                }
                *counts.entry(pair.place).or_insert(0) += 1;
            }
        }
        (first, counts)
    };
    let (first, counts) = run(Order::Sequential);
    assert_eq!(first, (0..16).collect::<Vec<_>>());
    assert!(counts.values().all(|&count| count == 3));
    let (first, counts) = run(Order::Spread);
    assert_eq!(first[..3], [0, 15, 7]);
    assert_eq!(counts.len(), 16);
    let (first, counts) = run(Order::Metric);
    assert_eq!(first[..3], [0, 15, 7]);
    assert!(counts.len() < 8 && counts.values().all(|&count| count == 3));
}

#[test]
fn builds_ahead_are_those_that_come() {
    let figure = |place: usize| if place >= 137 { 1.3 } else { 1.0 };
    let mut world = World::new(&figure, 0.01);
    let mut bisection = Bisection::new(settings(200, "sec/op"));
    assert_eq!(bisection.ahead(3).len(), 3);
    let (mut guessed, mut builds) = (0, 0);
    let mut ahead = Vec::new();
    loop {
        let step = bisection.step();
        match step {
            Step::Done(_) => break,
            Step::Build(place) => {
                builds += 1;
                guessed += usize::from(ahead.contains(&place));
                ahead = bisection.ahead(4);
                assert!(ahead.iter().all(|place| (1..199).contains(place)));
            }
            _ => {}
        }
        bisection.take(world.event(&step));
    }
    assert!(2 * guessed >= builds, "{guessed} of {builds}");
}
