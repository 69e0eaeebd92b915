//! Facts of the machine, read from `/proc` and `/sys`. Read-only: never writes a file, never opens a perf event, and never fails: what cannot be read or understood is unknown (`None` or empty).
//!
//! Every question is asked for itself and reads the few files it needs, so whoever wants two
//! facts pays for two. Nothing is remembered between questions: the machine may change.

mod confinement;
mod cpulist;
mod virtualization;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::time::{ClockId, clock_getres};
use procfs::FromBufRead;

pub use confinement::{Cgroup, CgroupVersion, Myself, Seccomp};
pub use cpulist::CpuList;
pub use virtualization::Virtualization;

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Normally `/proc`.
    pub proc: PathBuf,
    /// Normally `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots {
            proc: "/proc".into(),
            sys: "/sys".into(),
        }
    }
}

/// The machine under the given roots, to be asked for its facts.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'r> {
    roots: &'r Roots,
}

/// What the CPU calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// `AMD EPYC 9354 32-Core Processor`, `Cortex-A53 + Cortex-A72`.
    pub model: String,
    /// `GenuineIntel`, `AuthenticAMD`, `ARM`, …
    pub vendor: Option<String>,
}

/// How many sockets, cores and CPUs are in use. What is offline is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Physical packages.
    pub sockets: usize,
    /// Cores of all packages.
    pub cores: usize,
    /// CPUs: hardware threads.
    pub cpus: usize,
}

/// Simultaneous multithreading: whether CPUs share cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smt {
    /// CPUs share cores.
    On,
    /// It could be on, but is switched off.
    Off,
    /// The CPU has none, or does not show it.
    Absent,
}

/// A PMU that counts in the cores, with the CPUs it belongs to. Most machines have one, hybrid
/// machines have one for each type of core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreType {
    /// `cpu`, `cpu_core`, `cpu_atom`, `armv8_cortex_a72`, …
    pub pmu: String,
    /// The CPUs of this type.
    pub cpus: CpuList,
}

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `6.8.0-45-generic`
    pub release: String,
    /// `#45-Ubuntu SMP PREEMPT_DYNAMIC …`
    pub version: Option<String>,
}

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
    /// `always`, `madvise`, `never`
    pub enabled: String,
    /// `always`, `defer`, `defer+madvise`, `madvise`, `never`
    pub defrag: Option<String>,
}

/// What the kernel says of one hardware vulnerability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vulnerability {
    /// `spectre_v2`, `meltdown`, …
    pub name: String,
    /// Whether it is dealt with.
    pub state: VulnerabilityState,
    /// The kernel's own words.
    pub text: String,
}

/// Whether a vulnerability is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VulnerabilityState {
    /// This CPU does not have it.
    NotAffected,
    /// The kernel works round it, which costs time.
    Mitigated,
    /// It has it and nothing is done.
    Vulnerable,
    /// The kernel does not know.
    Unknown,
}

/// Mitigations of hardware vulnerabilities.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mitigations {
    /// The value of `mitigations=` on the kernel command line.
    pub boot: Option<String>,
    /// Every vulnerability that the kernel knows, by name.
    pub vulnerabilities: Vec<Vulnerability>,
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

impl<'r> Facts<'r> {
    /// The machine under `roots`.
    pub fn new(roots: &'r Roots) -> Facts<'r> {
        Facts { roots }
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
            ("frequency-range", facts.across_policies(frequency_range)),
            ("boost", facts.boost().map(|boost| boost.word().to_owned())),
            ("smt", facts.smt().map(|smt| smt.word().to_owned())),
            ("mitigations", facts.mitigations().summary()),
            ("aslr", facts.aslr().map(|aslr| aslr.word().to_owned())),
            ("thp", facts.thp().map(|thp| thp.enabled)),
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

    /// The CPU's model and vendor. Where cores of several types are known, all are named.
    pub fn cpu(&self) -> Option<Cpu> {
        self.cpu_from(self.cpuinfo().as_ref())
    }

    fn cpu_from(&self, info: Option<&procfs::CpuInfo>) -> Option<Cpu> {
        let field = |name| info.and_then(|info| info.get_field(0, name));
        if let Some(model) = field("model name").or_else(|| field("cpu")) {
            let vendor = field("vendor_id").map(str::to_owned);
            return Some(Cpu {
                model: model.to_owned(),
                vendor,
            });
        }
        let mut midrs: Vec<u64> = self
            .core_types()
            .iter()
            .filter_map(|t| self.midr(&t.cpus))
            .collect();
        if midrs.is_empty() {
            let implementer = field("CPU implementer").and_then(hex);
            let part = field("CPU part").and_then(hex);
            midrs.extend(implementer.zip(part).map(|(i, p)| i << 24 | p << 4));
        }
        let names: Vec<String> = midrs.iter().map(|&midr| arm_core(midr)).collect();
        let vendor = midrs
            .first()
            .filter(|&midr| midr >> 24 == 0x41)
            .map(|_| "ARM".to_owned());
        match names.is_empty() {
            false => Some(Cpu {
                model: names.join(" + "),
                vendor,
            }),
            true => word(&self.proc("device-tree/model")).map(|model| Cpu {
                model,
                vendor: None,
            }),
        }
    }

    /// The CPUs that are online.
    pub fn online(&self) -> Option<CpuList> {
        self.cpu_list("online").filter(|cpus| !cpus.is_empty())
    }

    /// The CPUs that the scheduler leaves alone (`isolcpus=`).
    pub fn isolated(&self) -> Option<CpuList> {
        self.cpu_list("isolated")
    }

    /// The CPUs without a regular tick (`nohz_full=`); unknown on kernels that cannot do it.
    pub fn nohz_full(&self) -> Option<CpuList> {
        self.cpu_list("nohz_full")
    }

    /// Sockets, cores and CPUs in use. Reads two files for each CPU.
    pub fn topology(&self) -> Option<Topology> {
        let online = self.online()?;
        let mut cores = Vec::new();
        for cpu in online.iter() {
            let dir = self.cpus_dir().join(format!("cpu{cpu}/topology"));
            let id = |file: &str| number::<i64>(&dir.join(file));
            cores.push((id("physical_package_id")?, id("core_id")?));
        }
        cores.sort_unstable();
        cores.dedup();
        let mut sockets: Vec<i64> = cores.iter().map(|core| core.0).collect();
        sockets.dedup();
        Some(Topology {
            sockets: sockets.len(),
            cores: cores.len(),
            cpus: online.len(),
        })
    }

    /// Whether CPUs share cores.
    pub fn smt(&self) -> Option<Smt> {
        let dir = self.cpus_dir().join("smt");
        match flag(&dir.join("active"))? {
            true => Some(Smt::On),
            false => match word(&dir.join("control")).as_deref() {
                Some("notsupported" | "notimplemented") => Some(Smt::Absent),
                _ => Some(Smt::Off),
            },
        }
    }

    /// The PMUs of the cores, sorted by name: none where nothing counts in hardware, several on
    /// a hybrid machine.
    pub fn core_types(&self) -> Vec<CoreType> {
        let devices = self.sys("bus/event_source/devices");
        let core_type = |pmu: String| {
            // PMUs outside the cores have a `cpumask`; those of the cores have `cpus`, except
            // x86's `cpu`, which belongs to all of them.
            let cpus = match word(&devices.join(&pmu).join("cpus")) {
                Some(list) => CpuList::parse(&list)?,
                None if pmu == "cpu" => self.online().unwrap_or_default(),
                None => return None,
            };
            Some(CoreType { pmu, cpus })
        };
        entries(&devices)
            .into_iter()
            .filter_map(core_type)
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

    /// The setting that `read` finds in the policies' directories; when they differ, each
    /// different one, joined by commas.
    fn across_policies(&self, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
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

    /// Whether programs that we start find their parts at new addresses in every run. Takes our
    /// own personality into account, which `setarch -R` changes and children inherit.
    pub fn aslr(&self) -> Option<Aslr> {
        const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
        let personality = word(&self.proc("self/personality")).and_then(|text| hex(&text));
        if personality.is_some_and(|bits| bits & ADDR_NO_RANDOMIZE != 0) {
            return Some(Aslr::Off);
        }
        match number::<u32>(&self.proc("sys/kernel/randomize_va_space"))? {
            0 => Some(Aslr::Off),
            1 => Some(Aslr::Partial),
            _ => Some(Aslr::Full),
        }
    }

    /// Whether memory is given in huge pages without being asked for.
    pub fn thp(&self) -> Option<Thp> {
        let dir = self.sys("kernel/mm/transparent_hugepage");
        let enabled = selected(&dir.join("enabled"))?;
        Some(Thp {
            enabled,
            defrag: selected(&dir.join("defrag")),
        })
    }

    /// Every vulnerability that the kernel knows, and what it does about it.
    pub fn mitigations(&self) -> Mitigations {
        let dir = self.cpus_dir().join("vulnerabilities");
        let vulnerability = |name: String| {
            let text = word(&dir.join(&name))?;
            let verdict = text.strip_prefix("KVM: ").unwrap_or(&text);
            let starts = |start| verdict.starts_with(start);
            let state = match () {
                () if starts("Not affected") => VulnerabilityState::NotAffected,
                () if starts("Mitigation") => VulnerabilityState::Mitigated,
                () if starts("Vulnerable") || starts("Processor vulnerable") => {
                    VulnerabilityState::Vulnerable
                }
                () => VulnerabilityState::Unknown,
            };
            Some(Vulnerability { name, state, text })
        };
        Mitigations {
            boot: self.boot_parameter("mitigations"),
            vulnerabilities: entries(&dir)
                .into_iter()
                .filter_map(vulnerability)
                .collect(),
        }
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
            return match fs::read_dir(mount.mount_point.join("events")) {
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

    /// The value of a parameter on the kernel command line, the last one given. What stands
    /// after `--` is for init, not for the kernel.
    fn boot_parameter(&self, key: &str) -> Option<String> {
        let line = text(&self.proc("cmdline"))?;
        let kernel = line.split_whitespace().take_while(|&word| word != "--");
        let values = kernel.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.last().map(str::to_owned)
    }

    /// The first CPU's entry alone: the whole file has one for every CPU.
    fn cpuinfo(&self) -> Option<procfs::CpuInfo> {
        let text = text(&self.proc("cpuinfo"))?;
        let first = text.split("\n\n").next()?;
        procfs::CpuInfo::from_buf_read(first.as_bytes()).ok()
    }

    /// The arm64 main ID register of the first of `cpus`.
    fn midr(&self, cpus: &CpuList) -> Option<u64> {
        let path = format!("cpu{}/regs/identification/midr_el1", cpus.iter().next()?);
        hex(&word(&self.cpus_dir().join(path))?)
    }

    fn cpu_list(&self, file: &str) -> Option<CpuList> {
        CpuList::parse(&text(&self.cpus_dir().join(file))?)
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

impl Policy {
    /// The frequencies allowed now: `800-4200 MHz`, or `3000 MHz` when there is no choice.
    pub fn range(&self) -> Option<String> {
        Some(range_text(self.min_khz?, self.max_khz?))
    }
}

impl Smt {
    /// `on`, `off`, `absent`
    pub fn word(self) -> &'static str {
        match self {
            Smt::On => "on",
            Smt::Off => "off",
            Smt::Absent => "absent",
        }
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

impl Mitigations {
    /// The names of the vulnerabilities in this state.
    pub fn names(&self, state: VulnerabilityState) -> Vec<&str> {
        let in_state = self.vulnerabilities.iter().filter(|v| v.state == state);
        in_state.map(|v| v.name.as_str()).collect()
    }

    /// One line: the boot parameter if given, what is mitigated, what is left open.
    pub fn summary(&self) -> Option<String> {
        let mut parts: Vec<String> = self.boot.iter().cloned().collect();
        let labels = [
            ("mitigated", VulnerabilityState::Mitigated),
            ("vulnerable", VulnerabilityState::Vulnerable),
            ("unknown", VulnerabilityState::Unknown),
        ];
        for (label, state) in labels {
            let names = self.names(state);
            if !names.is_empty() {
                parts.push(format!("{label}: {}", names.join(" ")));
            }
        }
        if parts.is_empty() && !self.vulnerabilities.is_empty() {
            parts.push("none needed".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
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

/// The name of an arm64 core from its MIDR: implementer in bits 24–31, part in bits 4–15
/// (Arm Architecture Reference Manual, MIDR_EL1; parts as in the kernel's `asm/cputype.h`).
fn arm_core(midr: u64) -> String {
    let (implementer, part) = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    let name = match (implementer, part) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd09) => "Cortex-A73",
        (0x41, 0xd0a) => "Cortex-A75",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse-N1",
        (0x41, 0xd0d) => "Cortex-A77",
        (0x41, 0xd40) => "Neoverse-V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd44) => "Cortex-X1",
        (0x41, 0xd46) => "Cortex-A510",
        (0x41, 0xd47) => "Cortex-A710",
        (0x41, 0xd48) => "Cortex-X2",
        (0x41, 0xd49) => "Neoverse-N2",
        (0x41, 0xd4d) => "Cortex-A715",
        (0x41, 0xd4e) => "Cortex-X3",
        (0x41, 0xd4f) => "Neoverse-V2",
        (0x41, 0xd80) => "Cortex-A520",
        (0x41, 0xd81) => "Cortex-A720",
        (0x41, 0xd84) => "Neoverse-V3",
        (0x41, 0xd8e) => "Neoverse-N3",
        (0xc0, 0xac3) => "Ampere-1",
        _ => return format!("arm64 implementer 0x{implementer:02x} part 0x{part:03x}"),
    };
    name.to_owned()
}

/// Reads at most `limit` bytes of a text file. Files that are empty or not text are unknown.
fn read(path: &Path, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    readable(String::from_utf8(bytes).ok()?)
}

/// A small file without the white space (and the device tree's NULs) round it; may be empty
/// when the file holds only these.
///
/// One read(2) is enough: the kernel gives a setting, or the first entries of a list, whole.
fn text(path: &Path) -> Option<String> {
    let mut bytes = [0; 8192];
    let len = File::open(path).ok()?.read(&mut bytes).ok()?;
    let text = readable(str::from_utf8(&bytes[..len]).ok()?)?;
    let blank = |c: char| c.is_whitespace() || c == '\0';
    Some(text.trim_matches(blank).to_owned())
}

/// The text itself, unless it is empty or binary.
fn readable<T: AsRef<str>>(text: T) -> Option<T> {
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\0');
    (!text.as_ref().is_empty() && !text.as_ref().contains(strange)).then_some(text)
}

/// A small file that holds one line with something on it.
fn word(path: &Path) -> Option<String> {
    text(path).filter(|text| !text.is_empty() && !text.contains(['\n', '\0']))
}

/// The words of a small file.
fn words(path: &Path) -> Vec<String> {
    text(path)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn number<T: FromStr>(path: &Path) -> Option<T> {
    word(path)?.parse().ok()
}

/// `0` or `1`.
fn flag(path: &Path) -> Option<bool> {
    match word(path)?.as_str() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// The choice in brackets: `always [madvise] never`.
fn selected(path: &Path) -> Option<String> {
    let text = word(path)?;
    let (_, rest) = text.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice.to_owned())
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The names in a directory, sorted.
fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
