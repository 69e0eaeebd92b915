//! The grammar of event lists: words with their places, modifiers, a PMU's terms, and what can be wrong with them. Never reads a file and never knows which events there are.

use super::event::{Modifiers, Precise};
use super::pmu::{Unreadable, number};
use super::tracefs::TracefsError;

/// What is wrong with a list of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", fault.describe(&word.escape_debug().to_string()))]
pub struct EventError {
    /// The offending part of the input.
    pub word: String,
    /// Where it begins in the input, in bytes.
    pub offset: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Why a word in a list of events cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No event stands where one should.
    Empty,
    /// A `{` or `/` without its counterpart.
    Unclosed,
    /// A `}` without a `{` before it.
    Unopened,
    /// A group in a group.
    Nested,
    /// Something other than `:` and modifiers after a `}`.
    AfterGroup,
    /// No such event; the names that are most like it.
    Unknown {
        /// At most three, the best first.
        nearest: Vec<String>,
    },
    /// An event of perf's own that is measured in every run anyway.
    AlwaysMeasured,
    /// Several PMUs have an event of this name.
    Several {
        /// How each of them is spelled.
        spellings: Vec<String>,
    },
    /// A modifier that cannot be taken.
    Modifier {
        /// Why not.
        why: &'static str,
    },
    /// Modifiers with which the event would count 0 whatever happened.
    AlwaysZero,
    /// No such PMU.
    UnknownPmu {
        /// Those that there are.
        known: Vec<String>,
    },
    /// The PMU has no such event or parameter.
    UnknownTerm {
        /// The PMU's name.
        pmu: String,
        /// Its events and parameters that are most like it.
        nearest: Vec<String>,
        /// Its parameters.
        formats: Vec<String>,
    },
    /// A parameter of perf that has no meaning here.
    RefusedTerm {
        /// Why not.
        why: &'static str,
    },
    /// A parameter without a number, or with something that is none.
    NotANumber,
    /// A number that does not fit its parameter.
    TooLarge {
        /// The largest that fits.
        max: u64,
    },
    /// A PMU's event that is not complete without a parameter.
    MissingParameter {
        /// The parameter.
        parameter: String,
    },
    /// Tracepoints cannot be looked up.
    Tracefs(TracefsError),
    /// The kernel has no such tracepoint.
    UnknownTracepoint {
        /// At most three that are like it, the best first.
        nearest: Vec<String>,
    },
    /// What the kernel says of the event cannot be read or understood.
    Unreadable(Unreadable),
}

impl Fault {
    /// One line without a full stop, with the cure where there is one.
    fn describe(&self, word: &str) -> String {
        match self {
            Fault::Empty => "an event is missing: empty list or group, or a comma too many".into(),
            Fault::Unclosed => format!("`{word}` is not closed"),
            Fault::Unopened => "`}` without a `{` before it".into(),
            Fault::Nested => "`{` within a group: groups do not nest".into(),
            Fault::AfterGroup => {
                format!("`{word}` after a group: only `:` and modifiers may stand there")
            }
            Fault::Unknown { nearest } if nearest.is_empty() => {
                format!("unknown event `{word}`; `poise events` lists what is known")
            }
            Fault::Unknown { nearest } => {
                format!("unknown event `{word}`: did you mean {}?", any_of(nearest))
            }
            Fault::AlwaysMeasured => {
                format!("`{word}` is no event here: this time is always measured")
            }
            Fault::Several { spellings } => {
                format!(
                    "`{word}` is an event of several PMUs: write {}",
                    any_of(spellings)
                )
            }
            Fault::Modifier { why } => format!("modifier `{word}`: {why}"),
            Fault::AlwaysZero => {
                format!(
                    "`{word}` happens in the kernel and would always count 0: leave `u` and `h` away"
                )
            }
            Fault::UnknownPmu { known } => {
                format!("unknown PMU `{word}`: this machine has {}", some_of(known))
            }
            Fault::UnknownTerm {
                pmu,
                nearest,
                formats,
            } => {
                let guess = match nearest.as_slice() {
                    [] => String::new(),
                    nearest => format!("did you mean {}? ", any_of(nearest)),
                };
                let takes = match formats.as_slice() {
                    [] => "it takes only `config`, `config1` and `config2`".to_owned(),
                    formats => format!("it takes {}", some_of(formats)),
                };
                format!("PMU `{pmu}` has no event or parameter `{word}`: {guess}{takes}")
            }
            Fault::RefusedTerm { why } => format!("parameter `{word}`: {why}"),
            Fault::NotANumber => {
                format!("`{word}`: a number is missing, decimal or after `0x` hexadecimal")
            }
            Fault::TooLarge { max } => {
                format!("`{word}`: the largest number that fits is {max:#x}")
            }
            Fault::MissingParameter { parameter } => {
                format!(
                    "event `{word}` needs a value for `{parameter}`: add `{parameter}=…` behind a comma"
                )
            }
            Fault::Tracefs(error) => {
                format!("tracepoint `{word}` cannot be looked up: {}", error.cause())
            }
            Fault::UnknownTracepoint { nearest } if nearest.is_empty() => {
                format!("unknown tracepoint `{word}`; `poise events tracepoint` lists all")
            }
            Fault::UnknownTracepoint { nearest } => {
                format!(
                    "unknown tracepoint `{word}`: did you mean {}?",
                    any_of(nearest)
                )
            }
            Fault::Unreadable(unreadable) => format!("`{word}`: {unreadable}"),
        }
    }
}

/// `` `a`, `b` or `c` ``
fn any_of(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// `a, b, c and 20 more`
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

/// A part of the input, and where it begins.
#[derive(Clone, Copy)]
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    pub(crate) offset: usize,
}

impl<'a> Word<'a> {
    /// The bytes from `start` to before `end`, which must lie between characters.
    pub(crate) fn part(self, start: usize, end: usize) -> Word<'a> {
        Word {
            text: &self.text[start..end],
            offset: self.offset + start,
        }
    }

    pub(crate) fn from(self, start: usize) -> Word<'a> {
        self.part(start, self.text.len())
    }

    pub(crate) fn trim(self) -> Word<'a> {
        let start = self.text.len() - self.text.trim_start().len();
        Word {
            text: self.text.trim(),
            offset: self.offset + start,
        }
    }

    /// The inside of a group in braces, and the modifiers after it; `None` when it is no group.
    pub(crate) fn braced(self) -> Result<Option<(Word<'a>, Option<Word<'a>>)>, EventError> {
        if !self.text.starts_with('{') {
            return Ok(None);
        }
        let Some(end) = self.text.rfind('}') else {
            return Err(self.part(0, 1).fault(Fault::Unclosed));
        };
        let inside = self.part(1, end);
        let tail = self.from(end + 1).trim();
        match tail.cut(':') {
            None if tail.text.is_empty() => Ok(Some((inside, None))),
            Some((before, letters)) if before.text.is_empty() => Ok(Some((inside, Some(letters)))),
            _ => Err(tail.fault(Fault::AfterGroup)),
        }
    }

    /// What stands before and after the first `separator`.
    pub(crate) fn cut(self, separator: char) -> Option<(Word<'a>, Word<'a>)> {
        let at = self.text.find(separator)?;
        Some((self.part(0, at), self.from(at + separator.len_utf8())))
    }

    /// The items between the commas that stand neither in braces nor between a PMU's slashes.
    pub(crate) fn split_list(self) -> Result<Vec<Word<'a>>, EventError> {
        let mut items = Vec::new();
        let mut start = 0;
        let (mut brace, mut slash) = (None, None);
        for (at, byte) in self.text.bytes().enumerate() {
            match byte {
                b'/' if slash.is_some() => slash = None,
                b'/' => slash = Some(at),
                _ if slash.is_some() => {}
                b'{' if brace.is_some() => return Err(self.part(at, at + 1).fault(Fault::Nested)),
                b'{' => brace = Some(at),
                b'}' if brace.is_none() => {
                    return Err(self.part(at, at + 1).fault(Fault::Unopened));
                }
                b'}' => brace = None,
                b',' if brace.is_none() => {
                    items.push(self.part(start, at));
                    start = at + 1;
                }
                _ => {}
            }
        }
        if let Some(at) = slash.or(brace) {
            return Err(self.part(at, at + 1).fault(Fault::Unclosed));
        }
        items.push(self.from(start));
        items.iter_mut().for_each(|item| *item = item.trim());
        match items.iter().find(|item| item.text.is_empty()) {
            Some(item) => Err(item.fault(Fault::Empty)),
            None => Ok(items),
        }
    }

    pub(crate) fn fault(self, fault: Fault) -> EventError {
        EventError {
            word: self.text.to_owned(),
            offset: self.offset,
            fault,
        }
    }

    /// The number of a raw event such as `r1a8`, when it looks like one.
    pub(crate) fn raw(self) -> Result<Option<u64>, EventError> {
        match self.text.strip_prefix('r') {
            Some(digits) if is_hexadecimal(digits) => match u64::from_str_radix(digits, 16) {
                Ok(config) => Ok(Some(config)),
                Err(_) => Err(self.fault(Fault::TooLarge { max: u64::MAX })),
            },
            _ => Ok(None),
        }
    }

    /// For errors of files that were read because of this word.
    pub(crate) fn unreadable(self) -> impl Fn(Unreadable) -> EventError {
        move |unreadable| self.fault(Fault::Unreadable(unreadable))
    }
}

fn is_hexadecimal(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One `key` or `key=value` between a PMU's slashes.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) key: Word<'a>,
    pub(crate) value: Option<Word<'a>>,
}

impl<'a> Term<'a> {
    /// The terms of a list, which may be empty.
    pub(crate) fn list(body: Word<'a>) -> Result<Vec<Term<'a>>, EventError> {
        let mut terms = Vec::new();
        let mut rest = Some(body).filter(|body| !body.trim().text.is_empty());
        while let Some(words) = rest {
            let (word, tail) = match words.cut(',') {
                Some((word, tail)) => (word, Some(tail)),
                None => (words, None),
            };
            rest = tail;
            let (key, value) = match word.cut('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (word.trim(), None),
            };
            if key.text.is_empty() {
                return Err(key.fault(Fault::Empty));
            }
            terms.push(Term { key, value });
        }
        Ok(terms)
    }

    /// The value, or the key when there is none.
    pub(crate) fn last(&self) -> Word<'a> {
        self.value.unwrap_or(self.key)
    }

    pub(crate) fn number(&self) -> Result<u64, EventError> {
        self.value
            .and_then(|value| number(value.text))
            .ok_or_else(|| self.last().fault(Fault::NotANumber))
    }

    pub(crate) fn spelling(&self) -> String {
        match self.value {
            Some(value) => format!("{}={}", self.key.text, value.text),
            None => self.key.text.to_owned(),
        }
    }
}

/// The modifiers that the letters of `word` are.
pub(crate) fn modifiers(word: Word<'_>) -> Result<Modifiers, EventError> {
    let word = word.trim();
    let mut modifiers = Modifiers::default();
    if word.text.is_empty() {
        return Err(word.fault(Fault::Modifier {
            why: "none stands after the colon",
        }));
    }
    for (at, letter) in word.text.char_indices() {
        let refuse = |why| {
            let letter = word.part(at, at + letter.len_utf8());
            Err(letter.fault(Fault::Modifier { why }))
        };
        let flag = match letter {
            'u' => &mut modifiers.user,
            'k' => &mut modifiers.kernel,
            'h' => &mut modifiers.hypervisor,
            'D' => &mut modifiers.pinned,
            'W' => &mut modifiers.weak,
            'p' | 'P' => {
                modifiers.precise = match (letter, modifiers.precise) {
                    ('p', Precise::Arbitrary) => Precise::Constant,
                    ('p', Precise::Constant) => Precise::Requested,
                    ('p', Precise::Requested) => Precise::Exact,
                    ('P', Precise::Arbitrary) => Precise::Most,
                    _ => return refuse("`ppp` is the most, and `P` stands alone"),
                };
                continue;
            }
            'G' => return refuse("counting guests only is not supported"),
            'H' => return refuse("counting the host only is not supported"),
            'I' => return refuse("leaving idle time out is not supported"),
            'S' => return refuse("events are counted, not sampled"),
            'e' => return refuse("exclusive groups are not supported"),
            'b' => return refuse("counting by BPF is not supported"),
            _ => return refuse("there are only u, k, h, p, pp, ppp, P, D and W"),
        };
        if *flag {
            return refuse("it stands there twice");
        }
        *flag = true;
    }
    Ok(modifiers)
}
