//! The clocks: reading them, and what a reading costs. Never sleeps and never sets one.

use std::io;

use nix::sys::time::TimeSpec;
use nix::time::ClockId;

/// Nanoseconds of `CLOCK_MONOTONIC`, by the vDSO where the clock source allows it.
#[inline]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec for the kernel to fill. The call cannot fail: every Linux
    // has this clock and the address is good.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    nanoseconds(time.tv_sec, time.tv_nsec)
}

/// Nanoseconds of CPU time used by all threads of this process.
pub fn process_cpu_ns() -> io::Result<u64> {
    cpu_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Nanoseconds of CPU time used by the calling thread.
pub fn thread_cpu_ns() -> io::Result<u64> {
    cpu_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// `CLOCK_MONOTONIC` by the system call itself, past the vDSO.
#[inline]
pub fn monotonic_by_syscall() -> io::Result<TimeSpec> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the system call writes one timespec, which is what `time` is.
    let result = unsafe {
        let clock = libc::c_long::from(libc::CLOCK_MONOTONIC);
        libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time)
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(time.into())
    }
}

/// The smallest step that [`monotonic_ns`] was seen to make, in nanoseconds.
pub fn step_ns() -> u64 {
    let mut last_ns = monotonic_ns();
    let mut least_ns = u64::MAX;
    for _ in 0..1000 {
        let now_ns = monotonic_ns();
        if now_ns > last_ns {
            least_ns = least_ns.min(now_ns - last_ns);
        }
        last_ns = now_ns;
    }
    least_ns
}

/// Nanoseconds that one [`monotonic_ns`] costs: the median of 101 batches of 64 readings.
pub fn cost_ns() -> f64 {
    const BATCHES: usize = 101;
    const READINGS: u32 = 64;
    let mut costs_ns = [0; BATCHES];
    for cost_ns in &mut costs_ns {
        let start_ns = monotonic_ns();
        let last_ns = (0..READINGS).fold(start_ns, |_, _| monotonic_ns());
        *cost_ns = last_ns.saturating_sub(start_ns);
    }
    costs_ns.sort_unstable();
    costs_ns[BATCHES / 2] as f64 / f64::from(READINGS)
}

fn cpu_ns(clock: ClockId) -> io::Result<u64> {
    let time = nix::time::clock_gettime(clock)?;
    Ok(nanoseconds(time.tv_sec(), time.tv_nsec()))
}

// No clock read here is ever negative: they count from boot or from the task's birth.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    (seconds as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanoseconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_forward() {
        let cpu_ns = (process_cpu_ns().unwrap(), thread_cpu_ns().unwrap());
        let start_ns = monotonic_ns();
        while monotonic_ns() - start_ns < 1_000_000 {}
        assert!(process_cpu_ns().unwrap() > cpu_ns.0);
        assert!(thread_cpu_ns().unwrap() > cpu_ns.1);
    }

    #[test]
    fn the_system_call_reads_the_same_clock() {
        let before_ns = monotonic_ns();
        let time = monotonic_by_syscall().unwrap();
        let between_ns = nanoseconds(time.tv_sec(), time.tv_nsec());
        assert!((before_ns..=monotonic_ns()).contains(&between_ns));
    }

    #[test]
    fn a_reading_costs_something() {
        let cost_ns = cost_ns();
        assert!(cost_ns > 1.0 && cost_ns < 1e6, "{cost_ns}");
    }
}
