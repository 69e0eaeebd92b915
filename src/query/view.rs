//! What a filter or a projection sees of one benchmark result, and how a key's value is found in it. Never copies a name that it can lend.

use std::fmt::Write;

/// One result as the caller has it, borrowed. `C` yields the configuration; of a key that comes
/// twice, the later value holds. An empty value is the same as none.
#[derive(Clone, Debug)]
pub struct View<'a, C> {
    /// The full name with parameters, without the Go format's `Benchmark` before it.
    pub name: &'a str,
    /// Whether `-8` at the end of a name is GOMAXPROCS, as in the Go benchmark format. In our own
    /// records it is not: `gcc-12` is a name.
    pub gomaxprocs: bool,
    /// The file, or the label that the user gave it: `.file`.
    pub file: &'a str,
    /// The configuration, key and value.
    pub config: C,
    /// Views with the same number have the same file and configuration: these are then looked at
    /// once for many results. `None` promises nothing.
    pub context: Option<u64>,
}

/// Where a key's value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `.name`
    Base,
    /// `.fullname` without the parts that these keys (`.name`, `/key`) name.
    FullName(Vec<String>),
    /// `/key`, with the slash.
    Parameter(String),
    /// `.file`
    File,
    /// `.unit`, which no view has: units are told apart behind it.
    Unit,
    /// A key of the configuration.
    Setting(String),
}

/// The key under which GOMAXPROCS is found, however the name tells it.
const GOMAXPROCS: &str = "/gomaxprocs";

impl Source {
    /// The source that a key names, or what is wrong with it. `.config` is none: it is a group.
    pub(super) fn new(key: &str) -> Result<Source, String> {
        match key {
            ".name" => Ok(Source::Base),
            ".fullname" => Ok(Source::FullName(Vec::new())),
            ".file" => Ok(Source::File),
            ".unit" => Ok(Source::Unit),
            "" => Err("a key must not be empty".to_owned()),
            "/" => Err("expected a parameter's name after `/`".to_owned()),
            _ if key.starts_with('/') => Ok(Source::Parameter(key.to_owned())),
            _ if key.starts_with('.') => Err(format!(
                "unknown key `{key}`: those with a dot are .name, .fullname, .file, .unit and, \
                 in projections, .config"
            )),
            _ => Ok(Source::Setting(key.to_owned())),
        }
    }

    /// Whether it is a part of the name.
    pub(super) fn is_of_name(&self) -> bool {
        matches!(
            self,
            Source::Base | Source::FullName(_) | Source::Parameter(_)
        )
    }

    /// The value in `view`, empty when it has none. `scratch` is used when it has to be composed.
    pub(super) fn text<'s, 'a: 's, C>(&self, view: &View<'a, C>, scratch: &'s mut String) -> &'s str
    where
        C: Iterator<Item = (&'a str, &'a str)> + Clone,
    {
        match self {
            Source::Base => Parts::new(view).base,
            Source::FullName(without) => full_name(view, without, scratch),
            Source::Parameter(key) => parameter(view, key),
            Source::File => view.file,
            Source::Unit => "",
            Source::Setting(key) => {
                let mut found = "";
                for (name, value) in view.config.clone() {
                    if name == key {
                        found = value;
                    }
                }
                found
            }
        }
    }
}

/// A name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'a> {
    base: &'a str,
    /// Empty, or from the first `/` on.
    parameters: &'a str,
    /// The digits of GOMAXPROCS; empty when the name does not end in them.
    gomaxprocs: &'a str,
}

impl<'a> Parts<'a> {
    fn new<C>(view: &View<'a, C>) -> Parts<'a> {
        let (stem, gomaxprocs) = match view.name.rsplit_once('-') {
            Some((stem, digits))
                if view.gomaxprocs
                    && !digits.is_empty()
                    && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                (stem, digits)
            }
            _ => (view.name, ""),
        };
        let (base, parameters) = stem.split_at(stem.find('/').unwrap_or(stem.len()));
        Parts {
            base,
            parameters,
            gomaxprocs,
        }
    }

    /// The parameters, each with its key (which begins with `/`) when it has one, and its value.
    fn parameters(self) -> impl Iterator<Item = Parameter<'a>> {
        let mut rest = self.parameters;
        std::iter::from_fn(move || {
            let inside = rest.get(1..)?;
            let (whole, behind) = rest.split_at(1 + inside.find('/').unwrap_or(inside.len()));
            rest = behind;
            let (key, value) = match whole.split_once('=') {
                Some((key, value)) => (Some(key), value),
                None => (None, &whole[1..]),
            };
            Some(Parameter { whole, key, value })
        })
    }
}

struct Parameter<'a> {
    /// With its slash.
    whole: &'a str,
    key: Option<&'a str>,
    value: &'a str,
}

fn parameter<'a, C>(view: &View<'a, C>, key: &str) -> &'a str {
    let parts = Parts::new(view);
    if key == GOMAXPROCS && !parts.gomaxprocs.is_empty() {
        return parts.gomaxprocs;
    }
    let found = parts.parameters().find(|p| p.key == Some(key));
    found.map_or("", |p| p.value)
}

fn full_name<'s, 'a: 's, C>(
    view: &View<'a, C>,
    without: &[String],
    scratch: &'s mut String,
) -> &'s str {
    if without.is_empty() {
        return view.name;
    }
    let parts = Parts::new(view);
    let left_out = |key: &str| without.iter().any(|w| w == key);
    scratch.clear();
    scratch.push_str(if left_out(".name") { "*" } else { parts.base });
    for parameter in parts.parameters() {
        if !parameter.key.is_some_and(left_out) {
            scratch.push_str(parameter.whole);
        }
    }
    if !parts.gomaxprocs.is_empty() && !left_out(GOMAXPROCS) {
        scratch.push('-');
        scratch.push_str(parts.gomaxprocs);
    }
    scratch
}

/// Calls `found` with every part of the name under the key that would project it: `.name`,
/// `/key`, and for the i-th parameter without a key `part i of .fullname`. A parameter that
/// `found` refuses, because its key came before, counts as one without.
pub(super) fn name_parts<C>(
    view: &View<'_, C>,
    scratch: &mut String,
    mut found: impl FnMut(&str, &str) -> bool,
) {
    let parts = Parts::new(view);
    found(".name", parts.base);
    for (i, parameter) in parts.parameters().enumerate() {
        if !parameter.key.is_some_and(|key| found(key, parameter.value)) {
            scratch.clear();
            // Writing to a string does not fail.
            let _ = write!(scratch, "part {} of .fullname", i + 1);
            found(scratch, parameter.whole);
        }
    }
    if !parts.gomaxprocs.is_empty() {
        found(GOMAXPROCS, parts.gomaxprocs);
    }
}
