use super::*;
use crate::machine::fake::{self, Fake};

fn find<'f>(findings: &'f [Finding], topic: &str) -> Option<&'f Finding> {
    findings.iter().find(|finding| finding.topic == topic)
}

/// `status: what` and the cure of one topic.
fn check(fake: &Fake, topic: &str, want: &str, cure: Option<&str>) {
    let findings = examine(&fake.roots, &PmuFindings::default());
    let found = find(&findings, topic);
    let got = found
        .map(|f| format!("{}: {}", f.status.word(), f.what))
        .unwrap_or_default();
    assert_eq!(got, want, "{topic}");
    assert_eq!(found.and_then(|f| f.cure.as_deref()), cure, "{topic}");
}

#[test]
fn whatever_is_limited_has_a_cause_and_one_line() {
    for (name, fake) in fake::machines() {
        let findings = examine(&fake.roots, &PmuFindings::default());
        for finding in &findings {
            let bad = matches!(finding.status, Status::Limited | Status::Missing);
            assert!(!bad || finding.cause.is_some(), "{name}: {finding:?}");
            let texts = [
                Some(&finding.what),
                finding.cause.as_ref(),
                finding.cure.as_ref(),
            ];
            for text in texts.into_iter().flatten() {
                assert!(
                    !text.is_empty() && !text.contains('\n'),
                    "{name}: {finding:?}"
                );
                assert!(!text.ends_with('.'), "{name}: {finding:?}");
            }
        }
        let mut topics: Vec<&str> = findings.iter().map(|f| f.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        assert_eq!(topics.len(), findings.len(), "{name}");
    }
}

#[test]
fn a_laptop() {
    let fake = fake::laptop();
    check(
        &fake,
        "perf-event-paranoid",
        "missing: no perf events for ordinary users",
        Some("as root: sysctl kernel.perf_event_paranoid=1"),
    );
    check(
        &fake,
        "frequency",
        "limited: intel_pstate, governor powersave, 400-4700 MHz",
        Some(
            "as root: poise stat and bench hold it while they measure, poise hold -- COMMAND while anything else runs",
        ),
    );
    check(
        &fake,
        "boost",
        "limited: on",
        Some(
            "as root: poise stat and bench hold it while they measure, poise hold -- COMMAND while anything else runs",
        ),
    );
    check(
        &fake,
        "power",
        "limited: on battery",
        Some("plug in the power supply"),
    );
    check(
        &fake,
        "smt",
        "limited: on",
        Some("as root: echo off > /sys/devices/system/cpu/smt/control"),
    );
    check(
        &fake,
        "nmi-watchdog",
        "limited: on: one counter less for us",
        Some("as root: echo 0 > /proc/sys/kernel/nmi_watchdog"),
    );
    check(
        &fake,
        "tracefs",
        "missing: tracepoints such as syscalls:sys_enter_write cannot be found",
        Some("as root: mount -t tracefs nodev /sys/kernel/tracing"),
    );
    check(
        &fake,
        "bpf",
        "missing: we cannot trace with BPF",
        Some("sudo poise …"),
    );
    check(&fake, "virtualization", "good: real hardware", None);
    check(&fake, "steal", "", None);
    check(&fake, "load", "good: the machine is idle (load 0.08)", None);
}

#[test]
fn an_amd_server() {
    let fake = fake::amd_server();
    check(
        &fake,
        "frequency",
        "good: amd-pstate-epp, governor performance, 1500-3799 MHz",
        None,
    );
    check(
        &fake,
        "boost",
        "limited: on for some CPUs",
        Some(
            "poise stat and bench hold it while they measure, poise hold -- COMMAND while anything else runs",
        ),
    );
    check(
        &fake,
        "isolated-cpus",
        "good: CPUs 4-7 are kept free of other work; without a regular tick: 4-7",
        None,
    );
    check(
        &fake,
        "mitigations",
        "note: off; vulnerable: retbleed spectre_v2",
        None,
    );
    check(&fake, "smt", "good: off: no two CPUs share a core", None);
    check(
        &fake,
        "kernel-symbols",
        "good: we see the kernel's addresses",
        None,
    );
    check(&fake, "lockdown", "good: none", None);
    let tracefs = fake.roots.sys.join("kernel/tracing");
    check(
        &fake,
        "tracefs",
        &format!("good: readable at {}", tracefs.display()),
        None,
    );
    std::fs::remove_file(fake.roots.sys.join("kernel/btf/vmlinux")).unwrap();
    check(
        &fake,
        "btf",
        "missing: the kernel does not describe its types",
        Some("boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
    );
    fake.sys(
        "kernel/security/lockdown",
        "none integrity [confidentiality]\n",
    );
    check(
        &fake,
        "lockdown",
        "limited: confidentiality: tracefs is closed, and BPF may not read kernel memory",
        Some("boot without lockdown=confidentiality"),
    );
}

#[test]
fn a_virtual_machine_does_not_promise_cures_that_the_host_alone_has() {
    let fake = fake::bare_vm();
    check(
        &fake,
        "virtualization",
        "limited: a virtual machine (kvm, Firecracker)",
        None,
    );
    check(
        &fake,
        "frequency",
        "limited: the CPUs' frequency can neither be read nor set",
        None,
    );
    check(
        &fake,
        "steal",
        "limited: 10.00 % of the wanted CPU time was stolen since boot",
        Some("use a machine with CPUs of its own"),
    );
    check(&fake, "nmi-watchdog", "", None);
    check(&fake, "smt", "note: none shown", None);
    check(&fake, "bpf", "good: we may trace with BPF", None);
}

#[test]
fn a_container_names_its_own_switches() {
    let fake = fake::docker();
    check(
        &fake,
        "perf-event-paranoid",
        "missing: no perf events for ordinary users",
        Some(
            "docker run --cap-add PERFMON … (or on the host, as root: sysctl kernel.perf_event_paranoid=1)",
        ),
    );
    check(
        &fake,
        "seccomp",
        "limited: perf_event_open and bpf may be refused, and every system call costs more",
        Some("docker run --security-opt seccomp=unconfined …"),
    );
    check(
        &fake,
        "cpu-quota",
        "limited: at most 0.50 CPUs' time",
        Some("start the container without a CPU limit"),
    );
    check(
        &fake,
        "bpf",
        "missing: we cannot trace with BPF",
        Some("docker run --cap-add BPF --cap-add PERFMON …"),
    );
    check(
        &fake,
        "container",
        "note: we are in a container (docker)",
        None,
    );
    check(
        &fake,
        "allowed-cpus",
        "note: we may run on CPUs 0-1 only, of 0-3",
        None,
    );
}

#[test]
fn hybrid_cores_and_a_user_namespace() {
    let fake = fake::hybrid();
    check(
        &fake,
        "core-types",
        "limited: cores of 2 types: cpu_atom on CPUs 16-19, cpu_core on CPUs 0-15",
        Some("measure on one type: --cpu-list 16-19 or 0-15"),
    );
    // Root in a user namespace has all capabilities, and none that counts.
    check(
        &fake,
        "perf-event-paranoid",
        "limited: only our own processes, user mode alone (cycles:u)",
        Some("on the host, as root: sysctl kernel.perf_event_paranoid=1"),
    );
    check(&fake, "bpf", "missing: we cannot trace with BPF", None);
    check(
        &fake,
        "rdpmc",
        "limited: counters can only be read by a system call",
        Some("on the host, as root: echo 1 | tee /sys/bus/event_source/devices/cpu*/rdpmc"),
    );
}

#[test]
fn an_arm_board_has_switches_of_its_own() {
    let fake = fake::arm_board();
    check(
        &fake,
        "rdpmc",
        "limited: counters can only be read by a system call",
        Some("as root: sysctl kernel.perf_user_access=1"),
    );
    check(
        &fake,
        "frequency",
        "limited: cpufreq-dt, governor schedutil, 408-1416 MHz and 408-1800 MHz",
        Some(
            "as root: poise stat and bench hold it while they measure, poise hold -- COMMAND while anything else runs",
        ),
    );
}

#[test]
fn the_measured_frequency_stands_beside_the_drivers_word() {
    let fake = fake::arm_board();
    let check = |only_khz: Option<&str>, frequencies_hz: &[(u32, f64)], want: &str, cause: &str| {
        for file in ["scaling_min_freq", "scaling_max_freq"] {
            if let Some(khz) = only_khz {
                fake.sys(&format!("devices/system/cpu/cpufreq/policy4/{file}"), khz);
            }
        }
        let pmu = PmuFindings {
            frequencies_hz: frequencies_hz.to_vec(),
            ..PmuFindings::default()
        };
        let findings = examine(&fake.roots, &pmu);
        let found = find(&findings, "frequency").unwrap();
        assert_eq!(format!("{}: {}", found.status.word(), found.what), want);
        assert_eq!(found.cause.as_deref(), Some(cause));
    };
    let driver = "limited: cpufreq-dt, governor schedutil, 408-1416 MHz and 408-1800 MHz";
    let governor = "the governor changes the frequency with the load";
    check(None, &[], driver, governor);
    check(
        None,
        &[(0, 1.416e9), (3, 1.4161e9)],
        &format!("{driver}; 1.42 GHz under load"),
        governor,
    );
    check(
        None,
        &[(0, 1.416e9), (4, 1.1e9)],
        &format!("{driver}; 1.10-1.42 GHz under load"),
        governor,
    );
    let set = "limited: cpufreq-dt, governor schedutil, 408-1416 MHz and 1200 MHz";
    check(
        Some("1200000"),
        &[(0, 1.416e9), (4, 1.19e9)],
        &format!("{set}; 1.19-1.42 GHz under load"),
        governor,
    );
    check(
        Some("1200000"),
        &[(0, 1.416e9), (4, 1.0e9)],
        &format!("{set}; 1.00-1.42 GHz under load"),
        "CPU 4 runs at 1.00 GHz and not at what is set: boost, heat, a power limit or the hypervisor rules it",
    );
}

#[test]
fn paranoid_levels() {
    let fake = fake::arm_board();
    let check = |level: &str, want: &str, cure: Option<&str>| {
        fake.proc("sys/kernel/perf_event_paranoid", level);
        check(&fake, "perf-event-paranoid", want, cure);
    };
    let cure = |level| format!("as root: sysctl kernel.perf_event_paranoid={level}");
    check(
        "-1",
        "good: perf_event_paranoid is -1: all processes, user and kernel",
        None,
    );
    check(
        "0",
        "good: perf_event_paranoid is 0: all processes, user and kernel",
        None,
    );
    check(
        "1",
        "limited: only our own processes, user and kernel",
        Some(&cure(0)),
    );
    check(
        "2",
        "limited: only our own processes, user mode alone (cycles:u)",
        Some(&cure(1)),
    );
    check(
        "3",
        "missing: no perf events for ordinary users",
        Some(&cure(1)),
    );
    check("junk", "missing: the kernel has no perf events", None);
    fake.status(1000, Capability::CAP_PERFMON.bitmask(), 0);
    check(
        "2",
        "good: perf_event_paranoid is 2, which does not bind us (CAP_PERFMON)",
        None,
    );
    // Nothing was counted: a kernel with Debian's patch.
    check(
        "4",
        "missing: no perf events, in spite of CAP_PERFMON",
        Some(&cure(2)),
    );
    fake.status(1000, Capability::CAP_SYS_ADMIN.bitmask(), 0);
    check(
        "4",
        "good: perf_event_paranoid is 4, which does not bind us (CAP_PERFMON)",
        None,
    );
}

#[test]
fn events_that_fail_for_one_reason_share_a_line() {
    let no_pmu = Cause::new("no hardware PMU (virtual machine)");
    let pmu = PmuFindings {
        events: vec![
            ("task-clock".to_owned(), Ok(())),
            ("cycles".to_owned(), Err(no_pmu.clone())),
            ("page-faults".to_owned(), Ok(())),
            ("instructions".to_owned(), Err(no_pmu.clone())),
            (
                "sched:sched_switch".to_owned(),
                Err(Cause::new("closed").cure("open it")),
            ),
        ],
        counters: Some(Err(no_pmu.clone())),
        rdpmc: Some(Err(no_pmu)),
        frequencies_hz: Vec::new(),
    };
    let fake = fake::bare_vm();
    let findings = examine(&fake.roots, &pmu);
    let lines: Vec<String> = findings
        .iter()
        .take_while(|f| matches!(f.topic, "events" | "counters" | "rdpmc"))
        .map(|f| {
            format!(
                "{} {} | {:?} | {:?}",
                f.status.word(),
                f.what,
                f.cause,
                f.cure
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "good counted: task-clock, page-faults | None | None",
            "missing not counted: cycles, instructions | Some(\"no hardware PMU (virtual machine)\") | None",
            "missing not counted: sched:sched_switch | Some(\"closed\") | Some(\"open it\")",
            "missing no hardware event can be counted | Some(\"no hardware PMU (virtual machine)\") | None",
            "limited counters can only be read by a system call | Some(\"no hardware PMU (virtual machine)\") | None",
        ]
    );
}

#[test]
fn this_machine_is_examined() {
    let findings = examine(&Roots::default(), &PmuFindings::default());
    for topic in [
        "perf-event-paranoid",
        "clock",
        "cpu-time",
        "tracefs",
        "btf",
        "capabilities",
    ] {
        assert!(find(&findings, topic).is_some(), "{topic}");
    }
}
