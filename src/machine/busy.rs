//! How busy the machine was between two moments, as a whole or CPU by CPU, from `/proc/stat`. Never looks at single processes, and keeps no clock: who compares two readings knows the time between them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// CPU time that the whole machine has spent since it was started, all CPUs summed.
///
/// The kernel adds it up in scheduler ticks and shows it in hundredths of a second, so a
/// difference over a short time is coarse.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Busy {
    /// Seconds spent in user mode (niced and guests included), in the kernel, and in hard and
    /// soft interrupts. Idle, waiting for disks, and stolen time are not in it.
    pub busy_sec: f64,
    /// Seconds in which a CPU had work and the hypervisor ran something else.
    pub steal_sec: f64,
}

impl Busy {
    /// Reads `stat` under the given proc root.
    pub fn read(proc: &Path) -> io::Result<Busy> {
        // `cpu  8857 0 4147 …` stands first; the rest of the file grows with CPUs and interrupts.
        let mut head = [0; 4096];
        let mut len = 0;
        let mut file = File::open(proc.join("stat"))?;
        while !head[..len].contains(&b'\n') && len < head.len() {
            match file.read(&mut head[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let line = head[..len]
            .split(|&b| b == b'\n')
            .next()
            .unwrap_or_default();
        let (_, busy) = decode(line, procfs::ticks_per_second() as f64)
            .filter(|(cpu, _)| cpu.is_none())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "no `cpu` line in /proc/stat")
            })?;
        Ok(busy)
    }

    /// Reads the same for each online CPU.
    pub fn read_each(proc: &Path) -> io::Result<BTreeMap<u32, Busy>> {
        let text = fs::read(proc.join("stat"))?;
        let ticks_per_sec = procfs::ticks_per_second() as f64;
        let lines = text.split(|&b| b == b'\n');
        let each = lines.filter_map(|line| decode(line, ticks_per_sec));
        Ok(each.filter_map(|(cpu, busy)| Some((cpu?, busy))).collect())
    }

    /// What was spent between `earlier` and this reading. The kernel's sums can step back by a
    /// tick or two; that counts as nothing spent.
    pub fn since(&self, earlier: &Busy) -> Busy {
        Busy {
            busy_sec: (self.busy_sec - earlier.busy_sec).max(0.0),
            steal_sec: (self.steal_sec - earlier.steal_sec).max(0.0),
        }
    }

    /// The share (0–1) of the wanted CPU time that the hypervisor took away; 0 when none was
    /// wanted.
    pub fn steal_share(&self) -> f64 {
        let wanted_sec = self.busy_sec + self.steal_sec;
        if wanted_sec > 0.0 {
            self.steal_sec / wanted_sec
        } else {
            0.0
        }
    }
}

/// proc_stat(5): `cpu user nice system idle iowait irq softirq steal guest guest_nice`, in ticks;
/// `guest` is already in `user`. Kernels before 2.6.11 have no `steal`. The first line sums up all
/// CPUs, the others begin with `cpu0`, `cpu1`, ….
fn decode(line: &[u8], ticks_per_sec: f64) -> Option<(Option<u32>, Busy)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let cpu = match words.next()?.strip_prefix("cpu")? {
        "" => None,
        number => Some(number.parse().ok()?),
    };
    let ticks: Vec<u64> = words.map(|w| w.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, rest @ ..] = ticks.as_slice() else {
        return None;
    };
    let sec = |ticks: &[u64]| ticks.iter().map(|&t| t as f64).sum::<f64>() / ticks_per_sec;
    let busy = Busy {
        busy_sec: sec(&[*user, *nice, *system, *irq, *softirq]),
        steal_sec: sec(rest.get(..1).unwrap_or_default()),
    };
    Some((cpu, busy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    #[test]
    fn the_lines_are_summed() {
        let check = |line: &str, want: Option<(Option<u32>, f64, f64)>| {
            let got = decode(line.as_bytes(), 100.0).map(|(c, b)| (c, b.busy_sec, b.steal_sec));
            assert_eq!(got, want, "{line:?}");
        };
        check(
            "cpu  100 50 200 9999 9999 25 25 40 70 0",
            Some((None, 4.0, 0.4)),
        );
        check("cpu  100 0 0 0 0 0 0", Some((None, 1.0, 0.0)));
        check(
            "cpu  18446744073709551615 0 0 0 0 0 0 0",
            Some((None, 1.844_674_407_370_955_2e17, 0.0)),
        );
        check(
            "cpu12 100 50 200 9999 9999 25 25 40 70 0",
            Some((Some(12), 4.0, 0.4)),
        );
        check("cpux 100 0 0 0 0 0 0", None);
        check("ctxt 100 0 0 0 0 0 0", None);
        check("cpu  100 0 0 0 0 0", None);
        check("cpu  100 0 0 -1 0 0 0", None);
        check("", None);
    }

    #[test]
    fn a_difference_never_runs_backwards() {
        let earlier = Busy {
            busy_sec: 2.0,
            steal_sec: 1.0,
        };
        let later = Busy {
            busy_sec: 5.0,
            steal_sec: 0.5,
        };
        assert_eq!(
            later.since(&earlier),
            Busy {
                busy_sec: 3.0,
                steal_sec: 0.0
            }
        );
        assert_eq!(
            Busy {
                busy_sec: 3.0,
                steal_sec: 1.0
            }
            .steal_share(),
            0.25
        );
        assert_eq!(Busy::default().steal_share(), 0.0);
    }

    #[test]
    fn a_broken_file_is_an_error_and_not_a_zero() {
        let fake = Fake::new();
        assert_eq!(
            Busy::read(&fake.roots.proc).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        for broken in [&b""[..], b"\xff\xfe\0", b"intr 1\n", &[b'9'; 9000]] {
            fake.proc("stat", broken);
            let error = Busy::read(&fake.roots.proc).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{broken:?}");
        }
        fake.proc("stat", "cpu0 100 0 0 0 0 0 0\n");
        assert!(Busy::read(&fake.roots.proc).is_err());
        fake.proc(
            "stat",
            "cpu  100 0 0 0 0 0 0 5 0 0\ncpu0 1\ncpu3 50 0 0 0 0 0 0\nintr 1\n",
        );
        assert_eq!(Busy::read(&fake.roots.proc).unwrap().busy_sec, 1.0);
        let each = Busy::read_each(&fake.roots.proc).unwrap();
        assert_eq!(
            each.into_iter()
                .map(|(cpu, b)| (cpu, b.busy_sec))
                .collect::<Vec<_>>(),
            [(3, 0.5)]
        );
    }

    #[test]
    fn our_own_work_shows() {
        let proc = Path::new("/proc");
        let before = Busy::read(proc).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::black_box(0);
        }
        let spent = Busy::read(proc).unwrap().since(&before);
        // Sixty milliseconds of our own, less a tick at either end and what was stolen.
        assert!(spent.busy_sec + spent.steal_sec >= 0.03, "{spent:?}");
        assert!(spent.busy_sec < 10.0 * std::thread::available_parallelism().unwrap().get() as f64);
    }
}
