//! Compilers of single files, each defined by its command line: gcc and clang, rustc, and what a user defines in TOML. Never runs one but to ask its version.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use serde::Deserialize;

use super::Job;
use super::cache;
use super::invocation::{Invocation, Limits};
use crate::sample::Cause;

/// A compiler that makes one file of another.
///
/// As a user defines it:
///
/// ```toml
/// command = ["tinygo", "build", "{flags}", "-o", "{output}", "{input}"]
/// listing = ["tinygo", "build", "{flags}", "-o", "{output}", "-target=asm", "{input}"]
/// version = ["tinygo", "version"]
/// inputs = ["go"]           # how the names of its inputs end
/// output = "o"              # how the names of its outputs end
/// environment = { LC_ALL = "C" }
///
/// [phases]                  # lines of its log that tell the time of a phase
/// pattern = '^(?<name>\S+)\s+(?<sec>[0-9.]+) s$'
/// ```
#[derive(Clone, Debug)]
pub struct Template {
    /// As the user named it: `gcc-12 -O1`.
    pub name: String,
    /// The first line that it says of its version.
    pub version: String,
    /// The file that is executed.
    pub program: PathBuf,
    /// Its hash.
    pub sha256: String,
    /// The program that does the work for a driver such as gcc or rustup's rustc, and its hash.
    pub proper: Option<(PathBuf, String)>,
    /// Lines of its log that tell the time of a phase.
    pub phases: Option<Regex>,
    /// The flags that have it write them.
    pub phase_flags: Vec<OsString>,
    definition: Definition,
}

/// What a definition says, word for word.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    command: Vec<String>,
    listing: Option<Vec<String>>,
    version: Option<Vec<String>>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default = "object")]
    output: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    phases: Option<Phases>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phases {
    pattern: String,
}

/// A phase in what gcc writes with `-ftime-report`: its user, system and wall time, of which the last
/// is told: ` phase parsing   :   0.09 (  2%)   0.22 ( 17%)   0.38 (  5%)  8323k (  6%)`.
const GCC_PHASE: &str =
    r"^ *phase (?<name>[^:]*[^: ]) *:(?: *[0-9.]+ *\( *[0-9]+%\)){2} *(?<sec>[0-9.]+) *\(";

fn object() -> String {
    "o".to_owned()
}

impl Template {
    /// gcc, clang, or what is called as they are.
    pub fn c(command: &str, limits: Limits<'_>) -> Result<Template, Cause> {
        let definition = Definition {
            command: words(&["{flags}", "-c", "-o", "{output}", "{input}"]),
            listing: Some(words(&["{flags}", "-S", "-o", "{output}", "{input}"])),
            version: Some(words(&["--version"])),
            inputs: words(&["c", "cc", "cpp", "cxx", "C", "i", "ii", "m", "s", "S"]),
            output: object(),
            environment: BTreeMap::new(),
            phases: None,
        };
        let mut template = Template::called(command, definition, limits)?;
        let option = match template.program.to_string_lossy().contains("++") {
            true => "-print-prog-name=cc1plus",
            false => "-print-prog-name=cc1",
        };
        // clang has it all in one, and gives the bare name.
        template.proper = template.proper(&[option], Path::to_owned, limits)?;
        // Of gcc alone: what clang tells are passes, some within others.
        if template.proper.is_some() {
            template.phases = Regex::new(GCC_PHASE).ok();
            template.phase_flags = vec!["-ftime-report".into()];
        }
        Ok(template)
    }

    /// The program that it has do the work, at a place that it tells when it is `asked`.
    fn proper(
        &self,
        asked: &[&str],
        place: impl Fn(&Path) -> PathBuf,
        limits: Limits<'_>,
    ) -> Result<Option<(PathBuf, String)>, Cause> {
        let words = shlex::split(&self.name).unwrap_or_default();
        let always = words.into_iter().skip(1);
        let asked = asked.iter().map(|&word| word.to_owned());
        let arguments = always.chain(asked).map(OsString::from).collect();
        let ended = self.invocation(arguments).run(limits)?;
        let said = ended.first_line().map(PathBuf::from);
        let Some(said) = said.filter(|said| ended.failure().is_none() && said.is_absolute()) else {
            return Ok(None);
        };
        let path = place(&said);
        let hash = cache::sha256(&path).ok();
        Ok(hash
            .map(|sha256| (path, sha256))
            .filter(|(_, sha256)| *sha256 != self.sha256))
    }

    /// rustc.
    pub fn rustc(command: &str, limits: Limits<'_>) -> Result<Template, Cause> {
        let common = ["--crate-type=lib", "-Ccodegen-units=1"];
        let to = ["-o", "{output}", "{flags}", "{input}"];
        let definition = Definition {
            command: words(&[&common[..], &["--emit=obj"], &to].concat()),
            listing: Some(words(&[&common[..], &["--emit=asm"], &to].concat())),
            version: Some(words(&["--version"])),
            inputs: words(&["rs"]),
            output: object(),
            environment: BTreeMap::new(),
            phases: None,
        };
        let mut template = Template::called(command, definition, limits)?;
        // rustup's is one for all toolchains.
        let within = |root: &Path| root.join("bin/rustc");
        template.proper = template.proper(&["--print=sysroot"], within, limits)?;
        Ok(template)
    }

    /// A compiler whose definition stands in this file.
    ///
    /// Errors: it cannot be read or understood, or there is no such program.
    pub fn defined(file: &Path, limits: Limits<'_>) -> Result<Template, Cause> {
        let named = file.display();
        let text = fs::read_to_string(file)
            .map_err(|error| Cause::new(format!("cannot read {named}: {error}")))?;
        let mut definition: Definition = toml::from_str(&text).map_err(|error| {
            Cause::new(format!(
                "{named} is no compiler's definition: {}",
                error.message()
            ))
        })?;
        for needed in ["{input}", "{output}"] {
            if !definition.command.iter().any(|word| word.contains(needed)) {
                return Err(Cause::new(format!("{named}: its command has no {needed}")));
            }
        }
        let commands = [
            Some(&mut definition.command),
            definition.listing.as_mut(),
            definition.version.as_mut(),
        ];
        let mut program = None;
        for command in commands.into_iter().flatten() {
            if command.is_empty() {
                return Err(Cause::new(format!("{named}: a command is empty")));
            }
            let first = command.remove(0);
            if program.get_or_insert_with(|| first.clone()) != &first {
                return Err(Cause::new(format!(
                    "{named}: its commands begin with different programs"
                )));
            }
        }
        let program = shlex::try_quote(program.as_deref().unwrap_or_default())
            .map_err(|error| Cause::new(format!("{named}: {error}")))?
            .into_owned();
        let template = Template::called(&program, definition, limits)?;
        Ok(Template {
            name: named.to_string(),
            ..template
        })
    }

    /// `command` is the program and what always stands behind it.
    fn called(
        command: &str,
        mut definition: Definition,
        limits: Limits<'_>,
    ) -> Result<Template, Cause> {
        let said = shlex::split(command).unwrap_or_default();
        let Some((program, always)) = said.split_first() else {
            return Err(Cause::new(format!("`{command}` names no compiler")));
        };
        let path = find(program).ok_or_else(|| {
            Cause::new(format!("no compiler {program}")).cure("check its spelling and $PATH")
        })?;
        let phases = definition.phases.as_ref().map(|phases| {
            Regex::new(&phases.pattern)
                .map_err(|error| Cause::new(format!("the pattern of phases: {error}")))
        });
        let sha256 = cache::sha256(&path)
            .map_err(|error| Cause::new(format!("cannot read {}: {error}", path.display())))?;
        let asked = definition.version.take();
        for command in [Some(&mut definition.command), definition.listing.as_mut()]
            .into_iter()
            .flatten()
        {
            command.splice(0..0, always.iter().cloned());
        }
        let mut template = Template {
            name: command.to_owned(),
            version: String::new(),
            phases: phases.transpose()?,
            phase_flags: Vec::new(),
            program: path,
            sha256,
            proper: None,
            definition,
        };
        if let Some(asked) = asked {
            let ended = template
                .invocation(asked.into_iter().map(OsString::from).collect())
                .run(limits)?;
            if let Some(why) = ended.failure() {
                return Err(Cause::new(format!(
                    "{program} does not tell its version: {why}"
                )));
            }
            template.version = ended.first_line().unwrap_or_default();
        }
        Ok(template)
    }

    /// How to compile `input` with these further flags into the file `output`.
    pub fn job(&self, input: &Path, flags: &[OsString], output: &Path) -> Job {
        let arguments = fill(&self.definition.command, input, flags, output);
        Job {
            invocation: self.invocation(arguments),
            output: output.to_owned(),
        }
    }

    /// How to compile `input` into assembly text, where this compiler can.
    pub fn listing(&self, input: &Path, flags: &[OsString], output: &Path) -> Option<Job> {
        let command = self.definition.listing.as_ref()?;
        Some(Job {
            invocation: self.invocation(fill(command, input, flags, output)),
            output: output.to_owned(),
        })
    }

    /// How the names of its outputs end.
    pub fn output_suffix(&self) -> &str {
        &self.definition.output
    }

    /// Whether it compiles files with this name.
    pub fn takes(&self, input: &Path) -> bool {
        let suffix = input.extension().unwrap_or_default();
        let known = &self.definition.inputs;
        known.is_empty() || known.iter().any(|one| suffix == one.as_str())
    }

    fn invocation(&self, arguments: Vec<OsString>) -> Invocation {
        let mut environment: BTreeMap<OsString, OsString> =
            super::inherited().into_iter().collect();
        // Messages in one language; `__DATE__` and `__TIME__` the same for all.
        environment.insert("LC_ALL".into(), "C".into());
        environment
            .entry("SOURCE_DATE_EPOCH".into())
            .or_insert_with(|| "0".into());
        let own = self.definition.environment.iter();
        environment.extend(own.map(|(key, value)| (key.into(), value.into())));
        Invocation {
            program: self.program.clone(),
            arguments,
            environment: environment.into_iter().collect(),
            ..Invocation::default()
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The words of a command with what stands for input, output and flags filled in.
fn fill(command: &[String], input: &Path, flags: &[OsString], output: &Path) -> Vec<OsString> {
    let mut filled = Vec::new();
    for word in command {
        match word.as_str() {
            "{flags}" => filled.extend_from_slice(flags),
            _ => filled.push(insert(word, &[("{input}", input), ("{output}", output)])),
        }
    }
    filled
}

/// Paths need not be text, so they are not put in by way of it.
fn insert(word: &str, paths: &[(&str, &Path)]) -> OsString {
    let found = paths
        .iter()
        .filter_map(|(name, path)| Some((word.find(name)?, name, path)));
    let Some((at, name, path)) = found.min_by_key(|(at, ..)| *at) else {
        return word.into();
    };
    let mut filled = OsString::from(&word[..at]);
    filled.push(path);
    filled.push(insert(&word[at + name.len()..], paths));
    filled
}

/// The file that a shell would execute.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(program));
    found.find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_filled_in() {
        let check = |command: &[&str], want: &[&str]| {
            let flags = ["-g".into(), "-O2".into()];
            let filled = fill(
                &words(command),
                "a b.c".as_ref(),
                &flags,
                "/o/{input}.o".as_ref(),
            );
            assert_eq!(filled, want);
        };
        check(&["-c", "{input}"], &["-c", "a b.c"]);
        check(
            &["{flags}", "-o{output}", "x{input}y{input}"],
            &["-g", "-O2", "-o/o/{input}.o", "xa b.cya b.c"],
        );
    }

    #[test]
    fn phases_of_gcc_have_their_wall_times() {
        let pattern = Regex::new(GCC_PHASE).unwrap();
        let check = |line: &str, want: Option<(&str, &str)>| {
            let found = pattern.captures(line);
            let told = found.as_ref().map(|one| (&one["name"], &one["sec"]));
            assert_eq!(told, want, "{line}");
        };
        check(
            " phase opt and generate             :   5.21 ( 98%)   1.05 ( 83%)   6.66 ( 95%)   133M ( 93%)",
            Some(("opt and generate", "6.66")),
        );
        check(
            " callgraph construction             :   0.02 (  0%)   0.00 (  0%)   0.03 (  0%)  1599k (  1%)",
            None,
        );
        check(
            " TOTAL                              :   5.31          1.26          7.03          143M",
            None,
        );
    }

    #[test]
    fn definitions_are_read_strictly() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("compiler.toml");
        let interrupt = crate::run::interrupt::Interrupt::listen().unwrap();
        let limits = Limits {
            timeout: std::time::Duration::from_secs(30),
            interrupt: &interrupt,
        };
        let check = |text: &str, want: &str| {
            fs::write(&file, text).unwrap();
            let told = match Template::defined(&file, limits) {
                Ok(template) => format!("{} {:?}", template.version, template.output_suffix()),
                Err(cause) => cause.to_string(),
            };
            assert!(told.contains(want), "{told}");
        };
        check("command = ['cp', '{input}', '{output}']", "\"o\"");
        check(
            "command = ['sh', '{input}', '{output}']\nversion = ['sh', '-c', 'echo 1.2']\noutput = 'x'",
            "1.2 \"x\"",
        );
        check("command = ['cp', '{input}']", "its command has no {output}");
        check(
            "command = ['cp', '{input}', '{output}']\nmore = 1",
            "unknown field `more`",
        );
        check(
            "command = ['no-such-compiler', '{input}', '{output}']",
            "no compiler no-such-compiler",
        );
        check(
            "command = ['cp', '{input}', '{output}']\nversion = ['mv', '--version']",
            "begin with different programs",
        );
        check(
            "command = ['cp', '{input}', '{output}']\nphases = { pattern = '(' }",
            "the pattern of phases",
        );
    }
}
