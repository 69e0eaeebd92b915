//! `poise hold`: runs a command with the machine held, tells who holds it, and gives back what a hold has left. Never measures.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::identity::Identity;
use super::options::{self, Bound, ChildOptions, Cpus};
use super::{Usage, exit, stat};
use crate::machine::hold::lock::{self, Holder, Lock, Refusal, Sharing};
use crate::machine::hold::{self, Fate, Frequency, Hold, Journal, Wish};
use crate::machine::{Facts, Roots};
use crate::perf::Access;
use crate::perf::catalog::Catalog;
use crate::perf::plan::Plan;
use crate::run::command::{self, Command, Output};
use crate::run::frequency;
use crate::run::interrupt::Interrupt;
use crate::run::schedule::Turn;
use crate::run::surroundings::Surroundings;
use crate::run::{Outcome, Tally, Workload};
use crate::sample::{Cause, Name, Order, Warning};
use crate::sys::perf_event::Target;

/// How the machine is held while something is measured.
#[derive(Debug, Args)]
#[command(next_help_heading = "Holding the machine")]
pub(super) struct HoldOptions {
    /// Hold the CPUs at this frequency: base, max, 90% of the range, 2.4GHz. By default base where
    /// it is known, else 90%.
    #[arg(long, value_name = "FREQUENCY")]
    freq: Option<Frequency>,

    /// Wait at most so long for others who hold the machine (a bare number is seconds). By default
    /// as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = options::patience)]
    wait: Option<Duration>,

    /// Refuse to run, with exit code 5, unless all this can be had.
    #[arg(long, value_name = "WHAT")]
    require: Option<Requirement>,
}

/// Whether and how the machine is held while something is measured.
#[derive(Debug, Args)]
pub(super) struct MeasureOptions {
    #[command(flatten)]
    hold: HoldOptions,

    /// Hold nothing: neither wait for others nor keep them from measuring. The default where
    /// POISE_NO_HOLD=1 is in the environment.
    #[arg(long, help_heading = "Holding the machine", conflicts_with_all = ["freq", "wait", "require"])]
    no_hold: bool,
}

/// Set to anything but 0, false, no or off, the machine is not held where nobody asks for it.
const NO_HOLD: &str = "POISE_NO_HOLD";

impl MeasureOptions {
    /// How the machine is to be held. What was typed comes before the environment.
    fn wanted(&self) -> Option<&HoldOptions> {
        let HoldOptions {
            freq,
            wait,
            require,
        } = &self.hold;
        let is_asked_for = freq.is_some() || wait.is_some() || require.is_some();
        let is_off = self.no_hold || !is_asked_for && is_set(NO_HOLD);
        (!is_off).then_some(&self.hold)
    }
}

fn is_set(variable: &str) -> bool {
    let value = std::env::var(variable).unwrap_or_default().to_lowercase();
    !["", "0", "f", "false", "n", "no", "off"].contains(&&*value)
}

/// All that surrounds what is run: the machine as it is held, as whom it runs, and what it is given.
/// Once it is set, poise itself is whom it measures.
pub(super) struct Stage {
    pub(super) held: Held,
    pub(super) identity: Identity,
    pub(super) surroundings: Surroundings,
    /// The doubts about all that.
    pub(super) doubts: Vec<Warning>,
    /// Whether anything runs that would not run without us.
    runs: bool,
}

impl Stage {
    /// Sets the stage for a measurement; on `usual` CPUs where the user does not say which.
    pub(super) fn set(
        hold: &MeasureOptions,
        child: &ChildOptions,
        usual: impl FnOnce() -> Cpus,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Stage> {
        let options = hold.wanted().map(|wanted| (wanted, Sharing::Exclusive));
        let usual = || {
            if options.is_none() {
                Cpus::Any
            } else {
                usual()
            }
        };
        Stage::with(options, child, usual, interrupt)
    }

    /// For what runs already and is only watched, which is no reason to hold the machine; `runs`
    /// tells whether a command runs beside it.
    pub(super) fn unheld(
        child: &ChildOptions,
        runs: bool,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Stage> {
        let stage = Stage::with(None, child, || Cpus::Any, interrupt)?;
        Ok(Stage { runs, ..stage })
    }

    fn with(
        hold: Option<(&HoldOptions, Sharing)>,
        child: &ChildOptions,
        usual: impl FnOnce() -> Cpus,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Stage> {
        let identity = Identity::look(child.as_root)?;
        // Before anything is waited for.
        if let Some(Cpus::List(cpus)) = &child.cpu_list {
            options::must_be_online(cpus)?;
        }
        let mut held = match hold {
            Some((options, sharing)) => options.begin(sharing, interrupt)?,
            None => Held::default(),
        };
        let cpus = child.cpu_list.clone().unwrap_or_else(usual);
        held.bound = Bound::choose(&cpus);
        held.look_whether_kept();
        held.set_apart();
        // What only root may do is done.
        identity.settle()?;
        let (surroundings, mut doubts) = child.surroundings(&held.bound)?;
        doubts.extend(held.doubts());
        Ok(Stage {
            held,
            identity,
            surroundings,
            doubts,
            runs: true,
        })
    }

    /// Says as whom what is run, how the machine is held, and what is doubtful of that.
    pub(super) fn remark(&self) {
        if self.runs {
            self.identity.remark();
        }
        self.held.line().iter().for_each(|line| super::remark(line));
        let doubts = self.doubts.iter();
        doubts.for_each(|Warning(doubt)| super::remark(doubt));
    }
}

/// What can be required of the machine.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Requirement {
    /// The lock and the frequency.
    Hold,
}

/// The machine, held for a verb, or not. Dropped, it says what could not be given back.
#[derive(Default)]
pub(super) struct Held {
    hold: Option<Hold>,
    /// Where the measured process runs.
    bound: Bound,
    /// What the CPU does instead of what was asked of it.
    not_kept: Option<Warning>,
}

impl HoldOptions {
    /// Holds the machine; says for whom it waits.
    fn begin(&self, sharing: Sharing, interrupt: &Interrupt) -> anyhow::Result<Held> {
        let wish = Wish {
            sharing,
            patience: self.wait,
            frequency: self.freq.unwrap_or_default(),
        };
        let roots = Roots::default();
        let hold = Hold::begin(&roots, wish, interrupt.as_fd(), &mut remark_waiting)
            .map_err(|refusal| stopped_or(refusal, interrupt))?;
        if self.require.is_some()
            && let Some((what, cause)) = hold.report().not_held.first()
        {
            let (what, cause) = (*what, cause.clone());
            return Err(Unheld { what, cause }.into());
        }
        Ok(Held {
            hold: Some(hold),
            bound: Bound::default(),
            not_kept: None,
        })
    }
}

fn remark_waiting(holders: &[Holder]) {
    super::remark(&format!("waiting for {}", lock::holders_text(holders)));
}

/// A lock that was refused since the user stopped us is no error.
fn stopped_or(refusal: Refusal, interrupt: &Interrupt) -> anyhow::Error {
    match (&refusal, interrupt.caught()) {
        (Refusal::Interrupted, Some(signal)) => super::Stopped(signal).into(),
        _ => refusal.into(),
    }
}

/// What was required and cannot be held.
#[derive(Debug, thiserror::Error)]
#[error("the {what} cannot be held: {}", cause.why)]
pub(super) struct Unheld {
    what: &'static str,
    /// Why, and what would mend it.
    pub(super) cause: Cause,
}

impl Held {
    /// Doubts that the CPU that is measured on, or the first one, does not really run at the
    /// frequency that it was set to: drivers and firmware take it for a hint.
    fn look_whether_kept(&mut self) {
        let holds = |hold: &Hold| hold.report().holds_frequency;
        if !self.hold.as_ref().is_some_and(holds) {
            return;
        }
        let roots = Roots::default();
        let policies = Facts::new(&roots).policies();
        let bound = self.bound.cpus.as_ref().and_then(|cpus| cpus.iter().next());
        let policy = match bound {
            Some(cpu) => policies.iter().find(|policy| policy.cpus.contains(cpu)),
            None => policies.first(),
        };
        self.not_kept = policy.and_then(|policy| {
            let cpu = bound.or_else(|| policy.cpus.iter().next())?;
            let access = Access::look(&roots.proc, &roots.sys);
            let hz = frequency::measured(cpu, &Catalog::default(), &access).number()?;
            let is_kept = policy.is_kept_at(hz)?;
            (!is_kept).then(|| {
                Warning(format!(
                    "CPU {cpu} runs at {:.2} GHz under load, not at the {} that it was set to",
                    hz / 1e9,
                    policy.range().unwrap_or_default()
                ))
            })
        });
    }

    /// Has the scheduler keep the CPUs that are measured on for that alone. From here on we
    /// ourselves cannot run there.
    fn set_apart(&mut self) {
        if let (Some(hold), Some(cpus)) = (&mut self.hold, &self.bound.cpus) {
            hold.set_apart(cpus);
            self.bound.entrance = hold.entrance();
        }
    }

    /// The one line that tells what is held and what is not; nothing when nothing was wanted.
    fn line(&self) -> Option<String> {
        let mut report = self.hold.as_ref()?.report().clone();
        let apart = if report.sets_apart { " set apart" } else { "" };
        let bound = self.bound.what.iter();
        report
            .held
            .extend(bound.map(|cpus| format!("{cpus}{apart}")));
        Some(report.line())
    }

    /// What is held, in words that stand in the header: `lock frequency`, or `nothing`.
    pub(super) fn words(&self) -> String {
        match &self.hold {
            Some(hold) => hold.report().words(),
            None => "nothing".to_owned(),
        }
    }

    /// What is not as it was asked for.
    fn doubts(&self) -> Vec<Warning> {
        let of_hold = self.hold.iter().flat_map(|hold| &hold.report().doubts);
        let doubts = of_hold.cloned().map(Warning);
        doubts
            .chain(self.not_kept.clone())
            .chain(self.bound.doubt.clone())
            .collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let complaints = self.hold.take().map(Hold::end).unwrap_or_default();
        complaints
            .iter()
            .for_each(|complaint| super::remark(complaint));
    }
}

/// Run a command with the machine held still: locked, at one frequency
#[derive(Debug, Args)]
#[command(
    mut_arg("cpu_list", |cpus| cpus.visible_alias("cpu")),
    mut_arg("env_padding", |padding| {
        padding.help("Lengthen its environment by 0 to 4080 bytes, drawn anew: that moves its stack")
    }),
    after_help = "The exit code is the command's own; 5 when the machine is held by others for longer than \
--wait, or cannot be held as --require asks."
)]
pub(super) struct Arguments {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Hold together with others that say so too; then the lock is all that is held.
    #[arg(long)]
    shared: bool,

    /// Say nothing but errors.
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    options: HoldOptions,

    #[command(flatten)]
    child: ChildOptions,

    /// Tell who holds the machine, and what would be given back.
    #[arg(long, help_heading = "Instead of running a command", conflicts_with_all = ["restore", "command", "freq", "wait", "require", "shared"])]
    status: bool,

    /// Give back what a hold that was killed has left.
    #[arg(
        long,
        help_heading = "Instead of running a command",
        conflicts_with_all = ["command", "freq", "require", "shared"]
    )]
    restore: bool,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let roots = Roots::default();
    if arguments.status {
        super::print(&status(&roots)?)?;
        return Ok(0);
    }
    let interrupt = Interrupt::listen().context("cannot listen for signals")?;
    if arguments.restore {
        return restore(&roots, arguments.options.wait, &interrupt);
    }
    if arguments.command.is_empty() {
        return Err(Usage {
            message: "there is no command to run".to_owned(),
            hint: Some("poise hold -- COMMAND; or poise hold --status".to_owned()),
        }
        .into());
    }
    let sharing = match arguments.shared {
        true => Sharing::Shared,
        false => Sharing::Exclusive,
    };
    let hold = Some((&arguments.options, sharing));
    let stage = Stage::with(hold, &arguments.child, Bound::usual, &interrupt)?;
    let access = Access::look(&roots.proc, &roots.sys);
    let plan = Plan::make(&[], Target::Myself, access);
    let options = command::Options {
        argv: arguments.command,
        output: Output::Inherit,
        prepare: None,
        timeout: None,
        interval: None,
        surroundings: stage.surroundings.clone(),
        ignore_failure: false,
        tick_sec: None,
    };
    let mut command = Command::new(Name::new("hold"), "base", options, &plan)?;
    if !arguments.quiet {
        stage.remark();
    }
    let mut tally = Tally::default();
    let once = Turn {
        workload: 0,
        order: Order::default(),
        coin: false,
        // For --env-padding.
        draw: options::seed(None),
        only: true,
    };
    match command.observe(&once, &interrupt, &mut |_| Ok(()))? {
        Outcome::Observed(observed) => tally.failed_code = Some(observed.code),
        Outcome::Failed { code, .. } => tally.failed_code = Some(code),
        Outcome::Interrupted(signal) => tally.interrupted = Some(signal),
    }
    Ok(stat::code(&tally))
}

/// Who holds the machine, and what would be given back.
fn status(roots: &Roots) -> anyhow::Result<String> {
    let holders = lock::holders(roots);
    let mut text = match &holders[..] {
        [] => "nobody holds the machine\n".to_owned(),
        holders => {
            let how = match holders[0].sharing {
                Sharing::Exclusive => "held by",
                Sharing::Shared => "shared by",
            };
            format!("{how} {}\n", lock::holders_text(holders))
        }
    };
    let Some(journal) = hold::journal(roots)? else {
        text += "nothing is to be given back\n";
        return Ok(text);
    };
    text += &journal_text(&journal, holders.is_empty());
    for change in journal.changes() {
        text += &format!("  {}\n", change.story(roots));
    }
    Ok(text)
}

fn journal_text(journal: &Journal, is_left_over: bool) -> String {
    let (pid, since) = journal.holder();
    match is_left_over {
        false => format!("held since {since}; at its end is given back:\n"),
        true => format!(
            "pid {pid}, which held since {since}, has left these; poise hold --restore gives them back:\n"
        ),
    }
}

fn restore(roots: &Roots, wait: Option<Duration>, interrupt: &Interrupt) -> anyhow::Result<u8> {
    // Who holds will give everything back himself.
    let patience = Some(wait.unwrap_or_default());
    let _lock = Lock::take(
        roots,
        Sharing::Exclusive,
        patience,
        interrupt.as_fd(),
        &mut remark_waiting,
    )
    .map_err(|refusal| stopped_or(refusal, interrupt))?;
    let returned = hold::give_back(roots)?;
    if returned.is_empty() {
        super::print("nothing is to be given back\n")?;
    }
    for one in &returned {
        match one.complaint(roots) {
            None => super::print(&format!("{} again\n", one.change.before()))?,
            Some(complaint) => super::remark(&complaint),
        }
    }
    let failed = returned
        .iter()
        .any(|one| matches!(one.fate, Fate::Failed(_)));
    Ok(if failed { exit::FAILURE } else { 0 })
}
