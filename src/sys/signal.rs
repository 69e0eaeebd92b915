//! Signal dispositions as they were handed to us. Never changes one.

use std::ptr;

use nix::sys::signal::Signal;

/// Whether `signal` is ignored now, as after `nohup`.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is a plain C structure for which all zeros is a valid value; with a null
    // new action the call only writes the present one into it.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, ptr::null(), &mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    }
}
