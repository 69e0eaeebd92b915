//! Groups of events, opened together on one target and read with one call. Never decides what to count and never labels a count.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Error;
use super::event::Event;
use super::reading::Reading;
use crate::sys::perf_event::{self, Target, bindings};

/// How a group is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Count the children, too, that the target makes from now on.
    pub inherit: bool,
    /// Start at the target's next exec; else when [`Counters::enable`] is called.
    pub enable_on_exec: bool,
    /// Ask for the counter instruction in user space, which arm64 wants asked for at opening.
    pub user_access: bool,
}

/// `config1` of the arm64 PMU driver: the bit that asks for user access (its format `rdpmc`).
const ARM64_USER_ACCESS: u64 = 1 << 1;

/// The most events that one group may hold; far above what any PMU counts at once.
pub const MAX_EVENTS: usize = 128;

/// The open counters of one group.
pub struct Counters {
    events: Vec<Event>,
    leader: OwnedFd,
    members: Vec<OwnedFd>,
}

impl Counters {
    /// Opens `events` as one group on `target`, disabled.
    ///
    /// Errors: the kernel's refusal of the first event that it refuses; EINVAL for a member that
    /// does not fit beside the others.
    pub fn open(events: &[Event], target: Target, how: How) -> Result<Counters, Error> {
        if events.is_empty() || events.len() > MAX_EVENTS {
            let object = format!("a group of {} events", events.len());
            return Err(Error {
                action: "open",
                object,
                errno: nix::errno::Errno::EINVAL,
            });
        }
        let mut leader: Option<OwnedFd> = None;
        let mut members = Vec::with_capacity(events.len().saturating_sub(1));
        for event in events {
            let mut attr = event.attr();
            attr.read_format = u64::from(
                bindings::PERF_FORMAT_GROUP
                    | bindings::PERF_FORMAT_TOTAL_TIME_ENABLED
                    | bindings::PERF_FORMAT_TOTAL_TIME_RUNNING,
            );
            attr.set_inherit(how.inherit.into());
            if cfg!(target_arch = "aarch64") && how.user_access && !event.is_software() {
                attr.__bindgen_anon_3.config1 = event.code.config1 | ARM64_USER_ACCESS;
            }
            // Members follow their leader: only it is switched.
            attr.set_disabled(leader.is_none().into());
            attr.set_enable_on_exec((leader.is_none() && how.enable_on_exec).into());
            let fd = perf_event::open(&attr, target, leader.as_ref().map(AsFd::as_fd))
                .map_err(|error| Error::new("open", event.spelling(), error))?;
            match leader {
                None => leader = Some(fd),
                Some(_) => members.push(fd),
            }
        }
        let Some(leader) = leader else {
            unreachable!("a group of no events was refused above")
        };
        Ok(Counters {
            events: events.to_vec(),
            leader,
            members,
        })
    }

    /// The events in the order of the readings.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The descriptors in the order of the events.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.leader.as_fd()).chain(self.members.iter().map(AsFd::as_fd))
    }

    /// Starts counting.
    pub fn enable(&self) -> Result<(), Error> {
        perf_event::enable(&self.leader, true).map_err(|error| self.error("enable", error))
    }

    /// Stops counting.
    pub fn disable(&self) -> Result<(), Error> {
        perf_event::disable(&self.leader, true).map_err(|error| self.error("disable", error))
    }

    /// Reads the whole group with one call: all counts are of the same moment.
    ///
    /// ```text
    /// struct read_format {          perf_event_open(2), PERF_FORMAT_GROUP
    ///     u64 nr;
    ///     u64 time_enabled;
    ///     u64 time_running;
    ///     u64 values[nr];
    /// };
    /// ```
    pub fn read(&self) -> Result<Vec<Reading>, Error> {
        let mut bytes = [0u8; 8 * (3 + MAX_EVENTS)];
        let got = nix::unistd::read(&self.leader, &mut bytes)
            .map_err(|errno| self.error("read", errno.into()))?;
        let mut words = bytes[..got]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word));
        // A pinned event that lost its counter reads as end of file: no words at all.
        let mut next = || {
            words
                .next()
                .ok_or_else(|| self.error("read", nix::errno::Errno::ENODATA.into()))
        };
        let (_nr, enabled_ns, running_ns) = (next()?, next()?, next()?);
        self.events
            .iter()
            .map(|_| {
                Ok(Reading {
                    count: next()?,
                    enabled_ns,
                    running_ns,
                })
            })
            .collect()
    }

    fn error(&self, action: &'static str, error: std::io::Error) -> Error {
        let names: Vec<String> = self.events.iter().map(Event::spelling).collect();
        Error::new(action, format!("{{{}}}", names.join(",")), error)
    }
}
