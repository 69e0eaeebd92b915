//! The benchmarks of Go's compilebench: their names, what they compile, and what they link. Never compiles.

/// Benchmarks that compile one package.
pub const PACKAGES: [(&str, &str); 10] = [
    ("Template", "html/template"),
    ("Unicode", "unicode"),
    ("GoTypes", "go/types"),
    ("Compiler", "cmd/compile/internal/gc"),
    ("SSA", "cmd/compile/internal/ssa"),
    ("Flate", "compress/flate"),
    ("GoParser", "go/parser"),
    ("Reflect", "reflect"),
    ("Tar", "archive/tar"),
    ("XML", "encoding/xml"),
];

/// A benchmark that links one program.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The package of the program, or its file within a GOROOT.
    pub path: &'static str,
    /// Flags of the linker.
    pub flags: &'static [&'static str],
}

/// Benchmarks that link.
pub const PROGRAMS: [Program; 5] = [
    program("LinkCompiler", "cmd/compile", &[]),
    program("LinkWithoutDebugCompiler", "cmd/compile", &["-w"]),
    program(
        "ExternalLinkCompiler",
        "cmd/compile",
        &["-linkmode=external"],
    ),
    program("HelloSize", "test/helloworld.go", &[]),
    program("CmdGoSize", "cmd/go", &[]),
];

/// The benchmark that builds the standard library and all commands.
pub const STD_CMD: &str = "StdCmd";

const fn program(
    name: &'static str,
    path: &'static str,
    flags: &'static [&'static str],
) -> Program {
    Program { name, path, flags }
}
