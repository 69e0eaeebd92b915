//! What we ourselves may do: user, capabilities, seccomp, CPUs and the cgroup's share. Only reads; never changes or drops anything.

use std::path::{Component, Path, PathBuf};

use caps::Capability;
use procfs::FromBufRead;

use super::file::{number, read, text, word};
use super::{CpuList, Facts};

/// Our own process, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// Effective user.
    pub euid: u32,
    /// Permitted capabilities, one bit each as in `/proc/self/status`; ask [`Myself::can`]. Some
    /// of them we wake for a step only ([`crate::sys::privilege`]).
    pub capabilities: u64,
    /// Whether the user ids are those of the whole machine. In a user namespace of its own a
    /// process may have every capability, and none that counts for perf or BPF.
    pub initial_user_namespace: bool,
    /// Which system calls are filtered; unknown on a kernel without seccomp.
    pub seccomp: Option<Seccomp>,
    /// Whether starting a program can no longer raise privileges.
    pub no_new_privs: bool,
    /// The CPUs that we may run on.
    pub cpus: CpuList,
}

impl Myself {
    /// Whether we have `capability`, and over the whole machine.
    pub fn can(&self, capability: Capability) -> bool {
        self.initial_user_namespace && self.capabilities & capability.bitmask() != 0
    }

    /// Whether perf's limits for ordinary users don't bind us.
    pub fn can_perf(&self) -> bool {
        self.can(Capability::CAP_PERFMON) || self.can(Capability::CAP_SYS_ADMIN)
    }

    /// Whether we may load BPF programs that trace the kernel.
    pub fn can_bpf(&self) -> bool {
        let pair = self.can(Capability::CAP_BPF) && self.can(Capability::CAP_PERFMON);
        pair || self.can(Capability::CAP_SYS_ADMIN)
    }
}

/// How system calls are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// Not at all.
    Off,
    /// Everything but read, write and exit is refused.
    Strict,
    /// By a filter, which may refuse any call.
    Filter,
}

/// Which version of cgroups has the CPU controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The cgroup that rules our CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct Cgroup {
    /// Which version has the CPU controller.
    pub version: CgroupVersion,
    /// Its path in the hierarchy.
    pub path: String,
    /// The most CPU time it may use, in CPUs (0.5 is half of one), the strictest of it and its
    /// parents; `None` when unlimited.
    pub cpu_quota: Option<f64>,
}

impl Facts<'_> {
    /// Our own process.
    pub fn myself(&self) -> Option<Myself> {
        let status = read(&self.proc("self/status"), 1 << 16)?;
        let status = procfs::process::Status::from_buf_read(status.as_bytes()).ok()?;
        // `inside outside length`: the initial namespace maps all ids to themselves.
        let map = text(&self.proc("self/uid_map")).unwrap_or_default();
        let map: Vec<&str> = map.split_whitespace().collect();
        let ranges = status.cpus_allowed_list.unwrap_or_default();
        let list: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
        Some(Myself {
            euid: status.euid,
            capabilities: status.capprm,
            // Without user namespaces there is no map.
            initial_user_namespace: map.is_empty() || map == ["0", "0", "4294967295"],
            seccomp: status.seccomp.and_then(|mode| match mode {
                0 => Some(Seccomp::Off),
                1 => Some(Seccomp::Strict),
                2 => Some(Seccomp::Filter),
                _ => None,
            }),
            no_new_privs: status.nonewprivs == Some(1),
            cpus: CpuList::parse(&list.join(",")).unwrap_or_default(),
        })
    }

    /// The cgroup that rules our CPU time.
    pub fn cgroup(&self) -> Option<Cgroup> {
        let groups = read(&self.proc("self/cgroup"), 1 << 16)?;
        let groups = procfs::ProcessCGroups::from_buf_read(groups.as_bytes())
            .ok()?
            .0;
        let has_cpu = |controllers: &[String]| controllers.iter().any(|name| name == "cpu");
        let root = self.sys("fs/cgroup");
        if let Some(group) = groups.iter().find(|group| has_cpu(&group.controllers)) {
            let mounts = ["cpu".to_owned(), group.controllers.join(",")];
            let mount = mounts
                .iter()
                .map(|name| root.join(name))
                .find(|dir| dir.is_dir());
            let cpu_quota = mount.and_then(|mount| strictest(&mount, &group.pathname, quota_v1));
            return Some(Cgroup {
                version: CgroupVersion::V1,
                path: group.pathname.clone(),
                cpu_quota,
            });
        }
        let group = groups.iter().find(|group| group.hierarchy == 0)?;
        let cpu_quota = strictest(&root, &group.pathname, quota_v2);
        Some(Cgroup {
            version: CgroupVersion::V2,
            path: group.pathname.clone(),
            cpu_quota,
        })
    }
}

/// The smallest quota of the group at `path` below `mount` and of all its parents. In a
/// container the path may be the host's and lead nowhere; its own limit then stands at the top.
fn strictest(mount: &Path, path: &str, quota: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let names = Path::new(path)
        .components()
        .filter(|c| matches!(c, Component::Normal(_)));
    let relative: PathBuf = names.collect();
    let quotas = relative
        .ancestors()
        .filter_map(|dir| quota(&mount.join(dir)));
    quotas.reduce(f64::min)
}

/// cgroup v2: `cpu.max` holds `50000 100000` (µs in each period) or `max 100000`.
fn quota_v2(dir: &Path) -> Option<f64> {
    let max = word(&dir.join("cpu.max"))?;
    let (quota, period) = max.split_once(' ')?;
    share(quota.parse().ok()?, period.parse().ok()?)
}

/// cgroup v1: µs in each period, -1 for no limit.
fn quota_v1(dir: &Path) -> Option<f64> {
    share(
        number(&dir.join("cpu.cfs_quota_us"))?,
        number(&dir.join("cpu.cfs_period_us"))?,
    )
}

fn share(quota_us: i64, period_us: i64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{self, ALL_CAPABILITIES, Fake};

    #[test]
    fn capabilities_count_only_over_the_whole_machine() {
        let root = fake::bare_vm();
        let root = Facts::new(&root.roots).myself().unwrap();
        assert!(root.can_perf() && root.can_bpf() && root.can(Capability::CAP_SYS_NICE));
        assert_eq!((root.euid, root.seccomp), (0, Some(Seccomp::Off)));
        assert_eq!(root.cpus.to_string(), "0-1");

        let namespaced = fake::hybrid();
        let namespaced = Facts::new(&namespaced.roots).myself().unwrap();
        assert_eq!(namespaced.capabilities, ALL_CAPABILITIES);
        assert!(!namespaced.can_perf() && !namespaced.can_bpf());

        let docker = fake::docker();
        let docker = Facts::new(&docker.roots).myself().unwrap();
        assert_eq!(docker.seccomp, Some(Seccomp::Filter));
        assert!(!docker.can_perf() && docker.can(Capability::CAP_CHOWN));
    }

    #[test]
    fn one_of_two_capabilities_is_not_enough_for_bpf() {
        let fake = Fake::new();
        let check = |caps: &[Capability], perf: bool, bpf: bool| {
            fake.status(1000, caps.iter().map(|cap| cap.bitmask()).sum(), 0);
            let myself = Facts::new(&fake.roots).myself().unwrap();
            assert_eq!(
                (myself.can_perf(), myself.can_bpf()),
                (perf, bpf),
                "{caps:?}"
            );
        };
        check(&[], false, false);
        check(&[Capability::CAP_PERFMON], true, false);
        check(&[Capability::CAP_BPF], false, false);
        check(&[Capability::CAP_BPF, Capability::CAP_PERFMON], true, true);
        check(&[Capability::CAP_SYS_ADMIN], true, true);
    }

    #[test]
    fn the_strictest_quota_rules() {
        let check =
            |groups: &str, files: &[(&str, &str)], want: Option<(CgroupVersion, Option<f64>)>| {
                let fake = Fake::new();
                fake.proc("self/cgroup", groups);
                for (path, content) in files {
                    fake.sys(&format!("fs/cgroup/{path}"), content);
                }
                let got = Facts::new(&fake.roots)
                    .cgroup()
                    .map(|g| (g.version, g.cpu_quota));
                assert_eq!(got, want, "{groups:?}");
            };
        let (v1, v2) = (CgroupVersion::V1, CgroupVersion::V2);
        let nested = [
            ("a/cpu.max", "200000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
        ];
        check("0::/a/b\n", &nested, Some((v2, Some(2.0))));
        check(
            "0::/\n",
            &[("cpu.max", "50000 100000\n")],
            Some((v2, Some(0.5))),
        );
        check(
            "0::/../../elsewhere\n",
            &[("cpu.max", "junk\n")],
            Some((v2, None)),
        );
        let legacy = [
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        check("4:cpu,cpuacct:/x\n0::/\n", &legacy, Some((v1, Some(1.5))));
        let unlimited = [
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        check("1:cpu:/gone\n", &unlimited, Some((v1, None)));
        check("nonsense\n", &[], None);
    }
}
