//! # counterpoise: how the house is built
//!
//! `poise` measures what programs cost on Linux and says how far to trust every number. This page
//! is for whoever carries the work on; the README is for users.
//!
//! ## One idea
//!
//! Everything the program measures becomes a stream of **records**, and everything it says is
//! computed from records. The runner writes them, formats carry them, statistics read them. Data
//! never flows back.
//!
//! ```text
//! options ──▶ perf::plan ──▶ run ──▶ Record ──▶ format::Writer ──▶ file
//!                                      │            file ──▶ format::Reader ──┐
//!                                      └──────────▶ report::summary ◀─────────┘
//!                                                        │ stats
//!                                                        ▼
//!                                                   report::text …
//! ```
//!
//! Shown and not recorded are the drawn histogram of `bench --latency`, whose percentiles are
//! values and which goes into an HDR log on request, and of `syscalls` the histogram and the
//! slowest single calls, and of `faults` the drawing over time.
//!
//! ## Words
//!
//! Used everywhere, and for nothing else.
//!
//! | word | meaning |
//! |---|---|
//! | workload | what is run: a command, a built-in loop, a process that runs already |
//! | variant | one of the things compared on the same workload; `base` when nothing is compared |
//! | benchmark | a workload's name plus its `/key=value` parameters: [`sample::Name`] |
//! | sample | one observation of one benchmark in one variant: one process run; for a loop, one fresh process with a small and a large batch |
//! | value | one number of a sample: a unit, a figure in base units, and how far to trust it |
//! | unit | a value's name and dimension in one, as the Go benchmark format has it: `sec/op`, `cycles:u/op`, `peak-RSS-bytes`. An event keeps its modifier: `cycles` and `cycles:u` are two units |
//! | event | what perf counts, spelled as `perf list` spells it |
//! | reading | the kernel's own truth about one event: count, time enabled, time running; never pre-scaled |
//! | group | perf events that are scheduled on the PMU together |
//! | turn | in [`perf::plan`], one group of hardware events that fits the PMU, counted in every so-manieth run; in [`run::schedule`], one run that is due |
//! | round | one pass over all workloads, in a drawn order |
//! | series | the values of one unit of one benchmark, in time order |
//! | record | one element of our stream; but a [`perf::record::PerfRecord`] is a `PERF_RECORD_*` of the kernel's, taken from a ring buffer, and never called a sample |
//! | overflow | an event's count went past its period, which leaves a `PerfRecord`: what others call a sample |
//! | hold | the state in which the machine is pinned and locked by us: [`machine::hold`] |
//! | journal | the file with the machine's old settings, written before the first one is changed |
//! | keeper | the small process that puts the old settings back when we die |
//! | probe | programs of ours in the kernel: [`probe`] |
//! | follow | to look at a thread, and at what it creates, from some moment on |
//! | rung | on which of several ways a profile stands, the best that machine and user allow: [`probe::Rung`] |
//! | profile | what was seen of all syscalls: [`probe::profile::Profile`] |
//! | bystander | who is not followed while somebody is, and pays for it |
//! | tare | what measuring itself costs, and its subtraction |
//! | noise | what the rest of the machine did meanwhile |
//!
//! ## Trust is part of every value
//!
//! [`sample::Figure`] is the number and its label in one: nobody can take the number without
//! meeting the label.
//!
//! | label | meaning |
//! |---|---|
//! | exact | counted or timed the whole time it was enabled |
//! | scaled | multiplexed and extrapolated; the share of time that it ran travels with it |
//! | partial | counted only in part (one core type, without children); the part is named |
//! | sampled | estimated by looking once every so often (the scheduler's tick, slices of a trace); the period travels with it |
//! | estimated | computed by a rule that is named (a percentile by buckets, a cost less its tare) |
//! | absent | could not be counted, and why: not a number, and never a zero |
//!
//! The runner avoids *scaled*: when the wanted events do not fit the PMU at once and a benchmark is
//! repeated, [`perf::plan`] deals them into turns and each value stays exact. *Sampled* is there
//! because the kernel's split of CPU time into user and system is a guess made once a tick: for a
//! command of two milliseconds it is all or nothing, and calling that exact would be a lie.
//!
//! ## Floors
//!
//! A module imports only from floors below its own; a test walks the imports.
//!
//! ```text
//! 0  words      unit  sample
//! 1  kernel     sys                     the only hand-written unsafe
//! 2  devices    perf  machine  probe
//!    knowledge  format  query  stats    (no kernel: Read, Write, &[f64])
//! 3  work       run  compare  doctor
//! 4  use        report  bisect
//! 5  door       cli  main.rs            the sole printer, the sole exit code
//! ```
//!
//! ## Invariants, absences included
//!
//! - `perf`, `machine` and `probe` never import each other; `run` and `doctor` join them. `format`
//!   never imports `stats`.
//! - Only [`probe`] loads programs into the kernel, and nothing of it is pinned: whatever ends us
//!   detaches and unloads them.
//! - Nothing but [`machine::hold`] writes under `/sys`, cgroups included, and only what its journal
//!   tells how to give back. Processes enter its cgroup by a file that it has opened.
//! - `unsafe` stands in [`sys`] alone, with its reason at every block.
//! - No capability is ever made inheritable or ambient, but for the moment in which a loop's
//!   process is cloned.
//! - Whatever reads the machine from `/proc`, `/sys` or tracefs takes the root as a parameter, so
//!   that a test can build a fake tree. Fakes are paths, not traits. Only what concerns living
//!   processes ([`run::attach`], [`run::build`], ourselves) goes to the real `/proc`.
//! - One public trait, where there are really several kinds: [`run::Workload`]. Formats and loops
//!   are closed enums.
//! - Below the door each device module has one error type that keeps what was tried, on what, and
//!   the errno; [`perf::Access::explain`] turns the errno into a cause with a cure. Parsers yield
//!   records, so a bad line is data with its place. Doubts are warnings that travel with the
//!   result. `anyhow` at the door only.
//! - What the kernel, a file or the user gives is never a panic.
//! - A ratio is made only from two events of one group ([`perf::reading::ratios`]).
//! - A hardware event that reads 0 is believed only when it counts under provocation
//!   ([`perf::plan::try_out`]): PMUs open raw events that they do not have.
//! - Samples keep time order; sorting works on a copy.
//!
//! ## Holding the machine
//!
//! [`machine::hold::Hold::begin`] takes the lock (a `flock` on a directory in `/sys`: nothing to
//! create, nothing to abuse), gives back what an earlier hold has left, writes the journal and syncs
//! it, starts the keeper and waits until nothing but SIGKILL ends it, and only then writes the first
//! setting. What the kernel made of each is read back into the journal, so that at the end another's
//! change can be told from ours. Ending, the keeper gives everything back, by our wish or because
//! our end of the socket is closed; killed, it leaves that to us; both killed, to the next hold. So
//! giving back can happen twice and at any point: it looks at what is, not at what was done.
//! `tests/hold` kills both at every kind of step.
//!
//! Settings are not independent (a limit is clamped while boost is off; cpufreq takes limits over
//! in a worker thread after the write), so writing and giving back go in passes until all is as
//! it should be. What could not be given back stays in the journal.
//!
//! Where the plan was changed: a command is not bound to one CPU unless asked (a Go compiler on one
//! CPU is another program), loops are; and the lock's "since when" is the start of the holder's
//! process, for the kernel keeps no time of the lock and an ordinary user has no place to write it
//! that others could trust.
//!
//! ## Privilege
//!
//! Root is not needed to measure, and what is measured never has a privilege of ours: not the
//! command, nor what prepares it, nor a timer. [`sys::privilege`] has the kernel's part,
//! `cli::identity` decides.
//!
//! | poise is run | poise itself | what is measured |
//! |---|---|---|
//! | by an ordinary user | the user | the user, with what the caller may, ambient capabilities included |
//! | with capabilities of its file | the user, with those of them that measuring needs | the user, without them |
//! | by root through sudo | the user who called sudo, with what measuring needs; root for single steps | that user, with nothing; `HOME`, `SHELL`, `USER` and `LOGNAME` are that user's again |
//! | by root, or with `--as-root` | root, with nothing awake but what measuring needs and power over files | root, with everything |
//!
//! - The door settles a raised process before it reads its arguments ([`sys::privilege::settle`]).
//!   `stat` and `bench` then become whom they measure, before they open a file or a counter; what
//!   only root may do, holding the machine, comes before that. The verbs that measure nothing stay
//!   what they are: `sudo make install` has `man` write into root's directories.
//! - From then on files are opened and created as that user, and paths in arguments and environment
//!   need no distrust: they are used with the user's own rights. Capabilities that are power over
//!   files and processes sleep, and are woken where no user names the path: CAP_DAC_READ_SEARCH for
//!   tracefs, CAP_SYS_PTRACE to open counters on a running process, CAP_SYS_ADMIN to open counters
//!   where the kernel asks for it.
//! - An exec that makes a program more privileged than we are costs its counters. So root gives up
//!   nothing that is permitted, though most of it sleeps.
//! - The way back to root ([`sys::privilege::as_root`]) is CAP_SETUID, asleep. It gives user 0 and
//!   no capability beyond those kept, which suffices for root's files under `/sys`.
//! - Changing the user needs a process of one thread: the door starts none before.
//! - The process of a loop is ours and counts itself, so capabilities are handed on to it
//!   ([`sys::privilege::hand_on`]); the first that it does is to keep them from being handed on.
//! - The caller's groups are those of the process that called sudo, read from `/proc`, else those
//!   in `/etc/group`: the C library's services for accounts do not go with static linking.
//!
//! ## A command's way
//!
//! 1. The door holds the machine, and turns flags into a [`perf::plan::Plan`], which tries every event by opening it, and
//!    keeps these trials open and disabled: the kernel patches its code at the first open of a
//!    kind and at the last close, and would do so at every run.
//! 2. [`run::drive`] asks [`run::schedule`] (pure) for the next turn.
//! 3. [`sys::child`] clones the child with `CLONE_VM`: it shares our memory and waits on a futex
//!    in it, so no page table is copied and no pipe is made; before its exec it makes raw system
//!    calls only. Where CPUs are set apart for it ([`machine::hold`]) we move it to their cgroup,
//!    without which it could not be bound to them; then it takes what [`run::surroundings`] gives
//!    it: CPUs, addresses, huge
//!    pages, scheduling. It has a session of its own unless it may use the terminal. Counters are
//!    opened on it (`enable_on_exec`, `inherit`), it is released, and after its end `wait4` gives
//!    status and usage, and each group is read with one call.
//! 4. Readings become one sample, with the machine's noise; the writer writes and flushes it.
//!
//! What was set for a whole run, such as addresses that stay the same, stands in the header, in the
//! place of what the machine gives to others; what belongs to a single run, such as the drawn
//! padding of its environment, in the sample's `config`, and so do the CPUs that it was bound to.
//!
//! ## A fault's way
//!
//! `poise faults` chooses a rung ([`run::faults::watch::Watch`]) before it starts the command:
//!
//! - Programs in the kernel (`bpf/faults.bpf.c`, [`probe::faults`]). A fault begins with the
//!   exception's tracepoint (on arm64, which has none, with the count of faults before they are
//!   handled) and ends with the kernel's count of those that are done, which the program gets by
//!   perf events on the followed threads alone; in between it is noted whether a page was allocated.
//!   What the kind is follows from that, the processor's error code and the mapping. A record of 32
//!   bytes goes into a ring a CPU that both sides map: no system call, no wake-up; we look every ten
//!   milliseconds.
//! - Without privilege, pairs of software events in [`perf::ring`]: the count before and the count
//!   after, in user mode.
//!
//! In both, a ring a CPU tells what memory is mapped, who forks and who executes. All is brought
//! into the order of time, for an address means something only in the memory of its moment:
//! [`probe::mappings`] keeps that memory, [`run::faults::profile`] sums up.
//!
//! What one fault costs ([`run::faults::cost`]) is no part of that: it is a regression over the heap
//! loop in fresh processes, a block each, whose slopes are samples like any other. So the interval
//! is that of the median over blocks, which needs no resampling.
//!
//! ## A loop's way
//!
//! A sample is a fresh process (we execute ourselves, [`run::batch`]), which warms up and runs an
//! empty batch, one of N and one of 4 N operations, the last two in the order of a coin. The
//! figure is the slope between the two: what starting, reading clocks and counters and leaving
//! cost drops out, and stands beside it as `tare-sec` (the intercept) and `empty-sec`. Slopes of
//! many processes are summed up by Hodges–Lehmann. Slope, tare and N together give the two batch
//! times back, so nothing is lost in the record.
//!
//! ## A tracer's way
//!
//! The C sources of the programs stand in `bpf/` beside the objects that they compile to
//! (`make bpf`; `make bpf-check` compiles them again and compares), which are part of our program.
//! What they share with us is maps that we map: `bpf/record.h` and [`probe::record`] are held to
//! one layout by a test against the object's own description of its types.
//!
//! 1. [`probe::kernel::Types`] reads the kernel's description of its types, reduced to those that
//!    the object names: offsets of fields and the tracepoints' numbers come from it.
//! 2. [`probe::object::Object`] makes the maps and loads the programs that are wanted. What is not
//!    wanted is a constant by which the verifier cuts it out.
//! 3. The programs are attached, and the tare is measured: a call that does nothing, untraced, as
//!    a bystander, and traced. Then all that is forgotten.
//! 4. [`run::traced`] starts the command, suspended. An iterator over all tasks, read by us, finds
//!    it by the number that it has in our own namespace; so nothing depends on being in the first
//!    one. It is followed from its exec on; the kernel's own tracepoints of fork, exec and exit
//!    keep the table of followed threads.
//! 5. At the end the programs are detached, first of all, and the tables are read and summed up
//!    over the CPUs.
//!
//! Where calls are told apart, each thread has the number of a place, which it gets when it is first
//! followed (and anew when it takes another name, where names count). A process that is told with its
//! threads has a place as well, for those of them that get none; they are added to it when it is
//! read. A place's rows are given out when a syscall first needs one, so a call pays one look into a
//! table more. The type of a descriptor is looked up call by call. Counts of events are differences
//! of what counters of the CPU say, taken at a call's beginning and end and whenever its thread
//! leaves the CPU in between; [`run::syscalls`] opens the counters and hands their descriptors down.
//! A slow call's record has the addresses of its callers; rings that tell what memory is mapped
//! (`run/memory.rs`, as for faults) make places in files of them.
//!
//! What a syscall pays, beyond the kernel's own slow path and two timestamps, is kept to a few
//! nanoseconds: a thread is found by the address of its saved registers, which is what the
//! tracepoints hand over and which lies on its own kernel stack, so nobody has to be asked who is
//! running (each call of a helper costs more than all the rest, where returns are guarded); tables
//! are one a CPU and take no lock, for these programs are not preempted; and a duration falls into
//! a bucket of an eighth of an octave by a few shifts.
//!
//! [`run::syscalls`] climbs down where that cannot be had: to the counters of single tracepoints
//! (`run/counted.rs`), and to ptrace (`run/ptraced.rs`). Each says what it cannot see.
//!
//! ## A verdict's way
//!
//! `poise ab` and `bench --variant` are contests (`cli::contest`): [`run::schedule`] gives rounds of
//! all variants in drawn orders; every record goes to the writer and into a [`compare::Trial`],
//! which after each round judges the chosen units as one family. When none is open any more, no
//! further round is begun. [`stats::sequential`] has the looks, [`stats::paired`] the test, and
//! [`compare::Judge`] chooses by the kind of the figures: exact, in pairs, in groups. The verdict is
//! a function of the records alone: `poise compare` finds the same in the file as the run that wrote
//! it, when it is given the same level and shows the same units, for its family is all that it
//! shows.
//!
//! - With `--profile` a run is one of a profiler ([`run::profiled`]): the whole is judged as ever, and
//!   what was found in it (each syscall, each kind of fault) stands beside in tables of its own. What
//!   a run does not tell of is nothing of it there, and counts as such.
//! - A pair is what stood in one round. One void run voids its round; what is void is decided from
//!   the noise values in the record, never from the figure.
//! - Changes are judged at the looks of the rule and nowhere else; the rule stands in the header.
//!
//! `poise compare` reads files. Its
//! [`compare::Collection`] takes what [`format::Reader`] lends, has [`query`] say into which table,
//! row and column each value goes, and keeps the number alone, in chunks of seven, one list a
//! table, so that each table's figures are given back once its rows are made. Only our own records
//! bring more: labels, causes, and the run and round that make pairs of them. Rows are made by
//! several threads; then all comparisons are judged as one family, and [`report::tables`] writes
//! them. A run's header says by which rule it was ended and in which order its variants stand.
//!
//! ## A bisection's way
//!
//! [`bisect::Bisection`] is told events and asked for steps: a function of the log, so that going on
//! is reading the log again. Commits are places in a line ([`bisect::history`], by `git`);
//! `cli::bisect` builds ([`run::build`]) and runs what it asks for, and writes records, of which
//! [`bisect::record`] makes the events. Runs come in pairs with the first of the range, whose drift
//! they share; [`stats::step`] has the posterior of where the step is. The answer is one only with
//! the verdict of pairs of culprit and parent. [`bisect::simulate`] is the same engine on made-up
//! figures, and its tests hold it to what it is to reach.
//!
//! ## A compiler's way
//!
//! [`run::compiler`] finds compilers and says how each is invoked; the compiler itself is, and `go
//! build` only where that is what is measured. Go packages come from `go list` of one toolchain, the
//! *source*; a [`run::compiler::workbench::Workbench`] joins a source with any Go compiler. Whether
//! that takes the source's export data is found by trying; where it does not, it compiles its own
//! from the same source. All that is made for it is kept by content in the user's cache, or for one
//! run where that cannot be written. Other compilers are templates of a command line
//! ([`run::compiler::template`]).
//!
//! A linker takes only objects of its own version, so a [`run::compiler::linker::Linker`] has all of
//! a program built by the variant's go command. That takes its packages from a GOROOT and its tools
//! from there, too (`GOTOOLDIR` is not heard), so it is given a directory of links: the source's
//! packages, the variant's tools. The place of a GOROOT does not stand in what is built of the
//! standard library, so its cache serves the next run (as long as `PWD` names a directory in it by
//! the same links; else go takes it for a module elsewhere, and the same object has two forms).
//! Compilers of one release are one to the go command, whatever is in their files; flags without
//! effect that hold their hashes keep what they built apart. A toolchain of another release cannot
//! build the source's runtime (1.27 refuses 1.24's assembly by name, 1.24 does not know 1.27's
//! directives), and that is said.
//!
//! [`run::identical`] compiles each input twice by each of two compilers, interleaved. Outputs that
//! are not the same byte for byte are taken apart (archive, Go object, ELF), rules are applied to
//! the parts that differ, each only where what it passes over differs, and what is left is named:
//! part, symbols, and by listings of the compilers themselves the first instruction. A compiler that
//! differs from itself proves nothing about another; nor does one that was killed, timed out or had
//! no room.
//!
//! [`run::escape`] reads decisions from `-m` and `-json`, which tell different things: what stays on
//! the stack and what is inlined only the words, reasons and kept checks only the files. Which
//! function a line is in neither tells in every release, so it is found in the text. Decisions pair by
//! place, and in lines that are new or changed by function and words.
//!
//! What is thrown away lies in directories that are locked by who made them
//! ([`run::compiler::scratch`]); those of the dead, whose locks can be had, the next run removes.
//!
//! [`run::build`] builds revisions. The user's repository is only read: a checkout is a repository
//! of its own that borrows the objects. Its directory is locked by a file that the build has for
//! standard input, so whoever gets the lock is alone in there, even after a builder was killed.
//!
//! ## A compilation's way
//!
//! `poise compile` is a contest of several benchmarks: [`run::schedule`] gives rounds of blocks, one
//! block a benchmark, so that its variants stay side by side however many benchmarks there are, and
//! a block that is decided is closed (and opened again should the family take its verdict back).
//!
//! - A sample of [`run::compilation`] is two runs of the compiler: one as `run::command` measures any
//!   program, with Go's `-bench`, which costs a line of a file at the end; and one for what would
//!   disturb it. Go's memory profile as text tells allocations, bytes and collections exactly at any
//!   rate, so it is taken at the usual one: at `-memprofilerate=1` the same package took 150 times
//!   as long, for the same counts.
//! - Phases are samples of their own, with a parameter `phase`; they belong to no trial and are never
//!   judged with what decides.
//! - What is told at the end are [`compare::Tables`] of the records, as `poise compare` makes them,
//!   in three families: what decides, what was counted besides, phases.
//!
//! `poise sweep` runs all values of a parameter as one block. [`compare::sweep`] takes slopes within
//! rounds only, so what changes on the machine from round to round is no cost of anything; their
//! middle over the rounds is the cost, with the interval of the signed ranks. `--faults` watches one
//! more run of each value, after the measured ones, for watching costs time.
//!
//! ## Where to put what
//!
//! - A new event spelling: `perf/symbol.rs` or `perf/catalog.rs`. A new ratio: the table in
//!   `perf/reading.rs`, which also makes its events share a turn.
//! - A profiler by sampling: [`perf::ring`], whose documentation says what the kernel allows; a
//!   further kind of `PerfRecord`: `perf/record.rs`.
//! - A new loop: the catalogue in `run/loops/spec.rs` and its work in `run/loops/work.rs`.
//! - A new fact of the machine: `machine/facts/`; what it means for a user: `doctor/`.
//! - Something else that a measured process can be given: `sys::child::Settings`, which applies it,
//!   and `run/surroundings.rs`, which says when it cannot be had and how it is recorded.
//! - Another profiler in the kernel: `bpf/NAME.bpf.c` on `bpf/follow.h`, its records in
//!   `bpf/record.h`, its maps and programs in `probe/`, its command by [`run::traced`].
//! - Something else to be said of a comparison: a note in `compare/tables.rs`, which every output
//!   then has.
//! - A further compiler: a constructor in `run/compiler/template.rs`; a user's own is a TOML file.
//! - A further difference that does not count: `run/identical/rules.rs`, with what it passes over.
//! - A new file format: `format/`, with its wire types apart from the model.
//! - A new verb: one file in `cli/`.
//! - A proof by exact counts on a real PMU: `tests/pmu`, which `tests/vm/test.sh` runs in a virtual
//!   machine made of Debian packages. What a user meets, on any machine: `tests/cli`.

pub mod bisect;
pub mod cli;
pub mod compare;
pub mod doctor;
pub mod format;
pub mod machine;
pub mod perf;
pub mod probe;
pub mod query;
pub mod report;
pub mod run;
pub mod sample;
pub mod stats;
pub mod sys;
pub mod unit;
