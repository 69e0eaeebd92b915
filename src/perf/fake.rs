//! Fake trees of sysfs and tracefs for tests. Never touches the real ones.

use std::fs;

use tempfile::TempDir;

use super::catalog::Catalog;

/// A machine whose cores are alike, with PMUs of every sort and two tracepoints.
pub(crate) fn machine() -> (TempDir, Catalog) {
    tree(&[
        ("pmus/breakpoint/type", "5"),
        ("pmus/software/type", "1"),
        ("pmus/broken/type", "many"),
        ("pmus/cpu/type", "4"),
        ("pmus/cpu/format/event", "config:0-7"),
        ("pmus/cpu/format/umask", "config:8-15"),
        ("pmus/cpu/format/edge", "config:18"),
        ("pmus/cpu/format/cmask", "config:24-31"),
        ("pmus/cpu/format/wide", "config:0-7,32-35"),
        ("pmus/cpu/format/ldlat", "config1:0-15"),
        ("pmus/cpu/format/strange", "config9:0-15"),
        ("pmus/cpu/events/cpu-cycles", "event=0x3c"),
        ("pmus/cpu/events/mem-loads", "event=0xcd,umask=0x1,ldlat=3"),
        ("pmus/cpu/events/el-conflict", "event=0x54,edge"),
        ("pmus/cpu/events/garbled", "event=zzz"),
        ("pmus/msr/type", "9"),
        ("pmus/msr/format/event", "config:0-63"),
        ("pmus/msr/events/tsc", "event=0x00"),
        ("pmus/power/type", "20"),
        ("pmus/power/cpumask", "0"),
        ("pmus/power/format/event", "config:0-7"),
        ("pmus/power/events/energy-pkg", "event=0x02"),
        (
            "pmus/power/events/energy-pkg.scale",
            "2.3283064365386962890625e-10",
        ),
        ("pmus/power/events/energy-pkg.unit", "Joules"),
        ("pmus/hv_24x7/type", "30"),
        ("pmus/hv_24x7/format/domain", "config:0-3"),
        ("pmus/hv_24x7/format/core", "config:16-31"),
        ("pmus/hv_24x7/format/offset", "config:32-63"),
        ("pmus/hv_24x7/events/PM_CYC", "domain=2,offset=0x98,core=?"),
        ("pmus/bare/type", "31"),
        ("tracing/events/header_page", ""),
        ("tracing/events/sched/enable", "0"),
        ("tracing/events/sched/sched_switch/id", "372"),
        ("tracing/events/sched/sched_wakeup/id", "374"),
        ("tracing/events/sched/sched_odd/id", "odd"),
        ("tracing/events/syscalls/sys_enter_write/id", "810"),
    ])
}

/// A machine with two sorts of cores and no tracefs.
pub(crate) fn hybrid() -> (TempDir, Catalog) {
    tree(&[
        ("pmus/cpu_core/type", "4"),
        ("pmus/cpu_core/cpus", "0-7"),
        ("pmus/cpu_core/format/event", "config:0-7"),
        ("pmus/cpu_core/events/mem-loads", "event=0xcd"),
        ("pmus/cpu_core/events/slots", "event=0x00"),
        ("pmus/cpu_atom/type", "10"),
        ("pmus/cpu_atom/cpus", "8-15"),
        ("pmus/cpu_atom/format/event", "config:0-7"),
        ("pmus/cpu_atom/events/mem-loads", "event=0xd0"),
        ("tracing/README", "an empty mount point"),
    ])
}

fn tree(files: &[(&str, &str)]) -> (TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }
    let catalog = Catalog {
        pmus: dir.path().join("pmus"),
        tracing: vec![dir.path().join("tracing"), dir.path().join("none")],
    };
    (dir, catalog)
}
