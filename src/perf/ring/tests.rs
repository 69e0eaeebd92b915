#![allow(clippy::print_stderr, reason = "a test says what it could not run")]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::gettid;

use super::*;
use crate::perf::Access;
use crate::perf::catalog::Catalog;
use crate::perf::record::{Mapped, Mode, Overflow, Stamp};
use crate::sys::clock::{monotonic_ns, thread_cpu_ns};
use crate::sys::memory::{Mapping, Pages, page_bytes};
use crate::sys::spin::spin;

const EACH: Recording = Recording {
    rate: Rate::Period(1),
    layout: Layout {
        address: true,
        callchain: false,
    },
    tasks: false,
    enable_on_exec: false,
    bytes: Recording::USUAL_BYTES,
};

/// A ring, or `None` after saying why the test cannot run here.
fn ring(events: &str, target: Target, how: Recording) -> Option<Ring> {
    let groups = Catalog::default().parse(events).unwrap();
    let events: Vec<Event> = groups.into_iter().flat_map(|group| group.events).collect();
    let opened = Ring::open(&events, target, how);
    let refused = |error: &Error| error.is_denied() || error.errno == Errno::ENOSYS;
    if let Err(error) = &opened
        && refused(error)
    {
        eprintln!("not run: sampling: {error}");
        return None;
    }
    Some(opened.unwrap())
}

fn take(ring: &mut Ring) -> Vec<PerfRecord> {
    ring.take().unwrap().collect::<Result<_, _>>().unwrap()
}

fn overflows(records: &[PerfRecord]) -> Vec<(Stamp, &Overflow)> {
    let overflow = |record: &'_ PerfRecord| matches!(record.body, Body::Overflow(_));
    let overflows = records.iter().filter(|record| overflow(record));
    overflows
        .map(|record| match &record.body {
            Body::Overflow(overflow) => (record.stamp, overflow),
            other => unreachable!("{other:?}"),
        })
        .collect()
}

fn fresh(pages: usize) -> Mapping {
    Mapping::new(pages * page_bytes(), Pages::Base).unwrap()
}

fn touch(memory: &Mapping, pages: std::ops::Range<usize>) {
    pages.for_each(|page| memory.touch(page * page_bytes()));
}

/// The data addresses of `records` within `memory`, in order.
fn touched(records: &[PerfRecord], memory: &Mapping, pages: usize) -> Vec<usize> {
    let within = memory.address()..memory.address() + pages * page_bytes();
    let addresses = overflows(records)
        .into_iter()
        .map(|(_, overflow)| overflow.address.unwrap() as usize);
    addresses
        .filter(|address| within.contains(address))
        .collect()
}

fn all(memory: &Mapping, pages: usize) -> Vec<usize> {
    (0..pages)
        .map(|page| memory.address() + page * page_bytes())
        .collect()
}

#[test]
fn each_touched_page_is_a_record_with_its_address() {
    let how = Recording {
        layout: Layout {
            address: true,
            callchain: true,
        },
        ..EACH
    };
    let Some(mut ring) = ring("page-faults:u", Target::Myself, how) else {
        return;
    };
    let memory = fresh(300);
    let start_ns = monotonic_ns();
    ring.enable().unwrap();
    touch(&memory, 0..300);
    ring.disable().unwrap();
    let end_ns = monotonic_ns();
    let records = take(&mut ring);
    assert_eq!(touched(&records, &memory, 300), all(&memory, 300));
    let reading = ring.readings().unwrap()[0];
    assert_eq!(reading.count, overflows(&records).len() as u64);
    assert_eq!(ring.lost().unwrap(), 0);
    for (stamp, overflow) in overflows(&records) {
        assert_eq!(ring.event(stamp.id).unwrap().name, "page-faults");
        assert_eq!(stamp.pid, std::process::id() as i32);
        assert_eq!(stamp.tid, gettid().as_raw());
        assert!((start_ns..=end_ns).contains(&stamp.time_ns));
        assert_eq!((overflow.mode, overflow.period), (Mode::User, 1));
        let innermost = overflow.callchain[0];
        assert_eq!((innermost.mode, innermost.ip), (Mode::User, overflow.ip));
    }
    assert_eq!(take(&mut ring), []);
}

#[test]
fn records_go_round_the_end_of_the_ring() {
    let how = Recording { bytes: 1, ..EACH };
    let Some(mut ring) = ring("page-faults:u", Target::Myself, how) else {
        return;
    };
    // 64 bytes a record: some 40 times round a page, with records across its end.
    let pages = 40 * page_bytes() / 64;
    let memory = fresh(pages);
    ring.enable().unwrap();
    let mut found = Vec::new();
    for first in (0..pages).step_by(11) {
        touch(&memory, first..pages.min(first + 11));
        found.extend(touched(&take(&mut ring), &memory, pages));
    }
    assert_eq!(found, all(&memory, pages));
    assert_eq!(ring.lost().unwrap(), 0);
}

#[test]
fn what_finds_no_room_is_counted_and_told() {
    let how = Recording { bytes: 1, ..EACH };
    let Some(mut ring) = ring("page-faults:u", Target::Myself, how) else {
        return;
    };
    let pages = 2 * page_bytes() / 64;
    let memory = fresh(pages + 1);
    ring.enable().unwrap();
    touch(&memory, 0..pages);
    let mut records = take(&mut ring);
    // The next one that finds room comes with the loss.
    touch(&memory, pages..pages + 1);
    ring.disable().unwrap();
    records.extend(take(&mut ring));
    let lost = ring.lost().unwrap();
    assert!(lost > 0);
    assert_eq!(ring.lost_told, lost);
    let recorded = overflows(&records).len() as u64;
    assert_eq!(recorded + lost, ring.readings().unwrap()[0].count);
}

#[test]
fn a_ring_is_readable_from_half_full_on() {
    let how = Recording { bytes: 1, ..EACH };
    let Some(mut ring) = ring("page-faults:u", Target::Myself, how) else {
        return;
    };
    let is_readable = |ring: &Ring| {
        let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 0u8).unwrap() > 0
    };
    // 64 bytes a record: five eighths.
    let pages = page_bytes() / 64 * 5 / 8;
    let memory = fresh(pages);
    ring.enable().unwrap();
    assert!(!is_readable(&ring));
    touch(&memory, 0..pages);
    // The kernel tells it from an interrupt of its own.
    let start_ns = monotonic_ns();
    while !is_readable(&ring) {
        assert!(monotonic_ns() - start_ns < 5_000_000_000);
    }
    take(&mut ring);
    assert!(!is_readable(&ring));
}

#[test]
fn a_ring_hangs_up_when_its_thread_has_ended() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let opened = ring("page-faults:u", Target::Thread(child.id() as i32), EACH);
    if let Some(ring) = &opened {
        let hung_up = || {
            let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, 0u8).unwrap();
            fds[0].revents().unwrap().contains(PollFlags::POLLHUP)
        };
        ring.enable().unwrap();
        assert!(!hung_up());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(hung_up());
    }
    child.wait_with_output().unwrap();
}

#[test]
fn events_share_a_ring_and_are_told_apart() {
    let events = "page-faults:u,minor-faults:u";
    let Some(mut ring) = ring(events, Target::Myself, EACH) else {
        return;
    };
    let memory = fresh(50);
    ring.enable().unwrap();
    touch(&memory, 0..50);
    ring.disable().unwrap();
    let records = take(&mut ring);
    for name in ["page-faults", "minor-faults"] {
        let of_event = |record: &PerfRecord| {
            let event = ring.event(record.stamp.id).unwrap();
            event.name == name
        };
        let records: Vec<_> = records.iter().filter(|r| of_event(r)).cloned().collect();
        assert_eq!(touched(&records, &memory, 50), all(&memory, 50), "{name}");
    }
    assert_eq!(ring.event(0), None);
}

#[test]
fn clocks_leave_about_the_due_number_of_records() {
    for (event, rate) in [
        ("task-clock", Rate::Period(500_000)),
        ("cpu-clock", Rate::Frequency(2000)),
    ] {
        let Some(mut ring) = ring(event, Target::Myself, Recording { rate, ..EACH }) else {
            return;
        };
        ring.enable().unwrap();
        let start_ns = thread_cpu_ns().unwrap();
        while thread_cpu_ns().unwrap() - start_ns < 100_000_000 {
            spin(100_000);
        }
        ring.disable().unwrap();
        let records = take(&mut ring);
        let due = ring.readings().unwrap()[0].count / 500_000;
        let got = overflows(&records).len() as u64;
        // Fewer where a hypervisor takes the CPU away: the timer does not make up for it.
        assert!((due / 3..=due + 2).contains(&got), "{got} of {due}");
    }
}

#[test]
fn children_are_recorded_by_one_ring_a_cpu() {
    let status = procfs::process::Process::myself()
        .and_then(|me| me.status())
        .unwrap();
    let cpus = status.cpus_allowed_list.unwrap();
    let cpus = cpus.into_iter().flat_map(|(first, last)| first..=last);
    let tid = gettid().as_raw();
    for enable_on_exec in [false, true] {
        let how = Recording {
            tasks: true,
            enable_on_exec,
            ..EACH
        };
        let mut rings = Vec::new();
        for cpu in cpus.clone() {
            match ring("page-faults:u", Target::ThreadOnCpu { tid, cpu }, how) {
                Some(ring) => rings.push(ring),
                None => return,
            }
        }
        if !enable_on_exec {
            rings.iter().for_each(|ring| ring.enable().unwrap());
        }
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let pid = child.id() as i32;
        let mut records: Vec<PerfRecord> = rings.iter_mut().flat_map(take).collect();
        records.sort_by_key(|record| record.stamp.time_ns);
        let first = |is: &dyn Fn(&Body) -> bool| records.iter().position(|r| is(&r.body));
        let forked = first(&|body| matches!(body, Body::Fork { pid: of, .. } if *of == pid));
        let named = first(
            &|body| matches!(body, Body::Comm { pid: of, name, exec: true, .. } if *of == pid && name == "true"),
        );
        // `true` may be a link to something else.
        let mapped = first(&|body| {
            let is_code = |at: &Mapped| at.protection & libc::PROT_EXEC as u32 != 0;
            matches!(body, Body::Mapped(at) if at.pid == pid && is_code(at) && at.path.is_file())
        });
        let ended = first(&|body| matches!(body, Body::Exit { pid: of, .. } if *of == pid));
        // The child has the events from its birth, and they are enabled in it at its own exec.
        assert_eq!(forked.is_some(), !enable_on_exec);
        let order = [forked.or(named), named, mapped, ended];
        assert!(order.iter().all(Option::is_some), "{order:?} {records:?}");
        assert!(order.is_sorted(), "{order:?}");
        let faults = overflows(&records);
        let of_child = faults.iter().filter(|(stamp, _)| stamp.pid == pid).count();
        assert!(of_child > 10, "{records:?}");
        assert!(!enable_on_exec || of_child == faults.len(), "{records:?}");
        let lost: u64 = rings.iter().map(|ring| ring.lost().unwrap()).sum();
        assert_eq!(lost, 0);
    }
}

#[test]
fn threads_share_the_ring_of_a_cpu() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let tid = gettid();
    let allowed = sched_getaffinity(tid).unwrap();
    let cpu = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap());
    let cpu = cpu.unwrap();
    let on = |tid: nix::unistd::Pid| Target::ThreadOnCpu {
        tid: tid.as_raw(),
        cpu: cpu as u32,
    };
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    sched_setaffinity(tid, &only).unwrap();
    let Some(mut ring) = ring("page-faults:u", on(tid), EACH) else {
        return;
    };
    let (ours, theirs) = std::sync::mpsc::channel();
    let go = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        // Its affinity is inherited.
        scope.spawn(|| {
            ours.send(gettid()).unwrap();
            go.wait();
            touch(&fresh(10), 0..10);
            go.wait();
        });
        let other = theirs.recv().unwrap();
        ring.add(on(other)).unwrap();
        assert_eq!(ring.add(Target::Myself).unwrap_err().errno, Errno::EINVAL);
        ring.enable().unwrap();
        go.wait();
        go.wait();
        touch(&fresh(10), 0..10);
        let records = take(&mut ring);
        for of in [tid, other] {
            let of = |record: &&PerfRecord| record.stamp.tid == of.as_raw();
            let ids = records.iter().filter(of).map(|record| record.stamp.id);
            assert!(ids.clone().count() >= 10, "{records:?}");
            assert_eq!(BTreeSet::from_iter(ids).len(), 1, "{records:?}");
        }
    });
}

#[test]
fn what_the_kernel_does_not_allow_is_an_error() {
    let none = Ring::open(&[], Target::Myself, EACH);
    assert_eq!(none.err().map(|error| error.errno), Some(Errno::EINVAL));
    let refusal = |bytes| {
        let groups = Catalog::default().parse("page-faults:u").unwrap();
        let how = Recording { bytes, ..EACH };
        Ring::open(&groups[0].events, Target::Myself, how).err()
    };
    let error = refusal(usize::MAX).unwrap();
    assert!(error.errno == Errno::ENOMEM || error.is_denied(), "{error}");
    // More than an ordinary user may lock, which is not for want of another privilege.
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    match refusal(256 << 20) {
        Some(error) if error.action == "map" && error.is_denied() => {
            let cause = access.explain(&error);
            assert!(cause.why.contains("perf_event_mlock_kb"), "{cause}");
        }
        Some(error) => eprintln!("not run: the limit on locked memory: {error}"),
        None => eprintln!("not run: the limit on locked memory: this user has none"),
    }
}
