//! How fast the CPUs may run: cpufreq policies, boost, and the power supply. Never changes one of them.

use std::path::{Path, PathBuf};

use super::file::{entries, flag, number, text, word, words};
use super::{CpuList, Facts};

/// The CPUs that change frequency together, and how they do it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Policy {
    /// `policy0`
    pub name: String,
    /// The CPUs it rules.
    pub cpus: CpuList,
    /// `intel_pstate`, `amd-pstate-epp`, `acpi-cpufreq`, …
    pub driver: Option<String>,
    /// `performance`, `powersave`, `schedutil`, …
    pub governor: Option<String>,
    /// The governors that can be chosen.
    pub governors: Vec<String>,
    /// The lowest frequency allowed now.
    pub min_khz: Option<u64>,
    /// The highest frequency allowed now.
    pub max_khz: Option<u64>,
    /// The lowest frequency that the hardware has.
    pub hardware_min_khz: Option<u64>,
    /// The highest frequency that the hardware has.
    pub hardware_max_khz: Option<u64>,
    /// Whether this policy may exceed the nominal frequency, where each has its own switch.
    pub boost: Option<bool>,
}

/// Whether CPUs may exceed their nominal frequency while heat and neighbours allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boost {
    /// They may.
    On,
    /// They may not.
    Off,
    /// Some may, some may not.
    Mixed,
}

impl Facts<'_> {
    /// All frequency policies, in order. None in most virtual machines.
    pub fn policies(&self) -> Vec<Policy> {
        let policy = |dir: PathBuf| {
            let cpus = text(&dir.join("affected_cpus")).and_then(|list| CpuList::parse(&list));
            Policy {
                name: dir
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                cpus: cpus.unwrap_or_default(),
                driver: word(&dir.join("scaling_driver")),
                governor: word(&dir.join("scaling_governor")),
                governors: words(&dir.join("scaling_available_governors")),
                min_khz: number(&dir.join("scaling_min_freq")),
                max_khz: number(&dir.join("scaling_max_freq")),
                hardware_min_khz: number(&dir.join("cpuinfo_min_freq")),
                hardware_max_khz: number(&dir.join("cpuinfo_max_freq")),
                boost: flag(&dir.join("boost")),
            }
        };
        self.policy_dirs().into_iter().map(policy).collect()
    }

    /// The frequency at which the CPUs run now as their drivers tell it, averaged over policies.
    pub fn frequency_hz(&self) -> Option<f64> {
        let dirs = self.policy_dirs();
        let each: Vec<u64> = dirs
            .iter()
            .filter_map(|dir| number(&dir.join("scaling_cur_freq")))
            .collect();
        let sum_khz: f64 = each.iter().map(|&khz| khz as f64).sum();
        (!each.is_empty()).then(|| sum_khz * 1e3 / each.len() as f64)
    }

    /// The frequencies that are allowed now: `800-4200 MHz`, or `3000 MHz` when there is no choice;
    /// when the policies differ, each different one, joined by commas.
    pub fn frequency_range(&self) -> Option<String> {
        self.across_policies(frequency_range)
    }

    /// The highest frequency that `cpu` can have.
    pub(in crate::machine) fn highest_khz(&self, cpu: u32) -> Option<u64> {
        number(
            &self
                .cpus_dir()
                .join(format!("cpu{cpu}/cpufreq/cpuinfo_max_freq")),
        )
    }

    /// The nominal frequency of a policy: what it runs at without boost under full load.
    pub(in crate::machine) fn base_khz(&self, policy: &Policy) -> Option<u64> {
        let dir = self.cpus_dir().join("cpufreq").join(&policy.name);
        let by_firmware = || {
            let cpu = policy.cpus.iter().next()?;
            let file = format!("cpu{cpu}/acpi_cppc/nominal_freq");
            let mhz = number::<u64>(&self.cpus_dir().join(file)).filter(|&mhz| mhz > 0)?;
            mhz.checked_mul(1000)
        };
        number(&dir.join("base_frequency")).or_else(by_firmware)
    }

    /// The frequencies that a policy can have, where it can have no others; boost is not among
    /// them.
    pub(in crate::machine) fn frequency_steps_khz(&self, policy: &str) -> Vec<u64> {
        let dir = self.cpus_dir().join("cpufreq").join(policy);
        let steps = words(&dir.join("scaling_available_frequencies"));
        steps.iter().filter_map(|step| step.parse().ok()).collect()
    }

    /// The energy preferences that a policy knows.
    pub(in crate::machine) fn energy_preferences(&self, policy: &str) -> Vec<String> {
        let dir = self.cpus_dir().join("cpufreq").join(policy);
        words(&dir.join("energy_performance_available_preferences"))
    }

    /// The setting that `read` finds in the policies' directories; when they differ, each
    /// different one, joined by commas.
    pub(super) fn across_policies(&self, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
        let mut found: Vec<String> = Vec::new();
        for dir in self.policy_dirs() {
            found.extend(read(&dir).filter(|value| !found.contains(value)));
        }
        (!found.is_empty()).then(|| found.join(", "))
    }

    fn policy_dirs(&self) -> Vec<PathBuf> {
        let dir = self.cpus_dir().join("cpufreq");
        let number = |name: &str| name.strip_prefix("policy")?.parse::<u32>().ok();
        let mut numbers: Vec<u32> = entries(&dir)
            .iter()
            .filter_map(|name| number(name))
            .collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .map(|n| dir.join(format!("policy{n}")))
            .collect()
    }

    /// Whether CPUs may exceed their nominal frequency.
    pub fn boost(&self) -> Option<Boost> {
        let no_turbo = flag(&self.cpus_dir().join("intel_pstate/no_turbo"));
        let switch = flag(&self.cpus_dir().join("cpufreq/boost"));
        match no_turbo.map(|no| !no).or(switch) {
            // The switch of the whole machine overrules those of its policies.
            Some(false) => Some(Boost::Off),
            all => {
                let each = self
                    .policy_dirs()
                    .into_iter()
                    .filter_map(|dir| flag(&dir.join("boost")));
                let (on, off): (Vec<bool>, Vec<bool>) = each.partition(|&on| on);
                match (on.is_empty(), off.is_empty()) {
                    (true, true) => all.map(|_| Boost::On),
                    (false, true) => Some(Boost::On),
                    (true, false) => Some(Boost::Off),
                    (false, false) => Some(Boost::Mixed),
                }
            }
        }
    }

    /// Whether the machine, a laptop, runs on its battery; unknown where there is no power
    /// supply to ask.
    pub fn on_battery(&self) -> Option<bool> {
        let dir = self.sys("class/power_supply");
        let (mut mains, mut batteries) = (Vec::new(), Vec::new());
        for supply in entries(&dir) {
            let file = |name: &str| word(&dir.join(&supply).join(name));
            // A mouse has a battery too.
            if file("scope").as_deref() == Some("Device") {
                continue;
            }
            match file("type").as_deref() {
                Some("Battery") => batteries.extend(file("status")),
                Some("Mains" | "USB") => mains.extend(file("online")),
                _ => {}
            }
        }
        let discharging = batteries.iter().any(|status| status == "Discharging");
        let plugged = mains.iter().any(|online| online == "1");
        let known = !batteries.is_empty() || !mains.is_empty();
        known.then_some(discharging || !batteries.is_empty() && !mains.is_empty() && !plugged)
    }
}

impl Policy {
    /// Whether the CPUs really run at `hz` when only one frequency is allowed: within 5 % of it.
    /// `None` where several are allowed.
    pub fn is_kept_at(&self, hz: f64) -> Option<bool> {
        let only_khz = self.max_khz.filter(|max| self.min_khz == Some(*max))?;
        Some((hz / (only_khz as f64 * 1e3) - 1.0).abs() <= 0.05)
    }

    /// The frequencies allowed now: `800-4200 MHz`, or `3000 MHz` when there is no choice.
    pub fn range(&self) -> Option<String> {
        Some(range_text(self.min_khz?, self.max_khz?))
    }
}

impl Boost {
    /// `on`, `off`, `mixed`
    pub fn word(self) -> &'static str {
        match self {
            Boost::On => "on",
            Boost::Off => "off",
            Boost::Mixed => "mixed",
        }
    }
}

fn frequency_range(dir: &Path) -> Option<String> {
    Some(range_text(
        number(&dir.join("scaling_min_freq"))?,
        number(&dir.join("scaling_max_freq"))?,
    ))
}

fn range_text(min_khz: u64, max_khz: u64) -> String {
    let (min, max) = (min_khz / 1000, max_khz / 1000);
    if min == max {
        format!("{max} MHz")
    } else {
        format!("{min}-{max} MHz")
    }
}
