//! Children that are started, fail, and are reaped.

use super::*;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn program(argv: &[&str]) -> Program {
    let argv: Vec<CString> = argv
        .iter()
        .map(|&word| CString::new(word).unwrap())
        .collect();
    Program {
        path: argv[0].clone(),
        argv,
        envp: Vec::new(),
        files: Vec::new(),
        entrance: None,
        affinity: None,
        settings: Settings::default(),
        own_session: true,
    }
}

/// What a program that runs with `settings` prints, as text.
fn output(argv: &[&str], settings: Settings, pad: Option<usize>) -> Result<String, Exit> {
    let (mut tells, told) = io::pipe().unwrap();
    let mut program = program(argv);
    program.files = vec![None, Some(told.into())];
    program.settings = settings;
    let mut launcher = Launcher::new(program).unwrap();
    if let Some(bytes) = pad {
        launcher.pad(bytes + 1).unwrap();
        launcher.pad(bytes).unwrap();
    }
    let child = launcher.start().unwrap();
    child.release();
    let exit = child.reap().unwrap();
    drop(launcher);
    let mut text = String::new();
    tells.read_to_string(&mut text).unwrap();
    match exit.code {
        Some(0) => Ok(text),
        _ => Err(exit),
    }
}

fn has_sys_nice() -> bool {
    let capability = caps::Capability::CAP_SYS_NICE;
    caps::has_cap(None, caps::CapSet::Effective, capability).unwrap()
}

#[test]
fn a_signal_before_the_exec_ends_the_child_and_never_reaches_our_handler() {
    let caught = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&caught)).unwrap();
    let mut launcher = Launcher::new(program(&["/bin/sleep", "9"])).unwrap();
    let child = launcher.start().unwrap();
    child.signal(Signal::SIGUSR1).unwrap();
    child.release();
    let exit = child.reap().unwrap();
    assert_eq!(exit.signal, Some(libc::SIGUSR1), "{exit:?}");
    assert!(!caught.load(Ordering::Relaxed));
}

#[test]
fn a_child_that_never_ran_is_killed_and_reaped() {
    for own_session in [true, false] {
        let mut program = program(&["/bin/sleep", "9"]);
        program.own_session = own_session;
        let mut launcher = Launcher::new(program).unwrap();
        for _ in 0..20 {
            drop(launcher.start().unwrap());
        }
    }
}

#[test]
fn a_child_is_moved_to_its_cgroup_or_not_started() {
    let cgroup = tempfile::NamedTempFile::new().unwrap();
    let start = |write: bool| {
        let file = File::options().read(true).write(write).open(cgroup.path());
        let mut program = program(&["/bin/true"]);
        program.entrance = Some(Arc::new(file.unwrap()));
        Launcher::new(program).unwrap().start()
    };
    let child = start(true).unwrap();
    let moved = std::fs::read_to_string(cgroup.path()).unwrap();
    assert_eq!(moved, child.pid().to_string());
    child.release();
    assert_eq!(child.reap().unwrap().code, Some(0));
    assert!(start(false).is_err());
}

#[test]
fn the_group_of_a_child_ends_with_it() {
    let script = "sleep 9 & echo $! >&2; sleep 9";
    let (mut tells, told) = io::pipe().unwrap();
    let mut program = program(&["/bin/sh", "-c", script]);
    program.files = vec![None, None, Some(told.into())];
    let mut launcher = Launcher::new(program).unwrap();
    let child = launcher.start().unwrap();
    child.release();
    let mut text = [0; 16];
    let got = tells.read(&mut text).unwrap();
    let grandchild: i32 = str::from_utf8(&text[..got])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let end = open_pidfd(grandchild).unwrap();
    drop(child);
    let mut ended = [nix::poll::PollFd::new(
        end.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut ended, 5000u16), Ok(1));
}

#[test]
fn descriptors_can_change_places() {
    let (mut from_a, a) = io::pipe().unwrap();
    let (mut from_b, b) = io::pipe().unwrap();
    let (x, y) = (a.as_raw_fd() as usize, b.as_raw_fd() as usize);
    let script = format!("echo x >/proc/self/fd/{x}; echo y >/proc/self/fd/{y}");
    let mut program = program(&["/bin/sh", "-c", &script]);
    program.files.resize_with(x.max(y) + 1, || None);
    program.files[x] = Some(b.into());
    program.files[y] = Some(a.into());
    let mut launcher = Launcher::new(program).unwrap();
    let child = launcher.start().unwrap();
    child.release();
    assert_eq!(child.reap().unwrap().code, Some(0));
    drop(launcher);
    let mut read = [String::new(), String::new()];
    from_a.read_to_string(&mut read[0]).unwrap();
    from_b.read_to_string(&mut read[1]).unwrap();
    assert_eq!(read, ["y\n", "x\n"]);
}

#[test]
fn what_failed_before_the_exec_is_told_apart_from_the_exec() {
    let exit = |program| {
        let child = Launcher::new(program).unwrap().start().unwrap();
        child.release();
        child.reap().unwrap()
    };
    let missing = exit(program(&["/missing/program"]));
    assert_eq!(
        (missing.exec_error, missing.setup_error),
        (Some(Errno::ENOENT), None)
    );
    let mut nowhere = program(&["/bin/true"]);
    nowhere.affinity = Some(CpuSet::new());
    let nowhere = exit(nowhere);
    assert_eq!(nowhere.exec_error, None);
    assert_eq!(nowhere.setup_error, Some((Step::Affinity, Errno::EINVAL)));
}

#[test]
fn steps_stand_at_their_numbers() {
    for (place, (step, _)) in STEPS.into_iter().enumerate() {
        assert_eq!(step as usize, place, "{step}");
    }
}

#[test]
fn addresses_are_switched_and_the_rest_of_the_personality_is_kept() {
    let check = |aslr, want| {
        let settings = Settings {
            aslr,
            ..Settings::default()
        };
        let text = output(&["/bin/cat", "/proc/self/personality"], settings, None).unwrap();
        assert_eq!(text.trim(), format!("{want:08x}"), "{aslr:?}");
    };
    let own = std::fs::read_to_string("/proc/self/personality").unwrap();
    let own = usize::from_str_radix(own.trim(), 16).unwrap();
    check(None, own);
    check(Some(false), own | NO_ASLR);
    check(Some(true), own & !NO_ASLR);
}

#[test]
fn huge_pages_are_switched_for_the_child_alone() {
    let switch = |path: &str| {
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("THP_enabled:"));
        line.map(|line| line.ends_with('1'))
    };
    let Some(own) = switch("/proc/self/status") else {
        return eprintln!("not run: the switch for huge pages: Linux 5.0 and newer show it");
    };
    for (thp, want) in [(None, own), (Some(false), false), (Some(true), true)] {
        let settings = Settings {
            thp,
            ..Settings::default()
        };
        let argv = ["/bin/grep", "THP_enabled:.*1", "/proc/self/status"];
        assert_eq!(output(&argv, settings, None).is_ok(), want, "{thp:?}");
        assert_eq!(switch("/proc/self/status"), Some(own), "{thp:?}");
    }
}

#[test]
fn scheduling_is_set() {
    // Behind the name: priority, nice level, …, real-time priority and policy.
    let read = |settings| {
        let text = output(&["/bin/cat", "/proc/self/stat"], settings, None).unwrap();
        let fields: Vec<i64> = text[text.rfind(')').unwrap() + 4..]
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(-1))
            .collect();
        (fields[15], fields[36], fields[37])
    };
    let set = |scheduler, nice| Settings {
        scheduler,
        nice,
        ..Settings::default()
    };
    let (nice, _, policy) = read(Settings::default());
    assert_eq!(read(set(None, Some(19))), (19, 0, policy));
    assert_eq!(read(set(Some(Scheduler::Batch), None)), (nice, 0, 3));
    assert_eq!(read(set(Some(Scheduler::Idle), Some(19))), (19, 0, 5));
    if !has_sys_nice() {
        return eprintln!("not run: privileged scheduling: it takes CAP_SYS_NICE");
    }
    assert_eq!(read(set(Some(Scheduler::Other), Some(-20))), (-20, 0, 0));
    assert_eq!(read(set(Some(Scheduler::Fifo(7)), None)).1, 7);
    assert_eq!(read(set(Some(Scheduler::Fifo(7)), None)).2, 1);
    assert_eq!(read(set(Some(Scheduler::RoundRobin(99)), None)).1, 99);
    assert_eq!(read(set(Some(Scheduler::RoundRobin(99)), None)).2, 2);
}

#[test]
fn a_setting_that_fails_is_named() {
    let check = |settings, want| {
        let exit = output(&["/bin/true"], settings, None).unwrap_err();
        assert_eq!((exit.setup_error, exit.exec_error), (Some(want), None));
    };
    let settings = Settings {
        scheduler: Some(Scheduler::Fifo(100)),
        ..Settings::default()
    };
    check(settings, (Step::Scheduler, Errno::EINVAL));
}

#[test]
fn environments_are_padded_to_the_length_that_was_asked_for_last() {
    let cat = ["/bin/cat", "/proc/self/environ"];
    let text = |pad| output(&cat, Settings::default(), pad).unwrap();
    assert_eq!(text(None), "");
    for bytes in [0, 16, 4080] {
        let want = format!("POISE_PADDING={}\0", "x".repeat(bytes));
        assert_eq!(text(Some(bytes)), want);
    }
}
