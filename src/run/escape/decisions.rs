//! What a Go compiler says that it decided: read from its words (`-m`) and from the files for editors that it leaves (`-json`). Never compiles, never opens a file.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A decision of a compiler about one place of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// Its line, from 1 on.
    pub line: u32,
    /// Its column in bytes, from 1 on; 0 where a `//line` directive tells none.
    pub column: u32,
    /// What it is about.
    pub kind: Kind,
    /// The decision in words, the compiler's own where it has any: `moved to heap: x`.
    pub text: String,
    /// Why, in the compiler's words.
    pub why: Option<String>,
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is allocated on the heap.
    Heap,
    /// It stays on the stack.
    Stack,
    /// A parameter leaves the function, on which depends what its callers allocate.
    Leak,
    /// A call is replaced by the body of what it calls.
    InlinedCall,
    /// A function can be inlined.
    Inlinable,
    /// A function cannot be inlined.
    NotInlinable,
    /// A call of a method of an interface is one of a method that is known.
    Devirtualized,
    /// An index is checked when the program runs.
    IndexCheck,
    /// The bounds of a slice are.
    SliceCheck,
    /// A pointer is, for nil.
    NilCheck,
}

impl Kind {
    /// Whether it is a matter of escape analysis, and what runs differs by it.
    pub fn is_escape(self) -> bool {
        matches!(self, Kind::Heap | Kind::Leak)
    }
}

/// A decision in a file, which is named as the compiler names it.
pub(super) type Placed = (String, Decision);

/// The decisions in the words of a compiler that was called with `-m`:
/// `/p/p.go:7:2: moved to heap: x`.
pub(super) fn said(words: &str) -> Vec<Placed> {
    words.lines().filter_map(said_in).collect()
}

/// The first line that is no decision: the compiler's complaint when it failed.
pub(super) fn complaint(words: &str) -> Option<&str> {
    // Decisions that do not concern us have a place and no mark by which to know them; errors are
    // told first or behind all of them.
    let mut lines = words.lines().filter(|line| !line.trim().is_empty());
    let is_complaint = |line: &&str| match place(line) {
        None => !line.starts_with('<'),
        Some((.., text)) => kind(text).is_none() && !is_remark(text),
    };
    lines.find(is_complaint).map(str::trim)
}

fn said_in(line: &str) -> Option<Placed> {
    let (file, line, column, text) = place(line)?;
    let kind = kind(text)?;
    let decision = Decision {
        line,
        column,
        kind,
        text: text.to_owned(),
        why: None,
    };
    Some((file.to_owned(), decision))
}

/// File, line and column that a line begins with, and what stands behind.
fn place(line: &str) -> Option<(&str, u32, u32, &str)> {
    let (place, text) = line.split_once(": ")?;
    let (file, last) = place.rsplit_once(':')?;
    let last = last.parse().ok()?;
    // Behind a `//line` there need be no column.
    Some(
        match file.rsplit_once(':').map(|(file, n)| (file, n.parse())) {
            Some((file, Ok(line))) => (file, line, last, text),
            _ => (file, last, 0, text),
        },
    )
}

/// What words with `-m` are about, of those that concern us.
fn kind(text: &str) -> Option<Kind> {
    let begins = |words| text.starts_with(words);
    Some(match text {
        _ if begins("moved to heap: ") || text.ends_with(" escapes to heap") => Kind::Heap,
        _ if text.ends_with(" does not escape") => Kind::Stack,
        _ if begins("leaking param") || begins("leaking closure") => Kind::Leak,
        _ if begins("inlining call to ") => Kind::InlinedCall,
        _ if begins("devirtualizing ") => Kind::Devirtualized,
        _ => return None,
    })
}

/// Whether words with `-m` are a remark that we pass over.
fn is_remark(text: &str) -> bool {
    let begins = ["can inline ", "cannot inline ", "ignoring ", "zero-copy "];
    let within = [" bounds check elided", " escapes, ", "PGO devirtualiz"];
    begins.iter().any(|words| text.starts_with(words))
        || within.iter().any(|words| text.contains(words))
}

/// What `-json` leaves about one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Logged {
    /// The file.
    pub(super) file: String,
    /// The decisions that `-m` does not tell of, or not as well.
    pub(super) decisions: Vec<Decision>,
    /// Why something escapes, by line and column.
    pub(super) reasons: BTreeMap<(u32, u32), String>,
}

/// The first line.
#[derive(Deserialize)]
struct Heading {
    version: u32,
    file: String,
}

/// Every other line, a `Diagnostic` of the Language Server Protocol; its positions count from 1
/// nonetheless.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Diagnostic {
    range: Range,
    code: String,
    message: String,
    #[serde(default)]
    related_information: Vec<Related>,
}

#[derive(Deserialize)]
struct Range {
    start: Position,
}

#[derive(Deserialize)]
struct Position {
    line: u32,
    character: u32,
}

#[derive(Deserialize)]
struct Related {
    message: String,
}

/// The version of the files that we know.
const VERSION: u32 = 0;

/// Reads a file that `-json` left; `None` for one of another kind or version.
pub(super) fn logged(json: &str) -> Option<Logged> {
    let mut lines = json.lines();
    let heading: Heading = serde_json::from_str(lines.next()?).ok()?;
    if heading.version != VERSION {
        return None;
    }
    let mut logged = Logged {
        file: heading.file,
        ..Logged::default()
    };
    for line in lines {
        let Ok(one) = serde_json::from_str::<Diagnostic>(line) else {
            continue;
        };
        let Position { line, character } = one.range.start;
        let why = Some(one.message.clone()).filter(|message| !message.is_empty());
        let (kind, text, why) = match &*one.code {
            "canInlineFunction" => (Kind::Inlinable, "can be inlined", why),
            "cannotInlineFunction" => (Kind::NotInlinable, "cannot be inlined", why),
            "isInBounds" => (Kind::IndexCheck, "index check kept", None),
            "isSliceInBounds" => (Kind::SliceCheck, "slice check kept", None),
            "nilcheck" => (Kind::NilCheck, "nil check kept", None),
            "escape" | "escapes" => {
                let flow = one.related_information.iter().rev();
                let from = flow.filter_map(|step| {
                    let step = step.message.strip_prefix("escflow:")?;
                    step.trim_start().strip_prefix("from ")
                });
                if let Some(from) = from.map(str::to_owned).next() {
                    logged.reasons.insert((line, character), from);
                }
                continue;
            }
            _ => continue,
        };
        logged.decisions.push(Decision {
            line,
            column: character,
            kind,
            text: text.to_owned(),
            why,
        });
    }
    Some(logged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_read_by_their_kind() {
        let check = |line: &str, want: Option<(&str, u32, u32, Kind)>| {
            let told = said_in(line);
            let told = told
                .as_ref()
                .map(|(file, one)| (&**file, one.line, one.column, one.kind));
            assert_eq!(told, want, "{line}");
        };
        let at = |kind| Some(("/p/a b.go", 10, 7, kind));
        check("/p/a b.go:10:7: &T{...} escapes to heap", at(Kind::Heap));
        check("/p/a b.go:10:7: moved to heap: x", at(Kind::Heap));
        check(
            "/p/a b.go:10:7: ... argument does not escape",
            at(Kind::Stack),
        );
        check("/p/a b.go:10:7: leaking param: p", at(Kind::Leak));
        check("/p/a b.go:10:7: leaking param content: p", at(Kind::Leak));
        check("/p/a b.go:10:7: inlining call to f", at(Kind::InlinedCall));
        check(
            "/p/a b.go:10:7: devirtualizing s.M to *A",
            at(Kind::Devirtualized),
        );
        check("/p/a b.go:10:7: can inline f", None);
        check(
            "gen.y:100: make(map[string: \"b\"]int) escapes to heap",
            Some(("gen.y", 100, 0, Kind::Heap)),
        );
        check("x.go:1:2:3", None);
        check("", None);
    }

    #[test]
    fn a_complaint_is_what_is_no_decision() {
        let check = |words: &str, want| assert_eq!(complaint(words), want, "{words}");
        check(
            "p.go:1:2: undefined: x\np.go:3:4: y",
            Some("p.go:1:2: undefined: x"),
        );
        let then = "p.go:1:2: can inline f\np.go:1:2: x escapes to heap\n\
            p.go:3:49: index bounds check elided\n<autogenerated>:1: inlining call to f\n\
            panic: bad\n\ngoroutine 1";
        check(then, Some("panic: bad"));
        check("p.go:1:2: moved to heap: x\n", None);
    }

    #[test]
    fn files_for_editors_are_read() {
        let diagnostic = |line: u32, code: &str, message: &str, flow: &str| {
            format!(
                r#"{{"range":{{"start":{{"line":{line},"character":6}},"end":{{"line":1,"character":1}}}},"severity":3,"code":"{code}","source":"go compiler","message":"{message}"{flow}}}"#
            )
        };
        let flow = r#","relatedInformation":[{"location":{},"message":"escflow:    flow: ~r0 = t:"},{"location":{},"message":"escflow:      from return t (return)"}]"#;
        let lines = [
            r#"{"version":0,"package":"p","goos":"linux","file":"/p/p.go"}"#.to_owned(),
            diagnostic(1, "canInlineFunction", "cost: 4", ""),
            diagnostic(2, "isInBounds", "", ""),
            diagnostic(3, "escape", "x escapes to heap", flow),
            diagnostic(3, "escape", "", ""),
            diagnostic(4, "unheard of", "", ""),
            "{".to_owned(),
            diagnostic(5, "nilcheck", "", ""),
        ];
        let logged = logged(&lines.join("\n")).unwrap();
        assert_eq!(logged.file, "/p/p.go");
        let told: Vec<_> = logged
            .decisions
            .iter()
            .map(|one| (one.line, one.kind, one.why.as_deref()))
            .collect();
        let want = [
            (1, Kind::Inlinable, Some("cost: 4")),
            (2, Kind::IndexCheck, None),
            (5, Kind::NilCheck, None),
        ];
        assert_eq!(told, want);
        let reason = ((3, 6), "return t (return)".to_owned());
        assert_eq!(logged.reasons, BTreeMap::from([reason]));
        let check = |json: &str| assert_eq!(super::logged(json), None, "{json}");
        check(r#"{"version":9,"file":"/p/p.go"}"#);
        check("no JSON");
        check("");
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(words in "([a-z:0-9 \n{}\",äé]|: |escapes to heap|\"version\":0|\\{\"range\":)*") {
            said(&words);
            complaint(&words);
            logged(&words);
        }
    }
}
