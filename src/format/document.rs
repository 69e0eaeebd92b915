//! A JSON document with one long array in it, whose elements are taken out one by one. Knows no field names; what is broken costs the element that it stands in, not the rest.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The longest document that is read, in bytes: it is held in memory, its elements are not.
pub(super) const LONGEST_DOCUMENT: usize = 256 << 20;

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) message: String,
}

/// A document, and the place in it where the next element of the array begins.
#[derive(Debug)]
pub(super) struct Document {
    text: Vec<u8>,
    /// `None` when there is no further element.
    at: Option<usize>,
    /// A place and the line in which it stands.
    line: (usize, u64),
}

impl Document {
    /// The document, about to give the elements of the array that is its member `array`.
    pub(super) fn new(text: Vec<u8>, array: &str) -> Result<Document, Fault> {
        let mut document = Document {
            text,
            at: None,
            line: (0, 1),
        };
        match document.find(array) {
            Ok(at) if document.text[at] == b'[' => {
                document.at = Some(at + 1);
                Ok(document)
            }
            Ok(at) => Err(document.fault(at, 1, format!("`{array}` is no array"))),
            Err(Stop {
                at,
                message: Some(message),
            }) => Err(document.fault(at, 1, message.to_owned())),
            Err(Stop { at, message: None }) => {
                Err(document.fault(at, 1, format!("there is no `{array}`")))
            }
        }
    }

    /// The member `key` of the document, if it has one of that kind.
    pub(super) fn member<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let at = self.find(key).ok()?;
        let end = value_end(&self.text, at)?;
        serde_json::from_slice(&self.text[at..end]).ok()
    }

    /// The next element of the array, or what is wrong with it.
    pub(super) fn element<'t, T: Deserialize<'t>>(&'t mut self) -> Option<Result<T, Fault>> {
        let begin = skip_space(&self.text, self.at.take()?);
        if self.text.get(begin) == Some(&b']') {
            return None;
        }
        let cut = "cut short in the middle of the document".to_owned();
        let Some(end) = value_end(&self.text, begin) else {
            return Some(Err(self.fault(begin, 1, cut)));
        };
        let after = skip_space(&self.text, end);
        let broken = match self.text.get(after) {
            Some(b',') => {
                self.at = Some(after + 1);
                None
            }
            Some(b']') => None,
            Some(_) => Some("neither `,` nor `]` after an element".to_owned()),
            None => Some(cut),
        };
        if let Some(message) = broken {
            // The element is lost with what comes after it: an array that breaks off is rare
            // enough, and nobody can tell whether the element was whole.
            return Some(Err(self.fault(after, 1, message)));
        }
        let line = self.line_of(begin);
        let element = serde_json::from_slice(&self.text[begin..end]);
        Some(element.map_err(|error| Fault {
            line: line + (error.line() as u64).saturating_sub(1),
            message: message(&error),
        }))
    }

    /// Where the value of the document's member `key` begins.
    fn find(&self, key: &str) -> Result<usize, Stop> {
        let text = &self.text;
        let stop = |at, message| Stop { at, message };
        let begin = text.iter().position(|&byte| byte == b'{');
        let mut at = begin.ok_or(stop(0, Some("no JSON object")))? + 1;
        loop {
            at = skip_space(text, at);
            match text.get(at) {
                Some(b'"') => {}
                Some(b',') => {
                    at += 1;
                    continue;
                }
                Some(b'}') => return Err(stop(at, None)),
                Some(_) => return Err(stop(at, Some("no key where one should be"))),
                None => return Err(stop(at, Some("cut short before its results"))),
            }
            let cut = stop(at, Some("cut short before its results"));
            let Some(end) = value_end(text, at) else {
                return Err(cut);
            };
            let found = text.get(at + 1..end - 1) == Some(key.as_bytes());
            at = skip_space(text, end);
            if text.get(at) != Some(&b':') {
                return Err(stop(at, Some("no `:` after a key")));
            }
            at = skip_space(text, at + 1);
            if at >= text.len() {
                return Err(cut);
            }
            if found {
                return Ok(at);
            }
            at = value_end(text, at).ok_or(cut)?;
        }
    }

    fn fault(&mut self, at: usize, within: u64, message: String) -> Fault {
        Fault {
            line: self.line_of(at) + within - 1,
            message,
        }
    }

    /// The line in which the place `at` stands; places are asked for in their order.
    fn line_of(&mut self, at: usize) -> u64 {
        let (from, line) = self.line;
        let passed = self.text.get(from..at).unwrap_or_default();
        self.line = (
            at.max(from),
            line + memchr::memchr_iter(b'\n', passed).count() as u64,
        );
        self.line.1
    }
}

/// Why a member was not found; without a message the document has none of that name.
#[derive(Clone, Copy)]
struct Stop {
    at: usize,
    message: Option<&'static str>,
}

/// The message without its place.
pub(super) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| byte.is_ascii_whitespace();
    at + text
        .get(at..)
        .unwrap_or_default()
        .iter()
        .take_while(space)
        .count()
}

/// Where the value that begins at `at` ends, by its brackets and quotes alone; `None` when the
/// text ends before it.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, at);
    loop {
        match text.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            b'"' => {
                at += 1;
                while *text.get(at)? != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            byte if depth == 0 => {
                let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:]}".contains(byte);
                if ends(byte) {
                    return Some(at);
                }
                let length = text[at..].iter().position(ends)?;
                return Some(at + length);
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn elements(text: &str) -> Vec<Result<Value, Fault>> {
        match Document::new(text.into(), "xs") {
            Ok(mut document) => std::iter::from_fn(|| document.element()).collect(),
            Err(fault) => vec![Err(fault)],
        }
    }

    #[test]
    fn elements_come_one_by_one() {
        let check = |text, want: &[Value]| {
            let want: Vec<_> = want.iter().cloned().map(Ok).collect();
            assert_eq!(elements(text), want, "{text}");
        };
        check(r#"{"xs":[]}"#, &[]);
        check(r#"{"xs":[1]}"#, &[json!(1)]);
        check(
            r#" { "a" : {"xs":[3,"]}"]}, "b":"\"\\", "xs" : [ {"k":[1,{}]} , "a,\"]" , null ] } "#,
            &[json!({"k":[1,{}]}), json!("a,\"]"), json!(null)],
        );
        // What comes before the document, such as a program's own words, is not part of it.
        check("noise\n{\"xs\":[1]}", &[json!(1)]);
    }

    #[test]
    fn what_is_broken_costs_its_element() {
        let check = |text, want: &[Result<Value, (u64, &str)>]| {
            let want: Vec<_> = want
                .iter()
                .map(|element| match element {
                    Ok(value) => Ok(value.clone()),
                    Err((line, message)) => Err(Fault {
                        line: *line,
                        message: (*message).to_owned(),
                    }),
                })
                .collect();
            assert_eq!(elements(text), want, "{text}");
        };
        check(
            "{\"xs\":[\n{\"a\":\nNaN},\n2]}",
            &[Err((3, "expected value")), Ok(json!(2))],
        );
        let cut = "cut short in the middle of the document";
        check("{\"xs\":[1,\n{\"a\":", &[Ok(json!(1)), Err((2, cut))]);
        check("{\"xs\":[1,", &[Ok(json!(1)), Err((1, cut))]);
        check(
            "{\"xs\":[1 2]}",
            &[Err((1, "neither `,` nor `]` after an element"))],
        );
        check(
            "{\"xs\":[,1]}",
            &[Err((1, "EOF while parsing a value")), Ok(json!(1))],
        );
        check("{\"x\":[]}", &[Err((1, "there is no `xs`"))]);
        check("{\"xs\":7}", &[Err((1, "`xs` is no array"))]);
        check("{\n\"xs\"", &[Err((2, "no `:` after a key"))]);
        check("{\"xs\":", &[Err((1, "cut short before its results"))]);
        check("{\"a\":\"", &[Err((1, "cut short before its results"))]);
        check("{1:2}", &[Err((1, "no key where one should be"))]);
        check("", &[Err((1, "no JSON object"))]);
    }

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        let text = br#"{"xs":[{"c":1}],"c":{"n":2}}"#.to_vec();
        let document = Document::new(text, "xs").unwrap();
        assert_eq!(document.member("c"), Some(json!({"n":2})));
        assert_eq!(document.member::<String>("c"), None);
        assert_eq!(document.member::<Value>("d"), None);
    }
}
