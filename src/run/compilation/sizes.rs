//! How large what a compiler wrote is: all of it, its export data, its machine code. Never trusts a length that it reads.

use crate::sample::Value;

use super::{Made, exact};

/// The sizes in an output: of Go archives and ELF files all that they have, of all else the
/// whole.
pub(super) fn values(made: &Made, output: &[u8]) -> Vec<Value> {
    let (mut export, mut text) = (None, None);
    if let Some(members) = members(output) {
        for (name, content) in members {
            match name {
                "__.PKGDEF" => export = export_bytes(content),
                "_go_.o" => text = go_text_bytes(content),
                _ => {}
            }
        }
    } else {
        text = elf_text_bytes(output);
    }
    let whole = match made {
        Made::Object(_) => "object-bytes",
        Made::Program(_) => "exe-bytes",
    };
    let sizes = [
        (whole, Some(output.len() as u64)),
        ("export-bytes", export),
        ("text-bytes", text),
    ];
    let known = sizes.into_iter();
    known
        .filter_map(|(unit, bytes)| Some(exact(unit, bytes? as f64)))
        .collect()
}

/// The members of an archive; `None` where it is none.
fn members(archive: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    const HEADER: usize = 60;
    let mut rest = archive.strip_prefix(b"!<arch>\n")?;
    let mut members = Vec::new();
    while let Some((header, behind)) = rest.split_at_checked(HEADER) {
        let word = |from: usize, to: usize| {
            let word = std::str::from_utf8(&header[from..to]).unwrap_or_default();
            word.trim_end().trim_end_matches('/')
        };
        let size: usize = word(48, 58).parse().ok()?;
        let content = behind.get(..size)?;
        members.push((word(0, 16), content));
        // The next one begins at an even place.
        rest = behind.get(size + size % 2..).unwrap_or_default();
    }
    Some(members)
}

/// Export data stands between two marks.
fn export_bytes(member: &[u8]) -> Option<u64> {
    let find = |bytes: &[u8], mark: &[u8]| memchr::memmem::find(bytes, mark);
    let begin = find(member, b"\n$$B\n")? + 5;
    let end = member.len() - begin;
    let end = find(&member[begin..], b"\n$$\n").unwrap_or(end);
    Some(end as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

/// The size of all functions of a Go object, by its tables of symbols.
///
/// The format is that of `cmd/internal/goobj`, since Go 1.20: a magic, a fingerprint of 8 bytes,
/// flags, and the offsets of its blocks. A symbol's definition has 21 bytes: name (8), ABI (2),
/// kind (1), flags (2), size (4), alignment (4). Kind 1 is a function, but for those of the FIPS
/// module.
fn go_text_bytes(member: &[u8]) -> Option<u64> {
    const MAGIC: &[u8] = b"\x00go120ld";
    const SYMBOL: usize = 21;
    const OFFSETS: usize = MAGIC.len() + 8 + 4;
    /// Of this package, by hash (short and long), and without a package.
    const DEFINITIONS: [usize; 4] = [3, 4, 5, 6];
    let object = &member[memchr::memmem::find(member, MAGIC)?..];
    let mut sum = 0;
    for block in DEFINITIONS {
        let from = u32_at(object, OFFSETS + 4 * block)?;
        let to = u32_at(object, OFFSETS + 4 * (block + 1))?;
        for symbol in object.get(from..to)?.chunks_exact(SYMBOL) {
            if symbol[10] == 1 {
                sum += u32_at(symbol, 13)? as u64;
            }
        }
    }
    (sum > 0).then_some(sum)
}

/// The size of all sections of an ELF file of 64 bits that can be executed.
fn elf_text_bytes(file: &[u8]) -> Option<u64> {
    const EXECINSTR: u64 = 4;
    // 64 bits, little-endian.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = usize::try_from(u64_at(file, 0x28)?).ok()?;
    let (size, count) = (u32_at(file, 0x3a)? & 0xffff, u32_at(file, 0x3c)? & 0xffff);
    let mut sum = 0_u64;
    for at in 0..count {
        let header = file.get(headers.checked_add(at * size)?..)?;
        if u64_at(header, 8)? & EXECINSTR != 0 {
            sum = sum.saturating_add(u64_at(header, 0x20)?);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use proptest::prelude::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = b"!<arch>\n".to_vec();
        for (name, content) in members {
            out.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    644,
                    content.len()
                )
                .bytes(),
            );
            out.extend_from_slice(content);
            out.extend(std::iter::repeat_n(b'\n', content.len() % 2));
        }
        out
    }

    /// An object with these symbols in its first block of definitions.
    fn object(symbols: &[(u8, u32)]) -> Vec<u8> {
        let begin = 20 + 4 * 20;
        let end = begin + 21 * symbols.len() as u32;
        let mut out = b"go object linux amd64 go1.24.11\n!\n\x00go120ld".to_vec();
        out.extend([0; 12]);
        for block in 0..20 {
            let offset: u32 = if block < 4 { begin } else { end };
            out.extend(offset.to_le_bytes());
        }
        for (kind, size) in symbols {
            out.extend([0; 10]);
            out.extend([*kind, 0, 0]);
            out.extend(size.to_le_bytes());
            out.extend([0; 4]);
        }
        out
    }

    fn sizes(output: &[u8]) -> Vec<(String, f64)> {
        let object = Made::Object(PathBuf::new());
        let values = values(&object, output).into_iter();
        values
            .filter_map(|value| Some((value.unit.to_string(), value.figure.number()?)))
            .collect()
    }

    #[test]
    fn go_archives_tell_all_sizes() {
        let definition = b"go object linux amd64\n\n$$B\nu12345\n$$\n";
        let object = object(&[(1, 100), (3, 7), (1, 23)]);
        let whole = archive(&[("__.PKGDEF", definition), ("_go_.o", &object)]);
        let want = [
            ("object-bytes", whole.len() as f64),
            ("export-bytes", 6.0),
            ("text-bytes", 123.0),
        ];
        assert_eq!(
            sizes(&whole),
            want.map(|(unit, size)| (unit.to_owned(), size))
        );
        assert_eq!(sizes(b"anything"), [("object-bytes".to_owned(), 8.0)]);
    }

    proptest! {
        #[test]
        fn what_is_cut_off_or_changed_is_no_panic(at in 0_usize..400, byte: u8, keep in 0_usize..400) {
            let object = object(&[(1, 100), (3, 7)]);
            let mut whole = archive(&[("__.PKGDEF", b"\n$$B\nu12345"), ("_go_.o", &object)]);
            let at = at % whole.len();
            whole[at] = byte;
            whole.truncate(keep);
            prop_assert_eq!(sizes(&whole)[0].1, whole.len() as f64);
            let mut elf = b"\x7fELF\x02\x01".to_vec();
            elf.extend(&whole);
            sizes(&elf);
        }
    }
}
