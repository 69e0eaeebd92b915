//! Which decisions of one compilation the other one does not have. Lines that both sources have are found by their texts; knows nothing of packages.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::decisions::{Decision, Kind};

/// Which line of the new text each line of the old one is, both from 1 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    operations: Vec<DiffOp>,
}

impl Lines {
    /// Those of these two texts.
    pub fn of(old: &str, new: &str) -> Lines {
        let [old, new] = [old, new].map(|text| text.lines().collect::<Vec<_>>());
        Lines {
            operations: capture_diff_slices(Algorithm::Myers, &old, &new),
        }
    }

    /// What becomes of the old lines and where the new ones come from, in order.
    pub fn operations(&self) -> &[DiffOp] {
        &self.operations
    }

    /// The new line that is this old one; `None` when it went or was changed.
    pub fn new_of(&self, line: u32) -> Option<u32> {
        self.image(line, |old, _| old, |_, new| new)
    }

    /// The old line that is this new one; `None` when it is new.
    pub fn old_of(&self, line: u32) -> Option<u32> {
        self.image(line, |_, new| new, |old, _| old)
    }

    fn image(
        &self,
        line: u32,
        from: impl Fn(usize, usize) -> usize,
        to: impl Fn(usize, usize) -> usize,
    ) -> Option<u32> {
        let line = (line as usize).checked_sub(1)?;
        let equal = self.operations.iter().find_map(|operation| {
            let &DiffOp::Equal {
                old_index,
                new_index,
                len,
            } = operation
            else {
                return None;
            };
            let offset = line.checked_sub(from(old_index, new_index))?;
            (offset < len).then(|| to(old_index, new_index) + offset)
        });
        equal.map(|line| line as u32 + 1)
    }
}

/// The decisions that each side has alone, where `new_line` says which new line an old one is.
pub fn alone<'a>(
    old: &[&'a Decision],
    new: &[&'a Decision],
    new_line: impl Fn(u32) -> Option<u32>,
) -> [Vec<&'a Decision>; 2] {
    let mut unpaired: Vec<Option<&Decision>> = new.iter().copied().map(Some).collect();
    let mut places: BTreeMap<(u32, u32, Kind), Vec<usize>> = BTreeMap::new();
    for (at, one) in new.iter().enumerate() {
        let place = (one.line, one.column, one.kind);
        places.entry(place).or_default().push(at);
    }
    let mut left: Vec<&Decision> = old.to_vec();
    // The same in the same words first; then what another release calls otherwise.
    for in_same_words in [true, false] {
        left.retain(|one| {
            if !in_same_words && !matches!(one.kind, Kind::Heap | Kind::Stack) {
                return true;
            }
            let Some(line) = new_line(one.line) else {
                return true;
            };
            let there = places.get(&(line, one.column, one.kind));
            let partner = there.into_iter().flatten().find(|&&at| {
                let is_same = |other: &Decision| !in_same_words || other.text == one.text;
                unpaired[at].is_some_and(is_same)
            });
            match partner {
                Some(&at) => unpaired[at] = None,
                None => return true,
            }
            false
        });
    }
    [left, unpaired.into_iter().flatten().collect()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decision(line: u32, column: u32, kind: Kind, text: &str) -> Decision {
        Decision {
            line,
            column,
            kind,
            text: text.to_owned(),
            why: None,
        }
    }

    #[test]
    fn decisions_pair_by_place_and_kind() {
        let old = [
            decision(1, 2, Kind::Heap, "moved to heap: x"),
            decision(2, 2, Kind::Heap, "T literal escapes to heap"),
            decision(3, 2, Kind::InlinedCall, "inlining call to f"),
            decision(3, 2, Kind::InlinedCall, "inlining call to g"),
            decision(4, 2, Kind::Leak, "leaking param: p"),
            decision(9, 9, Kind::Heap, "moved to heap: gone"),
        ];
        let new = [
            decision(11, 2, Kind::Heap, "moved to heap: x"),
            decision(12, 2, Kind::Heap, "&T{...} escapes to heap"),
            decision(13, 2, Kind::InlinedCall, "inlining call to g"),
            decision(14, 2, Kind::Leak, "leaking param content: p"),
            decision(14, 3, Kind::Heap, "moved to heap: y"),
        ];
        let line = |line: u32| (line < 9).then_some(line + 10);
        let (old, new): (Vec<_>, Vec<_>) = (old.iter().collect(), new.iter().collect());
        let [gone, come] = alone(&old, &new, line);
        assert_eq!(gone, [old[2], old[4], old[5]]);
        assert_eq!(come, [new[3], new[4]]);
    }

    #[test]
    fn lines_are_found_again() {
        let lines = Lines::of("a\nb\nc\nd\n", "x\na\nb\nC\nd\n");
        let images: Vec<_> = (0..=5).map(|line| lines.new_of(line)).collect();
        assert_eq!(images, [None, Some(2), Some(3), None, Some(5), None]);
        assert_eq!(
            [1, 2, 4].map(|line| lines.old_of(line)),
            [None, Some(1), None]
        );
    }

    proptest! {
        #[test]
        fn what_is_compared_with_itself_is_the_same(
            all in proptest::collection::vec((1_u32..5, 0_u32..3, 0_usize..3), 0..20),
        ) {
            let kinds = [Kind::Heap, Kind::Leak, Kind::InlinedCall];
            let all: Vec<Decision> = all
                .into_iter()
                .map(|(line, column, kind)| decision(line, column, kinds[kind], "x"))
                .collect();
            let all: Vec<&Decision> = all.iter().collect();
            let none: [Vec<&Decision>; 2] = Default::default();
            prop_assert_eq!(alone(&all, &all, Some), none);
        }
    }
}
