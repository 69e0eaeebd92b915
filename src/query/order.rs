//! Sort orders of a field's values. Compares texts, and never knows what they are values of.

use std::cmp::Ordering;

/// How the values of a field are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As they were first observed.
    First,
    /// By their bytes.
    Alpha,
    /// Numbers by size, then what is not a number by its bytes.
    Num,
    /// As listed.
    Fixed(Vec<String>),
}

/// A value's place in its field's order; values with equal ranks go by their bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    class: u8,
    number: f64,
}

impl Order {
    /// The rank of `text`, which was observed as the `nth` value of its field.
    pub(super) fn rank(&self, text: &str, nth: usize) -> Rank {
        let (class, number) = match self {
            Order::First => (0, nth as f64),
            Order::Alpha => (0, 0.0),
            Order::Num => match number(text) {
                Some(number) if number.is_nan() => (1, 0.0),
                // Plus zero: -0 and 0 are the same number.
                Some(number) => (0, number + 0.0),
                None => (2, 0.0),
            },
            Order::Fixed(listed) => match listed.iter().position(|l| l == text) {
                Some(i) => (0, i as f64),
                None => (1, 0.0),
            },
        };
        Rank { class, number }
    }
}

impl Rank {
    pub(super) fn compare(self, other: Rank) -> Ordering {
        let classes = self.class.cmp(&other.class);
        classes.then(self.number.total_cmp(&other.number))
    }
}

/// The number that a text tells, with prefixes of the metric (`2k`, `1.5M`) and the binary
/// (`64Ki`) kind.
///
/// A text that is no number as a whole tells the first one in it: `64KiB`, `n=100`, `p99`. That
/// is how benchstat reads them, but for a minus sign: it takes `-2k` for 2000.
fn number(text: &str) -> Option<f64> {
    const PREFIXES: &str = "KMGTPEZY";
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    let start = text.find(digit)?;
    let rest = &text[start..];
    let (digits, suffix) = rest.split_at(rest.find(|c| !digit(c)).unwrap_or(rest.len()));
    let number: f64 = digits.parse().ok()?;
    let signed = if &text[..start] == "-" {
        -number
    } else {
        number
    };
    let mut suffix = suffix.chars();
    let prefix = suffix.next().map(|c| if c == 'k' { 'K' } else { c });
    let power = match prefix.and_then(|c| PREFIXES.find(c)) {
        Some(place) => place as i32 + 1,
        None => return Some(signed),
    };
    let base: f64 = if suffix.next() == Some('i') {
        1024.0
    } else {
        1000.0
    };
    Some(signed * base.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_texts() {
        let check = |text: &str, want: Option<f64>| assert_eq!(number(text), want, "{text}");
        check("1", Some(1.0));
        check("1.5", Some(1.5));
        check("-3e-2", Some(-0.03));
        check(".5", Some(0.5));
        check("1B", Some(1.0));
        check("1b", Some(1.0));
        check("2k", Some(2000.0));
        check("2K", Some(2000.0));
        check("2ki", Some(2048.0));
        check("4KiB", Some(4096.0));
        check("2M", Some(2e6));
        check("2Mi", Some(2_097_152.0));
        check("1.5G", Some(1.5e9));
        check("1T", Some(1e12));
        check("1Pi", Some(1_125_899_906_842_624.0));
        check("1E", Some(1e18));
        check("1Z", Some(1e21));
        check("1Y", Some(1e24));
        check("-2k", Some(-2000.0));
        check("n=100", Some(100.0));
        check("chunk-64k", Some(64_000.0));
        check("10ms", Some(10.0));
        check("1.2.3", None);
        check(".", None);
        check("", None);
        check("pipe", None);
        check("Inf", Some(f64::INFINITY));
        assert!(number("NaN").is_some_and(f64::is_nan));
    }
}
