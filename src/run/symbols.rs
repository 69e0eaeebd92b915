//! From addresses to the names of functions, by the symbols in ELF files. Never guesses: what has no symbol is shown as its place in its file.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::probe::mappings::{Area, Mapping, Space};

/// Where an instruction is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    In {
        /// The file.
        file: Rc<Path>,
        /// At which byte.
        offset: u64,
    },
    /// In memory of which no file tells anything: code made at run time, the kernel's.
    At(Mapping),
}

impl Place {
    /// The place of a frame of a stack, at this depth: `space` is the memory of its process.
    pub fn in_stack(space: &Space, depth: usize, ip: u64) -> Place {
        // A caller's address is where it goes on, which may be another function's.
        let ip = ip.saturating_sub(u64::from(depth > 0));
        Place::of(space.find(ip), ip)
    }

    /// The place of address `ip`, which `area` holds.
    pub fn of(area: Option<&Area>, ip: u64) -> Place {
        match area {
            Some(area) => match area.mapping.file() {
                Some(file) => Place::In {
                    file: Rc::clone(file),
                    offset: ip - area.start + area.offset,
                },
                None => Place::At(area.mapping.clone()),
            },
            None => Place::At(Mapping::Unknown),
        }
    }
}

/// The symbols of all files that were asked for, read when they are first needed.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<Rc<Path>, Option<Table>>);

/// The functions of one file.
#[derive(Debug)]
struct Table {
    /// Offset in the file, address, bytes: what is loaded where.
    segments: Vec<(u64, u64, u64)>,
    /// Address, bytes, name; by address.
    functions: Vec<(u64, u64, String)>,
}

/// Larger files are not read for their symbols.
const MOST_BYTES: u64 = 2 << 30;

impl Symbols {
    /// The name of the function at `place`; `None` when its file has no symbol there, or is gone.
    pub fn name(&mut self, place: &Place) -> Option<String> {
        let (name, _) = self.find(place)?;
        Some(demangled(name))
    }

    /// The name, how far in the function that is, and its file: `main+0x1f (prog)`; or where it is.
    pub fn described(&mut self, place: &Place) -> String {
        let found = self
            .find(place)
            .map(|(name, within)| (demangled(name), within));
        match (found, place) {
            (Some((name, within)), Place::In { file, .. }) => {
                let base = file.file_name().unwrap_or_default().to_string_lossy();
                format!("{name}+{within:#x} ({base})")
            }
            _ => self.word(place),
        }
    }

    /// The function at `place`, and how many bytes behind its beginning that is.
    fn find(&mut self, place: &Place) -> Option<(&str, u64)> {
        let Place::In { file, offset } = place else {
            return None;
        };
        let table = self.0.entry(Rc::clone(file)).or_insert_with(|| {
            let bytes = fs::metadata(file).ok()?.len();
            let is_plain = bytes <= MOST_BYTES;
            Table::parse(&is_plain.then(|| fs::read(file).ok())??)
        });
        table.as_ref()?.find(*offset)
    }

    /// The name, or where it is: `[libc.so.6+0x1234]`, `[anonymous]`.
    pub fn word(&mut self, place: &Place) -> String {
        if let Some(name) = self.name(place) {
            return name;
        }
        match place {
            Place::In { file, offset } => {
                let base = file.file_name().unwrap_or_default().to_string_lossy();
                format!("[{base}+{offset:#x}]")
            }
            Place::At(mapping) => format!("[{mapping}]"),
        }
    }
}

/// The name as its language writes it, without the types of parameters.
fn demangled(name: &str) -> String {
    if let Ok(plain) = rustc_demangle::try_demangle(name) {
        return format!("{plain:#}");
    }
    let options = cpp_demangle::DemangleOptions::new()
        .no_params()
        .no_return_type();
    let symbol = cpp_demangle::Symbol::new(name).ok();
    let plain = symbol.and_then(|symbol| symbol.demangle_with_options(&options).ok());
    plain.unwrap_or_else(|| name.to_owned())
}

impl Table {
    fn parse(bytes: &[u8]) -> Option<Table> {
        let file = object::File::parse(bytes).ok()?;
        let segments = file.segments().map(|segment| {
            let (offset, bytes) = segment.file_range();
            (offset, segment.address(), bytes)
        });
        let mut functions: Vec<(u64, u64, String)> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| {
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                Some((symbol.address(), symbol.size(), name.to_owned()))
            })
            .collect();
        // Of several names at one address the shortest, which is mostly the public one.
        functions.sort_by(|a, b| (a.0, a.2.len(), &a.2).cmp(&(b.0, b.2.len(), &b.2)));
        functions.dedup_by_key(|function| function.0);
        Some(Table {
            segments: segments.collect(),
            functions,
        })
    }

    fn find(&self, offset: u64) -> Option<(&str, u64)> {
        let (from, address, _) = self
            .segments
            .iter()
            .find(|(from, _, bytes)| (*from..from.saturating_add(*bytes)).contains(&offset))?;
        let wanted = (offset - from).checked_add(*address)?;
        let at = self
            .functions
            .partition_point(|(start, ..)| *start <= wanted);
        let (start, bytes, name) = self.functions.get(at.checked_sub(1)?)?;
        // Some of hand-written assembly have no size: they go on to the next one.
        let within = wanted - start;
        (*bytes == 0 || within < *bytes).then_some((name, within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_functions_have_names() {
        let myself = std::env::current_exe().unwrap();
        let maps = fs::read("/proc/self/maps").unwrap();
        let space = crate::probe::mappings::Space::parse(&maps);
        let ip = our_own_functions_have_names as fn() as usize as u64;
        let mut symbols = Symbols::default();
        let place = Place::of(space.find(ip), ip);
        let name = symbols.name(&place).unwrap();
        assert!(name.contains("our_own_functions_have_names"), "{name}");
        let described = symbols.described(&place);
        assert!(
            described.starts_with(&format!("{name}+0x0 (")),
            "{described}"
        );
        let far = Place::In {
            file: myself.as_path().into(),
            offset: u64::MAX,
        };
        assert_eq!(symbols.name(&far), None);
        assert!(symbols.word(&far).ends_with("+0xffffffffffffffff]"));
        let nowhere = Place::of(None, 0);
        assert_eq!(symbols.word(&nowhere), "[unknown]");
    }

    #[test]
    fn names_are_those_of_the_source() {
        let check = |mangled, want: &str| assert_eq!(demangled(mangled), want);
        check("main", "main");
        check("runtime.(*mheap).grow", "runtime.(*mheap).grow");
        check("_ZN4core4iter3max17h0123456789abcdefE", "core::iter::max");
        check(
            "_ZNSt6vectorIiSaIiEE9push_backEOi",
            "std::vector<int, std::allocator<int> >::push_back",
        );
        check("_Z not mangled", "_Z not mangled");
    }

    #[test]
    fn what_is_no_program_has_no_names() {
        assert!(Table::parse(b"").is_none());
        assert!(Table::parse(b"\x7fELF\x02\x01\x01 and so on").is_none());
    }
}
