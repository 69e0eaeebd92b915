//! Which CPUs there are, of which kind, and which of them are special. Asks the kernel's files alone, never the CPU.

use procfs::FromBufRead;

use super::file::{entries, flag, hex, number, text, word};
use super::{CpuList, Facts};

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

impl Facts<'_> {
    /// The CPU's model and vendor. Where cores of several types are known, all are named.
    pub fn cpu(&self) -> Option<Cpu> {
        self.cpu_from(self.cpuinfo().as_ref())
    }

    pub(super) fn cpu_from(&self, info: Option<&procfs::CpuInfo>) -> Option<Cpu> {
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

    /// The CPUs that share a core with `cpu`, itself included.
    pub fn siblings(&self, cpu: u32) -> CpuList {
        let siblings = self.cpu_list(&format!("cpu{cpu}/topology/thread_siblings_list"));
        siblings.unwrap_or_else(|| CpuList::from_iter([cpu]))
    }

    /// What `cpu` can do beside the machine's best, which has 1024, where the kernel knows it.
    pub(in crate::machine) fn capacity(&self, cpu: u32) -> Option<u64> {
        number(&self.cpus_dir().join(format!("cpu{cpu}/cpu_capacity")))
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

    /// The first CPU's entry alone: the whole file has one for every CPU.
    pub(super) fn cpuinfo(&self) -> Option<procfs::CpuInfo> {
        let text = text(&self.proc("cpuinfo"))?;
        let first = text.split("\n\n").next()?;
        procfs::CpuInfo::from_buf_read(first.as_bytes()).ok()
    }

    /// The arm64 main ID register of the first of `cpus`.
    fn midr(&self, cpus: &CpuList) -> Option<u64> {
        let path = format!("cpu{}/regs/identification/midr_el1", cpus.iter().next()?);
        hex(&word(&self.cpus_dir().join(path))?)
    }

    pub(super) fn cpu_list(&self, file: &str) -> Option<CpuList> {
        CpuList::parse(&text(&self.cpus_dir().join(file))?)
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
