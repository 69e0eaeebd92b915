//! What the memory of processes is made of: each address's mapping, followed through forks, execs and new mappings, and classified. Pure: never reads a process.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

/// What a piece of memory is. Displayed as a word that can stand in a benchmark's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mapping {
    /// What brk(2) grows.
    Heap,
    /// The stack of a process's first thread.
    Stack,
    /// The stack of another thread: anonymous memory round its stack pointer.
    ThreadStack,
    /// An arena of the Go runtime's heap, by the address at which it asks for it.
    GoHeap,
    /// A program's or library's variables that are zero at its start.
    Bss(Rc<Path>),
    /// Anonymous memory.
    Anonymous,
    /// Anonymous memory that was given a name: `prctl(PR_SET_VMA_ANON_NAME)`.
    Named(Rc<str>),
    /// Memory without a file that processes share.
    Shared,
    /// A file.
    File(Rc<Path>),
    /// What the kernel maps into each process: `vdso`, `vvar` and their kin.
    Kernel(Rc<str>),
    /// Memory of which nothing was told.
    Unknown,
}

/// One mapping of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Where in its file it begins.
    pub offset: u64,
    /// Whether it may be written to.
    pub is_writable: bool,
    /// Whether what is written to it is seen by others that map the same.
    pub is_shared: bool,
    /// What it is.
    pub mapping: Mapping,
}

/// The memory of one process: areas that do not overlap, by their first address.
#[derive(Clone, Debug, Default)]
pub struct Space(BTreeMap<u64, Area>);

/// The memory of all processes that are followed, by process id.
#[derive(Clone, Debug, Default)]
pub struct Spaces(HashMap<i32, Space>);

/// What happened to the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It mapped some.
    Mapped(i32, Area),
    /// The process was made by another one.
    Fork {
        /// That one.
        parent: i32,
        /// It.
        child: i32,
    },
    /// It executed another program.
    Exec(i32),
    /// It ended.
    Exit(i32),
}

/// Where the Go runtime on 64-bit Linux asks for its arenas first (`runtime/malloc.go`: 0x00c0 <<
/// 32), and as far as a heap of 128 GiB takes it.
const GO_ARENAS: std::ops::Range<u64> = 0xc0_0000_0000..0xe0_0000_0000;

impl Mapping {
    /// What `name` means, as a `PERF_RECORD_MMAP2` or a line of `/proc/PID/maps` has it, at
    /// address `start`.
    pub fn of(name: &OsStr, start: u64) -> Mapping {
        let text = name.to_string_lossy();
        // What the file system of the mapping has no name for, ends so.
        let plain = text.strip_suffix(" (deleted)").unwrap_or(&text);
        let inner = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match (plain, inner) {
            ("" | "//anon" | "//enomem", _) if GO_ARENAS.contains(&start) => Mapping::GoHeap,
            (_, Some(inner)) if inner.starts_with("anon") && GO_ARENAS.contains(&start) => {
                Mapping::GoHeap
            }
            ("" | "//anon" | "//enomem" | "/anon_hugepage", _) => Mapping::Anonymous,
            (_, Some("heap")) => Mapping::Heap,
            (_, Some("stack")) => Mapping::Stack,
            (_, Some(inner)) => match inner.split_once(':') {
                Some(("anon", name)) => Mapping::Named(name.trim().into()),
                Some(("anon_shmem", _)) => Mapping::Shared,
                // Old kernels: [stack:TID].
                Some(("stack", _)) => Mapping::ThreadStack,
                _ => Mapping::Kernel(inner.into()),
            },
            ("/dev/zero", _) => Mapping::Shared,
            (sysv, _) if sysv.starts_with("/SYSV") => Mapping::Shared,
            _ => match plain.strip_prefix("/memfd:") {
                Some(_) => Mapping::File(Path::new(plain).into()),
                None => {
                    let bytes = name.as_bytes();
                    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
                    Mapping::File(Path::new(OsStr::from_bytes(bytes)).into())
                }
            },
        }
    }

    /// The file whose bytes these are.
    pub fn file(&self) -> Option<&Rc<Path>> {
        match self {
            Mapping::File(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = |path: &Path| {
            let base = path.file_name().unwrap_or(path.as_os_str());
            base.to_string_lossy().into_owned()
        };
        match self {
            Mapping::Heap => f.write_str("heap"),
            Mapping::Stack => f.write_str("stack"),
            Mapping::ThreadStack => f.write_str("thread-stack"),
            Mapping::GoHeap => f.write_str("go-heap"),
            Mapping::Bss(path) => write!(f, "bss:{}", base(path)),
            Mapping::Anonymous => f.write_str("anonymous"),
            Mapping::Named(name) => write!(f, "anonymous:{name}"),
            Mapping::Shared => f.write_str("shared"),
            Mapping::File(path) => f.write_str(&base(path)),
            Mapping::Kernel(name) => write!(f, "{name}"),
            Mapping::Unknown => f.write_str("unknown"),
        }
    }
}

impl Area {
    /// Reads a line of `/proc/PID/maps`; `None` for what is no such line.
    ///
    /// ```text
    /// address           perms offset  dev   inode       pathname        proc(5)
    /// 00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon
    /// ```
    pub fn parse(line: &[u8]) -> Option<Area> {
        let mut rest = line;
        let mut word = || {
            let end = rest
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let skip = behind.iter().take_while(|&&byte| byte == b' ').count();
            rest = &behind[skip..];
            std::str::from_utf8(word).ok()
        };
        let (addresses, flags, offset) = (word()?, word()?, word()?);
        let (_device, _inode) = (word()?, word()?);
        let (start, end) = addresses.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let flags = flags.as_bytes();
        let start = hex(start)?;
        Some(Area {
            start,
            end: hex(end).filter(|&end| end > start)?,
            offset: hex(offset)?,
            is_writable: *flags.get(1)? == b'w',
            is_shared: *flags.get(3)? == b's',
            mapping: Mapping::of(OsStr::from_bytes(rest), start),
        })
    }

    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

impl Space {
    /// Reads `/proc/PID/maps`; lines that are none are passed over.
    pub fn parse(maps: &[u8]) -> Space {
        let mut space = Space::default();
        let areas = maps.split(|&byte| byte == b'\n').filter_map(Area::parse);
        areas.for_each(|area| space.map(area));
        space
    }

    /// The area that holds `address`.
    pub fn find(&self, address: u64) -> Option<&Area> {
        let (_, area) = self.0.range(..=address).next_back()?;
        area.holds(address).then_some(area)
    }

    /// Maps `area` over what was there before.
    pub fn map(&mut self, mut area: Area) {
        if area.end <= area.start {
            return;
        }
        if area.mapping == Mapping::Anonymous
            && let Some(before) = area.start.checked_sub(1).and_then(|last| self.find(last))
            && before.is_writable
            && !before.is_shared
        {
            // A loader maps what a file's data leave of its last segment right behind them.
            if let Mapping::File(path) | Mapping::Bss(path) = &before.mapping {
                area.mapping = Mapping::Bss(Rc::clone(path));
            }
        }
        self.unmap(area.start, area.end);
        self.0.insert(area.start, area);
    }

    /// Says that the anonymous memory round `address` is a thread's stack.
    pub fn is_thread_stack(&mut self, address: u64) {
        if let Some((_, area)) = self.0.range_mut(..=address).next_back()
            && area.holds(address)
            && area.mapping == Mapping::Anonymous
        {
            area.mapping = Mapping::ThreadStack;
        }
    }

    /// Takes over what `told`, a later look at the whole of the same memory, knows better: names of
    /// anonymous memory, and areas that are not known.
    pub fn learn(&mut self, told: Space) {
        for (_, area) in told.0 {
            let known = self.find(area.start).map(|known| &known.mapping);
            let is_better = match (known, &area.mapping) {
                (None, _) => true,
                (Some(known), Mapping::Named(_)) => *known == Mapping::Anonymous,
                _ => false,
            };
            if is_better {
                self.map(area);
            }
        }
    }

    fn unmap(&mut self, start: u64, end: u64) {
        let overlapping = self.0.range(..end).rev();
        let starts: Vec<u64> = overlapping
            .take_while(|(_, area)| area.end > start)
            .map(|(&first, _)| first)
            .collect();
        for first in starts {
            let Some(old) = self.0.remove(&first) else {
                continue;
            };
            if old.end > end {
                let mut behind = old.clone();
                behind.offset += end - old.start;
                behind.start = end;
                self.0.insert(end, behind);
            }
            if old.start < start {
                let before = Area { end: start, ..old };
                self.0.insert(first, before);
            }
        }
    }
}

impl Spaces {
    /// Takes over what happened.
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Mapped(pid, area) => self.of(pid).map(area),
            Change::Fork { parent, child } => self.fork(parent, child),
            Change::Exec(pid) => self.exec(pid),
            Change::Exit(pid) => self.exit(pid),
        }
    }

    /// The memory of process `pid`, empty when nothing is known of it.
    pub fn of(&mut self, pid: i32) -> &mut Space {
        self.0.entry(pid).or_default()
    }

    /// A process was made: it has the memory of its parent.
    pub fn fork(&mut self, parent: i32, child: i32) {
        // A thread is no process.
        if parent != child {
            let space = self.of(parent).clone();
            self.0.insert(child, space);
        }
    }

    /// A process executed another program: its memory is new.
    pub fn exec(&mut self, pid: i32) {
        self.0.remove(&pid);
    }

    /// A process ended.
    pub fn exit(&mut self, pid: i32) {
        self.0.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(start: u64, end: u64, name: &str) -> Area {
        Area {
            start,
            end,
            offset: 0,
            is_writable: true,
            is_shared: false,
            mapping: Mapping::of(OsStr::new(name), start),
        }
    }

    fn word(space: &Space, address: u64) -> String {
        let found = space.find(address);
        found.map_or("-".to_owned(), |area| area.mapping.to_string())
    }

    #[test]
    fn names_tell_what_memory_is() {
        let check = |name: &str, start: u64, want: &str| {
            let mapping = Mapping::of(OsStr::new(name), start);
            assert_eq!(mapping.to_string(), want, "{name}");
        };
        const LOW: u64 = 0x7f00_0000_0000;
        check("//anon", LOW, "anonymous");
        check("", LOW, "anonymous");
        check("/anon_hugepage (deleted)", LOW, "anonymous");
        check("//anon", 0xc0_0000_0000, "go-heap");
        check("", 0xc0_0400_0000, "go-heap");
        check("[anon: Go: heap]", 0xc0_0040_0000, "go-heap");
        check("[anon: Go: gc bits]", LOW, "anonymous:Go: gc bits");
        check("[anon:glibc: malloc]", LOW, "anonymous:glibc: malloc");
        check("[anon_shmem:x]", LOW, "shared");
        check("/dev/zero (deleted)", LOW, "shared");
        check("/SYSV00000000 (deleted)", LOW, "shared");
        check("[heap]", 0x55_0000_0000, "heap");
        check("[stack]", LOW, "stack");
        check("[stack:123]", LOW, "thread-stack");
        check("[vdso]", LOW, "vdso");
        check("[vvar_vclock]", LOW, "vvar_vclock");
        check("/memfd:buffer (deleted)", LOW, "memfd:buffer");
        check("/usr/lib/x86_64-linux-gnu/libc.so.6", LOW, "libc.so.6");
        check("/tmp/gone (deleted)", LOW, "gone");
        check("relative", LOW, "relative");
    }

    #[test]
    fn lines_of_maps_are_read() {
        let check = |line: &str, want: Option<(u64, u64, u64, bool, bool, &str)>| {
            let got = Area::parse(line.as_bytes()).map(|a| {
                let word = a.mapping.to_string();
                (a.start, a.end, a.offset, a.is_writable, a.is_shared, word)
            });
            let want = want.map(|(a, b, c, d, e, f)| (a, b, c, d, e, f.to_owned()));
            assert_eq!(got, want, "{line}");
        };
        check(
            "00400000-00452000 r-xp 00002000 08:02 173521                             /usr/bin/a b",
            Some((0x40_0000, 0x45_2000, 0x2000, false, false, "a b")),
        );
        check(
            "7f0000000000-7f0000001000 rw-s 00000000 00:01 5                          /dev/zero (deleted)",
            Some((0x7f00_0000_0000, 0x7f00_0000_1000, 0, true, true, "shared")),
        );
        check(
            "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ",
            Some((
                0x7f00_0000_0000,
                0x7f00_0000_1000,
                0,
                true,
                false,
                "anonymous",
            )),
        );
        for bad in [
            "",
            "x",
            "1-2",
            "2-1 rw-p 0 0 0",
            "1-2 r 0 0 0",
            "g-h rw-p 0 0 0",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_program_as_its_loader_maps_it() {
        let mut space = Space::default();
        let mut data = area(0x5000, 0x6000, "/bin/x");
        space.map(Area {
            is_writable: false,
            ..area(0x4000, 0x5000, "/bin/x")
        });
        space.map(data.clone());
        space.map(area(0x6000, 0x8000, "//anon"));
        space.map(area(0x9000, 0xa000, "[heap]"));
        // brk tells all of the heap again.
        space.map(area(0x9000, 0xc000, "[heap]"));
        for (address, want) in [
            (0x3fff, "-"),
            (0x4000, "x"),
            (0x5fff, "x"),
            (0x6000, "bss:x"),
            (0x8000, "-"),
            (0xbfff, "heap"),
            (0xc000, "-"),
        ] {
            assert_eq!(word(&space, address), want, "{address:x}");
        }
        // Behind a file that is only read there is no bss.
        data.is_writable = false;
        space.map(data);
        space.map(area(0x6000, 0x8000, "//anon"));
        assert_eq!(word(&space, 0x6000), "anonymous");
        space.is_thread_stack(0x7000);
        space.is_thread_stack(0x9000);
        assert_eq!(word(&space, 0x6000), "thread-stack");
        assert_eq!(word(&space, 0x9000), "heap");
    }

    #[test]
    fn new_mappings_replace_old_ones() {
        let mut space = Space::default();
        space.map(area(0x1000, 0x9000, "/file"));
        space.map(area(0x3000, 0x5000, "[heap]"));
        let behind = space.find(0x5000).unwrap();
        assert_eq!(
            (behind.start, behind.end, behind.offset),
            (0x5000, 0x9000, 0x4000)
        );
        assert_eq!(word(&space, 0x2fff), "file");
        assert_eq!(word(&space, 0x4000), "heap");
    }

    #[test]
    fn what_is_told_later_names_what_is_known() {
        let mut space = Space::default();
        space.map(area(0x1000, 0x3000, "//anon"));
        space.map(area(0x5000, 0x6000, "//anon"));
        space.is_thread_stack(0x5000);
        let maps = b"1000-2000 rw-p 0 0:0 0 [anon:arena]\n2000-3000 rw-p 0 0:0 0\n\
            5000-6000 rw-p 0 0:0 0 [anon:pthread]\n7000-8000 rw-p 0 0:0 0 [heap]\n";
        space.learn(Space::parse(maps));
        assert_eq!(word(&space, 0x1000), "anonymous:arena");
        assert_eq!(word(&space, 0x2000), "anonymous");
        assert_eq!(word(&space, 0x5000), "thread-stack");
        assert_eq!(word(&space, 0x7000), "heap");
    }

    #[test]
    fn children_begin_with_the_memory_of_their_parent() {
        let mut spaces = Spaces::default();
        spaces.of(1).map(area(0x1000, 0x2000, "[heap]"));
        spaces.fork(1, 2);
        spaces.fork(1, 1);
        spaces.exec(1);
        spaces.of(2).map(area(0x2000, 0x3000, "[stack]"));
        assert_eq!(word(spaces.of(1), 0x1000), "-");
        assert_eq!(word(spaces.of(2), 0x1000), "heap");
        spaces.exit(2);
        assert_eq!(word(spaces.of(2), 0x1000), "-");
    }

    proptest! {
        #[test]
        fn the_last_mapping_of_an_address_counts(
            maps in prop::collection::vec((0_u64..64, 1_u64..16), 0..30),
        ) {
            let mut space = Space::default();
            let mut want = [None; 80];
            for (at, &(start, length)) in maps.iter().enumerate() {
                space.map(area(start, start + length, &format!("/{at}")));
                (start..start + length).for_each(|address| want[address as usize] = Some(at));
            }
            for (address, want) in want.iter().enumerate() {
                let found = space.find(address as u64).map(|area| area.mapping.to_string());
                prop_assert_eq!(found, want.map(|at| at.to_string()));
            }
        }

        #[test]
        fn garbage_is_no_mapping(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Space::parse(&bytes);
        }
    }
}
