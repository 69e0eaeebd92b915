//! One setting of the machine: a small file under `/sys`, the value it had, the one that holds, and the way back. Never overwrites what somebody else has set.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::AccessFlags;
use serde::{Deserialize, Serialize};

use crate::machine::{Facts, Roots};

/// A file under `/sys` that holds one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Below the root of `/sys`.
    pub(super) path: String,
    /// What it was before.
    pub(super) old: String,
    /// What it is to be while the machine is held.
    pub(super) wanted: String,
    /// What it was once all was written, as the kernel gave it back; nothing while that is still
    /// going on.
    pub(super) now: Option<String>,
}

/// What became of a setting that was to be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is as it was.
    Restored,
    /// Somebody else has changed it meanwhile, to this; it was left so.
    Foreign(String),
    /// It could not be given back, and why.
    Failed(String),
}

/// The only files that are ever written: who could forge a journal is root already, but a damaged
/// one shall do no damage.
const WRITABLE: &str = "devices/system/cpu";

/// Writing one setting can change another (a limit clamped while boost is off, the switch of the
/// whole machine and those of its policies), so what did not stay is written again.
const PASSES: usize = 3;

/// cpufreq takes new limits over in a worker thread, some time after the write.
const SETTLING: Duration = Duration::from_millis(100);

impl Setting {
    /// The setting at `path` as it is now; `None` when there is no such file.
    pub(super) fn now(facts: &Facts<'_>, path: String, wanted: &str) -> Option<Setting> {
        let old = read(&facts.roots().sys.join(&path)).ok()?;
        Some(Setting {
            path,
            old,
            wanted: wanted.to_owned(),
            now: None,
        })
    }

    /// Whether we may write it, or what stands against it.
    pub(super) fn is_writable(&self, roots: &Roots) -> nix::Result<()> {
        nix::unistd::eaccess(&roots.sys.join(&self.path), AccessFlags::W_OK)
    }

    /// The file's name with the policy's: `policy0/scaling_governor`.
    pub fn name(&self) -> String {
        let path = Path::new(&self.path);
        let part = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let parent = path.parent().and_then(part).unwrap_or_default();
        format!("{parent}/{}", part(path).unwrap_or_default())
    }

    /// Tells a user what the setting is and what it would be given back to.
    pub fn story(&self, roots: &Roots) -> String {
        let is = read(&roots.sys.join(&self.path))
            .unwrap_or_else(|error| format!("unreadable ({})", reason(&error)));
        format!("{} is {is}, was {}", self.name(), self.old)
    }

    /// What it was before, in words.
    pub fn before(&self) -> String {
        format!("{} is {}", self.name(), self.old)
    }

    /// The shell command that sets the old value by hand.
    pub fn by_hand(&self, roots: &Roots) -> String {
        format!(
            "echo {} > {}",
            self.old,
            roots.sys.join(&self.path).display()
        )
    }

    fn file(&self, roots: &Roots) -> io::Result<PathBuf> {
        let path = Path::new(&self.path);
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        match plain && path.starts_with(WRITABLE) {
            true => Ok(roots.sys.join(path)),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a setting of a CPU",
            )),
        }
    }

    fn write(&self, roots: &Roots, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.file(roots)?)?;
        // One write(2): the kernel takes each for a whole value.
        file.write_all(format!("{value}\n").as_bytes())
    }

    fn read(&self, roots: &Roots) -> io::Result<String> {
        read(&self.file(roots)?)
    }

    fn is(&self, value: &str, roots: &Roots) -> bool {
        matches!(self.read(roots), Ok(is) if is == value)
    }

    /// What it is, if somebody else has set that since all was written.
    fn foreign(&self, roots: &Roots) -> Option<String> {
        let (is, now) = (self.read(roots).ok()?, self.now.as_ref()?);
        // Empty is no value, but a plain file in whose writing somebody was killed.
        if is == *now || is == self.old || is == self.wanted || is.is_empty() {
            return None;
        }
        // The lower limit shows no more than the upper one, whatever was asked of it.
        let upper = self.path.strip_suffix("scaling_min_freq");
        let upper = upper.map(|policy| roots.sys.join(policy).join("scaling_max_freq"));
        let is_clamped = upper.is_some_and(|upper| matches!(read(&upper), Ok(max) if max == is));
        (!is_clamped).then_some(is)
    }
}

/// Writes what is wanted, and reads back what came of it into `now`. Gives, for each setting that
/// did not take, what it is, or why it could not be written.
pub(super) fn apply<'s>(
    settings: impl Iterator<Item = &'s mut Setting>,
    roots: &Roots,
) -> Vec<String> {
    let mut settings: Vec<&mut Setting> = settings.collect();
    let mut errors: Vec<Option<io::Error>> = settings.iter().map(|_| None).collect();
    let took = |setting: &Setting| setting.is(&setting.wanted, roots);
    for _ in 0..PASSES {
        for (setting, error) in settings.iter().zip(&mut errors) {
            if !took(setting) {
                *error = setting.write(roots, &setting.wanted).err();
            }
        }
        if settled(|| settings.iter().all(|setting| took(setting))) {
            break;
        }
    }
    let mut refusals = Vec::new();
    for (setting, error) in settings.iter_mut().zip(errors) {
        let is = setting.read(roots);
        let refusal = match (&is, error) {
            (Ok(is), _) if *is == setting.wanted => None,
            (_, Some(error)) => Some(reason(&error)),
            (Ok(is), None) => Some(format!("the kernel made it {is}")),
            (Err(error), None) => Some(reason(error)),
        };
        refusals.extend(refusal.map(|why| {
            format!(
                "{} did not become {}: {why}",
                setting.name(),
                setting.wanted
            )
        }));
        setting.now = is.ok();
    }
    refusals
}

/// Gives back all of `settings`, in reverse, and tells what became of each, in their order.
pub(super) fn restore(settings: &[Setting], roots: &Roots) -> Vec<Fate> {
    // All are judged before the first is written, which may change others.
    let mut fates: Vec<Fate> = settings
        .iter()
        .map(|setting| match setting.foreign(roots) {
            Some(is) => Fate::Foreign(is),
            None => Fate::Restored,
        })
        .collect();
    for _ in 0..PASSES {
        for (setting, fate) in settings.iter().zip(&mut fates).rev() {
            if matches!(fate, Fate::Foreign(_)) || setting.is(&setting.old, roots) {
                continue;
            }
            *fate = match setting.write(roots, &setting.old) {
                Ok(()) => Fate::Restored,
                Err(error) => Fate::Failed(reason(&error)),
            };
        }
        let all_back = || {
            let mut written = settings.iter().zip(&fates);
            written
                .all(|(setting, fate)| *fate != Fate::Restored || setting.is(&setting.old, roots))
        };
        if settled(all_back) {
            break;
        }
    }
    for (setting, fate) in settings.iter().zip(&mut fates) {
        match fate {
            Fate::Foreign(_) => {}
            _ if setting.is(&setting.old, roots) => *fate = Fate::Restored,
            Fate::Failed(_) => {}
            Fate::Restored => {
                *fate = Fate::Failed(match setting.read(roots) {
                    Ok(is) => format!("the kernel made it {is}"),
                    Err(error) => reason(&error),
                })
            }
        }
    }
    fates
}

/// Whether `holds` comes true before long.
fn settled(holds: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > SETTLING {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The value without the white space round it.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(4096).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::cpufreq::{Frequency, settings};
    use super::*;
    use crate::machine::fake::{self, Fake};

    const POLICY: &str = "devices/system/cpu/cpufreq/policy0";

    fn machine() -> (Fake, Vec<Setting>) {
        let fake = fake::laptop();
        let settings = settings(&Facts::new(&fake.roots), Frequency::Usual).unwrap();
        (fake, settings)
    }

    /// All files below /sys with their contents.
    fn tree(fake: &Fake) -> Vec<(PathBuf, String)> {
        let files = fake.files().into_iter();
        files
            .filter(|file| file.starts_with(&fake.roots.sys))
            .map(|file| (file.clone(), fs::read_to_string(file).unwrap_or_default()))
            .collect()
    }

    fn get(fake: &Fake, file: &str) -> String {
        read(&fake.roots.sys.join(POLICY).join(file)).unwrap()
    }

    #[test]
    fn what_was_written_is_given_back() {
        let (fake, mut settings) = machine();
        let before = tree(&fake);
        assert_eq!(
            apply(settings.iter_mut(), &fake.roots),
            Vec::<String>::new()
        );
        assert_eq!(get(&fake, "scaling_governor"), "performance");
        assert_eq!(get(&fake, "scaling_max_freq"), "2800000");
        let fates = restore(&settings, &fake.roots);
        assert!(fates.iter().all(|fate| *fate == Fate::Restored));
        assert_eq!(tree(&fake), before);
    }

    #[test]
    fn however_far_it_came_there_is_a_way_back() {
        for written in 0..=machine().1.len() {
            let (fake, mut settings) = machine();
            let (before, journal) = (tree(&fake), settings.clone());
            apply(settings.iter_mut().take(written), &fake.roots);
            restore(&journal, &fake.roots);
            assert_eq!(tree(&fake), before, "{written} settings");
        }
    }

    #[test]
    fn what_somebody_else_has_set_is_left() {
        let (fake, mut settings) = machine();
        apply(settings.iter_mut(), &fake.roots);
        fake.sys(&format!("{POLICY}/scaling_max_freq"), "3000000\n");
        let fates = restore(&settings, &fake.roots);
        let foreign: Vec<_> = settings
            .iter()
            .zip(fates)
            .filter(|(_, fate)| *fate != Fate::Restored)
            .map(|(setting, fate)| (setting.name(), fate))
            .collect();
        assert_eq!(
            foreign,
            [(
                "policy0/scaling_max_freq".to_owned(),
                Fate::Foreign("3000000".to_owned())
            )]
        );
        assert_eq!(get(&fake, "scaling_max_freq"), "3000000");
        assert_eq!(get(&fake, "scaling_governor"), "powersave");
    }

    #[test]
    fn a_lower_limit_under_anothers_upper_one_is_ours() {
        let (fake, mut settings) = machine();
        apply(settings.iter_mut(), &fake.roots);
        for file in ["scaling_max_freq", "scaling_min_freq"] {
            fake.sys(&format!("{POLICY}/{file}"), "1200000\n");
        }
        restore(&settings, &fake.roots);
        assert_eq!(get(&fake, "scaling_max_freq"), "1200000");
        assert_eq!(get(&fake, "scaling_min_freq"), "400000");
    }

    #[test]
    fn before_all_is_written_any_value_is_ours() {
        let (fake, settings) = machine();
        // As the kernel would clamp what we have written, before we could read it back.
        fake.sys(&format!("{POLICY}/scaling_max_freq"), "2700000\n");
        let fates = restore(&settings, &fake.roots);
        assert!(fates.iter().all(|fate| *fate == Fate::Restored));
        assert_eq!(get(&fake, "scaling_max_freq"), "4700000");
    }

    #[test]
    fn every_setting_is_tried_even_when_others_fail() {
        let (fake, mut settings) = machine();
        apply(settings.iter_mut(), &fake.roots);
        let policy = fake.roots.sys.join(POLICY);
        fs::rename(&policy, policy.with_file_name("gone")).unwrap();
        let fates = restore(&settings, &fake.roots);
        for (setting, fate) in settings.iter().zip(&fates) {
            let gone = setting.name().starts_with("policy0/");
            assert_eq!(
                matches!(fate, Fate::Failed(why) if why == "No such file or directory"),
                gone
            );
        }
        fs::rename(policy.with_file_name("gone"), &policy).unwrap();
        assert!(
            restore(&settings, &fake.roots)
                .iter()
                .all(|fate| *fate == Fate::Restored)
        );
        assert_eq!(get(&fake, "energy_performance_preference"), "balance_power");
    }

    #[test]
    fn nothing_but_settings_of_cpus_is_written() {
        let fake = fake::laptop();
        for path in [
            "kernel/btf/vmlinux",
            "devices/system/cpu/../../../../proc/stat",
            "/etc/passwd",
        ] {
            let forged = Setting {
                path: path.to_owned(),
                old: "0".to_owned(),
                wanted: "1".to_owned(),
                now: None,
            };
            let fate = restore(&[forged], &fake.roots);
            assert_eq!(
                fate,
                [Fate::Failed("not a setting of a CPU".to_owned())],
                "{path}"
            );
        }
    }
}
