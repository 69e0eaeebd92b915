//! The BPF type format, as far as it takes to walk over types without keeping them. Pure decoding: reads bytes, never a file.
//!
//! After `include/uapi/linux/btf.h`:
//!
//! ```text
//! struct btf_header { u16 magic; u8 version, flags; u32 hdr_len, type_off, type_len, str_off, str_len; };
//! struct btf_type   { u32 name_off; u32 info; u32 size_or_type; };    then what its kind has
//!                   info: bits 0-15 vlen, 24-28 kind, 31 kind_flag
//! struct btf_member { u32 name_off; u32 type; u32 offset; };          in bits; with kind_flag the lower 24
//! struct btf_array  { u32 type; u32 index_type; u32 nelems; };
//! ```

use std::ops::Range;

/// What a type is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BTF_KIND_PTR`.
    Pointer,
    /// `BTF_KIND_ARRAY`.
    Array,
    /// `BTF_KIND_STRUCT` or `BTF_KIND_UNION`.
    Composite,
    /// `BTF_KIND_TYPEDEF`.
    Typedef,
    /// `BTF_KIND_FUNC`.
    Function,
    /// `const`, `volatile`, `restrict`, and tags on types.
    Modifier,
    /// All others.
    Other,
}

/// One type.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    /// Its number.
    pub id: u32,
    /// Its name, empty when it has none.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, or the type that it refers to.
    pub size_or_type: u32,
    /// Itself as it stands there.
    pub raw: &'a [u8],
    strings: &'a [u8],
    members: usize,
    kind_flag: bool,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub type_id: u32,
    /// Where it stands.
    pub offset_bits: u32,
}

/// The parts of a description of types.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// All types, from number 1 on.
    pub types: &'a [u8],
    /// All names.
    pub strings: &'a [u8],
}

/// Bytes of `struct btf_header`.
const HEADER_BYTES: usize = 24;

/// What every type begins with.
const TYPE_BYTES: usize = 12;

/// What a member of a structure has.
const MEMBER_BYTES: usize = 12;

impl<'a> Description<'a> {
    /// Finds the parts in `bytes`; `None` when they are not what they say.
    pub fn new(bytes: &'a [u8]) -> Option<Description<'a>> {
        const MAGIC: u16 = 0xeb9f;
        let magic = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
        let field = |n| word(bytes, n).map(|value| value as usize);
        let (header, types, types_bytes) = (field(4)?, field(8)?, field(12)?);
        let (strings, strings_bytes) = (field(16)?, field(20)?);
        let part = |from: usize, length: usize| {
            let from = header.checked_add(from)?;
            bytes.get(from..from.checked_add(length)?)
        };
        (magic == MAGIC).then_some(Description {
            types: part(types, types_bytes)?,
            strings: part(strings, strings_bytes)?,
        })
    }

    /// All types in order, up to the first that is cut short or of a kind unheard of.
    pub fn types(self) -> impl Iterator<Item = Type<'a>> {
        let mut rest = self.types;
        let mut id = 0;
        std::iter::from_fn(move || {
            id += 1;
            let found = Type::first(id, rest, self.strings)?;
            rest = rest.get(found.raw.len()..)?;
            Some(found)
        })
    }
}

/// The description of a kernel's types, reduced to those that `wanted` names and what their layout
/// depends on. All keep their numbers; those in between become nameless declarations. Reading it
/// takes a tenth of the time.
pub fn reduce(kernel: &[u8], wanted: impl Fn(Kind, &str) -> bool) -> Option<Vec<u8>> {
    let described = Description::new(kernel)?;
    let all: Vec<Type<'_>> = described.types().collect();
    let mut keep = vec![false; all.len() + 1];
    let mut open: Vec<u32> = all
        .iter()
        .filter(|found| wanted(found.kind, found.name))
        .map(|found| found.id)
        .collect();
    while let Some(id) = open.pop() {
        let (Some(kept), Some(found)) = (
            keep.get_mut(id as usize),
            (id as usize).checked_sub(1).and_then(|n| all.get(n)),
        ) else {
            continue;
        };
        if !std::mem::replace(kept, true) {
            open.extend(found.parts());
        }
    }
    let last = keep.iter().rposition(|kept| *kept)?;
    let mut types = Vec::new();
    for found in all.iter().take(last) {
        match keep[found.id as usize] {
            true => types.extend_from_slice(found.raw),
            // A forward declaration without a name.
            false => types.extend([0, 7 << 24, 0].into_iter().flat_map(u32::to_ne_bytes)),
        }
    }
    let mut reduced = kernel.get(..8)?.to_vec();
    let bytes = |part: &[u8]| u32::try_from(part.len()).ok();
    let (types_bytes, strings_bytes) = (bytes(&types)?, bytes(described.strings)?);
    reduced[4..8].copy_from_slice(&(HEADER_BYTES as u32).to_ne_bytes());
    for field in [0, types_bytes, types_bytes, strings_bytes] {
        reduced.extend(field.to_ne_bytes());
    }
    reduced.extend(types);
    reduced.extend_from_slice(described.strings);
    Some(reduced)
}

impl<'a> Type<'a> {
    fn first(id: u32, types: &'a [u8], strings: &'a [u8]) -> Option<Type<'a>> {
        let (name, info) = (word(types, 0)?, word(types, 4)?);
        let members = (info & 0xffff) as usize;
        let (kind, more) = match info >> 24 & 0x1f {
            2 => (Kind::Pointer, 0),
            3 => (Kind::Array, 12),
            4 | 5 => (Kind::Composite, members * MEMBER_BYTES),
            8 => (Kind::Typedef, 0),
            9..=11 | 18 => (Kind::Modifier, 0),
            12 => (Kind::Function, 0),
            // FWD, FLOAT
            7 | 16 => (Kind::Other, 0),
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => (Kind::Other, 4),
            // ENUM, FUNC_PROTO
            6 | 13 => (Kind::Other, members * 8),
            // DATASEC, ENUM64
            15 | 19 => (Kind::Other, members * 12),
            _ => return None,
        };
        Some(Type {
            id,
            name: text(strings, name),
            kind,
            size_or_type: word(types, 8)?,
            raw: types.get(..TYPE_BYTES + more)?,
            strings,
            members,
            kind_flag: info >> 31 == 1,
        })
    }

    /// The members of a structure or union; else none.
    pub fn members(self) -> impl Iterator<Item = Member<'a>> {
        let count = match self.kind {
            Kind::Composite => self.members,
            _ => 0,
        };
        (0..count).filter_map(move |n| {
            let at = TYPE_BYTES + n * MEMBER_BYTES;
            let offset = word(self.raw, at + 8)?;
            Some(Member {
                name: text(self.strings, word(self.raw, at)?),
                type_id: word(self.raw, at + 4)?,
                offset_bits: if self.kind_flag {
                    offset & 0xff_ffff
                } else {
                    offset
                },
            })
        })
    }

    /// The types that one must know to know the layout of this one.
    pub fn parts(self) -> Vec<u32> {
        match self.kind {
            Kind::Composite => self.members().map(|member| member.type_id).collect(),
            Kind::Array => [TYPE_BYTES, TYPE_BYTES + 4]
                .into_iter()
                .filter_map(|at| word(self.raw, at))
                .collect(),
            Kind::Typedef | Kind::Modifier => vec![self.size_or_type],
            Kind::Pointer | Kind::Function | Kind::Other => Vec::new(),
        }
    }
}

/// A section of an ELF object of 64 bits in our byte order.
pub fn section<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let long = |at: usize| {
        let bytes = object.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?) as usize)
    };
    let half = |at: usize| {
        let bytes = object.get(at..at + 2)?;
        Some(usize::from(u16::from_ne_bytes(bytes.try_into().ok()?)))
    };
    // e_shoff, e_shentsize, e_shnum, e_shstrndx
    let (headers, size, count, names) = (long(40)?, half(58)?, half(60)?, half(62)?);
    let body = |n: usize| -> Option<Range<usize>> {
        let header = headers + n * size;
        let from = long(header + 24)?;
        Some(from..from.checked_add(long(header + 32)?)?)
    };
    let names = object.get(body(names)?)?;
    let found = (0..count).find(|n| {
        let offset = word(object, headers + n * size);
        offset.is_some_and(|offset| text(names, offset) == name)
    })?;
    object.get(body(found)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn text(strings: &[u8], at: u32) -> &str {
    let rest = strings.get(at as usize..).unwrap_or_default();
    let end = memchr::memchr(0, rest).unwrap_or(0);
    str::from_utf8(&rest[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            section(&bytes, ".BTF");
            let _ = Description::new(&bytes);
            let described = Description { types: &bytes, strings: &bytes };
            for found in described.types() {
                let _ = (found.members().count(), found.parts());
            }
        }
    }

    #[test]
    fn types_of_an_object_are_found() {
        let object = include_bytes!("../../bpf/syscalls.bpf.o");
        let described = Description::new(section(object, ".BTF").unwrap()).unwrap();
        let task = described.types().find(|found| found.name == "task_struct");
        let names: Vec<&str> = task.unwrap().members().map(|member| member.name).collect();
        assert!(names.contains(&"thread_pid"), "{names:?}");
        assert!(section(object, ".nothing").is_none());
    }
}
