//! The house rules that the compiler does not know: no module imports from its own floor or one above it, `unsafe` stays in `sys`, and only the door prints or exits.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The floor of every module; a module imports only from floors below its own.
const FLOORS: [(&str, u8); 17] = [
    ("unit", 0),
    ("sample", 0),
    ("sys", 1),
    ("perf", 2),
    ("machine", 2),
    ("probe", 2),
    ("format", 2),
    ("query", 2),
    ("stats", 2),
    ("run", 3),
    ("compare", 3),
    ("doctor", 3),
    ("report", 4),
    ("bisect", 4),
    ("cli", 5),
    ("main", 6),
    ("lib", 6),
];

/// Modules of pure knowledge: they import words alone, and no crate that talks to the kernel.
const KNOWLEDGE: [&str; 5] = ["unit", "sample", "format", "query", "stats"];

/// Crates that talk to the kernel.
const KERNEL_CRATES: [&str; 7] = [
    "aya",
    "libc",
    "nix",
    "procfs",
    "caps",
    "syscalls",
    "perf_event_open_sys",
];

#[test]
fn the_source_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "only {} files found", files.len());
    let codes: Vec<(PathBuf, Code)> = files
        .into_iter()
        .map(|path| {
            let code = Code::new(&fs::read_to_string(&path).unwrap());
            (path, code)
        })
        .collect();
    let test_files: BTreeSet<PathBuf> = codes
        .iter()
        .flat_map(|(path, code)| {
            let names = code.test_files();
            names.into_iter().flat_map(|name| module_files(path, &name))
        })
        .collect();
    let broken: Vec<String> = codes
        .iter()
        .flat_map(|(path, code)| {
            let shown = path.strip_prefix(&root).unwrap();
            code.violations(shown, test_files.contains(path))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn violations_are_found() {
    let check = |path: &str, text: &str, want: &[&str]| {
        assert_eq!(
            Code::new(text).violations(Path::new(path), false),
            want,
            "{text}"
        );
    };
    check("perf/plan.rs", "use crate::sample::Cause;", &[]);
    check("perf/plan.rs", "use crate::perf::event::Event;", &[]);
    check(
        "perf/plan.rs",
        "use crate::unit;\nuse crate::run::Error;",
        &["perf/plan.rs:2: perf (floor 2) imports run (floor 3)"],
    );
    check(
        "perf/mod.rs",
        "fn f() { crate::machine::look() }",
        &["perf/mod.rs:1: perf (floor 2) imports machine (floor 2)"],
    );
    check(
        "machine/mod.rs",
        "use crate::{\n    sample::{Cause, run},\n    cli,\n    probe::x\n};",
        &[
            "machine/mod.rs:1: machine (floor 2) imports cli (floor 5)",
            "machine/mod.rs:1: machine (floor 2) imports probe (floor 2)",
        ],
    );
    check(
        "run/attach.rs",
        "use super::super::report::text;",
        &["run/attach.rs:1: run (floor 3) imports report (floor 4)"],
    );
    check("run/attach.rs", "use super::wait::Wait;", &[]);
    check(
        "format/csv.rs",
        "use crate::stats::Interval;",
        &["format/csv.rs:1: format (floor 2) imports stats (floor 2)"],
    );
    check(
        "stats/mod.rs",
        "use crate::sys::clock;\nuse nix::errno::Errno;",
        &[
            "stats/mod.rs:1: stats knows no kernel and imports sys",
            "stats/mod.rs:2: stats knows no kernel and uses nix",
        ],
    );
    check("sample.rs", "use crate::unit::Unit;", &[]);
    check(
        "unit.rs",
        "use crate::sample::Value;",
        &["unit.rs:1: unit (floor 0) imports sample (floor 0)"],
    );
    check(
        "sample.rs",
        "use crate::nowhere::X;",
        &["sample.rs:1: `nowhere` has no floor"],
    );
    check(
        "run/mod.rs",
        "#![deny(unsafe_code)]\nfn f() { unsafe { g() } }",
        &["run/mod.rs:2: `unsafe` outside sys"],
    );
    check("sys/child.rs", "unsafe { g() }", &[]);
    check(
        "report/text.rs",
        "fn f() {\n    eprintln!(\"x\");\n    std::process::exit(1)\n}",
        &[
            "report/text.rs:2: `eprintln!` outside the door",
            "report/text.rs:3: `process::exit` outside the door",
        ],
    );
    check(
        "cli/mod.rs",
        "fn f() { println!(); std::process::exit(1) }",
        &[],
    );
}

#[test]
fn words_in_comments_strings_and_tests_are_no_violations() {
    for text in [
        "// use crate::run;\n/* unsafe /* println!() */ crate::cli */",
        "/// `crate::cli` prints with println!()",
        r####"const A: &str = "crate::run \" unsafe"; const B: &[u8] = br#"crate::cli " println!()"#;"####,
        "const A: char = '\"'; fn f<'a>(x: &'a str) {} const B: &[u8] = b\"unsafe\";",
        "#[cfg(test)]\nmod tests {\n    fn f() { if true { println!(\"{}\", 1) } }\n}",
        "let unsafety = eprint(x); my_println!(x); exit(1);",
    ] {
        let found = Code::new(text).violations(Path::new("perf/mod.rs"), false);
        assert_eq!(found, [""; 0], "{text}");
    }
    let after_tests = "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { println!() }";
    assert_eq!(
        Code::new(after_tests).violations(Path::new("perf/mod.rs"), false),
        ["perf/mod.rs:3: `println!` outside the door"]
    );
}

/// All Rust files under `directory`, in order.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(path)
            }
            false => {}
        }
    }
    found
}

/// Where the module `name` that is declared in `file` may stand.
fn module_files(file: &Path, name: &str) -> [PathBuf; 2] {
    let directory = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    [
        directory.join(format!("{name}.rs")),
        directory.join(name).join("mod.rs"),
    ]
}

/// Rust text whose comments and literals are blanked out.
struct Code(String);

impl Code {
    fn new(text: &str) -> Code {
        Code(blank(text))
    }

    /// Modules in files of their own that are compiled for tests only.
    fn test_files(&self) -> Vec<String> {
        self.test_modules()
            .filter_map(|at| {
                let declaration = self.0[at..].split(['{', ';']).next()?;
                let is_file = self.0[at + declaration.len()..].starts_with(';');
                let name = declaration.rsplit(' ').next()?.trim();
                is_file.then(|| name.to_owned())
            })
            .collect()
    }

    /// Where `mod …` stands behind each `#[cfg(test)]`.
    fn test_modules(&self) -> impl Iterator<Item = usize> {
        const MARK: &str = "#[cfg(test)]";
        self.0.match_indices(MARK).filter_map(|(at, _)| {
            let behind = &self.0[at + MARK.len()..];
            let start = at + MARK.len() + behind.len() - behind.trim_start().len();
            let item = self.0[start..].split(['{', ';']).next()?;
            item.split_whitespace()
                .any(|word| word == "mod")
                .then_some(start)
        })
    }

    /// The bodies of test modules.
    fn test_bodies(&self) -> Vec<Range<usize>> {
        self.test_modules()
            .filter_map(|at| {
                let open = at + self.0[at..].find(['{', ';'])?;
                self.0[open..]
                    .starts_with('{')
                    .then(|| open..closing(&self.0, open))
            })
            .collect()
    }

    fn violations(&self, path: &Path, is_test: bool) -> Vec<String> {
        let module = path.iter().next().unwrap().to_str().unwrap();
        let module = module.trim_end_matches(".rs");
        let mut found: Vec<(usize, String)> = Vec::new();
        for (at, imported) in self.imports(path) {
            found.extend(misplaced(module, &imported).map(|text| (at, text)));
        }
        for (at, name) in self.words() {
            if name == "unsafe" && module != "sys" {
                found.push((at, "`unsafe` outside sys".to_owned()));
            }
            let is_path = self.0[at + name.len()..].starts_with("::");
            if KNOWLEDGE.contains(&module) && KERNEL_CRATES.contains(&name) && is_path {
                found.push((at, format!("{module} knows no kernel and uses {name}")));
            }
        }
        if !["cli", "main"].contains(&module) && !is_test {
            let exempt = self.test_bodies();
            let prints = self.door_words().filter(|(at, _)| {
                let at = *at;
                !exempt.iter().any(|body| body.contains(&at))
            });
            found.extend(prints.map(|(at, name)| (at, format!("`{name}` outside the door"))));
        }
        found.sort();
        found
            .into_iter()
            .map(|(at, text)| {
                let line = self.0[..at].matches('\n').count() + 1;
                format!("{}:{line}: {text}", path.display())
            })
            .collect()
    }

    /// The crate's modules that paths in the text begin with, and where.
    fn imports(&self, path: &Path) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let depth = path.iter().count() - usize::from(path.ends_with("mod.rs"));
        for (at, name) in self.words() {
            let before = &self.0[..at];
            let climbs = before.ends_with("super::") || before.ends_with("self::");
            let from_root = match name {
                "crate" | "counterpoise" => Some(at + name.len()),
                "super" if !climbs => {
                    let supers = self.0[at..].split("::").take_while(|part| *part == "super");
                    let supers = supers.count();
                    (supers >= depth).then_some(at + supers * "super::".len() - "::".len())
                }
                _ => None,
            };
            let Some(rest) = from_root.and_then(|end| self.0[end..].strip_prefix("::")) else {
                continue;
            };
            let strict = name == "crate";
            let modules = first_names(rest);
            found.extend(
                modules
                    .into_iter()
                    .filter(|module| strict || FLOORS.iter().any(|(known, _)| known == module))
                    .map(|module| (at, module)),
            );
        }
        found
    }

    /// All identifiers and keywords, and where.
    fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut at = 0;
        self.0
            .split_inclusive(move |c| !is_word(c))
            .map(move |piece| {
                let start = at;
                at += piece.len();
                (start, piece.trim_end_matches(|c| !is_word(c)))
            })
            .filter(|(_, word)| !word.is_empty())
    }

    /// What only the door may do.
    fn door_words(&self) -> impl Iterator<Item = (usize, &'static str)> {
        self.words().filter_map(|(at, name)| {
            let behind = &self.0[at + name.len()..];
            match name {
                "println" if behind.starts_with('!') => Some((at, "println!")),
                "eprintln" if behind.starts_with('!') => Some((at, "eprintln!")),
                "print" if behind.starts_with('!') => Some((at, "print!")),
                "eprint" if behind.starts_with('!') => Some((at, "eprint!")),
                "dbg" if behind.starts_with('!') => Some((at, "dbg!")),
                "process" if behind.starts_with("::exit") => Some((at, "process::exit")),
                _ => None,
            }
        })
    }
}

/// What is wrong with `module` importing `imported`.
fn misplaced(module: &str, imported: &str) -> Option<String> {
    let floor = |name| {
        FLOORS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, floor)| *floor)
    };
    match (floor(module), floor(imported)) {
        (None, _) => Some(format!("`{module}` has no floor")),
        (_, None) => Some(format!("`{imported}` has no floor")),
        (Some(_), Some(_)) if module == imported => None,
        // The words are one floor, and samples are made of units.
        _ if (module, imported) == ("sample", "unit") => None,
        (Some(own), Some(other)) if other >= own => Some(format!(
            "{module} (floor {own}) imports {imported} (floor {other})"
        )),
        (Some(_), Some(1..)) if KNOWLEDGE.contains(&module) => {
            Some(format!("{module} knows no kernel and imports {imported}"))
        }
        _ => None,
    }
}

/// The first names of the paths in `rest`, which is one path or a group of them in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    if !rest.starts_with('{') {
        return vec![name(rest)];
    }
    let inside = &rest[1..closing(rest, 0)];
    let mut depth = 0;
    let paths = inside.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    paths.map(name).filter(|name| !name.is_empty()).collect()
}

/// Where the brace that opens at `open` is closed.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return open + at;
        }
    }
    text.len()
}

/// `text` with spaces for whatever stands in comments, strings and character literals.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = match literal(rest, word_before) {
            0 => {
                out.push(first);
                first.len_utf8()
            }
            length => {
                let blanked = rest[..length].chars();
                out.extend(blanked.map(|c| if c == '\n' { '\n' } else { ' ' }));
                length
            }
        };
        rest = &rest[length..];
    }
    out
}

/// The length of the comment or literal at the beginning of `rest`; 0 when there is none.
fn literal(rest: &str, word_before: bool) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..]
            .find(end)
            .map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        let (mut depth, mut at) = (1, 2);
        while depth > 0 && at < rest.len() {
            let step = match &rest.as_bytes()[at..] {
                [b'/', b'*', ..] => (1, 2),
                [b'*', b'/', ..] => (-1, 2),
                _ => (0, 1),
            };
            depth += step.0;
            at += step.1;
        }
        return at;
    }
    for prefix in ["r", "br", "cr"] {
        let Some(raw) = rest.strip_prefix(prefix).filter(|_| !word_before) else {
            continue;
        };
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return until(&end, prefix.len() + hashes + 1);
        }
    }
    if let Some(text) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = text.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return end.map_or(rest.len(), |at| at + 2);
    }
    match rest.as_bytes() {
        [b'\'', b'\\', ..] => until("'", 3),
        [b'\'', ..] => {
            // `'x'` is a character, `'x` a lifetime.
            let mut chars = rest.char_indices().skip(2);
            match chars.next() {
                Some((at, '\'')) => at + 1,
                _ => 0,
            }
        }
        _ => 0,
    }
}
