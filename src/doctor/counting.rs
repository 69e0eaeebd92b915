//! What can be counted and traced, and what stands in the way: counters, permissions, tracefs, BPF. Opens no event and loads no program.

use caps::Capability;

use super::{Exam, Finding};
use crate::machine::facts::{Rdpmc, Seccomp, Tracefs};
use crate::sample::Cause;

impl Exam<'_> {
    pub(super) fn events(&self) -> Vec<Finding> {
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

    pub(super) fn counters(&self) -> Option<Finding> {
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

    pub(super) fn rdpmc(&self) -> Option<Finding> {
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

    pub(super) fn nmi_watchdog(&self) -> Option<Finding> {
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

    pub(super) fn core_types(&self) -> Option<Finding> {
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

    pub(super) fn permissions(&self) -> Option<Finding> {
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
        let any_counts = || self.pmu.events.iter().any(|(_, tried)| tried.is_ok());
        Some(match level {
            3.. if self.can_perf() && !self.can(Capability::CAP_SYS_ADMIN) && !any_counts() => {
                Finding::missing(
                    topic,
                    "no perf events, in spite of CAP_PERFMON",
                    format!("{level_name}, where this kernel asks for CAP_SYS_ADMIN"),
                )
                .cure(self.as_root("sysctl kernel.perf_event_paranoid=2"))
            }
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

    pub(super) fn capabilities(&self) -> Option<Finding> {
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

    pub(super) fn seccomp(&self) -> Option<Finding> {
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

    pub(super) fn tracefs(&self) -> Option<Finding> {
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

    pub(super) fn btf(&self) -> Option<Finding> {
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

    pub(super) fn bpf(&self) -> Option<Finding> {
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

    pub(super) fn lockdown(&self) -> Option<Finding> {
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

    pub(super) fn kernel_symbols(&self) -> Option<Finding> {
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
