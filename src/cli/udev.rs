//! `cfdfu udev`: prints or installs the udev rules that give access to a Crazyflie without root. An existing file is
//! never changed.

use std::fs;
use std::path::Path;

use super::console::Console;
use super::output_file::Output;
use crate::doctor::UDEV_RULES;
use crate::report::{Exit, Problem, ProblemKind};
use crate::sys::symptoms;

/// Printed if udev is missing.
pub(super) const NO_UDEV: &str = if cfg!(target_os = "linux") {
    "This system has no udev, so run cfdfu as root."
} else {
    "Only Linux has udev."
};
/// The number must be below 73, because systemd applies `uaccess` tags in 73-seat-late.rules.
const FILE: &str = "/etc/udev/rules.d/70-cfdfu.rules";
const RELOAD: &str = "Next, run `udevadm control --reload` as root and plug the drone in again. To use it over SSH, you \
    must also be in the plugdev group: run `groupadd -f plugdev` and `usermod -a -G plugdev USER` as root, \
    then log in again.";

pub(super) fn udev(install: bool, console: &mut Console) -> Result<Exit, Problem> {
    if !install {
        return super::print(console, UDEV_RULES);
    }
    match fs::read_to_string(FILE) {
        Ok(existing) if existing == UDEV_RULES => {
            console.line(&format!("{FILE} is already installed."));
            console.line(RELOAD);
            return Ok(Exit::Done);
        }
        Ok(_) => {
            let advice = format!(
                "cfdfu does not change an existing file. If you do not need that file, run `sudo rm {FILE}`, then \
                 `sudo {} udev --install`.",
                symptoms::sudo_command()
            );
            let message = format!("{FILE} exists with different content");
            return Err(Problem::new(Exit::CannotCreate, ProblemKind::RulesExist, &message).advise(&advice));
        }
        Err(_) => {}
    }
    if !symptoms::has_udev() {
        let message = "cannot find a folder for udev rules";
        return Err(Problem::new(Exit::CannotCreate, ProblemKind::NoUdev, message).advise(NO_UDEV));
    }
    // If this fails, the file cannot be written, and that error is reported.
    let _ = Path::new(FILE).parent().map(fs::create_dir_all);
    let written =
        Output::create(Path::new(FILE), false).and_then(|output| output.write(UDEV_RULES.as_bytes()));
    written.map_err(|problem| {
        if symptoms::is_root() {
            return problem;
        }
        let program = symptoms::sudo_command();
        let advice = format!("Installing the rules requires root: run `sudo {program} udev --install`.");
        Problem::new(Exit::NoPermission, ProblemKind::NoPermission, &problem).advise(advice)
    })?;
    console.line(&format!("Installed {FILE}."));
    console.line(RELOAD);
    Ok(Exit::Done)
}
