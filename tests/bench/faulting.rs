//! What watching the page faults of a heap loop costs, beside the other tools that are installed: CPU time a page, to that of the loop by itself.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::ensure;
use counterpoise::stats::order;

use crate::tracing::{Tracefs, compiled, first_number};
use crate::{Estimate, Form, Goal, Measurement, Peer, Row, in_turn, quotients};

/// Rounds, and passes of the loop over its memory in each.
const ROUNDS: usize = 15;
const PASSES: &str = "3";

/// A line of the table: what it is called, who watches, and with which words.
struct Watcher {
    what: &'static str,
    target: Option<Goal>,
    peer: Peer,
    words: Vec<OsString>,
}

pub(crate) fn rows(poise: &OsStr) -> anyhow::Result<Vec<Row>> {
    let watcher = |what, target, tool: &OsStr, line: &str| -> anyhow::Result<Watcher> {
        let trial: Vec<&str> = line.split(' ').chain(["true"]).collect();
        let name = tool.to_string_lossy();
        Ok(Watcher {
            what,
            target,
            peer: Peer::find_at(tool, &name, &trial, "make setup")?,
            words: line.split(' ').map(OsString::from).collect(),
        })
    };
    let (perf, bpftrace): (&OsStr, &OsStr) = ("perf".as_ref(), "bpftrace".as_ref());
    let watchers = [
        watcher(
            "the heap loop under poise faults",
            Some(Goal::AtMost(1.25)),
            poise,
            "faults -q --no-hold --rung bpf --",
        )?,
        watcher(
            "  under poise faults --stacks",
            Some(Goal::AtMost(1.7)),
            poise,
            "faults -q --no-hold --rung bpf --stacks --",
        )?,
        watcher(
            "  under poise faults --rung counters",
            None,
            poise,
            "faults -q --no-hold --rung counters --",
        )?,
        watcher(
            "  under perf stat -e page-faults",
            None,
            perf,
            "stat -o /dev/null -e page-faults --",
        )?,
        watcher(
            "  under perf record -e page-faults -c1 -d",
            None,
            perf,
            "record -q -o /dev/null -e page-faults -c 1 -d --",
        )?,
        watcher(
            "  under perf trace -F all",
            None,
            perf,
            "trace -F all --no-syscalls -o /dev/null --",
        )?,
    ];
    let mut rows: Vec<Row> = Vec::new();
    let _mounted = Tracefs::mount();
    let program = compiled("heap_loop.c", "heap_loop")?;
    let counter = Peer::find_at(
        bpftrace,
        "bpftrace",
        &["-e", "tracepoint:exceptions:page_fault_user { exit() }"],
        "make setup",
    )?;
    let mut things: Vec<Measurement<'_>> = Vec::new();
    if let Ok(program) = &program {
        eprintln!("bench: the heap loop {ROUNDS} times by itself and under each watcher");
        things.push(Box::new(move || page_ns(&mut Command::new(program))));
        for watcher in &watchers {
            if watcher.peer.refusal.is_none() {
                things.push(Box::new(move || {
                    let mut command = Command::new(&watcher.peer.program);
                    page_ns(command.args(&watcher.words).arg(program))
                }));
            }
        }
        if counter.refusal.is_none() {
            let tool = &counter.program;
            things.push(Box::new(move || {
                let script = "tracepoint:exceptions:page_fault_user /pid == cpid/ { @ = count(); }";
                counted(tool, script, program)
            }));
        }
    }
    let figures = in_turn(ROUNDS, &mut things)?;
    drop(things);
    let mut next = 1;
    let targets = watchers.iter().map(|w| (w.what, w.target, &w.peer));
    let last = ("  under bpftrace, page_fault_user counted", None, &counter);
    for (what, target, peer) in targets.chain([last]) {
        let measured = match (&program, &peer.refusal) {
            (Err(why), _) => Err(why.clone()),
            (_, Some(refusal)) => Err(refusal.clone()),
            _ => {
                let (own, alone) = (&figures[next], &figures[0]);
                next += 1;
                let ns = |figures: &[f64]| order::median(figures).unwrap_or(f64::NAN);
                let aside = format!("{:.0} ns, against {:.0} ns", ns(own), ns(alone));
                Ok(Estimate::of(&quotients(own, alone), Form::Ratio)?.with_aside(aside))
            }
        };
        rows.push(Row {
            what,
            target,
            measured,
        });
    }
    Ok(rows)
}

/// CPU time a page, in ns, of the loop that `command` ends with.
fn page_ns(command: &mut Command) -> anyhow::Result<f64> {
    let output = command.arg(PASSES).stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {stderr}",
        output.status
    );
    first_number(&String::from_utf8_lossy(&output.stdout))
}

/// The same under a script of bpftrace.
fn counted(bpftrace: &OsStr, script: &str, program: &Path) -> anyhow::Result<f64> {
    let line = format!("{} {PASSES}", program.display());
    let mut command = Command::new(bpftrace);
    let output = command.args(["-q", "-e", script, "-c", &line]).output()?;
    first_number(&String::from_utf8_lossy(&output.stdout))
}
