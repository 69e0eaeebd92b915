//! The wish to stop: ^C, ^\, SIGTERM or SIGHUP, seen without losing one. Never ends the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use crate::sys;

/// Listens for the signals that ask us to stop, except those that our parent had us ignore
/// (`nohup`).
pub struct Interrupt {
    caught: Arc<AtomicUsize>,
    readable: UnixStream,
}

impl Interrupt {
    /// Begins to listen, for the rest of the process's life.
    pub fn listen() -> io::Result<Interrupt> {
        let caught = Arc::new(AtomicUsize::new(0));
        let (readable, writable) = UnixStream::pair()?;
        for signal in [
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGHUP,
        ] {
            if sys::signal::is_ignored(signal) {
                continue;
            }
            signal_hook::flag::register_usize(signal as i32, Arc::clone(&caught), signal as usize)?;
            signal_hook::low_level::pipe::register(signal as i32, writable.try_clone()?)?;
        }
        Ok(Interrupt { caught, readable })
    }

    /// The last signal that asked us to stop.
    pub fn caught(&self) -> Option<Signal> {
        Signal::try_from(self.caught.load(Ordering::Relaxed) as i32).ok()
    }
}

impl AsFd for Interrupt {
    /// Polls readable once a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
