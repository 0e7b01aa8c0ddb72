//! `cfdfu completions`: a script for each shell, from the definition of the command line without what is hidden.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use super::args::Args;

/// The completions of this shell.
pub(super) fn script(shell: Shell) -> String {
    let mut command = visible(&Args::command());
    let mut script = Vec::new();
    if shell == Shell::Zsh {
        // With a positional argument beside the commands, zsh takes the command for it and completes nothing behind.
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

/// Where the script for bash takes the word before the cursor's.
const PREVIOUS: &str = "    prev=\"$3\"\n";
/// Bash splits words at `=`, so in `--demo=x` the word before is not the option.
const SPLIT_AT_EQUALS: &str = r#"    prev="$3"
    if [[ "$cur" == "=" ]]; then
        cur=""
    elif [[ "$prev" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
"#;

/// The values of arguments without a name, which the generator for fish leaves out.
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

/// The command with its visible arguments and commands only: generators print also what help hides.
fn visible(command: &Command) -> Command {
    let commands = command.get_subcommands().filter(|it| !it.is_hide_set()).map(visible);
    rebuilt(command, |arg| !arg.is_hide_set()).subcommands(commands)
}

fn without_positionals(command: &Command) -> Command {
    rebuilt(command, |arg| !arg.is_positional()).subcommands(command.get_subcommands().cloned())
}

fn rebuilt(command: &Command, keep: impl Fn(&&Arg) -> bool) -> Command {
    let mut new = Command::new(command.get_name().to_owned());
    if let Some(about) = command.get_about() {
        new = new.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        new = new.version(version.to_owned());
    }
    new.args(command.get_arguments().filter(keep).cloned())
}
