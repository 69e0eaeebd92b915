//! Lists of CPU numbers as the kernel writes them: `0-3,8`. Pure text and numbers, reads nothing.

use std::fmt;

/// CPU numbers, ascending, each once.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct CpuList(Vec<u32>);

impl CpuList {
    /// No kernel is built for more CPUs than this.
    const MAX_CPUS: u32 = 65_536;

    /// Reads `0-3,8`, or numbers with spaces between them as cpufreq writes them. The empty
    /// text is the empty list, and so is the `(null)` of some kernels.
    pub fn parse(text: &str) -> Option<CpuList> {
        let mut cpus = Vec::new();
        let text = text.trim();
        if text == "(null)" {
            return Some(CpuList::default());
        }
        for part in text.split([',', ' ']).filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last >= CpuList::MAX_CPUS {
                return None;
            }
            cpus.extend(first..=last);
        }
        Some(cpus.into_iter().collect())
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `cpu` is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> CpuList {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        CpuList(cpus)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (i, run) in runs.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let check = |text: &str, want: Option<&[u32]>| {
            let want = want.map(|cpus| cpus.iter().copied().collect());
            assert_eq!(CpuList::parse(text), want, "{text:?}");
        };
        check("0-3,8", Some(&[0, 1, 2, 3, 8]));
        check("0 1 5", Some(&[0, 1, 5]));
        check("4,0-1,1", Some(&[0, 1, 4]));
        check("7\n", Some(&[7]));
        check("", Some(&[]));
        check(" (null)", Some(&[]));
        check("0-", None);
        check("3-0", None);
        check("0-4294967295", None);
        check("0,,1", None);
        check("all", None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::vec(0u32..300, 0..40)) {
            let list: CpuList = cpus.into_iter().collect();
            prop_assert_eq!(CpuList::parse(&list.to_string()), Some(list));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in ".*") {
            let _ = CpuList::parse(&text);
        }
    }
}
