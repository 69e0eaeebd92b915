//! What tells which memory processes map: rings that the kernel fills as they do, and what it says of a process now. Never keeps a process's memory; that is `probe::mappings`.

use std::fs;

use caps::Capability;
use nix::errno::Errno;

use crate::machine::{Facts, Roots};
use crate::perf;
use crate::perf::catalog::Catalog;
use crate::perf::event::Event;
use crate::perf::record::{Body, Mapped};
use crate::perf::ring::{Recording, Ring};
use crate::probe::mappings::{Area, Change, Mapping, Space};
use crate::sample::Cause;
use crate::sys::perf_event::Target;
use crate::sys::privilege;

use super::Error;

/// Whose records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    /// Those of these threads, and of what they create from now on.
    Threads(&'a [i32]),
    /// Everyone's.
    Everyone,
}

/// Events as `spelled`.
pub(super) fn events(spelled: &str) -> Result<Vec<Event>, Error> {
    let groups = Catalog::default().parse(spelled);
    let groups = groups.map_err(|error| Error::Count(Cause::new(error.to_string())))?;
    Ok(groups.into_iter().flat_map(|group| group.events).collect())
}

/// Opens rings of these events, one a CPU; they are enabled, but for those that wait for an exec.
pub(super) fn rings(
    events: &[Event],
    whose: Whose<'_>,
    how: Recording,
) -> Result<Vec<Ring>, perf::Error> {
    let online = Facts::new(&Roots::default()).online().unwrap_or_default();
    let mut rings = Vec::new();
    for cpu in online.iter() {
        let targets: Vec<Target> = match whose {
            Whose::Everyone => vec![Target::Cpu(cpu)],
            Whose::Threads(threads) => {
                let on_cpu = |&tid: &i32| Target::ThreadOnCpu { tid, cpu };
                threads.iter().map(on_cpu).collect()
            }
        };
        let mut opened: Option<Ring> = None;
        for &target in &targets {
            let one = match &mut opened {
                Some(ring) => ring.add(target),
                None => Ring::open(events, target, how).map(|ring| opened = Some(ring)),
            };
            match one {
                // It ended between our look and this.
                Err(error) if error.errno == Errno::ESRCH && targets.len() > 1 => {}
                other => other?,
            }
        }
        rings.extend(opened);
    }
    if !how.enable_on_exec {
        rings.iter().try_for_each(Ring::enable)?;
    }
    Ok(rings)
}

/// What a record tells of a process's memory.
pub(super) fn change(body: &Body) -> Option<Change> {
    match body {
        Body::Mapped(mapped) => Some(Change::Mapped(mapped.pid, area(mapped))),
        &Body::Fork {
            pid, parent_pid, ..
        } if pid != parent_pid => Some(Change::Fork {
            parent: parent_pid,
            child: pid,
        }),
        &Body::Comm {
            pid, exec: true, ..
        } => Some(Change::Exec(pid)),
        &Body::Exit { pid, tid } if pid == tid => Some(Change::Exit(pid)),
        _ => None,
    }
}

/// The memory of process `pid` as it is now, if we may look.
pub(super) fn memory_of(pid: i32) -> Option<Space> {
    let path = format!("/proc/{pid}/maps");
    let read = || fs::read(&path).ok();
    let maps = privilege::lend(Capability::CAP_SYS_PTRACE, read)?;
    Some(Space::parse(&maps))
}

fn area(mapped: &Mapped) -> Area {
    Area {
        start: mapped.address,
        end: mapped.address.saturating_add(mapped.bytes),
        offset: mapped.offset,
        is_writable: mapped.protection & libc::PROT_WRITE as u32 != 0,
        is_shared: mapped.flags & libc::MAP_SHARED as u32 != 0,
        mapping: Mapping::of(mapped.path.as_os_str(), mapped.address),
    }
}
