//! Tracepoints as tracefs describes them. Never mounts it, never switches tracing on.
//!
//! It is usually root's alone, so CAP_DAC_READ_SEARCH is woken to read it, if we have that: no
//! user says where it is, and the names of tracepoints hold no slash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caps::Capability;

use super::pmu::{Unreadable, is_file_name, read};
use crate::sample::Cause;
use crate::sys::privilege::lend;

/// Why tracepoints cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TracefsError {
    /// It is not mounted.
    NotMounted {
        /// Where it should be.
        root: PathBuf,
    },
    /// It may not be read.
    NotPermitted {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// A file in it cannot be read or understood.
    Unreadable(Unreadable),
}

impl TracefsError {
    /// What stands in the way and what mends it.
    pub fn cause(&self) -> Cause {
        match self {
            TracefsError::NotMounted { root } => Cause::new("tracefs is not mounted")
                .cure(format!("mount -t tracefs tracefs {}", root.display())),
            // Directories and files belong to one group, which a remount gives; a wider mode of
            // the mount point alone would not open the files.
            TracefsError::NotPermitted { root } => {
                let root = root.display();
                Cause::new(format!("{root} may not be read by this user")).cure(format!(
                    "run as root, or sudo mount -o remount,mode=0750,gid=$(id -g) {root}"
                ))
            }
            TracefsError::Unreadable(unreadable) => Cause::new(unreadable.to_string()),
        }
    }
}

/// The first of `roots` where tracefs is.
pub(crate) fn find(roots: &[PathBuf]) -> Result<&Path, TracefsError> {
    let mut first = None;
    for root in roots {
        let events = root.join("events");
        match lend(Capability::CAP_DAC_READ_SEARCH, || fs::read_dir(events)) {
            Ok(_) => return Ok(root),
            Err(e) => first = first.or(Some((root.clone(), e.kind()))),
        }
    }
    // The usual place decides: debugfs is closed to users whether tracefs is there or not.
    Err(match first {
        Some((root, io::ErrorKind::PermissionDenied)) => TracefsError::NotPermitted { root },
        Some((root, _)) => TracefsError::NotMounted { root },
        None => TracefsError::NotMounted {
            root: "/sys/kernel/tracing".into(),
        },
    })
}

/// Whether the tracefs at `root` has a subsystem of this name.
pub(crate) fn has_system(root: &Path, system: &str) -> bool {
    let path = root.join("events").join(system);
    is_file_name(system) && lend(Capability::CAP_DAC_READ_SEARCH, || path.is_dir())
}

/// The number of the tracepoint `system:name`; `None` when there is no such tracepoint.
pub(crate) fn id(root: &Path, system: &str, name: &str) -> Result<Option<u64>, TracefsError> {
    if !is_file_name(system) || !is_file_name(name) {
        return Ok(None);
    }
    let path = root.join("events").join(system).join(name).join("id");
    match lend(Capability::CAP_DAC_READ_SEARCH, || read(&path)) {
        Ok(None) => Ok(None),
        Ok(Some(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| TracefsError::Unreadable(Unreadable::not_understood(path, &text))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(TracefsError::NotPermitted {
            root: root.to_owned(),
        }),
        Err(e) => Err(TracefsError::Unreadable(Unreadable::new(path, &e))),
    }
}

/// All tracepoints as `system:name`, by name.
pub(crate) fn all(roots: &[PathBuf]) -> Result<Vec<String>, TracefsError> {
    let events = find(roots)?.join("events");
    Ok(lend(Capability::CAP_DAC_READ_SEARCH, || {
        let mut tracepoints = Vec::new();
        for system in directories(&events) {
            let names = directories(&events.join(&system));
            tracepoints.extend(names.iter().map(|name| format!("{system}:{name}")));
        }
        tracepoints
    }))
}

/// The names of the directories in a directory in order; none when it cannot be listed.
fn directories(dir: &Path) -> Vec<String> {
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_directory)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
