//! `poise stat`: counts what a command, a running process or the whole machine does. Never measures by itself.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::hold::{MeasureOptions, Stage};
use super::identity::Identity;
use super::options::{self, Bound, ChildOptions, EventOptions, OutputOptions};
use super::recorder::Recorder;
use super::{Usage, exit};
use crate::format;
use crate::machine::facts::{CpuList, Facts, Roots};
use crate::perf::plan::Plan;
use crate::report::summary::Stream;
use crate::report::{perf_stat, text};
use crate::run::attach::{Attached, Span, Subject};
use crate::run::command::{self, Command, Output};
use crate::run::interrupt::Interrupt;
use crate::run::noise::Noise;
use crate::run::schedule::{Limits, Schedule};
use crate::run::surroundings::Surroundings;
use crate::run::{self, Tally, Workload};
use crate::sample::{INTERVAL_END, Name, Record, Sample};
use crate::sys::perf_event::Target;
use crate::unit::Unit;

/// Counted unless other events are asked for.
const DEFAULT_EVENTS: &str = "task-clock,minor-faults,major-faults,context-switches,cpu-migrations,\
                              cycles,instructions,branches,branch-misses";

/// Added by each `-d`.
const DETAILS: [&str; 2] = [
    ",cycles:u,cycles:k,L1-dcache-loads,L1-dcache-load-misses,LLC-loads,LLC-load-misses",
    ",L1-icache-load-misses,dTLB-loads,dTLB-load-misses,iTLB-loads,iTLB-load-misses",
];

/// Count events around a command, or in what runs already
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the command's own; 128 + n when signal n ended it, \
126 or 127 when it could not be executed, 124 after --timeout, 5 when counting, or what was set for the command, is not permitted, \
or when the machine is held by others for longer than --wait, or cannot be held as --require asks."
)]
pub(super) struct Arguments {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Count more events: caches; twice also TLBs.
    #[arg(short, long, action = clap::ArgAction::Count)]
    detailed: u8,

    /// Run the command N times.
    #[arg(short, long, visible_alias = "runs", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    repeat: u64,

    /// Begin no new run after this long.
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    time: Option<Duration>,

    /// Run the command N times before counting.
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u64,

    /// Run this shell command before every run, uncounted.
    #[arg(long, visible_alias = "pre", value_name = "COMMAND")]
    prepare: Option<String>,

    /// Take runs that fail as samples, too, and end with 0.
    #[arg(long)]
    ignore_failure: bool,

    /// End the command, or the counting, after this long (a bare number is milliseconds).
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Give the counts of every interval, too (a bare number is milliseconds).
    #[arg(short = 'I', long, visible_alias = "interval-print", value_name = "DURATION", value_parser = options::duration)]
    interval: Option<Duration>,

    /// Where the command's standard output goes: null, inherit or a FILE. By default inherit for
    /// one run (with standard input and error), null for repeated runs.
    #[arg(long, value_name = "WHERE")]
    output: Option<String>,

    /// Give the command, as one string, to /bin/sh -c.
    #[arg(long)]
    shell: bool,

    /// Count running processes.
    #[arg(
        short,
        long,
        value_name = "PID",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(1..),
        group = "subject"
    )]
    pid: Vec<i32>,

    /// Count one running thread.
    #[arg(short, long, value_name = "TID", value_parser = clap::value_parser!(i32).range(1..), group = "subject")]
    tid: Option<i32>,

    /// Count everything on all CPUs.
    #[arg(short, long, group = "subject")]
    all_cpus: bool,

    /// Count everything on these CPUs, such as 0,2-5.
    #[arg(short = 'C', long, value_name = "CPUS", value_parser = options::cpu_list, group = "subject")]
    cpu: Option<CpuList>,

    /// Show a file of records, or turn it into another --format, instead of measuring (- is
    /// standard input).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "command", "file"])]
    input: Option<PathBuf>,

    /// Call the benchmark NAME instead of the command's words, so that results of different
    /// command lines can be compared.
    #[arg(long, value_name = "NAME", conflicts_with = "subject")]
    name: Option<String>,

    /// Draw all orders from this seed.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    #[command(flatten)]
    events: EventOptions,

    #[command(flatten)]
    hold: MeasureOptions,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output_options: OutputOptions,

    /// Print as perf stat -x does, with this separator.
    #[arg(short = 'x', long, value_name = "SEPARATOR", help_heading = "Output", conflicts_with_all = ["table", "perf_json"])]
    field_separator: Option<String>,

    /// Print as perf stat -j does.
    #[arg(
        short = 'j',
        long = "perf-json",
        help_heading = "Output",
        conflicts_with = "table"
    )]
    perf_json: bool,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if let Some(path) = &arguments.input {
        Identity::look(arguments.child.as_root)?.settle()?;
        return show(path, arguments);
    }
    if let Some(cpus) = &arguments.cpu {
        options::must_be_online(cpus)?;
    }
    let subject = arguments.subject()?;
    if subject.is_some() && arguments.child != ChildOptions::default() {
        return Err(Usage {
            message: "nothing can be set for what runs already".to_owned(),
            hint: Some(
                "the options of the measured process are for a command without -p, -t, -a and -C"
                    .to_owned(),
            ),
        }
        .into());
    }
    if subject.is_none() && arguments.command.is_empty() {
        return Err(Usage {
            message: "there is nothing to count".to_owned(),
            hint: Some(
                "give a command (poise stat -- COMMAND), or -p PID, -t TID, -a or -C CPUS"
                    .to_owned(),
            ),
        }
        .into());
    }
    let target = match &subject {
        Some(Subject::Cpus(cpus)) => Target::Cpu(cpus.first().copied().unwrap_or(0)),
        _ => Target::Myself,
    };
    let details: String = DETAILS
        .iter()
        .take(arguments.detailed.into())
        .copied()
        .collect();
    let defaults = match target {
        // On a CPU the clock of its task is the CPU's own.
        Target::Cpu(_) => DEFAULT_EVENTS.replace("task-clock", "cpu-clock"),
        _ => DEFAULT_EVENTS.to_owned(),
    };
    let wanted = arguments.events.wanted(&format!("{defaults}{details}"))?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let (hold, child) = (&arguments.hold, &arguments.child);
    let stage = match &subject {
        Some(_) => Stage::unheld(child, !arguments.command.is_empty(), &interrupt)?,
        None => Stage::set(hold, child, Bound::usual, &interrupt)?,
    };
    let (plan, doubts) = options::plan(&wanted, target);
    let mut workloads: [Box<dyn Workload + '_>; 1] = match subject {
        Some(subject) => {
            let timer = (!arguments.command.is_empty()).then(|| arguments.command.clone());
            let span = Span {
                timer,
                timeout: arguments.timeout,
                interval: arguments.interval,
            };
            [Box::new(Attached::new(subject, span, &plan))]
        }
        None => [Box::new(
            arguments.workload(&plan, stage.surroundings.clone())?,
        )],
    };

    let seed = options::seed(arguments.seed);
    let limits = Limits {
        rounds: arguments.repeat,
        time: arguments.time,
    };
    let mut schedule = Schedule::new(seed, 1, limits);
    let mut recorder = Recorder::open(&arguments.output_options)?;
    recorder
        .begin(seed, &stage, doubts)
        .map_err(run::Error::Output)?;
    if arguments.repeat > 1 {
        let rounds = arguments.time.is_none().then_some(arguments.repeat);
        recorder.show_progress(&arguments.output_options, rounds, Unit::named("sec/op"));
    }
    let roots = Roots::default();
    let mut noise = Noise::watch(&roots, stage.surroundings.cpus.as_ref());
    let mut sink = |record| {
        if let Record::Sample(sample) = &record
            && sample.config.contains_key(INTERVAL_END)
        {
            arguments
                .report_interval(sample)
                .map_err(io::Error::other)?;
        }
        recorder.take(record)
    };
    let driven = run::drive(
        &mut schedule,
        arguments.warmup,
        &mut workloads,
        &interrupt,
        &mut noise,
        &mut sink,
    );
    // What was measured is shown even when the run broke off.
    let (mut stream, ended) = recorder.finish(driven);
    stream
        .benchmarks
        .retain(|benchmark| benchmark.interval_end.is_none());
    arguments.report(&stream)?;
    Ok(code(&ended?))
}

/// The exit code of a run that ended.
pub(super) fn code(tally: &Tally) -> u8 {
    match (tally.interrupted, tally.failed_code) {
        (Some(signal), _) => 128 + signal as u8,
        (None, Some(code)) => code,
        (None, None) => 0,
    }
}

impl Arguments {
    fn subject(&self) -> anyhow::Result<Option<Subject>> {
        if !self.pid.is_empty() {
            return Ok(Some(Subject::Processes(self.pid.clone())));
        }
        let online = || {
            Facts::new(&Roots::default())
                .online()
                .context("cannot tell which CPUs are online")
        };
        let cpus = match (&self.cpu, self.all_cpus) {
            (Some(list), _) => {
                let online = online()?;
                if let Some(cpu) = list.iter().find(|&cpu| !online.contains(cpu)) {
                    let message = format!("CPU {cpu} is not online; these are: {online}");
                    return Err(Usage::new(message).into());
                }
                Some(list.clone())
            }
            (None, true) => Some(online()?),
            (None, false) => None,
        };
        let on_cpus = cpus.map(|cpus| Subject::Cpus(cpus.iter().collect()));
        Ok(on_cpus.or(self.tid.map(Subject::Thread)))
    }

    fn workload<'p>(
        &self,
        plan: &'p Plan,
        surroundings: Surroundings,
    ) -> anyhow::Result<Command<'p>> {
        let argv = match self.shell {
            false => self.command.clone(),
            true => vec![
                "/bin/sh".into(),
                "-c".into(),
                self.command.join(" ".as_ref()),
            ],
        };
        let output = match self.output.as_deref() {
            Some("null") => Output::Null,
            Some("inherit") => Output::Inherit,
            Some(file) => Output::File(file.into()),
            None if self.repeat > 1 => Output::Null,
            None => Output::Inherit,
        };
        let words = self.command.join(" ".as_ref());
        let name = match &self.name {
            Some(name) => Name::parse(name),
            None => Name::new(&words.to_string_lossy()),
        };
        let tick_sec = options::tick_sec(surroundings.cpus.as_ref());
        let options = command::Options {
            argv,
            output,
            prepare: self.prepare.clone(),
            timeout: self.timeout,
            interval: self.interval,
            surroundings,
            ignore_failure: self.ignore_failure,
            tick_sec,
        };
        Ok(Command::new(name, "base", options, plan)?)
    }

    /// Says what one interval held, as soon as it is over.
    fn report_interval(&self, sample: &Sample) -> anyhow::Result<()> {
        let mut stream = Stream::default();
        stream.take(Record::Sample(sample.clone()));
        self.tell(&self.text(&stream, |_| text::interval(sample)))
    }

    fn report(&self, stream: &Stream) -> anyhow::Result<()> {
        let style = text::Style {
            width: super::columns(),
        };
        self.tell(&self.text(stream, |stream| text::stream(stream, style)))
    }

    /// The stream in the form that was asked for; `table` makes the usual one.
    fn text(&self, stream: &Stream, table: impl Fn(&Stream) -> String) -> String {
        let options = &self.output_options;
        match (&self.field_separator, self.perf_json) {
            (Some(separator), _) => perf_stat::separated(stream, separator),
            (None, true) => perf_stat::json(stream),
            (None, false) if options.quiet => String::new(),
            (None, false) if options.records_to_stdout() && !options.table => String::new(),
            (None, false) => table(stream),
        }
    }

    /// Prints where it does not run into the output of the command, nor into records.
    fn tell(&self, text: &str) -> anyhow::Result<()> {
        let inherits = match self.output.as_deref() {
            Some(output) => output == "inherit",
            None => self.repeat == 1,
        };
        let shares_stdout = inherits && self.input.is_none();
        match shares_stdout || self.output_options.records_to_stdout() {
            true => super::print_aside(text),
            false => super::print(text),
        }
    }
}

/// So many bad lines of a file are told; it may be something else altogether.
const BAD_LINES: usize = 5;

/// Shows recorded samples.
fn show(path: &std::path::Path, arguments: &Arguments) -> anyhow::Result<u8> {
    let name = path.display().to_string();
    let input: Box<dyn io::BufRead> = match name.as_str() {
        "-" => Box::new(io::stdin().lock()),
        _ => Box::new(io::BufReader::new(
            std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?,
        )),
    };
    let mut reader = format::Reader::new(name.clone(), input);
    let mut stream = Stream::default();
    let format = arguments.output_options.record_format();
    let mut writer = format.map(|format| format::Writer::new(format, io::stdout()));
    for record in &mut reader {
        if let Some(writer) = &mut writer {
            writer.write(&record).map_err(run::Error::Output)?;
        }
        stream.take(record);
    }
    if let Some(error) = reader.error() {
        return Err(anyhow::anyhow!("cannot read {name}: {error}"));
    }
    for error in stream.syntax.iter().take(BAD_LINES) {
        super::remark(&error.to_string());
    }
    if let Some(more @ 1..) = stream.syntax.len().checked_sub(BAD_LINES) {
        super::remark(&format!("and {more} more lines that are no records"));
    }
    if stream.benchmarks.is_empty() && stream.failed == 0 {
        return Err(anyhow::anyhow!("{name} holds no samples"));
    }
    if !reader.whole() {
        super::remark(&format!(
            "{name} was cut short; what is whole in it is shown"
        ));
    }
    arguments.report(&stream)?;
    Ok(if stream.syntax.is_empty() {
        0
    } else {
        exit::FAILURE
    })
}
