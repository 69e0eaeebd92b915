//! What makes results vary from run to run or from machine to machine: neighbours, frequency, layout, clock. Changes none of it.

use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};

use super::{Exam, Finding};
use crate::machine::Busy;
use crate::machine::facts::{Aslr, Boost, Policy, Roots, Smt, Virtualization, VulnerabilityState};
use crate::unit::{Dimension, Scale};

/// A clock whose reading costs more than this enters the kernel, or the hypervisor.
const SLOW_CLOCK_SEC: f64 = 200e-9;

/// Runnable tasks, on average, from which on others disturb.
const BUSY_LOAD: f64 = 0.5;

/// The share of stolen time from which on it disturbs.
const MUCH_STEAL: f64 = 0.001;

impl Exam<'_> {
    pub(super) fn container(&self) -> Option<Finding> {
        let name = self.container.as_ref()?;
        let what = format!("we are in a container ({name})");
        Some(
            Finding::note("container", what)
                .cause("the host's other work and settings are hidden from us"),
        )
    }

    pub(super) fn cpu_quota(&self) -> Option<Finding> {
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
            None => finding.cure("run in a cgroup without a CPU limit"),
        })
    }

    pub(super) fn allowed_cpus(&self) -> Option<Finding> {
        let allowed = &self.myself.as_ref()?.cpus;
        let online = self.facts.online()?;
        let closed = online.iter().filter(|&cpu| !allowed.contains(cpu)).count();
        (closed > 0 && !allowed.is_empty()).then(|| {
            let what = format!("we may run on CPUs {allowed} only, of {online}");
            Finding::note("allowed-cpus", what).cause("an affinity mask or a cpuset is on us")
        })
    }

    pub(super) fn virtualization(&self) -> Option<Finding> {
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

    pub(super) fn steal(&self, roots: &Roots) -> Option<Finding> {
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

    pub(super) fn load(&self) -> Option<Finding> {
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

    pub(super) fn swap(&self) -> Option<Finding> {
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

    pub(super) fn frequency(&self) -> Option<Finding> {
        let topic = "frequency";
        let policies = self.facts.policies();
        let Some(first) = policies.first() else {
            let what = format!(
                "the CPUs' frequency can neither be read nor set{}",
                self.under_load()
            );
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
        what += &self.under_load();
        let strayed = self.pmu.frequencies_hz.iter().find(|(cpu, hz)| {
            let of_cpu = policies.iter().find(|policy| policy.cpus.contains(*cpu));
            of_cpu.and_then(|policy| policy.is_kept_at(*hz)) == Some(false)
        });
        if let Some((cpu, hz)) = strayed {
            let cause = format!(
                "CPU {cpu} runs at {:.2} GHz and not at what is set: boost, heat, a power limit or the hypervisor rules it",
                hz * 1e-9
            );
            return Some(Finding::limited(topic, what, cause));
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
        let cause = "the governor changes the frequency with the load";
        Some(Finding::limited(topic, what, cause).cure(self.by_holding()))
    }

    /// What mends a setting for as long as it matters.
    fn by_holding(&self) -> String {
        self.as_root(
            "poise stat and bench hold it while they measure, poise hold -- COMMAND while anything else runs",
        )
    }

    /// `; 3.80 GHz under load`, or the range when CPUs differ; nothing where it cannot be measured.
    fn under_load(&self) -> String {
        let ghz = self.pmu.frequencies_hz.iter().map(|(_, hz)| hz * 1e-9);
        let Some(least) = ghz.clone().reduce(f64::min) else {
            return String::new();
        };
        let (least, most) = (
            format!("{least:.2}"),
            format!("{:.2}", ghz.fold(least, f64::max)),
        );
        match least == most {
            true => format!("; {most} GHz under load"),
            false => format!("; {least}-{most} GHz under load"),
        }
    }

    pub(super) fn boost(&self) -> Option<Finding> {
        let topic = "boost";
        let what = match self.facts.boost()? {
            Boost::Off => return Some(Finding::good(topic, "off")),
            Boost::On => "on",
            Boost::Mixed => "on for some CPUs",
        };
        let cause = "above the nominal frequency, heat and the neighbouring cores set the speed";
        Some(Finding::limited(topic, what, cause).cure(self.by_holding()))
    }

    pub(super) fn power(&self) -> Option<Finding> {
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

    pub(super) fn smt(&self) -> Option<Finding> {
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

    pub(super) fn isolation(&self) -> Option<Finding> {
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

    pub(super) fn aslr(&self) -> Option<Finding> {
        let topic = "aslr";
        let what = match self.facts.aslr(None)? {
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
                .cure("for the same addresses in every run: --aslr off"),
        )
    }

    pub(super) fn thp(&self) -> Option<Finding> {
        let topic = "thp";
        let thp = self.facts.thp(None)?;
        let file = "/sys/kernel/mm/transparent_hugepage/enabled";
        Some(match thp.enabled.as_str() {
            "always" => Finding::note(topic, "always: any memory may come in huge pages")
                .cause("whether a huge page is free changes page faults and speed from run to run")
                .cure(self.as_root(&format!("echo madvise > {file}"))),
            "madvise" => Finding::good(topic, "madvise: huge pages only for programs that ask"),
            other => Finding::note(topic, other),
        })
    }

    pub(super) fn mitigations(&self) -> Option<Finding> {
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

    pub(super) fn clock(&self) -> Option<Finding> {
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

    pub(super) fn accounting(&self) -> Option<Finding> {
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
mod tests {
    use super::*;

    #[test]
    fn the_clock_costs_something() {
        let clock = ClockCost::measure().unwrap();
        assert!(
            clock.cost_sec > 0.0 && clock.cost_sec < 1e-3,
            "{}",
            clock.cost_sec
        );
        assert!(clock.step_sec.is_none_or(|step_sec| step_sec > 0.0));
    }
}
