//! The measured process of a built-in loop: one fresh process that runs batches with counters round them and reports through a pipe. Never decides how many batches or what they mean.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use super::loops::{self, Prepared};
use super::{Error, find_self};
use crate::perf::catalog::Catalog;
use crate::perf::plan::Readings;
use crate::perf::reading::Reading;
use crate::perf::selfread::{Mark, SelfCounters};
use crate::sys::child::{Child, Launcher, Program};
use crate::sys::clock;

/// The hidden verb by which we are executed for it.
pub const VERB: &str = "__batch";

/// The descriptor on which the process reports.
const REPORT_FD: usize = 3;

/// What the process is to do; its argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The loop, as [`loops::parse`] reads it.
    pub spec: String,
    /// Spellings of the events to count, group by group.
    pub groups: Vec<Vec<String>>,
    /// A directory for files.
    pub scratch: PathBuf,
    /// What to run.
    pub job: Job,
}
