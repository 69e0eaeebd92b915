//! Elements of BPF maps that hold descriptors, set by `bpf(2)`. Never makes a map and never loads a program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// The part of `union bpf_attr` that BPF_MAP_UPDATE_ELEM takes.
#[repr(C)]
struct Element {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;

/// Has the element `key` of a map with keys and values of 32 bits hold `held`. The kernel keeps it
/// for as long as this descriptor of the map is open.
pub fn hold(map: impl AsFd, key: u32, held: BorrowedFd<'_>) -> io::Result<()> {
    let value = held.as_raw_fd();
    let element = Element {
        map_fd: map.as_fd().as_raw_fd() as u32,
        _padding: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads the structure, which is as long as it is told, and through it four
    // bytes each at `key` and `value`, which live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_UPDATE_ELEM,
            &raw const element,
            size_of::<Element>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}
