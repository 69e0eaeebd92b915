//! The heap loop over many sizes, in a drawn order: what a regression of CPU time on faults is made from. Never fits anything.

use std::io;

use nix::sys::resource::{UsageWho, getrusage};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::spec::{LoopError, LoopSpec};
use crate::sys::clock::process_cpu_ns;
use crate::sys::memory::{Mapping, page_bytes};

/// Sizes in thirty-seconds of the largest.
const SIZES: [usize; 8] = [0, 1, 2, 4, 8, 16, 24, 32];

/// How often the pages are touched: with one number of passes alone, nothing would tell what a
/// fault costs from what a touch costs.
const PASSES: [u64; 2] = [1, 3];

/// One fresh mapping, touched and given back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Base pages that it holds.
    pub pages: u64,
    /// How often each was written to.
    pub passes: u64,
    /// Faults by getrusage(2), which counts populated pages, too.
    pub faults: u64,
    /// CPU time of mapping and touching.
    pub fill_ns: u64,
    /// CPU time of unmapping.
    pub unmap_ns: u64,
}

impl LoopSpec {
    /// Maps, touches and unmaps memory of each size up to that of this loop, which is `heap`, with
    /// each number of passes, in an order drawn from `seed`.
    pub fn sweep(&self, seed: u64) -> Result<Vec<Point>, LoopError> {
        let mut points: Vec<(usize, u64)> = SIZES
            .iter()
            .flat_map(|&size| PASSES.map(|passes| (size, passes)))
            .collect();
        points.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
        let most_pages = self.heap_bytes() as usize / page_bytes();
        // Once beforehand, so that no point is the first.
        points.insert(0, (1, 1));
        let measured: io::Result<Vec<Point>> = points
            .into_iter()
            .map(|(size, passes)| self.point(most_pages / 32 * size, passes))
            .collect();
        let mut measured = measured.map_err(|source| LoopError::System {
            of: self.to_string(),
            action: "map memory".to_owned(),
            source,
        })?;
        measured.remove(0);
        Ok(measured)
    }

    fn point(&self, pages: usize, passes: u64) -> io::Result<Point> {
        let faults = || {
            let usage = getrusage(UsageWho::RUSAGE_SELF)?;
            io::Result::Ok(usage.minor_page_faults() as u64)
        };
        let bytes = page_bytes();
        let (faults_before, began_ns) = (faults()?, process_cpu_ns()?);
        let mapping = match pages {
            0 => None,
            pages => Some(Mapping::new(pages * bytes, self.pages())?),
        };
        for mapping in mapping.iter().cycle().take(passes as usize) {
            (0..pages).for_each(|page| mapping.touch(page * bytes));
        }
        let filled_ns = process_cpu_ns()?;
        mapping.map_or(Ok(()), Mapping::unmap)?;
        let ended_ns = process_cpu_ns()?;
        Ok(Point {
            pages: pages as u64,
            passes,
            faults: faults()? - faults_before,
            fill_ns: filled_ns - began_ns,
            unmap_ns: ended_ns - filled_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn every_size_is_there_with_every_number_of_passes() {
        let spec = parse("heap/MiB=2/pages=4k").unwrap().remove(0);
        let all = || {
            let mut points = spec.sweep(7).unwrap();
            let order: Vec<(u64, u64)> = points.iter().map(|p| (p.pages, p.passes)).collect();
            points.sort_by_key(|point| (point.pages, point.passes));
            (order, points)
        };
        let (order, points) = all();
        assert_eq!(order, all().0, "the order is the seed's");
        assert_eq!(points.len(), 16);
        let pages = (2 << 20) / page_bytes() as u64;
        assert_eq!((points[0].pages, points[15].pages), (0, pages));
        assert_eq!(
            (points[15].passes, points[0].unmap_ns < 1_000_000),
            (3, true)
        );
        // Other threads of this process may fault meanwhile.
        assert!(points[15].faults >= pages, "{:?}", points[15]);
    }
}
