//! The catalogue of loops, and the choice of one: what a user types, checked and spelled out. Never runs one.

use std::fmt;
use std::io;

use crate::sample::{Cause, Name};
use crate::sys::memory::{Pages, huge_page_bytes, page_bytes};
use crate::sys::spin;

const MIB: u64 = 1 << 20;
/// What a pipe holds on Linux unless told otherwise: 16 pages of 4 KiB.
pub(super) const PIPE_BYTES: u64 = 64 << 10;

/// A built-in loop, as it stands in the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct LoopInfo {
    /// What the user types: `write`, `open-close`. Case, `-` and `_` make no difference.
    pub name: &'static str,
    /// One line: what it is for.
    pub about: &'static str,
    /// What one operation is.
    pub operation: &'static str,
    /// Its parameters, in the order in which they stand in names.
    pub parameters: &'static [Parameter],
    pub(super) kind: Kind,
}

/// A parameter of a loop.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The word before the `=`.
    pub key: &'static str,
    /// The value that it has when the user gives none.
    pub default: &'static str,
    /// The values that it can have.
    pub values: Values,
    /// One line: what it is.
    pub about: &'static str,
    /// Whether it stands in the benchmark's name even with its default value.
    pub always_named: bool,
}

/// The values that a parameter can have. Displayed as a phrase for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A whole number in this range; the suffixes K, M, G (and KiB, MiB, GiB) are powers of 1024.
    Number {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// An absolute path; it takes the rest of the text, slashes and all.
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
    Getppid,
    ClockGettime,
    OpenClose,
    Stat,
    Pipe,
    Futex,
    MmapMunmap,
    ForkWait,
    VforkExec,
    Heap,
    Spin,
}

const SIZE: Parameter = Parameter {
    key: "size",
    default: "512",
    values: Values::Number {
        least: 1,
        most: 64 * MIB,
    },
    about: "bytes of one call",
    always_named: true,
};

const FILE: Parameter = Parameter {
    key: "file",
    default: "/etc/passwd",
    values: Values::Path,
    about: "the file, by its absolute path",
    always_named: false,
};

static CATALOG: [LoopInfo; 13] = [
    LoopInfo {
        name: "write",
        about: "write(2) to /dev/null, a file or a pipe",
        operation: "one write; with to=file its share of going back to the start of a file of 1 MiB in the page \
                    cache, with to=pipe its share of emptying the full pipe",
        parameters: &[
            SIZE,
            Parameter {
                key: "to",
                default: "null",
                values: Values::Word(&["null", "file", "pipe"]),
                about: "/dev/null, an unnamed file in the scratch directory, or a pipe of this process",
                always_named: false,
            },
        ],
        kind: Kind::Write,
    },
    LoopInfo {
        name: "read",
        about: "read(2) from /dev/zero",
        operation: "one read",
        parameters: &[SIZE],
        kind: Kind::Read,
    },
    LoopInfo {
        name: "getppid",
        about: "the null system call: entry, exit and nothing between",
        operation: "one getppid",
        parameters: &[],
        kind: Kind::Getppid,
    },
    LoopInfo {
        name: "clock_gettime",
        about: "reading CLOCK_MONOTONIC",
        operation: "one reading",
        parameters: &[Parameter {
            key: "via",
            default: "vdso",
            values: Values::Word(&["vdso", "syscall"]),
            about: "by the vDSO (which enters the kernel when the clock source cannot be read without) or always by \
                    the system call",
            always_named: true,
        }],
        kind: Kind::ClockGettime,
    },
    LoopInfo {
        name: "open-close",
        about: "opening and closing a file",
        operation: "one open for reading and one close",
        parameters: &[FILE],
        kind: Kind::OpenClose,
    },
    LoopInfo {
        name: "stat",
        about: "stat(2) by path",
        operation: "one stat",
        parameters: &[FILE],
        kind: Kind::Stat,
    },
    LoopInfo {
        name: "pipe",
        about: "handing over between two processes by two pipes",
        operation: "one round trip of one byte: two writes, two reads, two switches",
        parameters: &[],
        kind: Kind::Pipe,
    },
    LoopInfo {
        name: "futex",
        about: "waking by futex(2) when nobody waits",
        operation: "one FUTEX_WAKE that finds no waiter",
        parameters: &[],
        kind: Kind::Futex,
    },
    LoopInfo {
        name: "mmap-munmap",
        about: "mapping anonymous memory and unmapping it untouched",
        operation: "one mmap and one munmap",
        parameters: &[Parameter {
            key: "size",
            default: "4096",
            values: Values::Number {
                least: 1,
                most: 1 << 40,
            },
            about: "bytes of the mapping",
            always_named: true,
        }],
        kind: Kind::MmapMunmap,
    },
    LoopInfo {
        name: "fork-wait",
        about: "forking a child that exits at once, and waiting for it",
        operation: "one fork, one exit, one wait",
        parameters: &[],
        kind: Kind::ForkWait,
    },
    LoopInfo {
        name: "vfork-exec",
        about: "starting a program by posix_spawn(3) and waiting for it",
        operation: "one start and one whole life of the program, which must exit 0",
        parameters: &[Parameter {
            key: "program",
            default: "/bin/true",
            values: Values::Path,
            about: "the program, by its absolute path; it gets no arguments and no environment",
            always_named: true,
        }],
        kind: Kind::VforkExec,
    },
    LoopInfo {
        name: "heap",
        about: "touching memory page by page",
        operation: "one base page of memory written to, whatever pages the kernel makes it of; in the first pass with \
                    its share of the mmap and the munmap",
        parameters: &[
            Parameter {
                key: "MiB",
                default: "16",
                values: Values::Number {
                    least: 1,
                    most: MIB,
                },
                about: "size of each mapping",
                always_named: true,
            },
            Parameter {
                key: "pages",
                default: "4k",
                values: Values::Word(&["4k", "thp", "populate"]),
                about: "base pages (MADV_NOHUGEPAGE), transparent huge pages (MADV_HUGEPAGE), or all made by \
                        mmap(MAP_POPULATE)",
                always_named: true,
            },
            Parameter {
                key: "pass",
                default: "1",
                values: Values::Word(&["1", "2"]),
                about: "1: a fresh mapping each time round; 2: one mapping touched before, so nothing faults",
                always_named: false,
            },
        ],
        kind: Kind::Heap,
    },
    LoopInfo {
        name: "spin",
        about: "a known number of instructions, to check the counters by",
        operation: "two instructions: one that counts down, one branch",
        parameters: &[],
        kind: Kind::Spin,
    },
];

/// All built-in loops.
pub fn catalog() -> &'static [LoopInfo] {
    &CATALOG
}

impl LoopInfo {
    /// The name in CamelCase, as benchmarks are called: `OpenClose`.
    pub fn benchmark(&self) -> String {
        let capitalised = |word: &str| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<String>()
        };
        self.name.split(['-', '_']).map(capitalised).collect()
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Values::Number { least, most } => {
                write!(
                    f,
                    "a number from {least} to {most} (K, M, G are powers of 1024)"
                )
            }
            Values::Word(words) => write!(f, "one of {}", words.join(", ")),
            Values::Path => f.write_str("an absolute path"),
        }
    }
}

/// What stands in the way of a loop.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// No loop has this name.
    #[error("no loop is called `{name}`; nearest: {}", near.join(", "))]
    UnknownLoop {
        /// As it was typed.
        name: String,
        /// The names that resemble it most.
        near: Vec<&'static str>,
    },
    /// The loop has no such parameter.
    #[error("`{of}` has no parameter `{key}`; it has {}", or_none(known))]
    UnknownParameter {
        /// The loop.
        of: &'static str,
        /// As it was typed.
        key: String,
        /// The parameters that it has.
        known: Vec<&'static str>,
    },
    /// Not `key=value`, or given twice.
    #[error("`{part}` in `{of}`: {problem}")]
    Syntax {
        /// The loop.
        of: &'static str,
        /// The part that is wrong, as it was typed.
        part: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value that the parameter cannot have.
    #[error("`{key}={value}` in `{of}`: `{key}` is {allowed}")]
    BadValue {
        /// The loop.
        of: &'static str,
        /// The parameter.
        key: &'static str,
        /// As it was typed.
        value: String,
        /// What it can be, as a phrase.
        allowed: String,
    },
    /// This machine does not have what the loop needs.
    #[error("`{of}`: {cause}")]
    Refused {
        /// The loop with its parameters.
        of: String,
        /// Why, and what would mend it.
        cause: Cause,
    },
    /// A system call failed while the loop was made ready or ran.
    #[error("`{of}`: {action}: {source}")]
    System {
        /// The loop with its parameters.
        of: String,
        /// What was being done, and to what.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn or_none(keys: &[&str]) -> String {
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    }
}

/// A loop with a value for each of its parameters. Displayed as a text that [`parse`] reads back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopSpec {
    info: &'static LoopInfo,
    /// In the order of `info.parameters`.
    settings: Vec<Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Number(u64),
    Text(String),
}

/// Reads what the user types: `write`, `write/size=4096/to=pipe`. A value can be a list
/// (`size=512,4096`); all combinations come back, the last parameter's values changing fastest.
pub fn parse(text: &str) -> Result<Vec<LoopSpec>, LoopError> {
    let (name, mut rest) = text
        .split_once('/')
        .map_or((text, None), |(name, rest)| (name, Some(rest)));
    let info = CATALOG
        .iter()
        .find(|info| same_word(info.name, name))
        .ok_or_else(|| unknown_loop(name))?;
    let mut given: Vec<Option<&str>> = vec![None; info.parameters.len()];
    while let Some(text) = rest {
        let (index, value);
        (index, value, rest) = next_part(info, text)?;
        if given[index].replace(value).is_some() {
            let part = format!("{}={value}", info.parameters[index].key);
            return Err(LoopError::Syntax {
                of: info.name,
                part,
                problem: "given twice; a list is `key=1,2`",
            });
        }
    }
    let mut specs = vec![LoopSpec {
        info,
        settings: Vec::new(),
    }];
    for (parameter, given) in info.parameters.iter().zip(given) {
        let settings = parameter.settings(info.name, given.unwrap_or(parameter.default))?;
        let with_each = |spec: LoopSpec| {
            settings
                .iter()
                .map(move |setting| spec.with(setting))
                .collect::<Vec<_>>()
        };
        specs = specs.into_iter().flat_map(with_each).collect();
    }
    specs.iter().try_for_each(LoopSpec::check)?;
    Ok(specs)
}

/// Takes the first `key=value` off `text`: the parameter's index, the value, and what is left.
fn next_part<'a>(
    info: &'static LoopInfo,
    text: &'a str,
) -> Result<(usize, &'a str, Option<&'a str>), LoopError> {
    let end = text.find('/').unwrap_or(text.len());
    let Some((key, _)) = text[..end].split_once('=') else {
        let part = text[..end].to_owned();
        return Err(LoopError::Syntax {
            of: info.name,
            part,
            problem: "not `key=value`",
        });
    };
    let Some(index) = info
        .parameters
        .iter()
        .position(|parameter| same_word(parameter.key, key))
    else {
        let known = info
            .parameters
            .iter()
            .map(|parameter| parameter.key)
            .collect();
        return Err(LoopError::UnknownParameter {
            of: info.name,
            key: key.to_owned(),
            known,
        });
    };
    let value = &text[key.len() + 1..];
    Ok(
        match (info.parameters[index].values, value.split_once('/')) {
            (Values::Path, _) | (_, None) => (index, value, None),
            (_, Some((value, rest))) => (index, value, Some(rest)),
        },
    )
}

/// Whether `typed` is `word` but for case, `-` and `_`.
fn same_word(word: &str, typed: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = char> {
        text.chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
    }
    letters(word).eq(letters(typed))
}

fn unknown_loop(name: &str) -> LoopError {
    let likeness = |info: &LoopInfo| strsim::jaro_winkler(info.name, &name.to_ascii_lowercase());
    let mut near: Vec<_> = CATALOG
        .iter()
        .map(|info| (likeness(info), info.name))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let least = near.first().map_or(0.0, |best| best.0 - 0.1);
    let near = near
        .into_iter()
        .take_while(|(likeness, _)| *likeness >= least)
        .map(|(_, name)| name)
        .collect();
    LoopError::UnknownLoop {
        name: name.to_owned(),
        near,
    }
}

impl Parameter {
    /// The different values in the comma-separated `list`, in order.
    fn settings(&self, of: &'static str, list: &str) -> Result<Vec<Setting>, LoopError> {
        let mut settings = Vec::new();
        for value in list.split(',') {
            let setting = self.setting(value).ok_or_else(|| LoopError::BadValue {
                of,
                key: self.key,
                value: value.to_owned(),
                allowed: self.values.to_string(),
            })?;
            if !settings.contains(&setting) {
                settings.push(setting);
            }
        }
        Ok(settings)
    }

    fn setting(&self, value: &str) -> Option<Setting> {
        match self.values {
            Values::Number { least, most } => number(value)
                .filter(|number| (least..=most).contains(number))
                .map(Setting::Number),
            Values::Word(words) => words
                .iter()
                .find(|word| same_word(word, value))
                .map(|&word| Setting::Text(word.to_owned())),
            Values::Path => (value.starts_with('/') && !value.contains('\0'))
                .then(|| Setting::Text(value.to_owned())),
        }
    }
}

/// `512`, `4K`, `4KiB`, `1m`: digits and a power of 1024.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

impl LoopSpec {
    /// The benchmark's name, such as `Write/size=512`: the loop's name in CamelCase, then the
    /// parameters that say how much work it is and those that differ from their default.
    pub fn name(&self) -> Name {
        let parameters = self.info.parameters.iter().zip(&self.settings);
        let named = parameters.filter(|(parameter, setting)| {
            parameter.always_named || parameter.setting(parameter.default).as_ref() != Some(setting)
        });
        named.fold(
            Name::new(&self.info.benchmark()),
            |name, (parameter, setting)| name.with(parameter.key, setting),
        )
    }

    /// The loop's entry in the catalogue.
    pub fn info(&self) -> &'static LoopInfo {
        self.info
    }

    /// Iterations are best a multiple of this: the pages of one mapping for `heap`, otherwise 1.
    pub fn granularity(&self) -> u64 {
        match self.info.kind {
            Kind::Heap => self.heap_bytes() / page_bytes() as u64,
            _ => 1,
        }
    }

    /// Whether part of the work is done in child processes: then counters must be opened with
    /// `inherit`, before the loop is made ready.
    pub fn counts_children(&self) -> bool {
        matches!(
            self.info.kind,
            Kind::Pipe | Kind::ForkWait | Kind::VforkExec
        )
    }

    /// Bytes that one operation moves, for loops that move data.
    pub fn bytes_per_op(&self) -> Option<u64> {
        matches!(self.info.kind, Kind::Write | Kind::Read).then(|| self.number("size"))
    }

    /// An event and how often one operation must raise it, where that is known beforehand: the
    /// check of the counters themselves.
    pub fn expected(&self) -> Option<(&'static str, f64)> {
        match self.info.kind {
            Kind::Spin => Some(("instructions:u", spin::INSTRUCTIONS as f64)),
            Kind::Heap => {
                let faults = match (self.text("pass"), self.text("pages")) {
                    ("1", "4k") => 1.0,
                    ("1", "thp") => page_bytes() as f64 / huge_page_bytes() as f64,
                    // The pages that mmap populates are no exceptions, which is what this event
                    // counts; rusage does count them.
                    _ => 0.0,
                };
                Some(("page-faults", faults))
            }
            _ => None,
        }
    }

    /// Whether its memory is made by the call that maps it, so that nothing faults.
    pub fn is_populated(&self) -> bool {
        matches!(self.info.kind, Kind::Heap) && self.pages() == Pages::Populated
    }

    /// The number that parameter `key` has.
    pub(super) fn number(&self, key: &str) -> u64 {
        match self.setting(key) {
            Some(&Setting::Number(number)) => number,
            _ => 0,
        }
    }

    /// The word or path that parameter `key` has.
    pub(super) fn text(&self, key: &str) -> &str {
        match self.setting(key) {
            Some(Setting::Text(text)) => text,
            _ => "",
        }
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.number("MiB") * MIB
    }

    /// The pages that the loop `heap` is made of.
    pub(super) fn pages(&self) -> Pages {
        match self.text("pages") {
            "thp" => Pages::Huge,
            "populate" => Pages::Populated,
            _ => Pages::Base,
        }
    }

    fn setting(&self, key: &str) -> Option<&Setting> {
        let index = self
            .info
            .parameters
            .iter()
            .position(|parameter| parameter.key == key);
        let setting = index.and_then(|index| self.settings.get(index));
        debug_assert!(setting.is_some(), "{} has no {key}", self.info.name);
        setting
    }

    fn with(&self, setting: &Setting) -> LoopSpec {
        let settings = self.settings.iter().chain([setting]).cloned().collect();
        LoopSpec {
            info: self.info,
            settings,
        }
    }

    /// What two parameters allow only together.
    fn check(&self) -> Result<(), LoopError> {
        let refuse = |key, value: u64, allowed| {
            Err(LoopError::BadValue {
                of: self.info.name,
                key,
                value: value.to_string(),
                allowed,
            })
        };
        match self.info.kind {
            Kind::Write if self.text("to") == "pipe" && self.number("size") > PIPE_BYTES => {
                let allowed = format!("at most {PIPE_BYTES} with to=pipe: what a pipe holds");
                refuse("size", self.number("size"), allowed)
            }
            Kind::Heap
                if self.text("pages") == "thp"
                    && !self.heap_bytes().is_multiple_of(huge_page_bytes() as u64) =>
            {
                let huge_mib = huge_page_bytes() as u64 / MIB;
                let allowed =
                    format!("a multiple of {huge_mib} with pages=thp: the size of a huge page");
                refuse("MiB", self.number("MiB"), allowed)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Number(number) => number.fmt(f),
            Setting::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Display for LoopSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info.name)?;
        let mut parameters = self.info.parameters.iter().zip(&self.settings);
        parameters.try_for_each(|(parameter, setting)| write!(f, "/{}={setting}", parameter.key))
    }
}

#[cfg(test)]
mod tests;
