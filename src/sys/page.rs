//! The memory page that the kernel shares for a perf event, and the counter instruction (`rdpmc`, `mrs`) that it allows. Never falls back to a system call.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, read_volatile};
use std::sync::atomic::{Ordering, compiler_fence};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use perf_event_open_sys::bindings::perf_event_mmap_page;

const PAGE_BYTES: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).unwrap();

/// The first page of an event's mapping. It is valid on the thread that the event counts.
pub struct Page(NonNull<perf_event_mmap_page>);

impl Page {
    /// Maps the page of the event behind `fd`, read-only.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Page> {
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing; it is
        // unmapped only by `drop`.
        let address = unsafe {
            mmap(
                None,
                PAGE_BYTES,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(Page(address.cast()))
    }

    /// Whether the kernel says that user space may read this counter by itself.
    pub fn is_user_readable(&self) -> bool {
        // SAFETY: the page is mapped as long as `self` lives, and every bit pattern of the
        // capabilities is valid in both arms of their union.
        unsafe {
            let capabilities = read_volatile(&raw const (*self.0.as_ptr()).__bindgen_anon_1);
            capabilities.__bindgen_anon_1.cap_user_rdpmc() == 1
        }
    }

    /// The event's count by the counter instruction; `None` while it is on no counter.
    ///
    /// After `linux/perf_event.h`, "Control data for the mmap() interface":
    ///
    /// ```text
    /// do {
    ///     seq = pc->lock;                          barrier()
    ///     idx = pc->index;  count = pc->offset;
    ///     if (pc->cap_user_rdpmc && idx) {
    ///         width = pc->pmc_width;
    ///         pmc = rdpmc(idx - 1);                sign-extended from width bits
    ///         count += pmc;
    ///     }                                        barrier()
    /// } while (pc->lock != seq);
    /// ```
    pub fn count(&self) -> Option<u64> {
        let page = self.0.as_ptr();
        loop {
            // SAFETY: the page is mapped as long as `self` lives; the kernel writes to it only on
            // this thread's CPU, between two equal values of `lock`. The counter instruction is
            // allowed while the index is not zero and the capability is set, which was checked.
            let (before, after, count) = unsafe {
                let before = read_volatile(&raw const (*page).lock);
                // Loads are not moved across fences; nor across the counter instruction, which
                // may touch memory as far as the compiler knows.
                compiler_fence(Ordering::SeqCst);
                let index = read_volatile(&raw const (*page).index);
                if index == 0 || !self.is_user_readable() {
                    return None;
                }
                let offset = read_volatile(&raw const (*page).offset);
                let width: u32 = read_volatile(&raw const (*page).pmc_width).into();
                let unused_bits = 64u32.checked_sub(width).filter(|_| width > 0)?;
                let raw = counter(index - 1)?;
                let extended = ((raw << unused_bits) as i64) >> unused_bits;
                compiler_fence(Ordering::SeqCst);
                (
                    before,
                    read_volatile(&raw const (*page).lock),
                    offset.wrapping_add(extended),
                )
            };
            if before == after {
                return Some(count as u64);
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping and nobody else knows its address.
        let _ = unsafe { munmap(self.0.cast(), PAGE_BYTES.get()) };
    }
}

/// Reads hardware counter `number`; `None` where this program knows no instruction for it.
///
/// # Safety
/// The kernel must allow the instruction for this counter now, else it is an illegal one.
#[cfg(target_arch = "x86_64")]
unsafe fn counter(number: u32) -> Option<u64> {
    let (low, high): (u32, u32);
    // SAFETY: allowed by the caller's promise; it changes two registers only.
    unsafe {
        std::arch::asm!("rdpmc", in("ecx") number, out("eax") low, out("edx") high, options(nostack, preserves_flags))
    };
    Some(u64::from(high) << 32 | u64::from(low))
}

/// Reads hardware counter `number`; `None` where this program knows no instruction for it.
///
/// # Safety
/// The kernel must allow the instruction for this counter now, else it is an illegal one.
#[cfg(target_arch = "aarch64")]
unsafe fn counter(number: u32) -> Option<u64> {
    macro_rules! event_counters {
        ($($n:literal)*) => {
            match number {
                $($n => {
                    let value: u64;
                    // SAFETY: allowed by the caller's promise; it changes one register only.
                    unsafe { std::arch::asm!(concat!("mrs {}, pmevcntr", $n, "_el0"), out(reg) value, options(nostack, preserves_flags)) };
                    Some(value)
                })*
                31 => {
                    let value: u64;
                    // SAFETY: as above; number 31 is the cycle counter.
                    unsafe { std::arch::asm!("mrs {}, pmccntr_el0", out(reg) value, options(nostack, preserves_flags)) };
                    Some(value)
                }
                _ => None,
            }
        };
    }
    event_counters!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30)
}

/// Reads hardware counter `number`; `None` where this program knows no instruction for it.
///
/// # Safety
/// None is needed here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn counter(_number: u32) -> Option<u64> {
    None
}
