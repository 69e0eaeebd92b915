//! Seeing faults: by programs in the kernel or, without privilege, by rings of software events. Never starts what it watches.
//!
//! Faults come with addresses. What these are the kernel tells by other records (which memory is
//! mapped, who forks, who executes), and both are brought into the order of time here. Names that
//! processes give to anonymous memory nobody tells: for these `/proc/PID/maps` is read now and then.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Error;
use super::super::memory::{self, Whose, memory_of};
use super::profile::{Event, Profile, Trust};
use crate::perf::record::{Body, Layout, Mode, PerfRecord};
use crate::perf::ring::{Rate, Recording, Ring};
use crate::perf::{self, Access as PerfAccess};
use crate::probe::Rung;
use crate::probe::faults::{Access, Fault, Tracer, What};
use crate::probe::kernel;
use crate::sample::{Cause, Value};
use crate::sys::clock::monotonic_ns;

/// Sees faults in one of the ways, and sums them up.
pub struct Watch {
    source: Source,
    with_stacks: bool,
    /// Told, but perhaps not in order yet.
    pending: Vec<(u64, Told)>,
    /// Beginnings of faults whose end was not told yet, by thread.
    begun: HashMap<i32, Begun>,
    /// When which process's memory was last looked at, and how long that took.
    looks: HashMap<i32, (Instant, Duration)>,
    unnamed: Vec<i32>,
    profile: Profile,
    end_ns: u64,
    malformed: u64,
}

/// Where faults are told. In both, rings tell what memory is mapped.
struct Source {
    tracer: Option<Tracer>,
    rings: Vec<Ring>,
}

/// What a record says.
enum Told {
    Event(Event),
    /// A thread's fault began.
    Begin(i32, Begun),
    /// A thread's fault is done, which lacks its beginning.
    End(i32, Fault),
}

struct Begun {
    at_ns: u64,
    address: u64,
    stack: Vec<u64>,
}

/// What is told at a time may come out of another CPU's ring a little later.
const SLACK_NS: u64 = 2_000_000;

/// A process's memory is looked at no more often than this …
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// … and for no larger a part of the time.
const LOOK_SHARE: u32 = 200;

/// How often it is to be looked.
pub const LOOK: Duration = Duration::from_millis(10);

/// Room for records of one CPU when nothing but mappings is told.
const MAPPING_BYTES: usize = 128 << 10;

impl Watch {
    /// The best way that this machine allows, or `only` that one; with the reason why a better one
    /// is not to be had.
    ///
    /// Errors: the refusal of the last way.
    pub fn choose(only: Option<Rung>, with_stacks: bool) -> Result<(Watch, Option<Cause>), Error> {
        let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
        let mut why = None;
        if only != Some(Rung::Counters) {
            let facts = kernel::Facts::look(sys);
            let loaded = match facts.obstacle() {
                Some(cause) => Err(cause),
                None => Tracer::load(sys, proc, with_stacks).map_err(|error| error.explain(&facts)),
            };
            match loaded {
                Ok(tracer) => {
                    return Ok((Watch::new(Some(tracer), with_stacks), None));
                }
                Err(cause) if only.is_some() => return Err(Error::Trace(cause)),
                Err(cause) => why = Some(cause),
            }
        }
        Ok((Watch::new(None, with_stacks), why))
    }

    fn new(tracer: Option<Tracer>, with_stacks: bool) -> Watch {
        Watch {
            source: Source {
                tracer,
                rings: Vec::new(),
            },
            with_stacks,
            pending: Vec::new(),
            begun: HashMap::new(),
            looks: HashMap::new(),
            unnamed: Vec::new(),
            profile: Profile::default(),
            end_ns: 0,
            malformed: 0,
        }
    }

    /// In which way it sees.
    pub fn rung(&self) -> Rung {
        match self.source.tracer {
            Some(_) => Rung::Programs,
            None => Rung::Counters,
        }
    }

    /// What was seen.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// When the watch ended, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Whether the processor's reason for each fault is seen.
    pub fn sees_reasons(&self) -> bool {
        self.source
            .tracer
            .as_ref()
            .is_some_and(Tracer::sees_reasons)
    }

    /// How far the figures are to be trusted.
    pub fn trust(&self) -> Trust {
        match self.source.tracer {
            Some(_) => Trust::default(),
            None => Trust {
                faults: Some("user mode only".into()),
                times: Some("user mode only, with the cost of a record".into()),
            },
        }
    }

    /// What was not seen, as far as it is known, by unit.
    pub fn lost(&self) -> Result<Vec<Value>, Error> {
        let mut in_rings = 0;
        for ring in &self.source.rings {
            in_rings += ring.lost().map_err(refused)?;
        }
        let lost = match &self.source.tracer {
            None => {
                let mut done = 0;
                for ring in &self.source.rings {
                    let readings = ring.readings().map_err(refused)?;
                    // All but the first are of faults that were done.
                    done += readings
                        .iter()
                        .skip(1)
                        .map(|reading| reading.count)
                        .sum::<u64>();
                }
                let unseen = done.saturating_sub(self.profile.total().faults);
                vec![("unseen-faults", unseen), ("lost-records", in_rings)]
            }
            Some(tracer) => {
                let told = tracer.lost();
                vec![
                    ("unseen-faults", told.unbegun),
                    ("lost-faults", told.faults),
                    ("lost-threads", told.threads),
                    ("lost-mappings", in_rings),
                ]
            }
        };
        let trust = Trust::default();
        let malformed = ("malformed-records", self.malformed);
        let told = lost.into_iter().chain([malformed]);
        Ok(told.map(|(unit, count)| trust.count(unit, count)).collect())
    }

    /// Opens the rings: one a CPU, on each of `threads`.
    fn open_rings(&self, threads: &[i32], at_exec: bool) -> Result<Vec<Ring>, Error> {
        let with_faults = self.source.tracer.is_none();
        // The first one is the one that tells mappings.
        let spelled = match with_faults {
            false => "dummy:u",
            true => "page-faults:u,minor-faults:u,major-faults:u",
        };
        let events = memory::events(spelled)?;
        let how = Recording {
            rate: Rate::Period(1),
            layout: Layout {
                address: with_faults,
                callchain: with_faults && self.with_stacks,
            },
            tasks: true,
            enable_on_exec: at_exec,
            bytes: match with_faults {
                true => Recording::USUAL_BYTES,
                false => MAPPING_BYTES,
            },
        };
        memory::rings(&events, Whose::Threads(threads), how).map_err(refused)
    }

    /// Takes all that was told and sums up what is surely in order: what is from before `until_ns`.
    fn gather(&mut self, until_ns: u64) -> Result<(), Error> {
        let pending = &mut self.pending;
        if let Some(tracer) = &self.source.tracer {
            tracer.take(&mut |fault| {
                pending.push((fault.end_ns, Told::Event(Event::Fault(fault))));
            });
        }
        for at in 0..self.source.rings.len() {
            let ring = &mut self.source.rings[at];
            let mut records = Vec::new();
            for record in ring.take().map_err(refused)? {
                match record {
                    Ok(record) => records.push(record),
                    Err(_) => self.malformed += 1,
                }
            }
            let ring = &self.source.rings[at];
            for record in records {
                let told = told(record, ring);
                self.pending.extend(told);
            }
        }
        self.pending.sort_by_key(|(at_ns, _)| *at_ns);
        let ready = self.pending.partition_point(|(at_ns, _)| *at_ns < until_ns);
        let later = self.pending.split_off(ready);
        for (at_ns, told) in mem::replace(&mut self.pending, later) {
            let event = match told {
                Told::Event(event) => event,
                Told::Begin(tid, begun) => {
                    self.begun.insert(tid, begun);
                    continue;
                }
                Told::End(tid, fault) => match self.begun.remove(&tid) {
                    Some(begun) if begun.address == fault.address => Event::Fault(Fault {
                        handler_ns: at_ns.saturating_sub(begun.at_ns),
                        stack: begun.stack,
                        ..fault
                    }),
                    // It began before we watched, or its beginning was lost.
                    _ => continue,
                },
            };
            if let Event::Fault(fault) = &event
                && self.unnamed.last() != Some(&fault.pid)
                && self.profile.is_unnamed(fault.pid, fault.address)
            {
                self.unnamed.push(fault.pid);
            }
            self.profile.take(event);
        }
        Ok(())
    }

    /// Looks at the memory of processes that faulted where nobody has told what it is.
    fn learn_names(&mut self) {
        self.unnamed.sort_unstable();
        self.unnamed.dedup();
        let now = Instant::now();
        let looks = &mut self.looks;
        let profile = &mut self.profile;
        self.unnamed.retain(|&pid| {
            let is_due = looks.get(&pid).is_none_or(|(last, cost)| {
                now.duration_since(*last) >= LOOK_AGAIN.max(*cost * LOOK_SHARE)
            });
            if is_due {
                if let Some(space) = memory_of(pid) {
                    profile.spaces.of(pid).learn(space);
                }
                looks.insert(pid, (now, now.elapsed()));
            }
            !is_due
        });
    }
}

impl Watch {
    /// Process `pid`, which has these threads, is about to begin: with its exec, or it runs already.
    pub fn begin(&mut self, pid: i32, threads: &[i32], at_exec: bool) -> Result<(), Error> {
        self.profile = Profile::default();
        if !at_exec && let Some(space) = memory_of(pid) {
            *self.profile.spaces.of(pid) = space;
        }
        self.source.rings = self.open_rings(threads, at_exec)?;
        if let Some(tracer) = &mut self.source.tracer {
            let attached = tracer.attach(pid, threads, at_exec);
            attached.map_err(|error| {
                let facts = kernel::Facts::look("/sys".as_ref());
                Error::Trace(error.explain(&facts))
            })?;
        }
        self.profile.timeline.begin(monotonic_ns());
        Ok(())
    }

    /// To be called every [`LOOK`] while it runs.
    pub fn look(&mut self) -> Result<(), Error> {
        self.gather(monotonic_ns().saturating_sub(SLACK_NS))?;
        self.learn_names();
        Ok(())
    }

    /// It has ended, or is watched no longer.
    pub fn end(&mut self) -> Result<(), Error> {
        self.end_ns = monotonic_ns();
        if let Some(tracer) = &mut self.source.tracer {
            tracer.detach();
        }
        for ring in &self.source.rings {
            ring.disable().map_err(refused)?;
        }
        self.gather(u64::MAX)
    }
}

/// What a record of a ring tells, and when.
fn told(PerfRecord { stamp, body }: PerfRecord, ring: &Ring) -> Option<(u64, Told)> {
    let event = match body {
        Body::Overflow(overflow) => {
            let address = overflow.address?;
            let spelled = ring.event(stamp.id)?.spelling();
            let is_major = spelled.starts_with("major");
            let told = if is_major || spelled.starts_with("minor") {
                let access = Access {
                    is_user: true,
                    is_major,
                    ..Access::default()
                };
                let fault = Fault {
                    end_ns: stamp.time_ns,
                    address,
                    handler_ns: 0,
                    pid: stamp.pid,
                    what: What::Access(access),
                    stack: Vec::new(),
                };
                Told::End(stamp.tid, fault)
            } else {
                let frames = overflow.callchain.iter();
                let user = frames.filter(|frame| frame.mode == Mode::User);
                let begun = Begun {
                    at_ns: stamp.time_ns,
                    address,
                    stack: user.map(|frame| frame.ip).collect(),
                };
                Told::Begin(stamp.tid, begun)
            };
            return Some((stamp.time_ns, told));
        }
        body => Event::Memory(memory::change(&body)?),
    };
    Some((stamp.time_ns, Told::Event(event)))
}

fn refused(error: perf::Error) -> Error {
    let access = PerfAccess::look("/proc".as_ref(), "/sys".as_ref());
    Error::Trace(access.explain(&error))
}
