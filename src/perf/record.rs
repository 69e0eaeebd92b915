//! The records that the kernel writes into a ring buffer (`PERF_RECORD_*`), decoded from bytes to types. Pure: never reads a ring and never looks an address up.

use std::ffi::OsStr;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::sys::perf_event::bindings as abi;

/// What a record of an overflow has beside what each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// The data address that the event was about.
    pub address: bool,
    /// The callers.
    pub callchain: bool,
}

/// One `PERF_RECORD_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerfRecord {
    /// When and where it happened.
    pub stamp: Stamp,
    /// What happened.
    pub body: Body,
}

/// When and where something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The kernel's number of the event that told it.
    pub id: u64,
    /// The process that was on the CPU, by its number in our pid namespace; 0 when it has none
    /// there, -1 when it was about to end.
    pub pid: i32,
    /// The thread that was on the CPU; 0 and -1 as above.
    pub tid: i32,
    /// Nanoseconds of `CLOCK_MONOTONIC`, as in [`clock::monotonic_ns`](crate::sys::clock::monotonic_ns).
    pub time_ns: u64,
    /// The CPU.
    pub cpu: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The event's count went past its period: `PERF_RECORD_SAMPLE`.
    Overflow(Overflow),
    /// Before this, records found no room in the ring.
    Lost {
        /// So many.
        count: u64,
    },
    /// The event came so often that the kernel stopped it until its next tick.
    Throttled,
    /// The kernel started it again.
    Unthrottled,
    /// Memory was mapped.
    Mapped(Mapped),
    /// A thread was renamed.
    Comm {
        /// Its process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// Its new name.
        name: String,
        /// Whether it was by an exec.
        exec: bool,
    },
    /// A process or thread was made.
    Fork {
        /// The new one.
        pid: i32,
        /// The process that made it.
        parent_pid: i32,
        /// The new one's thread.
        tid: i32,
        /// The thread that made it.
        parent_tid: i32,
    },
    /// A thread ended.
    Exit {
        /// Its process.
        pid: i32,
        /// The thread.
        tid: i32,
    },
    /// Anything else.
    Other {
        /// `PERF_RECORD_*`
        kind: u32,
        /// What stands between header and stamp.
        bytes: Vec<u8>,
    },
}

/// An event's count went past its period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// What the CPU was doing.
    pub mode: Mode,
    /// The instruction at or a little behind the one that did it: [`Precise`](super::event::Precise)
    /// tells how near.
    pub ip: u64,
    /// The data address, when it was asked for; 0 for events that have none.
    pub address: Option<u64>,
    /// How many counts this one stands for.
    pub period: u64,
    /// The instruction itself and its callers, the innermost first; empty when not asked for.
    /// In user mode they are found by frame pointers: without these, they end early or are wrong.
    pub callchain: Vec<Frame>,
}

/// One place in a callchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it is.
    pub mode: Mode,
    /// The instruction, or where a call returns to.
    pub ip: u64,
}

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It runs a program.
    User,
    /// It runs the kernel.
    Kernel,
    /// It runs a hypervisor.
    Hypervisor,
    /// It runs a virtual machine.
    Guest,
    /// The kernel does not say.
    Unknown,
}

/// Memory was mapped: `PERF_RECORD_MMAP2`. What it replaces is unmapped; unmapping alone is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Whose memory.
    pub pid: i32,
    /// By which thread.
    pub tid: i32,
    /// The first address.
    pub address: u64,
    /// Its length.
    pub bytes: u64,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// `PROT_READ` and its kin, of mmap(2).
    pub protection: u32,
    /// `MAP_SHARED` and its kin, of mmap(2).
    pub flags: u32,
    /// The file; `//anon`, `[heap]`, `[stack]`, `[vdso]` where there is none.
    pub path: PathBuf,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of kind {kind} and {bytes} bytes is not as the kernel writes them")]
pub struct Malformed {
    /// `PERF_RECORD_*`
    pub kind: u32,
    /// How long it is or claims to be.
    pub bytes: usize,
}

impl Layout {
    /// The `sample_type` of an event whose records have this layout.
    pub fn sample_type(self) -> u64 {
        let always = abi::PERF_SAMPLE_IDENTIFIER
            | abi::PERF_SAMPLE_IP
            | abi::PERF_SAMPLE_TID
            | abi::PERF_SAMPLE_TIME
            | abi::PERF_SAMPLE_CPU
            | abi::PERF_SAMPLE_PERIOD;
        let chosen = |wanted, bit| if wanted { u64::from(bit) } else { 0 };
        u64::from(always)
            | chosen(self.address, abi::PERF_SAMPLE_ADDR)
            | chosen(self.callchain, abi::PERF_SAMPLE_CALLCHAIN)
    }

    /// The records that `bytes` consist of, in order. One that is malformed is told and passed
    /// over; when its length is wrong, so that the next one cannot be found, it is the last.
    ///
    /// ```text
    /// struct perf_event_header {        perf_event_open(2)
    ///     __u32   type;
    ///     __u16   misc;
    ///     __u16   size;                 of the whole record
    /// };
    /// ```
    pub fn decode(self, bytes: &[u8]) -> impl Iterator<Item = Result<PerfRecord, Malformed>> {
        let mut rest = bytes;
        iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let Some((header, record, next)) = split_first(rest) else {
                let bytes = rest.len();
                rest = &[];
                return Some(Err(Malformed { kind: 0, bytes }));
            };
            rest = next;
            Some(self.record(header, record).ok_or(Malformed {
                kind: header.kind,
                bytes: HEADER_BYTES + record.len(),
            }))
        })
    }

    fn record(self, header: Header, bytes: &[u8]) -> Option<PerfRecord> {
        if header.kind == abi::PERF_RECORD_SAMPLE {
            return self.overflow(header, Fields(bytes));
        }
        let (bytes, stamp) = bytes.split_at_checked(bytes.len().checked_sub(STAMP_BYTES)?)?;
        Some(PerfRecord {
            stamp: Stamp::decode(Fields(stamp))?,
            body: body(header, bytes)?,
        })
    }

    /// ```text
    /// struct {                          perf_event_open(2), PERF_RECORD_SAMPLE
    ///     struct perf_event_header header;
    ///     u64    sample_id;             if PERF_SAMPLE_IDENTIFIER
    ///     u64    ip;                    if PERF_SAMPLE_IP
    ///     u32    pid, tid;              if PERF_SAMPLE_TID
    ///     u64    time;                  if PERF_SAMPLE_TIME
    ///     u64    addr;                  if PERF_SAMPLE_ADDR
    ///     u64    id;                    if PERF_SAMPLE_ID           never asked for
    ///     u64    stream_id;             if PERF_SAMPLE_STREAM_ID    never asked for
    ///     u32    cpu, res;              if PERF_SAMPLE_CPU
    ///     u64    period;                if PERF_SAMPLE_PERIOD
    ///     struct read_format v;         if PERF_SAMPLE_READ         never asked for
    ///     u64    nr;                    if PERF_SAMPLE_CALLCHAIN
    ///     u64    ips[nr];               if PERF_SAMPLE_CALLCHAIN
    ///     …                             nothing more is asked for
    /// };
    /// ```
    fn overflow(self, header: Header, mut fields: Fields<'_>) -> Option<PerfRecord> {
        let id = fields.u64()?;
        let ip = fields.u64()?;
        let (pid, tid) = (fields.i32()?, fields.i32()?);
        let time_ns = fields.u64()?;
        let address = match self.address {
            true => Some(fields.u64()?),
            false => None,
        };
        let (cpu, _res) = (fields.u32()?, fields.u32()?);
        let period = fields.u64()?;
        let callchain = match self.callchain {
            true => fields.callchain()?,
            false => Vec::new(),
        };
        let stamp = Stamp {
            id,
            pid,
            tid,
            time_ns,
            cpu,
        };
        let mode = match u32::from(header.misc) & abi::PERF_RECORD_MISC_CPUMODE_MASK {
            abi::PERF_RECORD_MISC_USER => Mode::User,
            abi::PERF_RECORD_MISC_KERNEL => Mode::Kernel,
            abi::PERF_RECORD_MISC_HYPERVISOR => Mode::Hypervisor,
            abi::PERF_RECORD_MISC_GUEST_KERNEL | abi::PERF_RECORD_MISC_GUEST_USER => Mode::Guest,
            _ => Mode::Unknown,
        };
        let body = Body::Overflow(Overflow {
            mode,
            ip,
            address,
            period,
            callchain,
        });
        Some(PerfRecord { stamp, body })
    }
}

const HEADER_BYTES: usize = 8;
const STAMP_BYTES: usize = 32;

#[derive(Clone, Copy)]
struct Header {
    kind: u32,
    misc: u16,
}

/// The first record's header, the record without it, and what follows.
fn split_first(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let mut fields = Fields(bytes);
    let kind = fields.u32()?;
    let (misc, size) = (fields.u16()?, fields.u16()?);
    let length = usize::from(size).checked_sub(HEADER_BYTES)?;
    let (record, next) = fields.0.split_at_checked(length)?;
    Some((Header { kind, misc }, record, next))
}

/// Everything but a `PERF_RECORD_SAMPLE`, without header and stamp.
///
/// ```text
/// perf_event_open(2)
/// PERF_RECORD_LOST          u64 id; u64 lost;
/// PERF_RECORD_LOST_SAMPLES  u64 lost;
/// PERF_RECORD_COMM          u32 pid, tid; char comm[];
/// PERF_RECORD_FORK, _EXIT   u32 pid, ppid; u32 tid, ptid; u64 time;
/// PERF_RECORD_THROTTLE, _UNTHROTTLE
///                           u64 time; u64 id; u64 stream_id;
/// PERF_RECORD_MMAP2         u32 pid, tid; u64 addr; u64 len; u64 pgoff;
///                           u32 maj, min; u64 ino; u64 ino_generation;
///                           u32 prot, flags; char filename[];
/// ```
fn body(header: Header, bytes: &[u8]) -> Option<Body> {
    let mut fields = Fields(bytes);
    Some(match header.kind {
        abi::PERF_RECORD_LOST => {
            let _id = fields.u64()?;
            Body::Lost {
                count: fields.u64()?,
            }
        }
        abi::PERF_RECORD_LOST_SAMPLES => Body::Lost {
            count: fields.u64()?,
        },
        abi::PERF_RECORD_THROTTLE => Body::Throttled,
        abi::PERF_RECORD_UNTHROTTLE => Body::Unthrottled,
        abi::PERF_RECORD_COMM => Body::Comm {
            pid: fields.i32()?,
            tid: fields.i32()?,
            name: fields.text().to_string_lossy().into_owned(),
            exec: u32::from(header.misc) & abi::PERF_RECORD_MISC_COMM_EXEC != 0,
        },
        abi::PERF_RECORD_FORK => Body::Fork {
            pid: fields.i32()?,
            parent_pid: fields.i32()?,
            tid: fields.i32()?,
            parent_tid: fields.i32()?,
        },
        abi::PERF_RECORD_EXIT => {
            let (pid, _parent_pid) = (fields.i32()?, fields.i32()?);
            Body::Exit {
                pid,
                tid: fields.i32()?,
            }
        }
        abi::PERF_RECORD_MMAP2 => {
            let (pid, tid) = (fields.i32()?, fields.i32()?);
            let (address, bytes, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let _device_and_inode = (fields.u64()?, fields.u64()?, fields.u64()?);
            let (protection, flags) = (fields.u32()?, fields.u32()?);
            Body::Mapped(Mapped {
                pid,
                tid,
                address,
                bytes,
                offset,
                protection,
                flags,
                path: fields.text().into(),
            })
        }
        kind => Body::Other {
            kind,
            bytes: bytes.to_owned(),
        },
    })
}

impl Stamp {
    /// ```text
    /// struct sample_id {                perf_event_open(2), sample_id_all
    ///     { u32 pid, tid; }             if PERF_SAMPLE_TID
    ///     { u64 time; }                 if PERF_SAMPLE_TIME
    ///     { u64 id; }                   if PERF_SAMPLE_ID           never asked for
    ///     { u64 stream_id; }            if PERF_SAMPLE_STREAM_ID    never asked for
    ///     { u32 cpu, res; }             if PERF_SAMPLE_CPU
    ///     { u64 id; }                   if PERF_SAMPLE_IDENTIFIER
    /// };
    /// ```
    fn decode(mut fields: Fields<'_>) -> Option<Stamp> {
        let (pid, tid) = (fields.i32()?, fields.i32()?);
        let time_ns = fields.u64()?;
        let (cpu, _res) = (fields.u32()?, fields.u32()?);
        let id = fields.u64()?;
        Some(Stamp {
            id,
            pid,
            tid,
            time_ns,
            cpu,
        })
    }
}

/// What is left of a record; each call takes from its front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// All that is left, up to the first NUL: the kernel fills up to whole words.
    fn text(self) -> &'a OsStr {
        let end = self.0.iter().position(|&byte| byte == 0);
        OsStr::from_bytes(&self.0[..end.unwrap_or(self.0.len())])
    }

    /// `u64 nr; u64 ips[nr];`, where those from `PERF_CONTEXT_MAX` on are no addresses but tell
    /// the mode of what follows.
    fn callchain(&mut self) -> Option<Vec<Frame>> {
        let count = self.u64()?;
        let mut mode = Mode::Unknown;
        let mut frames = Vec::new();
        // A count beyond the record ends at its end, before it could take memory.
        for _ in 0..count {
            let ip = self.u64()?;
            match ip {
                abi::PERF_CONTEXT_USER => mode = Mode::User,
                abi::PERF_CONTEXT_KERNEL => mode = Mode::Kernel,
                abi::PERF_CONTEXT_HV => mode = Mode::Hypervisor,
                abi::PERF_CONTEXT_GUEST
                | abi::PERF_CONTEXT_GUEST_KERNEL
                | abi::PERF_CONTEXT_GUEST_USER => mode = Mode::Guest,
                abi::PERF_CONTEXT_MAX.. => mode = Mode::Unknown,
                ip => frames.push(Frame { mode, ip }),
            }
        }
        Some(frames)
    }
}

#[cfg(test)]
mod tests;
