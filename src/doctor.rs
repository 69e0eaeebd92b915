//! What can be measured on this machine and what cannot, each with its cause and its cure. Changes nothing, and opens no event: what really counts is tried by whoever calls, and told in [`PmuFindings`].

mod counting;
mod steadiness;

use caps::Capability;

use crate::machine::facts::{CoreType, Facts, Myself, Roots, Virtualization};
use crate::sample::Cause;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: a key that stays the same from version to version.
    pub topic: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found, in one clause.
    pub what: String,
    /// Why it is so. Always there when something is limited or missing.
    pub cause: Option<String>,
    /// The command or step that mends it, when there is one.
    pub cure: Option<String>,
}

/// How a thing stands for measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Good,
    /// It works in part, or disturbs.
    Limited,
    /// It does not work.
    Missing,
    /// Neither good nor bad, but worth knowing.
    Note,
}

/// What was found out about counters by trying them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PmuFindings {
    /// The usual events, and for those that don't really count, why.
    pub events: Vec<(String, Result<(), Cause>)>,
    /// How many hardware events count at the same time; `None` when it was not tried.
    pub counters: Option<Result<usize, Cause>>,
    /// Whether counters can be read without a system call; `None` when it was not tried.
    pub rdpmc: Option<Result<(), Cause>>,
    /// The real frequency of some CPUs under load, in Hz, where it can be measured.
    pub frequencies_hz: Vec<(u32, f64)>,
}

/// Looks at everything, in the order in which it is best read.
pub fn examine(roots: &Roots, pmu: &PmuFindings) -> Vec<Finding> {
    let facts = Facts::new(roots);
    let exam = Exam {
        facts,
        pmu,
        myself: facts.myself(),
        container: facts.container(),
        virtualization: facts.virtualization(),
        core_types: facts.core_types(),
    };
    let mut findings = exam.events();
    let single = [
        exam.counters(),
        exam.rdpmc(),
        exam.nmi_watchdog(),
        exam.core_types(),
        exam.permissions(),
        exam.capabilities(),
        exam.seccomp(),
        exam.container(),
        exam.cpu_quota(),
        exam.allowed_cpus(),
        exam.virtualization(),
        exam.steal(roots),
        exam.load(),
        exam.swap(),
        exam.frequency(),
        exam.boost(),
        exam.power(),
        exam.smt(),
        exam.isolation(),
        exam.aslr(),
        exam.thp(),
        exam.mitigations(),
        exam.clock(),
        exam.accounting(),
        exam.tracefs(),
        exam.btf(),
        exam.bpf(),
        exam.lockdown(),
        exam.kernel_symbols(),
    ];
    findings.extend(single.into_iter().flatten());
    findings
}

impl Status {
    /// `good`, `limited`, `missing`, `note`
    pub fn word(self) -> &'static str {
        match self {
            Status::Good => "good",
            Status::Limited => "limited",
            Status::Missing => "missing",
            Status::Note => "note",
        }
    }
}

impl Finding {
    fn new(topic: &'static str, status: Status, what: impl Into<String>) -> Finding {
        Finding {
            topic,
            status,
            what: what.into(),
            cause: None,
            cure: None,
        }
    }

    fn good(topic: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(topic, Status::Good, what)
    }

    fn note(topic: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(topic, Status::Note, what)
    }

    /// Something limited, and why: nothing is called limited or missing without its cause.
    fn limited(topic: &'static str, what: impl Into<String>, cause: impl Into<Cause>) -> Finding {
        Finding::new(topic, Status::Limited, what).cause(cause)
    }

    fn missing(topic: &'static str, what: impl Into<String>, cause: impl Into<Cause>) -> Finding {
        Finding::new(topic, Status::Missing, what).cause(cause)
    }

    fn cause(self, cause: impl Into<Cause>) -> Finding {
        let Cause { why, cure } = cause.into();
        Finding {
            cause: Some(why),
            cure,
            ..self
        }
    }

    fn cure(self, cure: impl Into<String>) -> Finding {
        Finding {
            cure: Some(cure.into()),
            ..self
        }
    }
}

/// The examination: what several topics need to know is looked up once.
struct Exam<'a> {
    facts: Facts<'a>,
    pmu: &'a PmuFindings,
    myself: Option<Myself>,
    container: Option<String>,
    virtualization: Option<Virtualization>,
    core_types: Vec<CoreType>,
}

impl Exam<'_> {
    /// A command that needs root, with the place where it must be typed.
    fn as_root(&self, command: &str) -> String {
        let root = |me: &Myself| me.euid == 0 && me.initial_user_namespace;
        let root = self.myself.as_ref().is_some_and(root);
        match (&self.container, root) {
            (Some(_), _) => format!("on the host, as root: {command}"),
            (None, true) => command.to_owned(),
            (None, false) => format!("as root: {command}"),
        }
    }

    fn can(&self, capability: Capability) -> bool {
        self.myself.as_ref().is_some_and(|me| me.can(capability))
    }

    fn can_perf(&self) -> bool {
        self.myself.as_ref().is_some_and(Myself::can_perf)
    }

    fn is_virtual(&self) -> bool {
        matches!(self.virtualization, Some(Virtualization::Machine { .. }))
    }

    /// Why capabilities are missing.
    fn lack(&self, wanted: &str) -> String {
        match &self.myself {
            Some(me) if !me.initial_user_namespace => {
                "our capabilities only hold inside our user namespace".to_owned()
            }
            _ => format!("we lack {wanted}"),
        }
    }

    /// How to come by capabilities: of a container, by asking for them at its start.
    fn give(&self, names: &[&str]) -> Option<String> {
        let namespaced = self
            .myself
            .as_ref()
            .is_some_and(|me| !me.initial_user_namespace);
        match self.container.as_deref() {
            _ if namespaced => None,
            Some(tool @ ("docker" | "podman")) => {
                let flags: Vec<String> = names
                    .iter()
                    .map(|name| format!("--cap-add {name}"))
                    .collect();
                Some(format!("{tool} run {} …", flags.join(" ")))
            }
            Some("kubernetes") => Some(format!(
                "securityContext: capabilities: add: [{}]",
                names.join(", ")
            )),
            Some(_) => Some(format!("start the container with {}", names.join(" and "))),
            None => Some("sudo poise …".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
