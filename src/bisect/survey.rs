//! Orders that measure every commit, or go by the steepest step alone. Never asks for what was measured often enough.

use super::search::{Search, Site, State};
use super::{Order, Settings, Step};

/// What is to be done next; nothing when the order is at its end.
pub(super) fn next(search: &Search, settings: &Settings) -> Option<Step> {
    let sites = search.sites();
    let first = *search.range().start();
    let unfinished =
        |site: &Site| site.state != State::Out && site.pairs.len() < settings.iterations;
    let begun = |site: &Site| unfinished(site) && !site.pairs.is_empty();
    let at = match settings.order {
        Order::Posterior => None,
        Order::Sequential => {
            let open = sites
                .iter()
                .enumerate()
                .filter(|(_, site)| unfinished(site));
            open.min_by_key(|(_, site)| site.pairs.len())
                .map(|(at, _)| at)
        }
        Order::Spread => sites
            .iter()
            .position(begun)
            .or_else(|| furthest(sites, &unfinished)),
        Order::Metric => {
            let ends = [0, sites.len() - 1];
            sites
                .iter()
                .position(begun)
                .or_else(|| ends.into_iter().find(|&at| unfinished(&sites[at])))
                .or_else(|| {
                    let (before, behind) = steepest(search)?;
                    let middle = (before + behind) / 2;
                    Some(search.nearest(middle, before, behind)? - first)
                })
        }
    }?;
    let (place, against) = (first + at, first);
    Some(match sites[at].state {
        State::Built => Step::Pair { place, against },
        _ => Step::Build(place),
    })
}

/// The neighbours among the places measured whose means differ most.
pub(super) fn steepest(search: &Search) -> Option<(usize, usize)> {
    let first = *search.range().start();
    let mut before: Option<(usize, f64)> = None;
    let mut most: Option<(f64, (usize, usize))> = None;
    for (place, site) in (first..).zip(search.sites()) {
        if site.state != State::Built || site.pairs.is_empty() {
            continue;
        }
        let sum: f64 = site.pairs.iter().map(|(x, y)| x / y).sum();
        let mean = sum / site.pairs.len() as f64;
        if let Some((last, level)) = before {
            let step = (mean - level).abs();
            if most.is_none_or(|(known, _)| step > known) {
                most = Some((step, (last, place)));
            }
        }
        before = Some((place, mean));
    }
    most.map(|(_, places)| places)
}

/// The unfinished place that is furthest from all that were measured: the ends first.
fn furthest(sites: &[Site], unfinished: &dyn Fn(&Site) -> bool) -> Option<usize> {
    let last = sites.len() - 1;
    if let Some(end) = [0, last].into_iter().find(|&at| unfinished(&sites[at])) {
        return Some(end);
    }
    // How far the last measured one lies before each, and behind.
    let walk = |order: &mut dyn Iterator<Item = usize>| {
        let mut distances = vec![0_usize; sites.len()];
        let mut distance = sites.len();
        for at in order {
            distance = match sites[at].pairs.is_empty() {
                true => distance + 1,
                false => 0,
            };
            distances[at] = distance;
        }
        distances
    };
    let left = walk(&mut (0..=last));
    let right = walk(&mut (0..=last).rev());
    let open = (0..=last).filter(|&at| unfinished(&sites[at]));
    open.max_by_key(|&at| (left[at].min(right[at]), std::cmp::Reverse(at)))
}
