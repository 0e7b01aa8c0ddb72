//! Generates the manual page that `cfdfu man` prints, from the definition of the command line.
//!
//! A single page can be read offline from top to bottom. clap_mangen would produce one page per command and has no
//! sections for files, keys and JSON.

use std::fmt::Write;

use clap::{Arg, Command};

use super::args::{EXAMPLES, EXIT_STATUS};
use crate::sim::scenario::SCENARIOS;

const DESCRIPTION: &str = "\
Flashes the STM32F405 of a Bitcraze Crazyflie over USB. It works on a running drone, on a drone that no longer boots, \
and on a drone whose bootloader was overwritten. Without a command, it opens a terminal interface that guides you \
through each step.";

const SETTINGS: &str = "\
Settings, all optional: glyphs (\"unicode\", \"cp437\" or \"ascii\"), color (\"always\" or \"never\"), theme \
(\"auto\", \"dark\" or \"light\": the background of your terminal), images (the folder where the file picker \
starts), logs (the number of job logs to keep, 50 by default), and source in the section \
[releases] (a folder made by cfdfu fetch --to, instead of the network). cfdfu never writes to this file.";

/// The paths on Linux and, in the last entry, on the other systems, as determined by the `directories` crate.
const FILES: [(&str, &str); 4] = [
    ("~/.config/cfdfu/config.toml", SETTINGS),
    ("~/.local/state/cfdfu", "The previous firmware for undo, recent images, logs and bug reports."),
    ("~/.cache/cfdfu/releases", "The releases that were fetched."),
    (
        "On macOS and Windows",
        "macOS: ~/Library/Application Support/cfdfu and, for releases, ~/Library/Caches/cfdfu. Windows: \
         %APPDATA%\\cfdfu\\config, %LOCALAPPDATA%\\cfdfu\\data and %LOCALAPPDATA%\\cfdfu\\cache.",
    ),
];

const ENVIRONMENT: [(&str, &str); 6] = [
    ("NO_COLOR", "If set and not empty, disables colour unless --color always is given."),
    ("TERM", "linux: use only characters in the console fonts. dumb: use the line-by-line interface."),
    ("LC_ALL, LC_CTYPE, LANG", "Without UTF-8, the interface is drawn in ASCII."),
    ("XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME", "Replace ~/.config, ~/.local/state and ~/.cache."),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "The proxy for fetching releases, and the hosts that need no proxy.",
    ),
    ("GITHUB_TOKEN", "A token that raises GitHub's limit on the number of requests."),
];

const KEYS: &str = "\
The bottom of every screen shows the available keys; ? lists all of them. f flashes, r guides you when a drone does \
not start, b restores the bootloader, i chooses a file, u undoes the last flash, d opens the doctor, l opens the log, \
t tries again, q quits. Arrows or j and k move, Enter starts, w writes what the plan shows, Esc goes back.";

const JSON: &str = "\
With --json, every command prints one object per line on standard output. The last object is the result event: its \
outcome is flashed, unchanged, failed or cancelled, and its error is null or has kind (a word for scripts), message \
and advice. For station and with --all, each drone has its own result, and the last object is a batch event with the \
totals. docs/json.md lists all events.";

/// The date on which the text of this page was last changed.
const DATE: &str = "2026-12-01";

/// Generates the page in man(7) format.
pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, ".TH CFDFU 1 {DATE} \"cfdfu {version}\" \"User Commands\"");
    let _ = writeln!(page, ".SH NAME\ncfdfu \\- {}", escape(&about));
    page += ".SH SYNOPSIS\n.B cfdfu\n[OPTIONS] [IMAGE]\n.br\n.B cfdfu\nCOMMAND [OPTIONS] ...\n";
    let _ = writeln!(page, ".SH DESCRIPTION\n{}", escape(DESCRIPTION));
    page += ".SH GLOBAL OPTIONS\n";
    let is_global = |arg: &&Arg| !arg.is_positional() && arg.get_id() != "version";
    command.get_arguments().filter(is_global).for_each(|arg| add_option(&mut page, arg));
    page += ".SH COMMANDS\n";
    for command in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        add_section(&mut page, command);
    }
    for (title, text) in [("KEYS", KEYS), ("JSON", JSON)] {
        let _ = writeln!(page, ".SH {title}\n{}", escape(text));
    }
    page += ".SH DEMO SCENARIOS\n";
    for scenario in SCENARIOS {
        add_entry(&mut page, scenario.name, scenario.description);
    }
    page += ".SH FILES\n";
    for (file, description) in FILES {
        add_entry(&mut page, file, description);
    }
    page += ".SH ENVIRONMENT\n";
    for (name, description) in ENVIRONMENT {
        add_entry(&mut page, name, description);
    }
    for (title, text) in [("EXAMPLES", EXAMPLES), ("EXIT STATUS", EXIT_STATUS)] {
        let lines = text.split_once('\n').map_or("", |(_, lines)| lines);
        let _ = writeln!(page, ".SH {title}\n.nf\n{}\n.fi", escape(lines));
    }
    page += ".SH SEE ALSO\n.BR dfu\\-util (1),\n.BR udev (7)\n";
    page
}

/// Appends a list entry: a name and its description.
fn add_entry(page: &mut String, name: &str, description: &str) {
    let _ = writeln!(page, ".TP\n.B {}\n{}", escape(name), escape(description));
}

/// Appends the section about a command, with the options that are not global.
fn add_section(page: &mut String, command: &Command) {
    let _ = write!(page, ".SS {}", escape(command.get_name()));
    for arg in command.get_positionals() {
        let name = value_name(arg);
        let name = if arg.is_required_set() { name } else { format!("[{name}]") };
        let _ = write!(page, " {}", escape(&name));
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "\n{}.", escape(&about));
    let is_own = |arg: &&Arg| !arg.is_global_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(is_own).for_each(|arg| add_option(page, arg));
    if let Some(text) = command.get_after_help() {
        let _ = writeln!(page, ".PP\n.nf\n{}\n.fi", escape(&text.to_string()));
    }
}

fn add_option(page: &mut String, arg: &Arg) {
    if arg.is_hide_set() {
        return;
    }
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let name = match (arg.get_long(), arg.get_action().takes_values()) {
        (None, _) => value_name(arg),
        (Some(long), false) => format!("{short}--{long}"),
        (Some(long), true) if arg.is_require_equals_set() => format!("{short}--{long}[={}]", value_name(arg)),
        (Some(long), true) => format!("{short}--{long} {}", value_name(arg)),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let choices: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !choices.is_empty() && !arg.is_hide_possible_values_set() {
        let _ = write!(help, ": {}", choices.join(", "));
    }
    add_entry(page, &name, &help);
}

/// Returns the placeholder for an argument's value.
fn value_name(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string)
}

/// Escapes text for man: backslashes, hyphens, and lines that man would interpret as requests.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line =
        |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    // One sentence per line, as man(7) recommends.
    text.replace(". ", ".\n").lines().map(line).collect::<Vec<_>>().join("\n")
}
