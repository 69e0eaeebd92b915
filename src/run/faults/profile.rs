//! Page faults summed up by kind, mode and mapping, by call site and over time, and made into samples. Pure: takes what was told in the order of time, never asks the kernel.

use std::collections::HashMap;
use std::rc::Rc;

use hdrhistogram::Histogram;

use crate::probe::faults::{Access, Fault, Kind, What};
use crate::probe::mappings::{Change, Mapping, Spaces};
use crate::run::least_for;
use crate::run::symbols::Place;
use crate::sample::{Figure, Name, Part, Rule, Value};

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its memory changed.
    Memory(Change),
    /// It faulted.
    Fault(Fault),
}

/// All that was told.
#[derive(Debug, Default)]
pub struct Profile {
    /// The memory of the processes, as it is now.
    pub spaces: Spaces,
    /// Where in time faults were.
    pub timeline: Timeline,
    cells: HashMap<Key, Spread>,
    calls: HashMap<Mapping, Calls>,
    sites: HashMap<Box<[Place]>, Sum>,
}

/// What faults are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    is_user: bool,
    mapping: Mapping,
}

/// How many, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Faults.
    pub faults: u64,
    /// Handler time.
    pub handler_ns: u64,
    /// The part of it in faults that waited for a device, which is no CPU time.
    pub waiting_ns: u64,
}

/// A sum with its distribution, true to a hundredth.
#[derive(Clone, Debug)]
struct Spread {
    sum: Sum,
    longest_ns: u64,
    histogram: Histogram<u32>,
}

/// Calls that made pages at once.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    calls: u64,
    pages: u64,
    ns: u64,
}

/// Faults over time, in bins that grow with the run.
#[derive(Clone, Debug)]
pub struct Timeline {
    began_ns: u64,
    bin_ns: u64,
    bins: Vec<Sum>,
}

/// So many bins at most; then two each become one.
const MOST_BINS: usize = 512;

impl Profile {
    /// Takes what happened next.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Memory(change) => self.spaces.take(change),
            Event::Fault(fault) => match fault.what {
                What::Access(access) => self.fault(&fault, access),
                What::Call { pages } => {
                    let space = self.spaces.of(fault.pid);
                    let area = space.find(fault.address);
                    let mapping = area.map_or(Mapping::Unknown, |area| area.mapping.clone());
                    let calls = self.calls.entry(mapping).or_default();
                    calls.calls += 1;
                    calls.pages += u64::from(pages);
                    calls.ns += fault.handler_ns;
                }
            },
        }
    }

    fn fault(&mut self, fault: &Fault, access: Access) {
        let space = self.spaces.of(fault.pid);
        if access.is_near_stack {
            space.is_thread_stack(fault.address);
        }
        let area = space.find(fault.address);
        let key = Key {
            kind: Kind::of(&access, area),
            is_user: access.is_user,
            mapping: area.map_or(Mapping::Unknown, |area| area.mapping.clone()),
        };
        if !fault.stack.is_empty() {
            let stack = fault.stack.iter().enumerate();
            let places = stack.map(|(depth, &ip)| Place::in_stack(space, depth, ip));
            let places: Box<[Place]> = places.collect();
            let site = self.sites.entry(places).or_default();
            site.add(fault.handler_ns, access.is_major);
        }
        self.timeline.add(fault, access.is_major);
        let cell = self.cells.entry(key).or_default();
        cell.add(fault.handler_ns, access.is_major);
    }

    /// Whether a fault of process `pid` at `address` fell into memory of which a later look could
    /// tell more.
    pub fn is_unnamed(&mut self, pid: i32, address: u64) -> bool {
        let area = self.spaces.of(pid).find(address);
        area.is_none_or(|area| area.mapping == Mapping::Anonymous)
    }

    /// All faults.
    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.cells.values().for_each(|cell| total.merge(cell.sum));
        total
    }

    /// The call sites, those that took longest first.
    pub fn sites(&self) -> Vec<(&[Place], Sum)> {
        let mut sites: Vec<(&[Place], Sum)> = self
            .sites
            .iter()
            .map(|(places, sum)| (&places[..], *sum))
            .collect();
        sites.sort_by(|a, b| b.1.handler_ns.cmp(&a.1.handler_ns).then(a.0.cmp(b.0)));
        sites
    }

    /// What was told as samples' names and figures: faults by kind, mapping and mode, by kind and
    /// mode, and by mapping, each sum under a name of its own; then the calls that made pages.
    /// `share_of_sec` is the CPU time that shares are of.
    pub fn measures(&self, trust: &Trust, share_of_sec: Option<f64>) -> Vec<Measure> {
        let mut kinds: HashMap<(Kind, bool), Spread> = HashMap::new();
        let mut mappings: HashMap<String, Spread> = HashMap::new();
        let mut finest: HashMap<(Kind, bool, String), Spread> = HashMap::new();
        for (key, cell) in &self.cells {
            let mapping = key.mapping.to_string();
            kinds
                .entry((key.kind, key.is_user))
                .or_default()
                .merge(cell);
            mappings.entry(mapping.clone()).or_default().merge(cell);
            finest
                .entry((key.kind, key.is_user, mapping))
                .or_default()
                .merge(cell);
        }
        let mode = |is_user: bool| if is_user { "user" } else { "kernel" };
        let by_kind = kinds.into_iter().map(|((kind, is_user), spread)| {
            let name = Name::new("FaultKind").with("kind", kind.word());
            (name.with("mode", mode(is_user)), spread)
        });
        let by_mapping = mappings
            .into_iter()
            .map(|(mapping, spread)| (Name::new("FaultMapping").with("mapping", mapping), spread));
        let by_all = finest
            .into_iter()
            .map(|((kind, is_user, mapping), spread)| {
                let name = Name::new("Fault").with("kind", kind.word());
                (
                    name.with("mapping", mapping).with("mode", mode(is_user)),
                    spread,
                )
            });
        let mut measures = Vec::new();
        for mut group in [
            by_kind.collect::<Vec<_>>(),
            by_mapping.collect(),
            by_all.collect(),
        ] {
            group.sort_by(|a, b| {
                b.1.sum
                    .handler_ns
                    .cmp(&a.1.sum.handler_ns)
                    .then(a.0.cmp(&b.0))
            });
            measures.extend(group.into_iter().map(|(name, spread)| Measure {
                name,
                iterations: spread.sum.faults,
                values: spread.values(trust, share_of_sec),
            }));
        }
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by(|a, b| b.1.ns.cmp(&a.1.ns).then(a.0.cmp(b.0)));
        measures.extend(calls.into_iter().map(|(mapping, calls)| Measure {
            name: Name::new("Populate").with("mapping", mapping),
            iterations: calls.calls,
            values: calls.values(trust, share_of_sec),
        }));
        measures
    }
}

/// One benchmark's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Its name.
    pub name: Name,
    /// How often it happened.
    pub iterations: u64,
    /// The figures.
    pub values: Vec<Value>,
}

/// How far the figures are to be trusted: what is not seen of the faults, and what a handler time
/// holds beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The part of the faults that is seen, if it is not all.
    pub faults: Option<Rc<str>>,
    /// The same for times.
    pub times: Option<Rc<str>>,
}

impl Trust {
    fn figure(part: Option<&Rc<str>>, value: f64) -> Figure {
        match part {
            None => Figure::Exact(value),
            Some(part) => Figure::Partial {
                value,
                part: Part(part.to_string()),
            },
        }
    }

    /// A number of faults.
    pub fn count(&self, unit: &str, value: u64) -> Value {
        Value::new(unit, Trust::figure(self.faults.as_ref(), value as f64))
    }

    /// Something made of times.
    pub fn time(&self, unit: &str, value: f64) -> Value {
        Value::new(unit, Trust::figure(self.times.as_ref(), value))
    }

    /// A percentile of times, by buckets.
    fn percentile(&self, unit: &str, value: f64) -> Value {
        match self.times {
            Some(_) => self.time(unit, value),
            None => {
                let rule = Rule("within 1 %".to_owned());
                Value::new(unit, Figure::Estimated { value, rule })
            }
        }
    }
}

impl Sum {
    fn add(&mut self, handler_ns: u64, is_major: bool) {
        self.merge(Sum {
            faults: 1,
            handler_ns,
            waiting_ns: if is_major { handler_ns } else { 0 },
        });
    }

    /// Takes another sum in.
    pub fn merge(&mut self, other: Sum) {
        self.faults += other.faults;
        self.handler_ns += other.handler_ns;
        self.waiting_ns += other.waiting_ns;
    }

    /// Count, total, mean and share.
    pub fn values(&self, trust: &Trust, share_of_sec: Option<f64>) -> Vec<Value> {
        let total_sec = self.handler_ns as f64 / 1e9;
        let mut values = vec![
            trust.count("faults", self.faults),
            trust.time("handler-sec", total_sec),
            trust.time("sec/op", total_sec / self.faults.max(1) as f64),
        ];
        let busy_sec = (self.handler_ns - self.waiting_ns) as f64 / 1e9;
        let share = share_of_sec.filter(|&whole_sec| whole_sec > 0.0);
        values.extend(
            share.map(|whole_sec| match self.waiting_ns == self.handler_ns {
                true if self.faults > 0 => Value::new(
                    "CPU-share",
                    Figure::absent("waiting for a device is no CPU time"),
                ),
                _ => trust.time("CPU-share", busy_sec / whole_sec),
            }),
        );
        values
    }
}

impl Default for Spread {
    fn default() -> Spread {
        Spread {
            sum: Sum::default(),
            longest_ns: 0,
            // The bounds are constant and legal, so there is always a histogram.
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 2)
                .unwrap_or_else(|_| unreachable!()),
        }
    }
}

impl Spread {
    fn add(&mut self, handler_ns: u64, is_major: bool) {
        self.sum.add(handler_ns, is_major);
        self.longest_ns = self.longest_ns.max(handler_ns);
        self.histogram.saturating_record(handler_ns);
    }

    fn merge(&mut self, other: &Spread) {
        self.sum.merge(other.sum);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        // Equal bounds and digits: it always fits.
        let _ = self.histogram.add(&other.histogram);
    }

    fn values(&self, trust: &Trust, share_of_sec: Option<f64>) -> Vec<Value> {
        let mut values = self.sum.values(trust, share_of_sec);
        for (unit, quantile) in [("p50-sec", 0.5), ("p90-sec", 0.9), ("p99-sec", 0.99)] {
            let needed = least_for(quantile);
            values.push(match self.sum.faults >= needed {
                true => {
                    let sec = self.histogram.value_at_quantile(quantile) as f64 / 1e9;
                    trust.percentile(unit, sec)
                }
                false => Value::new(unit, Figure::absent(format!("it takes {needed} faults"))),
            });
        }
        values.push(trust.time("max-sec", self.longest_ns as f64 / 1e9));
        values
    }
}

impl Calls {
    fn values(&self, trust: &Trust, share_of_sec: Option<f64>) -> Vec<Value> {
        let total_sec = self.ns as f64 / 1e9;
        let mut values = vec![
            trust.count("calls", self.calls),
            trust.count("pages", self.pages),
            trust.time("call-sec", total_sec),
            trust.time("sec/op", total_sec / self.calls.max(1) as f64),
        ];
        let share = share_of_sec.filter(|&whole_sec| whole_sec > 0.0);
        values.extend(share.map(|whole_sec| trust.time("CPU-share", total_sec / whole_sec)));
        values
    }
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline {
            began_ns: 0,
            bin_ns: 100_000,
            bins: Vec::new(),
        }
    }
}

impl Timeline {
    /// It begins now, at `began_ns`, with nothing.
    pub fn begin(&mut self, began_ns: u64) {
        *self = Timeline {
            began_ns,
            ..Timeline::default()
        };
    }

    fn add(&mut self, fault: &Fault, is_major: bool) {
        let since_ns = fault.end_ns.saturating_sub(self.began_ns);
        while since_ns / self.bin_ns >= MOST_BINS as u64 {
            self.bin_ns *= 2;
            let merged = self.bins.chunks(2).map(|pair| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|other| sum.merge(*other));
                sum
            });
            self.bins = merged.collect();
        }
        let at = (since_ns / self.bin_ns) as usize;
        if self.bins.len() <= at {
            self.bins.resize(at + 1, Sum::default());
        }
        self.bins[at].add(fault.handler_ns, is_major);
    }

    /// The run up to `end_ns` in at most `count` parts of equal length: what was in each, and how
    /// long one is.
    pub fn parts(&self, end_ns: u64, count: usize) -> (Vec<Sum>, u64) {
        let whole_ns = end_ns.saturating_sub(self.began_ns).max(self.bin_ns);
        let bins = (whole_ns.div_ceil(self.bin_ns) as usize).max(self.bins.len());
        let each = bins.div_ceil(count.max(1)).max(1);
        let parts = (0..bins.div_ceil(each)).map(|part| {
            let mut sum = Sum::default();
            let own = self.bins.iter().skip(part * each).take(each);
            own.for_each(|bin| sum.merge(*bin));
            sum
        });
        (parts.collect(), each as u64 * self.bin_ns)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::probe::faults::Insight;
    use crate::probe::mappings::Area;

    const PID: i32 = 7;

    fn area(start: u64, end: u64, name: &str) -> Event {
        Event::Memory(Change::Mapped(
            PID,
            Area {
                start,
                end,
                offset: 0,
                is_writable: true,
                is_shared: false,
                mapping: Mapping::of(OsStr::new(name), start),
            },
        ))
    }

    fn fault(at_ns: u64, address: u64, handler_ns: u64) -> Fault {
        Fault {
            end_ns: at_ns,
            address,
            handler_ns,
            pid: PID,
            what: What::Access(Access {
                is_user: true,
                insight: Insight::Whole {
                    page: true,
                    huge: false,
                    is_present: false,
                    is_write: true,
                },
                ..Access::default()
            }),
            stack: Vec::new(),
        }
    }

    fn number(measures: &[Measure], name: &str, unit: &str) -> f64 {
        let measure = measures.iter().find(|m| m.name.to_string() == name);
        let values = &measure
            .unwrap_or_else(|| panic!("{name}: {measures:#?}"))
            .values;
        let value = values.iter().find(|value| value.unit.as_str() == unit);
        value.unwrap().figure.number().unwrap()
    }

    #[test]
    fn faults_are_summed_up_by_what_they_are() {
        let mut profile = Profile::default();
        profile.take(area(0x1000, 0x3000, "[heap]"));
        profile.take(area(0x4000, 0x6000, "//anon"));
        for at in 0..3 {
            profile.take(Event::Fault(fault(at, 0x1000, 1000)));
        }
        let mut waited = fault(3, 0x1000, 70_000);
        let What::Access(access) = &mut waited.what else {
            unreachable!()
        };
        access.is_major = true;
        profile.take(Event::Fault(waited));
        let mut near = fault(3, 0x4000, 500);
        let What::Access(access) = &mut near.what else {
            unreachable!()
        };
        access.is_near_stack = true;
        profile.take(Event::Fault(near));
        profile.take(Event::Fault(fault(4, 0x5000, 500)));
        profile.take(Event::Fault(Fault {
            what: What::Call { pages: 512 },
            ..fault(5, 0x1000, 9000)
        }));
        let total = profile.total();
        assert_eq!((total.faults, total.handler_ns), (6, 74_000));
        assert_eq!(total.waiting_ns, 70_000);
        let measures = profile.measures(&Trust::default(), Some(1e-5));
        let check = |name: &str, unit: &str, want: f64| {
            let got = number(&measures, name, unit);
            assert!((got - want).abs() <= 1e-9 * want, "{name} {unit}: {got}");
        };
        check("FaultKind/kind=anonymous/mode=user", "faults", 5.0);
        check("FaultKind/kind=anonymous/mode=user", "CPU-share", 0.4);
        check("FaultMapping/mapping=heap", "CPU-share", 0.3);
        check("FaultMapping/mapping=thread-stack", "faults", 2.0);
        let heap = "Fault/kind=anonymous/mapping=heap/mode=user";
        check(heap, "handler-sec", 3e-6);
        check(heap, "sec/op", 1e-6);
        check("Populate/mapping=heap", "pages", 512.0);
        check("Populate/mapping=heap", "call-sec", 9e-6);
        assert_eq!(measures[0].iterations, 1, "the major one took longest");
    }

    #[test]
    fn a_long_run_has_no_more_bins_than_a_short_one() {
        let mut profile = Profile::default();
        profile.timeline.begin(1000);
        for second in 0..100 {
            let at_ns = 1000 + second * 1_000_000_000;
            profile.timeline.add(&fault(at_ns, 0, 10), false);
        }
        let (parts, each_ns) = profile.timeline.parts(1000 + 100_000_000_000, 10);
        let faults: u64 = parts.iter().map(|part| part.faults).sum();
        assert_eq!(faults, 100);
        assert!(parts.len() <= 10, "{}", parts.len());
        assert!(each_ns >= 10_000_000_000, "{each_ns}");
        assert!(parts[0].faults > 0 && parts[parts.len() - 1].faults > 0);
        let (parts, _) = Profile::default().timeline.parts(0, 10);
        assert_eq!(parts, [Sum::default()]);
    }
}
