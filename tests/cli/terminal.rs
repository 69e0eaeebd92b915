//! On a terminal: progress while it runs, ^C from the keyboard, and a command that owns the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;

use crate::common::{Descendant, eventually, poise, scratch, words};
use crate::raw;

/// A program on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: std::thread::JoinHandle<String>,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let pty = openpty(None, None).unwrap();
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(slave()).stdout(slave()).stderr(slave());
        command.env("TERM", "xterm");
        raw::own_terminal(&mut command);
        let child = command.spawn().unwrap();
        drop((command, pty.slave));
        let keyboard = File::from(pty.master);
        let mut master = keyboard.try_clone().unwrap();
        let screen = std::thread::spawn(move || {
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            // It ends with EIO when nobody holds the other side any more.
            while let Ok(got @ 1..) = master.read(&mut buffer) {
                text.extend_from_slice(&buffer[..got]);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        Terminal {
            child,
            keyboard,
            screen,
        }
    }

    /// The exit code, and all that was on the screen.
    fn wait(mut self) -> (Option<i32>, String) {
        let status = eventually("the end of a process", || self.child.try_wait().unwrap());
        drop(self.keyboard);
        (status.code(), self.screen.join().unwrap())
    }
}

#[test]
fn progress_is_shown_and_wiped() {
    let mut command = poise();
    command.args(words("stat -r 40 -e dummy -- sleep 0.02"));
    let (code, screen) = Terminal::start(command).wait();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("/40"), "{screen:?}");
    assert!(screen.contains("sleep_0.02 (40 runs)"), "{screen:?}");

    let mut command = poise();
    command.args(words("stat -r 2 -e dummy -- sleep 0.4"));
    let (code, screen) = Terminal::start(command).wait();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("0/2"), "{screen:?}");
    assert!(
        !screen.contains("0/2 eta"),
        "nothing to tell it from: {screen:?}"
    );

    let mut command = poise();
    command.args(words("stat -q -r 5 -e dummy -- sleep 0.02"));
    let (code, screen) = Terminal::start(command).wait();
    assert_eq!((code, screen.as_str()), (Some(0), ""));
}

#[test]
fn the_keyboard_interrupts_the_command_and_us() {
    let directory = scratch();
    for options in ["-e dummy", "-e dummy -r 3"] {
        let file = directory.path().join("child");
        let _ = std::fs::remove_file(&file);
        let mut command = poise();
        command.arg("stat").args(words(options));
        let script = "echo $$ > $0; exec sleep 1000";
        command.args(["--", "sh", "-c", script]).arg(&file);
        let mut terminal = Terminal::start(command);
        let child = Descendant::told_in(&file);
        terminal.keyboard.write_all(b"\x03").unwrap();
        let (code, screen) = terminal.wait();
        assert_eq!(code, Some(130), "{screen}");
        child.must_go();
    }
}

#[test]
fn an_interactive_command_owns_the_terminal() {
    let mut command = poise();
    command
        .args(words("stat -q -- sh -c"))
        .arg("read word; echo heard $word");
    let mut terminal = Terminal::start(command);
    terminal.keyboard.write_all(b"us\n").unwrap();
    let (code, screen) = terminal.wait();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("heard us"), "{screen:?}");
}
