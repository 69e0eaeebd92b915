use std::fs;

use procfs::Current;

use super::*;
use crate::machine::Busy;
use crate::machine::fake::{self, Fake};

/// Asks everything there is to ask, so that what cannot be read has every chance to panic.
fn ask_everything(roots: &Roots) -> String {
    let facts = Facts::new(roots);
    format!(
        "{:?}",
        (
            (
                facts.cpu(),
                facts.online(),
                facts.isolated(),
                facts.nohz_full(),
                facts.topology()
            ),
            (
                facts.smt(),
                facts.core_types(),
                facts.kernel(),
                facts.policies(),
                facts.boost()
            ),
            (
                facts.on_battery(),
                facts.aslr(None),
                facts.thp(None),
                facts.mitigations(),
                facts.clocksource()
            ),
            (
                facts.perf_event_paranoid(),
                facts.rdpmc(),
                facts.nmi_watchdog(),
                facts.kptr_restrict()
            ),
            (
                facts.tracefs(),
                facts.btf(),
                facts.lockdown(),
                facts.unprivileged_bpf_disabled()
            ),
            (
                facts.load(),
                facts.swap_used_bytes(),
                facts.myself(),
                facts.cgroup()
            ),
            (
                facts.virtualization(),
                facts.container(),
                Facts::header(roots)
            ),
            Busy::read(&roots.proc).ok(),
        )
    )
}

fn check_header(fake: &Fake, want: &[(&str, &str)]) {
    let mut header = Facts::header(&fake.roots);
    assert_eq!(header.remove("goos").as_deref(), Some("linux"));
    assert!(header.remove("goarch").is_some());
    let got: Vec<(&str, &str)> = header
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(got, want);
}

#[test]
fn a_laptop() {
    let fake = fake::laptop();
    check_header(
        &fake,
        &[
            ("aslr", "full"),
            ("boost", "on"),
            ("clocksource", "tsc"),
            ("cpu", "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz"),
            ("cpus", "8"),
            ("driver", "intel_pstate"),
            ("frequency-range", "400-4700 MHz"),
            ("governor", "powersave"),
            ("kernel", "6.8.0-45-generic"),
            ("mitigations", "mitigated: itlb_multihit spectre_v2"),
            ("perf-event-paranoid", "4"),
            ("smt", "on"),
            ("thp", "madvise"),
            ("virtualization", "none"),
        ],
    );
    let facts = Facts::new(&fake.roots);
    assert_eq!(facts.cpu().unwrap().vendor.as_deref(), Some("GenuineIntel"));
    assert_eq!(
        facts.topology(),
        Some(Topology {
            sockets: 1,
            cores: 4,
            cpus: 8
        })
    );
    assert_eq!(facts.on_battery(), Some(true));
    assert_eq!(facts.nohz_full(), Some(CpuList::default()));
    assert_eq!(facts.lockdown().as_deref(), Some("integrity"));
    assert_eq!(facts.rdpmc(), Some(Rdpmc::Mapped));
    assert_eq!(facts.tracefs(), Tracefs::NotMounted);
    assert_eq!(facts.thp(None).unwrap().defrag.as_deref(), Some("madvise"));
    assert_eq!(facts.load(), Some(f64::from(0.08_f32)));
    assert_eq!(facts.swap_used_bytes(), Some(0));
    fake.sys("class/power_supply/AC/online", "1\n");
    fake.sys("class/power_supply/BAT0/status", "Not charging\n");
    assert_eq!(facts.on_battery(), Some(false));
    fake.proc("self/personality", "00040000\n");
    assert_eq!(facts.aslr(None), Some(Aslr::Off));
    assert_eq!(facts.aslr(Some(true)), Some(Aslr::Full));
    fake.proc("self/status", "Name:\tpoise\nTHP_enabled:\t0\n");
    assert_eq!(facts.thp(None).unwrap().enabled, "off");
    assert_eq!(facts.thp(Some(true)).unwrap().enabled, "madvise");
    fake.sys("devices/system/cpu/intel_pstate/no_turbo", "1\n");
    assert_eq!(facts.boost(), Some(Boost::Off));
}

#[test]
fn an_amd_server() {
    let fake = fake::amd_server();
    check_header(
        &fake,
        &[
            ("aslr", "full"),
            ("boost", "mixed"),
            ("clocksource", "hpet"),
            ("cpu", "AMD EPYC 9354 32-Core Processor"),
            ("cpus", "8"),
            ("driver", "amd-pstate-epp"),
            ("frequency-range", "1500-3799 MHz"),
            ("governor", "performance"),
            ("kernel", "6.12.8"),
            ("mitigations", "off; vulnerable: retbleed spectre_v2"),
            ("perf-event-paranoid", "1"),
            ("smt", "off"),
            ("thp", "madvise"),
            ("virtualization", "none"),
        ],
    );
    let facts = Facts::new(&fake.roots);
    assert_eq!(
        facts.topology(),
        Some(Topology {
            sockets: 2,
            cores: 8,
            cpus: 8
        })
    );
    assert_eq!(facts.isolated().unwrap().to_string(), "4-7");
    assert_eq!(facts.rdpmc(), Some(Rdpmc::Always));
    assert_eq!(
        facts.tracefs(),
        Tracefs::Readable(fake.roots.sys.join("kernel/tracing"))
    );
    assert_eq!(facts.on_battery(), None);
    let policies = facts.policies();
    assert_eq!(policies.len(), 8);
    assert_eq!(policies[3].boost, Some(false));
    assert_eq!(policies[3].governors, ["performance", "performance"]);
    assert_eq!(policies[3].range().as_deref(), Some("1500-3799 MHz"));
    assert_eq!(policies[3].is_kept_at(3.0e9), None);
    let only = Policy {
        min_khz: Some(2_000_000),
        max_khz: Some(2_000_000),
        ..Policy::default()
    };
    let kept = [1.89e9, 1.91e9, 2.0e9, 2.09e9, 2.11e9].map(|hz| only.is_kept_at(hz));
    assert_eq!(kept, [false, true, true, true, false].map(Some));

    let accounting = facts.accounting();
    let period = |cpus: &str| accounting.period_sec(&CpuList::parse(cpus).unwrap());
    assert_eq!(period("4-7"), None);
    assert_eq!(period("3-4"), accounting.tick_sec);
    assert_eq!(period(""), accounting.tick_sec);
}

#[test]
fn an_arm_board() {
    let fake = fake::arm_board();
    check_header(
        &fake,
        &[
            ("aslr", "full"),
            ("clocksource", "arch_sys_counter"),
            ("cpu", "Cortex-A53 + Cortex-A72"),
            ("cpus", "6"),
            ("driver", "cpufreq-dt"),
            ("frequency-range", "408-1416 MHz, 408-1800 MHz"),
            ("governor", "schedutil"),
            ("kernel", "6.6.31"),
            ("perf-event-paranoid", "2"),
            ("smt", "absent"),
            ("thp", "madvise"),
            ("virtualization", "none"),
        ],
    );
    let facts = Facts::new(&fake.roots);
    let types: Vec<String> = facts
        .core_types()
        .iter()
        .map(|t| format!("{} {}", t.pmu, t.cpus))
        .collect();
    assert_eq!(types, ["armv8_cortex_a53 0-3", "armv8_cortex_a72 4-5"]);
    assert_eq!(facts.policies()[1].cpus.to_string(), "4-5");
    assert_eq!(facts.rdpmc(), Some(Rdpmc::Off));
    assert_eq!(facts.cpu().unwrap().vendor.as_deref(), Some("ARM"));
    // Without the registers in sysfs, the first core's entry in cpuinfo must do, and without
    // that the board's name.
    fake.sys("devices/system/cpu/cpu0/regs/identification/midr_el1", "");
    fake.sys("devices/system/cpu/cpu4/regs/identification/midr_el1", "");
    assert_eq!(facts.cpu().unwrap().model, "Cortex-A53");
    fake.proc("cpuinfo", "");
    assert_eq!(facts.cpu().unwrap().model, "Pine64 RockPro64 v2.1");
}

#[test]
fn a_bare_virtual_machine() {
    let fake = fake::bare_vm();
    check_header(
        &fake,
        &[
            ("aslr", "full"),
            ("clocksource", "kvm-clock"),
            ("cpu", "AMD EPYC"),
            ("cpus", "2"),
            ("kernel", "6.18.44-fc"),
            ("mitigations", "auto,no_guest_host"),
            ("perf-event-paranoid", "2"),
            ("smt", "absent"),
            ("thp", "madvise"),
            ("virtualization", "kvm"),
        ],
    );
    let facts = Facts::new(&fake.roots);
    assert_eq!(
        (facts.core_types(), facts.policies()),
        (Vec::new(), Vec::new())
    );
    assert_eq!(
        (facts.rdpmc(), facts.boost(), facts.lockdown()),
        (None, None, None)
    );
    assert_eq!(Busy::read(&fake.roots.proc).unwrap().steal_share(), 0.1);
}

#[test]
fn a_container_is_in_the_header() {
    let fake = fake::docker();
    let header = Facts::header(&fake.roots);
    assert_eq!(header["container"], "docker");
    assert_eq!(header["virtualization"], "kvm");
}

#[test]
fn hybrid_cores() {
    let fake = fake::hybrid();
    let types: Vec<String> = Facts::new(&fake.roots)
        .core_types()
        .iter()
        .map(|t| format!("{} {}", t.pmu, t.cpus))
        .collect();
    assert_eq!(types, ["cpu_atom 16-19", "cpu_core 0-15"]);
    assert_eq!(Facts::new(&fake.roots).rdpmc(), Some(Rdpmc::Off));
}

#[test]
fn header_keys_can_stand_in_a_go_benchmark_file() {
    for (name, fake) in fake::machines() {
        for (key, value) in Facts::header(&fake.roots) {
            let fits = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(key.chars().all(fits), "{name}: {key}");
            assert!(
                !value.contains('\n') && value.trim() == value && !value.is_empty(),
                "{name}: {key}"
            );
        }
    }
}

#[test]
fn malformed_files_are_unknown() {
    let garbage: Vec<u8> = (0..20_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let huge = "9".repeat(9000);
    let contents: [&[u8]; 8] = [
        b"",
        b"\n",
        b"\0",
        &garbage,
        huge.as_bytes(),
        "é\u{301}: é\n[\n]\n".as_bytes(),
        b":::\n---\n,,,\n[[[]",
        b"-1 -1 -1",
    ];
    for (name, build) in [
        ("laptop", fake::laptop as fn() -> Fake),
        ("arm", fake::arm_board),
        ("docker", fake::docker),
    ] {
        for content in contents {
            let fake = build();
            for path in fake.files() {
                fs::write(path, content).unwrap();
            }
            ask_everything(&fake.roots);
            let facts = Facts::new(&fake.roots);
            let shown = String::from_utf8_lossy(&content[..content.len().min(20)]).into_owned();
            assert_eq!(facts.smt(), None, "{name} {shown:?}");
            assert_eq!(facts.boost(), None, "{name} {shown:?}");
            assert_eq!(facts.aslr(None), None, "{name} {shown:?}");
            assert_eq!(facts.thp(None), None, "{name} {shown:?}");
            assert_eq!(facts.online(), None, "{name} {shown:?}");
            assert_eq!(facts.myself(), None, "{name} {shown:?}");
            assert_eq!(facts.load(), None, "{name} {shown:?}");
        }
    }
}

#[test]
fn one_malformed_file_leaves_the_others_alone() {
    let whole = fake::laptop();
    let want = Facts::header(&whole.roots);
    for path in whole.files() {
        let saved = fs::read(&path).unwrap();
        fs::write(&path, b"\xff\xfe\0\x01").unwrap();
        ask_everything(&whole.roots);
        let got = Facts::header(&whole.roots);
        let lost = want
            .iter()
            .filter(|(key, value)| got.get(*key) != Some(value))
            .count();
        assert!(lost <= 2, "{}: {lost} lost", path.display());
        fs::write(&path, saved).unwrap();
    }
}

#[test]
fn this_machine_is_consistent() {
    let roots = Roots::default();
    let facts = Facts::new(&roots);
    ask_everything(&roots);
    let online = facts.online().unwrap();
    let configured = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).unwrap();
    assert_eq!(online.len() as i64, configured.unwrap());
    let header = Facts::header(&roots);
    assert_eq!(header["cpus"], online.len().to_string());
    assert_eq!(
        header["kernel"],
        nix::sys::utsname::uname()
            .unwrap()
            .release()
            .to_str()
            .unwrap()
    );
    if let Some(topology) = facts.topology() {
        assert_eq!(topology.cpus, online.len());
        assert!(topology.sockets <= topology.cores && topology.cores <= topology.cpus);
    }
    let types: usize = facts.core_types().iter().map(|t| t.cpus.len()).sum();
    assert!(types == 0 || types >= online.len(), "{types} of {online}");

    let myself = facts.myself().unwrap();
    assert_eq!(myself.euid, nix::unistd::geteuid().as_raw());
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let count = (0..nix::sched::CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap())
        .count();
    assert_eq!(myself.cpus.len(), count);
    let permitted = caps::read(None, caps::CapSet::Permitted).unwrap();
    for capability in caps::all() {
        let bit = myself.capabilities & capability.bitmask() != 0;
        assert_eq!(bit, permitted.contains(&capability), "{capability}");
    }

    let tick_sec = facts.accounting().tick_sec.unwrap();
    assert!((0.0005..=0.02).contains(&tick_sec), "{tick_sec}");
    assert_eq!(
        facts.load().is_some(),
        procfs::LoadAverage::current().is_ok()
    );
    let busy = Busy::read(&roots.proc).unwrap();
    let uptime_sec = procfs::Uptime::current().unwrap().uptime;
    assert!(busy.busy_sec > 0.0);
    // CPUs that were taken offline keep their share of the sum.
    if online.len() == facts.cpu_list("possible").unwrap().len() {
        assert!(
            busy.busy_sec <= (uptime_sec + 1.0) * online.len() as f64,
            "{busy:?} {uptime_sec}"
        );
    }
}
