//! `poise faults` on another kernel and processor: as many faults as the kernel counts, by programs in it and by an ordinary user's means.

use counterpoise::sample::{Figure, Sample};

use crate::bed;

/// The kernel fills a buffer of so many MiB, which nobody has touched before.
fn fill(mebibytes: u32) -> [String; 5] {
    let block = format!("bs={mebibytes}M");
    ["dd", "if=/dev/zero", "of=/dev/null", &block, "count=1"].map(str::to_owned)
}

fn run(options: &[&str], command: &[String]) -> bed::Run {
    let command = command.iter().map(String::as_str);
    let words = options.iter().copied().chain(["--"]).chain(command);
    bed::poise(&words.collect::<Vec<_>>())
}

fn number(sample: &Sample, unit: &str) -> f64 {
    let figure = sample.figure(unit).and_then(Figure::number);
    figure.unwrap_or_else(|| panic!("no {unit} in {sample:?}"))
}

/// The faults of the kernel's own among them.
fn in_kernel_mode(run: &bed::Run) -> f64 {
    let kinds = run.samples.iter().filter(|sample| {
        let name = sample.benchmark.to_string();
        name.starts_with("FaultKind/") && name.ends_with("mode=kernel")
    });
    kinds.map(|sample| number(sample, "faults")).sum()
}

#[test]
fn as_many_as_the_kernel_counts() {
    if bed::guest("page faults in the virtual machine").is_none() {
        return;
    }
    // The pages of 4 MiB; a few others come and go with the addresses.
    let is_as_many = |more: f64| (more - 1024.0).abs() <= 3.0;
    let counted = [8, 4].map(|size| {
        let run = run(&["stat", "--thp", "off", "-e", "page-faults"], &fill(size));
        number(&run.samples[0], "page-faults/op")
    });
    assert!(is_as_many(counted[0] - counted[1]), "{counted:?}");
    let seen = [8, 4].map(|size| run(&["faults", "--thp", "off", "--rung", "bpf"], &fill(size)));
    let all = seen.each_ref().map(|run| number(&run.samples[0], "faults"));
    assert!(is_as_many(all[0] - all[1]), "{all:?}\n{}", seen[0].table);
    let kernels = seen.each_ref().map(in_kernel_mode);
    assert!(
        is_as_many(kernels[0] - kernels[1]),
        "{kernels:?}\n{}",
        seen[0].table
    );
    assert_eq!(number(&seen[0].samples[0], "lost-faults"), 0.0);
}

#[test]
fn counters_see_user_mode_alone() {
    if bed::guest("page faults by counters in the virtual machine").is_none() {
        return;
    }
    let seen = [8, 4].map(|size| {
        run(
            &["faults", "--thp", "off", "--rung", "counters"],
            &fill(size),
        )
    });
    let all = seen.each_ref().map(|run| number(&run.samples[0], "faults"));
    assert!(all[0] > 0.0 && all[0] < 1024.0, "{}", seen[0].table);
    assert!((all[0] - all[1]).abs() < 8.0, "{all:?}");
}
