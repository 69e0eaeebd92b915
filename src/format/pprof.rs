//! Allocation profiles of Go programs as `go test -memprofile` and `net/http/pprof` leave them: protocol buffers after pprof's profile.proto, gzipped or not. Says where was allocated and how much; never looks at a program, never writes a profile.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use prost::Message;

/// Bytes of an unpacked profile beyond which it is not believed to be one.
const LIMIT_BYTES: u64 = 1 << 30;

/// Where a program allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// A byte in so many was looked at, on average; 1 is all of them. The figures are scaled up.
    pub period_bytes: u64,
    /// What was allocated where, a place as often as it has stacks.
    pub allocations: Vec<Allocation>,
}

/// Allocations at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// The function that allocates, and those that it is inlined into, from the inside out.
    pub places: Vec<Place>,
    /// How many objects.
    pub objects: f64,
    /// How many bytes.
    pub bytes: f64,
}

/// A line of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The linker's name of the function that it is in: `example.com/shapes.(*Point).Copy`.
    pub function: String,
    /// Its file, as the compiler was told of it.
    pub file: String,
    /// Its number.
    pub line: u32,
}

/// Why this is no allocation profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    /// It cannot be read or unpacked.
    #[error("it cannot be unpacked: {0}")]
    Unreadable(String),
    /// It is too long.
    #[error("it is longer than {LIMIT_BYTES} bytes")]
    TooLong,
    /// It is a profile as text.
    #[error("it is a profile as text (debug=1), and those in protocol buffers are read")]
    Text,
    /// It is something else.
    #[error("it is no profile in protocol buffers: {0}")]
    Foreign(String),
    /// It tells of something else than allocations.
    #[error("it is a profile of {0}, not of allocations")]
    Other(String),
}

/// Reads a profile to its end.
pub fn read(mut from: impl Read) -> Result<Profile, NoProfile> {
    let mut packed = Vec::new();
    let read = from.by_ref().take(LIMIT_BYTES + 1).read_to_end(&mut packed);
    read.map_err(|error| NoProfile::Unreadable(error.to_string()))?;
    let plain = match packed.starts_with(&[0x1f, 0x8b]) {
        false => Cow::Borrowed(&packed),
        true => {
            let mut plain = Vec::new();
            let unpacked = MultiGzDecoder::new(&packed[..])
                .take(LIMIT_BYTES + 1)
                .read_to_end(&mut plain);
            unpacked.map_err(|error| NoProfile::Unreadable(error.to_string()))?;
            Cow::Owned(plain)
        }
    };
    if plain.len() as u64 > LIMIT_BYTES {
        return Err(NoProfile::TooLong);
    }
    if plain.starts_with(b"heap profile:") {
        return Err(NoProfile::Text);
    }
    let foreign = |error: prost::DecodeError| NoProfile::Foreign(error.to_string());
    Wire::decode(&plain[..]).map_err(foreign)?.profile()
}

/// `message Profile` of profile.proto, as far as it concerns us.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<WireType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<WireSample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<WireLocation>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<WireFunction>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// `message ValueType`; places in the table of strings.
#[derive(Clone, PartialEq, Message)]
struct WireType {
    #[prost(int64, tag = "1")]
    r#type: i64,
}

/// `message Sample`; locations from the leaf on.
#[derive(Clone, PartialEq, Message)]
struct WireSample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

/// `message Location`; the last line is that of the function into which the others are inlined.
#[derive(Clone, PartialEq, Message)]
struct WireLocation {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<WireLine>,
}

/// `message Line`.
#[derive(Clone, PartialEq, Message)]
struct WireLine {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

/// `message Function`.
#[derive(Clone, PartialEq, Message)]
struct WireFunction {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

impl Wire {
    fn profile(&self) -> Result<Profile, NoProfile> {
        let kinds: Vec<&str> = self
            .sample_type
            .iter()
            .map(|kind| self.string(kind.r#type))
            .collect();
        let column = |name| kinds.iter().position(|kind| *kind == name);
        let (Some(objects), Some(bytes)) = (column("alloc_objects"), column("alloc_space")) else {
            return Err(match kinds[..] {
                [] => NoProfile::Foreign("it names no kind of values".to_owned()),
                _ => NoProfile::Other(kinds.join(", ")),
            });
        };
        let place = |line: &WireLine| {
            let function = find(&self.function, line.function_id, |one| one.id)?;
            Some(Place {
                function: self.string(function.name).to_owned(),
                file: self.string(function.filename).to_owned(),
                line: line.line.try_into().ok()?,
            })
        };
        let allocation = |sample: &WireSample| {
            let leaf = sample.location_id.first()?;
            let location = find(&self.location, *leaf, |one| one.id)?;
            let figure = |column: usize| sample.value.get(column).map(|&value| value as f64);
            Some(Allocation {
                places: location.line.iter().filter_map(place).collect(),
                objects: figure(objects)?,
                bytes: figure(bytes)?,
            })
        };
        Ok(Profile {
            period_bytes: self.period.max(1).unsigned_abs(),
            allocations: self.sample.iter().filter_map(allocation).collect(),
        })
    }

    fn string(&self, place: i64) -> &str {
        let place = usize::try_from(place).ok();
        place
            .and_then(|place| self.string_table.get(place))
            .map_or("", |text| text)
    }
}

/// The one with this number. Go numbers them from 1 on, in order; others need not.
fn find<T>(all: &[T], id: u64, id_of: impl Fn(&T) -> u64) -> Option<&T> {
    let usual = usize::try_from(id.checked_sub(1)?).ok()?;
    let there = all.get(usual).filter(|one| id_of(one) == id);
    there.or_else(|| all.iter().find(|one| id_of(one) == id))
}

impl Place {
    /// The import path of the package that the function is in; `main` for that of a program.
    pub fn package(&self) -> String {
        // What types a generic function has may have paths of their own.
        let name = self.function.split('[').next().unwrap_or_default();
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let dot = name[last..].find('.').map_or(name.len(), |dot| last + dot);
        // As the linker writes a dot there.
        name[..dot].replace("%2e", ".")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    /// Two allocations in one place, one of them inlined there.
    fn wire() -> Wire {
        let words = [
            "",
            "alloc_objects",
            "alloc_space",
            "p.inner",
            "p.Outer",
            "/p/p.go",
        ];
        Wire {
            sample_type: [1, 2].map(|r#type| WireType { r#type }).into(),
            sample: vec![
                WireSample {
                    location_id: vec![1, 2],
                    value: vec![3, 48],
                },
                WireSample {
                    location_id: vec![7],
                    value: vec![1, 16],
                },
                // A place that is not there.
                WireSample {
                    location_id: vec![5],
                    value: vec![1, 16],
                },
            ],
            location: [(1, vec![(1, 11), (2, 20)]), (7, vec![(2, 21)])]
                .map(|(id, lines)| WireLocation {
                    id,
                    line: lines
                        .into_iter()
                        .map(|(function_id, line)| WireLine { function_id, line })
                        .collect(),
                })
                .into(),
            function: [(1, 3), (2, 4)]
                .map(|(id, name)| WireFunction {
                    id,
                    name,
                    filename: 5,
                })
                .into(),
            string_table: words.map(str::to_owned).into(),
            period: 512,
        }
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap()
    }

    #[test]
    fn allocations_belong_to_all_that_is_inlined_round_them() {
        let bytes = wire().encode_to_vec();
        for bytes in [zipped(&bytes), bytes] {
            let profile = read(&bytes[..]).unwrap();
            assert_eq!(profile.period_bytes, 512);
            let place = |function: &str, line| Place {
                function: function.to_owned(),
                file: "/p/p.go".to_owned(),
                line,
            };
            let want = [
                Allocation {
                    places: vec![place("p.inner", 11), place("p.Outer", 20)],
                    objects: 3.0,
                    bytes: 48.0,
                },
                Allocation {
                    places: vec![place("p.Outer", 21)],
                    objects: 1.0,
                    bytes: 16.0,
                },
            ];
            assert_eq!(profile.allocations, want);
        }
    }

    #[test]
    fn what_is_no_allocation_profile_is_told() {
        let check = |bytes: &[u8], want: &str| {
            let told = read(bytes).unwrap_err().to_string();
            assert!(told.contains(want), "{told}");
        };
        let mut cpu = wire();
        cpu.string_table[1] = "samples".to_owned();
        cpu.string_table[2] = "cpu".to_owned();
        check(&cpu.encode_to_vec(), "a profile of samples, cpu, not of");
        check(b"", "names no kind of values");
        check(b"heap profile: 1: 2 [3: 4] @ heap/5", "a profile as text");
        check(b"\x7fELF", "no profile in protocol buffers");
        let zip = zipped(&wire().encode_to_vec());
        check(&zip[..zip.len() / 2], "cannot be unpacked");
    }

    #[test]
    fn packages_stand_before_the_first_dot_of_a_name() {
        let check = |function: &str, want: &str| {
            let place = Place {
                function: function.to_owned(),
                file: String::new(),
                line: 0,
            };
            assert_eq!(place.package(), want, "{function}");
        };
        check("example.com/shapes.(*Point).Copy", "example.com/shapes");
        check("example.com/p.Map[go.shape.*a.com/b.T]", "example.com/p");
        check("gopkg.in/yaml%2ev3.Marshal.func1", "gopkg.in/yaml.v3");
        check("main.main", "main");
        check("", "");
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            (at, byte) in (any::<proptest::sample::Index>(), any::<u8>()),
        ) {
            let _ = read(&bytes[..]);
            let mut changed = wire().encode_to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            let _ = read(&changed[..]);
        }
    }
}
