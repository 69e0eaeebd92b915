//! The functions and variables of an object file, each with all that its meaning depends on, so that two objects can be compared symbol by symbol. Reads Go objects and ELF; never disassembles.

use std::collections::BTreeMap;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) is_function: bool,
    /// Its size, its bytes, and what they refer to by name.
    content: Vec<u8>,
}

/// The names of symbols that are not the same in both, functions first, each kind in the order of
/// the first object.
pub(super) fn differing(a: &[Symbol], b: &[Symbol]) -> Vec<Symbol> {
    let index = |all: &[Symbol]| -> BTreeMap<String, Vec<Symbol>> {
        let mut index: BTreeMap<String, Vec<Symbol>> = BTreeMap::new();
        for one in all {
            index.entry(one.name.clone()).or_default().push(one.clone());
        }
        index
    };
    let (in_a, in_b) = (index(a), index(b));
    let mut seen = std::collections::BTreeSet::new();
    let mut found: Vec<Symbol> = a
        .iter()
        .chain(b)
        .filter(|one| in_a.get(&one.name) != in_b.get(&one.name))
        .filter(|one| seen.insert(one.name.clone()))
        .cloned()
        .collect();
    found.sort_by_key(|one| !one.is_function);
    found
}

/// The symbols of a 64-bit ELF object; none when it is something else.
pub(super) fn of_elf(bytes: &[u8]) -> Vec<Symbol> {
    let Ok(elf) = ElfFile64::<Endianness>::parse(bytes) else {
        return Vec::new();
    };
    let named = |target: RelocationTarget| match target {
        RelocationTarget::Symbol(index) => {
            let symbol = elf.symbol_by_index(index).ok();
            let name = symbol.and_then(|symbol| symbol.name().map(str::to_owned).ok());
            name.unwrap_or_default()
        }
        other => format!("{other:?}"),
    };
    let mut symbols = Vec::new();
    for symbol in elf.symbols() {
        let is_function = symbol.kind() == SymbolKind::Text;
        let section = symbol.section_index();
        let section = section.and_then(|index| elf.section_by_index(index).ok());
        let (Some(section), true) = (section, is_function || symbol.kind() == SymbolKind::Data)
        else {
            continue;
        };
        let (from, size) = (symbol.address(), symbol.size());
        let data = section.data_range(from, size).ok().flatten();
        let mut content = format!("{size}\n").into_bytes();
        content.extend_from_slice(data.unwrap_or_default());
        for (at, relocation) in section.relocations() {
            let at = at.wrapping_sub(from);
            if at < size {
                let to = named(relocation.target());
                let (kind, addend) = (relocation.flags(), relocation.addend());
                content.extend(format!("\n{at} {kind:?} {to} {addend}").into_bytes());
            }
        }
        symbols.push(Symbol {
            name: symbol.name().unwrap_or_default().to_owned(),
            is_function,
            content,
        });
    }
    symbols
}

/// The beginning of Go objects since Go 1.20.
const MAGIC: &[u8] = b"\0go120ld";

/// The blocks of a Go object, by their place in its header.
mod block {
    pub(super) const PACKAGES: usize = 1;
    pub(super) const DEFINED: usize = 3;
    pub(super) const HASHED64: usize = 4;
    pub(super) const HASHED: usize = 5;
    pub(super) const UNPACKAGED: usize = 6;
    pub(super) const REFERENCES: usize = 7;
    pub(super) const RELOCATION_INDEX: usize = 11;
    pub(super) const DATA_INDEX: usize = 13;
    pub(super) const RELOCATIONS: usize = 14;
    pub(super) const DATA: usize = 16;
    pub(super) const NAMES: usize = 17;
    pub(super) const END: usize = 18;
}

/// Sizes of what the blocks are made of.
const SYMBOL: usize = 21;
const RELOCATION: usize = 23;
const NAME: usize = 16;

/// Packages that stand for kinds of symbols instead.
const NO_PACKAGE: u32 = (1 << 31) - 1;

/// Kinds of symbols that are code: `STEXT`, and since Go 1.24 `STEXTFIPS`.
const CODE: [u8; 2] = [1, 2];

/// A Go object's bytes and the offsets of its blocks; after `cmd/internal/goobj` of Go 1.20 and on.
struct GoObject<'a> {
    bytes: &'a [u8],
    blocks: Vec<usize>,
}

/// The symbols of a Go object; none when it is of a format that is not known here.
pub(super) fn of_go(bytes: &[u8]) -> Vec<Symbol> {
    GoObject::new(bytes)
        .and_then(|object| object.symbols())
        .unwrap_or_default()
}

impl<'a> GoObject<'a> {
    fn new(bytes: &'a [u8]) -> Option<GoObject<'a>> {
        bytes.strip_prefix(MAGIC)?;
        let mut object = GoObject {
            bytes,
            blocks: Vec::new(),
        };
        // Behind the magic a fingerprint of 8 bytes and flags of 4.
        let offsets = (0..=block::END).map(|i| object.u32(MAGIC.len() + 12 + 4 * i));
        object.blocks = offsets
            .map(|at| Some(at? as usize))
            .collect::<Option<_>>()?;
        let in_order = object.blocks.is_sorted() && object.blocks[block::END] <= bytes.len();
        in_order.then_some(object)
    }

    fn take<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.take(at).map(u32::from_le_bytes)
    }

    /// The text that a length and an offset at `at` refer to.
    fn string(&self, at: usize) -> Option<String> {
        let (length, from) = (self.u32(at)? as usize, self.u32(at + 4)? as usize);
        let text = self.bytes.get(from..from.checked_add(length)?)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The offsets of the entries of a block.
    fn entries(&self, block: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
        let (from, to) = (self.blocks[block], self.blocks[block + 1]);
        (from..to.saturating_sub(size - 1)).step_by(size)
    }

    /// The n-th number of an index block.
    fn index(&self, block: usize, n: usize) -> Option<usize> {
        self.u32(self.blocks[block] + 4 * n).map(|at| at as usize)
    }

    /// What all references of this object are called, by package and number.
    fn names(&self) -> Option<BTreeMap<(u32, u32), String>> {
        let mut names = BTreeMap::new();
        let own = [
            (NO_PACKAGE, &[block::UNPACKAGED, block::REFERENCES][..]),
            (NO_PACKAGE - 1, &[block::HASHED64]),
            (NO_PACKAGE - 2, &[block::HASHED]),
            (NO_PACKAGE - 4, &[block::DEFINED]),
        ];
        for (package, blocks) in own {
            let entries = blocks.iter().flat_map(|&block| self.entries(block, SYMBOL));
            for (number, at) in entries.enumerate() {
                names.insert((package, number as u32), self.string(at)?);
            }
        }
        for at in self.entries(block::NAMES, NAME) {
            let name = self.string(at + 8)?;
            names.insert((self.u32(at)?, self.u32(at + 4)?), name);
        }
        Some(names)
    }

    fn symbols(&self) -> Option<Vec<Symbol>> {
        let names = self.names()?;
        let packages: Vec<String> = self
            .entries(block::PACKAGES, 8)
            .map(|at| self.string(at))
            .collect::<Option<_>>()?;
        let defined = [
            block::DEFINED,
            block::HASHED64,
            block::HASHED,
            block::UNPACKAGED,
        ];
        let entries = defined
            .iter()
            .flat_map(|&block| self.entries(block, SYMBOL));
        let mut symbols = Vec::new();
        for (number, at) in entries.enumerate() {
            let [kind] = self.take(at + 10)?;
            // ABI, kind, flags, size and alignment.
            let mut content = self.bytes.get(at + 8..at + SYMBOL)?.to_vec();
            let data = |n| Some(self.blocks[block::DATA] + self.index(block::DATA_INDEX, n)?);
            content.extend_from_slice(self.bytes.get(data(number)?..data(number + 1)?)?);
            let (from, to) = (
                self.index(block::RELOCATION_INDEX, number)?,
                self.index(block::RELOCATION_INDEX, number + 1)?,
            );
            for relocation in from..to {
                let at = self.blocks[block::RELOCATIONS] + relocation * RELOCATION;
                // Offset, size, kind and addend; then what it refers to.
                content.extend_from_slice(self.bytes.get(at..at + 15)?);
                let (package, number) = (self.u32(at + 15)?, self.u32(at + 19)?);
                let name = names.get(&(package, number)).cloned().unwrap_or_else(|| {
                    let package = packages.get(package as usize).map_or("", |name| name);
                    format!("{package}#{number}")
                });
                content.extend(name.as_bytes());
                content.push(b'\n');
            }
            let name = self.string(at)?;
            let is_function =
                kind == CODE[0] || kind == CODE[1] && name.starts_with("crypto/internal/fips140");
            symbols.push(Symbol {
                name,
                is_function,
                content,
            });
        }
        Some(symbols)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbol(name: &str, is_function: bool, content: &str) -> Symbol {
        Symbol {
            name: name.to_owned(),
            is_function,
            content: content.into(),
        }
    }

    #[test]
    fn functions_stand_before_data() {
        let (f, g, d) = (
            symbol("f", true, "1"),
            symbol("g", true, "1"),
            symbol("d", false, "1"),
        );
        let other = |of: &Symbol| Symbol {
            content: b"2".to_vec(),
            ..of.clone()
        };
        let check = |a: &[&Symbol], b: &[&Symbol], want: &[&str]| {
            let own = |all: &[&Symbol]| all.iter().map(|&one| one.clone()).collect::<Vec<_>>();
            let found = differing(&own(a), &own(b));
            let names: Vec<_> = found.iter().map(|one| &*one.name).collect();
            assert_eq!(names, want);
        };
        check(&[&d, &f, &g], &[&g, &f, &d], &[]);
        check(&[&d, &f, &g], &[&other(&d), &f, &other(&g)], &["g", "d"]);
        check(&[&f], &[&f, &g], &["g"]);
        // Local symbols can have one name.
        check(&[&f, &other(&f)], &[&f], &["f"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            of_elf(&bytes);
            of_go(&bytes);
            of_go(&[MAGIC, &bytes].concat());
        }

        #[test]
        fn no_offsets_make_it_panic(offsets in prop::collection::vec(0..400u32, 19), rest: [u32; 32]) {
            let mut sorted = offsets;
            sorted.sort_unstable();
            let numbers = [0, 0, 0].into_iter().chain(sorted).chain(rest);
            let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
            of_go(&[MAGIC, &bytes].concat());
        }
    }
}
