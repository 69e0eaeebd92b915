//! The benchmarks of Go's compilebench: names and packages. Never compiles.

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

/// Benchmarks of compilebench that are none here, and why.
pub const OTHERS: [(&str, &str); 6] = [
    ("LinkCompiler", LINKER),
    ("ExternalLinkCompiler", LINKER),
    ("LinkWithoutDebugCompiler", LINKER),
    (
        "StdCmd",
        "it measures the go command with all its tools; poise ab compares 'go build -a std cmd' of two toolchains",
    ),
    (
        "HelloSize",
        "it measures a linked program, of test/helloworld.go, which released toolchains do not have",
    ),
    ("CmdGoSize", "it measures a linked program"),
];

const LINKER: &str = "it measures the linker";
