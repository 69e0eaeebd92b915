//! Faults on the real machine, where there is a cpufreq to hold: the test bed's virtual machine.

pub(crate) const TESTS: &[(&str, fn())] = &[];
