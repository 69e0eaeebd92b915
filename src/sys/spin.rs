//! A loop of exactly two instructions an iteration, to check counters by. Never touches memory.

use std::arch::asm;

/// Instructions of one iteration: one that counts down and one conditional branch.
pub const INSTRUCTIONS: u64 = 2;

/// Runs `iterations` iterations: [`INSTRUCTIONS`] × `iterations` instructions and a few more to
/// enter and leave.
#[inline(never)]
pub fn spin(iterations: u64) {
    // Counting down from 0 would go round the whole of u64.
    if iterations == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: changes one register that is declared, and the flags; reads and writes no memory.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "dec {left}",
            "jnz 2b",
            left = inout(reg) iterations => _,
            options(nomem, nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "subs {left}, {left}, #1",
            "b.ne 2b",
            left = inout(reg) iterations => _,
            options(nomem, nostack),
        );
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above. `norvc` is not needed: a compressed instruction is one instruction too.
    unsafe {
        asm!(
            "2:",
            "addi {left}, {left}, -1",
            "bnez {left}, 2b",
            left = inout(reg) iterations => _,
            options(nomem, nostack),
        );
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )))]
    compile_error!("the spin loop is written for x86-64, aarch64 and riscv64");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::monotonic_ns;

    #[test]
    fn spins_end_and_take_time() {
        spin(0);
        spin(1);
        let start_ns = monotonic_ns();
        spin(10_000_000);
        let ns = monotonic_ns() - start_ns;
        assert!(
            ns > 500_000,
            "10 M iterations in {ns} ns: no CPU does 20 in a nanosecond"
        );
    }
}
