//! Counting with perf events: what can be counted, how it is named, opened and read. Never runs a workload, never scales a count in silence.

pub mod catalog;
pub mod event;
#[cfg(test)]
mod fake;
pub mod grammar;
pub mod group;
pub mod listing;
pub mod plan;
pub mod pmu;
pub mod reading;
pub mod record;
pub mod ring;
pub mod selfread;
mod symbol;
pub mod tracefs;

use std::fs;
use std::path::Path;

use nix::errno::Errno;

use crate::sample::Cause;

/// A perf system call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {object}: {}", errno.desc())]
pub struct Error {
    /// What was tried: `open`, `read`, `enable`.
    pub action: &'static str,
    /// On what: an event's spelling.
    pub object: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Error {
    fn new(action: &'static str, object: impl Into<String>, error: std::io::Error) -> Error {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error {
            action,
            object: object.into(),
            errno,
        }
    }

    /// Whether privilege was what lacked.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, Errno::EACCES | Errno::EPERM)
    }
}

/// What this machine lets us count, as far as files tell: the context in which an errno of
/// `perf_event_open(2)` gets its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `kernel.perf_event_paranoid`, if readable.
    pub paranoid: Option<i32>,
    /// The PMUs of the CPU cores, by `perf_event_attr.type` and name: none in most virtual
    /// machines, several on hybrid machines.
    pub core_pmus: Vec<(u32, String)>,
    /// Whether the limits for ordinary users don't bind us, by CAP_SYS_ADMIN, or by CAP_PERFMON
    /// where that surely does: kernels of Debian and Ubuntu know levels of `paranoid` above 2, at
    /// which it may not.
    pub privileged: bool,
}

impl Access {
    /// Looks under `proc` and `sys` (`/proc` and `/sys` of the machine, or a test's tree).
    pub fn look(proc: &Path, sys: &Path) -> Access {
        let paranoid = fs::read_to_string(proc.join("sys/kernel/perf_event_paranoid"));
        let mut core_pmus = pmu::Pmu::all(&sys.join("bus/event_source/devices"));
        core_pmus.retain(pmu::Pmu::is_core);
        let paranoid: Option<i32> = paranoid.ok().and_then(|text| text.trim().parse().ok());
        let has =
            |capability| caps::has_cap(None, caps::CapSet::Permitted, capability).unwrap_or(false);
        Access {
            paranoid,
            core_pmus: core_pmus
                .into_iter()
                .map(|pmu| (pmu.kind, pmu.name))
                .collect(),
            privileged: has(caps::Capability::CAP_SYS_ADMIN)
                || has(caps::Capability::CAP_PERFMON) && paranoid.is_none_or(|level| level <= 2),
        }
    }

    /// On a hybrid machine, the core type that `event` is counted on.
    pub fn residence(&self, event: &event::Event) -> Option<&str> {
        if self.core_pmus.len() < 2 || event.is_software() {
            return None;
        }
        // Generic events carry the PMU's number in the upper half of their config.
        let wanted = [u64::from(event.code.kind), event.code.config >> 32];
        let named = self
            .core_pmus
            .iter()
            .find(|(kind, _)| wanted.contains(&u64::from(*kind)));
        Some(named.map_or("one type of", |(_, name)| name))
    }

    /// What a refusal of `perf_event_open(2)` means here, and what mends it.
    pub fn explain(&self, error: &Error) -> Cause {
        match error.errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EOPNOTSUPP if self.core_pmus.is_empty() => {
                Cause::new("no hardware PMU here (most virtual machines show none)")
                    .cure("count on real hardware, or have the host pass its PMU through")
            }
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Cause::new("this PMU does not have it"),
            Errno::EOPNOTSUPP => Cause::new("this PMU cannot count it in this way"),
            Errno::EPERM if error.action == "map" => Cause::new("its memory is more than kernel.perf_event_mlock_kb allows this user")
                .cure("make the ring smaller, or sudo sysctl kernel.perf_event_mlock_kb=65536"),
            Errno::EACCES | Errno::EPERM => match (self.privileged, self.paranoid) {
                (false, Some(level)) if level >= 1 => Cause::new(format!("kernel.perf_event_paranoid is {level}"))
                    .cure(format!(
                        "sudo sysctl kernel.perf_event_paranoid={}, or sudo setcap {}=ep $(command -v poise)",
                        // At 1 only whole CPUs and raw tracepoints are closed.
                        if level >= 2 { "1 (0 for whole CPUs)" } else { "0" },
                        if level > 2 { "cap_perfmon,cap_sys_admin" } else { "cap_perfmon" },
                    )),
                (false, _) => Cause::new("perf_event_open is not permitted to this user")
                    .cure("run as root, or sudo setcap cap_perfmon=ep $(command -v poise); in a container allow perf_event_open in its seccomp profile"),
                (true, _) => Cause::new("perf_event_open is denied in spite of privilege (a seccomp filter or lockdown)")
                    .cure("in a container: --security-opt seccomp=unconfined, or a profile that allows perf_event_open"),
            },
            Errno::EMFILE | Errno::ENFILE => {
                Cause::new("too many open files").cure("raise the limit: ulimit -n 65536")
            }
            Errno::EBUSY | Errno::ENOSPC => Cause::new("its counters are taken by somebody else"),
            Errno::EINVAL => Cause::new("the kernel refuses it here with these modifiers (some PMUs count whole CPUs only: -a)"),
            Errno::ENOSYS => Cause::new("this kernel has no perf_event_open (CONFIG_PERF_EVENTS)"),
            Errno::ESRCH => Cause::new("no such process or thread"),
            other => Cause::new(other.desc()),
        }
    }
}
