//! What a measured process is given that it would not inherit: CPUs, addresses, huge pages, scheduling, and an environment whose length is drawn. Never applies any of it: the child does.

use std::fs::File;
use std::sync::Arc;

use caps::Capability;
use nix::errno::Errno;
use nix::sched::CpuSet;

use super::Error;
use super::schedule::Turn;
use crate::machine::facts::{Aslr, CpuList};
use crate::machine::{Facts, Roots};
use crate::sample::{Cause, ENV_PADDING, Warning};
use crate::sys::child::{Scheduler, Settings, Step};

/// What a measured process is given; by default nothing, so that it inherits all.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The CPUs that it may run on.
    pub cpus: Option<CpuList>,
    /// The `cgroup.procs` of the cgroup that it is moved to, where these CPUs are set apart.
    pub entrance: Option<Arc<File>>,
    /// What it sets for itself before its program runs.
    pub settings: Settings,
    /// Whether its environment has another length in every run.
    ///
    /// The environment lies above the stack, so its length moves every frame, which alone can
    /// change a program's speed (Mytkowicz et al., "Producing wrong data without doing anything
    /// obviously wrong!", ASPLOS 2009). Where addresses are randomised the kernel moves the stack
    /// anyway, by numbers that no seed brings back.
    pub env_padding: bool,
}

/// The stack begins at a multiple of this, by the ABIs of x86-64 and arm64: shorter steps of the
/// padding change nothing.
const STACK_STEP_BYTES: u64 = 16;

/// The padding stays below this: what caches and store buffers see of an address repeats with
/// the page.
const PADDING_BYTES: u64 = 4096;

impl Surroundings {
    /// What the settings do not bring about on the machine with these facts: doubts where they
    /// have less effect than their names promise, an error where they would have none.
    pub fn check(&self, facts: &Facts<'_>) -> Result<Vec<Warning>, Error> {
        let Settings {
            aslr,
            thp,
            scheduler,
            nice,
        } = self.settings;
        if aslr == Some(true) && facts.aslr(aslr) == Some(Aslr::Off) {
            return Err(Error::Refused(
                Cause::new("addresses cannot be randomised: the machine does it for no program")
                    .cure("as root: sysctl kernel.randomize_va_space=2"),
            ));
        }
        if thp == Some(true) && !facts.gives_huge_pages() {
            return Err(Error::Refused(
                Cause::new(
                    "there are no transparent huge pages to be had: the machine gives them to no \
                     program, and a process can only be kept from them",
                )
                .cure("as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
            ));
        }
        let by_share = nice.is_some() || scheduler == Some(Scheduler::Idle);
        let doubt = Warning(
            "a nice level or the policy idle counts only within the session of the measured \
             process: sched_autogroup_enabled is 1; as root: sysctl kernel.sched_autogroup_enabled=0"
                .to_owned(),
        );
        let grouped = by_share && facts.autogroup() == Some(true);
        Ok(grouped.then_some(doubt).into_iter().collect())
    }

    /// The settings that hold for a whole run, by the keys of its header: they stand in the place
    /// of what the machine gives to programs that are started without them.
    pub fn header(&self, facts: &Facts<'_>) -> Vec<(String, String)> {
        let Settings {
            aslr,
            thp,
            scheduler,
            nice,
        } = self.settings;
        let aslr = aslr.and_then(|_| facts.aslr(aslr));
        let thp = thp.and_then(|_| facts.thp(thp));
        let pairs = [
            ("aslr", aslr.map(|aslr| aslr.word().to_owned())),
            ("thp", thp.map(|thp| thp.enabled)),
            ("sched", scheduler.map(|scheduler| scheduler.to_string())),
            ("nice", nice.map(|nice| nice.to_string())),
        ];
        let known = pairs.into_iter();
        known
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    /// The settings of one run, by the keys of its sample.
    pub fn config(&self, turn: &Turn) -> Vec<(String, String)> {
        let cpus = self.cpus.as_ref().map(CpuList::to_string);
        let padding = self.padding_bytes(turn).map(|bytes| bytes.to_string());
        let pairs = [("pinned-cpu", cpus), (ENV_PADDING, padding)].into_iter();
        pairs
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    /// By how many bytes the environment is longer in this run.
    pub(super) fn padding_bytes(&self, turn: &Turn) -> Option<usize> {
        let steps = turn.draw % (PADDING_BYTES / STACK_STEP_BYTES);
        self.env_padding
            .then_some((steps * STACK_STEP_BYTES) as usize)
    }

    /// The CPUs in the form that the kernel takes.
    pub(super) fn affinity(&self) -> Result<Option<CpuSet>, Error> {
        let Some(cpus) = &self.cpus else {
            return Ok(None);
        };
        let mut set = CpuSet::new();
        for cpu in cpus.iter() {
            set.set(cpu as usize)
                .map_err(|errno| Error::system(format!("choose CPU {cpu}"))(errno.into()))?;
        }
        Ok(Some(set))
    }

    /// What it means that the child failed at `step`.
    pub(super) fn failed(&self, step: Step, errno: Errno) -> Error {
        let forbidden = matches!(errno, Errno::EPERM | Errno::EACCES);
        let cause = forbidden.then(|| {
            let roots = Roots::default();
            let myself = Facts::new(&roots).myself();
            let privileged = myself.is_some_and(|myself| myself.can(Capability::CAP_SYS_NICE));
            self.forbidden(step, privileged)
        });
        match cause.flatten() {
            None => Error::system(step.to_string())(errno.into()),
            Some(Cause { why, cure }) => Error::Refused(Cause {
                why: format!("cannot {step}: {why}"),
                cure,
            }),
        }
    }

    /// Why the kernel forbids `step` and what would allow it; `privileged` is who has
    /// CAP_SYS_NICE.
    fn forbidden(&self, step: Step, privileged: bool) -> Option<Cause> {
        let takes = |what: String, limit: &str, least: i32| {
            let option = limit.to_lowercase();
            Cause::new(format!(
                "{what} takes CAP_SYS_NICE, or a limit RLIMIT_{limit} of at least {least}"
            ))
            .cure(format!(
                "sudo prlimit --{option}={least} --pid $$, or sudo setcap cap_sys_nice=ep $(command -v poise)"
            ))
        };
        let Settings {
            scheduler, nice, ..
        } = self.settings;
        match (step, scheduler, nice) {
            (Step::Nice, _, Some(nice)) if !privileged => {
                let nice = i32::from(nice);
                Some(takes(nice.to_string(), "NICE", 20 - nice))
            }
            (Step::Scheduler, Some(scheduler), _) if !privileged => match scheduler {
                Scheduler::Fifo(priority) | Scheduler::RoundRobin(priority) => {
                    Some(takes(scheduler.to_string(), "RTPRIO", priority.into()))
                }
                _ => Some(Cause::new("it takes CAP_SYS_NICE to leave the present one")),
            },
            (Step::Scheduler, Some(Scheduler::Fifo(_) | Scheduler::RoundRobin(_)), _) => Some(
                Cause::new("its cgroup has no share of real time (cpu.rt_runtime_us)")
                    .cure("as root: sysctl kernel.sched_rt_runtime_us=-1"),
            ),
            (Step::Nice | Step::Scheduler | Step::Aslr | Step::HugePages, ..) => Some(
                Cause::new("a filter of system calls (seccomp) forbids it, as Docker's does")
                    .cure("docker run --security-opt seccomp=unconfined …"),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::Fake;

    fn set(settings: Settings) -> Surroundings {
        Surroundings {
            settings,
            ..Surroundings::default()
        }
    }

    fn turn(draw: u64) -> Turn {
        Turn {
            workload: 0,
            order: Default::default(),
            coin: false,
            draw,
            only: false,
        }
    }

    #[test]
    fn paddings_are_even_over_a_page() {
        let padded = Surroundings {
            env_padding: true,
            ..Surroundings::default()
        };
        let lengths: Vec<usize> = (0..512)
            .filter_map(|draw| padded.padding_bytes(&turn(draw)))
            .collect();
        for bytes in (0..4096).step_by(16) {
            assert_eq!(lengths.iter().filter(|&&length| length == bytes).count(), 2);
        }
        let config = padded.config(&turn(3));
        assert_eq!(config, [("env-padding".to_owned(), "48".to_owned())]);
        assert_eq!(Surroundings::default().config(&turn(3)), []);
    }

    #[test]
    fn the_header_tells_what_the_process_finds() {
        let fake = Fake::new();
        fake.proc("sys/kernel/randomize_va_space", "1\n")
            .proc("self/personality", "00040000\n")
            .proc("self/status", "Name:\tpoise\nTHP_enabled:\t0\n")
            .sys(
                "kernel/mm/transparent_hugepage/enabled",
                "[always] madvise never\n",
            );
        let facts = Facts::new(&fake.roots);
        let check = |settings, want: &[(&str, &str)]| {
            let got = set(settings).header(&facts);
            let got: Vec<_> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(got, want);
        };
        check(Settings::default(), &[]);
        let on = Settings {
            aslr: Some(true),
            thp: Some(true),
            ..Settings::default()
        };
        check(on, &[("aslr", "partial"), ("thp", "always")]);
        let rest = Settings {
            aslr: Some(false),
            thp: Some(false),
            scheduler: Some(Scheduler::Fifo(3)),
            nice: Some(-5),
        };
        let want = [
            ("aslr", "off"),
            ("thp", "off"),
            ("sched", "fifo:3"),
            ("nice", "-5"),
        ];
        check(rest, &want);
    }

    #[test]
    fn what_cannot_be_had_is_refused_and_what_has_little_effect_doubted() {
        let fake = Fake::new();
        let thp = "kernel/mm/transparent_hugepage";
        fake.proc("sys/kernel/randomize_va_space", "0\n")
            .proc("sys/kernel/sched_autogroup_enabled", "1\n")
            .sys(&format!("{thp}/enabled"), "always madvise [never]\n")
            .sys(
                &format!("{thp}/hugepages-64kB/enabled"),
                "always [inherit] madvise never\n",
            );
        let check = |settings, want: Result<usize, &str>| {
            let got = set(settings).check(&Facts::new(&fake.roots));
            match (got, want) {
                (Ok(doubts), Ok(want)) => assert_eq!(doubts.len(), want, "{settings:?}"),
                (Err(error), Err(want)) => {
                    assert!(error.to_string().contains(want), "{error}");
                    assert!(error.hint().is_some(), "{error}");
                }
                other => panic!("{settings:?}: {other:?}"),
            }
        };
        let aslr = |aslr| Settings {
            aslr: Some(aslr),
            ..Settings::default()
        };
        let huge = |thp| Settings {
            thp: Some(thp),
            ..Settings::default()
        };
        let shares = |scheduler, nice| Settings {
            scheduler: Some(scheduler),
            nice,
            ..Settings::default()
        };
        check(aslr(true), Err("addresses"));
        check(aslr(false), Ok(0));
        check(huge(true), Err("huge pages"));
        check(huge(false), Ok(0));
        check(shares(Scheduler::Idle, None), Ok(1));
        check(shares(Scheduler::Batch, Some(3)), Ok(1));
        check(shares(Scheduler::Fifo(1), None), Ok(0));
        // One size alone may be given.
        fake.sys(
            &format!("{thp}/hugepages-64kB/enabled"),
            "always inherit [madvise] never\n",
        );
        check(huge(true), Ok(0));
        fake.proc("sys/kernel/sched_autogroup_enabled", "0\n");
        check(shares(Scheduler::Batch, Some(3)), Ok(0));
    }

    #[test]
    fn a_refusal_names_the_capability_and_the_limit() {
        let settings = Settings {
            nice: Some(-5),
            scheduler: Some(Scheduler::RoundRobin(7)),
            ..Settings::default()
        };
        let check = |step, privileged, all: &[&str]| {
            let text = set(settings)
                .forbidden(step, privileged)
                .unwrap()
                .to_string();
            all.iter()
                .for_each(|part| assert!(text.contains(part), "{part} in {text}"));
        };
        let all = ["-5 takes CAP_SYS_NICE", "RLIMIT_NICE", "--nice=25"];
        check(Step::Nice, false, &all);
        check(Step::Nice, true, &["seccomp"]);
        let all = ["rr:7 takes CAP_SYS_NICE", "RLIMIT_RTPRIO", "--rtprio=7"];
        check(Step::Scheduler, false, &all);
        check(Step::Scheduler, true, &["cgroup", "sched_rt_runtime_us"]);
        check(Step::Aslr, false, &["seccomp"]);
        let check = |step, errno, want| {
            let error = set(settings).failed(step, errno);
            assert!(matches!(error, Error::System { .. }), "{error}");
            assert_eq!(error.to_string(), want);
        };
        check(
            Step::Scheduler,
            Errno::EINVAL,
            "cannot set the scheduling policy of the child: Invalid argument (os error 22)",
        );
        check(
            Step::Session,
            Errno::EPERM,
            "cannot give the child a session of its own: Operation not permitted (os error 1)",
        );
    }
}
