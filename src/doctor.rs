//! What can be measured on this machine and what cannot, each with its cause and its cure. Changes nothing, and opens no event: what really counts is tried by whoever calls, and told in [`PmuFindings`].

use std::hint::black_box;

use caps::Capability;
use nix::time::{ClockId, clock_gettime};

use crate::machine::Busy;
use crate::machine::facts::{
    Aslr, Boost, CoreType, Facts, Myself, Policy, Rdpmc, Roots, Seccomp, Smt, Tracefs,
    Virtualization, VulnerabilityState,
};
use crate::sample::Cause;
use crate::unit::{Dimension, Scale};

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
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PmuFindings {
    /// The usual events, and for those that don't really count, why.
    pub events: Vec<(String, Result<(), Cause>)>,
    /// How many hardware events count at the same time; `None` when it was not tried.
    pub counters: Option<Result<usize, Cause>>,
    /// Whether counters can be read without a system call; `None` when it was not tried.
    pub rdpmc: Option<Result<(), Cause>>,
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

/// A clock whose reading costs more than this enters the kernel, or the hypervisor.
const SLOW_CLOCK_SEC: f64 = 200e-9;

/// Runnable tasks, on average, from which on others disturb.
const BUSY_LOAD: f64 = 0.5;

/// The share of stolen time from which on it disturbs.
const MUCH_STEAL: f64 = 0.001;

impl Exam<'_> {
    /// A command that needs root, with the place where it must be typed.
    fn as_root(&self, command: &str) -> String {
        let root = self.myself.as_ref().is_some_and(|me| me.euid == 0);
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

    fn events(&self) -> Vec<Finding> {
        let counting: Vec<&str> = self
            .pmu
            .events
            .iter()
            .filter(|(_, r)| r.is_ok())
            .map(|(name, _)| name.as_str())
            .collect();
        let mut findings = Vec::new();
        if !counting.is_empty() {
            findings.push(Finding::good(
                "events",
                format!("counted: {}", counting.join(", ")),
            ));
        }
        // Events that fail for one reason share a line.
        let mut failures: Vec<(&Cause, Vec<&str>)> = Vec::new();
        for (name, result) in &self.pmu.events {
            let Err(cause) = result else { continue };
            match failures.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, names)) => names.push(name),
                None => failures.push((cause, vec![name])),
            }
        }
        findings.extend(failures.into_iter().map(|(cause, names)| {
            Finding::missing(
                "events",
                format!("not counted: {}", names.join(", ")),
                cause.clone(),
            )
        }));
        findings
    }

    fn counters(&self) -> Option<Finding> {
        let topic = "counters";
        Some(match self.pmu.counters.as_ref()? {
            Ok(0) => Finding::missing(
                topic,
                "no hardware event can be counted",
                "this machine shows us no free hardware counter",
            ),
            Ok(1) => Finding::limited(
                topic,
                "one hardware event at a time",
                "the PMU has no second free counter; events take turns over repeated runs",
            ),
            Ok(count) => Finding::good(topic, format!("{count} hardware events at the same time")),
            Err(cause) => {
                Finding::missing(topic, "no hardware event can be counted", cause.clone())
            }
        })
    }

    fn rdpmc(&self) -> Option<Finding> {
        let topic = "rdpmc";
        let bad = "counters can only be read by a system call";
        let closed = self.facts.rdpmc() == Some(Rdpmc::Off);
        match &self.pmu.rdpmc {
            Some(Ok(())) => Some(Finding::good(
                topic,
                "counters can be read without a system call",
            )),
            // The switch explains more than the failure that follows from it.
            _ if closed => {
                // x86 has a switch for each PMU (`cpu`, or `cpu_core` and `cpu_atom`), arm64 one.
                let command = match self.core_types.iter().any(|t| t.pmu.starts_with("cpu")) {
                    true => "echo 1 | tee /sys/bus/event_source/devices/cpu*/rdpmc",
                    false => "sysctl kernel.perf_user_access=1",
                };
                let cause = "the kernel's switch for it is off";
                Some(Finding::limited(topic, bad, cause).cure(self.as_root(command)))
            }
            Some(Err(cause)) => Some(Finding::limited(topic, bad, cause.clone())),
            None => None,
        }
    }

    fn nmi_watchdog(&self) -> Option<Finding> {
        let topic = "nmi-watchdog";
        match self.facts.nmi_watchdog()? {
            false => Some(Finding::good(topic, "off: it holds no counter")),
            // Without a PMU there is nothing that it could hold.
            true if self.core_types.is_empty() => None,
            true => Some(
                Finding::limited(
                    topic,
                    "on: one counter less for us",
                    "the kernel's watchdog for hung CPUs counts cycles",
                )
                .cure(self.as_root("echo 0 > /proc/sys/kernel/nmi_watchdog")),
            ),
        }
    }

    fn core_types(&self) -> Option<Finding> {
        let topic = "core-types";
        match self.core_types.as_slice() {
            [] => None,
            [_] => Some(Finding::good(topic, "all cores are of one type")),
            types => {
                let list: Vec<String> = types
                    .iter()
                    .map(|t| format!("{} on CPUs {}", t.pmu, t.cpus))
                    .collect();
                let cpus: Vec<String> = types.iter().map(|t| t.cpus.to_string()).collect();
                Some(
                    Finding::limited(
                        topic,
                        format!("cores of {} types: {}", types.len(), list.join(", ")),
                        "each type has its own counters, which stand still while the program is elsewhere",
                    )
                    .cure(format!("measure on one type: --cpu-list {}", cpus.join(" or "))),
                )
            }
        }
    }

    fn permissions(&self) -> Option<Finding> {
        let topic = "perf-event-paranoid";
        let Some(level) = self.facts.perf_event_paranoid() else {
            return Some(Finding::missing(
                topic,
                "the kernel has no perf events",
                "it does not show kernel.perf_event_paranoid (built without CONFIG_PERF_EVENTS?)",
            ));
        };
        let level_name = format!("perf_event_paranoid is {level}");
        let cause = format!("{level_name} and {}", self.lack("CAP_PERFMON"));
        let mend = |level: i32| {
            let command = self.as_root(&format!("sysctl kernel.perf_event_paranoid={level}"));
            match self.container.as_ref().and(self.give(&["PERFMON"])) {
                Some(give) => format!("{give} (or {command})"),
                None => command,
            }
        };
        Some(match level {
            _ if self.can_perf() => Finding::good(
                topic,
                format!("{level_name}, which does not bind us (CAP_PERFMON)"),
            ),
            ..=0 => Finding::good(
                topic,
                format!("{level_name}: all processes, user and kernel"),
            ),
            1 => Finding::limited(topic, "only our own processes, user and kernel", cause)
                .cure(mend(0)),
            2 => Finding::limited(
                topic,
                "only our own processes, user mode alone (cycles:u)",
                cause,
            )
            .cure(mend(1)),
            _ => Finding::missing(topic, "no perf events for ordinary users", cause).cure(mend(1)),
        })
    }

    fn capabilities(&self) -> Option<Finding> {
        let topic = "capabilities";
        self.myself.as_ref()?;
        let wanted = [
            (
                Capability::CAP_SYS_PTRACE,
                "SYS_PTRACE",
                "watch other users' processes",
            ),
            (Capability::CAP_SYS_NICE, "SYS_NICE", "raise priorities"),
            (
                Capability::CAP_DAC_OVERRIDE,
                "DAC_OVERRIDE",
                "set the machine's frequency and boost",
            ),
        ];
        let lacking = wanted
            .iter()
            .filter(|(capability, ..)| !self.can(*capability));
        let (names, uses): (Vec<&str>, Vec<&str>) =
            lacking.map(|(_, name, what)| (*name, *what)).unzip();
        if names.is_empty() {
            return Some(Finding::good(
                topic,
                "we may watch other users' processes and set the machine",
            ));
        }
        let listed: Vec<String> = names.iter().map(|name| format!("CAP_{name}")).collect();
        let finding = Finding::limited(
            topic,
            format!("we cannot {}", uses.join(", ")),
            self.lack(&listed.join(", ")),
        );
        Some(match self.give(&names) {
            Some(give) => finding.cure(give),
            None => finding,
        })
    }

    fn seccomp(&self) -> Option<Finding> {
        let topic = "seccomp";
        match self.myself.as_ref()?.seccomp? {
            Seccomp::Off => Some(Finding::good(topic, "no system call is filtered")),
            Seccomp::Strict | Seccomp::Filter => {
                let finding = Finding::limited(
                    topic,
                    "perf_event_open and bpf may be refused, and every system call costs more",
                    "a seccomp filter looks at our system calls",
                );
                Some(match self.container.as_deref() {
                    Some(tool @ ("docker" | "podman")) => {
                        finding.cure(format!("{tool} run --security-opt seccomp=unconfined …"))
                    }
                    Some("kubernetes") => {
                        finding.cure("securityContext: seccompProfile: type: Unconfined")
                    }
                    _ => finding,
                })
            }
        }
    }

    fn container(&self) -> Option<Finding> {
        let name = self.container.as_ref()?;
        let what = format!("we are in a container ({name})");
        Some(
            Finding::note("container", what)
                .cause("the host's other work and settings are hidden from us"),
        )
    }

    fn cpu_quota(&self) -> Option<Finding> {
        let cgroup = self.facts.cgroup()?;
        let quota = cgroup.cpu_quota?;
        let finding = Finding::limited(
            "cpu-quota",
            format!("at most {quota:.2} CPUs' time"),
            format!(
                "the cgroup {} stops us when its share is used up",
                cgroup.path
            ),
        );
        Some(match &self.container {
            Some(_) => finding.cure("start the container without a CPU limit"),
            None => finding.cure("run in a cgroup without cpu.max"),
        })
    }

    fn allowed_cpus(&self) -> Option<Finding> {
        let allowed = &self.myself.as_ref()?.cpus;
        let online = self.facts.online()?;
        let closed = online.iter().filter(|&cpu| !allowed.contains(cpu)).count();
        (closed > 0 && !allowed.is_empty()).then(|| {
            let what = format!("we may run on CPUs {allowed} only, of {online}");
            Finding::note("allowed-cpus", what).cause("an affinity mask or a cpuset is on us")
        })
    }

    fn virtualization(&self) -> Option<Finding> {
        let topic = "virtualization";
        Some(match self.virtualization.as_ref()? {
            Virtualization::None => Finding::good(topic, "real hardware"),
            Virtualization::Machine {
                hypervisor,
                product,
            } => {
                let product = product
                    .as_ref()
                    .map(|name| format!(", {name}"))
                    .unwrap_or_default();
                Finding::limited(
                    topic,
                    format!("a virtual machine ({hypervisor}{product})"),
                    "the hypervisor decides which counters we see and when we run",
                )
            }
        })
    }

    fn steal(&self, roots: &Roots) -> Option<Finding> {
        if !self.is_virtual() {
            return None;
        }
        let share = Busy::read(&roots.proc).ok()?.steal_share();
        let what = format!(
            "{:.2} % of the wanted CPU time was stolen since boot",
            share * 100.0
        );
        Some(match share {
            ..MUCH_STEAL => Finding::good("steal", what),
            _ => Finding::limited("steal", what, "other virtual machines share our CPUs")
                .cure("use a machine with CPUs of its own"),
        })
    }

    fn load(&self) -> Option<Finding> {
        let load = self.facts.load()?;
        Some(match load {
            ..BUSY_LOAD => Finding::good("load", format!("the machine is idle (load {load:.2})")),
            _ => Finding::limited(
                "load",
                format!("{load:.2} tasks ran at a time in the last minute"),
                "other work takes CPUs, caches and memory",
            )
            .cure("wait until it ends, or stop it"),
        })
    }

    fn swap(&self) -> Option<Finding> {
        let used = self.facts.swap_used_bytes().filter(|&bytes| bytes > 0)? as f64;
        let what = format!(
            "{} are swapped out",
            Scale::for_figure(Dimension::Bytes, used).write(used)
        );
        Some(
            Finding::note("swap", what)
                .cause("memory is or was short; who touches those pages waits for the disk")
                .cure(self.as_root("swapoff -a && swapon -a")),
        )
    }

    fn frequency(&self) -> Option<Finding> {
        let topic = "frequency";
        let policies = self.facts.policies();
        let Some(first) = policies.first() else {
            let what = "the CPUs' frequency can neither be read nor set";
            return Some(match self.is_virtual() {
                true => Finding::limited(topic, what, "the host rules it"),
                false => Finding::limited(topic, what, "no cpufreq driver is loaded")
                    .cure("enable P-states in the firmware, or load a driver such as acpi-cpufreq"),
            });
        };
        let driver = first.driver.as_deref().unwrap_or("unknown driver");
        let distinct = |of: &dyn Fn(&Policy) -> Option<String>| {
            let mut found: Vec<String> = Vec::new();
            for policy in &policies {
                found.extend(of(policy).filter(|value| !found.contains(value)));
            }
            found
        };
        let governors = distinct(&|policy| policy.governor.clone());
        let mut what = format!("{driver}, governor {}", governors.join(" and "));
        let ranges = distinct(&Policy::range);
        if !ranges.is_empty() {
            what += &format!(", {}", ranges.join(" and "));
        }
        let fixed = |policy: &Policy| {
            let steady = matches!(
                policy.governor.as_deref(),
                Some("performance" | "userspace")
            );
            steady || policy.min_khz.is_some() && policy.min_khz == policy.max_khz
        };
        if policies.iter().all(fixed) {
            return Some(Finding::good(topic, what));
        }
        let finding = Finding::limited(
            topic,
            what,
            "the governor changes the frequency with the load",
        );
        let offered = policies
            .iter()
            .all(|p| p.governors.iter().any(|g| g == "performance"));
        let files = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor";
        Some(match offered {
            true => finding.cure(self.as_root(&format!("echo performance | tee {files}"))),
            false => finding,
        })
    }

    fn boost(&self) -> Option<Finding> {
        let topic = "boost";
        let what = match self.facts.boost()? {
            Boost::Off => return Some(Finding::good(topic, "off")),
            Boost::On => "on",
            Boost::Mixed => "on for some CPUs",
        };
        let intel = self.facts.policies().iter().any(|policy| {
            policy
                .driver
                .as_deref()
                .is_some_and(|d| d == "intel_pstate" || d == "intel_cpufreq")
        });
        let command = match intel {
            true => "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo",
            false => "echo 0 > /sys/devices/system/cpu/cpufreq/boost",
        };
        let cause = "above the nominal frequency, heat and the neighbouring cores set the speed";
        Some(Finding::limited(topic, what, cause).cure(self.as_root(command)))
    }

    fn power(&self) -> Option<Finding> {
        let topic = "power";
        Some(match self.facts.on_battery()? {
            false => Finding::good(topic, "on mains"),
            true => Finding::limited(
                topic,
                "on battery",
                "the firmware saves power and lowers the speed",
            )
            .cure("plug in the power supply"),
        })
    }

    fn smt(&self) -> Option<Finding> {
        let topic = "smt";
        match self.facts.smt()? {
            Smt::On => Some(
                Finding::limited(
                    topic,
                    "on",
                    "what runs on the other CPU of a core changes our speed",
                )
                .cure(self.as_root("echo off > /sys/devices/system/cpu/smt/control")),
            ),
            Smt::Off => Some(Finding::good(topic, "off: no two CPUs share a core")),
            // What a virtual machine calls cores are mostly the host's hardware threads.
            Smt::Absent if self.is_virtual() => Some(
                Finding::note(topic, "none shown")
                    .cause("only the host knows whether our CPUs share cores"),
            ),
            Smt::Absent => Some(Finding::good(topic, "none: no two CPUs share a core")),
        }
    }

    fn isolation(&self) -> Option<Finding> {
        let topic = "isolated-cpus";
        let isolated = self.facts.isolated()?;
        let untimed = self.facts.nohz_full().filter(|cpus| !cpus.is_empty());
        let tick = untimed
            .map(|cpus| format!("; without a regular tick: {cpus}"))
            .unwrap_or_default();
        Some(match isolated.is_empty() {
            false => Finding::good(
                topic,
                format!("CPUs {isolated} are kept free of other work{tick}"),
            ),
            true => Finding::note(topic, format!("no CPU is kept free of other work{tick}"))
                .cure("boot with isolcpus=… nohz_full=… to set some apart"),
        })
    }

    fn aslr(&self) -> Option<Finding> {
        let topic = "aslr";
        let what = match self.facts.aslr()? {
            Aslr::Off => {
                return Some(Finding::note(
                    topic,
                    "off: every run has the same addresses",
                ));
            }
            Aslr::Partial => "on for all but the heap: addresses change from run to run",
            Aslr::Full => "on: addresses change from run to run",
        };
        Some(
            Finding::note(topic, what)
                .cause("results that depend on alignment vary, and are averaged over many runs")
                .cure("for the same addresses in every run: setarch -R poise …"),
        )
    }

    fn thp(&self) -> Option<Finding> {
        let topic = "thp";
        let thp = self.facts.thp()?;
        let file = "/sys/kernel/mm/transparent_hugepage/enabled";
        Some(match thp.enabled.as_str() {
            "always" => Finding::note(topic, "always: any memory may come in huge pages")
                .cause("whether a huge page is free changes page faults and speed from run to run")
                .cure(self.as_root(&format!("echo madvise > {file}"))),
            "madvise" => Finding::good(topic, "madvise: huge pages only for programs that ask"),
            other => Finding::note(topic, other),
        })
    }

    fn mitigations(&self) -> Option<Finding> {
        let topic = "mitigations";
        let mitigations = self.facts.mitigations();
        let summary = mitigations.summary()?;
        Some(
            match mitigations.names(VulnerabilityState::Mitigated).is_empty() {
                true => Finding::note(topic, summary),
                false => Finding::note(topic, summary)
                    .cause("system calls, faults and switches cost more for them; results say so")
                    .cure("to measure without (less secure): boot with mitigations=off"),
            },
        )
    }

    fn clock(&self) -> Option<Finding> {
        let topic = "clock";
        let source = self.facts.clocksource();
        let name = source
            .as_ref()
            .map_or("unknown clock source", |source| &source.current);
        let clock = ClockCost::measure()?;
        let mut what = format!("{name}, {:.0} ns for a reading", clock.cost_sec * 1e9);
        if let Some(step_sec) = clock.step_sec {
            what += &format!(", in steps of {:.0} ns", step_sec * 1e9);
        }
        if clock.cost_sec < SLOW_CLOCK_SEC {
            return Some(Finding::good(topic, what));
        }
        let finding = Finding::limited(
            topic,
            what,
            "every reading enters the kernel or the hypervisor",
        );
        let tsc =
            source.is_some_and(|s| s.current != "tsc" && s.available.iter().any(|a| a == "tsc"));
        let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        Some(match tsc {
            true => finding.cure(self.as_root(&format!("echo tsc > {file}"))),
            false => finding
                .cure("dmesg | grep -i -e tsc -e clocksource tells why there is no faster one"),
        })
    }

    fn accounting(&self) -> Option<Finding> {
        let accounting = self.facts.accounting();
        let tick_sec = accounting.tick_sec?;
        let timed = match accounting.timed.is_empty() {
            true => String::new(),
            false => format!(", except on CPUs {}", accounting.timed),
        };
        let what = format!(
            "user and system time are told apart every {:.0} ms{timed}; their sum is measured",
            tick_sec * 1e3
        );
        Some(
            Finding::note("cpu-time", what)
                .cause("the kernel looks at the scheduler's tick who is running")
                .cure(
                    "measure runs much longer than a tick, or boot with nohz_full=… and run there",
                ),
        )
    }

    fn tracefs(&self) -> Option<Finding> {
        let topic = "tracefs";
        let bad = "tracepoints such as syscalls:sys_enter_write cannot be found";
        Some(match self.facts.tracefs() {
            Tracefs::Readable(path) => {
                Finding::good(topic, format!("readable at {}", path.display()))
            }
            Tracefs::Closed(path) => {
                let command = format!("mount -o remount,mode=755 {}", path.display());
                Finding::missing(topic, bad, format!("{} is closed to us", path.display()))
                    .cure(self.as_root(&command))
            }
            Tracefs::NotMounted => Finding::missing(topic, bad, "tracefs is not mounted")
                .cure(self.as_root("mount -t tracefs nodev /sys/kernel/tracing")),
            Tracefs::Absent => {
                Finding::missing(topic, bad, "this kernel was built without tracefs")
            }
        })
    }

    fn btf(&self) -> Option<Finding> {
        let topic = "btf";
        Some(match self.facts.btf() {
            true => Finding::good(topic, "the kernel describes its types"),
            false => Finding::missing(
                topic,
                "the kernel does not describe its types",
                "without /sys/kernel/btf/vmlinux, BPF programs cannot fit themselves to this kernel",
            )
            .cure("boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        })
    }

    fn bpf(&self) -> Option<Finding> {
        let topic = "bpf";
        let bad = "we cannot trace with BPF";
        let myself = self.myself.as_ref()?;
        let Some(level) = self.facts.unprivileged_bpf_disabled() else {
            return Some(Finding::missing(
                topic,
                bad,
                "the kernel shows no BPF (built without CONFIG_BPF_SYSCALL?)",
            ));
        };
        if myself.can_bpf() {
            return Some(Finding::good(topic, "we may trace with BPF"));
        }
        let others = match level {
            0 => "; ordinary users may only load filters",
            _ => "; it is closed to ordinary users",
        };
        let cause = self.lack("CAP_BPF and CAP_PERFMON") + others;
        let finding = Finding::missing(topic, bad, cause);
        Some(match self.give(&["BPF", "PERFMON"]) {
            Some(give) => finding.cure(give),
            None => finding,
        })
    }

    fn lockdown(&self) -> Option<Finding> {
        let topic = "lockdown";
        Some(match self.facts.lockdown()?.as_str() {
            "none" => Finding::good(topic, "none"),
            "integrity" => Finding::note(
                topic,
                "integrity: nothing may write to MSRs or kernel memory",
            )
            .cause("Secure Boot or lockdown= on the kernel command line"),
            level => Finding::limited(
                topic,
                format!("{level}: tracefs is closed, and BPF may not read kernel memory"),
                "lockdown= on the kernel command line",
            )
            .cure("boot without lockdown=confidentiality"),
        })
    }

    fn kernel_symbols(&self) -> Option<Finding> {
        let topic = "kernel-symbols";
        let level = self.facts.kptr_restrict()?;
        // The kernel's own rule (kallsyms_show_value): 0 opens them to whoever may profile the
        // kernel, 1 to CAP_SYSLOG, 2 to nobody.
        let profiled = self
            .facts
            .perf_event_paranoid()
            .is_some_and(|paranoid| paranoid <= 1);
        let shown = match level {
            0 => profiled || self.can(Capability::CAP_SYSLOG),
            1 => self.can(Capability::CAP_SYSLOG),
            _ => false,
        };
        if shown {
            return Some(Finding::good(topic, "we see the kernel's addresses"));
        }
        let bad = "kernel functions have no names in stacks";
        Some(match level {
            0 => Finding::limited(
                topic,
                bad,
                "perf_event_paranoid is above 1 and we lack CAP_SYSLOG",
            )
            .cure(self.as_root("sysctl kernel.perf_event_paranoid=1")),
            _ => Finding::limited(topic, bad, format!("kernel.kptr_restrict is {level}"))
                .cure(self.as_root("sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1")),
        })
    }
}

/// What it costs to ask for the time.
struct ClockCost {
    /// Seconds for one reading of CLOCK_MONOTONIC, the best of several batches.
    cost_sec: f64,
    /// The smallest step of the clock, when it is coarser than a reading takes.
    step_sec: Option<f64>,
}

impl ClockCost {
    const BATCHES: usize = 10;
    const READINGS: usize = 500;

    fn measure() -> Option<ClockCost> {
        let now_ns = || {
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
            Some(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
        };
        let mut best_ns = i64::MAX;
        for _ in 0..ClockCost::BATCHES {
            let start_ns = now_ns()?;
            for _ in 1..ClockCost::READINGS {
                black_box(now_ns()?);
            }
            best_ns = best_ns.min(now_ns()? - start_ns);
        }
        let readings: Vec<i64> = (0..ClockCost::READINGS)
            .map(|_| now_ns())
            .collect::<Option<_>>()?;
        let steps = || readings.windows(2).map(|pair| pair[1] - pair[0]);
        // Two equal readings: the clock had not moved yet.
        let coarse = steps().any(|step_ns| step_ns == 0);
        let smallest_ns = steps().filter(|&step_ns| step_ns > 0).min();
        Some(ClockCost {
            cost_sec: best_ns as f64 * 1e-9 / ClockCost::READINGS as f64,
            step_sec: smallest_ns
                .filter(|_| coarse)
                .map(|step_ns| step_ns as f64 * 1e-9),
        })
    }
}

#[cfg(test)]
mod tests;
