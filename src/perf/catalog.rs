//! The catalog: from what the user wrote to events, by perf's grammar and the machine's own sysfs and tracefs. Never opens an event: what stands here may still refuse to count.

use std::path::PathBuf;

use super::event::{Code, Event, Group, Measure, Modifiers};
use super::grammar::{EventError, Fault, Term, Word, modifiers};
use super::listing::nearest;
use super::pmu::{self, Pmu};
use super::symbol;
use super::tracefs;
use crate::sys::perf_event::bindings as abi;

/// Where the machine describes its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// One directory a PMU.
    pub pmus: PathBuf,
    /// Where tracefs may be mounted, the usual place first.
    pub tracing: Vec<PathBuf>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            pmus: "/sys/bus/event_source/devices".into(),
            tracing: vec![
                "/sys/kernel/tracing".into(),
                "/sys/kernel/debug/tracing".into(),
            ],
        }
    }
}

impl Catalog {
    /// The events that `text` names, in perf's grammar: a list with commas of events and groups
    /// in braces, each with modifiers after a colon (after a PMU's slash without one).
    ///
    /// Names become canonical: `cpu-cycles` is `cycles`, a core PMU's `mem-loads` is
    /// `cpu/mem-loads/`. A group's modifiers come on top of those of its members.
    pub fn parse(&self, text: &str) -> Result<Vec<Group>, EventError> {
        let items = Word { text, offset: 0 }.split_list()?;
        items.into_iter().map(|item| self.group(item)).collect()
    }

    /// The PMUs of the CPU's cores: one, or on hybrid machines one a core type. There `cycles`
    /// means one of them, and `cpu_core/cycles/` says which.
    pub fn core_pmus(&self) -> Vec<Pmu> {
        let mut pmus = Pmu::all(&self.pmus);
        pmus.retain(Pmu::is_core);
        pmus
    }

    fn group(&self, item: Word<'_>) -> Result<Group, EventError> {
        let Some((members, tail)) = item.braced()? else {
            let event = truthful(item, self.event(item)?)?;
            return Ok(Group {
                events: vec![event],
                braced: false,
            });
        };
        let more = match tail {
            Some(letters) => modifiers(letters)?,
            None => Modifiers::default(),
        };
        let mut events = Vec::new();
        for member in members.split_list()? {
            events.push(truthful(member, self.event(member)?.with(more))?);
        }
        Ok(Group {
            events,
            braced: true,
        })
    }

    fn event(&self, item: Word<'_>) -> Result<Event, EventError> {
        if let Some((pmu, rest)) = item.cut('/') {
            return self.pmu_event(pmu.trim(), rest, item);
        }
        let Some((head, rest)) = item.cut(':') else {
            return self.named(item)?.ok_or_else(|| self.unknown(item));
        };
        let head = head.trim();
        match self.named(head)? {
            Some(event) => Ok(event.with(modifiers(rest)?)),
            None => self.tracepoint(head, rest, item),
        }
    }

    /// The event that one word without modifiers names.
    fn named(&self, word: Word<'_>) -> Result<Option<Event>, EventError> {
        if word.text.is_empty() {
            return Err(word.fault(Fault::Empty));
        }
        if let Some(symbol) = symbol::find(word.text) {
            return Ok(Some(plain(&symbol.names[0], symbol.code)));
        }
        if let Some(config) = word.raw()? {
            let code = Code {
                kind: abi::PERF_TYPE_RAW,
                config,
                ..Code::default()
            };
            return Ok(Some(plain(&format!("r{config:x}"), code)));
        }
        let mut having = Vec::new();
        for pmu in self.core_pmus() {
            if pmu.event(word.text).map_err(word.unreadable())?.is_some() {
                having.push(pmu);
            }
        }
        match having.as_slice() {
            [] => Ok(None),
            [pmu] => self
                .encode(
                    pmu,
                    &[Term {
                        key: word,
                        value: None,
                    }],
                )
                .map(Some),
            several => {
                let spelling = |pmu: &Pmu| format!("{}/{}/", pmu.name, word.text);
                Err(word.fault(Fault::Several {
                    spellings: several.iter().map(spelling).collect(),
                }))
            }
        }
    }

    /// `system:name` or `system:name:modifiers`, where `system` is no event.
    fn tracepoint(
        &self,
        system: Word<'_>,
        rest: Word<'_>,
        item: Word<'_>,
    ) -> Result<Event, EventError> {
        let (name, letters) = match rest.cut(':') {
            Some((name, letters)) => (name.trim(), Some(letters)),
            None => (rest.trim(), None),
        };
        let root = tracefs::find(&self.tracing);
        // `cylces:u` is a misspelt event with a modifier rather than a tracepoint.
        let is_modified =
            letters.is_none() && name.text.chars().all(|c| "ukhpPDWGHISeb".contains(c));
        if is_modified
            && !root
                .as_ref()
                .is_ok_and(|root| tracefs::has_system(root, system.text))
        {
            return Err(self.unknown(system));
        }
        let spelling = format!("{}:{}", system.text, name.text);
        let whole = Word {
            text: &spelling,
            ..item
        };
        let id = root.and_then(|root| tracefs::id(root, system.text, name.text));
        let Some(config) = id.map_err(|e| whole.fault(Fault::Tracefs(e)))? else {
            let known = tracefs::all(&self.tracing).unwrap_or_default();
            let names = known.iter().map(|name| (name.as_str(), name.as_str()));
            return Err(whole.fault(Fault::UnknownTracepoint {
                nearest: nearest(&spelling, names),
            }));
        };
        let code = Code {
            kind: abi::PERF_TYPE_TRACEPOINT,
            config,
            ..Code::default()
        };
        let event = plain(&spelling, code);
        match letters {
            Some(letters) => Ok(event.with(modifiers(letters)?)),
            None => Ok(event),
        }
    }

    /// `name/body/modifiers`.
    fn pmu_event(
        &self,
        name: Word<'_>,
        rest: Word<'_>,
        item: Word<'_>,
    ) -> Result<Event, EventError> {
        let Some((body, tail)) = rest.cut('/') else {
            return Err(item.fault(Fault::Unclosed));
        };
        let Some(pmu) = Pmu::open(&self.pmus, name.text).map_err(name.unreadable())? else {
            let known = Pmu::all(&self.pmus)
                .into_iter()
                .map(|pmu| pmu.name)
                .collect();
            return Err(name.fault(Fault::UnknownPmu { known }));
        };
        let event = self.encode(&pmu, &Term::list(body)?)?;
        // perf has no colon here; who writes one means the same.
        let letters = match tail.cut(':') {
            Some((before, letters)) if before.trim().text.is_empty() => letters,
            _ if tail.trim().text.is_empty() => return Ok(event),
            _ => tail,
        };
        Ok(event.with(modifiers(letters)?))
    }

    /// The event of `pmu` that `terms` describe.
    fn encode(&self, pmu: &Pmu, terms: &[Term<'_>]) -> Result<Event, EventError> {
        let mut words = [0_u64; 3];
        let (mut kind, mut label, mut measure) = (pmu.kind, None, None);
        // Named events first, so that what the user gives beside them stands.
        let mut given = Vec::new();
        for term in terms {
            let Term { key, value } = *term;
            let text = match value {
                None => pmu.event(key.text).map_err(key.unreadable())?,
                Some(_) => None,
            };
            let Some(text) = text else {
                given.push(term);
                continue;
            };
            let is_given = |name: &str| {
                terms
                    .iter()
                    .any(|t| t.key.text == name && t.value.is_some())
            };
            if let Some(parameter) = pmu::open_parameters(&text).find(|name| !is_given(name)) {
                return Err(key.fault(Fault::MissingParameter {
                    parameter: parameter.to_owned(),
                }));
            }
            pmu.put_event(&text, &mut words).map_err(key.unreadable())?;
            measure = Some(pmu.measure(key.text).map_err(key.unreadable())?)
                .filter(|m| *m != Measure::default());
        }
        for term in given {
            let Term { key, value } = *term;
            match (key.text, value) {
                ("config", _) => words[0] = term.number()?,
                ("config1", _) => words[1] = term.number()?,
                ("config2", _) => words[2] = term.number()?,
                ("name", Some(name)) if !name.text.is_empty() => label = Some(name.text.to_owned()),
                _ => match pmu.format(key.text).map_err(key.unreadable())? {
                    Some(format) => {
                        let number = if value.is_none() { 1 } else { term.number()? };
                        if number > format.max() {
                            return Err(term.last().fault(Fault::TooLarge { max: format.max() }));
                        }
                        format.put(&mut words, number);
                    }
                    None => (kind, words[0]) = self.general(pmu, term, terms)?,
                },
            }
        }
        let spelling: Vec<String> = terms.iter().map(Term::spelling).collect();
        let code = Code {
            kind,
            config: words[0],
            config1: words[1],
            config2: words[2],
        };
        let event = plain(&format!("{}/{}/", pmu.name, spelling.join(",")), code);
        Ok(Event {
            label,
            measure: measure.unwrap_or(event.measure),
            ..event
        })
    }

    /// Kind and `config` of a word between slashes that sysfs does not know: `r1a8`, or a core
    /// PMU's `cycles`.
    fn general(
        &self,
        pmu: &Pmu,
        term: &Term<'_>,
        terms: &[Term<'_>],
    ) -> Result<(u32, u64), EventError> {
        let key = term.key;
        if term.value.is_none() {
            if let Some(config) = key.raw()? {
                return Ok((pmu.kind, config));
            }
            let is_alone = terms.iter().filter(|t| t.key.text != "name").count() == 1;
            let symbol = symbol::find(key.text).filter(|s| s.code.kind != abi::PERF_TYPE_SOFTWARE);
            if let (Some(symbol), true, true) = (symbol, is_alone, pmu.is_core()) {
                // Where there are several core PMUs the upper half says which is meant.
                let is_hybrid = self.core_pmus().len() > 1;
                let of_pmu = if is_hybrid {
                    u64::from(pmu.kind) << abi::PERF_PMU_TYPE_SHIFT
                } else {
                    0
                };
                return Ok((symbol.code.kind, symbol.code.config | of_pmu));
            }
        }
        if let Some((_, why)) = REFUSED_TERMS.iter().find(|(name, _)| *name == key.text) {
            return Err(key.fault(Fault::RefusedTerm { why }));
        }
        let (events, formats) = (pmu.events(), pmu.formats());
        let known = events
            .iter()
            .chain(&formats)
            .map(|name| (name.as_str(), name.as_str()));
        let nearest = nearest(key.text, known);
        Err(key.fault(Fault::UnknownTerm {
            pmu: pmu.name.clone(),
            nearest,
            formats,
        }))
    }

    fn unknown(&self, word: Word<'_>) -> EventError {
        if ["duration_time", "user_time", "system_time"].contains(&word.text) {
            return word.fault(Fault::AlwaysMeasured);
        }
        word.fault(Fault::Unknown {
            nearest: self.nearest(word.text),
        })
    }
}

/// Parameters that perf takes, and why they are refused.
const REFUSED_TERMS: &[(&str, &str)] = &[
    ("name", "a name is missing: `name=…`"),
    (
        "period",
        "events are counted, not sampled: there is no period",
    ),
    (
        "freq",
        "events are counted, not sampled: there is no frequency",
    ),
    (
        "call-graph",
        "events are counted, not sampled: there are no stacks",
    ),
    (
        "branch_type",
        "events are counted, not sampled: there are no branch records",
    ),
    ("config3", "not supported"),
    ("percore", "not supported"),
    (
        "inherit",
        "whether children are counted is decided for the whole run",
    ),
    (
        "no-inherit",
        "whether children are counted is decided for the whole run",
    ),
];

fn plain(name: &str, code: Code) -> Event {
    Event::new(name, Modifiers::default(), code)
}

/// Refuses modifiers with which the kernel would count 0 whatever happened.
fn truthful(word: Word<'_>, event: Event) -> Result<Event, EventError> {
    let Modifiers {
        user,
        kernel,
        hypervisor,
        ..
    } = event.modifiers;
    // Of tracepoints it is not certain: a user's own probe may be one of user mode.
    let is_certain = event.code.kind == abi::PERF_TYPE_SOFTWARE;
    if (user || hypervisor) && !kernel && event.is_blind_in_user_mode() && is_certain {
        return Err(word.fault(Fault::AlwaysZero));
    }
    Ok(event)
}

#[cfg(test)]
mod tests;
