//! What the machine did to us meanwhile: other programs' CPU time, stolen time, the CPUs' frequency. Never judges a sample and never voids one.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::machine::facts::CpuList;
use crate::machine::{Busy, Facts, Roots};
use crate::sample::{Figure, Value, Warning};

/// A look is worth it only after this long: the kernel's sums are in hundredths of a second.
const WINDOW: Duration = Duration::from_millis(100);

/// The grain of those sums.
const GRAIN_SEC: f64 = 0.01;

/// Others that keep more CPUs busy than this are a doubt about the sample.
const DOUBTFUL_CPUS: f64 = 0.25;

/// Watches the whole machine by a look now and then.
pub struct Noise<'r> {
    roots: &'r Roots,
    /// CPUs that share a core with those that we measure on.
    siblings: CpuList,
    last: Option<Look>,
}

struct Look {
    at: Instant,
    busy: Busy,
    /// Seconds in which the siblings were busy, one second each at most.
    siblings_sec: f64,
    /// CPU time of ourselves and of the children that we waited for.
    own_sec: f64,
}

impl<'r> Noise<'r> {
    /// Watches the machine under `roots`, from now on, for what is measured on `cpus` if it is
    /// bound to any.
    pub fn watch(roots: &'r Roots, cpus: Option<&CpuList>) -> Noise<'r> {
        let facts = Facts::new(roots);
        let siblings = cpus.map_or_else(CpuList::default, |cpus| {
            let all = cpus.iter().flat_map(|cpu| {
                let of_core = facts.siblings(cpu);
                of_core.iter().collect::<Vec<_>>()
            });
            all.filter(|&sibling| !cpus.contains(sibling)).collect()
        });
        Noise {
            roots,
            last: Look::now(roots, &siblings),
            siblings,
        }
    }

    /// What happened since the last look, when that was long enough ago; else nothing, and the
    /// next sample's figures tell of this one too.
    pub fn look(&mut self) -> (Vec<Value>, Option<Warning>) {
        let elapsed = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |last| last.at.elapsed());
        if elapsed < WINDOW {
            return (Vec::new(), None);
        }
        let (Some(now), Some(last)) = (Look::now(self.roots, &self.siblings), self.last.take())
        else {
            return (Vec::new(), None);
        };
        let spent = now.busy.since(&last.busy);
        let others_sec = (spent.busy_sec - (now.own_sec - last.own_sec)).max(0.0);
        let cpus = |sec: f64| sec / (now.at - last.at).as_secs_f64();
        let sampled = |value| Figure::Sampled {
            value,
            period_sec: GRAIN_SEC,
        };
        let mut values = vec![
            Value::new("others-CPUs", sampled(cpus(others_sec))),
            Value::new("steal-CPUs", sampled(cpus(spent.steal_sec))),
        ];
        let siblings = cpus((now.siblings_sec - last.siblings_sec).max(0.0));
        if !self.siblings.is_empty() {
            values.push(Value::new("sibling-CPUs", sampled(siblings)));
        }
        let frequency_hz = Facts::new(self.roots).frequency_hz();
        values.extend(frequency_hz.map(|hz| Value::new("CPU-Hz", sampled(hz))));
        let doubtful = cpus(others_sec + spent.steal_sec) > DOUBTFUL_CPUS;
        let what = match siblings > DOUBTFUL_CPUS {
            true => Some("of the same core"),
            false => doubtful.then_some("of the machine"),
        };
        let warning = what.map(|what| {
            Warning(format!(
                "others kept more than {DOUBTFUL_CPUS} CPUs {what} busy meanwhile"
            ))
        });
        self.last = Some(now);
        (values, warning)
    }
}

impl Look {
    fn now(roots: &Roots, siblings: &CpuList) -> Option<Look> {
        let used_sec = |who| {
            let usage = getrusage(who).ok()?;
            Some(
                (usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
                    as f64
                    / 1e6,
            )
        };
        let own_sec = used_sec(UsageWho::RUSAGE_SELF)? + used_sec(UsageWho::RUSAGE_CHILDREN)?;
        // The lines of single CPUs cost more to read, and are needed on few machines.
        let siblings_sec = match siblings.is_empty() {
            true => 0.0,
            false => {
                let each = Busy::read_each(&roots.proc).ok()?;
                let of_siblings = each.iter().filter(|(cpu, _)| siblings.contains(**cpu));
                of_siblings.map(|(_, busy)| busy.busy_sec).sum()
            }
        };
        Some(Look {
            at: Instant::now(),
            busy: Busy::read(&roots.proc).ok()?,
            siblings_sec,
            own_sec,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake;

    #[test]
    fn a_look_comes_only_after_its_window() {
        let roots = Roots::default();
        let mut noise = Noise::watch(&roots, None);
        assert_eq!(noise.look(), (Vec::new(), None));
        std::thread::sleep(WINDOW);
        let (values, _) = noise.look();
        assert_eq!(
            values.first().map(|value| value.unit.as_str()),
            Some("others-CPUs")
        );
        assert!(
            values
                .iter()
                .all(|value| value.figure.number() >= Some(0.0)),
            "{values:?}"
        );
        assert_eq!(noise.look(), (Vec::new(), None));
    }

    #[test]
    fn an_unreadable_machine_says_nothing() {
        let nowhere = Roots {
            proc: "/nonexistent".into(),
            sys: "/nonexistent".into(),
            run: "/nonexistent".into(),
        };
        let mut noise = Noise::watch(&nowhere, None);
        std::thread::sleep(WINDOW);
        assert_eq!(noise.look(), (Vec::new(), None));
    }

    #[test]
    fn siblings_are_watched_where_there_are_any() {
        let fake = fake::laptop();
        for cpu in 0..8 {
            let list = format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fake.sys(&list, format!("{},{}\n", cpu % 4, cpu % 4 + 4));
        }
        let siblings = |cpus: &str| {
            let cpus = CpuList::parse(cpus).unwrap();
            Noise::watch(&fake.roots, Some(&cpus)).siblings.to_string()
        };
        assert_eq!(siblings("1"), "5");
        assert_eq!(siblings("1,5"), "");
        assert_eq!(siblings("0-2"), "4-6");
        let cpu = |ticks: u32| {
            format!("cpu  0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0\ncpu5 {ticks} 0 0 0 0 0 0\n")
        };
        fake.proc("stat", cpu(0));
        let mut noise = Noise::watch(&fake.roots, CpuList::parse("1").as_ref());
        std::thread::sleep(WINDOW);
        fake.proc("stat", cpu(50));
        let (values, warning) = noise.look();
        let busy = values
            .iter()
            .find(|value| value.unit.as_str() == "sibling-CPUs");
        assert!(
            busy.and_then(|busy| busy.figure.number()) > Some(0.5),
            "{values:?}"
        );
        assert!(warning.is_some_and(|Warning(text)| text.contains("of the same core")));
    }
}
