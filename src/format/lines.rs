//! Lines of an input, lent one by one from a buffer that is used again. Knows nothing of what they say; never holds more than one chunk and the longest line.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

/// The longest line that is read, in bytes.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// So much is asked of the input at once.
const CHUNK: usize = 64 << 10;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    /// By a newline.
    Newline,
    /// The input ended before a newline came.
    Cut,
    /// It was longer than [`LONGEST_LINE`], and its text was not kept.
    TooLong,
}

/// An input that is read line by line, and that can be looked at before it is read.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// What of the buffer holds bytes of the input that are not read yet.
    unread: Range<usize>,
    /// Where in the buffer the current line stands.
    line: Range<usize>,
    /// Counts lines from 1.
    number: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Lines<R> {
        Lines {
            input,
            buffer: Vec::new(),
            unread: 0..0,
            line: 0..0,
            number: 0,
            ended: false,
        }
    }

    /// Goes to the next line; `None` at the end of the input.
    pub(super) fn advance(&mut self) -> io::Result<Option<Ending>> {
        let (mut searched, mut too_long) = (0, false);
        loop {
            let unread = &self.buffer[self.unread.clone()];
            let (length, ending) = match memchr(b'\n', &unread[searched..]) {
                Some(at) => (searched + at, Ending::Newline),
                None => {
                    searched = unread.len();
                    if searched > LONGEST_LINE {
                        (searched, too_long) = (0, true);
                        self.unread.start = self.unread.end;
                    }
                    if self.fill()? {
                        continue;
                    }
                    if searched == 0 && !too_long {
                        return Ok(None);
                    }
                    (searched, Ending::Cut)
                }
            };
            let begin = self.unread.start;
            self.number += 1;
            self.unread.start += length + usize::from(ending == Ending::Newline);
            if too_long || length > LONGEST_LINE {
                self.line = 0..0;
                return Ok(Some(Ending::TooLong));
            }
            self.line = begin..begin + length;
            return Ok(Some(ending));
        }
    }

    /// The current line without its newline.
    pub(super) fn text(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    /// The number of the current line, from 1; 0 before the first.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What comes next, at least `wanted` bytes of it unless the input ends before. The current
    /// line is no longer there.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.unread.len() < wanted && self.fill()? {}
        Ok(&self.buffer[self.unread.clone()])
    }

    /// All that comes, `None` when that is more than `longest` bytes.
    pub(super) fn rest(&mut self, longest: usize) -> io::Result<Option<Vec<u8>>> {
        while self.unread.len() <= longest && self.fill()? {}
        let unread = std::mem::take(&mut self.unread);
        self.line = 0..0;
        let mut text = std::mem::take(&mut self.buffer);
        text.truncate(unread.end);
        text.drain(..unread.start);
        Ok((text.len() <= longest).then_some(text))
    }

    /// Reads some more behind what is unread; `false` at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.unread.end == self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            self.line = 0..0;
            if self.unread.end + CHUNK > self.buffer.len() {
                let size = (self.unread.end * 2).max(CHUNK);
                self.buffer.resize(size, 0);
            }
        }
        loop {
            match self.input.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => self.ended = true,
                Ok(more) => self.unread.end += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(!self.ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives so many bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn read(input: impl Read) -> Vec<(Vec<u8>, Ending)> {
        let (mut lines, mut read) = (Lines::new(input), Vec::new());
        while let Some(ending) = lines.advance().unwrap() {
            read.push((lines.text().to_vec(), ending));
            assert_eq!(lines.number(), read.len() as u64);
        }
        read
    }

    #[test]
    fn what_comes_can_be_seen_before_it_is_read() {
        let mut lines = Lines::new(Drops(b"one\ntwo", 1));
        assert_eq!(lines.peek(2).unwrap(), b"on");
        assert_eq!(lines.peek(100).unwrap(), b"one\ntwo");
        assert_eq!(lines.advance().unwrap(), Some(Ending::Newline));
        assert_eq!(lines.text(), b"one");
        assert_eq!(lines.rest(3).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(lines.advance().unwrap(), None);
        assert_eq!(Lines::new(&b"long"[..]).rest(3).unwrap(), None);
    }

    proptest! {
        #[test]
        fn lines_are_what_stands_between_newlines(
            lengths in prop::collection::vec(prop_oneof![8 => 0..9usize, 1 => CHUNK - 9..CHUNK + 9], 0..12),
            end in "(|a|\n)",
            drop in 1usize..2 * CHUNK,
        ) {
            let lines: Vec<String> = lengths.iter().map(|&length| "x".repeat(length)).collect();
            let text = lines.join("\n") + &end;
            let mut want: Vec<_> = text
                .split('\n')
                .map(|line| (line.as_bytes().to_vec(), Ending::Newline))
                .collect();
            if let Some((last, _)) = want.pop().filter(|(last, _)| !last.is_empty()) {
                want.push((last, Ending::Cut));
            }
            prop_assert_eq!(read(Drops(text.as_bytes(), drop)), want);
        }
    }
}
