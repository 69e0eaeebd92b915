//! The door: arguments in, text and exit codes out. The sole printer and the sole place that decides an exit code; never measures by itself.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod aa;
mod ab;
mod bench;
mod bisect;
mod build;
mod compare;
mod compile;
mod compilers;
mod contest;
mod doctor;
mod escape;
mod events;
mod faults;
mod generate;
mod hold;
mod identical;
mod identity;
mod options;
mod outlet;
mod parts;
mod recorder;
mod stat;
mod sweep;
mod syscalls;
mod verdict;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::machine::hold::keeper;
use crate::machine::hold::lock::Refusal;
use crate::sample::Cause;
use crate::{perf, run, sys};

/// Ways to end that are not success, beside the exit codes of measured commands.
mod exit {
    /// It did not work.
    pub(super) const FAILURE: u8 = 1;
    /// It was not understood; clap's own code for the same.
    pub(super) const USAGE: u8 = 2;
    /// Something became worse, where that matters (--gate).
    pub(super) const REGRESSED: u8 = 3;
    /// Not decided, where that matters (--gate).
    pub(super) const INCONCLUSIVE: u8 = 4;
    /// Two compilers make different things.
    pub(super) const DIFFERENT: u8 = 3;
    /// A compiler makes different things of the same.
    pub(super) const NONDETERMINISTIC: u8 = 4;
    /// The environment does not allow it.
    pub(super) const REFUSED: u8 = 5;
    /// The command exists but cannot be executed.
    pub(super) const NOT_EXECUTABLE: u8 = 126;
    /// There is no such command.
    pub(super) const NOT_FOUND: u8 = 127;
    /// Nobody reads the records any more: what a shell shows of a program that SIGPIPE ended.
    pub(super) const UNREAD: u8 = 128 + 13;
}

/// Counts what programs cost on Linux and says how far to trust every number.
#[derive(Debug, Parser)]
#[command(
    name = "poise",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,

    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = clap::ColorChoice::Auto)]
    color: clap::ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Stat(Box<stat::Arguments>),
    Ab(Box<ab::Arguments>),
    Compare(Box<compare::Arguments>),
    Compile(Box<compile::Arguments>),
    Bench(Box<bench::Arguments>),
    Syscalls(Box<syscalls::Arguments>),
    Faults(Box<faults::Arguments>),
    Sweep(Box<sweep::Arguments>),
    Bisect(Box<bisect::Arguments>),
    Identical(Box<identical::Arguments>),
    Escape(Box<escape::Arguments>),
    Build(build::Arguments),
    Hold(hold::Arguments),
    Events(events::Arguments),
    Doctor(doctor::Arguments),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Runs the program as its command line asks.
pub fn main() -> ExitCode {
    sys::signal::keep_children();
    // No verbs for users: they stand in no help and no completion. But a user can call them, with
    // whatever request, so they begin without privilege, too.
    if let [_, verb, request] = &std::env::args_os().collect::<Vec<_>>()[..] {
        let request = request.to_string_lossy();
        let served = match verb.to_str() {
            Some(run::batch::VERB) => {
                let taken_over = sys::privilege::take_over();
                Some(taken_over.and_then(|()| run::batch::serve(&request)))
            }
            Some(keeper::VERB) => {
                Some(sys::privilege::settle().and_then(|()| keeper::serve(&request)))
            }
            _ => None,
        };
        match served {
            Some(Ok(())) => return ExitCode::SUCCESS,
            Some(Err(_)) => return ExitCode::from(exit::FAILURE),
            None => {}
        }
    }
    // Before anything is opened or believed.
    if let Err(error) = sys::privilege::settle() {
        complain(&anyhow::Error::new(error).context("cannot give up privilege"));
        return ExitCode::from(exit::REFUSED);
    }
    let cli = Cli::parse_from(compare::spelled(std::env::args_os()));
    match cli.color {
        clap::ColorChoice::Always => anstream::ColorChoice::Always.write_global(),
        clap::ColorChoice::Never => anstream::ColorChoice::Never.write_global(),
        clap::ColorChoice::Auto => {}
    }
    let result = match cli.verb {
        Verb::Stat(arguments) => stat::main(&arguments),
        Verb::Ab(arguments) => ab::main(*arguments),
        Verb::Compare(arguments) => compare::main(&arguments),
        Verb::Compile(arguments) => compile::main(*arguments),
        Verb::Bench(arguments) => bench::main(*arguments),
        Verb::Syscalls(arguments) => syscalls::main(*arguments),
        Verb::Faults(arguments) => faults::main(&arguments),
        Verb::Sweep(arguments) => sweep::main(*arguments),
        Verb::Bisect(arguments) => bisect::main(*arguments),
        Verb::Identical(arguments) => identical::main(&arguments),
        Verb::Escape(arguments) => escape::main(&arguments),
        Verb::Build(arguments) => build::main(&arguments),
        Verb::Hold(arguments) => hold::main(arguments),
        Verb::Events(arguments) => events::main(&arguments),
        Verb::Doctor(arguments) => doctor::main(&arguments),
        Verb::Completions(arguments) => generate::completions(&arguments, Cli::command()),
        Verb::Man(arguments) => generate::man(&arguments, Cli::command()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_unread(&error) => ExitCode::from(exit::UNREAD),
        Err(error) if error.is::<Stopped>() => {
            ExitCode::from(error.downcast_ref().map_or(exit::FAILURE, Stopped::code))
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(code_of(&error))
        }
    }
}

/// An error of the user's making: told as such, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Usage {
    message: String,
    hint: Option<String>,
}

impl Usage {
    fn new(message: impl Into<String>) -> Usage {
        Usage {
            message: message.into(),
            hint: None,
        }
    }
}

/// What the user named is not there, or is not what it should be.
impl From<Cause> for Usage {
    fn from(cause: Cause) -> Usage {
        Usage {
            message: cause.why,
            hint: cause.cure,
        }
    }
}

/// The user's wish to stop before anything was begun, which needs no words.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {0}")]
struct Stopped(Signal);

impl Stopped {
    fn code(&self) -> u8 {
        128 + self.0 as u8
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    use nix::errno::Errno;
    match error.downcast_ref::<run::Error>() {
        Some(run::Error::Exec {
            errno: Errno::ENOENT,
            ..
        }) => return exit::NOT_FOUND,
        Some(run::Error::Exec { .. }) => return exit::NOT_EXECUTABLE,
        Some(run::Error::Count(_) | run::Error::Trace(_) | run::Error::Refused(_)) => {
            return exit::REFUSED;
        }
        Some(run::Error::TooManyFailures { code, .. }) => return *code,
        _ => {}
    }
    let is_held = matches!(error.downcast_ref(), Some(Refusal::Held(_)));
    if is_held || error.is::<hold::Unheld>() || error.is::<identity::Stuck>() {
        return exit::REFUSED;
    }
    match error.is::<Usage>() || error.is::<perf::grammar::EventError>() {
        true => exit::USAGE,
        false => exit::FAILURE,
    }
}

/// Whether the reader of our records went away, which needs no words.
fn is_unread(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(run::Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe)
}

fn complain(error: &anyhow::Error) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    // Standard error may be closed or full; there is nobody left to tell then.
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "poise: {red}error{red:#}: {error:#}");
    let by_run = || error.downcast_ref::<run::Error>()?.hint();
    let by_usage = || error.downcast_ref::<Usage>()?.hint.as_deref();
    let by_hold = || error.downcast_ref::<hold::Unheld>()?.cause.cure.as_deref();
    let by_identity = || {
        error
            .is::<identity::Stuck>()
            .then_some(identity::Stuck::HINT)
    };
    let hint = by_run().or_else(by_usage).or_else(by_hold);
    if let Some(hint) = hint.or_else(by_identity) {
        let _ = writeln!(stderr, "       {hint}");
    }
}

/// Says something beside the result, on standard error.
fn remark(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "poise: {text}");
}

/// Prints a result on standard output. A reader that went away early is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let stdout = io::stdout();
    let is_plain = AutoStream::choice(&stdout) == ColorChoice::Never;
    // What is left of a text without colours comes in thousands of pieces.
    let mut out = BufWriter::with_capacity(64 << 10, stdout.lock());
    let written = match is_plain {
        true => strip_str(text).try_for_each(|piece| out.write_all(piece.as_bytes())),
        false => out.write_all(text.as_bytes()),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Prints a result on standard error, where standard output belongs to somebody else.
fn print_aside(text: &str) -> anyhow::Result<()> {
    anstream::stderr()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write to standard error")
}

/// Columns of the terminal, or a usual number where there is none.
fn columns() -> usize {
    let by_user = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let by_terminal = || {
        console::Term::stdout()
            .size_checked()
            .map(|(_, columns)| columns.into())
    };
    by_user.or_else(by_terminal).unwrap_or(120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let check = |line: &str, want: bool| {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), want, "{line}: {:?}", parsed.err());
        };
        check("poise stat -r5 -x, -I100 -ecycles:u -- ls -l", true);
        check("poise stat -r 5 ls -l --all -r5 --no-such-option", true);
        check("poise stat -- ls -l", true);
        check("poise stat -e {cycles,instructions} ls", true);
        check("poise stat --no-such-option ls", false);
        check("poise stat -Z ls", false);
        check("poise stat -r 0 ls", false);
        check("poise stat -p 1 -a", false);
        check("poise bench write -r5", true);
    }
}
