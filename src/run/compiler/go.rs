//! A Go toolchain, found from a GOROOT, or a Go compiler alone. Runs its own tools to ask them; never compiles, never touches the network.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cache::{self, Cache};
use super::invocation::{Invocation, Limits};
use super::scratch::Scratch;
use crate::sample::Cause;

/// A Go compiler, with the toolchain that it is part of when there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// The compiler itself.
    pub compile: PathBuf,
    /// What it calls itself: `go1.24.11`, or `devel go1.25-1234567 …`.
    pub version: String,
    /// The hash of the compiler's file.
    pub sha256: String,
    /// What it was found in; `None` for a compiler alone.
    pub toolchain: Option<Toolchain>,
}

/// A whole toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its GOROOT.
    pub root: PathBuf,
    /// The `go` command.
    pub go: PathBuf,
    /// The directory with `compile`, `asm`, `link`.
    pub tools: PathBuf,
    /// The operating system and processor that it compiles for, and the processor's level:
    /// `GOOS`, `GOARCH`, `GOAMD64`, …
    pub target: Vec<(String, String)>,
}

/// Variables of Go that a user sets to choose what is compiled; all others that begin with `GO`
/// are kept from compilers, and so are those of `go env -w`.
const KEPT: [&str; 14] = [
    "GOOS",
    "GOARCH",
    "GOEXPERIMENT",
    "GOPATH",
    "GOMODCACHE",
    "GOAMD64",
    "GOARM",
    "GOARM64",
    "GO386",
    "GOMIPS",
    "GOMIPS64",
    "GOPPC64",
    "GORISCV64",
    "GOFIPS140",
];

impl Go {
    /// The toolchain in this GOROOT.
    ///
    /// Errors: there is none, it is not whole, or it does not run here; the cause says which.
    pub fn in_root(root: &Path, limits: Limits<'_>) -> Result<Go, Cause> {
        let named = root.display();
        let root = fs::canonicalize(root)
            .map_err(|error| Cause::new(format!("no Go toolchain at {named}: {error}")))?;
        let go = root.join("bin/go");
        if !go.is_file() {
            let cause = Cause::new(format!("{named} is not a GOROOT: it has no bin/go"));
            let built = root.join("src/make.bash").is_file();
            return Err(match built {
                true => cause.cure(
                    "it is a source tree that was not built: run src/make.bash, or poise build",
                ),
                false => cause.cure("name the directory that `go env GOROOT` prints"),
            });
        }
        executable(&go)?;
        let scratch = Scratch::new()?;
        let mut asked = Invocation {
            program: go.clone(),
            arguments: ["env", "GOOS", "GOARCH", "GOTOOLDIR"]
                .map(OsString::from)
                .into(),
            environment: environment(&root, &[], scratch.path()),
            directory: Some(root.clone()),
            ..Invocation::default()
        };
        let said = answer(&asked, limits)?;
        let [goos, goarch, tools] = lines(&said)
            .ok_or_else(|| Cause::new(format!("{} does not tell its settings", go.display())))?;
        let tools = PathBuf::from(tools);
        if !tools.starts_with(&root) {
            return Err(Cause::new(format!(
                "{named} is not the GOROOT of its own bin/go, whose tools are in {}",
                tools.display()
            )));
        }
        let mut target = vec![
            ("GOOS".to_owned(), goos.to_owned()),
            ("GOARCH".to_owned(), goarch.to_owned()),
        ];
        if let Some(key) = level(goarch) {
            asked.arguments = vec!["env".into(), key.into()];
            let value = answer(&asked, limits)?;
            target.push((key.to_owned(), value.trim().to_owned()));
        }
        for tool in ["compile", "asm"] {
            let tool = tools.join(tool);
            if !tool.is_file() {
                return Err(Cause::new(format!(
                    "{named} is not whole: there is no {}",
                    tool.display()
                ))
                .cure("build it again with src/make.bash, or unpack it again"));
            }
            executable(&tool)?;
        }
        Ok(Go {
            toolchain: Some(Toolchain {
                root,
                go,
                target,
                tools: tools.clone(),
            }),
            ..Go::alone(&tools.join("compile"), limits)?
        })
    }

    /// The compiler that is this file, with no toolchain round it.
    pub fn alone(compile: &Path, limits: Limits<'_>) -> Result<Go, Cause> {
        let named = compile.display();
        let compile = fs::canonicalize(compile)
            .map_err(|error| Cause::new(format!("no Go compiler at {named}: {error}")))?;
        executable(&compile)?;
        let asked = Invocation {
            program: compile.clone(),
            arguments: vec!["-V=full".into()],
            environment: vec![],
            ..Invocation::default()
        };
        let said = answer(&asked, limits)?;
        let version = said
            .trim()
            .strip_prefix("compile version ")
            .ok_or_else(|| {
                let cause = Cause::new(format!("{named} is not a Go compiler"));
                cause.cure("name a GOROOT, or the file `compile` of one")
            })?
            // Where the compiler was built without a version, its build id follows.
            .split(" buildID=")
            .next()
            .unwrap_or_default();
        let sha256 = cache::sha256(&compile)
            .map_err(|error| Cause::new(format!("cannot read {named}: {error}")))?;
        Ok(Go {
            version: version.to_owned(),
            sha256,
            toolchain: None,
            compile,
        })
    }

    /// The whole toolchain, for what a compiler alone cannot do.
    pub fn toolchain(&self) -> Result<&Toolchain, Cause> {
        self.toolchain.as_ref().ok_or_else(|| {
            Cause::new(format!(
                "{} is a compiler alone, without packages",
                self.compile.display()
            ))
            .cure("name the GOROOT whose packages shall be compiled with --source")
        })
    }
}

impl Go {
    /// Options of the go command with which it builds by these flags of the compiler.
    ///
    /// Compiler and assembler search a directory that nobody has, named by what is in their files:
    /// the go command takes two of one release for the same, and would give one what the other
    /// made.
    pub(super) fn build_flags(&self, flags: &[OsString]) -> Result<[OsString; 2], Cause> {
        let assembler = self.toolchain()?.tools.join("asm");
        let assembler = cache::sha256(&assembler)
            .map_err(|error| Cause::new(format!("cannot read {}: {error}", assembler.display())))?;
        let mut compiler = OsString::from(format!("-gcflags=all=-I=/{}", self.sha256));
        for flag in flags {
            compiler.push(" ");
            compiler.push(quoted(flag));
        }
        Ok([compiler, format!("-asmflags=all=-I=/{assembler}").into()])
    }
}

/// A word as the go command takes it in a list of flags.
fn quoted(word: &OsStr) -> OsString {
    let mark = match word.as_encoded_bytes() {
        bytes if !bytes.iter().any(u8::is_ascii_whitespace) => return word.to_owned(),
        bytes if bytes.contains(&b'\'') => "\"",
        _ => "'",
    };
    let mut quoted = OsString::from(mark);
    quoted.push(word);
    quoted.push(mark);
    quoted
}

impl Toolchain {
    /// The environment in which its tools and those of others compile its packages.
    pub fn environment(&self, cache: &Cache) -> Result<Vec<(OsString, OsString)>, Cause> {
        Ok(environment(&self.root, &self.target, &cache.part("go")?))
    }

    /// The value of one of its settings: `linux` for `GOOS`.
    pub fn setting(&self, key: &str) -> &str {
        let found = self.target.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }
}

/// The environment of Go programs: what the user's environment has beside Go's own variables, and
/// those set so that nothing but the toolchain in `root` is used and the network is left alone.
fn environment(
    root: &Path,
    target: &[(String, String)],
    cache: &Path,
) -> Vec<(OsString, OsString)> {
    let users = super::inherited().into_iter().filter(|(key, _)| {
        let key = key.to_string_lossy();
        !key.starts_with("GO") && !key.starts_with("CGO_") || KEPT.contains(&&*key)
    });
    let set = [
        ("GOROOT", root.as_os_str()),
        ("GOCACHE", cache.join("build").as_os_str()),
        // Where the go command keeps its counters.
        ("XDG_CONFIG_HOME", cache.join("config").as_os_str()),
        ("GOENV", OsStr::new("off")),
        ("GOFLAGS", OsStr::new("")),
        ("GOTOOLCHAIN", OsStr::new("local")),
        ("GO111MODULE", OsStr::new("")),
        ("GOPROXY", OsStr::new("off")),
        ("GOSUMDB", OsStr::new("off")),
        ("GOVCS", OsStr::new("*:off")),
        ("GOWORK", OsStr::new("")),
        ("CGO_ENABLED", OsStr::new("0")),
    ]
    .map(|(key, value)| (OsString::from(key), value.to_owned()));
    let target = target.iter().map(|(key, value)| (key.into(), value.into()));
    let mut all: Vec<(OsString, OsString)> = users.chain(set).chain(target).collect();
    // A later one replaces an earlier one.
    all.reverse();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(key, _)| seen.insert(key.clone()));
    all.reverse();
    all
}

/// The variable with the level of a processor, where it has levels.
fn level(goarch: &str) -> Option<&'static str> {
    Some(match goarch {
        "amd64" => "GOAMD64",
        "arm" => "GOARM",
        "arm64" => "GOARM64",
        "386" => "GO386",
        "mips" | "mipsle" => "GOMIPS",
        "mips64" | "mips64le" => "GOMIPS64",
        "ppc64" | "ppc64le" => "GOPPC64",
        "riscv64" => "GORISCV64",
        _ => return None,
    })
}

/// Archives such as Python's wheels lose the right to execute.
fn executable(file: &Path) -> Result<(), Cause> {
    let about = fs::metadata(file)
        .map_err(|error| Cause::new(format!("cannot look at {}: {error}", file.display())))?;
    if about.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    let directory = file.parent().unwrap_or(file).display().to_string();
    Err(Cause::new(format!("{} is not executable", file.display()))
        .cure(format!("chmod +x {directory}/*")))
}

/// What a tool of the toolchain says, which must succeed.
fn answer(asked: &Invocation, limits: Limits<'_>) -> Result<String, Cause> {
    let ended = asked.run(limits)?;
    match ended.failure() {
        None => Ok(ended.text()),
        Some(why) => {
            let said = ended
                .first_line()
                .map_or(String::new(), |line| format!(": {line}"));
            Err(Cause::new(format!(
                "{}: {why}{said}",
                asked.program.display()
            )))
        }
    }
}

fn lines<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.lines().collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::interrupt::Interrupt;

    /// Why this directory is no GOROOT.
    fn refusal(root: &Path) -> String {
        let interrupt = Interrupt::listen().unwrap();
        let limits = Limits {
            timeout: Duration::from_secs(30),
            interrupt: &interrupt,
        };
        Go::in_root(root, limits).unwrap_err().to_string()
    }

    fn script(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_no_toolchain_is_told_with_its_cure() {
        let check = |refused: String, all: &[&str]| {
            assert!(all.iter().all(|words| refused.contains(words)), "{refused}");
        };
        check(
            refusal("/nowhere".as_ref()),
            &["no Go toolchain at /nowhere"],
        );
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        check(refusal(&root), &["is not a GOROOT", "go env GOROOT"]);
        script(&root.join("src/make.bash"), "", 0o755);
        check(refusal(&root), &["was not built", "poise build"]);
        let go = root.join("bin/go");
        script(&go, "", 0o644);
        check(refusal(&root), &["not executable", "chmod +x"]);
        script(&go, "\x7fELF of another machine", 0o755);
        check(
            refusal(&root),
            &["not a program that this machine can execute"],
        );
        script(
            &go,
            "#!/bin/sh\nprintf 'linux\\namd64\\n/usr/lib\\n'\n",
            0o755,
        );
        check(
            refusal(&root),
            &["is not the GOROOT of its own bin/go", "/usr/lib"],
        );
        let tools = root.join("pkg/tool");
        let says = format!(
            "#!/bin/sh\nprintf 'linux\\namd64\\n{}\\n'\n",
            tools.display()
        );
        script(&go, &says, 0o755);
        check(refusal(&root), &["is not whole", "pkg/tool/compile"]);
        script(&tools.join("compile"), "", 0o644);
        check(refusal(&root), &["compile is not executable"]);
        script(&tools.join("compile"), "#!/bin/sh\necho hello\n", 0o755);
        script(&tools.join("asm"), "", 0o755);
        check(refusal(&root), &["is not a Go compiler"]);
    }

    #[test]
    fn flags_with_blanks_are_quoted_for_the_go_command() {
        let check = |word: &str, want: &str| assert_eq!(quoted(word.as_ref()), want);
        check("-l", "-l");
        check("-d=x y", "'-d=x y'");
        check("it's a", "\"it's a\"");
    }

    #[test]
    fn the_environment_shuts_out_what_the_user_set_for_go() {
        let environment = environment(
            "/root".as_ref(),
            &[("GOOS".into(), "plan9".into())],
            "/c".as_ref(),
        );
        let value = |key: &str| {
            let found: Vec<_> = environment.iter().filter(|(name, _)| name == key).collect();
            assert!(found.len() < 2, "{key} stands there twice");
            found.first().map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(value("GOPROXY"), Some("off"));
        assert_eq!(value("GOTOOLCHAIN"), Some("local"));
        assert_eq!(value("GOOS"), Some("plan9"));
        assert_eq!(value("GOCACHE"), Some("/c/build"));
        assert_eq!(value("PATH").is_some(), std::env::var_os("PATH").is_some());
    }
}
