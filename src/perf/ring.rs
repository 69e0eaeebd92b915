//! Sampling: events whose every so-manieth count leaves a record in a ring buffer. Never looks an address up, and never hides that records were lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::Error;
use super::event::{Event, Precise};
use super::reading::Reading;
use super::record::{Body, Layout, Malformed, PerfRecord};
use crate::sys::perf_event::bindings::perf_event_attr;
use crate::sys::perf_event::{self, Target, bindings};
use crate::sys::ring::RingBuffer;

/// What is recorded, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// How often.
    pub rate: Rate,
    /// What each overflow tells beside the instruction, thread, time and CPU.
    pub layout: Layout,
    /// Record, too, when threads are made, renamed and ended, and what memory they map: what it
    /// takes to find out what an address means.
    pub tasks: bool,
    /// Start at the target's next exec; else when [`Ring::enable`] is called.
    pub enable_on_exec: bool,
    /// Room for records that were not yet taken, rounded up to a power of two of pages.
    pub bytes: usize,
}

/// How often an event leaves a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// After every so many counts (of clocks: nanoseconds). Never when 0.
    Period(u64),
    /// So many times a second, as near as the kernel comes; at most
    /// `kernel.perf_event_max_sample_rate`.
    Frequency(u64),
}

impl Recording {
    /// As much as every user may lock for one ring a CPU, by the default of
    /// `kernel.perf_event_mlock_kb`.
    pub const USUAL_BYTES: usize = 512 << 10;
}

/// A ring buffer and the events that write into it.
///
/// Which children are recorded follows from the target, as the kernel has it: it maps no ring for
/// an event that is inherited by children and follows its thread over all CPUs, since these would
/// all write to one ring at once.
///
/// | target | recorded |
/// |---|---|
/// | `Myself`, `Thread` | that thread alone |
/// | `ThreadOnCpu` | that thread and the children that it makes from now on, while they are on that CPU |
/// | `Cpu` | all that runs on that CPU |
///
/// So a process with its children takes one ring a CPU, and their records are put in order by
/// their time. For a process that runs already, each of its threads is [added](Ring::add) to the
/// ring of each CPU.
///
/// For poll(2) it becomes readable when the ring is half full, once for each time, and hangs up when
/// the first target has ended, with all children recorded. What is there can be taken at any time,
/// and a wake-up may be about what was taken already.
///
/// `task-clock` and `cpu-clock` leave records of user mode alone: [`Event::attr`] opens them for
/// everybody.
pub struct Ring {
    events: Vec<Event>,
    how: Recording,
    /// The first one has the buffer; there is always one.
    sources: Vec<Source>,
    buffer: RingBuffer,
    /// What was last taken from it.
    bytes: Vec<u8>,
    /// How many records were lost, as far as records tell it.
    lost_told: u64,
}

/// One of the events on one of the targets.
struct Source {
    /// Which of the events.
    at: usize,
    fd: OwnedFd,
    id: u64,
    /// Whether the kernel keeps count of its lost records.
    counts_lost: bool,
}

impl Ring {
    /// Opens `events` on `target`, disabled.
    ///
    /// Errors: the kernel's refusal of the first event that it refuses; EPERM to `map` when the
    /// ring takes more memory than this user may lock.
    pub fn open(events: &[Event], target: Target, how: Recording) -> Result<Ring, Error> {
        let sources = open_all(events, target, how)?;
        let Some((first, others)) = sources.split_first() else {
            return Err(Error {
                action: "open",
                object: "a ring of no events".to_owned(),
                errno: Errno::EINVAL,
            });
        };
        let buffer = RingBuffer::map(&first.fd, how.bytes)
            .map_err(|error| Error::new("map", format!("a ring of {} bytes", how.bytes), error))?;
        redirect(others, first, events)?;
        Ok(Ring {
            events: events.to_vec(),
            how,
            sources,
            buffer,
            bytes: Vec::new(),
            lost_told: 0,
        })
    }

    /// Opens the same events on one more target, disabled: on another thread and the same CPU.
    ///
    /// Errors: as of [`Ring::open`], and EINVAL for targets that cannot share a ring; then the
    /// ring is as it was.
    pub fn add(&mut self, target: Target) -> Result<(), Error> {
        let more = open_all(&self.events, target, self.how)?;
        redirect(&more, &self.sources[0], &self.events)?;
        self.sources.extend(more);
        Ok(())
    }

    /// Starts recording.
    pub fn enable(&self) -> Result<(), Error> {
        self.each("enable", |fd| perf_event::enable(fd, false))
    }

    /// Stops recording.
    pub fn disable(&self) -> Result<(), Error> {
        self.each("disable", |fd| perf_event::disable(fd, false))
    }

    /// Takes the records that came since the last time, oldest first, which makes room for more.
    /// Those that are not asked for of the iterator are gone.
    pub fn take(
        &mut self,
    ) -> Result<impl Iterator<Item = Result<PerfRecord, Malformed>> + '_, Error> {
        self.bytes.clear();
        self.buffer
            .take(&mut self.bytes)
            .map_err(|error| Error::new("read", "the ring buffer", error))?;
        let lost_told = &mut self.lost_told;
        let records = self.how.layout.decode(&self.bytes);
        Ok(records.inspect(move |record| {
            if let Ok(PerfRecord {
                body: Body::Lost { count },
                ..
            }) = record
            {
                *lost_told = lost_told.saturating_add(*count);
            }
        }))
    }

    /// The event that a record's stamp names.
    pub fn event(&self, id: u64) -> Option<&Event> {
        let source = self.sources.iter().find(|source| source.id == id)?;
        self.events.get(source.at)
    }

    /// How many records found no room so far. Before Linux 6.0 this is what the records taken so
    /// far tell, and they tell a loss only with the next one that finds room.
    pub fn lost(&self) -> Result<u64, Error> {
        if !self.sources.iter().all(|source| source.counts_lost) {
            return Ok(self.lost_told);
        }
        let each = self.sources.iter().map(|source| self.read(source));
        each.map(|read| Ok(read?.1)).sum()
    }

    /// What each event has counted, over all targets. Divided by the period it is the number of
    /// overflows that there were, recorded or lost.
    pub fn readings(&self) -> Result<Vec<Reading>, Error> {
        let mut sums = vec![Reading::default(); self.events.len()];
        for source in &self.sources {
            let sum = &mut sums[source.at];
            *sum = sum.plus(&self.read(source)?.0);
        }
        Ok(sums)
    }

    /// The source's reading, and how many of its records were lost.
    ///
    /// ```text
    /// struct read_format {          perf_event_open(2), without PERF_FORMAT_GROUP
    ///     u64 value;
    ///     u64 time_enabled;
    ///     u64 time_running;
    ///     u64 lost;                 if PERF_FORMAT_LOST
    /// };
    /// ```
    fn read(&self, source: &Source) -> Result<(Reading, u64), Error> {
        let mut bytes = [0; 32];
        let got = nix::unistd::read(&source.fd, &mut bytes)
            .map_err(|errno| self.error("read", source, errno.into()))?;
        // A pinned event that lost its counter reads as end of file.
        if got < 24 {
            return Err(self.error("read", source, Errno::ENODATA.into()));
        }
        let (words, _) = bytes.as_chunks::<8>();
        let [count, enabled_ns, running_ns, lost] =
            std::array::from_fn(|at| u64::from_ne_bytes(words[at]));
        let reading = Reading {
            count,
            enabled_ns,
            running_ns,
        };
        Ok((reading, lost))
    }

    fn each(&self, action: &'static str, act: fn(&OwnedFd) -> io::Result<()>) -> Result<(), Error> {
        self.sources.iter().try_for_each(|source| {
            act(&source.fd).map_err(|error| self.error(action, source, error))
        })
    }

    fn error(&self, action: &'static str, source: &Source, error: io::Error) -> Error {
        Error::new(action, self.events[source.at].spelling(), error)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sources[0].fd.as_fd()
    }
}

fn open_all(events: &[Event], target: Target, how: Recording) -> Result<Vec<Source>, Error> {
    let open = |(at, event): (usize, &Event)| {
        let mut attr = event.attr();
        match how.rate {
            Rate::Period(counts) => attr.__bindgen_anon_1.sample_period = counts,
            Rate::Frequency(hz) => {
                attr.set_freq(1);
                attr.__bindgen_anon_1.sample_freq = hz;
            }
        }
        attr.sample_type = how.layout.sample_type();
        attr.set_sample_id_all(1);
        // A clock that we can read, too, and that BPF programs read.
        attr.set_use_clockid(1);
        attr.clockid = libc::CLOCK_MONOTONIC;
        attr.set_inherit(matches!(target, Target::ThreadOnCpu { .. }).into());
        attr.set_disabled(1);
        attr.set_enable_on_exec(how.enable_on_exec.into());
        // One of the events is enough to tell it.
        let tasks = u64::from(how.tasks && at == 0);
        attr.set_task(tasks);
        attr.set_comm(tasks);
        attr.set_mmap(tasks);
        attr.set_mmap2(tasks);
        attr.set_mmap_data(tasks);
        let failed = |error| Error::new("open", event.spelling(), error);
        let (fd, counts_lost) = open_best(attr, event.modifiers.precise, target).map_err(failed)?;
        let id = perf_event::id(&fd).map_err(failed)?;
        Ok(Source {
            at,
            fd,
            id,
            counts_lost,
        })
    };
    events.iter().enumerate().map(open).collect()
}

/// Opens it as precise as the PMU gives where that is wanted, and so that the kernel keeps count of
/// lost records where it can (Linux 6.0). Tells whether it does.
fn open_best(
    mut attr: perf_event_attr,
    precise: Precise,
    target: Target,
) -> io::Result<(OwnedFd, bool)> {
    let levels = match precise {
        Precise::Most => (0..=3).rev(),
        _ => (attr.precise_ip()..=attr.precise_ip()).rev(),
    };
    let mut refusal = Errno::EINVAL.into();
    for (level, lost) in levels.flat_map(|level| [(level, bindings::PERF_FORMAT_LOST), (level, 0)])
    {
        attr.set_precise_ip(level);
        attr.set_exclude_guest((level > 0).into());
        attr.read_format = u64::from(
            bindings::PERF_FORMAT_TOTAL_TIME_ENABLED
                | bindings::PERF_FORMAT_TOTAL_TIME_RUNNING
                | lost,
        );
        match perf_event::open(&attr, target, None) {
            Ok(fd) => return Ok((fd, lost != 0)),
            Err(error) => refusal = error,
        }
        // What the kernel does not know and what the PMU does not have; else it is no use to go on.
        if !matches!(
            refusal.raw_os_error(),
            Some(libc::EINVAL | libc::EOPNOTSUPP)
        ) {
            break;
        }
    }
    Err(refusal)
}

/// Makes `sources` write into the ring of `owner`.
fn redirect(sources: &[Source], owner: &Source, events: &[Event]) -> Result<(), Error> {
    sources.iter().try_for_each(|source| {
        perf_event::set_output(&source.fd, &owner.fd)
            .map_err(|error| Error::new("record", events[source.at].spelling(), error))
    })
}

#[cfg(test)]
mod tests;
