//! `poise completions` and `poise man`: what an installation puts beside the binary. Never runs anything.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

/// Print the completion script for a shell
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory; it must exist.
    directory: PathBuf,
}

pub(super) fn completions(
    arguments: &Completions,
    mut command: clap::Command,
) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "poise", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub(super) fn man(arguments: &Man, command: clap::Command) -> anyhow::Result<u8> {
    clap_mangen::generate_to(command, &arguments.directory).with_context(|| {
        format!(
            "cannot write manual pages to {}",
            arguments.directory.display()
        )
    })?;
    Ok(0)
}
