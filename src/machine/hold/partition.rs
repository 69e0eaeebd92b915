//! The CPUs that are measured on, set apart: a cpuset partition, in which the scheduler puts nothing but what was moved there. Makes, fills and removes one cgroup of one name, and touches what is in no other.
//!
//! A partition takes its CPUs away from all other cgroups (Linux, admin-guide/cgroup-v2, "Cpuset").
//! It is one only below a partition, so it stands right below the root of the hierarchy, whose
//! subtree must have the controller `cpuset`. A kernel that cannot grant one says so when it is
//! read back: `isolated invalid (reason)`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};
use procfs::process::MountInfo;
use serde::{Deserialize, Serialize};

use super::setting::{Fate, read, reason};
use crate::machine::facts::{CgroupVersion, CpuList};
use crate::machine::{Facts, Roots};
use crate::sample::Cause;

/// A cpuset partition of ours, as it is to be made and taken away again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its CPUs, as the kernel writes them.
    cpus: String,
    /// Whether the scheduler spreads what runs there over them.
    balanced: bool,
    /// Whether we give the root's subtree the controller `cpuset`, which it has not had.
    pub(super) switched_on: bool,
    /// The cgroup, below the root, that we are in, for those who are still in ours at its end.
    home: String,
}

/// The only cgroup that is ever made or removed: a damaged journal shall do no damage.
const NAME: &str = "counterpoise";

const CONTROLLER: &str = "cpuset";

/// The files by which others would use the controller.
const USES: [&str; 3] = ["cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive"];

/// How long processes may fork away from being moved out.
const EMPTYING: Duration = Duration::from_secs(2);

impl Partition {
    /// The one that sets `cpus` apart, with the other CPUs of their cores; `None` when that would
    /// leave none to the rest of the machine.
    ///
    /// Errors: why it cannot be had.
    pub(super) fn plan(facts: &Facts<'_>, cpus: &CpuList) -> Result<Option<Partition>, Cause> {
        let Some(online) = facts.online() else {
            return Ok(None);
        };
        let cores = cpus.iter().flat_map(|cpu| {
            let siblings = facts.siblings(cpu);
            siblings.iter().collect::<Vec<u32>>()
        });
        let set: CpuList = cores.filter(|&cpu| online.contains(cpu)).collect();
        if set == online {
            return Ok(None);
        }
        let root = root(facts.roots()).ok_or_else(|| Cause::new("no cgroup v2 is mounted"))?;
        if !has_controller(&root.join("cgroup.controllers")) {
            return Err(Cause::new("cgroup v2 does not have the controller cpuset"));
        }
        // Only the root of all has this file, since the kernel which brought it: older ones forget
        // the affinities of other processes when a partition is made.
        if !root.join("cpuset.cpus.isolated").exists() {
            return Err(Cause::new(
                "no partition can be made here: this is a container, or Linux before 6.7",
            ));
        }
        for path in [&root, &root.join("cgroup.procs")] {
            match eaccess(path, AccessFlags::W_OK) {
                Ok(()) => {}
                Err(Errno::EACCES | Errno::EPERM) => {
                    return Err(Cause::new("only root may set it apart").cure("sudo poise …"));
                }
                Err(errno) => {
                    return Err(Cause::new(format!("{}: {}", path.display(), errno.desc())));
                }
            }
        }
        let place = root.join(NAME);
        if place.exists() {
            let cause = Cause::new(format!("{} is there already", place.display()));
            return Err(cause.cure(format!("sudo rmdir {}", place.display())));
        }
        // Their partition would become invalid by ours.
        let free = read(&root.join("cpuset.cpus.effective")).ok();
        let free = free.and_then(|list| CpuList::parse(&list));
        if !free.is_some_and(|free| set.iter().all(|cpu| free.contains(cpu))) {
            return Err(Cause::new("another cpuset partition has it"));
        }
        let isolated = facts.isolated().unwrap_or_default();
        let home = facts
            .cgroup()
            .filter(|ours| ours.version == CgroupVersion::V2);
        Ok(Some(Partition {
            cpus: set.to_string(),
            // Threads that are not spread would all stay on the first of several CPUs; nothing is
            // spread over those that were set apart at boot.
            balanced: cpus.len() > 1 && !cpus.iter().all(|cpu| isolated.contains(cpu)),
            switched_on: !has_controller(&root.join("cgroup.subtree_control")),
            home: home.map(|ours| ours.path).unwrap_or_default(),
        }))
    }

    /// Makes it, and gives the file by which processes enter it. What was begun when it fails is
    /// for [`Partition::give_back`].
    pub(super) fn make(&self, roots: &Roots) -> Result<File, String> {
        let root = root(roots).ok_or("no cgroup v2 is mounted")?;
        let place = root.join(NAME);
        if self.switched_on {
            told_write(&root.join("cgroup.subtree_control"), "+cpuset")?;
        }
        fs::create_dir(&place).map_err(|error| told(&place, &error))?;
        told_write(&place.join("cpuset.cpus"), &self.cpus)?;
        let state = place.join("cpuset.cpus.partition");
        told_write(&state, self.kind())?;
        match read(&state) {
            Ok(is) if is == self.kind() => {}
            Ok(is) => return Err(format!("the kernel made it {is}")),
            Err(error) => return Err(told(&state, &error)),
        }
        let entrance = place.join("cgroup.procs");
        let opened = File::options().write(true).open(&entrance);
        opened.map_err(|error| told(&entrance, &error))
    }

    /// Takes it away, from wherever its making, or an earlier call, has come to.
    pub(super) fn give_back(&self, roots: &Roots) -> Fate {
        let Some(root) = root(roots) else {
            return Fate::Failed("no cgroup v2 is mounted any more".to_owned());
        };
        match self.remove(&root).and_then(|()| self.switch_off(&root)) {
            Ok(()) => Fate::Restored,
            Err(error) => Fate::Failed(reason(&error)),
        }
    }

    /// What has become of it when it is no longer what was made.
    pub(super) fn lapse(&self, roots: &Roots) -> Option<String> {
        let is = self.state(roots);
        (is != self.kind()).then(|| {
            format!(
                "CPUs {} did not stay set apart: {} is {is}",
                self.cpus,
                self.name()
            )
        })
    }

    /// What it is called.
    pub fn name(&self) -> String {
        format!("the partition of CPUs {}", self.cpus)
    }

    /// Tells a user what it is and what it would be given back to.
    pub fn story(&self, roots: &Roots) -> String {
        format!("{} is {}, was none", self.name(), self.state(roots))
    }

    /// What it was before, in words.
    pub fn before(&self) -> String {
        format!("{} is none", self.name())
    }

    /// The shell command that takes it away by hand.
    pub fn by_hand(&self, roots: &Roots) -> String {
        let root = root(roots).unwrap_or_else(|| "/sys/fs/cgroup".into());
        format!("rmdir {}", root.join(NAME).display())
    }

    fn kind(&self) -> &'static str {
        match self.balanced {
            true => "root",
            false => "isolated",
        }
    }

    fn state(&self, roots: &Roots) -> String {
        let file = root(roots).map(|root| root.join(NAME).join("cpuset.cpus.partition"));
        match file.map(|file| read(&file)) {
            Some(Ok(is)) => is,
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                format!("unreadable ({})", reason(&error))
            }
            _ => "none".to_owned(),
        }
    }

    fn remove(&self, root: &Path) -> io::Result<()> {
        let place = root.join(NAME);
        // Whatever else fails, everybody has the CPUs again.
        let _ = write(&place.join("cpuset.cpus.partition"), "member");
        let began = Instant::now();
        loop {
            match fs::remove_dir(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    if began.elapsed() > EMPTYING {
                        return Err(error);
                    }
                }
                removed => return removed,
            }
            self.empty(root, &place);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Moves all who are in it where they came from, or to the root.
    fn empty(&self, root: &Path, place: &Path) {
        let home = Path::new(&self.home);
        let names = home.components().filter(|c| *c != Component::RootDir);
        let home: PathBuf = names.collect();
        let plain = home.components().all(|c| matches!(c, Component::Normal(_)));
        let doors = match plain && !home.starts_with(NAME) {
            true => vec![root.join(home), root.to_owned()],
            false => vec![root.to_owned()],
        };
        let inside = fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // Who has ended cannot be moved, and need not.
            let _ = doors
                .iter()
                .any(|door| write(&door.join("cgroup.procs"), pid).is_ok());
        }
    }

    /// Takes the controller from the root's subtree if nobody else uses it by now.
    fn switch_off(&self, root: &Path) -> io::Result<()> {
        if !self.switched_on || is_used(root)? {
            return Ok(());
        }
        match write(&root.join("cgroup.subtree_control"), "-cpuset") {
            // Somebody below has begun to.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            written => written,
        }
    }
}

/// Where cgroups of version 2 are mounted.
fn root(roots: &Roots) -> Option<PathBuf> {
    let mounts = fs::read_to_string(roots.proc.join("self/mountinfo")).ok()?;
    let mut mounts = mounts
        .lines()
        .filter_map(|line| MountInfo::from_line(line).ok());
    let mount = mounts.find(|mount| mount.fs_type == "cgroup2")?;
    Some(mount.mount_point)
}

fn has_controller(list: &Path) -> bool {
    read(list).is_ok_and(|names| {
        names
            .split_ascii_whitespace()
            .any(|name| name == CONTROLLER)
    })
}

/// Whether a cgroup below the root has settings of its own that would go with the controller.
fn is_used(root: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(root)? {
        let place = entry?.path();
        let is_set = |file| read(&place.join(file)).is_ok_and(|value| !value.is_empty());
        if USES.into_iter().any(is_set) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One write(2), into a file that is there.
fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

fn told_write(path: &Path, value: &str) -> Result<(), String> {
    write(path, value).map_err(|error| told(path, &error))
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {}", path.display(), reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{self, Fake};

    /// A machine whose cgroups are in version 2.
    fn machine(fake: Fake) -> (Fake, PathBuf) {
        let root = fake.roots.sys.join("fs/cgroup");
        fake.proc(
            "self/mountinfo",
            format!(
                "21 1 0:21 / /proc rw - proc proc rw\n\
                 30 1 0:30 / {} rw shared:9 - cgroup2 cgroup2 rw\n",
                root.display()
            ),
        )
        .sys("fs/cgroup/cgroup.controllers", "cpuset cpu io\n")
        .sys("fs/cgroup/cgroup.subtree_control", "cpu\n")
        .sys("fs/cgroup/cgroup.procs", "1\n")
        .sys("fs/cgroup/cpuset.cpus.isolated", "\n")
        .sys("fs/cgroup/cpuset.cpus.effective", "0-7\n");
        (fake, root)
    }

    fn list(text: &str) -> CpuList {
        CpuList::parse(text).unwrap()
    }

    fn planned(fake: &Fake, cpus: &str) -> Partition {
        let plan = Partition::plan(&Facts::new(&fake.roots), &list(cpus));
        plan.unwrap().unwrap()
    }

    #[test]
    fn whole_cores_are_set_apart() {
        let (laptop, _) = machine(fake::laptop());
        for cpu in 0..8 {
            laptop.sys(
                &format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"),
                format!("{},{}\n", cpu % 4, cpu % 4 + 4),
            );
        }
        let check = |cpus: &str, want: Option<(&str, &str)>| {
            let plan = Partition::plan(&Facts::new(&laptop.roots), &list(cpus)).unwrap();
            let got = plan.as_ref().map(|plan| (plan.cpus.as_str(), plan.kind()));
            assert_eq!(got, want, "{cpus}");
        };
        check("1", Some(("1,5", "isolated")));
        check("5", Some(("1,5", "isolated")));
        check("1-2", Some(("1-2,5-6", "root")));
        check("0-3", None);
        laptop.sys("devices/system/cpu/isolated", "1-2\n");
        check("1-2", Some(("1-2,5-6", "isolated")));
        let partition = planned(&laptop, "1");
        assert_eq!(partition.home, "/user.slice");
        assert!(partition.switched_on);
        laptop.sys("fs/cgroup/cgroup.subtree_control", "cpuset cpu\n");
        assert!(!planned(&laptop, "1").switched_on);
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let check = |change: &dyn Fn(&Fake, &Path), want: &str| {
            let (fake, root) = machine(fake::bare_vm());
            change(&fake, &root);
            let cause = Partition::plan(&Facts::new(&fake.roots), &list("1")).unwrap_err();
            assert!(cause.why.contains(want), "{cause}");
        };
        check(
            &|fake, _| {
                fake.proc("self/mountinfo", "");
            },
            "no cgroup v2 is mounted",
        );
        check(
            &|fake, _| {
                fake.sys("fs/cgroup/cgroup.controllers", "cpu io\n");
            },
            "does not have the controller",
        );
        check(
            &|_, root| fs::remove_file(root.join("cpuset.cpus.isolated")).unwrap(),
            "a container, or Linux before 6.7",
        );
        check(
            &|fake, _| {
                fake.sys("fs/cgroup/cpuset.cpus.effective", "0,2-7\n");
            },
            "another cpuset partition",
        );
        check(
            &|_, root| fs::create_dir(root.join(NAME)).unwrap(),
            "is there already",
        );
    }

    #[test]
    fn a_failure_is_undone_and_undoing_can_be_repeated() {
        let (fake, root) = machine(fake::bare_vm());
        let partition = planned(&fake, "1");
        // No kernel fills the directory here.
        let why = partition.make(&fake.roots).unwrap_err();
        assert!(
            why.ends_with("cpuset.cpus: No such file or directory"),
            "{why}"
        );
        assert!(root.join(NAME).is_dir());
        for _ in 0..2 {
            assert_eq!(partition.give_back(&fake.roots), Fate::Restored);
            assert!(!root.join(NAME).exists());
        }
    }

    #[test]
    fn a_controller_that_others_use_stays_on() {
        let switched = |uses: &str| {
            let (fake, root) = machine(fake::bare_vm());
            let partition = planned(&fake, "1");
            let control = "fs/cgroup/cgroup.subtree_control";
            // Every write begins at the front of a plain file.
            fake.sys(control, "+cpuset")
                .sys("fs/cgroup/user.slice/cpuset.cpus", uses)
                .sys("fs/cgroup/user.slice/cpuset.mems", "\n");
            assert_eq!(partition.give_back(&fake.roots), Fate::Restored);
            read(&root.join("cgroup.subtree_control")).unwrap()
        };
        assert_eq!(switched("\n"), "-cpuset");
        assert_eq!(switched("0\n"), "+cpuset");
    }

    #[test]
    fn who_is_inside_goes_where_he_came_from() {
        let check = |home: &str, want: &str| {
            let (fake, root) = machine(fake::bare_vm());
            fake.sys("fs/cgroup/counterpoise/cgroup.procs", "7\n")
                .sys("fs/cgroup/user.slice/cgroup.procs", "")
                .sys("victim/cgroup.procs", "");
            let partition = Partition {
                home: home.to_owned(),
                ..planned_anyway()
            };
            partition.empty(&root, &root.join(NAME));
            assert_eq!(read(&root.join(want).join("cgroup.procs")).unwrap(), "7");
            assert_eq!(
                read(&fake.roots.sys.join("victim/cgroup.procs")).unwrap(),
                ""
            );
        };
        check("/user.slice", "user.slice");
        check("/gone", "");
        check("", "");
        check("/", "");
        check("/../../victim", "");
        check("/counterpoise", "");
    }

    fn planned_anyway() -> Partition {
        planned(&machine(fake::bare_vm()).0, "1")
    }
}
