//! The memory that is shared with the programs in the kernel, word by word as `bpf/record.h` has it. Pure layout: reads words, never a map.

use std::sync::atomic::{AtomicU64, Ordering};

/// `struct control`: what we tell the programs, and what they tell of themselves.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    /// The process to be followed.
    Wanted,
    /// 1: from its next exec on; 0: from now on.
    AtExec,
    /// The thread that is followed from its next exec on.
    Waiting,
    /// Threads ever followed.
    Followed,
    /// Threads not followed, for their slot was taken.
    Collisions,
    /// When the first thread was followed.
    FirstNs,
}

/// Words of `struct control`.
pub const CONTROL_WORDS: usize = 6;

/// Slots of followed threads.
pub const SLOTS: usize = 65536;

/// Words of `struct slot`.
pub const SLOT_WORDS: usize = 8;

/// The word of a field.
pub fn load(words: &[AtomicU64], index: usize) -> u64 {
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Sets the word of a field.
pub fn store(words: &[AtomicU64], index: usize, value: u64) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::probe::btf::{Description, section};

    /// Holds the structure `name` of the object in `bytes` to these fields, each at the byte given,
    /// and to `words` in all.
    pub(in crate::probe) fn check_layout(
        bytes: &[u8],
        name: &str,
        fields: &[(&str, usize)],
        words: usize,
    ) {
        let described = Description::new(section(bytes, ".BTF").unwrap()).unwrap();
        let found = described.types().find(|found| found.name == name).unwrap();
        let got: Vec<(&str, usize)> = found
            .members()
            .map(|member| (member.name, member.offset_bits as usize / 8))
            .collect();
        assert_eq!(got, fields, "struct {name}");
        assert_eq!(found.size_or_type as usize, words * 8, "struct {name}");
    }

    #[test]
    fn the_control_block_is_as_the_programs_have_it() {
        let bytes = crate::probe::object::embedded!("syscalls.bpf.o");
        let at = |field: Control| field as usize * 8;
        check_layout(
            bytes,
            "control",
            &[
                ("wanted", at(Control::Wanted)),
                ("at_exec", at(Control::AtExec)),
                ("waiting", at(Control::Waiting)),
                ("followed", at(Control::Followed)),
                ("collisions", at(Control::Collisions)),
                ("first_ns", at(Control::FirstNs)),
            ],
            CONTROL_WORDS,
        );
        check_layout(
            bytes,
            "slot",
            &[("tid", 0), ("tgid", 4), ("payload", 8)],
            SLOT_WORDS,
        );
    }
}
