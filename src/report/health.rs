//! Turns the health that running firmware reports into text: what a failed self-test or a restart means, and which
//! versions are incompatible. The texts for each part are in [`crate::crazyflie::symptoms`].

use crate::crazyflie::Release;
use crate::crazyflie::console::{Health, Module, RadioChip};
use crate::crazyflie::symptoms::{describe_crash, failed_parts, remedy};

/// Explains a failed self-test and its remedy. Returns `None` if the self-test did not fail.
pub(crate) fn self_test_failed(health: &Health) -> Option<String> {
    let module = health.failed_module()?;
    let crash = health
        .crash
        .as_ref()
        .filter(|_| *module == Module::LastRun)
        .map(|it| format!(" ({})", describe_crash(it)));
    let crash = crash.unwrap_or_default();
    Some(format!(
        "The firmware is running, but its self-test failed: {}{crash}. The drone will not fly. {}",
        failed_parts(health),
        remedy(module)
    ))
}

/// Returns advice for a drone that restarts by itself after a flash.
pub(crate) fn advice_if_restarting(health: &Health) -> String {
    match &health.crash {
        None => "The Crazyflie keeps restarting. Its firmware stops at startup, usually because it cannot find a sensor or a \
                 deck. Take off the decks, then switch the drone off and on. If that does not help, undo the flash."
            .to_owned(),
        Some(it) => format!(
            "The Crazyflie restarted because its firmware stopped with an error ({}). Take off the decks, then \
             switch the drone off and on. If it happens again, undo the flash and report the error to the author of the \
             firmware.",
            describe_crash(it)
        ),
    }
}

/// Advice for a drone whose firmware answers but has not reported its self-test verdict.
pub(crate) const UNPROVEN: &str = "It has not reported the result of its self-test, so watch its LEDs before you fly. If M1 blinks red five times, or \
    both blue LEDs stay lit and nothing else happens, take off the decks, and switch the drone off and on.";

/// The result if the user skipped the wait for the self-test, or unplugged the drone.
pub(crate) const NOT_WATCHED: &str = "Your Crazyflie has started. cfdfu did not see its self-test finish, so look at its \
    LEDs before you fly.";

/// Advice for a drone that is on USB but whose firmware does not answer.
pub(crate) const SILENT: &str = "The Crazyflie is on USB again, but its firmware does not answer. If both blue LEDs stay lit and \
    nothing else happens, its firmware is stuck at startup: take off the decks, and switch the drone off and on. If that does not \
    help, flash another release.";

/// Explains what is wrong with the radio chip, or with the combination of its version and this firmware version.
/// Returns `None` if no problem is known.
pub(crate) fn radio_chip(chip: &RadioChip, firmware: Option<&str>) -> Option<String> {
    match chip {
        RadioChip::Unknown => None,
        RadioChip::Silent => Some(
            "The radio chip has not reported its version: it does not answer, or its firmware is from before 2022. Update it \
             over radio with cfclient. USB cannot reach it."
                .to_owned(),
        ),
        RadioChip::Runs(version) => {
            let is_older = Release::of(version)? < Release::NEEDS_SOFTDEVICE;
            let needs_newer = Release::of(firmware?)? >= Release::NEEDS_SOFTDEVICE;
            (is_older && needs_newer).then(|| {
                format!(
                    "The radio chip runs {version}, which is too old for this firmware: from 2024.2 on, both chips must be \
                     updated. Install the release .zip over radio with cfclient. USB cannot reach the radio chip."
                )
            })
        }
    }
}

/// Returns a warning if firmware of this version cannot enter DFU mode by itself.
pub(crate) fn warn_without_entry(version: &str) -> Option<String> {
    (Release::of(version)? < Release::ENTERS_DFU).then(|| {
        format!("{version} cannot enter DFU mode by itself: to flash the drone over USB again, you will need its button")
    })
}
