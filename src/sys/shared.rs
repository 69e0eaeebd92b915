//! Memory that we share with programs in the kernel, as words that both may change at any time. Never gives a plain reference to it.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The values of a BPF map that was made to be mapped (`BPF_F_MMAPABLE`), one behind the other;
/// unmapped on drop.
#[derive(Debug)]
pub struct SharedWords {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is accessed by atomics alone.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `count` words behind `fd`, readable and writable.
    pub fn map(fd: impl AsFd, count: usize) -> io::Result<SharedWords> {
        let bytes = count.checked_mul(size_of::<u64>());
        let bytes = bytes.and_then(NonZeroUsize::new).ok_or(Errno::EINVAL)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing; it is
        // unmapped only by `drop`.
        let address = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(SharedWords {
            words: address.cast(),
            count,
        })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, is `count` words long and lives as long as `self`;
        // every bit pattern is a valid word, and atomics may be changed by others.
        unsafe { slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping and every borrow of it ends with `self`.
        let _ = unsafe { munmap(self.words.cast(), self.count * size_of::<u64>()) };
    }
}
