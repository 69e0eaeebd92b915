//! Filters: which results, and which single values of them, are used. Decides, and never changes what it is shown.

use std::collections::HashMap;

use regex_lite::Regex;

use super::syntax::{Expect, Fault, Kind, Lexer, QueryError, Token};
use super::view::{Source, View};

/// A condition on results and on units, such as `/size:4k .unit:(sec/op OR B/op)`.
#[derive(Clone, Debug)]
pub struct Filter {
    root: Expr,
    scratch: String,
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    /// True when all are; `*` when there is none.
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Term(Source, Pattern),
}

#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Word(String),
    OneOf(Vec<String>),
    Regexp(Memo),
}

/// A regular expression and what it said of the texts that it saw: results are many, the names in
/// them few.
#[derive(Clone, Debug)]
pub(super) struct Memo {
    regex: Regex,
    seen: HashMap<Box<str>, bool>,
}

/// The most texts that one regular expression remembers.
const MEMO: usize = 1 << 16;

/// How deep parentheses and `-` may be nested; the call stack bears much more.
const DEPTH: usize = 200;

/// A value's unit, for [`Filter::keeps_unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitNames<'a> {
    /// In base units: `sec/op`.
    pub unit: &'a str,
    /// As the file spells it, when that differs: `ns/op`. Either may match.
    pub original: Option<&'a str>,
}

impl Filter {
    /// Reads a filter. `*` keeps everything; an empty text is refused.
    pub fn new(text: &str) -> Result<Filter, QueryError> {
        let parse = || {
            let mut parser = Parser {
                lexer: Lexer::new(text),
                depth: 0,
            };
            let root = parser.any()?;
            let end = parser.lexer.next(Expect::Key)?;
            match end.kind {
                Kind::End => Ok(Filter {
                    root,
                    scratch: String::new(),
                }),
                _ => Err(end.instead_of("the end or another term")),
            }
        };
        parse().map_err(|fault: Fault| fault.within("filter", text))
    }

    /// Whether the values of a result are kept: all of them, none, or (`None`) some, which
    /// [`Filter::keeps_unit`] tells.
    pub fn keeps<'a, C>(&mut self, view: &View<'a, C>) -> Option<bool>
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        self.root.test(view, None, &mut self.scratch)
    }

    /// Whether the value of one unit of a result is kept.
    pub fn keeps_unit<'a, C>(&mut self, view: &View<'a, C>, unit: UnitNames<'_>) -> bool
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        self.root.test(view, Some(unit), &mut self.scratch) == Some(true)
    }

    /// Keeps only what `others` keep too.
    pub(super) fn and(&mut self, others: Vec<Expr>) {
        if !others.is_empty() {
            let root = std::mem::replace(&mut self.root, Expr::All(Vec::new()));
            self.root = Expr::All(others.into_iter().chain([root]).collect());
        }
    }
}

impl Expr {
    /// `None` when it depends on a unit and none is given.
    fn test<'a, C>(
        &mut self,
        view: &View<'a, C>,
        unit: Option<UnitNames<'_>>,
        scratch: &mut String,
    ) -> Option<bool>
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        let mut test = |term: &mut Expr| term.test(view, unit, scratch);
        match self {
            Expr::All(terms) => all(terms.iter_mut().map(test)),
            Expr::Any(terms) => not(all(terms.iter_mut().map(|term| not(test(term))))),
            Expr::Not(term) => not(test(term)),
            Expr::Term(Source::Unit, pattern) => unit.map(|names| {
                pattern.matches(names.unit)
                    || names.original.is_some_and(|name| pattern.matches(name))
            }),
            Expr::Term(source, pattern) => Some(pattern.matches(source.text(view, scratch))),
        }
    }
}

fn not(term: Option<bool>) -> Option<bool> {
    term.map(|x| !x)
}

/// Whether all are true; unknown when that hangs on unknown ones.
fn all(terms: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for term in terms {
        match term {
            Some(true) => {}
            Some(false) => return Some(false),
            None => known = None,
        }
    }
    known
}

impl Pattern {
    fn matches(&mut self, text: &str) -> bool {
        match self {
            Pattern::Word(word) => word == text,
            Pattern::OneOf(words) => words.iter().any(|word| word == text),
            Pattern::Regexp(memo) => memo.matches(text),
        }
    }
}

impl Memo {
    fn matches(&mut self, text: &str) -> bool {
        if let Some(&known) = self.seen.get(text) {
            return known;
        }
        if self.seen.len() >= MEMO {
            self.seen.clear();
        }
        let matched = self.regex.is_match(text);
        self.seen.insert(text.into(), matched);
        matched
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    depth: usize,
}

/// What can stand where a term begins.
const TERM: &str = "a term such as key:value";

impl Parser<'_> {
    /// Terms joined by OR.
    fn any(&mut self) -> Result<Expr, Fault> {
        let mut terms = vec![self.all()?];
        while self.lexer.peek(Expect::Key)?.kind == Kind::Or {
            self.lexer.next(Expect::Key)?;
            terms.push(self.all()?);
        }
        Ok(single(terms, Expr::Any))
    }

    /// Terms joined by AND, or by nothing.
    fn all(&mut self) -> Result<Expr, Fault> {
        let mut terms = vec![self.term()?];
        loop {
            match self.lexer.peek(Expect::Key)?.kind {
                Kind::And => {
                    self.lexer.next(Expect::Key)?;
                    terms.push(self.term()?);
                }
                Kind::Word(_) | Kind::Operator('(' | '-' | '*') => terms.push(self.term()?),
                _ => return Ok(single(terms, Expr::All)),
            }
        }
    }

    fn term(&mut self) -> Result<Expr, Fault> {
        let token = self.lexer.next(Expect::Key)?;
        match &token.kind {
            Kind::Operator('*') => Ok(Expr::All(Vec::new())),
            Kind::Operator('-') => {
                let term = self.nested(token.offset, Parser::term)?;
                Ok(Expr::Not(Box::new(term)))
            }
            Kind::Operator('(') => {
                let expr = self.nested(token.offset, Parser::any)?;
                let close = self.lexer.next(Expect::Key)?;
                match close.kind {
                    Kind::Operator(')') => Ok(expr),
                    _ => Err(close.instead_of("`)`")),
                }
            }
            Kind::Word(key) => self.key_value(key, token.offset),
            _ => Err(token.instead_of(TERM)),
        }
    }

    fn nested(
        &mut self,
        offset: usize,
        parse: impl FnOnce(&mut Self) -> Result<Expr, Fault>,
    ) -> Result<Expr, Fault> {
        if self.depth == DEPTH {
            return Err(Fault::new(offset, "nested too deeply"));
        }
        self.depth += 1;
        let expr = parse(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    /// What follows a key.
    fn key_value(&mut self, key: &str, offset: usize) -> Result<Expr, Fault> {
        if key == ".config" {
            let message = "`.config` is for projections: name one key of the configuration";
            return Err(Fault::new(offset, message));
        }
        let source = Source::new(key).map_err(|message| Fault::new(offset, message))?;
        let colon = self.lexer.next(Expect::Key)?;
        if colon.kind != Kind::Operator(':') {
            return Err(colon.instead_of(&format!("`:` and a value behind the key {key:?}")));
        }
        let token = self.lexer.next(Expect::Value)?;
        if token.kind != Kind::Operator('(') {
            return Ok(Expr::Term(source, pattern(token)?));
        }
        let mut terms = Vec::new();
        loop {
            let value = pattern(self.lexer.next(Expect::Value)?)?;
            terms.push(Expr::Term(source.clone(), value));
            let token = self.lexer.next(Expect::Value)?;
            match token.kind {
                Kind::Or => {}
                Kind::Operator(')') => return Ok(single(terms, Expr::Any)),
                _ => return Err(token.instead_of("OR or `)` in a list of values")),
            }
        }
    }
}

fn pattern(token: Token<'_>) -> Result<Pattern, Fault> {
    match token.kind {
        Kind::Word(word) => Ok(Pattern::Word(word.into_owned())),
        Kind::Regexp(text) => match Regex::new(text) {
            Ok(regex) => Ok(Pattern::Regexp(Memo {
                regex,
                seen: HashMap::new(),
            })),
            Err(error) => {
                let message = format!("regular expression: {error}");
                Err(Fault::new(token.offset, message))
            }
        },
        _ => Err(token.instead_of("a value")),
    }
}

fn single(mut terms: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match terms.pop() {
        Some(term) if terms.is_empty() => term,
        last => {
            terms.extend(last);
            join(terms)
        }
    }
}
