//! Syscalls by the counters that the kernel keeps for any user: how often, exactly, and nothing else. Never traces.

use std::path::PathBuf;

use crate::perf::catalog::Catalog;
use crate::perf::event::{Code, Event, Modifiers};
use crate::perf::group::{Counters, How, MAX_EVENTS};
use crate::perf::{Access, tracefs};
use crate::probe::profile::{Call, Number, Profile};
use crate::sample::Cause;
use crate::sys::perf_event::Target;
use crate::sys::perf_event::bindings::PERF_TYPE_TRACEPOINT;

/// The counters of all syscalls of one thread and what it creates.
pub(super) struct Counted {
    numbers: Vec<Number>,
    groups: Vec<Counters>,
}

impl Counted {
    /// Opens a counter for each syscall (of `only`, if given) on `tid`, from its next exec on.
    pub(super) fn open(tid: i32, only: Option<&[Number]>) -> Result<Counted, Cause> {
        let roots: Vec<PathBuf> = Catalog::default().tracing;
        let root = tracefs::find(&roots).map_err(|error| error.cause())?;
        let all = tracefs::all(&roots).map_err(|error| error.cause())?;
        let mut found: Vec<(Number, Event)> = Vec::new();
        for tracepoint in all {
            let Some(name) = tracepoint.strip_prefix("syscalls:sys_enter_") else {
                continue;
            };
            let Some(number) = numbered(name) else {
                continue;
            };
            if only.is_some_and(|only| !only.contains(&number)) {
                continue;
            }
            let id = tracefs::id(root, "syscalls", &format!("sys_enter_{name}"));
            if let Some(config) = id.map_err(|error| error.cause())? {
                // Of its own calls a user may know; they are made in user mode.
                let modifiers = Modifiers {
                    user: true,
                    ..Modifiers::default()
                };
                let code = Code {
                    kind: PERF_TYPE_TRACEPOINT,
                    config,
                    ..Code::default()
                };
                found.push((number, Event::new(tracepoint, modifiers, code)));
            }
        }
        if found.is_empty() {
            return Err(Cause::new(
                "this kernel has no tracepoints of single syscalls (CONFIG_FTRACE_SYSCALLS)",
            ));
        }
        let how = How {
            inherit: true,
            enable_on_exec: true,
            user_access: false,
        };
        let access = Access::look("/proc".as_ref(), "/sys".as_ref());
        let (numbers, events): (Vec<Number>, Vec<Event>) = found.into_iter().unzip();
        let groups = events
            .chunks(MAX_EVENTS)
            .map(|events| Counters::open(events, Target::Thread(tid), how));
        let groups: Result<Vec<Counters>, _> = groups.collect();
        Ok(Counted {
            numbers,
            groups: groups.map_err(|error| access.explain(&error))?,
        })
    }

    /// What was counted so far.
    pub(super) fn profile(&self) -> Result<Profile, Cause> {
        let readings: Result<Vec<_>, _> = self.groups.iter().map(Counters::read).collect();
        let readings = readings.map_err(|error| Cause::new(error.to_string()))?;
        let counts = readings.iter().flatten().map(|reading| reading.count);
        let calls = self
            .numbers
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0);
        Ok(Profile {
            calls: calls
                .map(|(number, count)| Call::counted(*number, count))
                .collect(),
            ..Profile::default()
        })
    }
}

/// The number of the syscall that tracefs calls so: by the kernel's function for it, whose name
/// mostly is the syscall's own.
fn numbered(function: &str) -> Option<Number> {
    let name = match function {
        "newstat" => "stat",
        "newfstat" => "fstat",
        "newlstat" => "lstat",
        "newuname" => "uname",
        "sendfile64" => "sendfile",
        "umount" => "umount2",
        "fadvise64_64" => "fadvise64",
        name => name,
    };
    Number::named(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_kernel_have_their_syscalls_names() {
        let check = |function: &str, want: Option<&str>| {
            let name = numbered(function).map(Number::name);
            assert_eq!(name.as_deref(), want, "{function}");
        };
        check("write", Some("write"));
        check("newfstat", Some("fstat"));
        check("umount", Some("umount2"));
        check("no_such", None);
    }
}
