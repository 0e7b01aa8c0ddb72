//! The manual page, from the definition of the command line: one page for everything, since somebody without a network
//! reads it from top to bottom. clap_mangen makes a page a command, and has no place for files, keys and JSON.

use std::fmt::Write;

use clap::{Arg, Command};

use super::args::{EXAMPLES, EXIT_STATUS};
use crate::sim::scenario::SCENARIOS;

const DESCRIPTION: &str = "\
Flashes the STM32F405 of a Bitcraze Crazyflie over USB: a drone that runs, one that no longer boots, or one whose bootloader \
was overwritten. Without a command it opens an interface in the terminal, which leads through all of it.";

const SETTINGS: &str = "\
Settings, all optional: glyphs (\"unicode\", \"cp437\" or \"ascii\"), color (\"always\" or \"never\"), images (the folder in \
which files are chosen), logs (how many logs of runs are kept, 50 if not set). The program never writes this file.";

/// Places as they are on Linux; `directories` knows the others.
const FILES: [(&str, &str); 3] = [
    ("~/.config/cfdfu/config.toml", SETTINGS),
    ("~/.local/state/cfdfu", "Copies for undo, recent images, logs, bug reports."),
    (
        "On macOS and Windows",
        "Both are in ~/Library/Application Support/cfdfu, and in %APPDATA%\\cfdfu and %LOCALAPPDATA%\\cfdfu.",
    ),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("NO_COLOR", "If set and not empty, no colour is used, unless --color always is given."),
    ("TERM", "linux: characters of the console's fonts. dumb: the interface in lines."),
    ("LC_ALL, LC_CTYPE, LANG", "Without UTF-8, the screen is drawn in ASCII."),
    ("XDG_CONFIG_HOME, XDG_STATE_HOME", "Instead of ~/.config and ~/.local/state."),
];

const KEYS: &str = "\
The keys that work are at the bottom of every screen; ? lists all of them. f flashes, r leads a drone that does not start \
into DFU mode, b restores the bootloader, i chooses a file, u undoes the last flash, d opens the doctor, l the log, q \
quits. Arrows or h, j, k, l move, Enter starts, w writes what the plan shows, Esc goes back.";

const JSON: &str = "\
With --json every command prints one object per line on standard output and ends in one object whose event is result. Its \
outcome is flashed, unchanged, failed or cancelled; error is null or has kind (a word for scripts), message and advice. \
The other events are device, image, board, plan, progress, log, check, scenario and text.";

/// Of the last change of the page's own words.
const DATE: &str = "2026-11-24";

/// The page in the language of man(7).
pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = String::new();
    let version = command.get_version().unwrap_or_default();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, ".TH CFDFU 1 {DATE} \"cfdfu {version}\" \"User Commands\"");
    let _ = writeln!(page, ".SH NAME\ncfdfu \\- {}", plain(&about));
    page += ".SH SYNOPSIS\n.B cfdfu\n[OPTIONS] [IMAGE]\n.br\n.B cfdfu\nCOMMAND [OPTIONS] ...\n";
    let _ = writeln!(page, ".SH DESCRIPTION\n{}", plain(DESCRIPTION));
    page += ".SH OPTIONS OF EVERY COMMAND\n";
    let of_all = |arg: &&Arg| !arg.is_positional() && arg.get_id() != "version";
    command.get_arguments().filter(of_all).for_each(|arg| option(&mut page, arg));
    page += ".SH COMMANDS\n";
    for command in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        section(&mut page, command);
    }
    for (title, text) in [("KEYS OF THE INTERFACE", KEYS), ("JSON", JSON)] {
        let _ = writeln!(page, ".SH {title}\n{}", plain(text));
    }
    page += ".SH SCENARIOS OF THE DEMO\n";
    for scenario in SCENARIOS {
        entry(&mut page, scenario.name, scenario.what);
    }
    page += ".SH FILES\n";
    for (file, what) in FILES {
        entry(&mut page, file, what);
    }
    page += ".SH ENVIRONMENT\n";
    for (name, what) in ENVIRONMENT {
        entry(&mut page, name, what);
    }
    for (title, text) in [("EXAMPLES", EXAMPLES), ("EXIT STATUS", EXIT_STATUS)] {
        let lines = text.split_once('\n').map_or("", |(_, lines)| lines);
        let _ = writeln!(page, ".SH {title}\n.nf\n{}\n.fi", plain(lines));
    }
    page += ".SH SEE ALSO\n.BR dfu\\-util (1),\n.BR udev (7)\n";
    page
}

/// A row of a list: a name, and what it is.
fn entry(page: &mut String, name: &str, what: &str) {
    let _ = writeln!(page, ".TP\n.B {}\n{}", plain(name), plain(what));
}

/// What one command does, with the options that only some have.
fn section(page: &mut String, command: &Command) {
    let _ = write!(page, ".SS {}", plain(command.get_name()));
    for arg in command.get_positionals() {
        let name = value(arg);
        let name = if arg.is_required_set() { name } else { format!("[{name}]") };
        let _ = write!(page, " {}", plain(&name));
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "\n{}.", plain(&about));
    let own = |arg: &&Arg| !arg.is_global_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(own).for_each(|arg| option(page, arg));
    if let Some(text) = command.get_after_help() {
        let _ = writeln!(page, ".PP\n.nf\n{}\n.fi", plain(&text.to_string()));
    }
}

fn option(page: &mut String, arg: &Arg) {
    if arg.is_hide_set() {
        return;
    }
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let name = match (arg.get_long(), arg.get_action().takes_values()) {
        (None, _) => value(arg),
        (Some(long), false) => format!("{short}--{long}"),
        (Some(long), true) if arg.is_require_equals_set() => format!("{short}--{long}[={}]", value(arg)),
        (Some(long), true) => format!("{short}--{long} {}", value(arg)),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let choices: Vec<_> = arg.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !choices.is_empty() && !arg.is_hide_possible_values_set() {
        let _ = write!(help, ": {}", choices.join(", "));
    }
    entry(page, &name, &help);
}

/// What stands for a value.
fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string)
}

/// Text that says nothing to man itself: no escape, no hyphen to break at, no line that is a request.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line =
        |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    // One sentence a line, as man pages have it.
    text.replace(". ", ".\n").lines().map(line).collect::<Vec<_>>().join("\n")
}
