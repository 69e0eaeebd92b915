//! Judgements on figures that are made up for them: pairs, halves, families, doubts.

use super::*;
use crate::sample::Cause;

fn placed(figures: &[f64], run: u32) -> Cell {
    let mut cell = Cell::default();
    for (round, &figure) in figures.iter().enumerate() {
        let place = Place {
            run,
            round: round as u64,
            position: (round % 2) as u32,
            void: false,
        };
        cell.push(figure, Some(place));
    }
    cell
}

fn loose(figures: &[f64]) -> Cell {
    let mut cell = Cell::default();
    figures.iter().for_each(|&figure| cell.push(figure, None));
    cell
}

fn judged(unit: &str, old: &Cell, new: &Cell) -> Option<(Basis, Verdict)> {
    let judgement = Judge::default().judge(&Unit::named(unit), old, new)?;
    Some((judgement.comparison.basis, judgement.verdict))
}

const SLOW: [f64; 10] = [1.0, 1.01, 0.99, 1.02, 0.98, 1.01, 1.0, 0.99, 1.03, 1.0];

#[test]
fn figures_are_compared_by_their_kind() {
    let faster: Vec<f64> = SLOW.iter().map(|x| x * 0.9).collect();
    let check = |unit, old: &Cell, new: &Cell, want| {
        assert_eq!(judged(unit, old, new), want, "{unit}");
    };
    use {Basis::*, Verdict::*};
    let (old, new) = (placed(&SLOW, 0), placed(&faster, 0));
    check("sec/op", &old, &new, Some((Pairs, Improved)));
    check("B/s", &old, &new, Some((Pairs, Regressed)));
    check("CPUs", &old, &new, Some((Pairs, Changed)));
    // Of two runs of poise, or of none, nothing stood side by side.
    check(
        "sec/op",
        &old,
        &placed(&faster, 1),
        Some((Groups, Improved)),
    );
    check("sec/op", &old, &loose(&faster), Some((Groups, Improved)));
    let same = placed(&[7.0; 4], 0);
    check(
        "minor-faults/op",
        &same,
        &placed(&[8.0; 4], 0),
        Some((Exact, Regressed)),
    );
    check("minor-faults/op", &same, &same, Some((Exact, Equivalent)));
    check("sec/op", &same, &same, Some((Pairs, Inconclusive)));
    check("sec/op", &Cell::default(), &new, None);
}

#[test]
fn exact_figures_end_a_contest_only_where_they_are_to_be_expected() {
    let judge = Judge {
        rule: Rule::sequential(0.05),
        margin: None,
    };
    let check = |unit, pairs: usize, want| {
        let cell = placed(&vec![7.0; pairs], 0);
        let unit = Unit::named(unit);
        let judgement = judge.judge(&unit, &cell, &cell).unwrap();
        assert_eq!(judgement.comparison.basis, Basis::Exact);
        let needs_more = judge.needs_more(&unit, &judgement, false);
        assert_eq!(needs_more, want, "{unit}, {pairs} pairs");
    };
    check("allocs/op", 4, false);
    check("page-faults/op", 4, true);
    check("page-faults/op", LOOKS[0], false);
}

#[test]
fn void_runs_take_their_partners_with_them() {
    let (mut old, mut new) = (Cell::default(), Cell::default());
    for round in 0..12 {
        let place = |void| {
            Some(Place {
                run: 0,
                round,
                position: 0,
                void,
            })
        };
        old.push(1.0 + round as f64 / 1000.0, place(round == 3));
        new.push(if round == 3 { 90.0 } else { 1.5 }, place(round == 4));
    }
    let judgement = Judge::default()
        .judge(&Unit::named("sec/op"), &old, &new)
        .unwrap();
    assert_eq!(judgement.comparison.counts, [10, 10]);
    assert_eq!(judgement.verdict, Verdict::Regressed);
    assert!(
        judgement.doubts[0].starts_with("2 pairs are void"),
        "{judgement:?}"
    );
}

#[test]
fn absent_figures_are_told_and_never_counted() {
    let (mut old, new) = (placed(&SLOW, 0), placed(&SLOW, 0));
    old.take(&Figure::absent(Cause::new("no PMU")), None);
    let judgement = Judge::default()
        .judge(&Unit::named("cycles/op"), &old, &new)
        .unwrap();
    assert_eq!(judgement.comparison.counts, [10, 10]);
    assert_eq!(
        judgement.doubts,
        ["1 runs of the old one could not be counted: no PMU"]
    );
    let mut none = Cell::default();
    none.take(&Figure::absent(Cause::new("no PMU")), None);
    assert_eq!(none.why_absent(), Some("no PMU"));
    assert_eq!(judged("cycles/op", &none, &new), None);
}

#[test]
fn a_p_that_is_not_exact_is_told() {
    let tied = |count: usize| -> Vec<f64> { (0..count).map(|k| (k % 97) as f64).collect() };
    let doubts = |old: usize, new: usize| {
        let (old, new) = (loose(&tied(old)), loose(&tied(new)));
        let unit = Unit::named("CPUs");
        Judge::default().judge(&unit, &old, &new).unwrap().doubts
    };
    assert!(doubts(400, 400).is_empty());
    assert!(doubts(100_000, 10)[0].starts_with("p is a normal approximation"));
}

#[test]
fn changes_have_the_digits_that_matter() {
    let check = |share, want: &str| assert_eq!(percent(share), want);
    check(0.0512, "+5.12 %");
    check(-0.234, "-23.4 %");
    check(8.7, "+870 %");
    check(0.0, "+0.00 %");
}
