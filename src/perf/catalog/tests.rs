use super::*;
use crate::perf::fake;
use proptest::prelude::*;

/// Parses a single event.
fn event(catalog: &Catalog, text: &str) -> Event {
    let mut groups = catalog
        .parse(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!((groups.len(), groups[0].events.len()), (1, 1), "{text}");
    groups.remove(0).events.remove(0)
}

#[test]
fn names_and_aliases_become_canonical() {
    let (_dir, catalog) = fake::machine();
    let check = |text, spelling: &str, kind, config| {
        let event = event(&catalog, text);
        let got = (event.spelling(), event.code);
        assert_eq!(
            got,
            (
                spelling.to_owned(),
                Code {
                    kind,
                    config,
                    ..Code::default()
                }
            ),
            "{text}"
        );
    };
    check("cycles", "cycles", 0, 0);
    check("cpu-cycles", "cycles", 0, 0);
    check(" cycles ", "cycles", 0, 0);
    check("instructions:u", "instructions:u", 0, 1);
    check("instructions : u", "instructions:u", 0, 1);
    check("branch-instructions", "branches", 0, 4);
    check("idle-cycles-frontend", "stalled-cycles-frontend", 0, 7);
    check("ref-cycles", "ref-cycles", 0, 9);
    check("cpu-clock", "cpu-clock", 1, 0);
    check("task-clock:u", "task-clock", 1, 1);
    check("faults", "page-faults", 1, 2);
    check("cs", "context-switches", 1, 3);
    check("cs:k", "context-switches:k", 1, 3);
    check("migrations", "cpu-migrations", 1, 4);
    check("dummy", "dummy", 1, 9);
    check("bpf-output", "bpf-output", 1, 10);
    check("cgroup-switches", "cgroup-switches", 1, 11);
    check("LLC-load-misses:uk", "LLC-load-misses:uk", 3, 0x10002);
    check("l1d-read-miss", "L1-dcache-load-misses", 3, 0x10000);
    check("r1A8", "r1a8", 4, 0x1a8);
    check("r01a8:u", "r1a8:u", 4, 0x1a8);
    check("rffffffffffffffff", "rffffffffffffffff", 4, u64::MAX);
}

#[test]
fn pmu_events_are_coded_by_sysfs() {
    let (_dir, catalog) = fake::machine();
    let check = |text, spelling: &str, code: (u32, u64, u64, u64)| {
        let event = event(&catalog, text);
        let Code {
            kind,
            config,
            config1,
            config2,
        } = event.code;
        assert_eq!(
            (event.spelling().as_str(), (kind, config, config1, config2)),
            (spelling, code),
            "{text}"
        );
    };
    check("msr/tsc/", "msr/tsc/", (9, 0, 0, 0));
    check("msr/tsc/u", "msr/tsc/u", (9, 0, 0, 0));
    check("msr/tsc/:u", "msr/tsc/u", (9, 0, 0, 0));
    check("msr//", "msr//", (9, 0, 0, 0));
    check("msr/event=10/", "msr/event=10/", (9, 10, 0, 0));
    check(
        "cpu/event=0x3c,umask=0x1/",
        "cpu/event=0x3c,umask=0x1/",
        (4, 0x13c, 0, 0),
    );
    check(
        "cpu/ event = 0x3c , edge /k",
        "cpu/event=0x3c,edge/k",
        (4, 0x4003c, 0, 0),
    );
    check(
        "cpu/wide=0xabc/",
        "cpu/wide=0xabc/",
        (4, 0xa_0000_00bc, 0, 0),
    );
    check("cpu/mem-loads/", "cpu/mem-loads/", (4, 0x1cd, 3, 0));
    check(
        "cpu/mem-loads,ldlat=50/",
        "cpu/mem-loads,ldlat=50/",
        (4, 0x1cd, 50, 0),
    );
    check(
        "cpu/ldlat=50,mem-loads/",
        "cpu/ldlat=50,mem-loads/",
        (4, 0x1cd, 50, 0),
    );
    check("mem-loads", "cpu/mem-loads/", (4, 0x1cd, 3, 0));
    check("mem-loads:u", "cpu/mem-loads/u", (4, 0x1cd, 3, 0));
    check("cpu/el-conflict/", "cpu/el-conflict/", (4, 0x40054, 0, 0));
    check("cpu/cpu-cycles/", "cpu/cpu-cycles/", (4, 0x3c, 0, 0));
    check(
        "cpu/config=0x5,config1=7,config2=9/",
        "cpu/config=0x5,config1=7,config2=9/",
        (4, 5, 7, 9),
    );
    check("cpu/r1a8/", "cpu/r1a8/", (4, 0x1a8, 0, 0));
    check("cpu/cycles/", "cpu/cycles/", (0, 0, 0, 0));
    check(
        "cpu/LLC-load-misses,name=x/",
        "cpu/LLC-load-misses,name=x/",
        (3, 0x10002, 0, 0),
    );
    check(
        "hv_24x7/PM_CYC,core=1/",
        "hv_24x7/PM_CYC,core=1/",
        (30, 0x98_0001_0002, 0, 0),
    );
    check("software/config=2/", "software/config=2/", (1, 2, 0, 0));
}

#[test]
fn events_carry_what_a_count_stands_for() {
    let (_dir, catalog) = fake::machine();
    let check = |text, unit: &str, scale| {
        let event = event(&catalog, text);
        assert_eq!(
            (event.unit().as_str(), event.scale()),
            (unit, scale),
            "{text}"
        );
    };
    check(
        "power/energy-pkg/",
        "power/energy-pkg/-Joules/op",
        0.5_f64.powi(32),
    );
    check(
        "power/energy-pkg,name=pkg/",
        "pkg-Joules/op",
        0.5_f64.powi(32),
    );
    check("power/event=2/", "power/event=2//op", 1.0);
    check("task-clock", "task-clock-sec/op", 1e-9);
    check("software/config=1,name=clock/", "clock-sec/op", 1e-9);
    check("msr/tsc,name=ticks/u", "ticks:u/op", 1.0);
}

#[test]
fn tracepoints_are_told_from_modifiers() {
    let (_dir, catalog) = fake::machine();
    let check = |text, spelling: &str, id| {
        let event = event(&catalog, text);
        let got = (event.spelling(), event.code.kind, event.code.config);
        assert_eq!(
            got,
            (spelling.to_owned(), abi::PERF_TYPE_TRACEPOINT, id),
            "{text}"
        );
    };
    check("sched:sched_switch", "sched:sched_switch", 372);
    check("sched:sched_switch:u", "sched:sched_switch:u", 372);
    check(
        "syscalls:sys_enter_write:k",
        "syscalls:sys_enter_write:k",
        810,
    );
    assert_eq!(
        event(&catalog, "cycles:u").code.kind,
        abi::PERF_TYPE_HARDWARE
    );
}

#[test]
fn lists_and_groups() {
    let (_dir, catalog) = fake::machine();
    let check = |text, want: &[&str]| {
        let groups = catalog
            .parse(text)
            .unwrap_or_else(|e| panic!("{text}: {e}"));
        let got: Vec<String> = groups.iter().map(Group::spelling).collect();
        assert_eq!(got, want, "{text}");
    };
    check("cycles,instructions", &["cycles", "instructions"]);
    check(
        "cycles , {instructions, cs}",
        &["cycles", "{instructions,context-switches}"],
    );
    check("{cycles,instructions}:u", &["{cycles:u,instructions:u}"]);
    check(
        "{cycles:k,instructions} :u,cs",
        &["{cycles:uk,instructions:u}", "context-switches"],
    );
    check(
        "{cycles:pp,instructions}:pW",
        &["{cycles:ppW,instructions:pW}"],
    );
    check("{cycles,task-clock}:u", &["{cycles:u,task-clock}"]);
    check(
        "{cpu/event=1,umask=2/,msr/tsc/}:D,cycles",
        &["{cpu/event=1,umask=2/D,msr/tsc/D}", "cycles"],
    );
    check("{cycles}", &["{cycles}"]);
    check("cpu/name=a{b,event=1/", &["cpu/name=a{b,event=1/"]);
}

#[test]
fn modifiers_reach_the_attribute() {
    let (_dir, catalog) = fake::machine();
    let attr = event(&catalog, "cycles:kuppD").attr();
    let modes = (
        attr.exclude_user(),
        attr.exclude_kernel(),
        attr.exclude_hv(),
    );
    assert_eq!((modes, attr.precise_ip(), attr.pinned()), ((0, 0, 1), 2, 1));
    assert_eq!(event(&catalog, "cycles:ku").spelling(), "cycles:uk");
    assert_eq!(event(&catalog, "cycles:WDPhku").spelling(), "cycles:ukhPDW");
}

#[test]
fn core_types_are_kept_apart() {
    let (_dir, catalog) = fake::hybrid();
    let names: Vec<_> = catalog
        .core_pmus()
        .into_iter()
        .map(|p| (p.name, p.kind, p.cpus))
        .collect();
    let core = |name: &str, kind, cpus: &str| (name.to_owned(), kind, Some(cpus.to_owned()));
    assert_eq!(
        names,
        [core("cpu_atom", 10, "8-15"), core("cpu_core", 4, "0-7")]
    );
    let check = |text, kind, config| {
        let code = event(&catalog, text).code;
        assert_eq!((code.kind, code.config), (kind, config), "{text}");
    };
    check("cycles", 0, 0);
    check("cpu_core/cycles/", 0, 4 << 32);
    check("cpu_atom/cycles/u", 0, 10 << 32);
    check("cpu_atom/LLC-loads/", 3, 10 << 32 | 2);
    check("cpu_atom/mem-loads/", 10, 0xd0);
    check("slots", 4, 0);
    let error = catalog.parse("mem-loads").unwrap_err().to_string();
    let want = "`mem-loads` is an event of several PMUs: write `cpu_atom/mem-loads/` or `cpu_core/mem-loads/`";
    assert_eq!(error, want);
}

#[test]
fn errors_name_the_word_its_place_and_the_cure() {
    let (_dir, catalog) = fake::machine();
    let check = |text, offset, word: &str, message: &str| {
        let error = catalog.parse(text).expect_err(text);
        let got = (error.offset, error.word.as_str(), error.to_string());
        assert_eq!(got, (offset, word, message.to_owned()), "{text}");
    };
    let missing = "an event is missing: empty list or group, or a comma too many";
    check("", 0, "", missing);
    check("cycles,", 7, "", missing);
    check("cycles,,cs", 7, "", missing);
    check("{}", 1, "", missing);
    check("{cycles,}", 8, "", missing);
    check(":u", 0, "", missing);
    check("msr/tsc,,event=1/", 8, "", missing);
    check("cs,{cycles", 3, "{", "`{` is not closed");
    check("cs,cycles}", 9, "}", "`}` without a `{` before it");
    check(
        "{cs,{cycles}}",
        4,
        "{",
        "`{` within a group: groups do not nest",
    );
    check("cs,msr/tsc", 6, "/", "`/` is not closed");
    check(
        "{cs}u",
        4,
        "u",
        "`u` after a group: only `:` and modifiers may stand there",
    );

    check(
        "cs,cylces",
        3,
        "cylces",
        "unknown event `cylces`: did you mean `cycles`?",
    );
    check(
        "cs,cylces:u",
        3,
        "cylces",
        "unknown event `cylces`: did you mean `cycles`?",
    );
    check(
        "CYCLES",
        0,
        "CYCLES",
        "unknown event `CYCLES`: did you mean `cycles`?",
    );
    check(
        "tsc",
        0,
        "tsc",
        "unknown event `tsc`: did you mean `msr/tsc/`?",
    );
    check(
        "memloads",
        0,
        "memloads",
        "unknown event `memloads`: did you mean `cpu/mem-loads/`?",
    );
    check(
        "xyzzy",
        0,
        "xyzzy",
        "unknown event `xyzzy`; `poise events` lists what is known",
    );
    check(
        "sched_swich",
        0,
        "sched_swich",
        "unknown event `sched_swich`: did you mean `sched:sched_switch`?",
    );
    check(
        "a\nb",
        0,
        "a\nb",
        r"unknown event `a\nb`; `poise events` lists what is known",
    );
    check(
        "duration_time",
        0,
        "duration_time",
        "`duration_time` is no event here: this time is always measured",
    );

    let modifier = "there are only u, k, h, p, pp, ppp, P, D and W";
    check(
        "cs,cycles:uz",
        11,
        "z",
        &format!("modifier `z`: {modifier}"),
    );
    check("cycles:ü", 7, "ü", &format!("modifier `ü`: {modifier}"));
    check("cycles:uu", 8, "u", "modifier `u`: it stands there twice");
    check(
        "cycles:pppp",
        10,
        "p",
        "modifier `p`: `ppp` is the most, and `P` stands alone",
    );
    check(
        "cycles:G",
        7,
        "G",
        "modifier `G`: counting guests only is not supported",
    );
    check("cycles:", 7, "", "modifier ``: none stands after the colon");
    check("{cycles}:x", 9, "x", &format!("modifier `x`: {modifier}"));
    check("msr/tsc/x", 8, "x", &format!("modifier `x`: {modifier}"));
    check("cycles:u:k", 8, ":", &format!("modifier `:`: {modifier}"));
    let zero = "happens in the kernel and would always count 0: leave `u` and `h` away";
    check("cycles,cs:u", 7, "cs:u", &format!("`cs:u` {zero}"));
    check(
        "{cycles,migrations}:u",
        8,
        "migrations",
        &format!("`migrations` {zero}"),
    );

    check(
        "mrs/tsc/",
        0,
        "mrs",
        "unknown PMU `mrs`: this machine has bare, breakpoint, cpu, hv_24x7, msr, power, software",
    );
    check(
        "cpu/event=1,umsk=2/",
        12,
        "umsk",
        "PMU `cpu` has no event or parameter `umsk`: did you mean `umask`? \
         it takes cmask, edge, event, ldlat, strange, umask, wide",
    );
    check(
        "bare/x/",
        5,
        "x",
        "PMU `bare` has no event or parameter `x`: it takes only `config`, `config1` and `config2`",
    );
    check(
        "msr/cycles/",
        4,
        "cycles",
        "PMU `msr` has no event or parameter `cycles`: it takes event",
    );
    check(
        "cpu/event=256/",
        10,
        "256",
        "`256`: the largest number that fits is 0xff",
    );
    check(
        "cpu/edge=2/",
        9,
        "2",
        "`2`: the largest number that fits is 0x1",
    );
    let number = "a number is missing, decimal or after `0x` hexadecimal";
    check("cpu/event=/", 10, "", &format!("``: {number}"));
    check("cpu/event=-1/", 10, "-1", &format!("`-1`: {number}"));
    check("cpu/config/", 4, "config", &format!("`config`: {number}"));
    check(
        "r1ffffffffffffffff",
        0,
        "r1ffffffffffffffff",
        "`r1ffffffffffffffff`: the largest number that fits is 0xffffffffffffffff",
    );
    check(
        "msr/tsc,period=10/",
        8,
        "period",
        "parameter `period`: events are counted, not sampled: there is no period",
    );
    check(
        "msr/name=/",
        4,
        "name",
        "parameter `name`: a name is missing: `name=…`",
    );
    check(
        "hv_24x7/PM_CYC/",
        8,
        "PM_CYC",
        "event `PM_CYC` needs a value for `core`: add `core=…` behind a comma",
    );

    check(
        "cs,sched:sched_swich:u",
        3,
        "sched:sched_swich",
        "unknown tracepoint `sched:sched_swich`: did you mean `sched:sched_switch`?",
    );
    check(
        "nope:nothing",
        0,
        "nope:nothing",
        "unknown tracepoint `nope:nothing`; `poise events tracepoint` lists all",
    );
}

#[test]
fn what_sysfs_garbles_is_an_error_with_its_file() {
    let (dir, catalog) = fake::machine();
    let check = |text: &str, file: &str, found: &str| {
        let error = catalog.parse(text).expect_err(text).to_string();
        let want = format!(
            "{}: `{found}` is not understood",
            dir.path().join(file).display()
        );
        assert!(error.ends_with(&want), "{error}");
    };
    check("broken/x/", "pmus/broken/type", "many");
    check("cpu/strange=1/", "pmus/cpu/format/strange", "config9:0-15");
    check("cpu/garbled/", "pmus/cpu/events", "event=zzz");
    check(
        "sched:sched_odd",
        "tracing/events/sched/sched_odd/id",
        "odd",
    );
}

#[test]
fn names_cannot_leave_their_directory() {
    let (_dir, catalog) = fake::machine();
    for text in [
        "../cpu/tsc/",
        "./tsc/",
        "msr/../",
        "msr/energy-pkg.scale/",
        "power/energy-pkg.unit/",
        "..:sched",
        "sched:..",
    ] {
        assert!(catalog.parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_missing_tracefs_has_a_cure() {
    let (dir, catalog) = fake::hybrid();
    let root = dir.path().join("tracing");
    let error = catalog.parse("sched:sched_switch").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "tracepoint `sched:sched_switch` cannot be looked up: tracefs is not mounted; \
             mount -t tracefs tracefs {}",
            root.display()
        )
    );
    let error = catalog.parse("cylces:u").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown event `cylces`: did you mean `cycles`?"
    );
}

#[test]
fn a_closed_tracefs_has_a_cure() {
    use caps::{CapSet, Capability};
    use nix::unistd::{Uid, setfsuid};
    use std::os::unix::fs::PermissionsExt;
    let (dir, catalog) = fake::machine();
    let root = dir.path().join("tracing");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o000)).unwrap();
    // Root may read everything; of one thread's file accesses that is taken back.
    let error = std::thread::scope(|scope| {
        let ordinary = scope.spawn(|| {
            setfsuid(Uid::from_raw(65534));
            caps::drop(None, CapSet::Permitted, Capability::CAP_DAC_READ_SEARCH).unwrap();
            catalog.parse("sched:sched_switch").unwrap_err()
        });
        ordinary.join().unwrap()
    });
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "tracepoint `sched:sched_switch` cannot be looked up: {root} may not be read by this user; \
             run as root, or sudo mount -o remount,mode=0750,gid=$(id -g) {root}",
            root = root.display()
        )
    );
}

#[test]
#[allow(clippy::print_stderr)]
fn the_real_msr_pmu_is_understood() {
    let catalog = Catalog::default();
    let kind = std::fs::read_to_string(catalog.pmus.join("msr/type"));
    let Ok(kind) = kind else {
        eprintln!("not run: the real msr PMU (this machine has none)");
        return;
    };
    let event = event(&catalog, "msr/tsc/");
    assert_eq!(
        event.code,
        Code {
            kind: kind.trim().parse().unwrap(),
            ..Code::default()
        }
    );
    assert!(event.is_software());
}

#[test]
fn any_text_is_taken_or_refused() {
    let (_dir, catalog) = fake::machine();
    proptest!(|(text: String)| {
        let _ = catalog.parse(&text);
    });
}

#[test]
fn any_list_like_text_is_taken_or_refused() {
    let (_dir, catalog) = fake::machine();
    let parts = prop::collection::vec(prop::sample::select(PARTS), 0..14);
    proptest!(|(parts in parts)| {
        let text = parts.concat();
        match catalog.parse(&text) {
            Ok(groups) => {
                let spelling: Vec<String> = groups.iter().map(Group::spelling).collect();
                prop_assert_eq!(catalog.parse(&spelling.join(",")), Ok(groups));
            }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.offset), "{:?}", error);
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    });
}

#[test]
fn spellings_are_parsed_back() {
    let (_dir, catalog) = fake::machine();
    let member = (prop::sample::select(EVENTS), any_modifiers());
    proptest!(|(members in prop::collection::vec(member, 1..4), braced: bool)| {
        let event = |(name, modifiers): (&str, Modifiers)| event(&catalog, name).with(modifiers);
        let events: Vec<Event> = members.into_iter().map(event).collect();
        let groups = match braced {
            true => vec![Group { events, braced }],
            false => events.into_iter().map(|event| Group { events: vec![event], braced }).collect(),
        };
        let spelling: Vec<String> = groups.iter().map(Group::spelling).collect();
        prop_assert_eq!(catalog.parse(&spelling.join(",")), Ok(groups));
    });
}

const PARTS: &[&str] = &[
    "{",
    "}",
    ",",
    ":",
    "/",
    "=",
    " ",
    "u",
    "k",
    "p",
    "D",
    "W",
    "cycles",
    "cs",
    "L1-dcache",
    "-loads",
    "-misses",
    "r1a8",
    "msr",
    "tsc",
    "cpu",
    "event",
    "0x1",
    "7",
    "name",
    "mem-loads",
    "sched",
    "sched_switch",
    "ü",
    "..",
];

const EVENTS: &[&str] = &[
    "cycles",
    "branches",
    "page-faults",
    "task-clock",
    "dummy",
    "L1-dcache-load-misses",
    "iTLB-loads",
    "r1a8",
    "msr/tsc/",
    "mem-loads",
    "cpu/event=0x3c,umask=1,edge/",
    "cpu/mem-loads,ldlat=9,name=far/",
    "cpu/cycles/",
    "power/energy-pkg/",
    "hv_24x7/PM_CYC,core=3/",
    "sched:sched_switch",
    "syscalls:sys_enter_write",
];

fn any_modifiers() -> impl Strategy<Value = Modifiers> {
    use crate::perf::event::Precise::{Arbitrary, Constant, Exact, Most, Requested};
    let precise = prop::sample::select(&[Arbitrary, Constant, Requested, Exact, Most][..]);
    (any::<[bool; 5]>(), precise).prop_map(|([user, kernel, hypervisor, pinned, weak], precise)| {
        Modifiers {
            user,
            kernel,
            hypervisor,
            precise,
            pinned,
            weak,
        }
    })
}
