//! `cfdfu completions`: shell completion scripts, generated from the command line definition.
//!
//! clap_complete also completes hidden arguments, so they are removed first. The zsh, bash and fish scripts each need a
//! correction.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use super::args::Args;

/// Generates the completion script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut command = without_hidden(&Args::command());
    let mut script = Vec::new();
    if shell == Shell::Zsh {
        // zsh would treat the command as the positional IMAGE and complete nothing after the command.
        command = without_positionals(&command);
    }
    clap_complete::generate(shell, &mut command, "cfdfu", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script.replacen(PREVIOUS, SPLIT_AT_EQUALS, 1),
        Shell::Fish => script + &fish_positionals(&command),
        _ => script,
    }
}

/// The line of the bash script that reads the previous word.
const PREVIOUS: &str = "    prev=\"$3\"\n";
/// Bash splits words at `=`, so in `--demo=x` the previous word is `=`, not the option.
const SPLIT_AT_EQUALS: &str = r#"    prev="$3"
    if [[ "$cur" == "=" ]]; then
        cur=""
    elif [[ "$prev" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
"#;

/// Generates the completions for the values of positional arguments, which clap_complete omits for fish.
fn fish_positionals(command: &Command) -> String {
    let mut lines = String::new();
    for command in command.get_subcommands() {
        for value in command.get_positionals().flat_map(Arg::get_possible_values) {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default().replace('\'', "\\'");
            let (command, value) = (command.get_name(), value.get_name());
            let _ = writeln!(
                lines,
                "complete -c cfdfu -n \"__fish_cfdfu_using_subcommand {command}\" -f -a \"{value}\" -d '{help}'"
            );
        }
    }
    lines
}

/// Copies a command without its hidden arguments and subcommands.
fn without_hidden(command: &Command) -> Command {
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(without_hidden);
    copy_with(command, |arg| !arg.is_hide_set()).subcommands(commands)
}

fn without_positionals(command: &Command) -> Command {
    copy_with(command, |arg| !arg.is_positional()).subcommands(command.get_subcommands().cloned())
}

fn copy_with(command: &Command, keep: impl Fn(&&Arg) -> bool) -> Command {
    let mut new = Command::new(command.get_name().to_owned());
    if let Some(about) = command.get_about() {
        new = new.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        new = new.version(version.to_owned());
    }
    new.args(command.get_arguments().filter(keep).cloned())
}
