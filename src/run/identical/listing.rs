//! Assembly listings of two compilers beside each other: the function in which they first differ. Works on text alone.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Two listings, from the first difference on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The function.
    pub function: String,
    /// Its first differing instruction and what is round it, old beside new.
    pub rows: Vec<Row>,
    /// Rows of the function that were left out behind these.
    pub left_out: usize,
    /// The first line in which the whole listings differ: its number, and what each has there.
    pub first_line: Option<(usize, String, String)>,
}

/// One row: an instruction that both have, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the old compiler has; empty where the new one has more.
    pub old: String,
    /// What the new compiler has; empty where the old one has more.
    pub new: String,
    /// Whether they are the same instruction.
    pub same: bool,
}

/// Rows before the first difference.
const BEFORE: usize = 3;

/// Rows that are shown.
const SHOWN: usize = 24;

/// Who wrote the listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// The Go compiler's `-S`.
    Go,
    /// An assembler's input: labels and directives.
    Assembler,
}

/// The lines of one function.
struct Function<'a> {
    name: &'a str,
    /// The instructions as they are compared and shown.
    instructions: Vec<String>,
}

/// Lays two listings side by side, at the function called `wanted` if they differ there, else at
/// the first in which they do; `None` when they do not differ.
pub(super) fn side_by_side(
    old: &str,
    new: &str,
    style: Style,
    wanted: Option<&str>,
) -> Option<Listing> {
    let (of_old, of_new) = (functions(old, style), functions(new, style));
    let twin = |name: &str| of_new.iter().find(|one| one.name == name);
    let differs = |one: &&Function<'_>| {
        let twin = twin(one.name);
        twin.is_none_or(|twin| twin.instructions != one.instructions)
    };
    let by_name = of_old
        .iter()
        .find(|one| Some(one.name) == wanted)
        .filter(differs);
    let only_new = || {
        of_new
            .iter()
            .find(|one| !of_old.iter().any(|old| old.name == one.name))
    };
    let first_line = first_line(old, new);
    let Some(found) = by_name.or_else(|| of_old.iter().find(differs)) else {
        let (name, instructions) = match only_new() {
            Some(function) => (function.name, &function.instructions[..]),
            None if first_line.is_some() => (wanted.unwrap_or_default(), &[][..]),
            None => return None,
        };
        return Some(Listing::new(name, &[], instructions, first_line));
    };
    let theirs = twin(found.name).map_or(&[][..], |twin| &twin.instructions);
    Some(Listing::new(
        found.name,
        &found.instructions,
        theirs,
        first_line,
    ))
}

impl Listing {
    fn new(
        function: &str,
        old: &[String],
        new: &[String],
        first_line: Option<(usize, String, String)>,
    ) -> Listing {
        let rows = align(old, new);
        let first = rows.iter().position(|row| !row.same).unwrap_or_default();
        let begin = first.saturating_sub(BEFORE);
        let shown: Vec<Row> = rows.iter().skip(begin).take(SHOWN).cloned().collect();
        Listing {
            function: function.to_owned(),
            left_out: rows.len() - begin.min(rows.len()) - shown.len(),
            rows: shown,
            first_line,
        }
    }
}

fn align(old: &[String], new: &[String]) -> Vec<Row> {
    // What follows an instruction does not show where it differs: places do, so they are not
    // compared.
    let bare = |all: &[String]| -> Vec<String> {
        let text = all.iter().map(|line| match line.split_once('\t') {
            Some((_, instruction)) => instruction.to_owned(),
            None => line.clone(),
        });
        text.collect()
    };
    let row = |old: Option<&String>, new: Option<&String>, same| Row {
        old: old.cloned().unwrap_or_default(),
        new: new.cloned().unwrap_or_default(),
        same,
    };
    let mut rows = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &bare(old), &bare(new)) {
        let (a, b) = (op.old_range(), op.new_range());
        let same = matches!(op, DiffOp::Equal { .. });
        let (a, b) = (&old[a], &new[b]);
        rows.extend((0..a.len().max(b.len())).map(|i| row(a.get(i), b.get(i), same)));
    }
    rows
}

/// The functions of a listing, in order.
fn functions(listing: &str, style: Style) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in listing.lines() {
        let heading = match style {
            Style::Go => go_heading(line),
            Style::Assembler => label(line),
        };
        if let Some(name) = heading {
            functions.push(Function {
                name,
                instructions: Vec::new(),
            });
            continue;
        }
        let shown = match style {
            Style::Go => go_instruction(line),
            Style::Assembler => instruction(line),
        };
        if let (Some(function), Some(shown)) = (functions.last_mut(), shown) {
            function.instructions.push(shown);
        }
    }
    for function in functions.iter_mut().filter(|_| style == Style::Go) {
        // The bytes of code say once more what the instructions say.
        if function
            .instructions
            .iter()
            .any(|one| !one.starts_with('\t'))
        {
            function.instructions.retain(|one| !one.starts_with('\t'));
        }
    }
    functions
}

/// `main.f STEXT size=3 …` names a function; so do other symbols their data.
fn go_heading(line: &str) -> Option<&str> {
    if line.starts_with(['\t', ' ']) {
        return None;
    }
    // Names have spaces, kinds are words of capitals that begin with an S.
    let at = line.match_indices(" S").map(|(at, _)| at).find(|&at| {
        let kind = line[at + 1..].split(' ').next().unwrap_or_default();
        kind.len() > 2 && kind.bytes().all(|byte| byte.is_ascii_uppercase())
    })?;
    Some(&line[..at])
}

/// The instruction of a line, behind its place in the source: its address, which stands before
/// that, changes with every instruction before it.
fn go_instruction(line: &str) -> Option<String> {
    let mut fields = line.strip_prefix('\t')?.splitn(2, '\t');
    let (place, instruction) = (fields.next()?, fields.next());
    match instruction {
        Some(instruction)
            if !["PCDATA", "FUNCDATA"]
                .iter()
                .any(|one| instruction.starts_with(one)) =>
        {
            let place = place.split_once('(').map_or(place, |(_, place)| place);
            let place = place
                .rsplit('/')
                .next()
                .unwrap_or(place)
                .trim_end_matches(')');
            Some(format!("{place}\t{instruction}"))
        }
        Some(_) => None,
        // Bytes; what they refer to is told by `rel`.
        None => Some(format!("\t{place}")),
    }
}

/// A label that is no local one.
fn label(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once(':')?;
    let local = name.starts_with(".L") || name.starts_with(['\t', ' ', '#', '"', '/']);
    let rest = rest.trim_start();
    (!local && !name.is_empty() && (rest.is_empty() || rest.starts_with(['#', '/', ';'])))
        .then_some(name)
}

/// An instruction without its comment; directives say nothing of the code.
fn instruction(line: &str) -> Option<String> {
    let text = line.strip_prefix(['\t', ' '])?.trim();
    let is_code = !text.is_empty() && !text.starts_with(['.', '#', '/']);
    let text = text.split("\t#").next().unwrap_or(text).trim_end();
    is_code.then(|| format!("\t{text}"))
}

/// The first line in which two texts differ.
pub(super) fn first_line(old: &str, new: &str) -> Option<(usize, String, String)> {
    let (mut of_old, mut of_new) = (old.lines(), new.lines());
    for number in 1.. {
        match (of_old.next(), of_new.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => {
                let text = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
                return Some((number, text(a), text(b)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = "p.F STEXT nosplit size=43 args=0x20\n\
        \t0x0000 00000 (/src/x.go:2)\tTEXT\tp.F(SB), $24-32\n\
        \t0x0000 00000 (/src/x.go:2)\tFUNCDATA\t$0, gclocals·x(SB)\n\
        \t0x000d 00013 (/src/x.go:3)\tCMPQ\tDI, BX\n\
        \t0x0010 00016 (/src/x.go:3)\tRET\n\
        \t0x0000 55 48 89 e5  UH..\n\
        \trel 38+4 t=R_CALL runtime.panicIndex+0\n\
        type:.namedata.*func(p.T) string- SRODATA dupok size=20\n\
        \t0x0000 00 12 2a 66\n";

    fn shown(listing: &Listing) -> String {
        let rows = listing.rows.iter().map(|row| {
            let mark = if row.same { '=' } else { '|' };
            format!(
                "{} {mark} {}",
                row.old.replace('\t', " "),
                row.new.replace('\t', " ")
            )
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn functions_are_found_in_listings() {
        let names = |text, style| -> Vec<String> {
            let found = functions(text, style);
            found.iter().map(|one| one.name.to_owned()).collect()
        };
        let go = names(GO, Style::Go);
        assert_eq!(go, ["p.F", "type:.namedata.*func(p.T) string-"]);
        let c = "\t.text\nf:\n.LFB0:\n\tret\ng:                      # @g\n\tretq\n";
        assert_eq!(names(c, Style::Assembler), ["f", "g"]);
    }

    #[test]
    fn the_wanted_function_is_laid_side_by_side() {
        let new = GO
            .replace("CMPQ\tDI, BX", "TESTQ\tDI, DI")
            .replace("55 48", "55 49");
        let listing = side_by_side(GO, &new, Style::Go, Some("p.F")).unwrap();
        assert_eq!(listing.function, "p.F");
        let want = "x.go:2 TEXT p.F(SB), $24-32 = x.go:2 TEXT p.F(SB), $24-32\n\
            x.go:3 CMPQ DI, BX | x.go:3 TESTQ DI, DI\n\
            x.go:3 RET = x.go:3 RET";
        assert!(shown(&listing).starts_with(want), "{}", shown(&listing));
        let (number, old, _) = listing.first_line.unwrap();
        assert_eq!((number, old.contains("CMPQ")), (4, true));
    }

    #[test]
    fn what_only_one_has_stands_alone() {
        let more = "f:\n\tret\ng:\n\tnop\n";
        let listing = side_by_side("f:\n\tret\n", more, Style::Assembler, None).unwrap();
        assert_eq!((&*listing.function, &*shown(&listing)), ("g", " |  nop"));
        let listing = side_by_side(more, "f:\n\tret\n", Style::Assembler, None).unwrap();
        assert_eq!((&*listing.function, &*shown(&listing)), ("g", " nop | "));
        assert_eq!(side_by_side(more, more, Style::Assembler, Some("g")), None);
    }

    #[test]
    fn the_first_differing_line_has_its_number() {
        let check = |a, b, want: Option<(usize, &str, &str)>| {
            let found = first_line(a, b);
            assert_eq!(found, want.map(|(n, a, b)| (n, a.to_owned(), b.to_owned())));
        };
        check("a\nb\n", "a\nb\n", None);
        check("a\nb\n", "a\nc\n", Some((2, "b", "c")));
        check("a\n", "a\nc\n", Some((2, "(the end)", "c")));
    }
}
