//! Turns outcomes and failures into text for the user (what happened, what state the drone is in, what to do next) and
//! into exit statuses.
//!
//! Lower-level modules return error kinds. The advice for each kind is here, except for `doctor` checks and for
//! problems specific to the command line. [`mod@image`] covers problems with a file. This module does no I/O.

use std::time::Duration;

use crate::crazyflie::{Board, ENTER_BY_HAND, Protection, RelatedDevice, RomVersion, symptoms};
use crate::dfu::DfuError;
use crate::flash::{Address, FIRMWARE_BASE, LOADER_BASE, Segment, is_blank};
use crate::image::{Content, Loader};
use crate::job::{Boot, DeviceInfo, DroneState, Failure, FailureKind, Identity, Other, Outcome, Report};
use crate::usb::{CRAZYFLIE, TransferError};

mod health;
mod image;
mod problem;
pub(crate) mod qualify;
#[cfg(feature = "releases")]
mod releases;
mod right_file;

pub(crate) use health::radio_chip;
pub use image::image_error;
pub(crate) use image::{platform_change, refusal, warn_about_image, wrong_checksum};
pub(crate) use problem::{Advice, Problem, ProblemKind, Remedy};
#[cfg(feature = "releases")]
pub use releases::release_error;
pub(crate) use right_file::{RIGHT_LOADER, any_image, describe_image_for};

/// Exit statuses, based on sysexits.h; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// `verify` found a difference; `cmp` and `diff` use the same status.
    Differs = 1,
    /// Invalid command line.
    Usage = 2,
    /// The image was refused or is malformed.
    Image = 65,
    /// The image cannot be read or downloaded, or there is nothing to undo.
    NoInput = 66,
    /// No usable device was found, or several were found and none is selected.
    NoDevice = 69,
    /// A bug in cfdfu.
    Defect = 70,
    /// The output cannot be created or written.
    CannotCreate = 73,
    /// The device failed, for example with a USB error, a DFU error status, or wrong data after a write.
    Device = 74,
    /// Interrupted or cancelled; the job can be run again.
    Interrupted = 75,
    /// The image is on the drone, but the drone was not seen to start, keep running and pass its self-test, which
    /// `--require-boot` requires.
    NotRunning = 76,
    NoPermission = 77,
}

/// Returns the exit status of a finished job.
pub(crate) fn exit_status(report: &Report) -> Exit {
    match &report.outcome {
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => Exit::Done,
        Outcome::Cancelled(_) => Exit::Interrupted,
        Outcome::Failed(failure) => failure_problem(failure).exit,
    }
}

/// Describes the result of a job in one line.
pub(crate) fn headline(report: &Report) -> String {
    let (verdict, seconds) = (verdict(report), report.took.as_secs_f64());
    match (&report.outcome, figures(report)) {
        (Outcome::Cancelled(state), _) => format!("{verdict}. {}", drone_state(*state)),
        (Outcome::Failed(_), _) => verdict,
        (_, Some(figures)) => format!("{verdict}: {figures}, {seconds:.1} s"),
        (_, None) => format!("{verdict}, {seconds:.1} s"),
    }
}

/// Describes the result of a job in a few words, without figures.
pub(crate) fn verdict(report: &Report) -> String {
    match &report.outcome {
        Outcome::Flashed if report.verified => "Flashed and verified".to_owned(),
        Outcome::Flashed => "Flashed, not verified".to_owned(),
        Outcome::Unchanged => "Unchanged and verified".to_owned(),
        Outcome::Read(bytes) => format!("Read {}", count(bytes.len() as u64, "byte")),
        Outcome::Identified => "Nothing was changed".to_owned(),
        Outcome::Cancelled(_) => "Stopped".to_owned(),
        Outcome::Failed(failure) => failure.to_string(),
    }
}

/// Describes a failure without the name of the USB request that failed, which only the log shows.
pub(crate) fn failure_on_screen(failure: &Failure) -> String {
    let error = match &failure.kind {
        FailureKind::Dfu(error) => error.transfer(),
        _ => None,
    };
    match (error, &failure.place) {
        (Some(error), Some(place)) => format!("{place}: {error}"),
        _ => failure.to_string(),
    }
}

/// Describes how many bytes a flash wrote, or how many the drone already held.
pub(crate) fn figures(report: &Report) -> Option<String> {
    match &report.outcome {
        Outcome::Flashed => {
            let sectors = count(report.erased_sectors as u64, "sector");
            Some(format!("{} written, {sectors} erased", count(report.written, "byte")))
        }
        Outcome::Unchanged => Some(format!("the flash already holds all {}", count(report.bytes, "byte"))),
        _ => None,
    }
}

/// Describes what the drone does after a successful job, and what to do next; `None` if the job does not start the
/// drone.
pub(crate) fn describe_restart(report: &Report) -> Option<String> {
    let text = match (report.boot, &report.runs) {
        (Boot::NotAsked, _) => return None,
        (Boot::Restarts, _) => health::advice_if_restarting(&report.health),
        (Boot::StaysUp | Boot::NotWatched, _) if report.loader.is_some_and(Loader::is_missing) => {
            "Your Crazyflie is running for now, but it will not start when you switch it on again.".to_owned()
        }
        (Boot::StaysUp | Boot::NotWatched, _) if report.health.has_failed() => {
            health::self_test_failed(&report.health)?
        }
        (_, Some(version)) if report.runs_other => {
            format!(
                "A Crazyflie is running {version}, which is not what was just flashed. Is it the same drone?"
            )
        }
        (Boot::StaysUp, _) if report.health.is_silent() => health::SILENT.to_owned(),
        (Boot::StaysUp, Some(version)) if report.health.is_unproven() => {
            format!("Your Crazyflie is running {version}. {}", health::UNPROVEN)
        }
        (Boot::NotWatched, _) if report.health.is_unproven() => health::NOT_WATCHED.to_owned(),
        (_, Some(version)) => {
            let tested = if report.health.has_passed() { " and passed its self-test" } else { "" };
            let chip = radio_chip(&report.health.radio_chip, Some(version));
            let end = chip.unwrap_or_else(|| "Ready to fly!".to_owned());
            format!("Your Crazyflie is running {version}{tested}. {end}")
        }
        (Boot::StaysUp | Boot::NotWatched, None) => {
            "Your Crazyflie is running again. Ready to fly!".to_owned()
        }
        (Boot::NotSeen, None) => advice_if_not_seen(report).to_owned(),
    };
    Some(text)
}

/// Replaces the advice about a drone that was not seen to start, once it has started.
pub(crate) const STARTED_LATER: &str = "Your Crazyflie has started.";

/// Why a batch skips its remaining drones.
pub(crate) const FAILED_ALIKE: &str = "The first three drones failed in the same way, so the remaining drones were skipped. Check the \
                                       image, the hub and the cables, then try again.";

/// Formats a count with its noun, as in `1 byte` or `1,024 bytes`.
pub(crate) fn count(n: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Formats a number with its digits in groups of three, as in `1,024`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Returns the problem that `--require-boot` reports; `None` if the drone is running and well, or if the job itself
/// failed or did not restart the drone.
pub(crate) fn not_running(report: &Report) -> Option<Problem> {
    let text = describe_restart(report).filter(|_| exit_status(report) == Exit::Done && !report.is_well())?;
    let text = match report.boot {
        Boot::NotWatched => {
            "The drone was seen running, but not long enough to be sure that it stays up.".to_owned()
        }
        _ => text,
    };
    let message = if report.booted() == Some(true) && !report.health.has_failed() {
        "the image is on the drone, but the result of the self-test is unknown"
    } else if report.health.has_failed() {
        "the image is on the drone, but the firmware's self-test failed"
    } else {
        "the image is on the drone, but the drone was not seen to keep running"
    };
    Some(Problem::new(Exit::NotRunning, ProblemKind::NotRunning, message).advise(text))
}

/// Returns the advice about a drone that cfdfu did not see start after a flash.
pub(crate) fn advice_if_not_seen(report: &Report) -> &'static str {
    if report.rom.is_some_and(RomVersion::starts_without_ccm) {
        "cfdfu did not see the drone start, which is normal with this chip's boot ROM. One last step: unplug USB and the \
         battery, plug the battery in again, and switch the drone on."
    } else if report.by_hand {
        "cfdfu did not see the drone start, which is normal after entering DFU mode by hand. One last step: unplug USB and \
         the battery, plug the battery in again, and switch the drone on."
    } else if report.outcome == Outcome::Unchanged {
        // An earlier flash already wrote the complete image, so flashing the image again cannot help.
        "The flash is complete and verified, but cfdfu did not see the drone start. Unplug USB and the battery, take off the \
         decks, then switch the drone on. If it still does not start, the fault is elsewhere: update the radio chip over \
         radio with cfclient, and if that changes nothing, suspect the hardware."
    } else {
        "cfdfu did not see the drone start. Unplug USB and the battery, then switch the drone on. If it does not start, enter DFU mode \
         by hand; cfdfu then shows what is on it."
    }
}

/// The state of a drone that was disconnected while it was being flashed. Unlike other drones without firmware, such a
/// drone may have lost power and may no longer be in DFU mode.
const LOST: &str =
    "The drone has no working firmware right now, but nothing is broken and what is already written is kept.";

/// The state of a drone after a failed flash whose remedy already includes a retry.
const UNFINISHED: &str = "The drone has no working firmware right now, but what is already written is kept.";

/// Returns whether the remedy for this failure includes a retry.
fn includes_retry(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Dfu(_) | FailureKind::Mismatch { .. } | FailureKind::Held | FailureKind::NotErased(_)
    )
}

/// Advice for a flash that was resumed several times without progress.
pub(crate) const STUCK: &str = "The connection keeps dropping, and the flash is making no progress. Check the cable, and plug the \
    drone in without a hub.";

/// Advice after a successful flash of a drone without a bootloader. Flashing firmware does not restore the bootloader.
pub(crate) const WITHOUT_LOADER: &str = "The bootloader is missing, so the drone will not start when it is switched on. To restore it, \
    run `cfdfu restore-bootloader LOADER` (b in the interface). LOADER is cf2loader-1.0.bin from \
    github.com/bitcraze/crazyflie2-stm-bootloader/releases.";

/// Returns the known facts about a drone, as pairs of a label and a value.
pub(crate) fn fact_rows(info: &DeviceInfo) -> Vec<(&'static str, String)> {
    match info {
        DeviceInfo::InDfu(identity) => {
            let unknown = || "unknown".to_owned();
            let firmware = match &identity.firmware {
                _ if identity.is_read_protected() => unknown(),
                Some(Content::Firmware(firmware)) => firmware.details(),
                Some(content) => content.to_string(),
                None => "none".to_owned(),
            };
            let sectors = |protection: &Protection| -> Vec<String> {
                protection.sectors.iter().map(usize::to_string).collect()
            };
            let protection = match &identity.protection {
                None => unknown(),
                Some(it) if it.read => "read-protected: nothing can be read or written".to_owned(),
                Some(it) if it.sectors.is_empty() => "none".to_owned(),
                Some(it) => {
                    let plural = if it.sectors.len() == 1 { "" } else { "s" };
                    format!("write-protected: sector{plural} {}", sectors(it).join(", "))
                }
            };
            vec![
                ("board", identity.board.as_ref().map_or_else(unknown, Board::to_string)),
                ("bootloader", identity.loader.map_or_else(unknown, |loader| loader.describe().to_owned())),
                ("firmware", firmware),
                ("protection", protection),
                ("boot ROM", identity.rom.map_or_else(unknown, |rom| rom.to_string())),
            ]
        }
        DeviceInfo::Running(running) => {
            let mut rows = vec![match &running.version {
                Some(version) => ("runs", version.clone()),
                None => ("runs", "unknown (no reply)".to_owned()),
            }];
            rows.extend(running.board.clone().map(|board| ("board", board)));
            rows.extend(running.radio.map(|radio| ("radio", radio.to_string())));
            rows.extend(symptoms::rows(&running.health));
            rows
        }
    }
}

/// Describes what is wrong with the contents of a drone in DFU mode, and the remedy; `None` if nothing is wrong.
pub(crate) fn diagnosis(identity: &Identity) -> Option<String> {
    let Identity { board, loader, firmware, .. } = identity;
    if identity.is_read_protected() {
        return Some("The chip is read-protected: it can be neither read nor flashed.".to_owned());
    }
    if let Some(loader) = loader.filter(|loader| loader.is_missing()) {
        return Some(format!(
            "The bootloader is missing ({}), so the drone cannot start normally or be updated over radio. Restore it \
             together with firmware: `cfdfu restore-bootloader LOADER --firmware IMAGE`. LOADER is {RIGHT_LOADER}; IMAGE \
             is {}.",
            loader.describe(),
            right_for(board.as_ref())
        ));
    }
    match (firmware, board) {
        (None, board) => Some(format!(
            "The drone has no firmware. Flash it with `cfdfu flash IMAGE`. IMAGE is {}.",
            right_for(board.as_ref())
        )),
        (Some(Content::Firmware(firmware)), board) if firmware.extent.complete() == Some(false) => {
            Some(format!(
                "The firmware on the drone is incomplete: its end is missing, so it does not start. Flash it again with \
                 `cfdfu flash IMAGE`. IMAGE is {}.",
                right_for(board.as_ref())
            ))
        }
        (Some(Content::Firmware(firmware)), Some(board))
            if !firmware.boards.is_empty() && firmware.boards.iter().all(|it| it.code != board.code) =>
        {
            Some(format!(
                "The {firmware} on the drone is not for this board ({}): it stops at startup, and the drone looks dead. \
                 Flash the firmware for this board: {}.",
                board.code,
                describe_image_for(&board.code)
            ))
        }
        (Some(Content::Firmware(_)), _) => None,
        (Some(_), board) => Some(format!(
            "The firmware on the drone is not recognised: it is incomplete, or not Crazyflie firmware. If the drone does \
             not start, flash it with `cfdfu flash IMAGE`. IMAGE is {}.",
            right_for(board.as_ref())
        )),
    }
}

/// Names the file to flash to this board, or the file for each platform if the board is unknown.
fn right_for(board: Option<&Board>) -> String {
    board.map_or_else(any_image, |board| describe_image_for(&board.code))
}

/// Describes what the drone can do with a restored bootloader, and what the drone still lacks; `None` if no Bitcraze
/// bootloader was written.
pub(crate) fn describe_restore(written: &[Segment]) -> Option<String> {
    let segment_at = |base: Address| written.iter().find(|segment| segment.address == base);
    let loader = segment_at(LOADER_BASE)?;
    let has_firmware =
        segment_at(FIRMWARE_BASE).is_some_and(|it| !is_blank(&it.data[..it.data.len().min(4)]));
    let starts = if has_firmware {
        "The bootloader is restored. The drone starts when it is switched on, and it"
    } else {
        "The bootloader is restored. If the drone has no working firmware, flash it now. The drone"
    };
    (Loader::of(&loader.data) == Loader::Bitcraze).then(|| {
        format!(
            "{starts} can be updated over radio again, by cfclient or cfloader with a Crazyradio. Holding the button for \
             1.5 to 5 s at power-on starts the radio bootloader."
        )
    })
}

/// Formats an elapsed time in the largest unit that fits, as in `3 hours`.
pub(crate) fn format_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let n = seconds / size;
    count(n, unit)
}

/// Describes the state of the drone after a job.
pub(crate) fn drone_state(state: DroneState) -> &'static str {
    match state {
        DroneState::Untouched => "Nothing was changed on the drone.",
        DroneState::Stopped => {
            "Nothing was changed on the drone, but its firmware is no longer running. Unplug USB and the battery, then \
             switch the drone on again."
        }
        DroneState::WithoutFirmware => {
            "The drone has no working firmware right now. It stays in DFU mode while it has power, and what is already \
             written is kept. Try again to finish."
        }
        DroneState::WithoutLoader => {
            "The drone's bootloader is incomplete right now. If the drone is no longer in DFU mode, enter DFU mode by \
             hand, which always works because DFU mode is in the chip's ROM. Then restore the bootloader again."
        }
        DroneState::TestData => {
            "The firmware is unchanged, but the last sector of the flash may contain test data. No firmware uses that \
             sector."
        }
        DroneState::Mixed => {
            "The flash is partly overwritten, but the start of the firmware is intact, so the drone might start it. Do not \
             switch the drone on; flash it again."
        }
        DroneState::Flashed => "The flash holds the complete image.",
    }
}

/// Returns the problem to report for a failed job.
pub fn failure_problem(failure: &Failure) -> Problem {
    let problem = failure_kind(&failure.kind);
    let state = match failure.drone {
        DroneState::Untouched if problem.exit != Exit::Device => None,
        DroneState::WithoutFirmware if failure.is_interruption() => Some(LOST),
        DroneState::WithoutFirmware if includes_retry(&failure.kind) => Some(UNFINISHED),
        state => Some(drone_state(state)),
    };
    let advice = Advice { state, ..problem.advice };
    Problem { message: failure.to_string(), advice, ..problem }
}

#[allow(clippy::too_many_lines, reason = "a table, one row per kind")]
fn failure_kind(kind: &FailureKind) -> Problem {
    /// The remedy `by_hand`, as worded in the interface.
    const R_BY_HAND: &str = "Press r to see how to enter DFU mode by hand.";
    let by_hand = format!("Enter DFU mode by hand: {ENTER_BY_HAND}.");
    let new = |exit, problem_kind, advice: &str| Problem::new(exit, problem_kind, kind).advise(advice);
    match kind {
        FailureKind::Bus(_) => new(
            Exit::NoDevice,
            ProblemKind::NoUsb,
            "Run cfdfu on the computer that the Crazyflie is plugged into, or try a simulated Crazyflie with --demo.",
        )
        .in_interface("Run cfdfu on the computer that the Crazyflie is plugged into."),
        FailureKind::CannotBlink => new(
            Exit::Device,
            ProblemKind::NotRunning,
            "Restart the drone, then run `cfdfu blink` again. `cfdfu list` shows its port.",
        )
        .in_interface("Restart the drone, then press g again."),
        FailureKind::NoConsole => new(
            Exit::Device,
            ProblemKind::NotRunning,
            "Restart the drone, then run `cfdfu console` again. `cfdfu list` shows its mode.",
        )
        .in_interface("Only running firmware has a console. Switch the drone off and on, or flash it."),
        FailureKind::NoReply => new(
            Exit::Device,
            ProblemKind::NoReply,
            "Close any program that is using the drone, such as cfclient, or switch the drone off and on.",
        ),
        FailureKind::NothingToUndo(_) => new(
            Exit::NoInput,
            ProblemKind::NoCopy,
            "Undo needs the previous firmware, which a flash saves unless you pass --no-undo. Instead, flash the \
             firmware that you want.",
        )
        .in_interface("Undo needs the previous firmware, which a flash saves. Instead, flash the firmware that you want."),
        FailureKind::Refused(refusal) => self::refusal(refusal),
        FailureKind::NoDevice => new(
            Exit::NoDevice,
            ProblemKind::NoDevice,
            &format!(
                "Plug in the Crazyflie with a cable that carries data. If it does not start, enter DFU mode by hand: \
                 {ENTER_BY_HAND}. Then run the command again. With --wait SECS, cfdfu waits for the drone."
            ),
        )
        .in_interface("Plug in the Crazyflie with a cable that carries data. If it does not start, press r."),
        FailureKind::OnlyOthers(others) => {
            new(Exit::NoDevice, ProblemKind::OnlyOthers, &about_others(others))
        }
        FailureKind::NoMatch(_) => {
            new(Exit::NoDevice, ProblemKind::NoMatch, "`cfdfu list` shows the connected devices.")
        }
        FailureKind::NotInDfu => new(
            Exit::NoDevice,
            ProblemKind::NotInDfu,
            "Omit --no-enter to let cfdfu switch the drone to DFU mode.",
        )
        .in_interface("Press t to switch the drone to DFU mode.")
        .or(by_hand)
        .in_interface(R_BY_HAND),
        FailureKind::Several(devices) => {
            const NAMED: usize = 8;
            let mut names: Vec<String> = devices
                .iter()
                .take(NAMED)
                .map(|d| format!("--device {} ({} {})", d.location, d.strings.product, d.strings.serial))
                .collect();
            if devices.len() > NAMED {
                names.push(format!("and {} more (`cfdfu list` shows all)", devices.len() - NAMED));
            }
            new(
                Exit::NoDevice,
                ProblemKind::SeveralDevices,
                &format!("Select one of them: {}.", names.join(", ")),
            )
        }
        FailureKind::NoAccess(id) => Problem::new(Exit::NoPermission, ProblemKind::NoPermission, kind)
            .advise(Advice {
                state: None,
                remedies: vec![Remedy::InstallRules { running: *id == CRAZYFLIE }],
            }),
        FailureKind::Held => new(
            Exit::Device,
            ProblemKind::DeviceBusy,
            "Close the other program (dfu-util, another cfdfu, a virtual machine), then try again.",
        ),
        FailureKind::Open(TransferError::NotSupported | TransferError::NotFound) => new(
            Exit::Device,
            ProblemKind::CannotOpen,
            "Another driver is bound to the device (Windows needs WinUSB). `cfdfu doctor` shows the remedy.",
        )
        .in_interface(
            "Another driver is bound to the device (Windows needs WinUSB). On the first screen, d shows the remedy.",
        ),
        FailureKind::Open(TransferError::Io | TransferError::Timeout) => new(
            Exit::Device,
            ProblemKind::CannotOpen,
            "The cause is usually a cable, a hub or a port. Use a short cable without a hub, or another port.",
        ),
        FailureKind::Open(_) => {
            new(Exit::Device, ProblemKind::CannotOpen, "Unplug the device, plug it in again and retry.")
        }
        FailureKind::TooOld => {
            new(Exit::Device, ProblemKind::FirmwareTooOld, &by_hand).in_interface(R_BY_HAND)
        }
        FailureKind::DidNotEnter { now: Some(_), .. } => {
            new(Exit::Device, ProblemKind::NoDfu, "Take off the decks and try again.")
                .or(by_hand)
                .in_interface(R_BY_HAND)
        }
        FailureKind::DidNotEnter { now: None, .. } => new(
            Exit::Device,
            ProblemKind::NoDfu,
            "Run the command again with --wait 60 to wait longer for DFU mode.",
        )
        .in_interface("Press t to try again.")
        .or(by_hand)
        .in_interface(R_BY_HAND),
        FailureKind::NotDfu(_) => new(
            Exit::Device,
            ProblemKind::NotDfuse,
            "If it is a Crazyflie, unplug USB and the battery, then enter DFU mode again.",
        ),
        FailureKind::OtherChip => new(
            Exit::NoDevice,
            ProblemKind::OtherChip,
            "Select the Crazyflie with --device. To flash this board anyway: `cfdfu flash IMAGE --allow-mismatch`.",
        )
        .in_interface("Unplug this device, or select the Crazyflie with Tab on the first screen."),
        FailureKind::OtherDrone { .. } => new(
            Exit::NoDevice,
            ProblemKind::OtherDrone,
            "This drone was not changed. Plug the original drone back into this port, or start again with this one.",
        ),
        FailureKind::UnknownBoard { .. } => new(
            Exit::Image,
            ProblemKind::UnknownBoard,
            "On the wrong board, the firmware would stop at startup and the drone would look dead. Plug the drone in again \
             and retry. If you are sure that the image is for this board, use --allow-mismatch.",
        )
        .in_interface(
            "On the wrong board, the firmware would stop at startup and the drone would look dead. Plug the drone in again \
             and press t. If its board still cannot be read, you can confirm the flash by typing a word.",
        ),
        FailureKind::NotACrazyflie { loader } => new(
            Exit::Image,
            ProblemKind::NotACrazyflie,
            match loader {
                Loader::Erased => {
                    "Nothing was changed. If it is a Crazyflie, it needs its bootloader first: `cfdfu restore-bootloader \
                     LOADER --firmware IMAGE`."
                }
                _ => {
                    "Nothing was changed, because flashing would overwrite the contents of the device. If it is a Crazyflie, restore \
                     its bootloader as well: `cfdfu restore-bootloader LOADER --firmware IMAGE --allow-mismatch`."
                }
            },
        )
        .in_interface(
            "Nothing was changed, because flashing would overwrite the contents of the device. If it is a Crazyflie, press t, \
             read the plan, and type the word to flash. Afterwards, restore its bootloader as well.",
        ),
        FailureKind::ChangedSince => new(
            Exit::Image,
            ProblemKind::ChangedSince,
            "An undo would restore the state before cfdfu's last flash and overwrite what the other program wrote. To undo \
             anyway: `cfdfu undo --allow-mismatch`.",
        )
        .in_interface(
            "An undo would restore the state before cfdfu's last flash and overwrite what the other program wrote. Press t, read \
             the plan, and type the word to undo anyway.",
        ),
        FailureKind::NotErased(_) => new(
            Exit::Device,
            ProblemKind::WriteProtected,
            "The chip accepted the erase but kept its contents. Remove the write protection with ST's tools (option \
             bytes), then flash again.",
        ),
        FailureKind::OtherBoard { board, .. } => new(
            Exit::Image,
            ProblemKind::OtherBoard,
            &format!(
                "On this board, the firmware would stop at startup and the drone would look dead. Use the image for this \
                 board: {}. If you are sure about this image, use --allow-mismatch.",
                describe_image_for(&board.code)
            ),
        )
        .in_interface(format!(
            "On this board, the firmware would stop at startup and the drone would look dead. Press i and choose the image \
             for this board: {}.",
            describe_image_for(&board.code)
        )),
        FailureKind::Plan(_) => new(
            Exit::Image,
            ProblemKind::DoesNotFit,
            "This image cannot be flashed to this device. Use a different image.",
        ),
        FailureKind::ReadProtected => new(
            Exit::Device,
            ProblemKind::ReadProtected,
            "The chip can be neither read nor flashed until the protection is removed, which erases everything, including \
             the bootloader. cfdfu does not remove the protection. Use `dfu-util -a 0 -s :unprotect:force` or STM32CubeProgrammer, \
             then `cfdfu restore-bootloader`.",
        )
        .in_interface(
            "The chip can be neither read nor flashed until the protection is removed, which erases everything, including \
             the bootloader. cfdfu does not remove the protection. Use STM32CubeProgrammer, then restore the bootloader here: Esc, b.",
        ),
        FailureKind::WriteProtected(_) => new(
            Exit::Device,
            ProblemKind::WriteProtected,
            "The chip would accept the image without an error and keep its old contents. Remove the write protection with \
             ST's tools (option bytes), then flash again.",
        ),
        FailureKind::Dfu(error) if error.is_disconnect() => new(
            Exit::Device,
            ProblemKind::Vanished,
            "Bring the drone back into DFU mode, then try again. Finished parts are skipped.",
        ),
        FailureKind::Dfu(DfuError::Silent(_)) => new(
            Exit::Device,
            ProblemKind::Silent,
            "The drone is still connected. Unplug USB and the battery, enter DFU mode again, and retry. \
             Finished parts are skipped.",
        ),
        FailureKind::Dfu(DfuError::Transfer {
            error: TransferError::Io | TransferError::Timeout, ..
        }) => new(
            Exit::Device,
            ProblemKind::Wire,
            "The cause is usually a cable, a hub or a port. Use a short cable without a hub, or another port. Unplug USB \
             and the battery, enter DFU mode again, and retry. Finished parts are skipped.",
        ),
        FailureKind::Dfu(_) => new(
            Exit::Device,
            ProblemKind::Dfu,
            "Unplug USB and the battery, enter DFU mode again, and retry. Finished parts are skipped.",
        ),
        FailureKind::Mismatch { .. } => new(
            Exit::Device,
            ProblemKind::Mismatch,
            "Try again. If it fails at the same address, the chip's flash is worn or its supply voltage is too low \
             (plug the drone in without a hub).",
        ),
        FailureKind::Differs { .. } => {
            new(Exit::Differs, ProblemKind::Differs, "To flash the image, run `cfdfu flash IMAGE`.")
        }
        FailureKind::OutOfRange(_) => {
            new(Exit::Image, ProblemKind::OutOfRange, "A Crazyflie's flash spans 0x08000000 to 0x080FFFFF.")
        }
        FailureKind::WorkerDied(_) => new(
            Exit::Defect,
            ProblemKind::Defect,
            "This is a bug in cfdfu. Please report it, and include the text above.",
        )
        .in_interface("This is a bug in cfdfu, not your fault. Press s to save a bug report."),
    }
}

/// Returns the advice for when these devices are plugged in but no Crazyflie is.
pub(crate) fn about_others(others: &[Other]) -> String {
    const PLUG_IN: &str = "Plug in the Crazyflie itself, with a USB cable that carries data.";
    let px4 = format!(
        "This drone has PX4's bootloader instead of Bitcraze's. To restore Bitcraze's, enter DFU mode by hand: {ENTER_BY_HAND}. Then \
         run `cfdfu restore-bootloader LOADER --firmware IMAGE`. LOADER is {RIGHT_LOADER}; IMAGE is cf2-….bin or the file \
         for your board."
    );
    let advice = |other: &Other| match other.what {
        RelatedDevice::Crazyradio | RelatedDevice::CrazyradioBootloader => {
            "The Crazyradio is for flying and for updates over radio (cfclient).".to_owned()
        }
        RelatedDevice::LocoNode => {
            "The Loco Positioning Node is updated with its own tools (lps-node-firmware).".to_owned()
        }
        RelatedDevice::Px4Bootloader => px4.clone(),
        RelatedDevice::Foreign(loader) => loader.meaning(),
    };
    let mut sentences: Vec<String> = Vec::new();
    for advice in others.iter().map(advice) {
        if !sentences.contains(&advice) {
            sentences.push(advice);
        }
    }
    if others.iter().all(|other| other.what != RelatedDevice::Px4Bootloader) {
        sentences.push(PLUG_IN.to_owned());
    }
    sentences.join(" ")
}
