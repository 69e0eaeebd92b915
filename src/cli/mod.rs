//! The door: arguments in, text and exit codes out. The sole printer and the sole place that decides an exit code; never measures by itself.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod doctor;
mod events;
mod generate;
mod options;
mod recorder;
mod stat;

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::{perf, run};

/// Ways to end that are not success, beside the exit codes of measured commands.
mod exit {
    /// It did not work.
    pub(super) const FAILURE: u8 = 1;
    /// It was not understood; clap's own code for the same.
    pub(super) const USAGE: u8 = 2;
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
    Stat(stat::Arguments),
    Bench(bench::Arguments),
    Events(events::Arguments),
    Doctor(doctor::Arguments),
    Completions(generate::Completions),
    Man(generate::Man),
    #[command(name = crate::run::batch::VERB, hide = true)]
    Batch(bench::BatchArguments),
}

/// Runs the program as its command line asks.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.color {
        clap::ColorChoice::Always => anstream::ColorChoice::Always.write_global(),
        clap::ColorChoice::Never => anstream::ColorChoice::Never.write_global(),
        clap::ColorChoice::Auto => {}
    }
    let result = match cli.verb {
        Verb::Stat(arguments) => stat::main(arguments),
        Verb::Bench(arguments) => bench::main(arguments),
        Verb::Batch(arguments) => bench::batch(&arguments),
        Verb::Events(arguments) => events::main(&arguments),
        Verb::Doctor(arguments) => doctor::main(&arguments),
        Verb::Completions(arguments) => generate::completions(&arguments, Cli::command()),
        Verb::Man(arguments) => generate::man(&arguments, Cli::command()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_unread(&error) => ExitCode::from(exit::UNREAD),
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

fn code_of(error: &anyhow::Error) -> u8 {
    use nix::errno::Errno;
    match error.downcast_ref::<run::Error>() {
        Some(run::Error::Exec {
            errno: Errno::ENOENT,
            ..
        }) => return exit::NOT_FOUND,
        Some(run::Error::Exec { .. }) => return exit::NOT_EXECUTABLE,
        Some(run::Error::Count(_)) => return exit::REFUSED,
        _ => {}
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
    let hint = match (
        error.downcast_ref::<run::Error>(),
        error.downcast_ref::<Usage>(),
    ) {
        (Some(error), _) => error.hint().map(str::to_owned),
        (_, Some(usage)) => usage.hint.clone(),
        _ => None,
    };
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "       {hint}");
    }
}

/// Says something beside the result, on standard error.
fn remark(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "poise: {text}");
}

/// Prints a result on standard output. A reader that went away early is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
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
