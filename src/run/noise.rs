//! What the machine did to us meanwhile: other programs' CPU time, stolen time, the CPUs' frequency. Never judges a sample and never voids one.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

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
    last: Option<Look>,
}

struct Look {
    at: Instant,
    busy: Busy,
    /// CPU time of ourselves and of the children that we waited for.
    own_sec: f64,
}

impl<'r> Noise<'r> {
    /// Watches the machine under `roots`, from now on.
    pub fn watch(roots: &'r Roots) -> Noise<'r> {
        Noise {
            roots,
            last: Look::now(roots),
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
        let (Some(now), Some(last)) = (Look::now(self.roots), self.last.take()) else {
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
        let frequency_hz = Facts::new(self.roots).frequency_hz();
        values.extend(frequency_hz.map(|hz| Value::new("CPU-Hz", sampled(hz))));
        let doubtful = cpus(others_sec + spent.steal_sec) > DOUBTFUL_CPUS;
        let warning = doubtful.then(|| {
            Warning(format!(
                "others kept more than {DOUBTFUL_CPUS} CPUs busy meanwhile"
            ))
        });
        self.last = Some(now);
        (values, warning)
    }
}

impl Look {
    fn now(roots: &Roots) -> Option<Look> {
        let used_sec = |who| {
            let usage = getrusage(who).ok()?;
            Some(
                (usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
                    as f64
                    / 1e6,
            )
        };
        let own_sec = used_sec(UsageWho::RUSAGE_SELF)? + used_sec(UsageWho::RUSAGE_CHILDREN)?;
        Some(Look {
            at: Instant::now(),
            busy: Busy::read(&roots.proc).ok()?,
            own_sec,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_comes_only_after_its_window() {
        let roots = Roots::default();
        let mut noise = Noise::watch(&roots);
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
        let mut noise = Noise::watch(&nowhere);
        std::thread::sleep(WINDOW);
        assert_eq!(noise.look(), (Vec::new(), None));
    }
}
