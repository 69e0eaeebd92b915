//! What a decoder has found in its input and the reader has not given away yet. Never reads.

use std::collections::VecDeque;

use crate::sample::{Record, SyntaxError};

/// Records that wait, in their order.
#[derive(Debug)]
pub(super) struct Found {
    file: String,
    waiting: VecDeque<Record>,
    samples: u64,
    sound: bool,
}

impl Found {
    pub(super) fn new(file: String) -> Found {
        Found {
            file,
            waiting: VecDeque::new(),
            samples: 0,
            sound: true,
        }
    }

    pub(super) fn push(&mut self, record: Record) {
        self.waiting.push_back(record);
    }

    /// The number of the sample or failure that is about to be made, in formats that do not
    /// number theirs.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.samples;
        self.samples += 1;
        number
    }

    /// Says that `line` cannot be understood.
    pub(super) fn syntax(&mut self, line: u64, message: String) {
        self.sound = false;
        self.push(Record::Syntax(SyntaxError {
            file: self.file.clone(),
            line,
            message,
        }));
    }

    pub(super) fn pop(&mut self) -> Option<Record> {
        self.waiting.pop_front()
    }

    /// Whether everything could be understood so far.
    pub(super) fn sound(&self) -> bool {
        self.sound
    }
}
