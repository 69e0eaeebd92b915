//! Descriptors that were handed to us across an exec. Never opens a file.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Takes over the descriptor `fd` that our parent promised us; close-on-exec from now on.
///
/// Errors: EBADF when there is no such descriptor.
pub fn inherited(fd: i32) -> io::Result<File> {
    // SAFETY: fcntl on a number that may be no descriptor fails with EBADF and touches nothing.
    let marked = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if marked < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and by our parent's promise it is for us alone to own.
    Ok(unsafe { File::from_raw_fd(fd) })
}
