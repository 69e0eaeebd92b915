//! Reading the small text files of `/proc` and `/sys`. Never writes one, and takes what is empty, binary or out of form for unknown.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// Reads at most `limit` bytes of a text file. Files that are empty or not text are unknown.
pub(super) fn read(path: &Path, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    readable(String::from_utf8(bytes).ok()?)
}

/// A small file without the white space (and the device tree's NULs) round it; may be empty
/// when the file holds only these.
///
/// One read(2) is enough: the kernel gives a setting, or the first entries of a list, whole.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = [0; 8192];
    let len = File::open(path).ok()?.read(&mut bytes).ok()?;
    let text = readable(str::from_utf8(&bytes[..len]).ok()?)?;
    let blank = |c: char| c.is_whitespace() || c == '\0';
    Some(text.trim_matches(blank).to_owned())
}

/// A small file that holds one line with something on it.
pub(super) fn word(path: &Path) -> Option<String> {
    text(path).filter(|text| !text.is_empty() && !text.contains(['\n', '\0']))
}

/// The words of a small file.
pub(super) fn words(path: &Path) -> Vec<String> {
    text(path)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

pub(super) fn number<T: FromStr>(path: &Path) -> Option<T> {
    word(path)?.parse().ok()
}

/// `0` or `1`.
pub(super) fn flag(path: &Path) -> Option<bool> {
    match word(path)?.as_str() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// The choice in brackets: `always [madvise] never`.
pub(super) fn selected(path: &Path) -> Option<String> {
    let text = word(path)?;
    let (_, rest) = text.split_once('[')?;
    let (choice, _) = rest.split_once(']')?;
    Some(choice.to_owned())
}

pub(super) fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The names in a directory, sorted.
pub(super) fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    names
}

/// The text itself, unless it is empty or binary.
fn readable<T: AsRef<str>>(text: T) -> Option<T> {
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\0');
    (!text.as_ref().is_empty() && !text.as_ref().contains(strange)).then_some(text)
}
