//! `poise syscalls`: what a command, running processes or the whole machine ask of the kernel, and what it costs. Never measures by itself.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::Usage;
use super::hold::Stage;
use super::options::{self, ChildOptions, OutputOptions};
use super::recorder::Recorder;
use crate::perf::catalog::Catalog;
use crate::probe::profile::{By, Number};
use crate::probe::syscalls::Options;
use crate::probe::{Rung, classes};
use crate::report::{syscalls, text};
use crate::run::command::{self, Output};
use crate::run::interrupt::Interrupt;
use crate::run::syscalls::{How, Observation, Subject, observe};
use crate::run::traced::Traced;
use crate::run::{self, Tally};
use crate::sample::{End, INTERVAL_END, Record, Sample};

/// Profile the syscalls of a command, of running processes or of the whole machine
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the command's own; 128 + n when signal n ended it, \
126 or 127 when it could not be executed, 124 after --timeout, 5 when tracing is not permitted."
)]
pub(super) struct Arguments {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Profile running processes, with all their threads and what they create.
    #[arg(
        short,
        long,
        value_name = "PID",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(1..),
        group = "subject"
    )]
    pid: Vec<i32>,

    /// Profile all processes of the machine.
    #[arg(short, long, group = "subject")]
    all: bool,

    /// End the command, or the profile, after this long (a bare number is milliseconds).
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    timeout: Option<Duration>,

    /// Look at these syscalls alone, and at all of a %class: %file, %network, %memory, %process,
    /// %signal, %ipc, %sleep (those that wait).
    #[arg(short = 'e', value_name = "LIST")]
    only: Vec<String>,

    /// Tell apart the calls of each thread, each process, or processes by the names of their
    /// commands, or what the descriptor is of that a call is given first: file, directory, pipe,
    /// socket, character-device, epoll, …, or none. With process,thread, each process and its threads.
    #[arg(
        long,
        value_name = "thread|process|command|fd-type",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    by: Vec<Parts>,

    /// Count these events in each call, as `perf list` spells them: at most 4, and with :u and :k
    /// those of user mode and of the kernel apart. The first costs a call some 300 ns, each further
    /// one 200.
    #[arg(
        long,
        value_name = "EVENTS",
        allow_hyphen_values = true,
        conflicts_with_all = ["count", "interval", "duty"]
    )]
    events: Option<String>,

    /// Give what came in every interval, too (a bare number is milliseconds).
    #[arg(short = 'I', long, value_name = "DURATION", value_parser = options::duration)]
    interval: Option<Duration>,

    /// Trace in short slices at drawn moments, which are this share of the time, and extrapolate.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "interval")]
    duty: Option<f64>,

    /// Count calls and nothing else, for less.
    #[arg(long)]
    count: bool,

    /// See them by programs in the kernel, by its counters, or by ptrace; else by the first of
    /// these that can be had.
    #[arg(
        long,
        value_name = "bpf|counters|ptrace",
        value_enum,
        hide_possible_values = true
    )]
    rung: Option<Way>,

    /// Draw how long the calls of these syscalls took.
    #[arg(long, value_name = "NAMES", conflicts_with = "count")]
    hist: Option<String>,

    /// Tell the slowest single calls and who made them, of those that take this long or longer (a
    /// bare number is nanoseconds).
    #[arg(long, value_name = "DURATION", value_parser = nanoseconds, conflicts_with = "count")]
    slow: Option<u64>,

    /// Tell which errors the calls met.
    #[arg(long, conflicts_with = "count")]
    errors: bool,

    /// Call the variant NAME in the records, so that profiles can be compared.
    #[arg(long, value_name = "NAME", default_value = "base")]
    variant: String,

    /// Draw the moments of --duty from this seed.
    #[arg(long, value_name = "SEED", requires = "duty")]
    seed: Option<u64>,

    #[command(flatten)]
    child: ChildOptions,

    #[command(flatten)]
    output_options: OutputOptions,
}

/// By what syscalls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    Bpf,
    Counters,
    Ptrace,
}

impl From<Way> for Rung {
    fn from(way: Way) -> Rung {
        match way {
            Way::Bpf => Rung::Programs,
            Way::Counters => Rung::Counters,
            Way::Ptrace => Rung::Ptrace,
        }
    }
}

/// What calls are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Parts {
    Thread,
    Process,
    Command,
    FdType,
}

impl From<Parts> for By {
    fn from(parts: Parts) -> By {
        match parts {
            Parts::Thread => By::Thread,
            Parts::Process => By::Process,
            Parts::Command => By::Command,
            Parts::FdType => By::FdType,
        }
    }
}

/// Runs it and gives the exit code.
pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let runs_already = arguments.all || !arguments.pid.is_empty();
    if runs_already && !arguments.command.is_empty() {
        return Err(Usage {
            message: "a command is profiled by itself".to_owned(),
            hint: Some("without -p and -a; --timeout says how long these take".to_owned()),
        }
        .into());
    }
    if runs_already && arguments.child != ChildOptions::default() {
        return Err(Usage::new("nothing can be set for what runs already").into());
    }
    if !runs_already && arguments.command.is_empty() {
        return Err(Usage {
            message: "there is nothing to profile".to_owned(),
            hint: Some("give a command (poise syscalls -- COMMAND), or -p PID or -a".to_owned()),
        }
        .into());
    }
    arguments.drawn()?;
    let (by, processes) = arguments.apart()?;
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    let stage = Stage::unheld(&arguments.child, !runs_already, &interrupt)?;
    let seed = options::seed(arguments.seed);
    let how = How {
        options: Options {
            count_only: arguments.count,
            everyone: arguments.all,
            only: arguments.only()?,
            slow_ns: arguments.slow,
            by,
            processes,
            events: 0,
        },
        events: match &arguments.events {
            Some(list) => Catalog::default().parse(list)?,
            None => Vec::new(),
        },
        timeout: arguments.timeout,
        interval: arguments.interval,
        duty: arguments.duty.map(|share| (share, seed)),
        rung: arguments.rung.map(Rung::from),
        ..How::default()
    };
    if how.rung.is_some_and(|rung| rung != Rung::Programs) && how.needs_programs() {
        let message = "--by, --events, --interval and --duty are for --rung bpf";
        return Err(Usage::new(message).into());
    }
    let mut subject = arguments.subject(&stage, how.tick())?;
    let mut recorder = Recorder::open(&arguments.output_options)?;
    recorder.variant(&arguments.variant)?;
    recorder
        .begin(seed, &stage, Vec::new())
        .map_err(run::Error::Output)?;
    let mut written = 0;
    let mut write = |samples: &[Sample]| {
        written += samples.len() as u64;
        let mut samples = samples.iter().cloned().map(Record::Sample);
        samples.try_for_each(|record| recorder.take(record))
    };
    let mut partly = |part: Observation, end: Duration| {
        let samples = arguments.of_interval(part.samples(&arguments.variant), end);
        let line = syscalls::interval(&samples, end);
        arguments.tell(&line).map_err(io::Error::other)?;
        write(&samples)
    };
    let observation = observe(&mut subject, &how, &interrupt, &mut partly)?;
    let samples = observation.samples(&arguments.variant);
    let tally = write(&samples).map_err(run::Error::Output).map(|()| Tally {
        end: End {
            samples: written,
            failures: 0,
        },
        failed_code: None,
        interrupted: observation.interrupted,
    });
    let (_, ended) = recorder.finish(tally);
    arguments.report(&samples, &observation)?;
    ended?;
    Ok(code(&observation))
}

/// A share such as `5%`, or the number alone.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.1..=50.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a share from 0.1% to 50%".to_owned()),
    }
}

/// A duration such as `10us` or `2ms`; a bare number is nanoseconds.
fn nanoseconds(text: &str) -> Result<u64, String> {
    let parsed = match text.parse::<u64>() {
        Ok(ns) => Duration::from_nanos(ns),
        Err(_) => options::duration(text)?,
    };
    match u64::try_from(parsed.as_nanos()) {
        Ok(ns @ 1..) => Ok(ns),
        _ => Err("write 500ns, 10us or 2ms".to_owned()),
    }
}

fn code(observation: &Observation) -> u8 {
    match observation.interrupted {
        Some(signal) => 128 + signal as u8,
        None => observation.code,
    }
}

impl Arguments {
    /// The syscalls of `--hist`.
    fn drawn(&self) -> Result<Vec<Number>, Usage> {
        let list = self.hist.as_deref();
        list.map_or(Ok(Vec::new()), |list| {
            classes::parse(list).map_err(Usage::new)
        })
    }

    /// What calls are told apart by, and whether by the processes of threads, too.
    fn apart(&self) -> Result<(Option<By>, bool), Usage> {
        match self.by[..] {
            [] => Ok((None, false)),
            [one] => Ok((Some(one.into()), false)),
            [Parts::Process, Parts::Thread] | [Parts::Thread, Parts::Process] => {
                Ok((Some(By::Thread), true))
            }
            _ => Err(Usage::new("--by takes one of them, or process,thread")),
        }
    }

    fn only(&self) -> Result<Option<Vec<Number>>, Usage> {
        match self.only.is_empty() {
            true => Ok(None),
            // As strace has it: trace=LIST.
            false => classes::parse(self.only.join(",").trim_start_matches("trace="))
                .map(Some)
                .map_err(Usage::new),
        }
    }

    fn subject(&self, stage: &Stage, interval: Option<Duration>) -> anyhow::Result<Subject> {
        if self.all {
            return Ok(Subject::Everyone);
        }
        if !self.pid.is_empty() {
            return Ok(Subject::Processes(self.pid.clone()));
        }
        let surroundings = stage.surroundings.clone();
        let tick_sec = options::tick_sec(surroundings.cpus.as_ref());
        let traced = Traced::new(command::Options {
            argv: self.command.clone(),
            output: Output::Inherit,
            prepare: None,
            timeout: self.timeout,
            interval,
            surroundings,
            ignore_failure: false,
            tick_sec,
        })?;
        Ok(Subject::Command(Box::new(traced)))
    }

    /// What is profiled, in the user's words.
    fn words(&self) -> String {
        let list = |pids: &[i32]| {
            pids.iter()
                .map(i32::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match &self.pid[..] {
            _ if self.all => "all processes".to_owned(),
            [] => self
                .command
                .join(" ".as_ref())
                .to_string_lossy()
                .into_owned(),
            [pid] => format!("process {pid}"),
            pids => format!("processes {}", list(pids)),
        }
    }

    /// The samples of one interval as they are recorded.
    fn of_interval(&self, mut samples: Vec<Sample>, end: Duration) -> Vec<Sample> {
        let length = self.interval.unwrap_or_default();
        let length = humantime::format_duration(length).to_string();
        for sample in &mut samples {
            sample.benchmark = sample.benchmark.clone().with("interval", &length);
            let end = format!("{:.3}", end.as_secs_f64());
            sample.config.insert(INTERVAL_END.to_owned(), end);
        }
        samples
    }

    fn report(&self, samples: &[Sample], observation: &Observation) -> anyhow::Result<()> {
        let style = text::Style {
            width: super::columns(),
        };
        let parts = &observation.profile.parts;
        let mut report = syscalls::profile(samples, parts, &self.words(), style);
        if self.errors {
            report.push_str(&syscalls::errors(samples));
        }
        if self.slow.is_some() && observation.rung == Rung::Programs {
            report.push_str(&syscalls::slowest(&observation.slowest));
        }
        for number in self.drawn()? {
            let mut calls = observation.profile.calls.iter();
            let time = calls.find(|call| call.number == number);
            let histogram = time.and_then(|call| Some(call.time.clone()?.histogram));
            let histogram = histogram.unwrap_or_default();
            report.push_str(&syscalls::histogram(&number.name(), &histogram, style));
        }
        self.tell(&report)
    }

    /// Prints where it does not run into the output of the command, nor into records.
    fn tell(&self, text: &str) -> anyhow::Result<()> {
        let options = &self.output_options;
        if options.quiet || options.records_to_stdout() && !options.table {
            return Ok(());
        }
        match self.command.is_empty() && !options.records_to_stdout() {
            true => super::print(text),
            false => super::print_aside(text),
        }
    }
}
