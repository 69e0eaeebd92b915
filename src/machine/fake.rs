//! Fake `/proc` and `/sys` trees of several machines, for tests. Never read by the program.

use std::fs;
use std::path::{Path, PathBuf};

use super::Roots;

/// A tree in a temporary directory, gone when dropped.
pub(crate) struct Fake {
    pub(crate) roots: Roots,
    dir: tempfile::TempDir,
}

impl Fake {
    /// An empty tree: nothing is known of this machine.
    pub(crate) fn new() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            proc: dir.path().join("proc"),
            sys: dir.path().join("sys"),
            run: dir.path().join("run/counterpoise"),
        };
        fs::create_dir(&roots.proc).unwrap();
        fs::create_dir(&roots.sys).unwrap();
        Fake { roots, dir }
    }

    pub(crate) fn proc(&self, path: &str, content: impl AsRef<[u8]>) -> &Fake {
        write(self.roots.proc.join(path), content);
        self
    }

    pub(crate) fn sys(&self, path: &str, content: impl AsRef<[u8]>) -> &Fake {
        write(self.roots.sys.join(path), content);
        self
    }

    pub(crate) fn proc_link(&self, path: &str, target: &str) -> &Fake {
        let path = self.roots.proc.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Files below /sys/devices/system/cpu.
    fn cpu(&self, files: &[(&str, &str)]) -> &Fake {
        for (path, content) in files {
            self.sys(&format!("devices/system/cpu/{path}"), content);
        }
        self
    }

    fn policy(&self, name: &str, cpus: &str, driver: &str, governor: &str, khz: (u64, u64)) {
        let files = [
            ("affected_cpus", cpus.to_owned()),
            ("scaling_driver", driver.to_owned()),
            ("scaling_governor", governor.to_owned()),
            (
                "scaling_available_governors",
                format!("performance {governor}"),
            ),
            ("scaling_min_freq", khz.0.to_string()),
            ("scaling_max_freq", khz.1.to_string()),
            ("cpuinfo_min_freq", khz.0.to_string()),
            ("cpuinfo_max_freq", khz.1.to_string()),
        ];
        for (file, content) in files {
            self.sys(
                &format!("devices/system/cpu/cpufreq/{name}/{file}"),
                content + "\n",
            );
        }
    }

    /// Topology files: `threads` CPUs a core, numbered as x86 numbers them (siblings last).
    fn topology(&self, cpus: u32, threads: u32, sockets: u32) {
        let cores = cpus / threads;
        for cpu in 0..cpus {
            let core = cpu % cores;
            let socket = core / (cores / sockets);
            let dir = format!("devices/system/cpu/cpu{cpu}/topology");
            self.sys(&format!("{dir}/physical_package_id"), format!("{socket}\n"));
            self.sys(&format!("{dir}/core_id"), format!("{core}\n"));
        }
        self.cpu(&[("online", &format!("0-{}\n", cpus - 1)), ("isolated", "\n")]);
    }

    fn settings(&self, release: &str, paranoid: i32) -> &Fake {
        self.proc("sys/kernel/osrelease", format!("{release}\n"))
            .proc("sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC\n")
            .proc("sys/kernel/perf_event_paranoid", format!("{paranoid}\n"))
            .proc("sys/kernel/randomize_va_space", "2\n")
            .proc("sys/kernel/nmi_watchdog", "1\n")
            .proc("sys/kernel/kptr_restrict", "1\n")
            .proc("sys/kernel/unprivileged_bpf_disabled", "2\n")
            .proc("filesystems", "nodev\tproc\nnodev\ttracefs\n\text4\n")
            .proc("loadavg", "0.08 0.04 0.01 1/300 4242\n")
            .proc(
                "meminfo",
                "MemTotal: 8000 kB\nSwapTotal: 4000 kB\nSwapFree: 4000 kB\n",
            )
            .proc("self/personality", "00000000\n")
            .proc("self/uid_map", "         0          0 4294967295\n")
            .proc("self/cgroup", "0::/user.slice\n")
            .proc("self/mountinfo", "21 1 0:21 / /proc rw - proc proc rw\n")
            .proc(
                "stat",
                "cpu  10000 0 5000 99999 10 20 30 0 0 0\ncpu0 1 2 3\n",
            )
            .sys(
                "kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
            )
            .sys(
                "kernel/mm/transparent_hugepage/defrag",
                "always defer [madvise] never\n",
            )
            .sys("kernel/btf/vmlinux", b"\x9f\xeb\x01\0")
    }

    fn clocksource(&self, current: &str, available: &str) -> &Fake {
        let dir = "devices/system/clocksource/clocksource0";
        self.sys(
            &format!("{dir}/current_clocksource"),
            format!("{current}\n"),
        )
        .sys(
            &format!("{dir}/available_clocksource"),
            format!("{available} \n"),
        )
    }

    pub(crate) fn status(&self, euid: u32, capabilities: u64, seccomp: u32) -> &Fake {
        self.proc(
            "self/status",
            format!(
                "Name:\tpoise\nState:\tR (running)\nTgid:\t7\nPid:\t7\nPPid:\t1\nTracerPid:\t0\n\
                 Uid:\t{euid}\t{euid}\t{euid}\t{euid}\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t \n\
                 Threads:\t1\nSigQ:\t0/96365\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\n\
                 SigCgt:\t0\nCapInh:\t0\nCapPrm:\t{capabilities:016x}\nCapEff:\t{capabilities:016x}\n\
                 NoNewPrivs:\t0\nSeccomp:\t{seccomp}\nCpus_allowed_list:\t0-1\n"
            ),
        )
    }

    /// Lets us run on `cpus`; after [`Fake::status`].
    pub(crate) fn allow(&self, cpus: &str) -> &Fake {
        let status = fs::read_to_string(self.roots.proc.join("self/status")).unwrap();
        self.proc(
            "self/status",
            status.replace("_list:\t0-1", &format!("_list:\t{cpus}")),
        )
    }

    fn mount_tracefs(&self) -> &Fake {
        let point = self.roots.sys.join("kernel/tracing");
        self.sys("kernel/tracing/events/header_event", "x").proc(
            "self/mountinfo",
            format!(
                "21 1 0:21 / /proc rw - proc proc rw\nbroken\n\
                 30 1 0:30 / {} rw shared:9 - tracefs tracefs rw\n",
                point.display()
            ),
        )
    }

    /// Every regular file of the tree.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files)
                } else {
                    files.push(path)
                }
            }
        }
        let mut files = Vec::new();
        walk(self.dir.path(), &mut files);
        files
    }
}

fn write(path: PathBuf, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// All capabilities that a kernel of today knows.
pub(crate) const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// An Intel laptop on battery: intel_pstate, powersave, turbo, two threads a core.
pub(crate) fn laptop() -> Fake {
    let fake = Fake::new();
    fake.topology(8, 2, 1);
    fake.settings("6.8.0-45-generic", 4)
        .status(1000, 0, 0)
        .clocksource("tsc", "tsc hpet acpi_pm")
        .cpu(&[
            ("smt/active", "1\n"),
            ("smt/control", "on\n"),
            ("intel_pstate/status", "active\n"),
            ("intel_pstate/no_turbo", "0\n"),
            ("nohz_full", "(null)\n"),
            ("vulnerabilities/meltdown", "Not affected\n"),
            ("vulnerabilities/spectre_v2", "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional\n"),
            ("vulnerabilities/itlb_multihit", "KVM: Mitigation: VMX disabled\n"),
        ])
        .proc("cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: 11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz\nflags\t\t: fpu tsc msr\n\nprocessor\t: 1\nmodel name\t: other\n\n")
        .proc("cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p2 quiet splash\n")
        .sys("class/dmi/id/sys_vendor", "LENOVO\n")
        .sys("class/dmi/id/product_name", "20XW\n")
        .sys("bus/event_source/devices/cpu/type", "4\n")
        .sys("bus/event_source/devices/cpu/rdpmc", "1\n")
        .sys("class/power_supply/AC/type", "Mains\n")
        .sys("class/power_supply/AC/online", "0\n")
        .sys("class/power_supply/BAT0/type", "Battery\n")
        .sys("class/power_supply/BAT0/status", "Discharging\n")
        .sys("class/power_supply/mouse/type", "Battery\n")
        .sys("class/power_supply/mouse/scope", "Device\n")
        .sys("class/power_supply/mouse/status", "Discharging\n")
        .sys("kernel/security/lockdown", "none [integrity] confidentiality\n");
    for cpu in 0..8 {
        fake.policy(
            &format!("policy{cpu}"),
            &cpu.to_string(),
            "intel_pstate",
            "powersave",
            (400_000, 4_700_000),
        );
        let dir = format!("devices/system/cpu/cpufreq/policy{cpu}");
        fake.sys(&format!("{dir}/base_frequency"), "2800000\n")
            .sys(
                &format!("{dir}/energy_performance_preference"),
                "balance_power\n",
            )
            .sys(
                &format!("{dir}/energy_performance_available_preferences"),
                "default performance balance_performance balance_power power\n",
            );
    }
    fake
}

/// An AMD server with two sockets, amd-pstate, performance, boost off on one policy, CPUs set
/// apart, tracefs mounted, root.
pub(crate) fn amd_server() -> Fake {
    let fake = Fake::new();
    fake.topology(16, 2, 2);
    fake.settings("6.12.8", 1)
        .status(0, ALL_CAPABILITIES, 0)
        .clocksource("hpet", "hpet acpi_pm")
        .mount_tracefs()
        .cpu(&[
            ("smt/active", "0\n"),
            ("smt/control", "off\n"),
            ("online", "0-7\n"),
            ("isolated", "4-7\n"),
            ("nohz_full", "4-6,7\n"),
            ("cpufreq/boost", "1\n"),
            ("vulnerabilities/meltdown", "Not affected\n"),
            ("vulnerabilities/spectre_v2", "Vulnerable; IBPB: disabled\n"),
            ("vulnerabilities/retbleed", "Vulnerable\n"),
        ])
        .proc("cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9354 32-Core Processor\nflags\t\t: fpu tsc msr\n\n")
        .proc("cmdline", "root=/dev/sda1 mitigations=off isolcpus=4-7\n")
        .sys("class/dmi/id/sys_vendor", "Supermicro\n")
        .sys("bus/event_source/devices/cpu/type", "4\n")
        .sys("bus/event_source/devices/cpu/rdpmc", "2\n")
        .sys("kernel/security/lockdown", "[none] integrity confidentiality\n");
    for cpu in 0..8 {
        let name = format!("policy{cpu}");
        fake.policy(
            &name,
            &cpu.to_string(),
            "amd-pstate-epp",
            "performance",
            (1_500_000, 3_799_000),
        );
        let boost = if cpu == 3 { "0\n" } else { "1\n" };
        fake.sys(&format!("devices/system/cpu/cpufreq/{name}/boost"), boost);
        let nominal = format!("devices/system/cpu/cpu{cpu}/acpi_cppc/nominal_freq");
        fake.sys(&nominal, "3250\n");
    }
    fake
}

/// An arm64 board with two kinds of cores, cpufreq-dt with a policy for each.
pub(crate) fn arm_board() -> Fake {
    let fake = Fake::new();
    fake.topology(6, 1, 1);
    fake.settings("6.6.31", 2)
        .status(1000, 0, 0)
        .clocksource("arch_sys_counter", "arch_sys_counter")
        .proc("cpuinfo", "processor\t: 0\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\n\n")
        .proc("cmdline", "console=ttyS2\n")
        .proc("device-tree/model", "Pine64 RockPro64 v2.1\0")
        .proc("device-tree/compatible", "pine64,rockpro64-v2.1\0rockchip,rk3399\0")
        .proc("sys/kernel/perf_user_access", "0\n")
        .sys("bus/event_source/devices/armv8_cortex_a53/cpus", "0-3\n")
        .sys("bus/event_source/devices/armv8_cortex_a72/cpus", "4-5\n")
        .cpu(&[
            ("cpu0/regs/identification/midr_el1", "0x00000000410fd034\n"),
            ("cpu4/regs/identification/midr_el1", "0x00000000410fd082\n"),
            ("smt/active", "0\n"),
            ("smt/control", "notimplemented\n"),
        ]);
    fake.policy(
        "policy4",
        "4 5",
        "cpufreq-dt",
        "schedutil",
        (408_000, 1_800_000),
    );
    fake.policy(
        "policy0",
        "0 1 2 3",
        "cpufreq-dt",
        "schedutil",
        (408_000, 1_416_000),
    );
    fake.cpu(&[
        (
            "cpufreq/policy0/scaling_available_frequencies",
            "408000 816000 1200000 1416000 \n",
        ),
        (
            "cpufreq/policy4/scaling_available_frequencies",
            "408000 1008000 1608000 1800000 \n",
        ),
    ]);
    fake
}

/// A small virtual machine: KVM, no cpufreq, no DMI, no PMU; stolen time; root.
pub(crate) fn bare_vm() -> Fake {
    let fake = Fake::new();
    fake.topology(2, 1, 1);
    fake.settings("6.18.44-fc", 2)
        .status(0, ALL_CAPABILITIES, 0)
        .clocksource("kvm-clock", "kvm-clock tsc")
        .cpu(&[("smt/active", "0\n"), ("smt/control", "notsupported\n")])
        .proc("cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\n\n")
        .proc("cmdline", "console=ttyS0 mitigations=auto,no_guest_host quiet -- mitigations=off\n")
        .proc("stat", "cpu  900 0 0 0 0 0 0 100 0 0\n")
        .sys("firmware/acpi/tables/DSDT", b"DSDTS\x0f\0\0\x02wFIRECKFCVMDSDT\0\0\0\0FCAT")
        .sys("bus/event_source/devices/software/type", "1\n");
    fake
}

/// A Docker container on a server: a seccomp filter, half a CPU, no privileges that count.
pub(crate) fn docker() -> Fake {
    let fake = Fake::new();
    fake.topology(4, 1, 1);
    fake.settings("5.15.0-118-generic", 3)
        .status(0, 0xa804_25fb, 2)
        .clocksource("tsc", "tsc hpet")
        .proc("cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum 8375C\nflags\t\t: fpu hypervisor\n\n")
        .proc("cmdline", "quiet\n")
        .proc("self/root/.dockerenv", "")
        .proc("self/cgroup", "0::/\n")
        .sys("fs/cgroup/cgroup.controllers", "cpu memory\n")
        .sys("fs/cgroup/cpu.max", "50000 100000\n")
        .sys("class/dmi/id/sys_vendor", "Amazon EC2\n")
        .sys("class/dmi/id/product_name", "m6i.large\n")
        .sys("bus/event_source/devices/cpu/type", "4\n");
    fake
}

/// An Intel desktop with cores of two types, root in a user namespace.
pub(crate) fn hybrid() -> Fake {
    let fake = Fake::new();
    fake.topology(20, 1, 1);
    fake.settings("6.14.2", 2)
        .status(0, ALL_CAPABILITIES, 0)
        .clocksource("tsc", "tsc acpi_pm")
        .proc("self/uid_map", "         0       1000          1\n")
        .proc("self/root/run/.containerenv", "engine=\"podman-5.2\"\n")
        .proc("cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: 12th Gen Intel(R) Core(TM) i7-12700K\nflags\t\t: fpu tsc\n\n")
        .proc("cmdline", "quiet\n")
        .sys("bus/event_source/devices/cpu_core/cpus", "0-15\n")
        .sys("bus/event_source/devices/cpu_core/rdpmc", "0\n")
        .sys("bus/event_source/devices/cpu_atom/cpus", "16-19\n")
        .sys("bus/event_source/devices/uncore_imc/cpumask", "0\n");
    fake
}

/// All of them, with their names.
pub(crate) fn machines() -> Vec<(&'static str, Fake)> {
    vec![
        ("laptop", laptop()),
        ("amd_server", amd_server()),
        ("arm_board", arm_board()),
        ("bare_vm", bare_vm()),
        ("docker", docker()),
        ("hybrid", hybrid()),
        ("empty", Fake::new()),
    ]
}
