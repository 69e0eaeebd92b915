use super::super::{catalog, parse};
use super::*;
use nix::sys::signal::kill;

fn spec(text: &str) -> LoopSpec {
    parse(text).unwrap().remove(0)
}

fn prepare(text: &str) -> Prepared {
    spec(text).prepare(&std::env::temp_dir()).unwrap()
}

/// Whether `work` takes exactly `want` faults. Other tests of this process fork meanwhile,
/// which makes pages fault again: what is never seen in many tries is not so.
fn faults(want: u64, mut work: impl FnMut()) -> bool {
    let faults = || {
        getrusage(UsageWho::RUSAGE_THREAD)
            .unwrap()
            .minor_page_faults() as u64
    };
    (0..100).any(|_| {
        let before = faults();
        work();
        faults() - before == want
    })
}

/// Every loop with every word for a parameter, and some sizes.
fn all_specs() -> Vec<LoopSpec> {
    let some = |parameter: &super::super::Parameter| match parameter.values {
        super::super::Values::Word(words) => words.join(","),
        _ => parameter.default.replace("16", "2"),
    };
    let text = |info: &super::super::LoopInfo| {
        let parameters = info
            .parameters
            .iter()
            .map(|p| format!("/{}={}", p.key, some(p)));
        parameters.fold(info.name.to_owned(), |text, parameter| text + &parameter)
    };
    catalog()
        .iter()
        .flat_map(|info| parse(&text(info)).unwrap())
        .collect()
}

#[test]
fn every_loop_runs() {
    let specs = all_specs();
    assert!(specs.len() > catalog().len() + 7);
    for spec in specs {
        let mut prepared = match spec.prepare(&std::env::temp_dir()) {
            Err(refused @ LoopError::Refused { .. }) => {
                eprintln!("not run: {refused}");
                continue;
            }
            prepared => prepared.unwrap(),
        };
        let makes_processes = matches!(spec.info().kind, Kind::ForkWait | Kind::VforkExec);
        let many = if makes_processes { 20 } else { 1000 };
        for iterations in [0, 1, 2, many, spec.granularity()] {
            prepared
                .run(iterations)
                .unwrap_or_else(|e| panic!("{iterations}: {e}"));
        }
        let mut timed = 0;
        prepared
            .run_timed(20, |ns| timed += u64::from(ns < 1_000_000_000))
            .unwrap();
        assert_eq!(timed, 20, "{spec}");
    }
}

#[test]
fn writes_move_all_their_bytes() {
    for size in [1u64, 512, 3000, 4096, 5000, 65536] {
        let mut prepared = prepare(&format!("write/size={size}/to=pipe"));
        let Work::Write(writer) = &prepared.work else {
            panic!()
        };
        let (pass, AfterPass::Empty { out, .. }) = (writer.pass, &writer.after_pass) else {
            panic!()
        };
        let out = out.try_clone().unwrap();
        let in_pipe = || {
            let mut bytes = vec![0; 1 << 20];
            let result = unistd::read(&out, &mut bytes);
            result.unwrap_or(0) as u64
        };
        prepared.run(pass - 1).unwrap();
        assert_eq!(in_pipe(), (pass - 1) * size);
        let Work::Write(writer) = &mut prepared.work else {
            panic!()
        };
        writer.written = 0;
        prepared.run(3 * pass).unwrap();
        assert_eq!(in_pipe(), 0, "a whole pass leaves the pipe empty");
    }
    let mut prepared = prepare("write/size=1000/to=file");
    prepared.run(3 * 1048 + 5).unwrap();
    let Work::Write(writer) = &prepared.work else {
        panic!()
    };
    assert_eq!(lseek(&writer.to, 0, Whence::SeekCur).unwrap(), 5000);
    assert_eq!(lseek(&writer.to, 0, Whence::SeekEnd).unwrap(), 1_048_000);
}

#[test]
fn a_write_that_is_not_whole_is_an_error() {
    let mut prepared = prepare("write/size=4096/to=pipe");
    let Work::Write(writer) = &mut prepared.work else {
        panic!()
    };
    writer.pass = u64::MAX;
    assert!(
        prepared
            .run(1000)
            .unwrap_err()
            .to_string()
            .ends_with("Resource temporarily unavailable (os error 11)")
    );
    let mut prepared = prepare("write");
    let Work::Write(writer) = &mut prepared.work else {
        panic!()
    };
    writer.to = open_existing(c"/dev/full", OFlag::O_WRONLY).unwrap();
    let error = prepared.run(2).unwrap_err().to_string();
    assert_eq!(
        error,
        "`write/size=512/to=null`: the operation failed: No space left on device (os error 28)"
    );
    assert_eq!(
        whole(Ok(3), 4).unwrap_err().to_string(),
        "only 3 of 4 bytes were moved"
    );
}

#[test]
fn reads_fill_the_buffer() {
    let mut prepared = prepare("read/size=4096");
    let Work::Read { buffer, .. } = &mut prepared.work else {
        panic!()
    };
    buffer.fill(1);
    prepared.run(1).unwrap();
    let Work::Read { buffer, .. } = &prepared.work else {
        panic!()
    };
    assert!(buffer.iter().all(|&byte| byte == 0));
}

#[test]
fn heap_pages_fault_as_expected() {
    let check = |text, passes: u64| {
        let spec = spec(text);
        let mut prepared = match spec.prepare(&std::env::temp_dir()) {
            Err(refused @ LoopError::Refused { .. }) => return eprintln!("not run: {refused}"),
            prepared => prepared.unwrap(),
        };
        let pages = passes * spec.granularity();
        let want = (pages as f64 * spec.expected().unwrap().1) as u64;
        assert!(
            faults(want, || prepared.run(pages).unwrap()),
            "{text}: never {want} faults"
        );
    };
    check("heap/MiB=1", 3);
    check("heap/MiB=1/pass=2", 3);
    check("heap/MiB=4/pages=thp", 3);
    check("heap/MiB=4/pages=thp/pass=2", 3);
    check("heap/MiB=1/pages=populate/pass=2", 3);
    // Part of a mapping stays mapped, and the next run goes on where this one stopped.
    let mut prepared = prepare("heap/MiB=1");
    let part = spec("heap/MiB=1").granularity() / 3;
    assert!(faults(part, || prepared.run(part).unwrap()));
}

#[test]
fn what_is_missing_is_said() {
    let check = |text, want: &str| {
        let error = spec(text)
            .prepare(Path::new("/missing"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, format!("`{text}`: {want}"));
    };
    let no_file = "No such file or directory";
    check(
        "stat/file=/missing",
        &format!("the operation failed: {no_file} (os error 2)"),
    );
    check(
        "open-close/file=/missing",
        &format!("the operation failed: {no_file} (os error 2)"),
    );
    check(
        "vfork-exec/program=/missing",
        &format!("the operation failed: {no_file} (os error 2)"),
    );
    check(
        "vfork-exec/program=/bin/false",
        "the operation failed: the child ended with exit status 1",
    );
    check(
        "write/size=512/to=file",
        &format!("make a file in /missing: {no_file} (os error 2)"),
    );
    let refused = spec("heap/MiB=1048576")
        .prepare(Path::new("/tmp"))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("MiB of memory are available; choose a smaller MiB="),
        "{refused}"
    );
}

#[test]
fn nothing_is_left_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut partner = None;
    for spec in all_specs() {
        let prepared = spec.prepare(scratch.path());
        if let Ok(Prepared {
            work: Work::Pipe(echo),
            ..
        }) = &prepared
        {
            partner = Some(echo.partner());
        }
        drop(prepared);
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "{spec}"
        );
    }
    assert_eq!(kill(partner.unwrap(), None), Err(Errno::ESRCH));
    let file = unlinked_file(scratch.path()).unwrap();
    assert_eq!(unistd::write(&file, b"x"), Ok(1));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}
