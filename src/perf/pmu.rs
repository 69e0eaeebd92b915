//! PMUs as sysfs describes them: their number, the fields of their configuration, their named events. Never opens an event, never writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::event::Measure;

/// One directory of `/sys/bus/event_source/devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pmu {
    /// The directory's name: `cpu`, `cpu_atom`, `msr`.
    pub name: String,
    /// Its number, the `type` of `perf_event_attr`.
    pub kind: u32,
    /// The CPUs that it counts on, as a list such as `0-7,16`; only core PMUs that some CPUs
    /// lack have one.
    pub cpus: Option<String>,
    dir: PathBuf,
}

/// Where a parameter's value goes: which word of the configuration, and which bits of it, the
/// lowest bits of the value first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// 0 for `config`, 1 for `config1`, 2 for `config2`.
    word: usize,
    /// First and last bit of each range, in order, without overlap.
    ranges: Vec<(u32, u32)>,
}

/// A file that should be readable and understood, and was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Unreadable {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's text, or what was found instead.
    pub why: String,
}

impl Pmu {
    /// The PMU called `name` below `root`; `None` when there is none.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Option<Pmu>, Unreadable> {
        if !is_file_name(name) {
            return Ok(None);
        }
        let mut pmu = Pmu {
            name: name.to_owned(),
            kind: 0,
            cpus: None,
            dir: root.join(name),
        };
        let Some(text) = pmu.file("type")? else {
            return Ok(None);
        };
        pmu.kind = text
            .parse()
            .map_err(|_| Unreadable::not_understood(pmu.dir.join("type"), &text))?;
        pmu.cpus = pmu.file("cpus")?;
        Ok(Some(pmu))
    }

    /// All PMUs below `root` by name; those that cannot be read are left out.
    pub(crate) fn all(root: &Path) -> Vec<Pmu> {
        let open = |name: String| Pmu::open(root, &name).ok().flatten();
        names(root).into_iter().filter_map(open).collect()
    }

    /// Whether it counts what a CPU core does, so that `cycles` without more can mean it.
    pub fn is_core(&self) -> bool {
        // Only core PMUs have `cpus`; uncore ones have a `cpumask`. The two names are those of
        // machines whose cores are all alike (`cpum_cf`: s390).
        self.cpus.is_some() || matches!(self.name.as_str(), "cpu" | "cpum_cf")
    }

    /// The names of its parameters.
    pub(crate) fn formats(&self) -> Vec<String> {
        names(&self.dir.join("format"))
    }

    /// Where the parameter `name` goes; `None` when it has no such parameter.
    pub(crate) fn format(&self, name: &str) -> Result<Option<Format>, Unreadable> {
        if !is_file_name(name) {
            return Ok(None);
        }
        let path = format!("format/{name}");
        let Some(text) = self.file(&path)? else {
            return Ok(None);
        };
        let format = Format::parse(&text);
        format
            .map(Some)
            .ok_or_else(|| Unreadable::not_understood(self.dir.join(path), &text))
    }

    /// The names of its events.
    pub(crate) fn events(&self) -> Vec<String> {
        let mut events = names(&self.dir.join("events"));
        events.retain(|name| !is_about_event(name));
        events
    }

    /// What the event `name` stands for, such as `event=0xcd,umask=0x1`; `None` when it has no
    /// such event.
    pub(crate) fn event(&self, name: &str) -> Result<Option<String>, Unreadable> {
        if !is_file_name(name) || is_about_event(name) {
            return Ok(None);
        }
        self.file(&format!("events/{name}"))
    }

    /// Writes what the text of one of its events says into `config`, `config1` and `config2`;
    /// parameters that the text leaves open stay as they are.
    pub(crate) fn put_event(&self, text: &str, words: &mut [u64; 3]) -> Result<(), Unreadable> {
        let bad = || Unreadable::not_understood(self.dir.join("events"), text);
        for term in text.split(',').map(str::trim) {
            let (key, value) = match term.split_once('=') {
                Some((_, "?")) => continue,
                Some((key, value)) => (key, number(value).ok_or_else(bad)?),
                None => (term, 1),
            };
            match (key, self.format(key)?) {
                ("config", None) => words[0] = value,
                ("config1", None) => words[1] = value,
                ("config2", None) => words[2] = value,
                (_, Some(format)) if value <= format.max() => format.put(words, value),
                _ => return Err(bad()),
            }
        }
        Ok(())
    }

    /// What one count of its event `name` stands for, by the `.scale` and `.unit` files.
    pub(crate) fn measure(&self, name: &str) -> Result<Measure, Unreadable> {
        let unit = self.file(&format!("events/{name}.unit"))?;
        let path = format!("events/{name}.scale");
        let factor = match self.file(&path)? {
            None => 1.0,
            Some(text) => text
                .parse()
                .map_err(|_| Unreadable::not_understood(self.dir.join(path), &text))?,
        };
        Ok(Measure::new(factor, unit.as_deref().unwrap_or_default()))
    }

    /// The text of `path` in the PMU's directory; `None` when there is no such file.
    fn file(&self, path: &str) -> Result<Option<String>, Unreadable> {
        let path = self.dir.join(path);
        read(&path).map_err(|e| Unreadable::new(path, &e))
    }
}

impl Format {
    /// Reads such as `config:0-7,32-35` or `config1:3`.
    fn parse(text: &str) -> Option<Format> {
        let (word, bits) = text.split_once(':')?;
        let word = match word {
            "config" => 0,
            "config1" => 1,
            "config2" => 2,
            _ => return None,
        };
        let mut ranges = Vec::new();
        let mut taken = 0_u64;
        for range in bits.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last > 63 {
                return None;
            }
            let mask = low_bits(last - first + 1) << first;
            if taken & mask != 0 {
                return None;
            }
            taken |= mask;
            ranges.push((first, last));
        }
        Some(Format { word, ranges })
    }

    /// The largest value that fits.
    pub(crate) fn max(&self) -> u64 {
        low_bits(
            self.ranges
                .iter()
                .map(|(first, last)| last - first + 1)
                .sum(),
        )
    }

    /// Writes `value` into its bits of `words` (`config`, `config1`, `config2`), over what stood
    /// there. Bits beyond [`Format::max`] are lost.
    pub(crate) fn put(&self, words: &mut [u64; 3], value: u64) {
        let mut rest = value;
        for &(first, last) in &self.ranges {
            let width = last - first + 1;
            let mask = low_bits(width) << first;
            words[self.word] = words[self.word] & !mask | rest << first & mask;
            rest = rest.checked_shr(width).unwrap_or(0);
        }
    }
}

/// The parameters that the text of an event leaves open: `domain` of `event=2,domain=?`.
pub(crate) fn open_parameters(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .filter_map(|term| term.trim().strip_suffix("=?"))
}

/// A decimal number, or a hexadecimal one after `0x`, as sysfs and perf write them.
pub(crate) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The standard parser would take a sign.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `count` ones.
fn low_bits(count: u32) -> u64 {
    u64::MAX
        .checked_shr(64_u32.saturating_sub(count))
        .unwrap_or(0)
}

/// Whether `name` can only mean a file of its directory.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// Whether `name` is a file that says more about an event, not an event.
fn is_about_event(name: &str) -> bool {
    [".scale", ".unit", ".per-pkg", ".snapshot"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// The names in a directory in order; none when it cannot be listed.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A small file's text without white space around it; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    // A name that is too long for a file, or a directory's, is no file's name.
    const NO_FILE: [i32; 4] = [
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::ENAMETOOLONG,
    ];
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e)
            if e.raw_os_error()
                .is_some_and(|errno| NO_FILE.contains(&errno)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

impl Unreadable {
    pub(crate) fn new(path: PathBuf, error: &io::Error) -> Unreadable {
        let why = error.to_string();
        Unreadable { path, why }
    }

    pub(crate) fn not_understood(path: PathBuf, text: &str) -> Unreadable {
        let why = format!("`{text}` is not understood");
        Unreadable { path, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_place_values() {
        let check = |format: &str, value, want: [u64; 3]| {
            let mut words = [0; 3];
            Format::parse(format).unwrap().put(&mut words, value);
            assert_eq!(words, want, "{format} {value:#x}");
        };
        check("config:0-7", 0x3c, [0x3c, 0, 0]);
        check("config:8-15", 0xff, [0xff00, 0, 0]);
        check("config:0-7,32-35", 0xabc, [0xa_0000_00bc, 0, 0]);
        check("config1:0-63", u64::MAX, [0, u64::MAX, 0]);
        check("config2:63", 1, [0, 0, 1 << 63]);
        check("config:4-7,0-3", 0x21, [0x12, 0, 0]);
    }

    #[test]
    fn later_values_replace_earlier_ones() {
        let format = Format::parse("config:4-7").unwrap();
        let mut words = [0xfff, 0, 0];
        format.put(&mut words, 2);
        assert_eq!(words, [0xf2f, 0, 0]);
    }

    #[test]
    fn formats_know_their_largest_value() {
        let check =
            |format, want| assert_eq!(Format::parse(format).map(|f| f.max()), want, "{format}");
        check("config:0-63", Some(u64::MAX));
        check("config:0-7,32-35", Some(0xfff));
        check("config1:5", Some(1));
        for bad in [
            "",
            "config",
            "config:",
            "config3:0-7",
            "config:7-0",
            "config:0-64",
            "config:0-3,2-5",
            "config:x",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn what_was_put_can_be_taken_out(value: u64, first in 0_u32..64, width in 1_u32..65) {
            let last = (first + width - 1).min(63);
            let format = Format { word: 1, ranges: vec![(first, last)] };
            let mut words = [0; 3];
            format.put(&mut words, value);
            prop_assert_eq!(words, [0, (value & format.max()) << first, 0]);
        }

        #[test]
        fn formats_never_panic(text in "(config[0-9]?:)?[-0-9,:]{0,20}") {
            if let Some(format) = Format::parse(&text) {
                format.put(&mut [0; 3], u64::MAX);
            }
        }
    }
}
