//! Who makes the slow calls: their user stacks as places in files, by the memory that each process had at that moment. Never decides what is slow.

use std::cmp::Reverse;

use crate::perf::Access;
use crate::perf::record::Layout;
use crate::perf::ring::{Rate, Recording, Ring};
use crate::probe::mappings::{Change, Mapping, Spaces};
use crate::probe::profile::Slow;
use crate::probe::syscalls::Profiler;
use crate::run::Error;
use crate::run::memory::{self, Whose};
use crate::run::symbols::{Place, Symbols};
use crate::sample::Cause;
use crate::sys::clock::monotonic_ns;

/// The slow calls of a run and who made them.
#[derive(Default)]
pub(super) struct Callers {
    rings: Vec<Ring>,
    /// Told, but perhaps not in order yet.
    changes: Vec<(u64, Change)>,
    calls: Vec<Slow>,
    spaces: Spaces,
    /// Those whose places are known.
    placed: Vec<(Slow, Vec<Place>)>,
    /// Why nobody tells what memory is mapped.
    pub(super) blind: Option<Cause>,
}

/// The calls that took longest.
#[derive(Clone, Debug, Default)]
pub struct Slowest {
    /// All that were slow.
    pub all: usize,
    /// The slowest of them, with their callers, the innermost first.
    pub calls: Vec<(Slow, Vec<String>)>,
}

/// So many are told.
const MOST: usize = 20;

/// What is told at a time may come out of another CPU's ring a little later.
const SLACK_NS: u64 = 2_000_000;

impl Callers {
    /// Follows the memory of `whose` processes, of which these run already.
    pub(super) fn follow(
        whose: Whose<'_>,
        running: &[i32],
        at_exec: bool,
    ) -> Result<Callers, Error> {
        let how = Recording {
            rate: Rate::Period(1),
            layout: Layout {
                address: false,
                callchain: false,
            },
            tasks: true,
            enable_on_exec: at_exec,
            bytes: Recording::USUAL_BYTES,
        };
        let mut callers = Callers::default();
        match memory::rings(&memory::events("dummy:u")?, whose, how) {
            Ok(rings) => callers.rings = rings,
            // What processes have when we look may do.
            Err(error) => {
                let access = Access::look("/proc".as_ref(), "/sys".as_ref());
                callers.blind = Some(access.explain(&error));
            }
        }
        for &pid in running {
            if let Some(space) = memory::memory_of(pid) {
                *callers.spaces.of(pid) = space;
            }
        }
        Ok(callers)
    }

    /// Takes what was told, and finds the places of the calls that have surely all before them.
    pub(super) fn look(&mut self, profiler: &mut Profiler) -> Result<(), Error> {
        self.gather(profiler, monotonic_ns().saturating_sub(SLACK_NS))
    }

    fn gather(&mut self, profiler: &mut Profiler, until_ns: u64) -> Result<(), Error> {
        let refused = |error| {
            let access = Access::look("/proc".as_ref(), "/sys".as_ref());
            Error::Trace(access.explain(&error))
        };
        for ring in &mut self.rings {
            // What cannot be read as a record tells nothing of memory.
            let records = ring.take().map_err(refused)?.filter_map(Result::ok);
            let changes = records
                .filter_map(|record| Some((record.stamp.time_ns, memory::change(&record.body)?)));
            self.changes.extend(changes);
        }
        self.calls.extend(profiler.take_slow());
        self.changes.sort_by_key(|(at_ns, _)| *at_ns);
        self.calls.sort_by_key(|call| call.end_ns);
        let ready = self.calls.partition_point(|call| call.end_ns < until_ns);
        for call in self.calls.drain(..ready).collect::<Vec<_>>() {
            self.remember(call.end_ns);
            self.place(call);
        }
        self.remember(until_ns);
        Ok(())
    }

    /// Has the memory of all processes as it was then.
    fn remember(&mut self, until_ns: u64) {
        let ready = self.changes.partition_point(|(at_ns, _)| *at_ns < until_ns);
        for (_, change) in self.changes.drain(..ready) {
            self.spaces.take(change);
        }
    }

    fn place(&mut self, call: Slow) {
        let space = self.spaces.of(call.pid);
        let is_unknown = |ip: &u64| space.find(*ip).is_none();
        if call.stack.first().is_some_and(is_unknown)
            && let Some(now) = memory::memory_of(call.pid)
        {
            space.learn(now);
        }
        let stack = call.stack.iter().enumerate();
        let places = stack.map(|(depth, &ip)| Place::in_stack(space, depth, ip));
        // What follows a pointer that is none is no stack.
        let known = places
            .enumerate()
            .take_while(|(depth, place)| *depth == 0 || *place != Place::At(Mapping::Unknown));
        let known = known.map(|(_, place)| place).collect();
        self.placed.push((call, known));
    }

    /// The slowest of all, after the end.
    pub(super) fn slowest(mut self, profiler: &mut Profiler) -> Result<Slowest, Error> {
        self.gather(profiler, u64::MAX)?;
        let all = self.placed.len();
        self.placed.sort_by_key(|(call, _)| Reverse(call.took_ns));
        self.placed.truncate(MOST);
        let mut symbols = Symbols::default();
        let calls = self.placed.into_iter().map(|(call, places)| {
            let callers = places.iter().map(|place| symbols.described(place));
            (call, callers.collect())
        });
        Ok(Slowest {
            all,
            calls: calls.collect(),
        })
    }
}
