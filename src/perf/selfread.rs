//! A group of events that a thread counts on itself round a batch of work, read with the counter instruction where the kernel allows it and with read(2) elsewhere. Never counts another thread.

use super::Error;
use super::event::Event;
use super::group::{Counters, How};
use super::reading::Reading;
use crate::sys::page::Page;
use crate::sys::perf_event::Target;

/// Counters on the calling thread.
pub struct SelfCounters {
    counters: Counters,
    /// One page an event, when all of them can be read in user space.
    pages: Option<Vec<Page>>,
}

/// A moment between two batches.
#[derive(Clone, Debug)]
pub struct Mark {
    readings: Vec<Reading>,
    /// The counts by the counter instruction, nearer to the batch than the readings.
    near: Option<Vec<u64>>,
}

impl SelfCounters {
    /// Opens `events` as one group on the calling thread, disabled. With `inherit` its children
    /// are counted too, and then only read(2) sees them.
    pub fn open(events: &[Event], inherit: bool) -> Result<SelfCounters, Error> {
        let how = How {
            inherit,
            enable_on_exec: false,
            user_access: !inherit,
        };
        let counters = Counters::open(events, Target::Myself, how)?;
        let mapped = |fd| Page::map(fd).ok().filter(Page::is_user_readable);
        let pages = if inherit {
            None
        } else {
            counters.fds().map(mapped).collect()
        };
        Ok(SelfCounters { counters, pages })
    }

    /// The events in the order of the readings.
    pub fn events(&self) -> &[Event] {
        self.counters.events()
    }

    /// Whether the counter instruction is used. Known once the counters are enabled: where the
    /// kernel's switch for it is off, arm64 calls them readable and yet never names a counter.
    pub fn reads_in_user_space(&self) -> bool {
        self.near().is_some()
    }

    /// Starts counting.
    pub fn enable(&self) -> Result<(), Error> {
        self.counters.enable()
    }

    /// Marks the moment before a batch: the counter instruction comes last.
    pub fn before(&self) -> Result<Mark, Error> {
        let readings = self.counters.read()?;
        Ok(Mark {
            readings,
            near: self.near(),
        })
    }

    /// Marks the moment after a batch: the counter instruction comes first.
    pub fn after(&self) -> Result<Mark, Error> {
        let near = self.near();
        Ok(Mark {
            readings: self.counters.read()?,
            near,
        })
    }

    fn near(&self) -> Option<Vec<u64>> {
        self.pages.as_ref()?.iter().map(Page::count).collect()
    }
}

impl Mark {
    /// What was counted from `earlier` to this mark. The times are those of read(2); the counts
    /// are those of the counter instruction when both marks have them.
    pub fn since(&self, earlier: &Mark) -> Vec<Reading> {
        let pairs = self.readings.iter().zip(&earlier.readings);
        let mut differences: Vec<Reading> =
            pairs.map(|(later, earlier)| later.since(earlier)).collect();
        if let (Some(later), Some(earlier)) = (&self.near, &earlier.near) {
            for (difference, (later, earlier)) in
                differences.iter_mut().zip(later.iter().zip(earlier))
            {
                difference.count = later.wrapping_sub(*earlier);
            }
        }
        differences
    }
}
