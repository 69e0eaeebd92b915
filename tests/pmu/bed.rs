//! Where the tests run: what this machine lets us count, and `poise` run for its records. Never skips a test in silence.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use counterpoise::format::Reader;
use counterpoise::perf::Access;
use counterpoise::perf::catalog::Catalog;
use counterpoise::perf::event::Event;
use counterpoise::perf::group::{Counters, How};
use counterpoise::perf::reading::Reading;
use counterpoise::sample::{Figure, Header, Record, Sample};
use counterpoise::sys::perf_event::Target;

/// Counting the calling thread, from `enable` on.
pub(crate) const ITSELF: How = How {
    inherit: false,
    enable_on_exec: false,
    user_access: false,
};

/// The virtual machine of `tests/vm`, whose CPU takes 2^-shift instructions a cycle.
pub(crate) struct Guest {
    pub(crate) shift: i32,
}

/// The virtual machine, or `None` after saying that `what` is not run elsewhere.
pub(crate) fn guest(what: &str) -> Option<Guest> {
    let shift = shift();
    if shift.is_none() {
        not_run(what, "it needs the virtual machine of tests/vm");
    }
    let guest = Guest { shift: shift? };
    assert!(has_pmu(what));
    Some(guest)
}

/// Whether this is the virtual machine of `tests/vm`.
pub(crate) fn in_guest() -> bool {
    shift().is_some()
}

/// Whether hardware events count here. If not, says that `what` is not run; in the virtual
/// machine that is a failure.
pub(crate) fn has_pmu(what: &str) -> bool {
    can_count(what, "instructions:u")
}

/// Whether `event` counts here; as [`has_pmu`].
pub(crate) fn can_count(what: &str, event: &str) -> bool {
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let opened = Catalog::default()
        .parse(event)
        .map_err(|error| error.to_string())
        .and_then(|groups| {
            Counters::open(&groups[0].events, Target::Myself, ITSELF)
                .map_err(|error| access.explain(&error).to_string())
        });
    let Err(why) = opened else { return true };
    assert!(!in_guest(), "in the virtual machine: {why}");
    not_run(what, &why);
    false
}

fn shift() -> Option<i32> {
    let shift = std::env::var("POISE_VM_SHIFT").ok()?;
    Some(shift.parse().expect("POISE_VM_SHIFT is a number"))
}

/// Past the test harness, which would keep it to itself.
fn not_run(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "not run: {what}: {why}");
}

/// The events that `text` names, of all its groups.
pub(crate) fn events(text: &str) -> Vec<Event> {
    let groups = Catalog::default()
        .parse(text)
        .expect("the events are known");
    groups.into_iter().flat_map(|group| group.events).collect()
}

/// What one group of `events` counts of this thread while `work` runs.
pub(crate) fn count(events: &[Event], work: impl FnOnce()) -> Vec<Reading> {
    let counters = Counters::open(events, Target::Myself, ITSELF).unwrap();
    counters.enable().unwrap();
    work();
    counters.disable().unwrap();
    counters.read().unwrap()
}

/// A setting of the kernel, changed until this is dropped: a file below /proc/sys/kernel, or any
/// by its whole path.
pub(crate) struct Setting {
    path: PathBuf,
    old: String,
}

impl Setting {
    pub(crate) fn set(name: &str, value: &str) -> Setting {
        let path = PathBuf::from("/proc/sys/kernel").join(name);
        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, value).unwrap();
        Setting { path, old }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        fs::write(&self.path, &self.old).unwrap();
    }
}

/// What one run of `poise` gave.
pub(crate) struct Run {
    pub(crate) header: Header,
    pub(crate) samples: Vec<Sample>,
    /// The table.
    pub(crate) table: String,
}

/// Runs `poise` with a table beside its records.
pub(crate) fn poise(arguments: &[&str]) -> Run {
    poise_by(Command::new, arguments)
}

/// The program that is tested.
pub(crate) fn program() -> PathBuf {
    let beside_us = || env!("CARGO_BIN_EXE_poise").into();
    std::env::var_os("POISE_BIN")
        .unwrap_or_else(beside_us)
        .into()
}

/// Runs the `poise` that `command` makes a command of.
pub(crate) fn poise_by(command: impl FnOnce(PathBuf) -> Command, arguments: &[&str]) -> Run {
    // Records go to standard output, and the table to standard error.
    let (verb, rest) = arguments.split_first().unwrap();
    let output = command(program())
        .args([verb, "--json", "--table"])
        .args(rest)
        // What is held, and how far, is for tests/hold to prove.
        .env("POISE_NO_HOLD", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let table = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {table}", output.status);
    let (mut header, mut samples) = (None, Vec::new());
    for record in Reader::new("records", output.stdout.as_slice()) {
        match record {
            Record::Header(read) => header = Some(read),
            Record::Sample(sample) => samples.push(sample),
            Record::Unit(_) | Record::End(_) => {}
            Record::Failure(failure) => panic!("{failure:?}"),
            Record::Syntax(error) => panic!("{error}"),
        }
    }
    let header = header.expect("a header");
    Run {
        header,
        samples,
        table,
    }
}

impl Run {
    /// The figures of `unit`, one a sample that has them.
    pub(crate) fn figures(&self, unit: &str) -> Vec<&Figure> {
        let figures = self.samples.iter().filter_map(|sample| sample.figure(unit));
        figures.collect()
    }

    /// The only sample's figure of `unit`.
    pub(crate) fn figure(&self, unit: &str) -> &Figure {
        match self.figures(unit)[..] {
            [figure] => figure,
            ref figures => panic!("{} figures of {unit} in\n{}", figures.len(), self.table),
        }
    }

    /// The exact figures of `unit`; panics when one is anything else.
    pub(crate) fn exact(&self, unit: &str) -> Vec<f64> {
        let exact = |figure: &&Figure| match figure {
            Figure::Exact(value) => *value,
            other => panic!("{unit} is {other:?}"),
        };
        self.figures(unit).iter().map(exact).collect()
    }
}
