//! Facts of the machine, read from `/proc` and `/sys`. Read-only: never writes a file, never opens a perf event, and never fails: what cannot be read or understood is unknown (`None` or empty).
//!
//! Every question is asked for itself and reads the few files it needs, so whoever wants two
//! facts pays for two. Nothing is remembered between questions: the machine may change.

mod confinement;
mod cpu;
mod cpulist;
mod file;
mod frequency;
mod mitigations;
mod virtualization;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use caps::Capability;
use nix::time::{ClockId, clock_getres};
use serde::{Deserialize, Serialize};

use file::{entries, flag, hex, number, read, selected, text, word, words};

use crate::sys::privilege::lend;

pub use confinement::{Cgroup, CgroupVersion, Myself, Seccomp};
pub use cpu::{CoreType, Cpu, Smt, Topology};
pub use cpulist::CpuList;
pub use frequency::{Boost, Policy};
pub use mitigations::{Mitigations, Vulnerability, VulnerabilityState};
pub use virtualization::Virtualization;

/// Where `/proc`, `/sys` and our own directory for what must outlive us are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// Normally `/proc`.
    pub proc: PathBuf,
    /// Normally `/sys`.
    pub sys: PathBuf,
    /// Normally `/run/counterpoise`: made by root when it is needed, and gone with the next boot.
    pub run: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots {
            proc: "/proc".into(),
            sys: "/sys".into(),
            run: "/run/counterpoise".into(),
        }
    }
}

/// The machine under the given roots, to be asked for its facts.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'r> {
    roots: &'r Roots,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `6.8.0-45-generic`
    pub release: String,
    /// `#45-Ubuntu SMP PREEMPT_DYNAMIC …`
    pub version: Option<String>,
}

/// Address-space layout randomisation for programs started by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aslr {
    /// Stack, libraries and heap.
    Full,
    /// All but the heap.
    Partial,
    /// None: every run has the same addresses.
    Off,
}

/// Transparent huge pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thp {
    /// `always`, `madvise`, `never`; `off` where programs are kept from them whatever they ask for.
    pub enabled: String,
    /// `always`, `defer`, `defer+madvise`, `madvise`, `never`
    pub defrag: Option<String>,
}

/// What the kernel takes the time from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocksource {
    /// `tsc`, `kvm-clock`, `hpet`, `arch_sys_counter`, …
    pub current: String,
    /// All that could be chosen.
    pub available: Vec<String>,
}

/// Whether a program may read counters by itself, without a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rdpmc {
    /// It may not.
    Off,
    /// It may while it has an event mapped.
    Mapped,
    /// Every program may, at any time.
    Always,
}

/// How the kernel divides CPU time into user and system time.
#[derive(Clone, Debug, PartialEq)]
pub struct Accounting {
    /// Seconds from one scheduler tick to the next.
    pub tick_sec: Option<f64>,
    /// CPUs without a regular tick, where every change between user and kernel is timed.
    pub timed: CpuList,
}

impl Accounting {
    /// How often user and system time are looked at for programs that run on `cpus` alone;
    /// `None` when every change is timed there, or the tick is unknown.
    ///
    /// Only the division is sampled: the sum of both is measured by the scheduler.
    pub fn period_sec(&self, cpus: &CpuList) -> Option<f64> {
        let all_timed = !cpus.is_empty() && cpus.iter().all(|cpu| self.timed.contains(cpu));
        if all_timed { None } else { self.tick_sec }
    }
}

/// The file system in which the kernel describes tracepoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// Mounted here, and we may read it.
    Readable(PathBuf),
    /// Mounted here, but closed to us.
    Closed(PathBuf),
    /// Known to the kernel and not mounted.
    NotMounted,
    /// Not known to this kernel.
    Absent,
}

/// Where transparent huge pages are set, under `/sys`.
const HUGE_PAGES: &str = "kernel/mm/transparent_hugepage";

impl<'r> Facts<'r> {
    /// The machine under `roots`.
    pub fn new(roots: &'r Roots) -> Facts<'r> {
        Facts { roots }
    }

    /// Where the machine is read from.
    pub(super) fn roots(&self) -> &'r Roots {
        self.roots
    }

    /// The facts that belong at the head of every result, by the keys of the Go benchmark
    /// format's configuration lines. Unknown facts are left out.
    pub fn header(roots: &Roots) -> BTreeMap<String, String> {
        let facts = Facts::new(roots);
        let info = facts.cpuinfo();
        let virtualization = facts.virtualization_from(info.as_ref());
        let pairs = [
            ("goos", Some(std::env::consts::OS.to_owned())),
            ("goarch", Some(goarch(std::env::consts::ARCH).to_owned())),
            ("cpu", facts.cpu_from(info.as_ref()).map(|cpu| cpu.model)),
            ("cpus", facts.online().map(|cpus| cpus.len().to_string())),
            ("kernel", facts.kernel().map(|kernel| kernel.release)),
            (
                "virtualization",
                virtualization.map(|v| v.name().to_owned()),
            ),
            ("container", facts.container()),
            (
                "driver",
                facts.across_policies(|dir| word(&dir.join("scaling_driver"))),
            ),
            (
                "governor",
                facts.across_policies(|dir| word(&dir.join("scaling_governor"))),
            ),
            ("frequency-range", facts.frequency_range()),
            ("boost", facts.boost().map(|boost| boost.word().to_owned())),
            ("smt", facts.smt().map(|smt| smt.word().to_owned())),
            ("mitigations", facts.mitigations().summary()),
            ("aslr", facts.aslr(None).map(|aslr| aslr.word().to_owned())),
            ("thp", facts.thp(None).map(|thp| thp.enabled)),
            (
                "clocksource",
                facts.clocksource().map(|clock| clock.current),
            ),
            (
                "perf-event-paranoid",
                facts.perf_event_paranoid().map(|level| level.to_string()),
            ),
        ];
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    /// The kernel's release and version.
    pub fn kernel(&self) -> Option<Kernel> {
        let release = word(&self.proc("sys/kernel/osrelease"))?;
        Some(Kernel {
            release,
            version: word(&self.proc("sys/kernel/version")),
        })
    }

    /// Whether programs that we start find their parts at new addresses in every run. What a
    /// program does not `ask` for it inherits with our personality, which `setarch -R` changes.
    pub fn aslr(&self, ask: Option<bool>) -> Option<Aslr> {
        const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
        let inherited = || {
            let personality = word(&self.proc("self/personality")).and_then(|text| hex(&text));
            personality.is_none_or(|bits| bits & ADDR_NO_RANDOMIZE == 0)
        };
        if !ask.unwrap_or_else(inherited) {
            return Some(Aslr::Off);
        }
        match number::<u32>(&self.proc("sys/kernel/randomize_va_space"))? {
            0 => Some(Aslr::Off),
            1 => Some(Aslr::Partial),
            _ => Some(Aslr::Full),
        }
    }

    /// Whether memory is given in huge pages to programs that we start. What a program does not
    /// `ask` for it inherits: we may have been kept from them by prctl(2).
    pub fn thp(&self, ask: Option<bool>) -> Option<Thp> {
        let dir = self.sys(HUGE_PAGES);
        let enabled = selected(&dir.join("enabled"))?;
        let inherited = || {
            let status = text(&self.proc("self/status")).unwrap_or_default();
            let mut lines = status.lines();
            !lines.any(|line| line.strip_prefix("THP_enabled:").map(str::trim) == Some("0"))
        };
        Some(Thp {
            enabled: match ask.unwrap_or_else(inherited) {
                true => enabled,
                false => "off".to_owned(),
            },
            defrag: selected(&dir.join("defrag")),
        })
    }

    /// Whether there are programs that get transparent huge pages, of one size at least.
    pub fn gives_huge_pages(&self) -> bool {
        let dir = self.sys(HUGE_PAGES);
        let sizes = entries(&dir).into_iter();
        let sizes = sizes.filter(|name| name.starts_with("hugepages-"));
        // What a size inherits is the mode of all, which stands in the directory itself.
        let mut modes = sizes.chain([String::new()]);
        modes.any(|size| {
            let mode = selected(&dir.join(size).join("enabled"));
            mode.is_some_and(|mode| mode == "always" || mode == "madvise")
        })
    }

    /// Whether the scheduler divides CPU time among sessions before it divides it within each.
    pub fn autogroup(&self) -> Option<bool> {
        flag(&self.proc("sys/kernel/sched_autogroup_enabled"))
    }

    /// What the time is taken from.
    pub fn clocksource(&self) -> Option<Clocksource> {
        let dir = self.sys("devices/system/clocksource/clocksource0");
        let current = word(&dir.join("current_clocksource"))?;
        Some(Clocksource {
            current,
            available: words(&dir.join("available_clocksource")),
        })
    }

    /// How much of perf is closed to ordinary users: from -1 (nothing) to 2 (all but their own
    /// user mode); some distributions know 3 and 4 (everything). Unknown on a kernel without
    /// perf events.
    pub fn perf_event_paranoid(&self) -> Option<i32> {
        number(&self.proc("sys/kernel/perf_event_paranoid"))
    }

    /// Whether a program may read counters by itself.
    pub fn rdpmc(&self) -> Option<Rdpmc> {
        let x86 = self.core_types().into_iter().find_map(|core_type| {
            number::<u32>(
                &self
                    .sys("bus/event_source/devices")
                    .join(core_type.pmu)
                    .join("rdpmc"),
            )
        });
        match x86.or_else(|| number(&self.proc("sys/kernel/perf_user_access")))? {
            0 => Some(Rdpmc::Off),
            1 => Some(Rdpmc::Mapped),
            _ => Some(Rdpmc::Always),
        }
    }

    /// Whether the watchdog for hung CPUs is on. On most kernels it holds a hardware counter.
    pub fn nmi_watchdog(&self) -> Option<bool> {
        flag(&self.proc("sys/kernel/nmi_watchdog"))
    }

    /// How the kernel hides its addresses: 0 not, 1 from ordinary users, 2 from all.
    pub fn kptr_restrict(&self) -> Option<u32> {
        number(&self.proc("sys/kernel/kptr_restrict"))
    }

    /// How user and system time are divided. The tick is that of the running kernel, whatever
    /// the roots.
    pub fn accounting(&self) -> Accounting {
        // The coarse clock is moved by the tick, so its resolution is the tick's length.
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok();
        let tick_sec = tick.map(|t| t.tv_sec() as f64 + t.tv_nsec() as f64 * 1e-9);
        Accounting {
            tick_sec,
            timed: self.nohz_full().unwrap_or_default(),
        }
    }

    /// Where tracepoints are described. Looks at the mount table only, for touching
    /// `/sys/kernel/debug/tracing` would mount it.
    pub fn tracefs(&self) -> Tracefs {
        let mounts = read(&self.proc("self/mountinfo"), 1 << 20).unwrap_or_default();
        let mount = mounts
            .lines()
            .filter_map(|line| procfs::process::MountInfo::from_line(line).ok())
            .find(|mount| mount.fs_type == "tracefs");
        if let Some(mount) = mount {
            let events = mount.mount_point.join("events");
            return match lend(Capability::CAP_DAC_READ_SEARCH, || fs::read_dir(events)) {
                Ok(_) => Tracefs::Readable(mount.mount_point),
                Err(_) => Tracefs::Closed(mount.mount_point),
            };
        }
        let known = read(&self.proc("filesystems"), 1 << 16).unwrap_or_default();
        match known.split_whitespace().any(|word| word == "tracefs") {
            true => Tracefs::NotMounted,
            false => Tracefs::Absent,
        }
    }

    /// Whether the kernel describes its own types (BTF), which BPF programs need that shall run
    /// on more than one kernel.
    pub fn btf(&self) -> bool {
        File::open(self.sys("kernel/btf/vmlinux")).is_ok()
    }

    /// The kernel's lockdown: `none`, `integrity` or `confidentiality`.
    pub fn lockdown(&self) -> Option<String> {
        selected(&self.sys("kernel/security/lockdown"))
    }

    /// Whether BPF is closed to ordinary users: 0 not, 1 until the next boot, 2 until it is
    /// changed. Unknown on a kernel without BPF.
    pub fn unprivileged_bpf_disabled(&self) -> Option<u32> {
        number(&self.proc("sys/kernel/unprivileged_bpf_disabled"))
    }

    /// Tasks that ran or wanted to run, on average over the last minute.
    pub fn load(&self) -> Option<f64> {
        let text = text(&self.proc("loadavg"))?;
        let load = <procfs::LoadAverage as procfs::FromRead>::from_read(text.as_bytes()).ok()?;
        Some(f64::from(load.one)).filter(|load| load.is_finite())
    }

    /// Bytes that are swapped out to disk.
    pub fn swap_used_bytes(&self) -> Option<u64> {
        let meminfo = text(&self.proc("meminfo"))?;
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        };
        bytes("SwapTotal:")?.checked_sub(bytes("SwapFree:")?)
    }

    fn cpus_dir(&self) -> PathBuf {
        self.sys("devices/system/cpu")
    }

    fn proc(&self, path: &str) -> PathBuf {
        self.roots.proc.join(path)
    }

    fn sys(&self, path: &str) -> PathBuf {
        self.roots.sys.join(path)
    }
}

impl Aslr {
    /// `full`, `partial`, `off`
    pub fn word(self) -> &'static str {
        match self {
            Aslr::Full => "full",
            Aslr::Partial => "partial",
            Aslr::Off => "off",
        }
    }
}

/// Go's name for an architecture, which benchstat's users know.
fn goarch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests;
