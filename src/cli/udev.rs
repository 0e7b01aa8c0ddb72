//! `cfdfu udev`: prints the rules that let a user use a Crazyflie without root, or puts them where udev finds
//! them. A file that exists is never changed.

use std::fs;
use std::path::Path;

use super::console::Console;
use super::output_file::Output;
use crate::doctor::UDEV_RULES;
use crate::report::{Exit, Problem, ProblemKind};
use crate::sys::symptoms;

/// Before 73, as `uaccess` needs.
const FILE: &str = "/etc/udev/rules.d/70-cfdfu.rules";
const RELOAD: &str = "Now, as root: `udevadm control --reload`, then plug the drone in again. For the group: `groupadd -f \
    plugdev`, `usermod -a -G plugdev USER`, and log in again (over SSH only the group counts).";

pub(super) fn udev(install: bool, console: &mut Console) -> Result<Exit, Problem> {
    if !install {
        return super::print(console, UDEV_RULES);
    }
    match fs::read_to_string(FILE) {
        Ok(there) if there == UDEV_RULES => {
            console.line(&format!("{FILE} is there already."));
            console.line(RELOAD);
            return Ok(Exit::Done);
        }
        Ok(_) => {
            let advice = format!("It is not changed. Look at it, or remove it: rm {FILE}");
            let message = format!("{FILE} exists and holds something else");
            return Err(Problem::new(Exit::CannotCreate, ProblemKind::RulesExist, &message).advise(&advice));
        }
        Err(_) => {}
    }
    if let Err(error) = fs::metadata("/etc/udev/rules.d") {
        let message = format!("there is no /etc/udev/rules.d: {error}");
        return Err(Problem::new(Exit::CannotCreate, ProblemKind::NoUdev, &message)
            .advise("This system has no udev."));
    }
    let written =
        Output::create(Path::new(FILE), false).and_then(|output| output.write(UDEV_RULES.as_bytes()));
    written.map_err(|problem| {
        if symptoms::is_root() {
            return problem;
        }
        let advice = "It takes root: sudo cfdfu udev --install";
        Problem::new(Exit::NoPermission, ProblemKind::NoPermission, &problem).advise(advice)
    })?;
    console.line(&format!("{FILE} is written."));
    console.line(RELOAD);
    Ok(Exit::Done)
}
