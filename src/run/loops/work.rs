//! Loops made ready, and run: the operations themselves. Never chooses how many.

use std::ffi::{CStr, CString};
use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, open, splice};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{Mode, stat};
use nix::unistd::{self, Whence, getppid, lseek, pipe2};
use procfs::Current;

use super::spec::{Kind, LoopError, LoopSpec, PIPE_BYTES};
use crate::sample::Cause;
use crate::sys::clock::{monotonic_by_syscall, monotonic_ns};
use crate::sys::echo::Echo;
use crate::sys::fork::{Program, fork_wait};
use crate::sys::futex;
use crate::sys::memory::{Mapping, Pages, page_bytes};
use crate::sys::spin::spin;

/// Bytes of the file that `write/to=file` writes over again and again.
const FILE_BYTES: usize = 1 << 20;

/// A loop that is ready to run. Dropping it leaves no process, no file and no mapping behind.
///
/// It must be run by the thread that made it ready: partner processes die with that thread.
#[derive(Debug)]
pub struct Prepared {
    of: String,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Write(Writer),
    Read { from: OwnedFd, buffer: Vec<u8> },
    Getppid,
    ClockByVdso,
    ClockBySyscall,
    OpenClose(CString),
    Stat(CString),
    Pipe(Echo),
    Futex(AtomicU32),
    MmapMunmap { bytes: usize },
    ForkWait,
    VforkExec(Box<Program>),
    Heap(Heap),
    Spin,
}

impl LoopSpec {
    /// Opens, maps, forks whatever the loop needs and tries the operation once where it can fail
    /// for want of something. Files are made in the directory `scratch`, without a name.
    pub fn prepare(&self, scratch: &Path) -> Result<Prepared, LoopError> {
        let of = self.to_string();
        let system = |action: &str| {
            let (of, action) = (of.clone(), action.to_owned());
            move |source: io::Error| LoopError::System { of, action, source }
        };
        let work = match self.info().kind {
            Kind::Write => Work::Write(match self.text("to") {
                "file" => Writer::to_file(self.number("size"), scratch)
                    .map_err(system(&format!("make a file in {}", scratch.display())))?,
                "pipe" => Writer::to_pipe(self.number("size")).map_err(system("make a pipe"))?,
                _ => Writer::to_null(self.number("size")).map_err(system("open /dev/null"))?,
            }),
            Kind::Read => Work::Read {
                from: open_existing(c"/dev/zero", OFlag::O_RDONLY)
                    .map_err(system("open /dev/zero"))?,
                buffer: vec![0; self.number("size") as usize],
            },
            Kind::Getppid => Work::Getppid,
            Kind::ClockGettime if self.text("via") == "syscall" => Work::ClockBySyscall,
            Kind::ClockGettime => Work::ClockByVdso,
            Kind::OpenClose => {
                Work::OpenClose(path(self.text("file")).map_err(system("use the path"))?)
            }
            Kind::Stat => Work::Stat(path(self.text("file")).map_err(system("use the path"))?),
            Kind::Pipe => Work::Pipe(Echo::start().map_err(system("start the partner process"))?),
            Kind::Futex => Work::Futex(AtomicU32::new(0)),
            Kind::MmapMunmap => Work::MmapMunmap {
                bytes: self.number("size") as usize,
            },
            Kind::ForkWait => Work::ForkWait,
            Kind::VforkExec => {
                let program = path(self.text("program")).and_then(|path| Program::new(&path));
                Work::VforkExec(Box::new(program.map_err(system("make ready to start it"))?))
            }
            Kind::Heap => Work::Heap(Heap::new(self)?),
            Kind::Spin => Work::Spin,
        };
        let mut prepared = Prepared { of, work };
        // What depends on a path or a limit that the user chose is tried here, so that it does not
        // fail in the middle of a measurement.
        if matches!(
            self.info().kind,
            Kind::OpenClose | Kind::Stat | Kind::MmapMunmap | Kind::VforkExec
        ) {
            prepared.run(1)?;
        }
        Ok(prepared)
    }
}

impl Prepared {
    /// Runs exactly `iterations` operations, one after the other, and stops at the first that fails.
    pub fn run(&mut self, iterations: u64) -> Result<(), LoopError> {
        let result = match self.work {
            // A loop round this one would be counted too.
            Work::Spin => {
                spin(iterations);
                Ok(())
            }
            _ => self.work.each(iterations, &mut Bare),
        };
        result.map_err(|source| self.failed(source))
    }

    /// The same with every operation timed on its own: `sink` gets its nanoseconds of
    /// `CLOCK_MONOTONIC`, which contain the cost of one reading of that clock.
    ///
    /// Work that is shared between operations is left out: emptying the pipe, going back to the
    /// start of the file, and mapping and unmapping the heap (with `pages=populate`, where the
    /// mapping is all of the work, what remains is the touch alone).
    pub fn run_timed(&mut self, iterations: u64, sink: impl FnMut(u64)) -> Result<(), LoopError> {
        self.work
            .each(iterations, &mut Timed(sink))
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> LoopError {
        LoopError::System {
            of: self.of.clone(),
            action: "the operation failed".to_owned(),
            source,
        }
    }
}

/// How one operation is taken.
trait Step {
    fn take(&mut self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

/// By itself.
struct Bare;

impl Step for Bare {
    #[inline(always)]
    fn take(&mut self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        operation()
    }
}

/// Between two readings of the clock, whose difference goes to the sink.
struct Timed<F>(F);

impl<F: FnMut(u64)> Step for Timed<F> {
    #[inline(always)]
    fn take(&mut self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let start_ns = monotonic_ns();
        operation()?;
        let end_ns = monotonic_ns();
        (self.0)(end_ns.saturating_sub(start_ns));
        Ok(())
    }
}

/// The loop: compiled once for every operation and every kind of step, with nothing in it but them.
#[inline(always)]
fn drive(
    count: u64,
    step: &mut impl Step,
    mut operation: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    for _ in 0..count {
        step.take(&mut operation)?;
    }
    Ok(())
}

impl Work {
    fn each(&mut self, count: u64, step: &mut impl Step) -> io::Result<()> {
        match self {
            Work::Write(writer) => writer.each(count, step),
            Work::Read { from, buffer } => {
                let size = buffer.len();
                drive(count, step, || whole(unistd::read(&*from, buffer), size))
            }
            Work::Getppid => drive(count, step, || {
                black_box(getppid());
                Ok(())
            }),
            Work::ClockByVdso => drive(count, step, || {
                // The call stays though nobody looks at what it gave.
                let _ = monotonic_ns();
                Ok(())
            }),
            Work::ClockBySyscall => drive(count, step, || {
                black_box(monotonic_by_syscall()?);
                Ok(())
            }),
            Work::OpenClose(path) => drive(count, step, || {
                // A FIFO without a writer is opened too, instead of waited for.
                let file = open_existing(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
                Ok(unistd::close(file)?)
            }),
            Work::Stat(path) => drive(count, step, || {
                black_box(stat(path.as_c_str())?);
                Ok(())
            }),
            Work::Pipe(echo) => drive(count, step, || echo.round_trip()),
            Work::Futex(word) => drive(count, step, || futex::wake(word, 1).map(drop)),
            Work::MmapMunmap { bytes } => drive(count, step, || {
                Mapping::new(*bytes, Pages::Default)?.unmap()
            }),
            Work::ForkWait => drive(count, step, fork_wait),
            Work::VforkExec(program) => drive(count, step, || program.spawn_wait()),
            Work::Heap(heap) => heap.each(count, step),
            Work::Spin => drive(count, step, || {
                spin(1);
                Ok(())
            }),
        }
    }
}

/// Writes that never block and never grow anything: after `pass` of them, what was written is
/// written over or thrown away.
#[derive(Debug)]
struct Writer {
    to: OwnedFd,
    buffer: Vec<u8>,
    pass: u64,
    written: u64,
    after_pass: AfterPass,
}

#[derive(Debug)]
enum AfterPass {
    Nothing,
    /// Goes back to the start of the file.
    Rewind,
    /// Moves all that is in the pipe to `/dev/null`, page by page and without copying.
    Empty {
        out: OwnedFd,
        null: OwnedFd,
    },
}

impl Writer {
    fn to_null(size: u64) -> io::Result<Writer> {
        let to = open_existing(c"/dev/null", OFlag::O_WRONLY)?;
        Ok(Writer {
            to,
            buffer: vec![0; size as usize],
            pass: u64::MAX,
            written: 0,
            after_pass: AfterPass::Nothing,
        })
    }

    /// A file without a name, written once from end to end so that its pages are in the cache.
    fn to_file(size: u64, scratch: &Path) -> io::Result<Writer> {
        let to = unnamed_file(scratch)?;
        let pass = (FILE_BYTES as u64 / size).max(1);
        let buffer = vec![0; size as usize];
        let mut writer = Writer {
            to,
            buffer,
            pass,
            written: 0,
            after_pass: AfterPass::Rewind,
        };
        writer.each(pass, &mut Bare)?;
        Ok(writer)
    }

    fn to_pipe(size: u64) -> io::Result<Writer> {
        // Should the pipe hold less than was reckoned, a write says EAGAIN instead of waiting for
        // a reader that does not exist.
        let (out, to) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut capacity = fcntl(&to, FcntlArg::F_GETPIPE_SZ)? as u64;
        if capacity < PIPE_BYTES {
            // A user with many pipes gets small ones.
            capacity = fcntl(&to, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32))? as u64;
        }
        // A pipe is a ring of pages, and no write is sure to fill up the page of the one before.
        let page = page_bytes() as u64;
        let pass = (capacity / page) * (page / size).max(1) / size.div_ceil(page);
        let null = open_existing(c"/dev/null", OFlag::O_WRONLY)?;
        let after_pass = AfterPass::Empty { out, null };
        Ok(Writer {
            to,
            buffer: vec![0; size as usize],
            pass,
            written: 0,
            after_pass,
        })
    }

    fn each(&mut self, count: u64, step: &mut impl Step) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let count = left.min(self.pass - self.written);
            drive(count, step, || {
                whole(unistd::write(&self.to, &self.buffer), self.buffer.len())
            })?;
            left -= count;
            self.written += count;
            if self.written == self.pass {
                self.end_pass()?;
                self.written = 0;
            }
        }
        Ok(())
    }

    fn end_pass(&self) -> io::Result<()> {
        match &self.after_pass {
            AfterPass::Nothing => {}
            AfterPass::Rewind => {
                lseek(&self.to, 0, Whence::SeekSet)?;
            }
            AfterPass::Empty { out, null } => {
                let mut left = self.pass as usize * self.buffer.len();
                while left > 0 {
                    left -= match splice(out, None, null, None, left, SpliceFFlags::empty())? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        moved => moved.min(left),
                    };
                }
            }
        }
        Ok(())
    }
}

/// Mappings touched page by page.
#[derive(Debug)]
struct Heap {
    bytes: usize,
    page_bytes: usize,
    pages: Pages,
    /// Whether the first mapping stays: the second pass and all later ones.
    keep: bool,
    mapping: Option<Mapping>,
    /// Where the next touch goes.
    offset: usize,
}

impl Heap {
    fn new(spec: &LoopSpec) -> Result<Heap, LoopError> {
        let of = spec.to_string();
        let bytes = spec.heap_bytes();
        let available = procfs::Meminfo::current()
            .ok()
            .and_then(|memory| memory.mem_available);
        if let Some(available) = available.filter(|&available| available < bytes) {
            let why = format!("only {} MiB of memory are available", available >> 20);
            return Err(LoopError::Refused {
                of,
                cause: Cause::new(why).cure("choose a smaller MiB="),
            });
        }
        let pages = spec.pages();
        let keep = spec.text("pass") == "2";
        let mut heap = Heap {
            bytes: bytes as usize,
            page_bytes: page_bytes(),
            pages,
            keep,
            mapping: None,
            offset: 0,
        };
        let wanted = spec.granularity();
        match (keep || pages == Pages::Huge)
            .then(|| heap.first_pass(wanted))
            .transpose()
        {
            Ok(Some(faults)) if pages == Pages::Huge && faults > wanted / 16 => {
                let why =
                    format!("the kernel gave no huge pages ({faults} faults for {wanted} pages)");
                let cure =
                    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, or free memory";
                Err(LoopError::Refused {
                    of,
                    cause: Cause::new(why).cure(cure),
                })
            }
            Ok(_) => Ok(heap),
            Err(source) => Err(LoopError::System {
                of,
                action: "map memory".to_owned(),
                source,
            }),
        }
    }

    /// Touches one mapping throughout; gives the faults that it took.
    fn first_pass(&mut self, pages: u64) -> io::Result<u64> {
        let faults =
            || Ok::<_, Errno>(getrusage(UsageWho::RUSAGE_THREAD)?.minor_page_faults() as u64);
        let before = faults()?;
        self.each(pages, &mut Bare)?;
        Ok(faults()? - before)
    }

    fn each(&mut self, count: u64, step: &mut impl Step) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let mapping = match self.mapping.take() {
                Some(mapping) => mapping,
                None => Mapping::new(self.bytes, self.pages)?,
            };
            let count = left.min(((self.bytes - self.offset) / self.page_bytes) as u64);
            let (mut offset, page_bytes) = (self.offset, self.page_bytes);
            drive(count, step, || {
                mapping.touch(offset);
                offset += page_bytes;
                Ok(())
            })?;
            left -= count;
            self.offset = offset % self.bytes;
            if self.offset == 0 && !self.keep {
                mapping.unmap()?;
            } else {
                self.mapping = Some(mapping);
            }
        }
        Ok(())
    }
}

/// An operation moved all its bytes, or it failed.
#[inline(always)]
fn whole(moved: nix::Result<usize>, wanted: usize) -> io::Result<()> {
    match moved {
        Ok(bytes) if bytes == wanted => Ok(()),
        other => Err(not_whole(other, wanted)),
    }
}

#[cold]
fn not_whole(moved: nix::Result<usize>, wanted: usize) -> io::Error {
    match moved {
        Ok(bytes) => io::Error::other(format!("only {bytes} of {wanted} bytes were moved")),
        Err(errno) => errno.into(),
    }
}

#[inline]
fn open_existing(path: &CStr, access: OFlag) -> io::Result<OwnedFd> {
    Ok(open(path, access | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// A new file in `directory` that has no name, so that nothing can leave it behind.
fn unnamed_file(directory: &Path) -> io::Result<OwnedFd> {
    match open(directory, FILE_ACCESS | OFlag::O_TMPFILE, FILE_MODE) {
        // Not every file system can.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => unlinked_file(directory),
        result => Ok(result?),
    }
}

/// The same with a name for a moment.
fn unlinked_file(directory: &Path) -> io::Result<OwnedFd> {
    let path = directory.join(format!("poise-{}", std::process::id()));
    let file = open(
        &path,
        FILE_ACCESS | OFlag::O_CREAT | OFlag::O_EXCL,
        FILE_MODE,
    )?;
    unistd::unlink(&path)?;
    Ok(file)
}

const FILE_ACCESS: OFlag = OFlag::O_RDWR.union(OFlag::O_CLOEXEC);
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

fn path(text: &str) -> io::Result<CString> {
    Ok(CString::new(text)?)
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test says what it could not run")]
mod tests;
