//! The profiler of syscalls by programs in the kernel: what followed threads call, how long it takes and what comes of it. Never starts what it follows, never writes text.

use std::collections::BTreeMap;
use std::path::Path;

use aya::maps::{MapData, RingBuf};

use super::Error;
use super::kernel::Types;
use super::object::{Object, Parameters, embedded, possible_cpus};
use super::profile::{Call, Histogram, Missing, Number, Profile, Slow, Time};
use super::record::{
    self, BUCKETS, CONTROL_WORDS, Control, ERRNOS, FIRST_BUCKET, FOREIGN, Purpose, ROW_WORDS, ROWS,
    Row, SLOW_BYTES, SLOW_COMMAND, THREAD_WORDS, THREADS, Thread, load, store,
};
use crate::sys::clock::{monotonic_ns, thread_cpu_ns};
use crate::sys::shared::SharedWords;

/// What is looked at. What is not is not compiled in, and costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Calls are counted and nothing else: no times, no errors, no bytes.
    pub count_only: bool,
    /// All threads of the machine but our own.
    pub everyone: bool,
    /// These syscalls alone.
    pub only: Option<Vec<Number>>,
    /// Calls that take at least so many ns are told one by one.
    pub slow_ns: Option<u64>,
}

/// A loaded profiler.
pub struct Profiler {
    object: Object,
    options: Options,
    cpus: usize,
    control: SharedWords,
    threads: SharedWords,
    rows: SharedWords,
    errors: SharedWords,
    slow_calls: RingBuf<MapData>,
    slow: Vec<Slow>,
}

/// What tracing costs, measured on calls that do nothing. All in ns of CPU time a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tare {
    /// Untraced.
    pub untraced_ns: f64,
    /// While others are traced.
    pub bystander_ns: f64,
    /// Traced.
    pub traced_ns: f64,
    /// What the trace itself says that it took: between its two timestamps.
    pub recorded_ns: Option<f64>,
}

impl Tare {
    /// How much longer a call is by the trace's own timestamps than it is untraced.
    pub fn surplus_ns(&self) -> Option<f64> {
        Some(self.recorded_ns? - self.untraced_ns)
    }
}

impl Profiler {
    /// Loads the programs for `options`; `sys` is the root of sysfs. Nothing is attached yet.
    pub fn load(sys: &Path, options: Options) -> Result<Profiler, Error> {
        let bytes = embedded!("syscalls.bpf.o");
        let types = Types::read(sys, bytes)?;
        let cpus = possible_cpus(sys);
        let parameters = Parameters {
            constants: options.constants(),
            entries: vec![
                ("rows", (cpus * ROWS) as u32),
                (
                    "slow_calls",
                    options.slow_ns.map_or(4096, |_| SLOW_RING_BYTES),
                ),
            ],
        };
        let mut object = Object::load(bytes, types, &parameters)?;
        for (program, tracepoint) in options.followers().iter().chain(options.watchers()) {
            object.prepare(program, tracepoint)?;
        }
        Ok(Profiler {
            cpus,
            control: object.words("control", CONTROL_WORDS)?,
            threads: object.words("threads", THREADS * THREAD_WORDS)?,
            rows: object.words("rows", cpus * ROWS * ROW_WORDS)?,
            errors: object.words("errors", ROWS * ERRNOS)?,
            slow_calls: object.ring("slow_calls")?,
            slow: Vec::new(),
            object,
            options,
        })
    }

    /// Attaches the programs: from now on every call on the machine costs a little more.
    pub fn attach(&mut self) -> Result<(), Error> {
        // Who follows comes before what is followed.
        for (program, _) in self.options.followers() {
            self.object.attach(program)?;
        }
        self.resume()
    }

    /// Detaches those that a syscall meets, so that none costs more than untraced; threads are
    /// followed on. Calls that are under way are seen no more.
    pub fn pause(&mut self) {
        self.object.detach_to(self.options.followers().len());
        for thread in self.threads.chunks_exact(THREAD_WORDS) {
            if load(thread, Thread::StartNs as usize) != 0 {
                store(thread, Thread::StartNs as usize, 0);
            }
        }
    }

    /// Attaches them again.
    pub fn resume(&mut self) -> Result<(), Error> {
        for (program, _) in self.options.watchers() {
            self.object.attach(program)?;
        }
        Ok(())
    }

    /// Detaches them; what was seen stays.
    pub fn detach(&mut self) {
        self.object.detach();
    }

    /// Has a process or thread (as our own namespace names it) followed, or no longer.
    pub fn follow(&mut self, pid: i32, purpose: Purpose) -> Result<(), Error> {
        store(&self.control, Control::Wanted as usize, pid as u64);
        store(&self.control, Control::Purpose as usize, purpose as u64);
        self.object.iterate_tasks("on_task")
    }

    /// How many threads were followed so far.
    pub fn followed(&self) -> u64 {
        load(&self.control, Control::Followed as usize)
    }

    /// Measures what tracing costs by calls of this thread, while the programs are attached and
    /// none is followed yet but everyone, and forgets these calls. From then on we are left out.
    pub fn tare(&mut self, untraced_ns: f64) -> Result<Tare, Error> {
        let (us, me) = (std::process::id() as i32, nix::unistd::gettid().as_raw());
        let (traced_ns, bystander_ns);
        if self.options.everyone {
            traced_ns = null_call_ns();
            self.follow(us, Purpose::PassOver)?;
            bystander_ns = null_call_ns();
        } else {
            bystander_ns = null_call_ns();
            self.follow(me, Purpose::Thread)?;
            traced_ns = null_call_ns();
            self.follow(us, Purpose::Forget)?;
        }
        let recorded = Number::named(NULL).and_then(|number| match number {
            Number::Native(row) => self.call(row as usize, None),
            Number::Foreign => None,
        });
        let recorded_ns = recorded.and_then(|call| call.time?.histogram.quantile_ns(0.5));
        self.clear();
        Ok(Tare {
            untraced_ns,
            bystander_ns,
            traced_ns,
            recorded_ns,
        })
    }

    /// Forgets all calls so far.
    pub fn clear(&mut self) {
        while self.slow_calls.next().is_some() {}
        for word in self.rows.iter().chain(self.errors.iter()) {
            // Writing has the memory of rows that nobody uses made.
            if word.load(std::sync::atomic::Ordering::Relaxed) != 0 {
                word.store(0, std::sync::atomic::Ordering::Relaxed);
            }
        }
        for field in [
            Control::Followed,
            Control::Collisions,
            Control::Lost,
            Control::Untold,
            Control::FirstNs,
        ] {
            store(&self.control, field as usize, 0);
        }
    }

    /// All that was seen so far.
    pub fn read(&mut self) -> Profile {
        while let Some(record) = self.slow_calls.next() {
            self.slow.extend(slow_call(&record));
        }
        self.slow
            .sort_by_key(|call| std::cmp::Reverse(call.took_ns));
        let mut under_way = self.under_way();
        let is_wanted = |call: &Call| {
            let only = self.options.only.as_ref();
            only.is_none_or(|only| only.contains(&call.number))
        };
        let calls = (0..ROWS)
            .filter_map(|row| self.call(row, under_way.remove(&row)))
            .filter(is_wanted);
        let told = |field: Control| load(&self.control, field as usize);
        Profile {
            calls: calls.collect(),
            threads: (!self.options.everyone).then(|| told(Control::Followed)),
            slow: self.slow.clone(),
            missing: Missing {
                threads: told(Control::Collisions),
                calls: told(Control::Lost),
                slow: told(Control::Untold),
            },
        }
    }

    /// One row, summed over all CPUs; `None` when nobody called it.
    fn call(&self, row: usize, under_way: Option<Vec<u64>>) -> Option<Call> {
        let each = || (0..self.cpus).map(move |cpu| (cpu * ROWS + row) * ROW_WORDS);
        let field = |field: Row| each().map(move |at| load(&self.rows, at + field as usize));
        let mut histogram = Histogram::default();
        for at in each() {
            // Whoever was called has a total or a count.
            if load(&self.rows, at + Row::TotalNs as usize) > 0 {
                for (bucket, sum) in histogram.0.iter_mut().enumerate().take(BUCKETS) {
                    *sum += load(&self.rows, at + FIRST_BUCKET + bucket);
                }
            }
        }
        let number = number_of(row);
        let mut call = Call {
            unfinished: field(Row::Unfinished).sum(),
            under_way_ns: under_way.unwrap_or_default(),
            ..Call::counted(number, field(Row::Calls).sum())
        };
        if !self.options.count_only {
            call.returned = histogram.count();
            call.time = Some(Time {
                total_ns: field(Row::TotalNs).sum(),
                longest_ns: field(Row::LongestNs).max(),
                off_ns: Some(field(Row::OffNs).sum()),
                histogram,
            });
            call.errors = Some(match number.is_return() {
                // What it returns is what the interrupted call left.
                true => BTreeMap::new(),
                false => self.errors(row),
            });
            call.returned_sum = number.moves_bytes().then(|| field(Row::Bytes).sum());
        }
        (call.all() > 0).then_some(call)
    }

    fn errors(&self, row: usize) -> BTreeMap<u16, u64> {
        let counts = (0..ERRNOS).map(|errno| {
            let count = load(&self.errors, row * ERRNOS + errno);
            (errno as u16, count)
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The calls that threads are in, by row, each with how long it has been.
    fn under_way(&self) -> BTreeMap<usize, Vec<u64>> {
        let mut found: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        if self.options.count_only {
            return found;
        }
        let now = monotonic_ns();
        for thread in self.threads.chunks_exact(THREAD_WORDS) {
            let word = |field: Thread| load(thread, field as usize);
            let start_ns = word(Thread::StartNs);
            if word(Thread::Regs) != 0 && start_ns != 0 {
                let row = found.entry(word(Thread::Row) as usize).or_default();
                row.push(now.saturating_sub(start_ns));
            }
        }
        found
    }
}

impl Options {
    /// The programs that follow threads, and their tracepoints.
    fn followers(&self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 3] = [
            ("on_exit", "sched_process_exit"),
            ("on_fork", "sched_process_fork"),
            ("on_exec", "sched_process_exec"),
        ];
        // Who follows everyone needs only to hear of ends.
        if self.everyone { &ALL[..1] } else { &ALL }
    }

    /// The programs that syscalls meet, and their tracepoints, in the order of attaching.
    fn watchers(&self) -> &'static [(&'static str, &'static str)] {
        match self.count_only {
            true => &[("count", "sys_enter")],
            false => &[
                ("on_switch", "sched_switch"),
                ("finish", "sys_exit"),
                ("enter", "sys_enter"),
            ],
        }
    }

    fn constants(&self) -> Vec<(&'static str, Vec<u8>)> {
        let flag = |set: bool| vec![u8::from(set)];
        let mut bits = [0u64; ROWS / 64];
        // The call of the tare is looked at in any case.
        for number in self.only.iter().flatten().chain(&Number::named(NULL)) {
            let row = match number {
                Number::Native(number) => *number as usize,
                Number::Foreign => FOREIGN,
            };
            if let Some(word) = bits.get_mut(row / 64) {
                *word |= 1 << (row % 64);
            }
        }
        vec![
            ("everyone", flag(self.everyone)),
            ("off_cpu", flag(!self.count_only)),
            ("slow_ns", self.slow_ns.unwrap_or(0).to_ne_bytes().to_vec()),
            ("is_filtered", flag(self.only.is_some())),
            (
                "wanted",
                bits.into_iter().flat_map(u64::to_ne_bytes).collect(),
            ),
        ]
    }
}

/// Some ten thousand slow calls.
const SLOW_RING_BYTES: u32 = 1 << 20;

/// What a record of the ring tells; `None` when it is too short.
fn slow_call(record: &[u8]) -> Option<Slow> {
    let word = |at: usize| {
        let bytes = record.get(at * 8..at * 8 + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    let field = |field: record::Slow| word(field as usize);
    let mut arguments = [0; 6];
    for (n, argument) in arguments.iter_mut().enumerate() {
        *argument = word(record::Slow::Arguments as usize + n)?;
    }
    let command = record.get(SLOW_COMMAND..SLOW_BYTES)?;
    let command = command.split(|byte| *byte == 0).next()?;
    Some(Slow {
        number: number_of(field(record::Slow::Row)? as usize),
        took_ns: field(record::Slow::TookNs)?,
        end_ns: field(record::Slow::EndNs)?,
        tid: field(record::Slow::Tid)? as u32,
        command: String::from_utf8_lossy(command).into_owned(),
        arguments,
        result: field(record::Slow::Result)? as i64,
    })
}

/// The syscall of a row.
fn number_of(row: usize) -> Number {
    match row {
        FOREIGN => Number::Foreign,
        row => Number::Native(row as u32),
    }
}

/// A call that does nothing.
const NULL: &str = "getppid";

/// What a call that does nothing takes on this thread as things are, in ns: the median of some
/// batches.
pub fn null_call_ns() -> f64 {
    const BATCHES: usize = 9;
    const CALLS: u32 = 400;
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            // CPU time, for others may take the CPU meanwhile.
            let began_ns = thread_cpu_ns().unwrap_or(0);
            for _ in 0..CALLS {
                std::hint::black_box(nix::unistd::getppid());
            }
            let took_ns = thread_cpu_ns().unwrap_or(0).saturating_sub(began_ns);
            took_ns as f64 / f64::from(CALLS)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "what is not run is said")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::probe::kernel::Facts;

    #[test]
    fn calls_of_a_thread_are_counted_to_the_call() {
        let sys = Path::new("/sys");
        if let Some(obstacle) = Facts::look(sys).obstacle() {
            eprintln!("not run: calls_of_a_thread_are_counted_to_the_call: {obstacle}");
            return;
        }
        for count_only in [false, true] {
            let options = Options {
                count_only,
                ..Options::default()
            };
            let mut profiler = Profiler::load(sys, options).unwrap();
            profiler.attach().unwrap();
            let tare = profiler.tare(null_call_ns()).unwrap();
            // How they compare depends on who else traces at this moment.
            assert!(tare.traced_ns > 0.0 && tare.untraced_ns > 0.0, "{tare:?}");
            assert_eq!(tare.recorded_ns.is_none(), count_only);
            assert_eq!(profiler.read().calls, []);
            let me = nix::unistd::gettid().as_raw();
            profiler.follow(me, Purpose::Thread).unwrap();
            let began = Instant::now();
            for _ in 0..1234 {
                nix::unistd::getppid();
            }
            let took = began.elapsed().as_nanos() as u64;
            profiler.follow(me, Purpose::Forget).unwrap();
            profiler.detach();
            nix::unistd::getppid();
            let profile = profiler.read();
            let call = |name| {
                let number = Number::named(name);
                let mut calls = profile.calls.iter();
                calls.find(|call| Some(call.number) == number).unwrap()
            };
            assert_eq!(call("getppid").all(), 1234);
            assert_eq!(profile.missing, Missing::default());
            let Some(time) = &call("getppid").time else {
                assert!(count_only);
                continue;
            };
            assert!(
                time.total_ns < took && time.longest_ns < Some(took),
                "{time:?}"
            );
            assert_eq!(call("getppid").failed(), Some(0));
        }
    }
}
