//! What a compiler made, taken apart: the members of an archive, the headers of Go objects, the sections of ELF. Decodes bytes alone; what it cannot take apart stays whole.

use std::collections::BTreeMap;

use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{Endianness, FileFlags, Object, ObjectSection};

/// One part of an output, by its name: `__.PKGDEF`, `_go_.o`, `section .text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// What a part is, for the rules and for those who look for symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Date, owner and mode of an archive's member.
    ArchiveHeader,
    /// The lines at the beginning of a Go object: target, version, experiments, build id.
    GoHeader,
    /// What importers read of a Go package.
    GoExport,
    /// The code and data of a Go package.
    GoObject,
    /// What the headers of ELF say of the file or of one section, in words.
    ElfHeader,
    /// A section's bytes.
    ElfSection,
    /// Anything else.
    Bytes,
}

const ARCHIVE: &[u8] = b"!<arch>\n";
const MEMBER_HEADER: usize = 60;
const GO_HEADER: &[u8] = b"go object ";
const EXPORT: &[u8] = b"\n$$B\n";
const OBJECT: &[u8] = b"\n!\n";

/// The parts of an output, in their order.
pub(super) fn take_apart(output: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    match members(output) {
        Some(members) => {
            for member in members {
                let about = format!("header of {}", member.name);
                parts.push(part(&about, Kind::ArchiveHeader, member.about));
                add(&mut parts, &member.name, member.content);
            }
        }
        None => add(&mut parts, "output", output),
    }
    // Parts are found by their names, which need not be the only ones.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for part in &mut parts {
        let count = seen.entry(part.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            part.name = format!("{} ({count})", part.name);
        }
    }
    parts
}

fn part(name: &str, kind: Kind, bytes: &[u8]) -> Part {
    Part {
        name: name.to_owned(),
        kind,
        bytes: bytes.to_owned(),
    }
}

/// A member of an archive.
struct Member<'a> {
    name: String,
    /// Date, owner and mode. The size is that of the content, which is compared itself.
    about: &'a [u8],
    content: &'a [u8],
}

/// The members of an archive; `None` when it is none or not whole.
fn members(output: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut rest = output.strip_prefix(ARCHIVE)?;
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (header, after) = rest.split_at_checked(MEMBER_HEADER)?;
        let name = str::from_utf8(&header[..16]).ok()?.trim_end();
        let size: usize = str::from_utf8(&header[48..58]).ok()?.trim().parse().ok()?;
        let (content, after) = after.split_at_checked(size)?;
        members.push(Member {
            name: name.trim_end_matches('/').to_owned(),
            about: &header[16..48],
            content,
        });
        rest = match size % 2 {
            0 => after,
            _ => after.get(1..).unwrap_or_default(),
        };
    }
    Some(members)
}

/// Adds the parts of one file.
fn add(parts: &mut Vec<Part>, name: &str, content: &[u8]) {
    if content.starts_with(GO_HEADER) {
        let split = |mark: &[u8]| Some(memchr::memmem::find(content, mark)? + mark.len());
        let (at, kind) = match (split(EXPORT), split(OBJECT)) {
            // Both marks can stand in what follows; the first is the one that counts.
            (Some(export), object) if object.is_none_or(|object| export < object) => {
                (export, Kind::GoExport)
            }
            (_, Some(object)) => (object, Kind::GoObject),
            _ => (content.len(), Kind::Bytes),
        };
        let (header, body) = content.split_at(at);
        parts.push(part(
            &format!("first lines of {name}"),
            Kind::GoHeader,
            header,
        ));
        parts.push(part(name, kind, body));
    } else if !add_elf(parts, name, content) {
        parts.push(part(name, Kind::Bytes, content));
    }
}

/// Adds the header and the sections of a 64-bit ELF file, if it is one.
fn add_elf(parts: &mut Vec<Part>, file: &str, content: &[u8]) -> bool {
    let Ok(elf) = ElfFile64::<Endianness>::parse(content) else {
        return false;
    };
    let within = |name: &str| match file {
        "output" => name.to_owned(),
        file => format!("{name} of {file}"),
    };
    let endian = elf.endian();
    let header = elf.elf_header();
    let flags = match elf.flags() {
        FileFlags::Elf { e_flags, .. } => e_flags,
        _ => 0,
    };
    let about = format!(
        "type {} machine {} flags {flags:#x} entry {:#x}",
        header.e_type(endian),
        header.e_machine(endian),
        header.e_entry(endian),
    );
    parts.push(part(
        &within("ELF header"),
        Kind::ElfHeader,
        about.as_bytes(),
    ));
    for section in elf.sections() {
        let header = section.elf_section_header();
        // All but where in the file it is, which follows from what is before it.
        let about = format!(
            "type {} flags {:#x} address {:#x} size {} link {} info {} align {} entry {}",
            header.sh_type(endian),
            header.sh_flags(endian),
            header.sh_addr(endian),
            header.sh_size(endian),
            header.sh_link(endian),
            header.sh_info(endian),
            header.sh_addralign(endian),
            header.sh_entsize(endian),
        );
        let name = String::from_utf8_lossy(section.name_bytes().unwrap_or_default()).into_owned();
        let name = within(&format!("section {name}"));
        parts.push(part(
            &name,
            Kind::ElfSection,
            section.data().unwrap_or_default(),
        ));
        parts.push(part(
            &format!("header of {name}"),
            Kind::ElfHeader,
            about.as_bytes(),
        ));
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An archive of these members, all of the same date and owner.
    pub(in crate::run::identical) fn archive(date: u32, members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = ARCHIVE.to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{date:<12}0     0     644     {:<10}`\n",
                content.len()
            );
            archive.extend(header.as_bytes());
            archive.extend(*content);
            if content.len() % 2 == 1 {
                archive.push(b'\n');
            }
        }
        archive
    }

    #[test]
    fn archives_and_go_objects_are_taken_apart() {
        let export = b"go object linux amd64 go1.24.11 X:a\nbuild id \"x\"\n\n$$B\nexports!";
        let object = b"go object linux amd64 go1.24.11 X:a\n\n!\n\0go120ld";
        let output = archive(
            7,
            &[("__.PKGDEF", export), ("_go_.o", object), ("odd", b"x")],
        );
        let parts = take_apart(&output);
        let names: Vec<_> = parts.iter().map(|part| (&*part.name, part.kind)).collect();
        let want = [
            ("header of __.PKGDEF", Kind::ArchiveHeader),
            ("first lines of __.PKGDEF", Kind::GoHeader),
            ("__.PKGDEF", Kind::GoExport),
            ("header of _go_.o", Kind::ArchiveHeader),
            ("first lines of _go_.o", Kind::GoHeader),
            ("_go_.o", Kind::GoObject),
            ("header of odd", Kind::ArchiveHeader),
            ("odd", Kind::Bytes),
        ];
        assert_eq!(names, want);
        assert_eq!(parts[2].bytes, b"exports!");
        assert_eq!(parts[5].bytes, b"\0go120ld");
        assert_eq!(parts[7].bytes, b"x");
        // Cut short it is no archive.
        let whole = take_apart(&output[..output.len() - 5]);
        assert_eq!((whole.len(), whole[0].kind), (1, Kind::Bytes));
    }

    #[test]
    fn elf_has_sections() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let parts = take_apart(&own);
        assert_eq!(parts[0].kind, Kind::ElfHeader);
        assert!(parts.iter().any(|part| part.name == "section .text"));
    }

    proptest! {
        #[test]
        fn any_bytes_come_apart(bytes: Vec<u8>, start in 0..4usize) {
            let starts: [&[u8]; 4] = [b"", ARCHIVE, GO_HEADER, b"\x7fELF\x02\x01\x01"];
            take_apart(&[starts[start], &bytes].concat());
        }
    }
}
