//! `poise events`: lists what this machine can count, tried by counting. Never measures anything.

use clap::Args;

/// List the events that this machine can count
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only events that match, such as 'cycles', '*miss*' or 'sched:*' (tracepoints are listed only so).
    pattern: Option<String>,

    /// One JSON object an event.
    #[arg(long)]
    json: bool,
}
