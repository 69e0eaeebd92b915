//! Programs in the kernel: loaded, attached, read, and detached again. The only loader of BPF; never runs a workload, and never leaves a program behind, for all links are descriptors of ours.

pub mod btf;
pub mod classes;
pub mod faults;
pub mod kernel;
pub mod mappings;
pub mod object;
pub mod profile;
pub mod record;
pub mod syscalls;

use std::io;

use nix::errno::Errno;

use crate::sample::{Cause, Warning};

/// On what a profile stands: the best that this machine and user allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Programs of ours in the kernel.
    Programs,
    /// Counters that the kernel keeps for the user.
    Counters,
    /// Stopping the process at each event.
    Ptrace,
}

impl Rung {
    /// Its name, as users and records have it.
    pub fn word(self) -> &'static str {
        match self {
            Rung::Programs => "bpf",
            Rung::Counters => "counters",
            Rung::Ptrace => "ptrace",
        }
    }

    /// The doubt that a profile has for not standing on it, because of this.
    pub fn missed(self, cause: &Cause) -> Warning {
        Warning(format!("{} could not be had: {cause}", self.word()))
    }
}

/// A step with a program or a map that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {object}: {}", errno.desc())]
pub struct Error {
    /// What was tried: `load`, `attach`, `map`, `read`.
    pub action: &'static str,
    /// On what: the program's or the map's name, or a file.
    pub object: String,
    /// The kernel's answer.
    pub errno: Errno,
    /// The last words of the kernel's verifier, when it refused a program.
    pub verifier: Option<String>,
}

impl Error {
    fn new(
        action: &'static str,
        object: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
    ) -> Error {
        let mut link = Some(error);
        let mut errno = None;
        let mut verifier = None;
        while let Some(error) = link {
            let by_system = error.downcast_ref::<io::Error>();
            errno = errno.or(by_system.and_then(io::Error::raw_os_error));
            if let Some(aya::programs::ProgramError::LoadError { verifier_log, .. }) =
                error.downcast_ref()
            {
                let log = verifier_log.to_string();
                let sums = ["processed ", "stack depth ", "verification time "];
                let is_sum = |line: &str| sums.iter().any(|sum| line.starts_with(sum));
                let last = log.lines().rfind(|line| !is_sum(line));
                verifier = last.map(str::to_owned).filter(|line| !line.is_empty());
            }
            link = error.source();
        }
        Error {
            action,
            object: object.into(),
            // What the loader itself does not find, such as a tracepoint that this kernel has not.
            errno: errno.map_or(Errno::ENOENT, Errno::from_raw),
            verifier,
        }
    }

    /// What the refusal means on this machine, and what mends it.
    pub fn explain(&self, facts: &kernel::Facts) -> Cause {
        if let Some(obstacle) = facts.obstacle() {
            return obstacle;
        }
        match self.errno {
            Errno::EPERM | Errno::EACCES if self.verifier.is_none() => Cause::new(
                "the kernel refuses BPF in spite of privilege (a seccomp filter or lockdown)",
            )
            .cure(
                "in a container: --security-opt seccomp=unconfined, or a profile that allows bpf",
            ),
            Errno::ENOENT => Cause::new(format!("this kernel has no {}", self.object)),
            Errno::ENOMEM => {
                Cause::new("not enough memory that may be locked").cure("ulimit -l unlimited")
            }
            _ => match &self.verifier {
                Some(line) => Cause::new(format!("{self} ({line})")),
                None => Cause::new(self.to_string()),
            },
        }
    }
}
