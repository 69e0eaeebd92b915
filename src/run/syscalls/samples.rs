//! What was seen of syscalls, as records: which values they have and how far each is to be trusted. Never looks at anything itself.

use nix::errno::Errno;

use super::Observation;
use crate::probe::Rung;
use crate::probe::profile::{By, Call, Histogram, Part, REST, Time};
use crate::probe::record::EVENTS;
use crate::probe::syscalls::Tare;
use crate::run::command::cpu_values;
use crate::run::duty::SLICE;
use crate::run::{exact, least_for};
use crate::sample::{Figure, Name, Order, Rule, Sample, Value, Warning};

/// The name of the sample that is about the whole run.
pub const WHOLE: &str = "Syscalls";

/// The name of the samples that are about one syscall each.
pub const EACH: &str = "Syscall";

impl Observation {
    /// The records of it: one sample for the whole, and one for each syscall, the most time first;
    /// then the same of each part, where calls were told apart.
    pub fn samples(&self, variant: &str) -> Vec<Sample> {
        let whole = (Name::new(WHOLE), 1, self.whole());
        let each = |calls, part: Option<&Part>| -> Vec<(Name, u64, Vec<Value>)> {
            let named = dearest(calls).into_iter().map(|call| {
                let mut name = Name::new(EACH).with("name", call.number.name());
                if let Some(part) = part {
                    name = name.with(part.by.word(), &part.name);
                }
                (name, call.all(), self.values(call))
            });
            named.collect()
        };
        let all = each(&self.profile.calls, None).into_iter();
        let parts = self.profile.parts.iter();
        let of_parts = parts.flat_map(|part| each(&part.calls, Some(part)));
        let samples = [whole].into_iter().chain(all).chain(of_parts).zip(0..);
        let samples = samples.map(|((benchmark, iterations, values), sequence)| Sample {
            benchmark,
            variant: variant.to_owned(),
            iterations,
            order: Order {
                sequence,
                ..Order::default()
            },
            config: [("rung".to_owned(), self.rung.word().to_owned())].into(),
            values: self.extrapolated(values, sequence == 0),
            warnings: if sequence == 0 {
                self.doubts()
            } else {
                Vec::new()
            },
        });
        samples.collect()
    }

    /// The same values for the whole of which slices were seen; `is_whole` are those of the run,
    /// whose length is known.
    fn extrapolated(&self, values: Vec<Value>, is_whole: bool) -> Vec<Value> {
        let Some(sampling) = &self.sampling else {
            return values;
        };
        let sampled = |value, period_sec| Figure::Sampled { value, period_sec };
        let period_sec = sampling.period_sec;
        let values = values.into_iter().map(|Value { unit, figure }| {
            let name = unit.as_str();
            let is_sum = ["calls", "total-sec", "off-CPU-sec", "errors"].contains(&name)
                || name.starts_with("errors:");
            let is_mean = !is_whole && PER_CALL.contains(&name);
            let figure = match figure {
                Figure::Exact(value) if is_sum => sampled(value * sampling.scale, period_sec),
                Figure::Exact(value) if is_mean => sampled(value, period_sec),
                other => other,
            };
            Value { unit, figure }
        });
        values.collect()
    }

    /// The values of the whole run.
    fn whole(&self) -> Vec<Value> {
        let calls = &self.profile.calls;
        let mut values = vec![exact("sec/op", self.wall.as_secs_f64())];
        if let Some((usage, tick_sec)) = &self.usage {
            values.extend(cpu_values(usage, *tick_sec));
        }
        let all: u64 = calls.iter().map(Call::all).sum();
        values.push(exact("calls", all as f64));
        let failed: Option<u64> = calls.iter().map(|call| call.failed).sum();
        values.extend(failed.map(|failed| exact("errors", failed as f64)));
        let times: Option<Vec<&Time>> = calls.iter().map(|call| call.time.as_ref()).collect();
        if let Some(times) = times.filter(|times| !times.is_empty()) {
            let total_ns: u64 = times.iter().map(|time| time.total_ns).sum();
            values.push(self.timed("total-sec", seconds(total_ns)));
            let off_ns: Option<u64> = times.iter().map(|time| time.off_ns).sum();
            values.extend(off_ns.map(|off_ns| exact("off-CPU-sec", seconds(off_ns))));
        }
        if let Some(threads) = self.profile.threads {
            values.push(exact("threads", threads as f64));
        }
        if let Some(counted) = &self.counted {
            if let Some(counts) = &self.profile.counts {
                values.extend(counted.each(counts, 1));
            }
            let sum = |event: usize| calls.iter().filter_map(|call| call.counts.get(event)).sum();
            let sums: Vec<u64> = (0..EVENTS).map(sum).collect();
            values.extend(counted.in_all(&sums));
            if let Some(tare) = &self.tare {
                let null = counted.null(&tare.counts).into_iter();
                values.extend(null.map(|(unit, count)| exact(&unit, count)));
            }
        }
        if let Some(tare) = &self.tare {
            values.extend(tare_values(tare, all));
        }
        if let Some(sampling) = &self.sampling {
            values.push(exact("traced-sec", sampling.traced_sec));
            let bounds = sampling
                .calls
                .map(|(low, high)| [("low", low), ("high", high)]);
            let bounds = bounds.into_iter().flatten();
            values.extend(bounds.map(|(name, bound)| {
                estimated(
                    &format!("calls-{name}"),
                    bound,
                    "95 % interval of the bootstrap",
                )
            }));
        }
        values
    }

    fn values(&self, call: &Call) -> Vec<Value> {
        let mut values = vec![exact("calls", call.all() as f64)];
        let unfinished = call.unfinished + call.under_way_ns.len() as u64;
        if unfinished > 0 {
            values.push(exact("unfinished-calls", unfinished as f64));
        }
        if let Some(time) = &call.time
            && call.returned > 0
        {
            values.extend(self.times(call.returned, time));
        }
        if let Some(counted) = &self.counted
            && call.returned > 0
        {
            values.extend(counted.each(&call.counts, call.returned));
            values.extend(counted.in_all(&call.counts));
        }
        if let Some(sum) = call.returned_sum
            && call.returned > 0
        {
            values.push(exact("bytes/op", sum as f64 / call.returned as f64));
        }
        values.extend(call.failed.map(|failed| exact("errors", failed as f64)));
        if let Some(errors) = &call.errors {
            values.extend(errors.iter().map(|(errno, count)| {
                exact(&format!("errors:{}", errno_name(*errno)), *count as f64)
            }));
        }
        values
    }

    fn times(&self, returned: u64, time: &Time) -> Vec<Value> {
        let mean_sec = seconds(time.total_ns) / returned as f64;
        let mut values = vec![
            self.timed("total-sec", seconds(time.total_ns)),
            self.timed("sec/op", mean_sec),
        ];
        if let Some(off_ns) = time.off_ns {
            values.push(exact("off-CPU-sec", seconds(off_ns)));
        }
        if let Some(surplus_ns) = self.tare.as_ref().and_then(Tare::surplus_ns) {
            // Below nothing there is only noise.
            let value = (mean_sec - surplus_ns / 1e9).max(0.0);
            values.push(estimated(
                "untraced-sec/op",
                value,
                "less what tracing adds to a call that does nothing",
            ));
        }
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        values.extend(quantiles.into_iter().filter_map(|(name, q)| {
            let unit = format!("{name}-sec");
            let needed = least_for(q);
            if returned < needed {
                let why = format!("it takes {needed} calls");
                return Some(Value::new(&unit, Figure::absent(why)));
            }
            let ns = time.histogram.quantile_ns(q)?;
            // The longest is known, whatever its bucket.
            let longest_ns = time.longest_ns.map_or(f64::INFINITY, |ns| ns as f64);
            let value = ns.min(longest_ns) / 1e9;
            let mut rule = format!("within {} %", Histogram::WIDTH * 100.0);
            if self.rung == Rung::Ptrace {
                rule = format!("{rule}, {DISTURBED}");
            }
            Some(estimated(&unit, value, &rule))
        }));
        let longest = time.longest_ns.map(seconds);
        values.extend(longest.map(|longest| self.timed("max-sec", longest)));
        values
    }

    /// A time that was taken.
    fn timed(&self, unit: &str, value: f64) -> Value {
        match self.rung {
            Rung::Ptrace => estimated(unit, value, DISTURBED),
            _ => exact(unit, value),
        }
    }

    /// What is doubtful of the whole.
    fn doubts(&self) -> Vec<Warning> {
        let missing = &self.profile.missing;
        let mut doubts = self.warnings.clone();
        if missing.threads > 0 {
            doubts.push(Warning(format!(
                "{} threads are missing: their places in the table were taken",
                missing.threads
            )));
        }
        if missing.calls > 0 {
            doubts.push(Warning(format!("{} calls are missing", missing.calls)));
        }
        if missing.counts > 0 {
            doubts.push(Warning(format!(
                "{} times a counter could not be read: what is counted in calls is not right",
                missing.counts
            )));
        }
        let absent = self.counted.iter().flat_map(|counted| &counted.absent);
        doubts.extend(absent.map(|(unit, cause)| Warning(format!("no {unit}: {cause}"))));
        let parts = &self.profile.parts;
        let is_nested = parts.iter().any(|part| part.process.is_some());
        let word = match parts.first() {
            _ if is_nested => By::Thread.word(),
            Some(part) => part.by.word(),
            None => "part",
        };
        let elsewhere = match is_nested {
            true => format!("their processes, or `{REST}`"),
            false => format!("`{REST}`"),
        };
        for (beyond, what) in [
            (missing.parts, format!("a {word} of its own")),
            (missing.rows, format!("a syscall of a {word}")),
        ] {
            if beyond > 0 {
                let cure = match word {
                    "command" => "",
                    _ => "; --by command takes less",
                };
                doubts.push(Warning(format!(
                    "{beyond} times there was no room for {what}: such calls stand under {elsewhere}{cure}"
                )));
            }
        }
        if missing.slow > 0 {
            doubts.push(Warning(format!(
                "{} slow calls are not told one by one; a larger --slow tells all",
                missing.slow
            )));
        }
        if let Some(sampling) = &self.sampling {
            doubts.push(Warning(match sampling.slices {
                0 => "it ended before the first slice: nothing was traced".to_owned(),
                slices => format!(
                    "seen in {slices} slices of {} ms, {:.1} % of the time, and extrapolated; calls that take longer than a slice are not seen",
                    SLICE.as_millis(),
                    sampling.traced_sec / self.wall.as_secs_f64() * 100.0
                ),
            }));
        }
        if self.wants_slow && self.rung != Rung::Programs {
            doubts.push(Warning(
                "slow calls are told by programs in the kernel alone".to_owned(),
            ));
        }
        let blind = match self.rung {
            Rung::Programs => None,
            Rung::Counters => Some("counters of the kernel's see no times, errors and bytes"),
            Rung::Ptrace => Some(
                "ptrace stops the program twice a call: times are disturbed, and set-user-ID programs run without privilege",
            ),
        };
        doubts.extend(blind.map(|text| Warning(text.to_owned())));
        doubts.extend(self.missed.iter().map(|(rung, cause)| rung.missed(cause)));
        doubts
    }
}

/// The calls that took the most time first, or else those of which there were most.
fn dearest(calls: &[Call]) -> Vec<&Call> {
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| {
        let total_ns = call.time.as_ref().map_or(0, |time| time.total_ns);
        std::cmp::Reverse((total_ns, call.all()))
    });
    calls
}

/// Values that are the same of a sample and of the whole.
const PER_CALL: [&str; 3] = ["sec/op", "max-sec", "bytes/op"];

/// What is to be known of times by ptrace.
const DISTURBED: &str = "while ptrace stops the program twice a call";

/// What tracing costs, and cost in a run of so many calls.
fn tare_values(tare: &Tare, calls: u64) -> Vec<Value> {
    let mut values = vec![
        exact("null-untraced-sec", tare.untraced_ns / 1e9),
        exact("null-bystander-sec", tare.bystander_ns / 1e9),
        exact("null-traced-sec", tare.traced_ns / 1e9),
    ];
    values.extend(
        tare.recorded_ns
            .map(|ns| exact("null-recorded-sec", ns / 1e9)),
    );
    let added_ns = (tare.traced_ns - tare.untraced_ns).max(0.0);
    values.push(estimated(
        "tracing-sec",
        added_ns * calls as f64 / 1e9,
        "what tracing adds to a call that does nothing, times the calls",
    ));
    values
}

/// The name of an errno, those included that no program sees.
pub fn errno_name(errno: u16) -> String {
    match errno {
        512 => "ERESTARTSYS".to_owned(),
        513 => "ERESTARTNOINTR".to_owned(),
        514 => "ERESTARTNOHAND".to_owned(),
        515 => "ENOIOCTLCMD".to_owned(),
        516 => "ERESTART_RESTARTBLOCK".to_owned(),
        _ => match Errno::from_raw(errno.into()) {
            Errno::UnknownErrno => format!("errno_{errno}"),
            known => format!("{known:?}"),
        },
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn estimated(unit: &str, value: f64, rule: &str) -> Value {
    let rule = Rule(rule.to_owned());
    Value::new(unit, Figure::Estimated { value, rule })
}
