//! Builds the command line that is equivalent to the planned job, so that the user can copy it into a script.

use super::{App, ChosenFile, DEMO_IMAGE, Goal, Origin, Slot, overrides_for};
use crate::usb::descriptor::is_printable;

pub(crate) fn command_line(app: &App) -> String {
    let name = |slot: &Slot| slot.path().map(|path| quote(&path.display().to_string())).unwrap_or_default();
    let file = |slot: &Slot| match slot {
        // The demo's built-in images are not files. The demo uses them by default.
        slot if is_built_in(slot) => String::new(),
        Slot::Ready(ChosenFile { origin: Origin::Release { tag, platform, .. }, .. }, _) => {
            let board = platform.as_ref().map(|platform| format!(" --board {}", quote(platform)));
            format!(" --release {}{}", quote(tag), board.unwrap_or_default())
        }
        slot => format!(" {}", name(slot)),
    };
    let device = match app.devices.selected() {
        Some(device) if app.devices.list().len() > 1 => format!(" --device {}", device.location),
        _ => String::new(),
    };
    // A command copied from the demo must not flash a real drone.
    let demo = app.demo.as_ref().map(|demo| format!(" --demo={}", demo.scenario)).unwrap_or_default();
    let device = if app.batch().is_some() { " --all".to_owned() } else { device } + &demo;
    match app.goal {
        _ if app.backup_replacing(app.goal.file()).is_some() => {
            let changed = app.preview().is_some_and(|preview| preview.changed_since);
            format!("cfdfu undo{}{device}", if changed { " --allow-mismatch" } else { "" })
        }
        Goal::Restore => {
            let firmware = app.firmware_of_restore().map(|_| format!(" --firmware {}", name(&app.image)));
            // Only a file can be passed as the firmware.
            let first = if is_built_in(&app.image) && firmware.is_some() {
                format!("cfdfu demo-image {DEMO_IMAGE} && ")
            } else {
                String::new()
            };
            let firmware = firmware.unwrap_or_default();
            format!("{first}cfdfu restore-bootloader{}{firmware}{device}", file(&app.loader))
        }
        Goal::Flash | Goal::Recover => {
            let unknown_board = app.preview().is_some_and(|preview| !preview.board.is_passed());
            let mismatch =
                unknown_board || app.image.image().is_some_and(|image| overrides_for(image).allow_mismatch);
            let mismatch = if mismatch { " --allow-mismatch" } else { "" };
            format!("cfdfu flash{}{mismatch}{device}", file(&app.image))
        }
    }
}

fn is_built_in(slot: &Slot) -> bool {
    matches!(slot, Slot::Ready(ChosenFile { origin: Origin::BuiltIn, .. }, _))
}

/// Quotes a path, or the tag or platform of a release, for a shell.
fn quote(path: &str) -> String {
    match shlex::try_quote(path) {
        // Without the prefix, the command would parse this path as an option.
        _ if path.starts_with('-') => quote(&format!("./{path}")),
        Ok(word) if path.chars().all(is_printable) => word.into_owned(),
        // A path with unprintable characters cannot be copied. Show a placeholder instead.
        _ => "IMAGE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_path_is_quoted_as_one_shell_word() {
        for (path, word) in [
            ("build/cf2.bin", "build/cf2.bin"),
            ("my drone.bin", "'my drone.bin'"),
            ("it's; rm -rf $HOME", r#""it's; rm -rf "'$HOME'"#),
            ("~/cf2.bin", "'~/cf2.bin'"),
            ("-n.bin", "./-n.bin"),
            ("\u{1b}[2J.bin", "IMAGE"),
            ("two\nlines", "IMAGE"),
        ] {
            assert_eq!(quote(path), word);
        }
    }
}
