//! Signal dispositions as they were handed to us. Never installs a handler.

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

/// Gives SIGCHLD its default action, which an ancestor may have changed: were it ignored, the
/// kernel would reap our children itself and nobody could wait for them.
pub fn keep_children() {
    // SAFETY: an all-zero sigaction is the default action without flags, and no other code of this
    // program relies on a handler for SIGCHLD.
    unsafe {
        let default_action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, &default_action, ptr::null_mut());
    }
}
