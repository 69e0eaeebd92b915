//! The memory that is shared with the programs in the kernel, word by word as `bpf/record.h` has it. Pure layout: reads words, never a map.

use std::sync::atomic::{AtomicU64, Ordering};

/// `struct control`: what we tell the programs, and what they tell of themselves.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    /// The process or thread that the next iteration looks for.
    Wanted,
    /// What it does with it: a [`Purpose`].
    Purpose,
    /// The thread that is followed from its next exec on.
    Waiting,
    /// Threads ever followed.
    Followed,
    /// Threads not followed, for their slot was taken.
    Collisions,
    /// Calls whose slot another thread took.
    Lost,
    /// Slow calls that found no room to be told in.
    Untold,
    /// When the first thread was followed.
    FirstNs,
    /// Places that were wanted.
    Places,
    /// Rows of places that were wanted.
    Cells,
    /// Times that a counter could not be read.
    Uncounted,
    /// How deep our namespace of process ids is.
    Level,
}

/// What an iteration over all tasks does with those it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Follows all threads of the process from now on.
    Process,
    /// Follows the process from its next exec on.
    AtExec,
    /// Follows one thread, and what it creates, from now on.
    Thread,
    /// Follows no thread of the process any longer.
    Forget,
    /// Leaves the process out, where everyone is followed.
    PassOver,
}

/// Words of `struct control`.
pub const CONTROL_WORDS: usize = 12;

/// Slots of followed threads.
pub const SLOTS: usize = 65536;

/// Words of `struct slot`.
pub const SLOT_WORDS: usize = 8;

/// Places of followed threads, as the profiler of syscalls has them.
pub const THREADS: usize = 65536;

/// Words of `struct thread`.
pub const THREAD_WORDS: usize = 8;

/// The words of `struct thread`.
#[derive(Clone, Copy, Debug)]
pub enum Thread {
    /// Where its user registers are kept; 0 is nobody.
    Regs,
    /// When the call that is under way began; 0 is none.
    StartNs,
    /// Of which syscall.
    Row,
    /// How long it was off the CPU.
    OffNs,
    /// Since when it is.
    OffSinceNs,
    /// Whether it is left out.
    PassedOver,
    /// Whom its calls are counted for.
    Place,
}

/// Rows of syscalls, a CPU.
pub const ROWS: usize = 512;

/// The row of calls of other numberings.
pub const FOREIGN: usize = ROWS - 1;

/// The words of `struct row`, before its buckets.
#[derive(Clone, Copy, Debug)]
pub enum Row {
    /// Calls, where they are only counted.
    Calls,
    /// How long they took.
    TotalNs,
    /// The longest.
    LongestNs,
    /// Of the total, off the CPU.
    OffNs,
    /// The sum of what they returned, errors left out.
    Bytes,
    /// Those in which their thread ended.
    Unfinished,
    /// Those that failed, where a place has them.
    Failed,
}

/// Who may have rows of its own, the rest included.
pub const PLACES: usize = 1024;

/// Words of `struct place`: its number, two of its name, and the place of its process.
pub const PLACE_WORDS: usize = 4;

/// The last of them.
pub const PLACE_PROCESS: usize = 3;

/// What calls are told apart by, as the programs have it: by thread, and by process, too. The other
/// ways are those of [`super::profile::By`], from 1.
pub const BY_THREAD_OF_PROCESS: u32 = 5;

/// What a descriptor is of, by the place that it has.
pub const FD_TYPES: [&str; 18] = [
    "other",
    "none",
    "not-open",
    "file",
    "directory",
    "link",
    "pipe",
    "socket",
    "character-device",
    "block-device",
    "proc",
    "anonymous",
    "eventfd",
    "epoll",
    "timerfd",
    "signalfd",
    "inotify",
    "io_uring",
];

/// Buckets of durations.
pub const BUCKETS: usize = 256;

/// The first of them, in words of `struct row`.
pub const FIRST_BUCKET: usize = 8;

/// Words of `struct row`.
pub const ROW_WORDS: usize = FIRST_BUCKET + BUCKETS;

/// Errors told apart: errno below this.
pub const ERRNOS: usize = 544;

/// Events that are counted in calls, at most.
pub const EVENTS: usize = 4;

/// The words of `struct slow`; its arguments are six, and behind them stands the command's name.
#[derive(Clone, Copy, Debug)]
pub enum Slow {
    /// When it returned.
    EndNs,
    /// How long it took.
    TookNs,
    /// Of which syscall.
    Row,
    /// By which thread.
    Tid,
    /// What it returned.
    Result,
    /// The first of its arguments.
    Arguments,
    /// By which process, as our own namespace names it.
    Pid = 13,
    /// How many frames there are of its user stack.
    Frames,
    /// The first of them.
    Stack,
}

/// Bytes of `struct slow`.
pub const SLOW_BYTES: usize = (Slow::Stack as usize + SLOW_FRAMES) * 8;

/// Frames of a user stack, at most.
pub const SLOW_FRAMES: usize = 32;

/// Where the command's name stands in it.
pub const SLOW_COMMAND: usize = 88;

/// The word at `index`; past the end it is 0.
pub fn load(words: &[AtomicU64], index: usize) -> u64 {
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Sets the word at `index`.
pub fn store(words: &[AtomicU64], index: usize, value: u64) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::probe::btf::{Description, section};
    use crate::probe::object::embedded;

    /// Holds the structure `name` of the object in `bytes` to these fields, each at the byte given,
    /// and to `words` in all.
    pub(in crate::probe) fn check_layout(
        bytes: &[u8],
        name: &str,
        fields: &[(&str, usize)],
        words: usize,
    ) {
        let described = Description::new(section(bytes, ".BTF").unwrap()).unwrap();
        let found = described.types().find(|found| found.name == name).unwrap();
        let got: Vec<(&str, usize)> = found
            .members()
            .map(|member| (member.name, member.offset_bits as usize / 8))
            .filter(|(name, _)| *name != "spare")
            .collect();
        assert_eq!(got, fields, "struct {name}");
        assert_eq!(found.size_or_type as usize, words * 8, "struct {name}");
    }

    #[test]
    fn shared_memory_is_as_the_programs_have_it() {
        let bytes = embedded!("syscalls.bpf.o");
        let at = |field: Control| field as usize * 8;
        check_layout(
            bytes,
            "control",
            &[
                ("wanted", at(Control::Wanted)),
                ("purpose", at(Control::Purpose)),
                ("waiting", at(Control::Waiting)),
                ("followed", at(Control::Followed)),
                ("collisions", at(Control::Collisions)),
                ("lost", at(Control::Lost)),
                ("untold", at(Control::Untold)),
                ("first_ns", at(Control::FirstNs)),
                ("places", at(Control::Places)),
                ("cells", at(Control::Cells)),
                ("uncounted", at(Control::Uncounted)),
                ("level", at(Control::Level)),
            ],
            CONTROL_WORDS,
        );
        check_layout(
            bytes,
            "slot",
            &[("tid", 0), ("tgid", 4), ("payload", 8)],
            SLOT_WORDS,
        );
        let at = |field: Thread| field as usize * 8;
        check_layout(
            bytes,
            "thread",
            &[
                ("regs", at(Thread::Regs)),
                ("start_ns", at(Thread::StartNs)),
                ("row", at(Thread::Row)),
                ("off_ns", at(Thread::OffNs)),
                ("off_since_ns", at(Thread::OffSinceNs)),
                ("passed_over", at(Thread::PassedOver)),
                ("place", at(Thread::Place)),
            ],
            THREAD_WORDS,
        );
        let at = |field: Row| field as usize * 8;
        check_layout(
            bytes,
            "row",
            &[
                ("calls", at(Row::Calls)),
                ("total_ns", at(Row::TotalNs)),
                ("longest_ns", at(Row::LongestNs)),
                ("off_ns", at(Row::OffNs)),
                ("bytes", at(Row::Bytes)),
                ("unfinished", at(Row::Unfinished)),
                ("failed", at(Row::Failed)),
                ("buckets", FIRST_BUCKET * 8),
            ],
            ROW_WORDS,
        );
        let process = PLACE_PROCESS * 8;
        let place = [("id", 0), ("command", 8), ("process", process)];
        check_layout(bytes, "place", &place, PLACE_WORDS);
        let at = |field: Slow| field as usize * 8;
        check_layout(
            bytes,
            "slow",
            &[
                ("end_ns", at(Slow::EndNs)),
                ("took_ns", at(Slow::TookNs)),
                ("row", at(Slow::Row)),
                ("tid", at(Slow::Tid)),
                ("result", at(Slow::Result)),
                ("arguments", at(Slow::Arguments)),
                ("command", SLOW_COMMAND),
                ("pid", at(Slow::Pid)),
                ("frames", at(Slow::Frames)),
                ("stack", at(Slow::Stack)),
            ],
            SLOW_BYTES / 8,
        );
    }
}
