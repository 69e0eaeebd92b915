//! `futex(2)`: waking. Never waits.

use std::io;
use std::sync::atomic::AtomicU32;

/// Wakes at most `count` threads of this process that wait on `word`; gives how many there were.
#[inline]
pub fn wake(word: &AtomicU32, count: i32) -> io::Result<u64> {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel takes the address of a live word as a key and does not write to it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
    u64::try_from(woken).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_so_nobody_wakes() {
        assert_eq!(wake(&AtomicU32::new(0), 1).unwrap(), 0);
    }
}
