//! What a profile of syscalls is, whoever made it: calls, durations, errors, bytes. Pure data: never reads a map or a clock.

use std::collections::BTreeMap;

use syscalls::Sysno;

use super::record::{BUCKETS, ERRNOS};

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The syscalls that were called.
    pub calls: Vec<Call>,
    /// The same calls by whom or on what they were, where that was told apart.
    pub parts: Vec<Part>,
    /// Threads that were followed; `None` where all are.
    pub threads: Option<u64>,
    /// What these threads counted of each event that was to be, in calls and between them.
    pub counts: Option<Vec<u64>>,
    /// What is missing.
    pub missing: Missing,
}

/// What a profile is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each thread.
    Thread,
    /// Each process.
    Process,
    /// Processes by the names of their commands.
    Command,
    /// What the descriptor is of that a call is given first.
    FdType,
}

impl By {
    /// All of them.
    pub const ALL: [By; 4] = [By::Thread, By::Process, By::Command, By::FdType];

    /// Its name, as users and records have it.
    pub fn word(self) -> &'static str {
        match self {
            By::Thread => "thread",
            By::Process => "process",
            By::Command => "command",
            By::FdType => "fd-type",
        }
    }
}

/// The calls of one thread, process or name, or on one type of descriptor.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is.
    pub by: By,
    /// Its place among the others, which it keeps, whatever it is called; 0 is the rest.
    pub place: usize,
    /// Its name; of several threads or processes of one name, those after the first have a number
    /// in the order in which they came: `cc1`, `cc1#2`.
    pub name: String,
    /// The thread's or process's number in the initial namespace.
    pub id: Option<u64>,
    /// The place of a thread's process, where that has one, too.
    pub process: Option<usize>,
    /// Its calls; the errors of them are counted, and not told apart.
    pub calls: Vec<Call>,
}

/// What calls stand under for which there was no room apart.
pub const REST: &str = "other";

/// One slow call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Which.
    pub number: Number,
    /// How long it took, in ns.
    pub took_ns: u64,
    /// When it returned, in ns of the monotonic clock.
    pub end_ns: u64,
    /// By which thread, as the initial namespace numbers it.
    pub tid: u32,
    /// The thread's name.
    pub command: String,
    /// What it was given.
    pub arguments: [u64; 6],
    /// What it returned.
    pub result: i64,
    /// By which process, as our own namespace numbers it.
    pub pid: i32,
    /// Who called it in user space, the innermost first; where code keeps no frame pointers, callers
    /// are missing.
    pub stack: Vec<u64>,
}

/// What a profile lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Threads that could not be followed.
    pub threads: u64,
    /// Calls that were lost.
    pub calls: u64,
    /// Times that a counter could not be read.
    pub counts: u64,
    /// Threads, processes or names whose calls stand among the rest.
    pub parts: u64,
    /// Syscalls of others that do.
    pub rows: u64,
    /// Slow calls that are in the figures, but not told one by one.
    pub slow: u64,
}

/// One syscall.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which.
    pub number: Number,
    /// Calls that have returned; where they are only counted, all.
    pub returned: u64,
    /// Calls that have not, because their thread ended in them.
    pub unfinished: u64,
    /// Calls that had not at the end, each with how long it was under way, in ns.
    pub under_way_ns: Vec<u64>,
    /// How long those that have returned took, where that was measured.
    pub time: Option<Time>,
    /// Those that failed, where that was seen.
    pub failed: Option<u64>,
    /// By errno, where that was told apart.
    pub errors: Option<BTreeMap<u16, u64>>,
    /// The sum of what was returned, errors left out, where that was seen.
    pub returned_sum: Option<u64>,
    /// What was counted in those that have returned, of each event that was to be.
    pub counts: Vec<u64>,
}

/// How long calls took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Time {
    /// All together, in ns.
    pub total_ns: u64,
    /// The longest, in ns; `None` where it is not known.
    pub longest_ns: Option<u64>,
    /// Of the total, off the CPU; `None` where it was not told apart.
    pub off_ns: Option<u64>,
    /// How they were distributed.
    pub histogram: Histogram,
}

impl Time {
    fn since(&self, earlier: &Time) -> Time {
        let mut histogram = self.histogram.clone();
        for (count, before) in histogram.0.iter_mut().zip(earlier.histogram.0) {
            *count = count.saturating_sub(before);
        }
        let new = |now: u64, before: u64| now.saturating_sub(before);
        Time {
            total_ns: new(self.total_ns, earlier.total_ns),
            longest_ns: None,
            off_ns: self
                .off_ns
                .zip(earlier.off_ns)
                .map(|(now, before)| new(now, before)),
            histogram,
        }
    }
}

/// A syscall's number, or that it is none of this architecture's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// By the kernel's table.
    Native(u32),
    /// Of another table: 32-bit programs, x32.
    Foreign,
}

impl Number {
    /// Its name, as the kernel has it.
    pub fn name(self) -> String {
        match self {
            Number::Foreign => "32-bit".to_owned(),
            Number::Native(number) => match Sysno::new(number as usize) {
                // So the kernel, strace and x86-64 call it; the table for arm64 does not.
                Some(known) if known.name() == "fstatat" => "newfstatat".to_owned(),
                Some(known) => known.name().to_owned(),
                None => format!("syscall_{number}"),
            },
        }
    }

    /// The number of the syscall of this name.
    pub fn named(name: &str) -> Option<Number> {
        let known = name.parse::<Sysno>().or_else(|()| match name {
            "newfstatat" => "fstatat".parse(),
            _ => Err(()),
        });
        let known = known.ok()?;
        Some(Number::Native(known.id() as u32))
    }

    /// Whether it gives an interrupted call back what that was to return.
    pub fn is_return(self) -> bool {
        Some(self) == Number::named("rt_sigreturn")
    }

    /// Whether what it returns is a number of bytes moved.
    pub fn moves_bytes(self) -> bool {
        const MOVING: [&str; 26] = [
            "read",
            "write",
            "pread64",
            "pwrite64",
            "readv",
            "writev",
            "preadv",
            "pwritev",
            "preadv2",
            "pwritev2",
            "sendto",
            "recvfrom",
            "sendmsg",
            "recvmsg",
            "sendfile",
            "copy_file_range",
            "splice",
            "tee",
            "vmsplice",
            "getrandom",
            "getdents64",
            "getdents",
            "readlink",
            "readlinkat",
            "process_vm_readv",
            "process_vm_writev",
        ];
        MOVING.contains(&self.name().as_str())
    }
}

impl Profile {
    /// What came since an earlier profile of the same; the longest calls of it are not known.
    pub fn since(&self, earlier: &Profile) -> Profile {
        let parts = self.parts.iter().filter_map(|part| {
            let before = earlier.parts.iter().find(|old| old.place == part.place);
            let calls = since(&part.calls, before.map_or(&[], |old| &old.calls));
            (!calls.is_empty()).then(|| Part {
                calls,
                ..part.clone()
            })
        });
        Profile {
            calls: since(&self.calls, &earlier.calls),
            parts: parts.collect(),
            ..self.clone()
        }
    }
}

fn since(calls: &[Call], earlier: &[Call]) -> Vec<Call> {
    let new = calls.iter().filter_map(|call| {
        let before = earlier.iter().find(|old| old.number == call.number);
        let new = match before {
            Some(before) => call.since(before),
            None => call.clone(),
        };
        (new.returned + new.unfinished > 0).then_some(new)
    });
    new.collect()
}

impl Call {
    fn since(&self, earlier: &Call) -> Call {
        let errors = self.errors.as_ref().map(|errors| {
            let before = |errno| earlier.errors.as_ref()?.get(errno).copied();
            let new = errors.iter().map(|(errno, count)| {
                let before = before(errno).unwrap_or(0);
                (*errno, count.saturating_sub(before))
            });
            new.filter(|(_, count)| *count > 0).collect()
        });
        Call {
            number: self.number,
            returned: self.returned.saturating_sub(earlier.returned),
            unfinished: self.unfinished.saturating_sub(earlier.unfinished),
            under_way_ns: Vec::new(),
            time: self
                .time
                .as_ref()
                .zip(earlier.time.as_ref())
                .map(|(time, before)| time.since(before)),
            failed: self
                .failed
                .map(|failed| failed.saturating_sub(earlier.failed.unwrap_or(0))),
            errors,
            returned_sum: self
                .returned_sum
                .map(|sum| sum.saturating_sub(earlier.returned_sum.unwrap_or(0))),
            counts: (self.counts.iter().zip(&earlier.counts))
                .map(|(now, before)| now.wrapping_sub(*before))
                .collect(),
        }
    }

    /// Calls that were counted, and nothing else known of them.
    pub fn counted(number: Number, calls: u64) -> Call {
        Call {
            number,
            returned: calls,
            unfinished: 0,
            under_way_ns: Vec::new(),
            time: None,
            failed: None,
            errors: None,
            returned_sum: None,
            counts: Vec::new(),
        }
    }

    /// No calls yet, which are to be timed.
    pub fn timed(number: Number) -> Call {
        Call {
            time: Some(Time::default()),
            failed: Some(0),
            errors: Some(BTreeMap::new()),
            returned_sum: number.moves_bytes().then_some(0),
            ..Call::counted(number, 0)
        }
    }

    /// One more call that took so long and returned this.
    pub fn add(&mut self, ns: u64, result: i64) {
        self.returned += 1;
        if let Some(time) = &mut self.time {
            time.total_ns += ns;
            time.longest_ns = time.longest_ns.max(Some(ns));
            time.histogram.add(ns);
        }
        match (u64::try_from(result), u16::try_from(-result)) {
            (Ok(moved), _) => {
                if let Some(sum) = &mut self.returned_sum {
                    *sum += moved;
                }
            }
            // What rt_sigreturn returns is what the interrupted call left.
            (Err(_), Ok(errno)) if usize::from(errno) < ERRNOS && !self.number.is_return() => {
                if let Some(failed) = &mut self.failed {
                    *failed += 1;
                }
                if let Some(errors) = &mut self.errors {
                    *errors.entry(errno).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// All calls, whatever became of them.
    pub fn all(&self) -> u64 {
        self.returned + self.unfinished + self.under_way_ns.len() as u64
    }
}

/// Durations in buckets of an eighth of an octave, from 32 ns to 137 s; the first and the last
/// bucket take what lies outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram([0; BUCKETS])
    }
}

/// The logarithm of where the second octave of buckets begins, less one.
const FIRST_OCTAVE: u32 = 5;

/// Buckets an octave.
const EIGHTHS: usize = 8;

impl Histogram {
    /// How wide a bucket is at most, as a share of what it holds.
    pub const WIDTH: f64 = 1.0 / EIGHTHS as f64;

    /// Counts one more duration.
    pub fn add(&mut self, ns: u64) {
        let octave = ns.checked_ilog2().unwrap_or(0);
        let bucket = match octave.checked_sub(FIRST_OCTAVE) {
            None => 0,
            Some(octave) => {
                let eighth = (ns >> (octave + FIRST_OCTAVE - 3)) as usize % EIGHTHS;
                (octave as usize * EIGHTHS + eighth).min(BUCKETS - 1)
            }
        };
        self.0[bucket] += 1;
    }

    /// From where to where a bucket goes, in ns.
    pub fn bounds_ns(bucket: usize) -> (f64, f64) {
        let bound = |bucket: usize| {
            let octave = 2f64.powi((bucket / EIGHTHS) as i32 + FIRST_OCTAVE as i32);
            octave * (1.0 + (bucket % EIGHTHS) as f64 / EIGHTHS as f64)
        };
        let low = if bucket == 0 { 0.0 } else { bound(bucket) };
        (low, bound(bucket + 1))
    }

    /// All durations counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that a share of `q` does not exceed, in ns: by the place of its rank in its
    /// bucket, so wrong by at most the bucket's width; `None` when there are none.
    pub fn quantile_ns(&self, q: f64) -> Option<f64> {
        // The nearest rank: the least that a share of q does not exceed.
        let rank = (q * self.count() as f64).ceil().max(1.0) as u64;
        let mut before = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            if rank <= before + count {
                let (low, high) = Histogram::bounds_ns(bucket);
                let place = ((rank - before) as f64 - 0.5) / count as f64;
                return Some(low + (high - low) * place);
            }
            before += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_right_within_the_width_of_a_bucket(
            mut all in proptest::collection::vec(32u64..100_000_000_000, 1..200usize),
            q in 0.0..=1.0f64,
        ) {
            let mut histogram = Histogram::default();
            for ns in &all {
                histogram.add(*ns);
            }
            all.sort_unstable();
            let rank = (q * all.len() as f64).ceil().max(1.0) as usize;
            let exact = all[rank - 1] as f64;
            let got = histogram.quantile_ns(q).unwrap();
            prop_assert!((got - exact).abs() <= exact * Histogram::WIDTH, "{got} for {exact}");
        }
    }

    #[test]
    fn every_duration_has_a_bucket() {
        let check = |ns: u64, want: usize| {
            let mut histogram = Histogram::default();
            histogram.add(ns);
            let bucket = histogram.0.iter().position(|count| *count == 1);
            assert_eq!(bucket, Some(want), "{ns}");
            let (low, high) = Histogram::bounds_ns(want);
            let is_in = low <= ns as f64 && (ns as f64) < high;
            assert!(is_in || want == BUCKETS - 1, "{ns} in {low}..{high}");
        };
        check(0, 0);
        check(31, 0);
        check(32, 0);
        check(36, 1);
        check(63, 7);
        check(64, 8);
        check(1 << 36, 248);
        check(u64::MAX, BUCKETS - 1);
        assert_eq!(Histogram::default().quantile_ns(0.5), None);
    }

    #[test]
    fn syscalls_have_the_kernels_names() {
        let write = Number::named("write").unwrap();
        assert_eq!(write.name(), "write");
        assert!(write.moves_bytes());
        assert!(!Number::named("mmap").unwrap().moves_bytes());
        assert_eq!(Number::Native(509).name(), "syscall_509");
        assert_eq!(Number::named("no_such"), None);
    }
}
