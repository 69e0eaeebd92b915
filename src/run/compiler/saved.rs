//! Compilers kept clean under a name, while their source is worked on: copies of the files and where they came from. Never runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Compiler;
use super::cache::{self, data_home, unwritable};
use super::go::Go;
use crate::sample::Cause;

/// What stands before the name of a saved compiler where a compiler is asked for.
pub const MARK: char = '@';

/// The tools of a toolchain that are saved, as far as it has them.
const TOOLS: [&str; 3] = ["compile", "asm", "link"];

/// The file that tells what is saved.
const ABOUT: &str = "saved.json";

/// A saved compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// What it calls itself.
    pub version: String,
    /// When it was saved, RFC 3339 in UTC.
    pub saved: String,
    /// The GOROOT that it was in, or nothing for a compiler alone.
    pub root: Option<PathBuf>,
    /// Its files.
    pub files: Vec<SavedFile>,
}

/// A file of a saved compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// Its name.
    pub name: String,
    /// Where it was, and where it is restored to.
    pub origin: PathBuf,
    /// The hash of what was saved.
    pub sha256: String,
}

/// The place where compilers are kept.
#[derive(Clone, Debug)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// The user's: `$XDG_DATA_HOME/counterpoise/compilers`.
    ///
    /// Errors: neither that variable nor HOME is set.
    pub fn usual() -> Result<Shelf, Cause> {
        let home = data_home(|key| std::env::var_os(key)).ok_or_else(|| {
            Cause::new("there is no place for saved compilers").cure("set HOME or XDG_DATA_HOME")
        })?;
        Ok(Shelf(home.join("compilers")))
    }

    /// One in this directory.
    pub fn at(path: PathBuf) -> Shelf {
        Shelf(path)
    }

    /// The directory of a saved compiler.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Saves a Go compiler, with assembler and linker when it is part of a toolchain.
    ///
    /// Errors: the name is taken or no name, the compiler is not Go's, or it cannot be written.
    pub fn save(&self, name: &str, compiler: &Compiler) -> Result<Saved, Cause> {
        let Compiler::Go(go) = compiler else {
            let cause = Cause::new("only Go compilers are saved: others are more than one file");
            return Err(cause.cure("install two versions, and name each by its command"));
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
            let cause = Cause::new(format!("`{name}` cannot be the name of a saved compiler"));
            return Err(cause.cure("use letters, digits and - _ . +"));
        }
        let directory = self.directory(name);
        if directory.exists() {
            let cause = Cause::new(format!("a compiler is saved as {name} already"));
            return Err(cause.cure(format!(
                "choose another name, or rm -r {}",
                directory.display()
            )));
        }
        fs::create_dir_all(&self.0).map_err(|error| unwritable(&self.0, &error))?;
        let scratch = tempfile::tempdir_in(&self.0).map_err(|error| unwritable(&self.0, &error))?;
        let origins: Vec<PathBuf> = match &go.toolchain {
            Some(toolchain) => {
                let tools = TOOLS.iter().map(|tool| toolchain.tools.join(tool));
                tools.filter(|tool| tool.is_file()).collect()
            }
            None => vec![go.compile.clone()],
        };
        let mut files = Vec::new();
        for origin in origins {
            let name = origin
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let copy = scratch.path().join(&name);
            let sha256 = copy_whole(&origin, &copy)?;
            files.push(SavedFile {
                name,
                origin,
                sha256,
            });
        }
        let saved = Saved {
            name: name.to_owned(),
            version: go.version.clone(),
            saved: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            root: go
                .toolchain
                .as_ref()
                .map(|toolchain| toolchain.root.clone()),
            files,
        };
        let about = serde_json::to_string_pretty(&saved)
            .map_err(|error| Cause::new(format!("cannot describe what is saved: {error}")))?;
        cache::write(&scratch.path().join(ABOUT), about.as_bytes())?;
        // All of it appears at once.
        fs::rename(scratch.keep(), &directory).map_err(|error| unwritable(&directory, &error))?;
        Ok(saved)
    }

    /// All saved compilers, by name.
    pub fn list(&self) -> Vec<Saved> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Saved> = names.filter_map(|name| self.look(&name).ok()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is saved under a name, as it was saved.
    ///
    /// Errors: nothing is, or its files are no longer what they were.
    pub fn find(&self, name: &str) -> Result<Saved, Cause> {
        let saved = self.look(name)?;
        for file in &saved.files {
            let copy = self.directory(name).join(&file.name);
            if cache::sha256(&copy).ok().as_ref() != Some(&file.sha256) {
                let cause = Cause::new(format!("{} is not what was saved", copy.display()));
                return Err(cause.cure(format!(
                    "rm -r {}, and save it again",
                    self.directory(name).display()
                )));
            }
        }
        Ok(saved)
    }

    /// The compiler's file of what is saved under a name.
    pub fn compiler(&self, saved: &Saved) -> PathBuf {
        let first = saved.files.first();
        self.directory(&saved.name)
            .join(first.map_or("compile", |file| &file.name))
    }

    /// Puts the files of a saved compiler back to where they were, or into the tool directory of
    /// another toolchain, and gives where they went.
    ///
    /// Errors: nothing is saved under this name, or they cannot be written.
    pub fn restore(&self, name: &str, to: Option<&Go>) -> Result<Vec<PathBuf>, Cause> {
        let saved = self.find(name)?;
        let tools = to
            .map(|go| go.toolchain().map(|toolchain| &toolchain.tools))
            .transpose()?;
        let mut restored = Vec::new();
        for file in &saved.files {
            let place = match tools {
                Some(tools) => tools.join(&file.name),
                None => file.origin.clone(),
            };
            // Beside it first: the one that is replaced may be running.
            let beside = place.with_file_name(format!(".{}.restored", file.name));
            let written = copy_whole(&self.directory(name).join(&file.name), &beside);
            let moved = written.and_then(|_| {
                fs::rename(&beside, &place).map_err(|error| unwritable(&place, &error))
            });
            if let Err(cause) = moved {
                // What is left of the copy is worth nothing.
                let _ = fs::remove_file(&beside);
                return Err(cause);
            }
            restored.push(place);
        }
        Ok(restored)
    }

    fn look(&self, name: &str) -> Result<Saved, Cause> {
        let unknown = || {
            let cause = Cause::new(format!("no compiler is saved as {name}"));
            cause.cure("poise identical --saved lists them")
        };
        let text = fs::read(self.directory(name).join(ABOUT)).map_err(|_| unknown())?;
        serde_json::from_slice(&text).map_err(|_| unknown())
    }
}

/// Copies a program and gives the hash of the copy.
fn copy_whole(from: &Path, to: &Path) -> Result<String, Cause> {
    fs::copy(from, to).map_err(|error| unwritable(to, &error))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(to, executable).map_err(|error| unwritable(to, &error))?;
    cache::sha256(to).map_err(|error| Cause::new(format!("cannot read {}: {error}", to.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(file: &Path) -> Compiler {
        Compiler::Go(Box::new(Go {
            compile: file.to_owned(),
            version: "go1.24.11".to_owned(),
            sha256: String::new(),
            toolchain: None,
        }))
    }

    #[test]
    fn a_saved_compiler_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("compile");
        fs::write(&file, "clean").unwrap();
        let shelf = Shelf::at(directory.path().join("shelf"));
        assert_eq!(shelf.list(), []);
        let saved = shelf.save("clean", &compiler(&file)).unwrap();
        assert_eq!(shelf.list(), std::slice::from_ref(&saved));
        assert!(
            shelf
                .save("clean", &compiler(&file))
                .unwrap_err()
                .why
                .contains("already")
        );
        for bad in ["", "..", "a/b", ".hidden"] {
            let cause = shelf.save(bad, &compiler(&file)).unwrap_err();
            assert!(cause.why.contains("cannot be the name"), "{cause}");
        }
        fs::write(&file, "changed").unwrap();
        assert_eq!(fs::read(shelf.compiler(&saved)).unwrap(), b"clean");
        let restored = shelf.restore("clean", None).unwrap();
        assert_eq!(restored, std::slice::from_ref(&file));
        assert_eq!(fs::read(&file).unwrap(), b"clean");
        fs::write(shelf.compiler(&saved), "tampered").unwrap();
        let cause = shelf.find("clean").unwrap_err();
        assert!(cause.why.contains("not what was saved"), "{cause}");
        assert!(
            shelf
                .find("other")
                .unwrap_err()
                .why
                .contains("no compiler is saved")
        );
    }
}
