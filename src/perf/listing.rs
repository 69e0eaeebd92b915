//! Lists of events: what the machine names, what a pattern picks from it, what a misspelt word may have meant. Never opens an event: what is listed may still refuse to count.

use super::catalog::Catalog;
use super::pmu::{self, Pmu};
use super::symbol::{self, Symbol};
use super::tracefs::{self, TracefsError};
use std::fmt;

/// An event as it stands in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it comes from.
    pub kind: Kind,
    /// Its canonical spelling.
    pub name: String,
    /// Other spellings of it.
    pub aliases: Vec<String>,
    /// Parameters that it cannot do without.
    pub parameters: Vec<String>,
}

/// Where a listed event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The generalised hardware events.
    Hardware,
    /// The kernel's own counts.
    Software,
    /// The generalised cache events.
    Cache,
    /// The named events of one PMU.
    Pmu(String),
    /// The kernel's tracepoints.
    Tracepoint,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Hardware => "hardware",
            Kind::Software => "software",
            Kind::Cache => "cache",
            Kind::Pmu(name) => return write!(f, "PMU {name}"),
            Kind::Tracepoint => "tracepoint",
        })
    }
}

/// What [`Catalog::list`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The events in the order of [`Kind`].
    pub events: Vec<Listed>,
    /// How many tracepoints match; without a pattern they are only counted. Else why they cannot
    /// be looked up.
    pub tracepoints: Result<usize, TracefsError>,
}

impl Catalog {
    /// The events that the machine names, whether or not they can be counted.
    ///
    /// `pattern` is as in `perf list`: one of the words `hw`, `sw`, `cache`, `pmu` and
    /// `tracepoint`, or a part of a name in any case of letters, in which `*` and `?` stand for
    /// any letters and any one. A pattern with a colon must match the whole name. Without a
    /// pattern all events but tracepoints are listed.
    pub fn list(&self, pattern: Option<&str>) -> Listing {
        let mut events = self.named_events();
        let mut tracepoints = tracefs::all(&self.tracing).map(tracepoint_events);
        if let Some(pattern) = pattern.map(Pattern::new) {
            events.retain(|event| pattern.matches(event));
            if let Ok(tracepoints) = &mut tracepoints {
                tracepoints.retain(|event| pattern.matches(event));
                events.extend_from_slice(tracepoints);
            }
        }
        Listing {
            events,
            tracepoints: tracepoints.map(|tracepoints| tracepoints.len()),
        }
    }

    /// The names of all sources that are most like `word`.
    pub(super) fn nearest(&self, word: &str) -> Vec<String> {
        let mut known = self.named_events();
        known.extend(tracefs::all(&self.tracing).map_or(Vec::new(), tracepoint_events));
        let names = known.iter().flat_map(|event| {
            // A PMU's event or a tracepoint may be meant by its bare name.
            let bare = event.name.trim_end_matches('/').rsplit(['/', ':']).next();
            let aliases = event.aliases.iter().map(String::as_str);
            let names = aliases.chain([event.name.as_str()]).chain(bare);
            names.map(|name| (name, event.name.as_str()))
        });
        nearest(word, names)
    }

    /// All events but tracepoints.
    fn named_events(&self) -> Vec<Listed> {
        let symbols = |kind: Kind, symbols: Vec<Symbol>| {
            symbols.into_iter().map(move |mut symbol| Listed {
                kind: kind.clone(),
                name: symbol.names.remove(0),
                aliases: symbol.names,
                parameters: Vec::new(),
            })
        };
        let mut events: Vec<Listed> = symbols(Kind::Hardware, symbol::hardware().collect())
            .chain(symbols(Kind::Software, symbol::software().collect()))
            .chain(symbols(Kind::Cache, symbol::caches().collect()))
            .collect();
        let pmus = Pmu::all(&self.pmus);
        let cores = pmus.iter().filter(|pmu| pmu.is_core()).count();
        for pmu in &pmus {
            for event in pmu.events() {
                let text = pmu.event(&event).ok().flatten().unwrap_or_default();
                // As `Catalog::parse` understands bare words.
                let is_bare = cores == 1 && pmu.is_core() && symbol::find(&event).is_none();
                events.push(Listed {
                    kind: Kind::Pmu(pmu.name.clone()),
                    name: format!("{}/{event}/", pmu.name),
                    parameters: pmu::open_parameters(&text).map(str::to_owned).collect(),
                    aliases: if is_bare { vec![event] } else { Vec::new() },
                });
            }
        }
        events
    }
}

fn tracepoint_events(names: Vec<String>) -> Vec<Listed> {
    let listed = |name| Listed {
        kind: Kind::Tracepoint,
        name,
        aliases: Vec::new(),
        parameters: Vec::new(),
    };
    names.into_iter().map(listed).collect()
}

/// At most three names that are most like `word`, the best first: of pairs (what to compare with,
/// what to name).
pub(super) fn nearest<'a>(
    word: &str,
    known: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    /// Likeness (0–1) that is worth a guess, and how far behind the best one may lie.
    const ENOUGH: f64 = 0.84;
    const BEHIND: f64 = 0.06;
    /// Longer than any name that might have been meant; likeness takes time.
    const TOO_LONG: usize = 200;
    if word.len() > TOO_LONG {
        return Vec::new();
    }
    let word = word.to_lowercase();
    let mut likely: Vec<(f64, &str)> = known
        .map(|(name, shown)| (strsim::jaro_winkler(&word, &name.to_lowercase()), shown))
        .filter(|&(likeness, _)| likeness >= ENOUGH)
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = likely.first().map_or(0.0, |first| first.0);
    let mut names: Vec<String> = Vec::new();
    for (_, shown) in likely
        .into_iter()
        .take_while(|(likeness, _)| *likeness >= best - BEHIND)
    {
        if names.len() < 3 && names.iter().all(|name| name != shown) {
            names.push(shown.to_owned());
        }
    }
    names
}

/// What [`Catalog::list`] is asked for.
enum Pattern {
    Kind(fn(&Kind) -> bool),
    Glob(Vec<char>),
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        match text {
            "hw" | "hardware" => Pattern::Kind(|kind| *kind == Kind::Hardware),
            "sw" | "software" => Pattern::Kind(|kind| *kind == Kind::Software),
            "cache" | "hwcache" => Pattern::Kind(|kind| *kind == Kind::Cache),
            "pmu" => Pattern::Kind(|kind| matches!(kind, Kind::Pmu(_))),
            "tracepoint" => Pattern::Kind(|kind| *kind == Kind::Tracepoint),
            _ if text.contains(':') => Pattern::Glob(text.to_lowercase().chars().collect()),
            _ => Pattern::Glob(format!("*{}*", text.to_lowercase()).chars().collect()),
        }
    }

    fn matches(&self, listed: &Listed) -> bool {
        match self {
            Pattern::Kind(is) => is(&listed.kind),
            Pattern::Glob(glob) => {
                let mut names = std::iter::once(&listed.name).chain(&listed.aliases);
                names.any(|name| glob_matches(glob, name))
            }
        }
    }
}

/// Whether the whole of `name`, in any case of letters, is what `glob` (in lower case) describes.
fn glob_matches(glob: &[char], name: &str) -> bool {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let (mut at, mut from) = (0, 0);
    // Where to go on after the last `*` when it has to take one more letter.
    let mut again = None;
    while from < name.len() {
        match glob.get(at) {
            Some('*') => {
                again = Some((at, from));
                at += 1;
            }
            Some(&c) if c == '?' || c == name[from] => {
                at += 1;
                from += 1;
            }
            _ => match again {
                Some((star, taken)) => {
                    again = Some((star, taken + 1));
                    (at, from) = (star + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::fake;

    fn names(listing: &Listing) -> Vec<&str> {
        listing
            .events
            .iter()
            .map(|event| event.name.as_str())
            .collect()
    }

    #[test]
    fn patterns_pick_as_perf_list_does() {
        let (_dir, catalog) = fake::machine();
        let check = |pattern, want: &[&str]| {
            assert_eq!(names(&catalog.list(Some(pattern))), want, "{pattern}");
        };
        check(
            "faults",
            &[
                "page-faults",
                "minor-faults",
                "major-faults",
                "alignment-faults",
                "emulation-faults",
            ],
        );
        check("MSR", &["msr/tsc/"]);
        check("cs", &["context-switches"]);
        check(
            "l?c*-miss",
            &["LLC-load-misses", "LLC-store-misses", "LLC-prefetch-misses"],
        );
        check(
            "sched:*",
            &[
                "sched:sched_odd",
                "sched:sched_switch",
                "sched:sched_wakeup",
            ],
        );
        check("sched:sched", &[]);
        check("*:*WRITE", &["syscalls:sys_enter_write"]);
        check(
            "switch",
            &["context-switches", "cgroup-switches", "sched:sched_switch"],
        );
        check("no such", &[]);
    }

    #[test]
    fn kinds_can_be_asked_for() {
        let (_dir, catalog) = fake::machine();
        let check = |pattern, count| {
            assert_eq!(catalog.list(Some(pattern)).events.len(), count, "{pattern}")
        };
        check("hw", 10);
        check("sw", 12);
        check("cache", 2 * (3 + 2 + 3 + 3 + 1 + 1 + 3));
        check("pmu", 7);
        check("tracepoint", 4);
    }

    #[test]
    fn without_a_pattern_tracepoints_are_counted_only() {
        let (_dir, catalog) = fake::machine();
        let listing = catalog.list(None);
        assert_eq!(listing.tracepoints, Ok(4));
        assert!(
            listing
                .events
                .iter()
                .all(|event| event.kind != Kind::Tracepoint)
        );
        assert_eq!(catalog.list(Some("wakeup")).tracepoints, Ok(1));
        let (dir, catalog) = fake::hybrid();
        let root = dir.path().join("tracing");
        assert_eq!(
            catalog.list(None).tracepoints,
            Err(TracefsError::NotMounted { root })
        );
    }

    #[test]
    fn listed_names_are_what_parse_understands() {
        for (_dir, catalog) in [fake::machine(), fake::hybrid()] {
            for listed in catalog.list(None).events {
                if !listed.parameters.is_empty() || listed.name == "cpu/garbled/" {
                    continue;
                }
                for name in listed.aliases.iter().chain([&listed.name]) {
                    let groups = catalog
                        .parse(name)
                        .unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert_eq!(groups[0].events[0].spelling(), listed.name, "{name}");
                }
            }
        }
    }

    #[test]
    fn open_parameters_are_marked() {
        let (_dir, catalog) = fake::machine();
        let listing = catalog.list(Some("PM_CYC"));
        assert_eq!(listing.events[0].parameters, ["core"]);
    }

    #[test]
    fn globs() {
        let check = |glob: &str, name, want| {
            let glob: Vec<char> = glob.chars().collect();
            assert_eq!(glob_matches(&glob, name), want, "{glob:?} {name}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("a*b*c", "aXbXbXc", true);
        check("a*b*c", "aXbXbX", false);
        check("a?c", "ABC", true);
        check("a?c", "ac", false);
        check("**a**", "xay", true);
    }
}
