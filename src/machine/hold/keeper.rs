//! The keeper: a process of its own that gives the machine back when we ask for it, or when we are no more. Changes nothing else, and outlives every signal but SIGKILL.
//!
//! It is this program executed anew, in a session of its own, with one end of a socket as its
//! standard input and a copy of the lock as its output. It sleeps until the socket's other end
//! closes, by our wish or by our death, gives back what the journal says and tells what became of
//! it. The lock is free when both are gone.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::{Returned, give_back};
use crate::machine::Roots;
use crate::sys::descriptor;

/// The word by which we execute ourselves for it; no verb for users.
pub const VERB: &str = "__keep";

/// The descriptors of the socket and of the lock.
const SOCKET_FD: i32 = 0;
const LOCK_FD: i32 = 1;

/// What it says once nothing but SIGKILL ends it any more.
const READY: u8 = b'!';

/// Long after the slowest machine has written its settings: a keeper that takes longer is stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keeper that runs.
pub(super) struct Keeper {
    child: Child,
    socket: UnixStream,
}

/// What it tells at its end.
#[derive(Serialize, Deserialize)]
struct Report(Result<Vec<Returned>, String>);

impl Keeper {
    /// Starts one that shares `lock`, and waits until it is ready.
    pub(super) fn start(roots: &Roots, lock: &Lock) -> io::Result<Keeper> {
        let (ours, its) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg0("poise")
            .args([VERB, &serde_json::to_string(roots)?])
            .env_clear()
            .stdin(OwnedFd::from(its))
            .stdout(lock.share()?)
            .spawn()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut keeper = Keeper {
            child,
            socket: ours,
        };
        let mut ready = [0];
        if let Err(error) = keeper.socket.read_exact(&mut ready) {
            // It shall not wake up later and give back what a later one keeps.
            let _ = keeper.child.kill();
            let _ = keeper.child.wait();
            return Err(error);
        }
        Ok(keeper)
    }

    /// Asks it to give everything back, and gives its report; nothing when it could not do it.
    pub(super) fn finish(mut self) -> Option<Result<Vec<Returned>, String>> {
        let mut text = String::new();
        let heard = self
            .socket
            .shutdown(Shutdown::Write)
            .and_then(|()| self.socket.read_to_string(&mut text));
        if heard.is_err() {
            // It is stopped, or worse: then it shall not wake up later and give back once more.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        serde_json::from_str(&text)
            .ok()
            .map(|Report(returned)| returned)
    }
}

/// The keeper's life.
pub fn serve(roots: &str) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    // A directory that we stand in cannot be unmounted.
    std::env::set_current_dir("/")?;
    let roots: Roots = serde_json::from_str(roots)?;
    let mut socket = descriptor::inherited(SOCKET_FD)?;
    let _lock = descriptor::inherited(LOCK_FD)?;
    socket.write_all(&[READY])?;
    socket.read_to_end(&mut Vec::new())?;
    let report = Report(give_back(&roots).map_err(|error| error.to_string()));
    if socket
        .write_all(serde_json::to_string(&report)?.as_bytes())
        .is_err()
    {
        // Nobody is left who could tell it.
        return io::stderr().write_all(orphans_words(&roots, &report).as_bytes());
    }
    Ok(())
}

/// What the user whose program was killed should know; empty when all is well.
fn orphans_words(roots: &Roots, Report(returned): &Report) -> String {
    let complaints = match returned {
        Ok(returned) => returned
            .iter()
            .filter_map(|one| one.complaint(roots))
            .collect(),
        Err(error) => vec![error.clone()],
    };
    complaints
        .iter()
        .map(|complaint| format!("poise: {complaint}\n"))
        .collect()
}
