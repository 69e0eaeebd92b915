//! Which settings hold the frequency: governor, limits, boost and energy preference of every policy. Only reads and reckons; writes nothing.
//!
//! The order matters. Each setting is written after those that could refuse or undo it, and given
//! back in reverse: boost before the limits that it clamps, the energy preference before the
//! governor `performance`, which fixes it, and of the two limits first the one that does not cross
//! the other.

use std::str::FromStr;

use super::setting::Setting;
use crate::machine::Facts;
use crate::machine::facts::Policy;

/// The frequency to hold.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Frequency {
    /// The nominal one where it is known, else 90 % of the range.
    #[default]
    Usual,
    /// The nominal one; an error where it is not known.
    Base,
    /// The highest one without boost.
    Max,
    /// So far up the range from the lowest to the highest, 0 to 1.
    Share(f64),
    /// This one, or the next lower one that there is.
    Khz(u64),
}

/// Where the nominal frequency is not known: high, and low enough to be kept up in any heat.
const DEFAULT_SHARE: f64 = 0.9;

impl FromStr for Frequency {
    type Err = String;

    fn from_str(text: &str) -> Result<Frequency, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let lower = text.to_ascii_lowercase();
        let khz = |text: &str, scale: f64| {
            let khz = number(text).map(|n| n * scale);
            khz.filter(|khz| (1.0..1e9).contains(khz))
                .map(|khz| Frequency::Khz(khz.round() as u64))
        };
        let parsed = if lower == "base" {
            Some(Frequency::Base)
        } else if lower == "max" {
            Some(Frequency::Max)
        } else if let Some(percent) = lower.strip_suffix('%') {
            number(percent)
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(|percent| Frequency::Share(percent / 100.0))
        } else if let Some(ghz) = lower.strip_suffix("ghz") {
            khz(ghz, 1e6)
        } else if let Some(mhz) = lower.strip_suffix("mhz") {
            khz(mhz, 1e3)
        } else {
            None
        };
        parsed.ok_or_else(|| "write base, max, 90%, 2.4GHz or 1800MHz".to_owned())
    }
}

/// The settings that hold every policy at `frequency`, in the order in which they are to be
/// written, with the values that they have now.
///
/// Errors: the policy whose frequencies are not known, or that has no nominal one.
pub(super) fn settings(facts: &Facts<'_>, frequency: Frequency) -> Result<Vec<Setting>, String> {
    const CPU: &str = "devices/system/cpu";
    let policies = facts.policies();
    let mut settings = Vec::new();
    let mut set = |path: String, wanted: &str| settings.extend(Setting::now(facts, path, wanted));
    for policy in &policies {
        set(format!("{CPU}/cpufreq/{}/boost", policy.name), "0");
    }
    if !policies.is_empty() {
        set(format!("{CPU}/cpufreq/boost"), "0");
        set(format!("{CPU}/intel_pstate/no_turbo"), "1");
    }
    for policy in &policies {
        let file = |name: &str| format!("{CPU}/cpufreq/{}/{name}", policy.name);
        if facts
            .energy_preferences(&policy.name)
            .iter()
            .any(|known| known == "performance")
        {
            set(file("energy_performance_preference"), "performance");
        }
        if policy.governors.iter().any(|known| known == "performance") {
            set(file("scaling_governor"), "performance");
        }
        let khz = wanted_khz(facts, policy, frequency)?;
        let limits = match policy.max_khz {
            Some(max_khz) if max_khz < khz => ["scaling_max_freq", "scaling_min_freq"],
            _ => ["scaling_min_freq", "scaling_max_freq"],
        };
        for limit in limits {
            set(file(limit), &khz.to_string());
        }
    }
    Ok(settings)
}

/// The frequency that `policy` really has for the one that was asked for.
fn wanted_khz(facts: &Facts<'_>, policy: &Policy, frequency: Frequency) -> Result<u64, String> {
    let name = &policy.name;
    let mut steps = facts.frequency_steps_khz(name);
    steps.sort_unstable();
    let range = match (steps.first(), steps.last()) {
        (Some(&low), Some(&high)) => Some((low, high)),
        _ => policy.hardware_min_khz.zip(policy.hardware_max_khz),
    };
    let range = range.filter(|(low, high)| low <= high);
    let (low, high) = range.ok_or_else(|| format!("{name} does not tell its frequencies"))?;
    let base = facts
        .base_khz(policy)
        .filter(|base| (low..=high).contains(base));
    let at = |share: f64| low + ((high - low) as f64 * share).round() as u64;
    let khz = match frequency {
        Frequency::Usual => base.unwrap_or_else(|| at(DEFAULT_SHARE)),
        Frequency::Base => {
            base.ok_or_else(|| format!("{name} does not tell its nominal frequency"))?
        }
        Frequency::Max => high,
        Frequency::Share(share) => at(share),
        Frequency::Khz(khz) => khz.clamp(low, high),
    };
    let lower = steps.iter().rev().find(|&&step| step <= khz);
    Ok(lower.or(steps.first()).copied().unwrap_or(khz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{self, Fake};

    #[test]
    fn frequencies_are_read() {
        let check = |text: &str, want: Option<Frequency>| {
            assert_eq!(text.parse::<Frequency>().ok(), want, "{text}");
        };
        check("base", Some(Frequency::Base));
        check("max", Some(Frequency::Max));
        check("90%", Some(Frequency::Share(0.9)));
        check("2.4GHz", Some(Frequency::Khz(2_400_000)));
        check("1800 MHz", Some(Frequency::Khz(1_800_000)));
        check("2.4ghz", Some(Frequency::Khz(2_400_000)));
        for bad in ["", "101%", "-1%", "2.4", "GHz", "infGHz", "0GHz", "fast"] {
            check(bad, None);
        }
    }

    /// The settings of a machine's first policy and of the whole machine, each `name: old → wanted`.
    fn of_first(fake: &Fake, frequency: Frequency) -> Result<Vec<String>, String> {
        let settings = settings(&Facts::new(&fake.roots), frequency)?;
        let others = |name: &str| name.starts_with("policy") && !name.starts_with("policy0/");
        let told = settings.iter().filter(|setting| !others(&setting.name()));
        Ok(told
            .map(|s| format!("{}: {} → {}", s.name(), s.old, s.wanted))
            .collect())
    }

    #[test]
    fn every_driver_is_held_by_its_own_means() {
        let check = |fake: &Fake, want: &[&str]| {
            assert_eq!(of_first(fake, Frequency::Usual).unwrap(), want);
        };
        check(
            &fake::laptop(),
            &[
                "intel_pstate/no_turbo: 0 → 1",
                "policy0/energy_performance_preference: balance_power → performance",
                "policy0/scaling_governor: powersave → performance",
                "policy0/scaling_min_freq: 400000 → 2800000",
                "policy0/scaling_max_freq: 4700000 → 2800000",
            ],
        );
        check(
            &fake::amd_server(),
            &[
                "policy0/boost: 1 → 0",
                "cpufreq/boost: 1 → 0",
                "policy0/scaling_governor: performance → performance",
                "policy0/scaling_min_freq: 1500000 → 3250000",
                "policy0/scaling_max_freq: 3799000 → 3250000",
            ],
        );
        check(
            &fake::arm_board(),
            &[
                "policy0/scaling_governor: schedutil → performance",
                "policy0/scaling_min_freq: 408000 → 1200000",
                "policy0/scaling_max_freq: 1416000 → 1200000",
            ],
        );
        check(&fake::bare_vm(), &[]);
    }

    #[test]
    fn the_frequency_is_one_that_there_is() {
        let board = fake::arm_board();
        let check = |frequency, want: Result<&str, &str>| {
            let got = of_first(&board, frequency);
            let max = got.map(|all| all.last().unwrap().rsplit(' ').next().unwrap().to_owned());
            assert_eq!(max.as_deref().map_err(|e| &**e), want, "{frequency:?}");
        };
        check(Frequency::Max, Ok("1416000"));
        check(Frequency::Share(0.0), Ok("408000"));
        check(Frequency::Share(0.5), Ok("816000"));
        check(Frequency::Khz(1_300_000), Ok("1200000"));
        check(Frequency::Khz(9_000_000), Ok("1416000"));
        check(Frequency::Khz(1), Ok("408000"));
        check(
            Frequency::Base,
            Err("policy0 does not tell its nominal frequency"),
        );
    }

    #[test]
    fn frequencies_that_make_no_range_are_none() {
        let laptop = fake::laptop();
        let file = "devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq";
        laptop.sys(file, "1000\n");
        let got = of_first(&laptop, Frequency::Khz(2_000_000));
        assert_eq!(got.unwrap_err(), "policy0 does not tell its frequencies");
    }

    #[test]
    fn the_limits_never_cross() {
        let board = fake::arm_board();
        for (file, khz) in [("min", "408000\n"), ("max", "816000\n")] {
            board.sys(
                &format!("devices/system/cpu/cpufreq/policy0/scaling_{file}_freq"),
                khz,
            );
        }
        let settings = of_first(&board, Frequency::Max).unwrap();
        assert_eq!(
            settings[1..],
            [
                "policy0/scaling_max_freq: 816000 → 1416000",
                "policy0/scaling_min_freq: 408000 → 1416000"
            ]
        );
    }
}
