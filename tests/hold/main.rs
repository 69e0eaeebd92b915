//! Faults while the machine is held: whoever is killed when, the settings come back and the lock is free. Runs on fake trees everywhere, and on the real machine where there is a cpufreq to hold.
//!
//! A harness of its own: the keeper is this program executed anew, as is the victim, which is
//! traced so that it can be killed at any one of the system calls that it makes.

#![allow(clippy::print_stdout)]

mod machine;
mod partition;
mod real;
mod trace;
mod tree;

use std::os::fd::AsFd;
use std::time::Duration;
use std::{env, io, process};

use counterpoise::machine::Roots;
use counterpoise::machine::facts::CpuList;
use counterpoise::machine::hold::lock::{Refusal, Sharing};
use counterpoise::machine::hold::{Frequency, Hold, Wish, keeper};

const VICTIM: &str = "__victim";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [keeper::VERB, roots] => process::exit(keeper::serve(roots).is_err().into()),
        [VICTIM, roots, how] => return victim(&serde_json::from_str(roots).unwrap(), how),
        _ => {}
    }
    let filters: Vec<&str> = words
        .into_iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let tests: Vec<(&str, fn())> = [tree::TESTS, real::TESTS, partition::TESTS].concat();
    let (mut passed, mut failed) = (0u32, 0u32);
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter)) {
            continue;
        }
        let ok = std::panic::catch_unwind(test).is_ok();
        *(if ok { &mut passed } else { &mut failed }) += 1;
        println!("test {name} ... {}", word(ok));
    }
    let ok = word(failed == 0);
    println!("\ntest result: {ok}. {passed} passed; {failed} failed; 0 ignored");
    process::exit((failed > 0).into());
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "FAILED" }
}

/// Holds the machine and lets it go, once its standard input is closed.
fn victim(roots: &Roots, how: &str) {
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    let mut hold = hold(roots).unwrap();
    hold.set_apart(&CpuList::from_iter([1]));
    match how {
        "panic" => panic!("as it was told to"),
        "stay" => std::thread::sleep(Duration::from_secs(60)),
        _ => {}
    }
    for complaint in hold.end() {
        println!("{complaint}");
    }
}

/// Holds `roots`, waiting for nobody.
fn hold(roots: &Roots) -> Result<Hold, Refusal> {
    let wish = Wish {
        sharing: Sharing::Exclusive,
        patience: Some(Duration::ZERO),
        frequency: Frequency::Usual,
    };
    let (stop, _never) = io::pipe().unwrap();
    Hold::begin(roots, wish, stop.as_fd(), &mut |_| {})
}
