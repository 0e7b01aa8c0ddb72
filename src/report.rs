//! What happened, what state the drone is in, what to do now: in words for people, and as exit status.
//!
//! Modules below return kinds; what helps against each is here, but for what `doctor` finds and for what only the
//! command line knows. Pure. [`mod@image`] is what may be wrong with a file.

use std::time::Duration;

use crate::crazyflie::Protection;
use crate::crazyflie::{Board, ENTER_BY_HAND, Relative, RomVersion};
use crate::dfu::DfuError;
use crate::flash::{Address, FIRMWARE_BASE, LOADER_BASE, Segment, is_blank};
use crate::image::Content;
use crate::image::Loader;
use crate::job::{Boot, DeviceInfo, DroneState, Failure, FailureKind, Identity, Other, Outcome, Report};
use crate::usb::{CRAZYFLIE, TransferError};

mod image;
mod problem;
mod right_file;

pub(crate) use image::{caution, image_error, platform_change, refusal, wrong_checksum};
pub(crate) use problem::{Advice, Problem, ProblemKind, Remedy};
pub(crate) use right_file::{RIGHT_LOADER, any_image, right_image};

/// Exit statuses, after sysexits.h; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// `verify` found a difference, as `cmp` and `diff` report one.
    Differs = 1,
    /// Wrong use of the command line.
    Usage = 2,
    /// The image was refused, or is malformed.
    Image = 65,
    /// The image cannot be read.
    NoInput = 66,
    /// No device, or several and none named.
    NoDevice = 69,
    /// A defect of this program.
    Defect = 70,
    /// The output file cannot be made.
    CannotCreate = 73,
    /// The device failed: USB, DFU status, comparison.
    Device = 74,
    /// Interrupted or cancelled; may be repeated.
    Interrupted = 75,
    /// Flashed, but with `--require-boot` not seen running and staying up.
    NotRunning = 76,
    NoPermission = 77,
}

/// The exit status of a finished job.
pub(crate) fn exit(report: &Report) -> Exit {
    match &report.outcome {
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => Exit::Done,
        Outcome::Cancelled(_) => Exit::Interrupted,
        Outcome::Failed(failure) => failed(failure).exit,
    }
}

/// What came of a job, in one line.
pub(crate) fn headline(report: &Report) -> String {
    let (verdict, took) = (verdict(report), report.took.as_secs_f64());
    match (&report.outcome, figures(report)) {
        (Outcome::Cancelled(state), _) => format!("{verdict}. {}", drone_state(*state)),
        (Outcome::Failed(_), _) => verdict,
        (_, Some(figures)) => format!("{verdict}: {figures}, {took:.1} s"),
        (_, None) => format!("{verdict}, {took:.1} s"),
    }
}

/// What came of a job, in as few words as that takes.
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

/// The size of what was done to the flash, or found there.
pub(crate) fn figures(report: &Report) -> Option<String> {
    match &report.outcome {
        Outcome::Flashed => {
            let sectors = count(report.erased_sectors as u64, "sector");
            Some(format!("{} written, {sectors} erased", count(report.written, "byte")))
        }
        Outcome::Unchanged => Some(format!("the flash holds all {}", count(report.bytes, "byte"))),
        _ => None,
    }
}

/// What to do after a job that worked; `None` if it was not to start the drone.
pub(crate) fn afterwards(report: &Report) -> Option<String> {
    let words = match (report.boot, &report.runs) {
        (Boot::NotAsked, _) => return None,
        (Boot::Restarts, _) => RESTARTING.to_owned(),
        (_, Some(version)) if report.runs_other => {
            format!(
                "A Crazyflie is running, but says that it runs {version}: is it the one that was flashed?"
            )
        }
        (_, Some(version)) => {
            format!("The Crazyflie is running again and says that it runs {version}: you can fly.")
        }
        (Boot::StaysUp | Boot::NotWatched, None) => "The Crazyflie is running again: you can fly.".to_owned(),
        (Boot::NotSeen, None) => not_seen(report).to_owned(),
    };
    Some(words)
}

/// A number of things: digits in groups of three, and the word for one or for many.
pub(crate) fn count(n: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// What `--require-boot` asks for and did not happen; `None` for a drone that runs, and for a job that failed by itself.
pub(crate) fn not_running(report: &Report) -> Option<Problem> {
    let words = afterwards(report).filter(|_| exit(report) == Exit::Done && report.booted() != Some(true))?;
    let words = match report.boot {
        Boot::NotWatched => {
            "It was seen running, but not for long enough to tell that it stays up.".to_owned()
        }
        _ => words,
    };
    Some(
        Problem::new(
            Exit::NotRunning,
            ProblemKind::NotRunning,
            "the image is on the drone, and the drone was not seen running",
        )
        .advise(words),
    )
}

/// A drone that keeps restarting after a flash.
pub(crate) const RESTARTING: &str = "The Crazyflie starts, and restarts by itself: its firmware stops itself, mostly for a sensor or a \
    deck that it does not find. Take off the decks and switch it off and on. If that does not help, undo the flash.";

/// Why a drone was not seen starting after a flash, and what to do.
pub(crate) fn not_seen(report: &Report) -> &'static str {
    if report.rom.is_some_and(RomVersion::leaves_drone_dark) {
        "It was not seen starting. That is normal with the boot ROM of this chip: unplug USB and battery, then switch it \
         on."
    } else if report.by_hand {
        "It was not seen starting. That is normal after DFU mode entered by hand: unplug USB and battery, then \
         switch it on."
    } else {
        "It was not seen starting, though DFU mode was not entered by hand. Unplug USB and battery, then switch it \
         on; if it does not start, enter DFU mode by hand and `cfdfu identify` tells what is on it."
    }
}

/// Of a drone that was lost in mid-flash: it has no power, so it is in no mode.
const LOST: &str = "The drone has no complete firmware now, and starts none. Plug it in in DFU mode and do the same again: what \
    was written is not lost.";

/// Of a flash that is lost and carried on, again and again.
pub(crate) const STUCK: &str = "The connection drops again and again, and the flash gets no further. Check the cable, and plug the \
    drone in without a hub.";

/// What a flash cannot mend.
pub(crate) const WITHOUT_LOADER: &str = "Its bootloader is gone: it will not start when it is switched on. Put it back: cfdfu \
    restore-bootloader LOADER (b in the interface). LOADER is cf2loader-1.0.bin from \
    github.com/bitcraze/crazyflie2-stm-bootloader/releases.";

/// What is known of a drone, as rows of a label and a text.
pub(crate) fn known(known: &DeviceInfo) -> Vec<(&'static str, String)> {
    match known {
        DeviceInfo::InDfu(identity) => {
            let unknown = || "unknown".to_owned();
            let firmware = match &identity.firmware {
                _ if identity.is_read_protected() => unknown(),
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
                Some(it) => format!("write-protected: sector {}", sectors(it).join(", ")),
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
                None => ("runs", "it did not say what".to_owned()),
            }];
            rows.extend(running.board.clone().map(|board| ("board", board)));
            rows
        }
    }
}

/// What is wrong with a drone in DFU mode, by what is on it, and what helps; `None` if nothing is.
pub(crate) fn diagnosis(identity: &Identity) -> Option<String> {
    let Identity { board, loader, firmware, .. } = identity;
    if identity.is_read_protected() {
        return Some("The chip is read-protected: it can neither be read nor flashed.".to_owned());
    }
    if let Some(loader) = loader.filter(|loader| loader.is_gone()) {
        return Some(format!(
            "The bootloader is gone ({}): the drone cannot start as it should, and cannot be updated over radio. Put it \
             back, with a firmware: cfdfu restore-bootloader LOADER --firmware IMAGE. LOADER is {RIGHT_LOADER}; IMAGE is \
             {}.",
            loader.describe(),
            right_for(board.as_ref())
        ));
    }
    match (firmware, board) {
        (None, board) => Some(format!(
            "There is no firmware on it. Flash one: cfdfu flash IMAGE, with {}.",
            right_for(board.as_ref())
        )),
        (Some(Content::Firmware(firmware)), board) if firmware.extent.complete() == Some(false) => {
            Some(format!(
                "Its firmware is incomplete: its end is missing, and it does not start. Flash it again: cfdfu flash IMAGE, \
             with {}.",
                right_for(board.as_ref())
            ))
        }
        (Some(Content::Firmware(firmware)), Some(board))
            if !firmware.boards.is_empty() && firmware.boards.iter().all(|it| it.code != board.code) =>
        {
            Some(format!(
                "Its {firmware} stops at once on this board ({}), without a sign. Flash the one for this board: {}.",
                board.code,
                right_image(&board.code)
            ))
        }
        (Some(Content::Firmware(_)), _) => None,
        (Some(_), board) => Some(format!(
            "What is in the place of the firmware is not recognised: half a firmware, or another one. If it does not \
             start, flash it: cfdfu flash IMAGE, with {}.",
            right_for(board.as_ref())
        )),
    }
}

/// The firmware for a board that may not be known.
fn right_for(board: Option<&Board>) -> String {
    board.map_or_else(any_image, |board| right_image(&board.code))
}

/// What a restored bootloader is good for, and what is missing; `None` if what was written is none.
pub(crate) fn restored(written: &[Segment]) -> Option<String> {
    let at = |base: Address| written.iter().find(|segment| segment.address == base);
    let loader = at(LOADER_BASE)?;
    let firmware = at(FIRMWARE_BASE).is_some_and(|it| !is_blank(&it.data[..it.data.len().min(4)]));
    let starts = if firmware {
        "The bootloader is back: the drone starts by itself when it is switched on, and"
    } else {
        "The bootloader is back. If it finds no good firmware behind it, flash one now: cfdfu flash IMAGE. The drone"
    };
    (Loader::of(&loader.data) == Loader::Bitcraze).then(|| {
        format!(
            "{starts} can be updated over radio again (cfclient or cfloader with a Crazyradio; a long press at \
             power-on, 1.5 to 5 s, starts its radio bootloader)."
        )
    })
}

/// A time that has passed, in the largest unit that fits.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let n = seconds / size;
    count(n, unit)
}

/// What a drone is left as.
pub(crate) fn drone_state(state: DroneState) -> &'static str {
    match state {
        DroneState::Untouched => "Nothing was changed on the drone.",
        DroneState::Stopped => {
            "Nothing was changed on the drone, but it has left its firmware and does not run now. Unplug USB and battery, \
             and it runs again."
        }
        DroneState::WithoutFirmware => {
            "The drone has no complete firmware now, and starts none: do the same again. It stays in DFU mode as long \
             as it has power, and what was written is not lost."
        }
        DroneState::WithoutLoader => {
            "The drone's bootloader is not complete now: run the restore again. If it is no longer in DFU mode, enter that \
             by hand, which still works (it is in ROM)."
        }
        DroneState::Mixed => {
            "Part of the flash is neither what it was nor what it was to be, and the start of the firmware was left \
             alone: do not switch it on, do it again."
        }
        DroneState::Flashed => "The flash holds the complete image.",
    }
}

pub fn failed(failure: &Failure) -> Problem {
    let problem = failure_kind(&failure.kind);
    let state = match failure.drone {
        DroneState::Untouched if problem.exit != Exit::Device => None,
        DroneState::WithoutFirmware if failure.is_interruption() => Some(LOST),
        state => Some(drone_state(state)),
    };
    let advice = Advice { state, ..problem.advice };
    Problem { message: failure.to_string(), advice, ..problem }
}

#[allow(clippy::too_many_lines, reason = "a table, one row a kind")]
fn failure_kind(kind: &FailureKind) -> Problem {
    let by_hand = format!("Enter DFU mode by hand: {ENTER_BY_HAND}.");
    let new = |exit, word, advice: &str| Problem::new(exit, word, kind).advise(advice);
    match kind {
        FailureKind::Bus(_) => new(
            Exit::NoDevice,
            ProblemKind::NoUsb,
            "Run cfdfu where the Crazyflie is plugged in, or try it with --demo.",
        ),
        FailureKind::NoDevice => new(
            Exit::NoDevice,
            ProblemKind::NoDevice,
            &format!(
                "Plug in the Crazyflie with a cable that carries data. If it does not start, {ENTER_BY_HAND}, and run this \
                 again. --wait SECS waits for it."
            ),
        ),
        FailureKind::OnlyOthers(others) => {
            new(Exit::NoDevice, ProblemKind::OnlyOthers, &about_others(others))
        }
        FailureKind::NoMatch(_) => {
            new(Exit::NoDevice, ProblemKind::NoMatch, "`cfdfu list` shows what is there.")
        }
        FailureKind::NotInDfu => new(
            Exit::NoDevice,
            ProblemKind::NotInDfu,
            "Leave out --no-enter, and it is asked to enter DFU mode.",
        )
        .or(by_hand),
        FailureKind::Several(devices) => {
            const NAMED: usize = 8;
            let mut names: Vec<String> = devices
                .iter()
                .take(NAMED)
                .map(|d| format!("--device {} ({} {})", d.location, d.strings.product, d.strings.serial))
                .collect();
            if devices.len() > NAMED {
                names.push(format!("{} more: `cfdfu list` shows all", devices.len() - NAMED));
            }
            new(
                Exit::NoDevice,
                ProblemKind::SeveralDevices,
                &format!("Name one of them: {}.", names.join(", ")),
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
            "Close the other program (dfu-util, a second cfdfu, a virtual machine), then run this again.",
        ),
        FailureKind::Open(error) => new(Exit::Device, ProblemKind::CannotOpen, open_advice(*error)),
        FailureKind::TooOld => new(Exit::Device, ProblemKind::FirmwareTooOld, &by_hand),
        FailureKind::DidNotEnter { now: Some(_), .. } => {
            new(Exit::Device, ProblemKind::NoDfu, "Take off the decks and try again.").or(by_hand)
        }
        FailureKind::DidNotEnter { now: None, .. } => new(
            Exit::Device,
            ProblemKind::NoDfu,
            "Try again with --wait 60, which waits longer for DFU mode.",
        )
        .or(by_hand),
        FailureKind::NotDfu(_) => new(
            Exit::Device,
            ProblemKind::NotDfuse,
            "If it is a Crazyflie, unplug USB and battery, enter DFU mode again.",
        ),
        FailureKind::OtherChip => new(
            Exit::NoDevice,
            ProblemKind::OtherChip,
            "Name the Crazyflie with --device. To flash this board all the same: cfdfu flash IMAGE --allow-mismatch.",
        ),
        FailureKind::OtherDrone { .. } => new(
            Exit::NoDevice,
            ProblemKind::OtherDrone,
            "It was not touched. Plug the drone of this job into its port again, or start a new job for this one.",
        ),
        FailureKind::UnknownBoard { .. } => new(
            Exit::Image,
            ProblemKind::UnknownBoard,
            "On another board it would stop before it starts, and look dead. Plug it in again and repeat. If you are \
             sure that the image is for this board: --allow-mismatch.",
        ),
        FailureKind::NotACrazyflie { loader } => new(
            Exit::Image,
            ProblemKind::NotACrazyflie,
            match loader {
                Loader::Erased => {
                    "Nothing was touched. A Crazyflie without a bootloader needs that first: cfdfu restore-bootloader LOADER \
                     --firmware IMAGE."
                }
                _ => {
                    "Nothing was touched: what is on it would be lost. If it is a Crazyflie, put back its bootloader as well: \
                     cfdfu restore-bootloader LOADER --firmware IMAGE --allow-mismatch."
                }
            },
        ),
        FailureKind::ChangedSince => new(
            Exit::Image,
            ProblemKind::ChangedSince,
            "An undo goes back to before that flash, and would overwrite what the other program wrote. To do it anyway: \
             cfdfu undo --allow-mismatch.",
        ),
        FailureKind::NotErased(_) => new(
            Exit::Device,
            ProblemKind::WriteProtected,
            "The chip took the erase and kept what it has. Lift the write protection with ST's tools (option bytes), then \
             flash again.",
        ),
        FailureKind::OtherBoard { board, .. } => new(
            Exit::Image,
            ProblemKind::OtherBoard,
            &format!(
                "On this board it would stop before it starts, and look dead. Take the image for this board: {}. If you \
                 are sure of this one: --allow-mismatch.",
                right_image(&board.code)
            ),
        ),
        FailureKind::Plan(_) => {
            new(Exit::Image, ProblemKind::DoesNotFit, "This image cannot be flashed to this device.")
        }
        FailureKind::ReadProtected => new(
            Exit::Device,
            ProblemKind::ReadProtected,
            "It can neither be read nor flashed until the protection is lifted, which erases everything on \
             it, bootloader included. cfdfu does not do that by itself: use `dfu-util -a 0 -s :unprotect:force` or \
             STM32CubeProgrammer, then `cfdfu restore-bootloader`.",
        ),
        FailureKind::WriteProtected(_) => new(
            Exit::Device,
            ProblemKind::WriteProtected,
            "The chip would take the image without a word and keep what it has. Lift the write protection \
             with ST's tools (option bytes), then flash again.",
        ),
        FailureKind::Dfu(error) if error.is_disconnect() => new(
            Exit::Device,
            ProblemKind::Vanished,
            "Plug it in again (DFU mode, as before) and repeat: what is done is skipped.",
        ),
        FailureKind::Dfu(DfuError::Silent(_)) => new(
            Exit::Device,
            ProblemKind::Silent,
            "It is still on the bus. Unplug USB and battery, enter DFU mode again, repeat: what is done is skipped.",
        ),
        FailureKind::Dfu(DfuError::Transfer {
            error: TransferError::Io | TransferError::Timeout, ..
        }) => new(
            Exit::Device,
            ProblemKind::Wire,
            "This is mostly a cable, a hub or a port: use a short cable, straight into the computer, another port. Unplug USB \
             and battery, enter DFU mode again, repeat: what is done is skipped.",
        ),
        FailureKind::Dfu(_) => new(
            Exit::Device,
            ProblemKind::Dfu,
            "Unplug USB and battery, enter DFU mode again, repeat: what is done is skipped.",
        ),
        FailureKind::Mismatch { .. } => new(
            Exit::Device,
            ProblemKind::Mismatch,
            "Repeat it; if it fails at the same place again, the chip's flash is worn or its supply too low (plug straight \
             into the computer).",
        ),
        FailureKind::Differs { .. } => {
            new(Exit::Differs, ProblemKind::Differs, "To flash it: cfdfu flash IMAGE.")
        }
        FailureKind::OutOfRange(_) => {
            new(Exit::Image, ProblemKind::OutOfRange, "A Crazyflie's flash is 0x08000000 … 0x080FFFFF.")
        }
        FailureKind::WorkerDied(_) => new(
            Exit::Defect,
            ProblemKind::Defect,
            "This is a defect of cfdfu: please report it, with the text above.",
        ),
    }
}

/// What somebody should do who has only these plugged in.
pub(crate) fn about_others(others: &[Other]) -> String {
    const PLUG_IN: &str = "Plug in the Crazyflie itself, with a USB cable that carries data.";
    let px4 = format!(
        "PX4 took the place of Bitcraze's bootloader. To go back, enter DFU mode by hand: {ENTER_BY_HAND}. Then: cfdfu \
         restore-bootloader LOADER --firmware IMAGE. LOADER is {RIGHT_LOADER}; IMAGE is cf2-….bin or what is right for \
         the board."
    );
    let advice = |other: &Other| match other.what {
        Relative::Crazyradio | Relative::CrazyradioBootloader => {
            "The Crazyradio is for flying and for updates over radio (cfclient).".to_owned()
        }
        Relative::LocoNode => {
            "The Loco Positioning Node is updated with its own tools (lps-node-firmware).".to_owned()
        }
        Relative::Px4Bootloader => px4.clone(),
        Relative::Foreign(loader) => loader.meaning(),
    };
    let mut words: Vec<String> = Vec::new();
    for advice in others.iter().map(advice) {
        if !words.contains(&advice) {
            words.push(advice);
        }
    }
    if others.iter().all(|other| other.what != Relative::Px4Bootloader) {
        words.push(PLUG_IN.to_owned());
    }
    words.join(" ")
}

fn open_advice(error: TransferError) -> &'static str {
    match error {
        TransferError::NotSupported | TransferError::NotFound => {
            "Another driver has the device (in Windows it needs WinUSB): `cfdfu doctor` tells what helps."
        }
        TransferError::Io | TransferError::Timeout => {
            "This is mostly a cable, a hub or a port: use a short cable, straight into the computer, another port."
        }
        _ => "Unplug the device, plug it in again, repeat.",
    }
}
