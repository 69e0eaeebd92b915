//! CPUs set apart on the real machine, and given back whoever dies: in the test bed's virtual machine with two CPUs.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use counterpoise::machine::Roots;
use counterpoise::machine::facts::Facts;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::hold;
use crate::machine::{Machine, eventually, read};
use crate::real::{NOBODY, end, poise, run, said};
use crate::trace::{self, Target};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("real::a_partition_is_held", a_partition_is_held),
    ("real::a_partition_refused", a_partition_refused),
    (
        "real::a_partition_that_others_change",
        a_partition_that_others_change,
    ),
    ("real::a_partition_left_over", a_partition_left_over),
    ("real::a_partition_and_kills", a_partition_and_kills),
];

/// Kills of each target.
const KILLS: u32 = 30;

/// The machine, and the root of its cgroups.
struct Bed {
    machine: Machine,
    root: PathBuf,
}

fn bed(test: &str) -> Option<Bed> {
    let roots = Roots::default();
    let online = Facts::new(&roots).online().map_or(0, |cpus| cpus.len());
    let root = PathBuf::from("/sys/fs/cgroup");
    let controllers = read(&root.join("cgroup.controllers"));
    let why = match (env::var_os("POISE_VM_SHIFT").is_some(), online) {
        (false, _) => "this is not the test bed (make test-vm)",
        (true, ..2) => "it takes two CPUs",
        (true, _) if !controllers.contains("cpuset") => "cgroup v2 has no cpuset here",
        (true, _) => {
            let machine = Machine::real();
            return Some(Bed { machine, root });
        }
    };
    println!("not run: {test}: {why}");
    None
}

impl Bed {
    fn ours(&self) -> PathBuf {
        self.root.join("counterpoise")
    }

    fn state(&self) -> String {
        read(&self.ours().join("cpuset.cpus.partition"))
    }

    /// Nothing of a hold is left.
    #[track_caller]
    fn is_as_before(&self) {
        assert!(!self.ours().exists());
        assert_eq!(read(&self.root.join("cgroup.subtree_control")).trim(), "");
        assert_eq!(allowed("1"), "0-1");
        assert!(!self.machine.journal().exists());
        self.machine.is_free();
    }

    /// `poise hold` with CPU 1 set apart, started in the cgroup `home`.
    fn holder(&self, home: &Path) -> Child {
        let poise = poise("hold -q --cpu 1 -- sleep 60");
        let child = Command::new("sh")
            .args(["-c", "echo 0 >\"$0/cgroup.procs\"; exec \"$@\""])
            .arg(home)
            .arg(poise.get_program())
            .args(poise.get_args())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let inside = self.ours().join("cgroup.procs");
        eventually("the partition", || !read(&inside).is_empty());
        child
    }
}

/// The CPUs that a process may run on.
fn allowed(pid: &str) -> String {
    let status = read(&Path::new("/proc").join(pid).join("status"));
    let mut lines = status.lines();
    let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_owned()
}

fn a_partition_is_held() {
    let Some(bed) = bed("a real cpuset partition") else {
        return;
    };
    bed.is_as_before();
    // It has bound itself to the CPU that is taken from it, and gets it back.
    let mut bound = Command::new("taskset")
        .args(["2", "sleep", "600"])
        .spawn()
        .unwrap();
    let bound_pid = bound.id().to_string();
    eventually("the binding", || allowed(&bound_pid) == "1");
    let state = bed.ours().join("cpuset.cpus.partition");
    let output = run(&format!(
        "hold --cpu 1 -- cat /proc/self/cgroup {} /proc/self/status /proc/1/status /proc/{bound_pid}/status",
        state.display()
    ));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("0::/counterpoise\nisolated\n"), "{shown}");
    let lists: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("Cpus_allowed_list:\t"))
        .collect();
    assert_eq!(lists, ["1", "0", "0"]);
    let line = said(&output);
    assert!(line.contains("CPU 1 set apart"), "{line}");
    assert!(!line.contains("not held"), "{line}");
    bed.is_as_before();
    assert_eq!(allowed(&bound_pid), "1");
    bound.kill().unwrap();
    bound.wait().unwrap();

    for arguments in [
        "bench --json getppid --runs 2",
        "stat --json -r 3 --cpu-list 1 true",
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        let word = "\"hold\":\"lock frequency partition\"";
        assert!(text.contains(word), "{arguments}: {text}");
        bed.is_as_before();
    }
    // Set apart for the outer one, they are for the inner one.
    let output = run("hold -q --cpu 1 -- /tests/poise bench --json getppid --runs 1");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"pinned-cpu\":\"1\""), "{text}");
    bed.is_as_before();
}

fn a_partition_refused() {
    let Some(bed) = bed("refused cpuset partitions") else {
        return;
    };
    let check = |command: &mut Command, want: Option<&str>| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let line = said(&output);
        let wanted = want.map(|want| format!("the CPU for itself ({want}"));
        assert_eq!(
            line.contains("for itself"),
            want.is_some(),
            "{want:?}: {line}"
        );
        assert!(line.contains(&wanted.unwrap_or_default()), "{line}");
        assert!(!line.contains("set apart,"), "{line}");
    };
    // All there are, or none in particular.
    check(&mut poise("hold --cpu 0-1 -- true"), None);
    check(&mut poise("hold -- true"), None);
    check(&mut poise("hold --shared --cpu 1 -- true"), None);
    let only_root = Some("only root may set it apart)");
    check(
        poise("hold --cpu 1 -- true").uid(NOBODY).gid(NOBODY),
        only_root,
    );
    bed.is_as_before();
    // Somebody else's is neither used nor removed, and is no reason to refuse.
    fs::create_dir(bed.ours()).unwrap();
    let there = Some("/sys/fs/cgroup/counterpoise is there already)");
    check(&mut poise("hold --cpu 1 --require hold -- true"), there);
    assert!(bed.ours().exists());
    fs::remove_dir(bed.ours()).unwrap();
    bed.is_as_before();
    // What another partition has cannot be had at all, and ours would make that one invalid.
    let control = bed.root.join("cgroup.subtree_control");
    let other = bed.root.join("other");
    fs::write(&control, "+cpuset").unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cpuset.cpus"), "1").unwrap();
    fs::write(other.join("cpuset.cpus.partition"), "root").unwrap();
    let output = poise("hold --cpu 1 -- true").output().unwrap();
    let line = said(&output);
    assert!(line.contains("another cpuset partition has it)"), "{line}");
    assert!(line.contains("cannot bind the child"), "{line}");
    assert_eq!(read(&other.join("cpuset.cpus.partition")), "root\n");
    // What the kernel does not grant is undone: another cgroup may use the CPU.
    fs::write(other.join("cpuset.cpus.partition"), "member").unwrap();
    check(&mut poise("hold --cpu 1 -- true"), Some(""));
    assert!(!bed.ours().exists());
    assert_eq!(read(&other.join("cpuset.cpus")), "1\n");
    fs::remove_dir(&other).unwrap();
    assert_eq!(read(&control), "cpuset\n");
    fs::write(&control, "-cpuset").unwrap();
    bed.is_as_before();
}

fn a_partition_that_others_change() {
    let Some(bed) = bed("a cpuset partition that others change") else {
        return;
    };
    let holder = bed.holder(&bed.root);
    fs::write(bed.ours().join("cpuset.cpus.partition"), "member").unwrap();
    let told = end(holder);
    let want = "CPUs 1 did not stay set apart: the partition of CPUs 1 is member";
    assert!(told.contains(want), "{told}");
    bed.is_as_before();
    // A controller that others have begun to use stays.
    let holder = bed.holder(&bed.root);
    let other = bed.root.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cpuset.cpus"), "0").unwrap();
    assert_eq!(end(holder), "");
    assert_eq!(read(&other.join("cpuset.cpus")), "0\n");
    fs::remove_dir(&other).unwrap();
    fs::write(bed.root.join("cgroup.subtree_control"), "-cpuset").unwrap();
    bed.is_as_before();
}

/// With its holder killed, alone or with its keeper, what was measured goes back to where it came
/// from, and the partition goes.
fn a_partition_left_over() {
    let Some(bed) = bed("a cpuset partition that was left over") else {
        return;
    };
    let home = bed.root.join("home");
    fs::create_dir(&home).unwrap();
    let inside = home.join("cgroup.procs");
    for with_keeper in [false, true] {
        let mut holder = bed.holder(&home);
        let mut status = poise("hold --status");
        let status = status.uid(NOBODY).gid(NOBODY).output().unwrap();
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(
            text.contains("  the partition of CPUs 1 is isolated, was none\n"),
            "{text}"
        );
        let measured = read(&bed.ours().join("cgroup.procs"));
        let mut killed = vec![Pid::from_raw(holder.id() as i32)];
        if with_keeper {
            killed.push(keeper());
            // Stopped, it does nothing between the two.
            kill(killed[1], Signal::SIGSTOP).unwrap();
        }
        for pid in killed {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        holder.wait().unwrap();
        eventually("free lock", || bed.machine.try_lock());
        if with_keeper {
            assert_eq!(bed.state(), "isolated\n");
            let shown = run("hold --restore");
            let shown = String::from_utf8_lossy(&shown.stdout);
            assert!(
                shown.contains("the partition of CPUs 1 is none again\n"),
                "{shown}"
            );
        }
        bed.is_as_before();
        // Those who were killed are on their way out.
        eventually("return of the measured one", || read(&inside) == measured);
        assert_eq!(allowed(measured.trim()), "1");
        let measured = Pid::from_raw(measured.trim().parse().unwrap());
        kill(measured, Signal::SIGKILL).unwrap();
        eventually("end of the measured one", || read(&inside).is_empty());
    }
    fs::remove_dir(home).unwrap();
}

/// The process that would give everything back.
fn keeper() -> Pid {
    let is_keeper =
        |pid: &i32| read(&PathBuf::from(format!("/proc/{pid}/cmdline"))).contains("\0__keep\0");
    let names = fs::read_dir("/proc").unwrap().filter_map(io::Result::ok);
    let mut pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.find(is_keeper).unwrap())
}

fn a_partition_and_kills() {
    let Some(bed) = bed("kills while a cpuset partition is held") else {
        return;
    };
    let mut random = Pcg64Mcg::seed_from_u64(7);
    let roots = &bed.machine.roots;
    let before = bed.machine.settings();
    let whole = trace::run(roots, Target::Holder, u64::MAX);
    assert!(!whole.killed && whole.steps > 100, "{whole:?}");
    bed.is_as_before();
    let mut left = 0;
    for target in [Target::Holder, Target::Keeper, Target::Both] {
        let mut kills = 0;
        while kills < KILLS {
            // The lock and the frequency come first, and have their own test.
            let step = random.random_range(whole.steps / 4..whole.steps);
            if !trace::run(roots, target, step).killed {
                continue;
            }
            kills += 1;
            match target {
                Target::Both => left += u32::from(bed.ours().exists()),
                _ => assert!(!bed.ours().exists(), "{target:?} killed at step {step}"),
            }
            // The next hold gives back what was left, and leaves nothing itself.
            assert_eq!(hold(roots).unwrap().end(), Vec::<String>::new());
            assert_eq!(bed.machine.settings(), before);
            bed.is_as_before();
        }
    }
    println!(
        "{} kills at random steps of {} with a cpuset partition: given back by those who lived, {left} times by the next hold",
        3 * KILLS,
        whole.steps
    );
}
