//! The ring buffer that the kernel fills for perf events: mapping it and taking out what is there. Never interprets a byte of it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use perf_event_open_sys::bindings::perf_event_mmap_page;

use super::memory::page_bytes;

/// One page of control data and, behind it, the data: a power of two of pages.
pub struct RingBuffer {
    control: NonNull<perf_event_mmap_page>,
    page_bytes: usize,
    data_bytes: usize,
}

impl RingBuffer {
    /// Maps a ring of at least `bytes` of data for the event behind `fd`. It is writable for us,
    /// which makes the kernel keep what we have not taken and drop what comes when it is full.
    ///
    /// Errors: EINVAL for an event that is inherited and follows its thread over all CPUs; EPERM
    /// when it takes more than `kernel.perf_event_mlock_kb` and RLIMIT_MEMLOCK allow.
    pub fn map(fd: impl AsFd, bytes: usize) -> io::Result<RingBuffer> {
        let page_bytes = page_bytes();
        let pages = bytes.div_ceil(page_bytes).checked_next_power_of_two();
        let data_bytes = pages.and_then(|pages| pages.checked_mul(page_bytes));
        let data_bytes = data_bytes.ok_or(Errno::ENOMEM)?;
        let length = data_bytes
            .checked_add(page_bytes)
            .and_then(NonZeroUsize::new);
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing; it is
        // unmapped only by `drop`.
        let address = unsafe {
            mmap(
                None,
                length.ok_or(Errno::ENOMEM)?,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(RingBuffer {
            control: address.cast(),
            page_bytes,
            data_bytes,
        })
    }

    /// Appends all that the kernel has written since the last time to `into`, in one piece even
    /// where it went round the end of the ring, and gives the room back to the kernel.
    ///
    /// After `linux/perf_event.h`: "User-space reading the `data_head` value should issue an
    /// smp_rmb(), after reading this value. When the mapping is PROT_WRITE the `data_tail` value
    /// should be written by userspace to reflect the last read data, after issueing an smp_mb()
    /// to separate the data read from the ->data_tail store." Acquire and release are enough.
    ///
    /// Errors: EIO when the kernel's head is where it cannot be.
    pub fn take(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let control = self.control.as_ptr();
        // SAFETY: the page is mapped as long as `self` lives; both words are aligned, and while
        // the references live both sides access them by whole atomic words.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let start = tail.load(Ordering::Relaxed);
        let there = end.wrapping_sub(start) as usize;
        if there > self.data_bytes {
            return Err(Errno::EIO.into());
        }
        let at = start as usize & (self.data_bytes - 1);
        let before_the_end = there.min(self.data_bytes - at);
        // SAFETY: both ranges lie in the data pages: `at` < `data_bytes`, the first ends at the
        // ring's end at the latest, and the second, not longer than the ring, begins at its
        // beginning. What lies between tail and head the kernel has written (acquire) and leaves
        // alone until the tail moves, which `&mut self` keeps for below.
        let (first, rest) = unsafe {
            let data = self.control.as_ptr().cast::<u8>().add(self.page_bytes);
            (
                slice::from_raw_parts(data.add(at), before_the_end),
                slice::from_raw_parts(data, there - before_the_end),
            )
        };
        into.extend_from_slice(first);
        into.extend_from_slice(rest);
        tail.store(end, Ordering::Release);
        Ok(())
    }
}

impl Drop for RingBuffer {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping of this length and nobody else knows its address.
        let _ = unsafe { munmap(self.control.cast(), self.page_bytes + self.data_bytes) };
    }
}
