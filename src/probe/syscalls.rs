//! The profiler of syscalls by programs in the kernel: what followed threads call, how long it takes and what comes of it. Never starts what it follows, never writes text.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapData, RingBuf};

mod parts;

use super::Error;
use super::classes;
use super::kernel::Types;
use super::object::{Object, Parameters, embedded, possible_cpus};
use super::profile::{By, Call, Histogram, Missing, Number, Profile, Slow, Time};
use super::record::{
    self, BUCKETS, BY_THREAD_OF_PROCESS, CONTROL_WORDS, Control, ERRNOS, EVENTS, FD_TYPES,
    FIRST_BUCKET, FOREIGN, PLACE_WORDS, PLACES, Purpose, ROW_WORDS, ROWS, Row, SLOW_COMMAND,
    SLOW_FRAMES, THREAD_WORDS, THREADS, Thread, load, store,
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
    /// What calls are counted apart by, too.
    pub by: Option<By>,
    /// With [`By::Thread`]: by process, too.
    pub processes: bool,
    /// How many events are counted in calls, [`EVENTS`] at most; by what is said by
    /// [`Profiler::count_on`].
    pub events: usize,
}

/// A loaded profiler.
pub struct Profiler {
    object: Object,
    options: Options,
    cpus: usize,
    control: SharedWords,
    threads: SharedWords,
    rows: SharedWords,
    /// Rows a CPU.
    room: usize,
    errors: SharedWords,
    counts: SharedWords,
    whole: SharedWords,
    cells: SharedWords,
    places: SharedWords,
    slow_calls: RingBuf<MapData>,
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
    /// What it counted meanwhile, of each event.
    pub counts: [f64; EVENTS],
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
        let (room, places) = match options.by {
            None => (ROWS, 1),
            Some(_) => (
                ROWS.max(PLACED_BYTES / (cpus * ROW_WORDS * 8)) + ROWS,
                PLACES,
            ),
        };
        let (tallies, counted, counters) = match options.events {
            0 => (1, 1, 1),
            _ => (THREADS, cpus * room, cpus),
        };
        let mut constants = options.constants();
        constants.push(("cells_a_cpu", (room as u32).to_ne_bytes().to_vec()));
        let mut parameters = Parameters {
            constants,
            entries: vec![
                ("rows", (cpus * room) as u32),
                ("tallies", tallies as u32),
                ("counts", counted as u32),
                ("cells", places as u32),
                ("places", places as u32),
                ("known", places as u32),
                (
                    "slow_calls",
                    options.slow_ns.map_or(4096, |_| SLOW_RING_BYTES),
                ),
            ],
        };
        let of_cpus = COUNTERS.into_iter().chain(["whole"]);
        let of_cpus = of_cpus.map(|name| (name, counters as u32));
        parameters.entries.extend(of_cpus);
        let mut object = Object::load(bytes, types, &parameters)?;
        for (program, tracepoint) in options.followers().iter().chain(options.watchers()) {
            object.prepare(program, tracepoint)?;
        }
        Ok(Profiler {
            cpus,
            control: object.words("control", CONTROL_WORDS)?,
            threads: object.words("threads", THREADS * THREAD_WORDS)?,
            rows: object.words("rows", cpus * room * ROW_WORDS)?,
            room,
            counts: object.words("counts", counted * EVENTS)?,
            whole: object.words("whole", counters * EVENTS)?,
            cells: object.words("cells", places * ROWS)?,
            places: object.words("places", places * PLACE_WORDS)?,
            errors: object.words("errors", ROWS * ERRNOS)?,
            slow_calls: object.ring("slow_calls")?,
            object,
            options,
        })
    }

    /// Has the counters of one CPU, which others may read there, count in calls; in the order of the
    /// events. Without those of a CPU nothing is counted there.
    pub fn count_on<'f>(
        &mut self,
        cpu: u32,
        counters: impl Iterator<Item = BorrowedFd<'f>>,
    ) -> Result<(), Error> {
        for (map, counter) in COUNTERS.into_iter().zip(counters) {
            self.object.hold(map, cpu, counter)?;
        }
        Ok(())
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
        let none = BTreeMap::new();
        let recorded = Number::named(NULL).and_then(|number| match number {
            Number::Native(row) => self.call(row as usize, &self.all_cells(row as usize), &none),
            Number::Foreign => None,
        });
        let mut counts = [0.0; EVENTS];
        if let Some(call) = &recorded {
            for (mean, count) in counts.iter_mut().zip(&call.counts) {
                *mean = *count as f64 / call.returned.max(1) as f64;
            }
        }
        let recorded_ns = recorded.and_then(|call| call.time?.histogram.quantile_ns(0.5));
        self.clear();
        Ok(Tare {
            untraced_ns,
            bystander_ns,
            traced_ns,
            recorded_ns,
            counts,
        })
    }

    /// Forgets all calls so far.
    pub fn clear(&mut self) {
        self.take_slow();
        // Rows that no place has taken are as they were made.
        let taken = ROWS + load(&self.control, Control::Cells as usize) as usize;
        let keys = (0..self.cpus * self.room).filter(|key| key % self.room < taken);
        let of = |table, words| move |key| entry(table, key, words);
        let rows = keys.clone().flat_map(of(&self.rows, ROW_WORDS));
        let counts = keys.flat_map(of(&self.counts, EVENTS));
        let tables = [&self.errors, &self.whole].into_iter();
        let tables = tables.flat_map(|table| table.iter());
        for word in rows.chain(counts).chain(tables) {
            // Writing has the memory of rows that nobody uses made.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        for field in [
            Control::Followed,
            Control::Collisions,
            Control::Lost,
            Control::Untold,
            Control::FirstNs,
            Control::Uncounted,
        ] {
            store(&self.control, field as usize, 0);
        }
    }

    /// The slow calls that were told since this was last asked, where they are wanted.
    pub fn take_slow(&mut self) -> Vec<Slow> {
        let mut slow = Vec::new();
        while let Some(record) = self.slow_calls.next() {
            slow.extend(slow_call(&record));
        }
        slow
    }

    /// All that was seen so far.
    pub fn read(&mut self) -> Profile {
        let under_way = self.under_way();
        let calls = self.wanted().filter_map(|row| {
            let call = self.call(row, &self.all_cells(row), &under_way)?;
            let errors = match call.failed {
                Some(_) if !call.number.is_return() => self.errors(row),
                Some(_) => BTreeMap::new(),
                None => return Some(call),
            };
            Some(Call {
                failed: Some(errors.values().sum()),
                errors: Some(errors),
                ..call
            })
        });
        let told = |field: Control| load(&self.control, field as usize);
        let beyond = |wanted: u64, room: usize| wanted.saturating_sub(room as u64);
        Profile {
            calls: calls.collect(),
            parts: self.parts(&under_way),
            threads: (!self.options.everyone).then(|| told(Control::Followed)),
            counts: (!self.options.everyone).then(|| self.whole()),
            missing: Missing {
                threads: told(Control::Collisions),
                calls: told(Control::Lost),
                counts: told(Control::Uncounted),
                slow: told(Control::Untold),
                parts: beyond(told(Control::Places), PLACES - 1),
                rows: beyond(told(Control::Cells), self.room - ROWS),
            },
        }
    }

    /// What followed threads counted, in calls and between them.
    fn whole(&self) -> Vec<u64> {
        let counted = |event| self.whole.iter().skip(event).step_by(EVENTS);
        let sum = |event| {
            let words = counted(event);
            words.map(|word| word.load(Ordering::Relaxed)).sum()
        };
        (0..self.options.events).map(sum).collect()
    }

    /// The rows of the syscalls that are looked at.
    fn wanted(&self) -> impl Iterator<Item = usize> {
        (0..ROWS).filter(|row| {
            let only = self.options.only.as_ref();
            only.is_none_or(|only| only.contains(&number_of(*row)))
        })
    }

    /// The row that a place has for a syscall on every CPU, if it has one of its own.
    fn cell(&self, place: usize, row: usize) -> Option<usize> {
        let cell = load(&self.cells, place * ROWS + row).checked_sub(1)? as usize;
        (cell >= ROWS).then_some(cell)
    }

    /// All rows of a syscall, that of the rest first.
    fn all_cells(&self, row: usize) -> Vec<usize> {
        let own = (1..self.places_taken()).filter_map(|place| self.cell(place, row));
        [row].into_iter().chain(own).collect()
    }

    /// How many places are in use, the rest included.
    fn places_taken(&self) -> usize {
        match self.options.by {
            None => 1,
            Some(By::FdType) => FD_TYPES.len(),
            Some(_) => PLACES.min(load(&self.control, Control::Places as usize) as usize + 1),
        }
    }

    /// The calls of a syscall in these rows, summed over all CPUs; `None` when there are none.
    fn call(
        &self,
        row: usize,
        cells: &[usize],
        under_way: &BTreeMap<usize, Vec<u64>>,
    ) -> Option<Call> {
        let keys = || {
            let all = (0..self.cpus).flat_map(|cpu| cells.iter().map(move |cell| (cpu, cell)));
            all.map(|(cpu, cell)| cpu * self.room + cell)
        };
        let each = || keys().map(|key| key * ROW_WORDS);
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
        let under_way = cells.iter().filter_map(|cell| under_way.get(cell));
        let mut call = Call {
            unfinished: field(Row::Unfinished).sum(),
            under_way_ns: under_way.flatten().copied().collect(),
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
            call.failed = Some(match number.is_return() {
                // What it returns is what the interrupted call left.
                true => 0,
                false => field(Row::Failed).sum(),
            });
            call.returned_sum = number.moves_bytes().then(|| field(Row::Bytes).sum());
            let counted = |event| keys().map(move |key| load(&self.counts, key * EVENTS + event));
            let counts = (0..self.options.events).map(|event| counted(event).sum());
            call.counts = counts.collect();
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

    /// The calls that threads are in, by the row that they count in, each with how long it has been.
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
                let (row, place) = (word(Thread::Row) as usize, word(Thread::Place) as usize);
                let cell = self.cell(place, row).unwrap_or(row);
                let calls = found.entry(cell).or_default();
                calls.push(now.saturating_sub(start_ns));
            }
        }
        found
    }
}

impl Options {
    /// The programs that follow threads, and their tracepoints.
    fn followers(&self) -> Vec<(&'static str, &'static str)> {
        let mut programs = vec![("on_exit", "sched_process_exit")];
        // Who follows everyone needs only to hear of ends.
        if !self.everyone {
            programs.push(("on_fork", "sched_process_fork"));
            programs.push(("on_exec", "sched_process_exec"));
        }
        if self.by.is_some_and(|by| by != By::FdType) {
            programs.push(("on_rename", "task_rename"));
        }
        programs
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
        // The call of the tare is looked at in any case.
        let wanted = self.only.iter().flatten().copied();
        let wanted = bits(wanted.chain(Number::named(NULL)));
        let by = match self.by {
            None => 0u32,
            Some(By::Thread) if self.processes => BY_THREAD_OF_PROCESS,
            Some(by) => by as u32 + 1,
        };
        vec![
            ("everyone", flag(self.everyone)),
            ("slow_ns", self.slow_ns.unwrap_or(0).to_ne_bytes().to_vec()),
            ("is_filtered", flag(self.only.is_some())),
            ("wanted", wanted),
            ("events", (self.events as u32).to_ne_bytes().to_vec()),
            ("by", by.to_ne_bytes().to_vec()),
            ("takes_fd", bits(classes::given_descriptors())),
        ]
    }
}

/// The words of the entry `key` of a table; none where it has none.
fn entry(table: &SharedWords, key: usize, words: usize) -> &[AtomicU64] {
    let from = key * words;
    table.get(from..from + words).unwrap_or_default()
}

/// A bit each, as the programs have them.
fn bits(numbers: impl Iterator<Item = Number>) -> Vec<u8> {
    let mut bits = [0u64; ROWS / 64];
    for number in numbers {
        let row = match number {
            Number::Native(number) => number as usize,
            Number::Foreign => FOREIGN,
        };
        if let Some(word) = bits.get_mut(row / 64) {
            *word |= 1 << (row % 64);
        }
    }
    bits.into_iter().flat_map(u64::to_ne_bytes).collect()
}

/// The tables of counters, one an event.
const COUNTERS: [&str; EVENTS] = ["counters_0", "counters_1", "counters_2", "counters_3"];

/// What rows of places may take in all.
const PLACED_BYTES: usize = 32 << 20;

/// Some ten thousand slow calls.
const SLOW_RING_BYTES: u32 = 1 << 22;

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
    let command = record.get(SLOW_COMMAND..record::Slow::Pid as usize * 8)?;
    let command = command.split(|byte| *byte == 0).next()?;
    let frames = field(record::Slow::Frames)? as usize;
    let stack = (0..frames.min(SLOW_FRAMES)).map(|n| word(record::Slow::Stack as usize + n));
    Some(Slow {
        number: number_of(field(record::Slow::Row)? as usize),
        took_ns: field(record::Slow::TookNs)?,
        end_ns: field(record::Slow::EndNs)?,
        tid: field(record::Slow::Tid)? as u32,
        command: String::from_utf8_lossy(command).into_owned(),
        arguments,
        result: field(record::Slow::Result)? as i64,
        pid: field(record::Slow::Pid)? as i32,
        stack: stack.collect::<Option<_>>()?,
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
            assert_eq!(call("getppid").failed, Some(0));
        }
    }
}
