//! Anonymous memory: mapping it, touching it page by page, giving it back. Never reads what is in it.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// Bytes of a base page.
pub fn page_bytes() -> usize {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .map_or(4096, |bytes| bytes as usize)
}

/// Bytes of a transparent huge page: what one full page table of 8-byte entries covers (2 MiB
/// with 4 KiB pages).
pub fn huge_page_bytes() -> usize {
    page_bytes() * (page_bytes() / 8)
}

/// Which pages a mapping is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Base pages, each on its first touch (`MADV_NOHUGEPAGE`).
    Base,
    /// Transparent huge pages where the kernel gives them (`MADV_HUGEPAGE`), aligned to them.
    Huge,
    /// All pages made by the call that maps them (`MAP_POPULATE`), of the size that the machine's
    /// setting of transparent huge pages gives.
    Populated,
    /// As the machine has it, each on its first touch.
    Default,
}

/// Private anonymous memory, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    mapped: NonNull<c_void>,
    mapped_bytes: usize,
    /// Distance of the first byte that may be touched from `mapped`.
    start: usize,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes`, readable and writable.
    #[inline]
    pub fn new(bytes: usize, pages: Pages) -> io::Result<Mapping> {
        let align = if pages == Pages::Huge {
            huge_page_bytes()
        } else {
            1
        };
        let mapped_bytes = bytes.checked_add(align - 1).ok_or(Errno::ENOMEM)?;
        let length = NonZeroUsize::new(mapped_bytes).ok_or(Errno::EINVAL)?;
        let populate = if pages == Pages::Populated {
            MapFlags::MAP_POPULATE
        } else {
            MapFlags::empty()
        };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let mapped =
            unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE | populate) }?;
        let start = mapped.addr().get().next_multiple_of(align) - mapped.addr().get();
        let mapping = Mapping {
            mapped,
            mapped_bytes,
            start,
            bytes,
        };
        match pages {
            Pages::Huge => mapping.advise(MmapAdvise::MADV_HUGEPAGE)?,
            Pages::Base => match mapping.advise(MmapAdvise::MADV_NOHUGEPAGE) {
                // A kernel built without huge pages: base pages are all that it has.
                Err(Errno::EINVAL) => {}
                result => result?,
            },
            Pages::Populated | Pages::Default => {}
        }
        Ok(mapping)
    }

    /// The address of the first byte that may be touched.
    pub fn address(&self) -> usize {
        self.mapped.addr().get() + self.start
    }

    /// Writes one byte at `offset`; past the end it writes nothing.
    #[inline]
    pub fn touch(&self, offset: usize) {
        if offset < self.bytes {
            // SAFETY: `start + offset` is within the mapping, which lives as long as `self` and
            // to whose bytes nobody holds a reference.
            unsafe {
                self.mapped
                    .cast::<u8>()
                    .add(self.start + offset)
                    .write_volatile(1)
            };
        }
    }

    /// Gives the memory back and says if the kernel refused; a drop does it in silence.
    #[inline]
    pub fn unmap(self) -> io::Result<()> {
        let mapping = std::mem::ManuallyDrop::new(self);
        Ok(mapping.release()?)
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is this mapping, and neither advice changes its contents.
        unsafe { madvise(self.mapped, self.mapped_bytes, advice) }
    }

    fn release(&self) -> nix::Result<()> {
        // SAFETY: the range is this mapping; both callers end its life with this call.
        unsafe { munmap(self.mapped, self.mapped_bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};
    use std::rc::Rc;

    /// Whether touching `pages` pages takes exactly `want` faults. Other tests of this process
    /// fork meanwhile, which makes pages fault again: what is never seen in many tries is not so.
    fn faults(want: i64, pages: usize, mut mapping: impl FnMut() -> Rc<Mapping>) -> bool {
        let faults = || {
            getrusage(UsageWho::RUSAGE_THREAD)
                .unwrap()
                .minor_page_faults()
        };
        (0..100).any(|_| {
            let mapping = mapping();
            let before = faults();
            (0..pages).for_each(|page| mapping.touch(page * page_bytes()));
            faults() - before == want
        })
    }

    #[test]
    fn every_base_page_faults_once() {
        let fresh = |pages| Rc::new(Mapping::new(64 * page_bytes(), pages).unwrap());
        assert!(faults(64, 64, || fresh(Pages::Base)));
        assert!(
            faults(64, 99, || fresh(Pages::Base)),
            "nothing past the end is touched"
        );
        assert!(faults(0, 64, || fresh(Pages::Populated)));
        let kept = fresh(Pages::Base);
        assert!(faults(0, 64, || Rc::clone(&kept)));
    }

    #[test]
    fn memory_is_given_back() {
        Mapping::new(1, Pages::Default).unwrap().unmap().unwrap();
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        assert_eq!(
            Mapping::new(0, Pages::Default).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(
            Mapping::new(usize::MAX, Pages::Huge)
                .unwrap_err()
                .raw_os_error(),
            Some(libc::ENOMEM)
        );
        assert_eq!(
            Mapping::new(usize::MAX / 2, Pages::Base)
                .unwrap_err()
                .raw_os_error(),
            Some(libc::ENOMEM)
        );
    }
}
