//! The real frequency under load. The virtual machine's cycles are those of 1 GHz, whatever its cpufreq is set to: a machine that does not do what it is told.

use std::process::Command;

use counterpoise::perf::Access;
use counterpoise::perf::catalog::Catalog;
use counterpoise::run::frequency;
use counterpoise::sample::Figure;

use crate::bed::{self, Setting};

#[test]
fn the_frequency_is_that_of_the_machine() {
    if bed::guest("the machine's real frequency").is_none() {
        return;
    }
    let access = Access::look("/proc".as_ref(), "/sys".as_ref());
    let figure = frequency::measured(0, &Catalog::default(), &access);
    let Figure::Exact(hz) = figure else {
        panic!("{figure:?}")
    };
    assert!((hz / 1e9 - 1.0).abs() < 1e-3, "{hz}");
}

#[test]
fn the_doctor_tells_when_a_request_did_not_take() {
    if bed::guest("the doctor on a frequency that did not take").is_none() {
        return;
    }
    let doctor = || {
        let output = Command::new(bed::program()).arg("doctor").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().skip_while(|line| !line.contains("cpufreq-dt"));
        lines.take(2).collect::<Vec<_>>().join("\n")
    };
    let found = doctor();
    assert!(
        found.contains("600-2400 MHz; 1.00 GHz under load"),
        "{found}"
    );
    let policy = "/sys/devices/system/cpu/cpufreq/policy0";
    let _at_most = Setting::set(&format!("{policy}/scaling_max_freq"), "600000");
    let found = doctor();
    assert!(found.starts_with("limited"), "{found}");
    assert!(found.contains("600 MHz; 1.00 GHz under load"), "{found}");
    assert!(found.contains("because: CPU 0 runs at 1.00 GHz"), "{found}");
}
