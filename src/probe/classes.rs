//! Classes of syscalls, as strace names them, and the lists that users write. Pure knowledge: asks no kernel.

use super::profile::Number;

/// A class: its name behind `%`, and the syscalls in it.
type Class = (&'static str, &'static [&'static str]);

const CLASSES: [Class; 7] = [
    (
        "file",
        &[
            "access",
            "acct",
            "chdir",
            "chmod",
            "chown",
            "chroot",
            "creat",
            "execve",
            "execveat",
            "faccessat",
            "faccessat2",
            "fanotify_mark",
            "fchmodat",
            "fchmodat2",
            "fchownat",
            "fsconfig",
            "fspick",
            "futimesat",
            "getcwd",
            "getxattr",
            "getxattrat",
            "inotify_add_watch",
            "lchown",
            "lgetxattr",
            "link",
            "linkat",
            "listxattr",
            "listxattrat",
            "llistxattr",
            "lremovexattr",
            "lsetxattr",
            "lstat",
            "mkdir",
            "mkdirat",
            "mknod",
            "mknodat",
            "mount",
            "mount_setattr",
            "move_mount",
            "name_to_handle_at",
            "newfstatat",
            "open",
            "openat",
            "openat2",
            "open_tree",
            "pivot_root",
            "quotactl",
            "readlink",
            "readlinkat",
            "removexattr",
            "removexattrat",
            "rename",
            "renameat",
            "renameat2",
            "rmdir",
            "setxattr",
            "setxattrat",
            "stat",
            "statfs",
            "statx",
            "swapoff",
            "swapon",
            "symlink",
            "symlinkat",
            "truncate",
            "umount2",
            "unlink",
            "unlinkat",
            "uselib",
            "utime",
            "utimensat",
            "utimes",
        ],
    ),
    (
        "process",
        &[
            "clone",
            "clone3",
            "execve",
            "execveat",
            "exit",
            "exit_group",
            "fork",
            "kill",
            "pidfd_open",
            "pidfd_send_signal",
            "rt_sigqueueinfo",
            "rt_tgsigqueueinfo",
            "tgkill",
            "tkill",
            "unshare",
            "vfork",
            "wait4",
            "waitid",
        ],
    ),
    (
        "network",
        &[
            "accept",
            "accept4",
            "bind",
            "connect",
            "getpeername",
            "getsockname",
            "getsockopt",
            "listen",
            "recvfrom",
            "recvmmsg",
            "recvmsg",
            "sendfile",
            "sendmmsg",
            "sendmsg",
            "sendto",
            "setsockopt",
            "shutdown",
            "socket",
            "socketpair",
        ],
    ),
    (
        "signal",
        &[
            "kill",
            "pause",
            "rt_sigaction",
            "rt_sigpending",
            "rt_sigprocmask",
            "rt_sigqueueinfo",
            "rt_sigreturn",
            "rt_sigsuspend",
            "rt_sigtimedwait",
            "rt_tgsigqueueinfo",
            "sigaltstack",
            "signalfd",
            "signalfd4",
            "tgkill",
            "tkill",
        ],
    ),
    (
        "memory",
        &[
            "brk",
            "get_mempolicy",
            "madvise",
            "map_shadow_stack",
            "mbind",
            "migrate_pages",
            "mincore",
            "mlock",
            "mlock2",
            "mlockall",
            "mmap",
            "move_pages",
            "mprotect",
            "mremap",
            "mseal",
            "msync",
            "munlock",
            "munlockall",
            "munmap",
            "pkey_mprotect",
            "process_madvise",
            "remap_file_pages",
            "set_mempolicy",
            "set_mempolicy_home_node",
            "shmat",
            "shmdt",
        ],
    ),
    (
        "ipc",
        &[
            "msgctl",
            "msgget",
            "msgrcv",
            "msgsnd",
            "semctl",
            "semget",
            "semop",
            "semtimedop",
            "shmat",
            "shmctl",
            "shmdt",
            "shmget",
        ],
    ),
    (
        "sleep",
        &[
            "clock_nanosleep",
            "epoll_pwait",
            "epoll_pwait2",
            "epoll_wait",
            "futex",
            "futex_wait",
            "futex_waitv",
            "io_uring_enter",
            "nanosleep",
            "pause",
            "poll",
            "ppoll",
            "pselect6",
            "rt_sigsuspend",
            "rt_sigtimedwait",
            "select",
            "wait4",
            "waitid",
        ],
    ),
];

/// Those that are given a descriptor as their first argument, calls by a path from a directory
/// (`openat`) included.
const ON_DESCRIPTORS: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "close",
    "connect",
    "copy_file_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "execveat",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fanotify_mark",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsconfig",
    "fsetxattr",
    "fsmount",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futimesat",
    "getdents",
    "getdents64",
    "getpeername",
    "getsockname",
    "getsockopt",
    "inotify_add_watch",
    "inotify_rm_watch",
    "io_uring_enter",
    "io_uring_register",
    "ioctl",
    "linkat",
    "listen",
    "lseek",
    "mkdirat",
    "mknodat",
    "name_to_handle_at",
    "newfstatat",
    "open_tree",
    "openat",
    "openat2",
    "pidfd_getfd",
    "pidfd_send_signal",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "renameat",
    "renameat2",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setns",
    "setsockopt",
    "shutdown",
    "signalfd",
    "signalfd4",
    "splice",
    "statx",
    "sync_file_range",
    "syncfs",
    "tee",
    "timerfd_gettime",
    "timerfd_settime",
    "unlinkat",
    "utimensat",
    "vmsplice",
    "write",
    "writev",
];

/// The syscalls whose first argument is a descriptor.
pub fn given_descriptors() -> impl Iterator<Item = Number> {
    ON_DESCRIPTORS.iter().filter_map(|name| Number::named(name))
}

/// The syscalls of a list such as `read,%file`; a class has what this architecture has of it.
///
/// Errors: what in it is neither a syscall nor a class, and what would be.
pub fn parse(list: &str) -> Result<Vec<Number>, String> {
    let mut numbers = Vec::new();
    for word in list.split(',').map(str::trim) {
        match word.strip_prefix('%') {
            Some(class) => {
                let known = CLASSES.iter().find(|(name, _)| *name == class);
                let (_, names) = known.ok_or_else(|| {
                    let names: Vec<String> =
                        CLASSES.iter().map(|(name, _)| format!("%{name}")).collect();
                    format!("there is no class {word}; there are {}", names.join(" "))
                })?;
                numbers.extend(names.iter().filter_map(|name| Number::named(name)));
            }
            None => {
                let number = Number::named(word);
                numbers.push(number.ok_or_else(|| format!("there is no syscall `{word}` here"))?);
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_names_and_classes() {
        let names = |list| {
            let numbers = parse(list)?;
            Ok::<_, String>(numbers.into_iter().map(Number::name).collect::<Vec<_>>())
        };
        assert_eq!(names("read, write").unwrap(), ["read", "write"]);
        assert!(names("%file,futex").unwrap().contains(&"openat".to_owned()));
        for (list, want) in [
            ("raed", "no syscall `raed`"),
            ("%files", "%file %process"),
            ("", "no syscall ``"),
        ] {
            assert!(parse(list).unwrap_err().contains(want), "{list}");
        }
    }

    #[test]
    fn every_name_is_of_some_architecture() {
        // What x86-64 lacks, others have.
        for (class, names) in CLASSES.into_iter().chain([("desc", ON_DESCRIPTORS)]) {
            let known = names.iter().filter(|name| Number::named(name).is_some());
            assert!(known.count() * 2 > names.len(), "%{class}");
        }
    }
}
