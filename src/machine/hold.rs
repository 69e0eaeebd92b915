//! Holding the machine still: the lock, the frequency, CPUs set apart, and the way back, whatever happens to us. The only writer under `/sys` and of cgroups; never measures and never chooses what is measured.
//!
//! What is changed is written down first ([`Journal`], synced to disk), a second process stands by
//! to undo it ([`keeper`]), and only then the first value is written. Whoever dies when, one of
//! them, the next hold or `poise hold --restore` finds the journal and gives everything back; the
//! lock, which both have, is free when that is done.

pub mod keeper;
pub mod lock;

mod cpufreq;
mod journal;
mod partition;
mod setting;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::machine::facts::{CpuList, Virtualization};
use crate::machine::{Facts, Roots};
use crate::sample::Cause;
use crate::sys::privilege;
use keeper::Keeper;
use lock::{Holder, Lock, Refusal, Sharing};

pub use cpufreq::Frequency;
pub use journal::{Error, Journal};
pub use partition::Partition;
pub use setting::{Fate, Setting};

/// Why who shares the lock does not hold the frequency.
const SHARED: &str = "others that share the lock may run at the same time";

/// What is to be held.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Alone, or with others; shared, nothing but the lock is held.
    pub sharing: Sharing,
    /// How long to wait for others who hold; `None`: as long as it takes.
    pub patience: Option<Duration>,
    /// The frequency of all CPUs.
    pub frequency: Frequency,
}

/// The machine, held until this is ended or dropped.
pub struct Hold {
    roots: Roots,
    sharing: Sharing,
    keeper: Option<Keeper>,
    partition: Option<(Partition, Arc<File>)>,
    report: Report,
    /// Dropped last: who gets the lock next finds the machine as it was.
    lock: Option<Lock>,
}

/// What is held and what is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What is held, as noun phrases: `the lock`, `1800 MHz`.
    pub held: Vec<String>,
    /// Whether the frequency is among it.
    pub holds_frequency: bool,
    /// Whether the CPUs that are measured on are set apart.
    pub sets_apart: bool,
    /// What is not, and why.
    pub not_held: Vec<(&'static str, Cause)>,
    /// What did not become as it was asked for, and what an earlier hold has left.
    pub doubts: Vec<String>,
}

/// Something that a hold has changed and gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A value that was written.
    Setting(Setting),
    /// CPUs that were set apart.
    Partition(Partition),
}

/// A change that was given back, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// What it was.
    pub change: Change,
    /// What became of it.
    pub fate: Fate,
}

impl Hold {
    /// Takes the lock, gives back what an earlier hold has left, and holds the frequency as far
    /// as we may. `stop` ends the waiting for others when it polls readable; `waiting` is told
    /// for whom we wait. When an ancestor of ours holds the machine, it is held for us, too, as
    /// far as it is held.
    ///
    /// Errors: [`Refusal`] when the lock cannot be had. All else that cannot be held is told by
    /// [`Hold::report`].
    pub fn begin(
        roots: &Roots,
        wish: Wish,
        stop: BorrowedFd<'_>,
        waiting: &mut dyn FnMut(&[Holder]),
    ) -> Result<Hold, Refusal> {
        let mut hold = Hold {
            roots: roots.clone(),
            sharing: wish.sharing,
            keeper: None,
            partition: None,
            report: Report::default(),
            lock: None,
        };
        let ancestor = lock::holders(roots)
            .into_iter()
            .find(|holder| holder.is_ancestor(roots));
        if let Some(ancestor) = ancestor {
            hold.rely_on(ancestor);
            if wish.frequency != Frequency::default() {
                let doubt = "--freq is not heeded: who started us holds the machine";
                hold.report.doubts.push(doubt.to_owned());
            }
            return Ok(hold);
        }
        let lock = Lock::take(roots, wish.sharing, wish.patience, stop, waiting)?;
        hold.lock = Some(lock);
        match wish.sharing {
            Sharing::Shared => {
                hold.report.held.push("the lock, with others".to_owned());
                let why = Cause::new(SHARED);
                hold.report.not_held.push(("frequency", why));
            }
            Sharing::Exclusive => {
                hold.report.held.push("the lock".to_owned());
                hold.clean_up();
                match hold.hold_frequency(wish.frequency) {
                    Ok(frequency) => {
                        hold.report.held.push(frequency);
                        hold.report.holds_frequency = true;
                    }
                    Err(cause) => hold.report.not_held.push(("frequency", cause)),
                }
            }
        }
        Ok(hold)
    }

    /// Sets `cpus` apart, with the other CPUs of their cores, if we hold the machine alone: from
    /// then on nothing runs there but what enters by [`Hold::entrance`], not even we. Why that
    /// cannot be had is told by [`Hold::report`].
    pub fn set_apart(&mut self, cpus: &CpuList) {
        if self.lock.is_none() || self.sharing == Sharing::Shared {
            return;
        }
        let planned = Partition::plan(&Facts::new(&self.roots), cpus);
        let made = planned.and_then(|plan| plan.map(|plan| self.make(plan)).transpose());
        match made {
            Ok(None) => {}
            Ok(Some(made)) => {
                self.report.sets_apart = true;
                self.partition = Some(made);
            }
            Err(cause) => self.report.not_held.push(("the CPU for itself", cause)),
        }
    }

    /// The file by which processes are let into where CPUs are set apart: whoever writes a
    /// process id to it needs no privilege, for it was opened with ours.
    pub fn entrance(&self) -> Option<Arc<File>> {
        let (_, entrance) = self.partition.as_ref()?;
        Some(Arc::clone(entrance))
    }

    /// What is held and what is not.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Gives everything back, then the lock, and tells what did not come back as it was, or had
    /// not stayed as it was held.
    pub fn end(mut self) -> Vec<String> {
        let made = self.partition.as_ref();
        let mut told: Vec<String> = made
            .and_then(|(partition, _)| partition.lapse(&self.roots))
            .into_iter()
            .collect();
        told.extend(self.give_back());
        told
    }

    /// Leaves the machine as `ancestor` holds it, and tells how that is.
    fn rely_on(&mut self, ancestor: Holder) {
        let holds_frequency = || match Journal::read(&self.roots) {
            Ok(Some(journal)) => {
                Some(journal.holder) == ancestor.pid && !journal.settings.is_empty()
            }
            _ => false,
        };
        let why = match ancestor.sharing {
            Sharing::Shared => Some(SHARED),
            Sharing::Exclusive if holds_frequency() => None,
            Sharing::Exclusive => Some("who started us does not hold it"),
        };
        match why {
            None => self.report.holds_frequency = true,
            Some(why) => self.report.not_held.push(("frequency", Cause::new(why))),
        }
        let by = lock::holders_text(&[ancestor]);
        self.report
            .held
            .push(format!("all that {by} holds, which started us"));
    }

    /// Gives back what an earlier hold has left.
    fn clean_up(&mut self) {
        let found = match give_back(&self.roots) {
            Ok(found) => found,
            Err(error) => return self.report.doubts.push(error.to_string()),
        };
        let restored = found.iter().filter(|one| one.fate == Fate::Restored);
        if restored.count() > 0 {
            self.report
                .doubts
                .push("an earlier hold had left its settings; they were given back".to_owned());
        }
        let complaints = found.iter().filter_map(|one| one.complaint(&self.roots));
        self.report.doubts.extend(complaints);
    }

    /// Gives the frequency that is held now, in words.
    fn hold_frequency(&mut self, wanted: Frequency) -> Result<String, Cause> {
        let facts = Facts::new(&self.roots);
        let mut settings = cpufreq::settings(&facts, wanted).map_err(Cause::new)?;
        if settings.is_empty() {
            return Err(match facts.virtualization() {
                Some(Virtualization::Machine { .. }) => {
                    Cause::new("there is no cpufreq in this virtual machine: the host rules it")
                }
                _ => Cause::new("no cpufreq driver is loaded"),
            });
        }
        for setting in &settings {
            match setting.is_writable(&self.roots) {
                Ok(()) => {}
                Err(Errno::EACCES | Errno::EPERM) => {
                    return Err(Cause::new("only root may set it").cure("sudo poise …"));
                }
                Err(errno) => return Err(Cause::new(format!("/sys: {}", errno.desc()))),
            }
        }
        // What an earlier hold could not give back is still to be given back.
        let pending = Journal::read(&self.roots).map_err(cause)?;
        let (pending, partition) = pending
            .map(|journal| (journal.settings, journal.partition))
            .unwrap_or_default();
        for setting in &mut settings {
            if let Some(first) = pending.iter().find(|first| first.path == setting.path) {
                setting.old.clone_from(&first.old);
            }
        }
        let others = pending
            .into_iter()
            .filter(|old| settings.iter().all(|new| new.path != old.path));
        let mut all: Vec<Setting> = others.collect();
        let first = all.len();
        all.extend(settings);
        let mut journal = Journal::begin(&self.roots, all);
        journal.partition = partition;
        self.write_down(&journal)?;
        let refusals = setting::apply(journal.settings[first..].iter_mut(), &self.roots);
        self.report.doubts.extend(refusals);
        // With what the kernel made of it, so that another's change can be told from ours. Should
        // that fail, the first journal gives back just as well.
        if let Err(error) = journal.write(&self.roots) {
            self.report.doubts.push(error.to_string());
        }
        let facts = Facts::new(&self.roots);
        Ok(facts
            .frequency_range()
            .unwrap_or_else(|| "the frequency".to_owned()))
    }

    /// Makes `partition`, and opens its entrance.
    fn make(&mut self, mut partition: Partition) -> Result<(Partition, Arc<File>), Cause> {
        let journal = Journal::read(&self.roots).map_err(cause)?;
        let mut journal = journal.unwrap_or_else(|| Journal::begin(&self.roots, Vec::new()));
        // What an earlier hold could not give back is still to be given back.
        let earlier = journal.partition.as_ref();
        partition.switched_on |= earlier.is_some_and(|earlier| earlier.switched_on);
        journal.partition = Some(partition.clone());
        self.write_down(&journal)?;
        match partition.make(&self.roots) {
            Ok(entrance) => Ok((partition, Arc::new(entrance))),
            Err(why) => {
                if partition.give_back(&self.roots) == Fate::Restored {
                    journal.partition = None;
                    // The one that is there gives back just as well.
                    let _ = journal.keep(&self.roots);
                }
                Err(Cause::new(why))
            }
        }
    }

    /// Puts on disk what is about to be changed, and sees to it that somebody stands by to give
    /// it back.
    fn write_down(&mut self, journal: &Journal) -> Result<(), Cause> {
        journal.write(&self.roots).map_err(cause)?;
        let (None, Some(lock)) = (&self.keeper, &self.lock) else {
            return Ok(());
        };
        match Keeper::start(&self.roots, lock) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => {
                self.clean_up();
                return Err(Cause::new(format!(
                    "no process to give it back later could be started: {error}"
                )));
            }
        }
        Ok(())
    }

    fn give_back(&mut self) -> Vec<String> {
        let Some(keeper) = self.keeper.take() else {
            return Vec::new();
        };
        // Killed, the keeper has told nothing: then it is ours to do, as the root that we were, if
        // we were.
        let returned = keeper.finish().unwrap_or_else(|| {
            let by_us = privilege::as_root(|| give_back(&self.roots));
            let returned = by_us.unwrap_or_else(|_| give_back(&self.roots));
            returned.map_err(|error| error.to_string())
        });
        match returned {
            Ok(returned) => returned
                .iter()
                .filter_map(|one| one.complaint(&self.roots))
                .collect(),
            Err(error) => vec![error],
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Report {
    /// What is held in fixed words, for comparing: `lock frequency partition`.
    pub fn words(&self) -> String {
        let mut words = "lock".to_owned();
        for (held, word) in [
            (self.holds_frequency, " frequency"),
            (self.sets_apart, " partition"),
        ] {
            words += if held { word } else { "" };
        }
        words
    }

    /// The one line that tells it.
    pub fn line(&self) -> String {
        let mut line = format!("held: {}", self.held.join(", "));
        for (index, (what, cause)) in self.not_held.iter().enumerate() {
            let lead = if index == 0 { "; not held: " } else { ", " };
            line += &format!("{lead}{what} ({})", cause.why);
        }
        line
    }
}

impl Change {
    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Change::Setting(setting) => setting.name(),
            Change::Partition(partition) => partition.name(),
        }
    }

    /// Tells a user what it is and what it would be given back to.
    pub fn story(&self, roots: &Roots) -> String {
        match self {
            Change::Setting(setting) => setting.story(roots),
            Change::Partition(partition) => partition.story(roots),
        }
    }

    /// What it was before, in words.
    pub fn before(&self) -> String {
        match self {
            Change::Setting(setting) => setting.before(),
            Change::Partition(partition) => partition.before(),
        }
    }

    /// The shell command that gives it back by hand.
    pub fn by_hand(&self, roots: &Roots) -> String {
        match self {
            Change::Setting(setting) => setting.by_hand(roots),
            Change::Partition(partition) => partition.by_hand(roots),
        }
    }
}

impl Returned {
    /// What a user should know of it; nothing when it is as it was.
    pub fn complaint(&self, roots: &Roots) -> Option<String> {
        let Returned { change, fate } = self;
        let (name, by_hand) = (change.name(), change.by_hand(roots));
        match fate {
            Fate::Restored => None,
            Fate::Foreign(is) => Some(format!(
                "{name} is {is}: somebody has set it meanwhile, so it was left so; before: {by_hand}"
            )),
            Fate::Failed(why) => Some(format!(
                "{name} could not be given back: {why}; try poise hold --restore, or {by_hand}"
            )),
        }
    }
}

/// Gives back what the journal says, whoever wrote it. The caller has the lock. What failed stays
/// in the journal for another time.
pub fn give_back(roots: &Roots) -> Result<Vec<Returned>, Error> {
    let Some(mut journal) = Journal::read(roots)? else {
        return Ok(Vec::new());
    };
    let mut returned = Vec::new();
    if let Some(partition) = journal.partition.take() {
        let fate = partition.give_back(roots);
        if let Fate::Failed(_) = fate {
            journal.partition = Some(partition.clone());
        }
        let change = Change::Partition(partition);
        returned.push(Returned { change, fate });
    }
    let fates = setting::restore(&journal.settings, roots);
    for (setting, fate) in std::mem::take(&mut journal.settings).into_iter().zip(fates) {
        if let Fate::Failed(_) = fate {
            journal.settings.push(setting.clone());
        }
        let change = Change::Setting(setting);
        returned.push(Returned { change, fate });
    }
    let kept = journal.keep(roots);
    match returned
        .iter()
        .any(|one| matches!(one.fate, Fate::Failed(_)))
    {
        // The one that is there tells more than is left to do, and does no harm.
        true => drop(kept),
        false => kept?,
    }
    Ok(returned)
}

/// The journal that is there, for whoever wants to know what would be given back.
pub fn journal(roots: &Roots) -> Result<Option<Journal>, Error> {
    Journal::read(roots)
}

fn cause(error: Error) -> Cause {
    Cause::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake;

    #[test]
    fn an_ancestor_holds_for_us_what_it_holds() {
        let laptop = fake::laptop();
        let own = std::process::id() as i32;
        let check = |pid, sharing, want| {
            let mut hold = Hold {
                roots: laptop.roots.clone(),
                sharing: Sharing::Exclusive,
                keeper: None,
                partition: None,
                report: Report::default(),
                lock: None,
            };
            hold.rely_on(Holder {
                pid: Some(pid),
                sharing,
                command: None,
                since: None,
                stopped: false,
            });
            let report = hold.report();
            assert_eq!(report.holds_frequency, want, "{pid} {sharing:?}");
            assert_eq!(report.not_held.is_empty(), want, "{pid} {sharing:?}");
        };
        check(own, Sharing::Exclusive, false);
        let settings = cpufreq::settings(&Facts::new(&laptop.roots), Frequency::Usual).unwrap();
        let journal = Journal::begin(&laptop.roots, settings);
        journal.write(&laptop.roots).unwrap();
        check(own, Sharing::Exclusive, true);
        check(own, Sharing::Shared, false);
        // Left by another.
        check(own + 1, Sharing::Exclusive, false);
    }
}
