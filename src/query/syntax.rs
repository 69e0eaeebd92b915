//! What filters and projections are spelled with: words, quoted words, regular expressions and operators, each with its place. Cuts text into tokens: never knows what a key means.

use std::borrow::Cow;

/// An expression that was refused: one line by [`Display`](std::fmt::Display), and
/// [`QueryError::pointer`] to show the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expression}: {message}, at character {}", self.column())]
pub struct QueryError {
    /// Which expression: `filter`, `table`, `row`, `col` or `ignore`.
    pub expression: &'static str,
    /// The expression as it was typed.
    pub text: String,
    /// Where in `text` it went wrong, in bytes; at its end when something is missing.
    pub offset: usize,
    /// What is wrong there, without a full stop.
    pub message: String,
}

impl QueryError {
    /// The place, in characters from 1.
    pub fn column(&self) -> usize {
        let before = self.text.get(..self.offset).unwrap_or(&self.text);
        before.chars().count() + 1
    }

    /// Two lines without a line feed at the end: the expression, and a caret under the place.
    pub fn pointer(&self) -> String {
        let shown: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!("{shown}\n{:>width$}", '^', width = self.column())
    }
}

/// What is wrong at which byte; becomes a [`QueryError`] where the whole text is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Fault {
        Fault {
            offset,
            message: message.into(),
        }
    }

    pub(super) fn within(self, expression: &'static str, text: &str) -> QueryError {
        QueryError {
            expression,
            text: text.to_owned(),
            offset: self.offset,
            message: self.message,
        }
    }
}

/// What is looked for next, which decides what a `:` and a `/` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A filter's key or operator: `:` ends a word.
    Key,
    /// A filter's value: `/` begins a regular expression, and `:` within a word is part of it, so
    /// that `.unit:cycles:u/op` needs no quotes.
    Value,
    /// A part of a projection: no `:` is an operator there.
    Projection,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Word(Cow<'a, str>),
    Regexp(&'a str),
    And,
    Or,
    /// One of `( ) : @ , - *`.
    Operator(char),
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    /// Byte of the first character.
    pub(super) offset: usize,
}

impl Token<'_> {
    /// `what` was expected where this stands.
    pub(super) fn instead_of(&self, what: &str) -> Fault {
        let message = match &self.kind {
            Kind::End => format!("expected {what}"),
            Kind::Operator(c @ ('-' | '*' | ':' | '@' | ',')) => {
                format!("expected {what}, not `{c}` (a word with it goes in double quotes)")
            }
            Kind::Operator(c) => format!("expected {what}, not `{c}`"),
            Kind::And => format!("expected {what}, not AND"),
            Kind::Or => format!("expected {what}, not OR"),
            Kind::Word(word) => format!("expected {what}, not {word:?}"),
            Kind::Regexp(_) => format!("expected {what}, not a regular expression"),
        };
        Fault::new(self.offset, message)
    }
}

/// A place in an expression; a copy of it looks ahead.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// The next token, which stays the next.
    pub(super) fn peek(&self, expect: Expect) -> Result<Token<'a>, Fault> {
        self.clone().next(expect)
    }

    pub(super) fn next(&mut self, expect: Expect) -> Result<Token<'a>, Fault> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let offset = self.at;
        let kind = match self.rest().chars().next() {
            None => Kind::End,
            Some(c) if is_operator(c) || matches!(c, '-' | '*' | ':') => {
                self.at += c.len_utf8();
                Kind::Operator(c)
            }
            Some('"') => self.quoted()?,
            Some('/') if expect == Expect::Value => self.regexp()?,
            Some(_) => self.bare(expect),
        };
        Ok(Token { kind, offset })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn bare(&mut self, expect: Expect) -> Kind<'a> {
        let ends =
            |c: char| c.is_whitespace() || is_operator(c) || (c == ':' && expect == Expect::Key);
        let rest = self.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        match word {
            "AND" if expect != Expect::Projection => Kind::And,
            "OR" if expect != Expect::Projection => Kind::Or,
            _ => Kind::Word(Cow::Borrowed(word)),
        }
    }

    /// A string in double quotes with Go's escapes.
    fn quoted(&mut self) -> Result<Kind<'a>, Fault> {
        let start = self.at;
        let inside = &self.rest()[1..];
        let mut bytes = Vec::new();
        let mut chars = inside.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + 1 + i + 1;
                    return match String::from_utf8(bytes) {
                        Ok(word) => Ok(Kind::Word(Cow::Owned(word))),
                        Err(_) => Err(Fault::new(start, "the escapes are not UTF-8")),
                    };
                }
                '\n' => return Err(Fault::new(start + 1 + i, "a line feed is spelled `\\n`")),
                '\\' => {
                    let length = escape(&inside[i + 1..], &mut bytes)
                        .ok_or_else(|| Fault::new(start + 1 + i, "unknown escape"))?;
                    // An escape is ASCII: as many characters as bytes.
                    chars.by_ref().take(length).for_each(drop);
                }
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(Fault::new(start, "a quote that is not closed"))
    }

    /// `/…/`: a `/` inside brackets, parentheses or behind a backslash does not end it.
    fn regexp(&mut self) -> Result<Kind<'a>, Fault> {
        let start = self.at;
        let inside = &self.rest()[1..];
        let (mut brackets, mut parentheses, mut escaped) = (0_u32, 0_i64, false);
        for (i, c) in inside.char_indices() {
            if escaped {
                escaped = false;
                continue;
            }
            match c {
                '/' if brackets == 0 && parentheses == 0 => {
                    self.at = start + 1 + i + 1;
                    let free = |c: char| {
                        c.is_whitespace() || is_operator(c) || matches!(c, '-' | '*' | ':')
                    };
                    if self.rest().starts_with(|c| !free(c)) {
                        let message = "the regular expression ended before this: \
                                       a `/` inside it is spelled `\\/`";
                        return Err(Fault::new(self.at, message));
                    }
                    return Ok(Kind::Regexp(&inside[..i]));
                }
                '\\' => escaped = true,
                '[' => brackets += 1,
                ']' => brackets = brackets.saturating_sub(1),
                '(' if brackets == 0 => parentheses += 1,
                ')' if brackets == 0 => parentheses -= 1,
                _ => {}
            }
        }
        let message = "a regular expression without its closing `/`";
        Err(Fault::new(start, message))
    }
}

fn is_operator(c: char) -> bool {
    matches!(c, '(' | ')' | '@' | ',')
}

/// Appends what the escape behind a backslash stands for and returns its length in `text`.
fn escape(text: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let number = |from: usize, length: usize, radix: u32| {
        let digits = text.get(from..from + length)?;
        let plain = digits.chars().all(|c| c.is_digit(radix));
        u32::from_str_radix(digits, radix).ok().filter(|_| plain)
    };
    let plain = match text.chars().next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        c @ ('\\' | '"') => c as u8,
        'x' => {
            bytes.push(u8::try_from(number(1, 2, 16)?).ok()?);
            return Some(3);
        }
        '0'..='7' => {
            bytes.push(u8::try_from(number(0, 3, 8)?).ok()?);
            return Some(3);
        }
        c @ ('u' | 'U') => {
            let digits = if c == 'u' { 4 } else { 8 };
            let c = char::from_u32(number(1, digits, 16)?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(1 + digits);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(1)
}
