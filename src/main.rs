//! The binary's entry: hands over to the library's door and does nothing else.

fn main() -> std::process::ExitCode {
    counterpoise::cli::main()
}
