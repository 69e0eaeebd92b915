use std::fmt::Write;

use proptest::prelude::*;

use super::rows::most_frequent;
use super::*;
use crate::format::Reader;
use crate::query::{Expressions, Query};

const OPTIONS: Options = Options {
    alpha: 0.05,
    margin: None,
    confidence: 0.95,
};

fn made(files: &[(&str, String)]) -> Tables {
    let mut collection = Collection::new(Query::new(&Expressions::default()).unwrap());
    for (name, text) in files {
        collection.begin(name);
        let mut reader = Reader::new(*name, text.as_bytes());
        while let Some(entry) = reader.entry() {
            assert_eq!(collection.take(entry), None);
        }
    }
    collection.tables(&OPTIONS).unwrap()
}

fn text(name: &str, figures: &[f64]) -> String {
    let line = |figure| format!("Benchmark{name} 1 {figure} x/op\n");
    figures.iter().map(line).collect()
}

#[test]
fn means_are_of_what_both_have() {
    let check = |old: &[(&str, f64)], new: &[(&str, f64)], mean, share, notes: usize| {
        let side = |all: &[(&str, f64)]| all.iter().map(|&(n, x)| text(n, &[x])).collect();
        let tables = made(&[("old", side(old)), ("new", side(new))]);
        let geomean = &tables.tables[0].geomeans[1];
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a == b,
        };
        assert!(near(geomean.mean, mean), "{geomean:?}");
        assert!(near(geomean.share, share), "{geomean:?}");
        assert_eq!(geomean.notes.len(), notes, "{geomean:?}");
    };
    check(
        &[("A", 1.0), ("B", 4.0)],
        &[("A", 2.0), ("B", 8.0)],
        Some(4.0),
        Some(1.0),
        0,
    );
    // 0 to 0 is no change, 0 to anything else has no quotient.
    check(
        &[("A", 0.0), ("B", 1.0)],
        &[("A", 0.0), ("B", 4.0)],
        None,
        Some(1.0),
        1,
    );
    check(
        &[("A", 0.0), ("B", 1.0)],
        &[("A", 1.0), ("B", 4.0)],
        Some(2.0),
        None,
        0,
    );
    // Other benchmarks: the quotients are of those that both have.
    check(
        &[("A", 1.0)],
        &[("A", 2.0), ("B", 8.0)],
        Some(4.0),
        Some(1.0),
        1,
    );
    check(
        &[("A", 1.0), ("B", 9.0)],
        &[("A", 2.0)],
        Some(2.0),
        Some(1.0),
        1,
    );
}

#[test]
fn exact_figures_are_summed_up_by_the_most_frequent() {
    let check = |figures: &[f64], want: f64| {
        assert_eq!(most_frequent(figures).unwrap().center, want, "{figures:?}");
    };
    check(&[3.0], 3.0);
    check(&[3.0, 1.0, 3.0], 3.0);
    check(&[2.0, 1.0, 2.0, 1.0], 1.0);
    assert_eq!(most_frequent(&[]), None);
}

#[test]
fn intervals_are_told_as_benchstat_does() {
    let check = |center, low, high, want| {
        let middle = Some(Middle { center, low, high });
        let summary = Summary {
            count: 1,
            middle,
            notes: Box::default(),
            change: None,
        };
        assert_eq!(summary.reach(), want, "{middle:?}");
    };
    check(1.0, 0.5, 1.25, Some(0.5));
    check(0.0, 0.0, 0.0, Some(0.0));
    check(0.0, 0.0, 1.0, None);
    check(1.0, -1.0, 2.0, None);
    check(1.0, f64::NEG_INFINITY, 2.0, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Many rows are made by several threads, which must not be seen; nor must the order of
    /// lines within a file.
    #[test]
    fn rows_are_what_they_are_alone(
        seed in 0_u64..1000,
        rows in 1_usize..700,
    ) {
        let figure = |row: usize, k: usize, side: u64| {
            let mixed = (row as u64 * 31 + k as u64 * 17 + side * 7 + seed) % 13;
            100.0 + row as f64 + mixed as f64 / 4.0
        };
        let side = |side: u64| {
            let mut text = String::new();
            for k in 0..5 {
                for row in 0..rows {
                    let _ = writeln!(text, "BenchmarkN{row} 1 {} x/op", figure(row, k, side));
                }
            }
            text
        };
        let tables = made(&[("old", side(0)), ("new", side(1))]);
        let table = &tables.tables[0];
        prop_assert_eq!(table.rows.len(), rows);
        prop_assert_eq!(tables.family + table.changes().filter(|c| c.p.is_none()).count(), rows);
        for at in [0, rows / 2, rows - 1] {
            let figures = |side| -> Vec<f64> { (0..5).map(|k| figure(at, k, side)).collect() };
            let name = format!("N{at}");
            let alone = made(&[
                ("old", text(&name, &figures(0))),
                ("new", text(&name, &figures(1))),
            ]);
            let (row, alone) = (&table.rows[at], &alone.tables[0].rows[0]);
            prop_assert_eq!(&row.name, &alone.name);
            for (a, b) in row.cells.iter().flatten().zip(alone.cells.iter().flatten()) {
                prop_assert_eq!(a.middle, b.middle);
                let of = |s: &Summary| s.change.as_ref().map(|c| (c.p, c.share));
                prop_assert_eq!(of(a), of(b));
            }
        }
    }
}
