//! `poise events`: lists what this machine can count, tried by counting. Never measures anything.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;

use crate::perf::catalog::Catalog;
use crate::perf::event::Event;
use crate::perf::listing::{Kind, Listed, Listing};
use crate::perf::{Access, plan};
use crate::sample::Cause;

/// List the events that this machine can count
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only events that match, such as 'cycles', '*miss*' or 'sched:*'. Tracepoints are listed
    /// only so, and one of them is tried for all.
    pattern: Option<String>,

    /// One JSON object an event.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let catalog = Catalog::default();
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let listing = catalog.list(arguments.pattern.as_deref());
    let mut tried: Vec<Tried<'_>> = Vec::with_capacity(listing.events.len());
    for listed in &listing.events {
        // Closing a tracepoint waits for every CPU: thousands of trials would take minutes. The
        // kernel treats all alike, so the first stands for the others.
        let alike = tried
            .last()
            .filter(|last| last.listed.kind == Kind::Tracepoint && listed.kind == Kind::Tracepoint);
        tried.push(match alike {
            Some(last) => Tried {
                listed,
                result: last.result.clone(),
            },
            None => Tried::new(listed, &catalog, &access),
        });
    }
    if let Some(pattern) = &arguments.pattern
        && tried.is_empty()
    {
        match &listing.tracepoints {
            Err(error) if pattern.contains(':') => {
                anyhow::bail!("no tracepoint matches `{pattern}`: {}", error.cause())
            }
            _ => anyhow::bail!("no event matches `{pattern}`"),
        }
    }
    let text = match arguments.json {
        true => tried.iter().map(Tried::json).collect::<String>(),
        false => table(&tried, &listing, arguments.pattern.is_some()),
    };
    super::print(&text)?;
    Ok(0)
}

/// A listed event and what came of trying it.
struct Tried<'l> {
    listed: &'l Listed,
    /// `None` when it cannot be tried without a parameter.
    result: Option<Result<Event, Cause>>,
}

impl<'l> Tried<'l> {
    fn new(listed: &'l Listed, catalog: &Catalog, access: &Access) -> Tried<'l> {
        if !listed.parameters.is_empty() {
            return Tried {
                listed,
                result: None,
            };
        }
        let result = plan::try_out(&listed.name, catalog, access);
        Tried {
            listed,
            result: Some(result),
        }
    }

    fn json(&self) -> String {
        let (counts, cause) = match &self.result {
            None => (None, None),
            Some(result) => (Some(result.is_ok()), result.as_ref().err()),
        };
        let object = serde_json::json!({
            "event": self.listed.name,
            "aliases": self.listed.aliases,
            "kind": self.listed.kind.to_string(),
            "parameters": self.listed.parameters,
            "counts": counts,
            "why": cause.map(|cause| &cause.why),
            "cure": cause.and_then(|cause| cause.cure.as_ref()),
        });
        format!("{object}\n")
    }
}

/// Events by kind; those that cannot be counted come together under their cause.
fn table(tried: &[Tried<'_>], listing: &Listing, by_pattern: bool) -> String {
    let mut text = String::new();
    let mut absent: BTreeMap<&Cause, Vec<&str>> = BTreeMap::new();
    for event in tried {
        match &event.result {
            Some(Err(cause)) => absent.entry(cause).or_default().push(&event.listed.name),
            Some(Ok(_)) | None => {
                let names = [&event.listed.name]
                    .into_iter()
                    .chain(&event.listed.aliases);
                let names = names.map(String::as_str).collect::<Vec<_>>().join(" OR ");
                let note = match (&event.result, &event.listed.parameters[..]) {
                    (Some(Ok(counted)), _) if counted.name != counted.spelling() => {
                        format!("  in user mode only, as {}", counted.spelling())
                    }
                    (Some(_), _) => String::new(),
                    (None, missing) => format!("  needs {}=…", missing.join("=…, ")),
                };
                let _ = writeln!(text, "  {names:<50} {}{note}", event.listed.kind);
            }
        }
    }
    for (cause, names) in absent {
        let _ = writeln!(text, "\nnot counted here: {cause}\n  {}", names.join(" "));
    }
    match &listing.tracepoints {
        _ if by_pattern => {}
        Ok(count) => {
            let _ = writeln!(
                text,
                "\nand {count} tracepoints: poise events 'sched:*' lists those of a subsystem"
            );
        }
        Err(error) => {
            let _ = writeln!(text, "\nno tracepoints: {}", error.cause());
        }
    }
    text
}
