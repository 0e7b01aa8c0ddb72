//! Tests the completion scripts by pressing Tab in real shells: a script may look right and still complete nothing.
#![cfg(unix)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::CommandBuilder;

use crate::cli::Folder;
use crate::pty::{Session, TIMEOUT};
use crate::support::find_program;

/// The text typed before Tab, and the text that the screen must show afterwards.
const COMPLETED: &[(&str, &str)] = &[
    ("cfdfu res", "restore-bootloader"),
    ("cfdfu flash --no-u", "--no-undo"),
    ("cfdfu flash images/bu", "images/build.bin"),
    ("cfdfu udev --ins", "--install"),
    ("cfdfu list --demo=over", "--demo=overwritten"),
    ("cfdfu simulate wro", "wrong-board"),
    ("cfdfu completions el", "elvish"),
];
/// The text typed before Tab, and the text that the screen must not show afterwards: commands and options that are
/// hidden from the help are not completed either.
const HIDDEN: &[(&str, &str)] = &[("cfdfu demo-im", "demo-image"), ("cfdfu list --demo-f", "--demo-fast")];

/// Starts a shell and loads the completions. Returns the session at the prompt, or `None` if the shell is not
/// installed.
fn start_shell(name: &str, arguments: &[&str], setup: &str) -> Option<Session> {
    let program = find_program(name)?;
    let folder = Folder::new();
    folder.write_file("_cfdfu", folder.cfdfu(&format!("completions {name}")).run().success());
    fs::create_dir(folder.path("images")).unwrap();
    folder.write_file("images/build.bin", "");
    let mut command = CommandBuilder::new(program);
    command.args(arguments);
    command.cwd(folder.0.path());
    for (name, value) in [("HOME", "."), ("TERM", "xterm"), ("PS1", "ready> "), ("LC_ALL", "C.UTF-8")] {
        command.env(name, value);
    }
    let mut session = Session::spawn(command, folder.0);
    session.press(setup);
    // The quotes make the command's output differ from the echo of the typed command.
    session.press("echo lo''aded\n");
    session.wait_for("loaded");
    Some(session)
}

/// Types `typed` and presses Tab. Returns the screen once it shows `words` or has not changed for a second.
fn press_tab(session: &mut Session, typed: &str, words: &str) -> String {
    // Ctrl-U clears the line, and Ctrl-L clears the screen.
    session.press("\u{15}\u{c}");
    session.press(typed);
    session.wait_for(typed);
    session.press("\t");
    let mut screen = session.screen();
    let mut last_change = Instant::now();
    let start = last_change;
    while !screen.contains(words)
        && last_change.elapsed() < Duration::from_secs(1)
        && start.elapsed() < TIMEOUT
    {
        thread::sleep(Duration::from_millis(20));
        let now = session.screen();
        if now != screen {
            (screen, last_change) = (now, Instant::now());
        }
    }
    screen
}

fn check_completions(name: &str, arguments: &[&str], setup: &str) {
    let Some(mut session) = start_shell(name, arguments, setup) else { return };
    for (typed, words) in COMPLETED {
        let screen = press_tab(&mut session, typed, words);
        assert!(screen.contains(words), "{name}: {typed:?} and Tab do not show {words:?}:\n{screen}");
    }
    for (typed, words) in HIDDEN {
        let screen = press_tab(&mut session, typed, words);
        assert!(!screen.contains(words), "{name}: {typed:?} and Tab show {words:?}:\n{screen}");
    }
}

#[test]
fn bash_completes_commands_options_files_and_scenarios() {
    check_completions("bash", &["--norc", "--noprofile", "-i"], "source ./_cfdfu\n");
}

#[test]
fn zsh_completes_commands_options_files_and_scenarios() {
    check_completions("zsh", &["-f", "-i"], "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D\n");
}

#[test]
fn fish_completes_commands_options_files_and_scenarios() {
    check_completions("fish", &["--no-config", "-i"], "source ./_cfdfu\n");
}
