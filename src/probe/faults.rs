//! The programs that tell page faults, loaded and read: each fault with its address, kind and handler time. Knows no mapping's name and never sums anything up.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};

use super::Error;
use super::kernel::Types;
use super::mappings::{Area, Mapping};
use super::object::{self, Object, Parameters, embedded};
use super::record::{self, CONTROL_WORDS, Control, Purpose};
use crate::sys::memory::{huge_page_bytes, page_bytes};
use crate::sys::shared::SharedWords;

/// What was told of one page fault, or of one call that made pages at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it was done, in nanoseconds of `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// The address that was accessed; of a call: where the memory begins.
    pub address: u64,
    /// How long the kernel handled it; a little more than four seconds stand for all that is longer.
    pub handler_ns: u64,
    /// Whose, as we number processes.
    pub pid: i32,
    /// What it was.
    pub what: What,
    /// The instruction and its callers in user mode, the innermost first, by frame pointers; empty
    /// when not asked for.
    pub stack: Vec<u64>,
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A page fault.
    Access(Access),
    /// A call of mmap(2) with `MAP_POPULATE`, of madvise(2) or mlock(2), that made pages.
    Call {
        /// So many base pages.
        pages: u32,
    },
}

/// How memory was accessed, and what the kernel did about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether it was in user mode; else the kernel accessed the process's memory.
    pub is_user: bool,
    /// Whether it waited for a device.
    pub is_major: bool,
    /// Whether the address is near the stack pointer.
    pub is_near_stack: bool,
    /// What only the programs in the kernel see.
    pub insight: Insight,
}

/// How much of a fault was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Insight {
    /// Nothing but that it was.
    #[default]
    None,
    /// What was allocated for it.
    Allocation {
        /// Whether a page was.
        page: bool,
        /// Whether it is a huge one.
        huge: bool,
    },
    /// That, and the processor's reason for the fault.
    Whole {
        /// Whether a page was allocated for it.
        page: bool,
        /// Whether it is a huge one.
        huge: bool,
        /// Whether the page was there, but not for this access.
        is_present: bool,
        /// Whether it was written to.
        is_write: bool,
    },
}

/// What a fault did. Displayed as the word that stands in names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Fresh memory: a page of zeros was made.
    Anonymous,
    /// A huge page was made.
    HugePage,
    /// Fresh memory was read: the one page of zeros that all share was mapped.
    ZeroPage,
    /// A page that others hold, too, was copied to be written.
    CopyOnWrite,
    /// A page that nobody else holds any longer was made writable.
    Reuse,
    /// Pages of a file that are in memory were mapped.
    FileMap,
    /// A page of a file was copied to be written by this process alone.
    PrivateCopy,
    /// A page of memory that processes share was made or mapped.
    SharedMemory,
    /// It waited for a device: a file was read, or memory came back from swap.
    Major,
    /// The page was there and readable: a hint of the kernel's to itself, or somebody else had
    /// mended it.
    Protection,
    /// A page was made, zero-filled or copied: the processor's reason is not known here.
    NewPage,
    /// No page was made; likewise.
    NoNewPage,
    /// It did not wait for a device; nothing more is known.
    Minor,
}

impl Kind {
    /// What a fault in `area` was.
    pub fn of(access: &Access, area: Option<&Area>) -> Kind {
        if access.is_major {
            return Kind::Major;
        }
        let (page, is_present, is_write) = match access.insight {
            Insight::None => return Kind::Minor,
            Insight::Whole { huge: true, .. } | Insight::Allocation { huge: true, .. } => {
                return Kind::HugePage;
            }
            Insight::Allocation { page: true, .. } => return Kind::NewPage,
            Insight::Allocation { page: false, .. } => return Kind::NoNewPage,
            Insight::Whole {
                page,
                is_present,
                is_write,
                ..
            } => (page, is_present, is_write),
        };
        let mapping = area.map(|area| &area.mapping);
        match (is_present, is_write, mapping) {
            (true, true, _) if page => Kind::CopyOnWrite,
            (true, true, _) => Kind::Reuse,
            (true, false, _) => Kind::Protection,
            (false, _, Some(Mapping::Shared)) => Kind::SharedMemory,
            (false, true, Some(Mapping::File(_))) if page && area.is_some_and(|a| !a.is_shared) => {
                Kind::PrivateCopy
            }
            (false, _, Some(Mapping::File(_) | Mapping::Kernel(_))) => Kind::FileMap,
            (false, true, _) => Kind::Anonymous,
            (false, false, _) => Kind::ZeroPage,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Anonymous => "anonymous",
            Kind::HugePage => "huge-page",
            Kind::ZeroPage => "zero-page",
            Kind::CopyOnWrite => "copy-on-write",
            Kind::Reuse => "reuse",
            Kind::FileMap => "file-map",
            Kind::PrivateCopy => "private-copy",
            Kind::SharedMemory => "shared-memory",
            Kind::Major => "major",
            Kind::Protection => "protection",
            Kind::NewPage => "new-page",
            Kind::NoNewPage => "no-new-page",
            Kind::Minor => "minor",
        }
    }
}

/// What was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Faults that found no room.
    pub faults: u64,
    /// How long they were handled in all.
    pub handler_ns: u64,
    /// Faults whose beginning was not seen: those of the exec itself, and what was under way.
    pub unbegun: u64,
    /// Threads that were not followed.
    pub threads: u64,
}

/// The programs, loaded.
pub struct Tracer {
    object: Object,
    begins_by_exception: bool,
    control: SharedWords,
    lanes: SharedWords,
    faults: SharedWords,
    stacks: Option<SharedWords>,
    cpus: usize,
    entries: usize,
}

/// `struct lane`, `struct fault`, and the frames of a stack, in words.
const LANE_WORDS: usize = 8;
const FAULT_WORDS: usize = 4;
const FRAMES: usize = 32;

/// The fields of a lane, by word.
const HEAD: usize = 0;
const TAIL: usize = 1;
const LOST: usize = 2;
const LOST_NS: usize = 3;
const UNBEGUN: usize = 4;

/// Of `bpf/faults.h`.
const PROTECTION: u16 = 0x1;
const WRITE: u16 = 0x2;
const USER: u16 = 0x4;
const ALLOCATED: u16 = 0x100;
const HUGE: u16 = 0x200;
const MAJOR: u16 = 0x400;
const NEAR_SP: u16 = 0x800;
const NO_CODE: u16 = 0x1000;
const CALL: u16 = 0x2000;

/// The rings of all CPUs take at most so many records: 64 MiB, without stacks.
const MOST_RECORDS: usize = 2 << 20;

/// A ring has room for this many, which the fastest program fills in some 60 ms.
const RECORDS: usize = 32 << 10;

/// The number of the initial namespace of process ids (`PROC_PID_INIT_INO` of the kernel).
const INITIAL_NAMESPACE: u64 = 0xefff_fffc;

impl Tracer {
    /// Loads the programs, attached to nothing yet.
    ///
    /// Errors: the kernel's refusal.
    pub fn load(sys: &Path, proc: &Path, with_stacks: bool) -> Result<Tracer, Error> {
        let bytes = embedded!("faults.bpf.o");
        let cpus = object::possible_cpus(sys);
        let entries = (MOST_RECORDS / cpus).clamp(1024, RECORDS);
        let entries = 1 << entries.ilog2();
        let all = (cpus * entries) as u32;
        let namespace = std::fs::metadata(proc.join("self/ns/pid"));
        let is_outermost = namespace.is_ok_and(|facts| facts.ino() == INITIAL_NAMESPACE);
        let number = |value: usize| (value as u32).to_ne_bytes().to_vec();
        let flag = |value: bool| vec![u8::from(value)];
        let huge_order = (huge_page_bytes() / page_bytes()).ilog2() as usize;
        let parameters = Parameters {
            constants: vec![
                ("entries", number(entries)),
                ("huge_order", number(huge_order)),
                ("with_stacks", flag(with_stacks)),
                ("is_outermost", flag(is_outermost)),
                ("nr_mmap", number(libc::SYS_mmap as usize)),
                ("nr_madvise", number(libc::SYS_madvise as usize)),
                ("nr_mlock", number(libc::SYS_mlock as usize)),
                ("nr_mlock2", number(libc::SYS_mlock2 as usize)),
                ("nr_mlockall", number(libc::SYS_mlockall as usize)),
            ],
            entries: vec![
                ("lanes", cpus as u32),
                ("faults", all),
                ("stacks", if with_stacks { all } else { 1 }),
            ],
        };
        let mut object = Object::load(bytes, Types::read(sys, bytes)?, &parameters)?;
        for (program, tracepoint) in FOLLOWING.into_iter().chain(WATCHING) {
            object.prepare(program, tracepoint)?;
        }
        let begin = BEGINNING
            .iter()
            .try_for_each(|(program, tracepoint)| object.prepare(program, tracepoint));
        let begins_by_exception = match begin {
            Ok(()) => true,
            // Only x86 has these tracepoints.
            Err(error) if error.errno == nix::errno::Errno::ENOENT => false,
            Err(error) => return Err(error),
        };
        let stacks = with_stacks.then(|| object.words("stacks", cpus * entries * FRAMES));
        Ok(Tracer {
            begins_by_exception,
            control: object.words("control", CONTROL_WORDS)?,
            lanes: object.words("lanes", cpus * LANE_WORDS)?,
            faults: object.words("faults", cpus * entries * FAULT_WORDS)?,
            stacks: stacks.transpose()?,
            object,
            cpus,
            entries,
        })
    }

    /// Whether the processor's reason for each fault is seen, which tells its kind.
    pub fn sees_reasons(&self) -> bool {
        self.begins_by_exception
    }

    /// Follows process `pid`, which has these threads: from its next exec on, or from now on. All
    /// that it creates is followed, too.
    pub fn attach(&mut self, pid: i32, threads: &[i32], at_exec: bool) -> Result<(), Error> {
        use SoftwareEvent::{PageFaults, PageFaultsMaj, PageFaultsMin};
        let object = &mut self.object;
        for (program, _) in FOLLOWING {
            object.attach(program)?;
        }
        record::store(&self.control, Control::Wanted as usize, pid as u64);
        let purpose = match at_exec {
            true => Purpose::AtExec,
            false => Purpose::Process,
        };
        record::store(&self.control, Control::Purpose as usize, purpose as u64);
        object.iterate_tasks("on_task")?;
        let begin = (!self.begins_by_exception).then_some(("begin_counted", PageFaults));
        let ends = [("end_minor", PageFaultsMin), ("end_major", PageFaultsMaj)];
        for &tid in threads {
            for (program, event) in ends.into_iter().chain(begin) {
                let scope = PerfEventScope::OneProcess {
                    pid: tid as u32,
                    cpu: None,
                };
                let event = PerfEventConfig::Software(event);
                let each = SamplePolicy::Period(1);
                let attached = object.attach_perf_event(program, event, scope, each, true);
                // A thread may end between our look and this.
                if !matches!(&attached, Err(error) if error.errno == nix::errno::Errno::ESRCH) {
                    attached?;
                }
            }
        }
        for (program, _) in WATCHING {
            object.attach(program)?;
        }
        if self.begins_by_exception {
            for (program, _) in BEGINNING {
                object.attach(program)?;
            }
        }
        Ok(())
    }

    /// Detaches all programs. What they have told can still be taken.
    pub fn detach(&mut self) {
        self.object.detach();
    }

    /// Takes what was told since the last time, CPU by CPU.
    pub fn take(&self, sink: &mut dyn FnMut(Fault)) {
        for cpu in 0..self.cpus {
            let lane = &self.lanes[cpu * LANE_WORDS..(cpu + 1) * LANE_WORDS];
            let head = lane[HEAD].load(Ordering::Acquire);
            let mut tail = lane[TAIL].load(Ordering::Relaxed);
            while tail != head {
                let at = cpu * self.entries + (tail as usize & (self.entries - 1));
                sink(self.fault(at));
                tail = tail.wrapping_add(1);
            }
            lane[TAIL].store(tail, Ordering::Release);
        }
    }

    /// What was not told so far.
    pub fn lost(&self) -> Lost {
        let mut lost = Lost {
            threads: record::load(&self.control, Control::Collisions as usize),
            ..Lost::default()
        };
        for lane in self.lanes.chunks(LANE_WORDS) {
            lost.faults += record::load(lane, LOST);
            lost.handler_ns += record::load(lane, LOST_NS);
            lost.unbegun += record::load(lane, UNBEGUN);
        }
        lost
    }

    /// ```text
    /// struct fault { u64 end_ns; u64 address; u32 handler_ns; u32 tid_or_pages;    bpf/faults.h
    ///                u32 tgid; u16 flags; u16 frames; };
    /// ```
    fn fault(&self, at: usize) -> Fault {
        let word = |n: usize| record::load(&self.faults, at * FAULT_WORDS + n);
        let halves = |n: usize| {
            let bytes = word(n).to_ne_bytes();
            let [a, b, c, d, e, f, g, h] = bytes;
            (
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
            )
        };
        let (handler_ns, tid_or_pages) = halves(2);
        let (tgid, rest) = halves(3);
        let [a, b, c, d] = rest.to_ne_bytes();
        let (flags, frames) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        let stack = match &self.stacks {
            None => Vec::new(),
            Some(stacks) => {
                let depth = usize::from(frames).min(FRAMES);
                let frame = |n| record::load(stacks, at * FRAMES + n);
                (0..depth).map(frame).collect()
            }
        };
        Fault {
            end_ns: word(0),
            address: word(1),
            handler_ns: handler_ns.into(),
            pid: tgid as i32,
            what: what(flags, tid_or_pages),
            stack,
        }
    }
}

/// What the flags of `bpf/faults.h` say.
fn what(flags: u16, pages: u32) -> What {
    let is = |flag: u16| flags & flag != 0;
    if is(CALL) {
        return What::Call { pages };
    }
    let (page, huge) = (is(ALLOCATED), is(HUGE));
    What::Access(Access {
        is_user: is(USER),
        is_major: is(MAJOR),
        is_near_stack: is(NEAR_SP),
        insight: match is(NO_CODE) {
            true => Insight::Allocation { page, huge },
            false => Insight::Whole {
                page,
                huge,
                is_present: is(PROTECTION),
                is_write: is(WRITE),
            },
        },
    })
}

/// Programs and their tracepoints: those that follow threads, …
const FOLLOWING: [(&str, &str); 3] = [
    ("on_fork", "sched_process_fork"),
    ("on_exec", "sched_process_exec"),
    ("on_exit", "sched_process_exit"),
];

/// … those that watch what a fault does, and calls that make pages, …
const WATCHING: [(&str, &str); 3] = [
    ("on_alloc", "mm_page_alloc"),
    ("on_enter", "sys_enter"),
    ("on_leave", "sys_exit"),
];

/// … and those at which a fault begins.
const BEGINNING: [(&str, &str); 2] = [
    ("begin_user", "page_fault_user"),
    ("begin_kernel", "page_fault_kernel"),
];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::kernel;
    use super::super::record::tests::check_layout;
    use super::*;

    #[test]
    fn the_records_are_as_the_programs_have_them() {
        let bytes = embedded!("faults.bpf.o");
        let lane = |at: usize| at * 8;
        check_layout(
            bytes,
            "lane",
            &[
                ("head", lane(HEAD)),
                ("tail", lane(TAIL)),
                ("lost", lane(LOST)),
                ("lost_ns", lane(LOST_NS)),
                ("unbegun", lane(UNBEGUN)),
            ],
            LANE_WORDS,
        );
        check_layout(
            bytes,
            "fault",
            &[
                ("end_ns", 0),
                ("address", 8),
                ("handler_ns", 16),
                ("tid_or_pages", 20),
                ("tgid", 24),
                ("flags", 28),
                ("frames", 30),
            ],
            FAULT_WORDS,
        );
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test says what it could not run")]
    fn the_kernel_takes_every_program_and_tells_our_own_faults() {
        let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
        if let Some(obstacle) = kernel::Facts::look(sys).obstacle() {
            eprintln!("not run: programs that tell page faults: {obstacle}");
            return;
        }
        for (by_exception, with_stacks) in [(true, false), (true, true), (false, false)] {
            let mut tracer = Tracer::load(sys, proc, with_stacks).unwrap();
            // The other beginning is tried even where this one is to be had.
            tracer.begins_by_exception &= by_exception;
            let (pid, tid) = (std::process::id() as i32, nix::unistd::gettid().as_raw());
            tracer.attach(pid, &[tid], false).unwrap();
            let memory = crate::sys::memory::Mapping::new(
                64 * page_bytes(),
                crate::sys::memory::Pages::Base,
            )
            .unwrap();
            (0..64).for_each(|page| memory.touch(page * page_bytes()));
            tracer.detach();
            let start = memory.address() as u64;
            let own = start..start + 64 * page_bytes() as u64;
            let mut told = Vec::new();
            tracer.take(&mut |fault| {
                if own.contains(&fault.address) {
                    told.push(fault);
                }
            });
            assert_eq!(told.len(), 64, "{by_exception} {with_stacks}");
            for fault in told {
                let What::Access(access) = fault.what else {
                    panic!("{fault:?}");
                };
                assert!(access.is_user && !access.is_major, "{fault:?}");
                let want = match tracer.begins_by_exception {
                    true => Kind::Anonymous,
                    false => Kind::NewPage,
                };
                assert_eq!(Kind::of(&access, None), want);
                assert_eq!((fault.pid, fault.handler_ns > 0), (pid, true));
                assert_eq!(fault.stack.is_empty(), !with_stacks);
            }
            assert_eq!(tracer.lost().faults, 0);
        }
    }

    #[test]
    fn kinds_follow_from_reason_allocation_and_mapping() {
        let area = |name: &str, is_shared: bool| Area {
            start: 0,
            end: 1 << 40,
            offset: 0,
            is_writable: true,
            is_shared,
            mapping: Mapping::of(OsStr::new(name), 0),
        };
        let check = |flags: u16, name: &str, is_shared: bool, want: Kind| {
            let What::Access(access) = what(flags, 0) else {
                panic!("{flags:x}");
            };
            let area = (!name.is_empty()).then(|| area(name, is_shared));
            assert_eq!(Kind::of(&access, area.as_ref()), want, "{flags:x} {name}");
        };
        let (read, write) = (USER, USER | WRITE);
        check(write | ALLOCATED, "//anon", false, Kind::Anonymous);
        check(write | ALLOCATED, "", false, Kind::Anonymous);
        check(WRITE | ALLOCATED, "[heap]", false, Kind::Anonymous);
        check(write | ALLOCATED | HUGE, "//anon", false, Kind::HugePage);
        check(read | ALLOCATED, "//anon", false, Kind::ZeroPage);
        check(
            write | PROTECTION | ALLOCATED,
            "[heap]",
            false,
            Kind::CopyOnWrite,
        );
        check(
            write | PROTECTION | ALLOCATED,
            "/lib/x",
            false,
            Kind::CopyOnWrite,
        );
        check(write | PROTECTION, "[heap]", false, Kind::Reuse);
        check(read | PROTECTION, "[heap]", false, Kind::Protection);
        check(read, "/lib/x", false, Kind::FileMap);
        check(read | ALLOCATED, "/lib/x", false, Kind::FileMap);
        check(write, "/lib/x", true, Kind::FileMap);
        check(write | ALLOCATED, "/lib/x", true, Kind::FileMap);
        check(write | ALLOCATED, "/lib/x", false, Kind::PrivateCopy);
        check(write | ALLOCATED, "/dev/zero", true, Kind::SharedMemory);
        check(read | MAJOR, "/lib/x", false, Kind::Major);
        check(write | MAJOR | ALLOCATED, "//anon", false, Kind::Major);
        check(NO_CODE | ALLOCATED, "//anon", false, Kind::NewPage);
        check(NO_CODE, "//anon", false, Kind::NoNewPage);
        check(NO_CODE | HUGE | ALLOCATED, "//anon", false, Kind::HugePage);
        assert_eq!(Kind::of(&Access::default(), None), Kind::Minor);
        assert_eq!(what(CALL, 7), What::Call { pages: 7 });
    }
}
