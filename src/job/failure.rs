//! The ways in which a job can fail: the cause, the step that failed, and the state of the drone afterwards. The advice
//! for each failure is in `report`.

use std::time::Duration;

use thiserror::Error;

use super::{Device, Other};
use crate::crazyflie::{Board, Mode};
use crate::dfu::DfuError;
use crate::dfu::device::DeviceError;
use crate::flash::{Address, Sector, Span};
use crate::image::Loader;
use crate::plan::PlanError;
use crate::plan::admission::Refusal;
use crate::plan::undo::NoUndo;
use crate::usb::{BusError, Id, Location, TransferError};

/// A failed job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{kind}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
pub struct Failure {
    pub kind: FailureKind,
    /// The step that failed, if known.
    pub place: Option<Place>,
    /// The state of the drone after the job.
    pub drone: DroneState,
}

/// The step during which a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Place {
    #[error("reading the OTP")]
    Otp,
    #[error("reading the option bytes")]
    OptionBytes,
    #[error("checking whether it is a Crazyflie")]
    Evidence,
    #[error("reading the bootloader")]
    Loader,
    #[error("comparing {0}")]
    Comparing(Sector),
    #[error("erasing {0}")]
    Erasing(Sector),
    #[error("checking {0}")]
    CheckingErased(Sector),
    #[error("writing {0}")]
    Writing(Address),
    #[error("reading back {0}")]
    ReadingBack(Address),
    #[error("verifying")]
    Verifying,
    #[error("reading the flash")]
    Flash,
}

/// The state of a drone after a job that ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroneState {
    Untouched,
    /// The flash is unchanged, but the firmware is no longer running: the drone is in DFU mode, or did not start after
    /// a restart.
    Stopped,
    /// The drone has no complete firmware. Its bootloader detects this and waits for another flash.
    WithoutFirmware,
    /// The drone has no complete bootloader, so cfdfu can reach the drone only after the user puts it into DFU mode
    /// by hand.
    WithoutLoader,
    /// A trial has written test data to the last sector, which was blank. The firmware is unchanged.
    TestData,
    /// The start of the firmware is intact, but the rest of the flash is a mix of old and new contents.
    Mixed,
    /// The flash holds the complete new image.
    Flashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FailureKind {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("no Crazyflie or DFU device found")]
    NoDevice,
    /// Only devices related to the Crazyflie are plugged in.
    #[error("no Crazyflie found, only {}", join_names(.0))]
    OnlyOthers(Vec<Other>),
    /// Devices were found, but `--device` matches none of them.
    #[error("no device matches --device {0}")]
    NoMatch(String),
    /// The Crazyflie is running, and the job does not allow asking it to enter DFU mode.
    #[error("the Crazyflie is running, not in DFU mode")]
    NotInDfu,
    #[error("{} devices are plugged in and none is selected", .0.len())]
    Several(Vec<Device>),
    #[error("no permission to open {0}")]
    NoAccess(Id),
    #[error("another program is using the device")]
    Held,
    /// The device could not be opened or claimed for another reason.
    #[error("the device cannot be opened: {0}")]
    Open(TransferError),
    #[error("cannot blink the LEDs of a drone in DFU mode")]
    CannotBlink,
    /// A drone in DFU mode does not run its firmware.
    #[error("a drone in DFU mode has no console")]
    NoConsole,
    /// The running firmware does not answer, or its link cannot be opened, for example because another program is using
    /// it.
    #[error("the running Crazyflie does not answer")]
    NoReply,
    /// The running firmware does not support the request.
    #[error("the Crazyflie's firmware is too old to enter DFU mode by itself (before 2022.03)")]
    TooOld,
    /// The Crazyflie was asked to enter DFU mode, but did not appear in DFU mode.
    #[error("{}", describe_missed_entry(*tries, *limit, *now))]
    DidNotEnter {
        /// How many times cfdfu asked the drone to enter DFU mode.
        tries: u32,
        /// How long the last attempt waited for DFU mode.
        limit: Duration,
        /// The drone's mode now; `None` if the drone is not on USB.
        now: Option<Mode>,
    },
    /// The device does not support DfuSe, or its descriptors cannot be read.
    #[error("the device cannot be flashed: {0}")]
    NotDfu(#[from] DeviceError),
    #[error("this is not a Crazyflie: its flash layout is not that of an STM32F405")]
    OtherChip,
    /// The image cannot be flashed to this device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A different drone is now on the port of this job's drone.
    #[error(
        "a different drone is on port {port} now{}",
        found.as_ref().map(|it| format!(" ({it})")).unwrap_or_default()
    )]
    OtherDrone {
        port: Location,
        /// The serial number of the drone on the port; `None` if it cannot be read.
        found: Option<String>,
    },
    /// The board could not be read, and the image supports only some boards.
    #[error("the board of this drone could not be read, and the image is only for {}", .boards.join(", "))]
    UnknownBoard { boards: Vec<String> },
    /// The device is probably another board with the same chip. A flash would destroy its contents.
    #[error(
        "this does not look like a Crazyflie: its chip does not name a board, and its bootloader sector holds {}",
        loader.noun_phrase()
    )]
    NotACrazyflie { loader: Loader },
    /// An undo found contents that the last change did not write.
    #[error("the drone was changed by another program after its last flash")]
    ChangedSince,
    /// There is no backup to restore.
    #[error("nothing to undo: {0}")]
    NothingToUndo(NoUndo),
    /// The backup failed a check, so it cannot be restored.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A sector is not blank after an erase. A flash job checks this only if it could not read the option bytes, which
    /// show the write protection; a write trial always checks it.
    #[error("sector {0} did not change when it was erased: it seems to be write-protected")]
    NotErased(usize),
    /// The image is not for this drone's board.
    #[error("this drone's board is {board}, but the image is for {}", .boards.join(", "))]
    OtherBoard { board: Board, boards: Vec<String> },
    #[error("the chip is read-protected")]
    ReadProtected,
    #[error(
        "write protection is set for sector{} {}",
        if .0.len() == 1 { "" } else { "s" },
        join_numbers(.0)
    )]
    WriteProtected(Vec<usize>),
    #[error(transparent)]
    Dfu(#[from] DfuError),
    /// A `verify` job found a difference.
    #[error("the drone does not hold this image: {address} holds 0x{found:02X} instead of 0x{expected:02X}")]
    Differs { address: Address, expected: u8, found: u8 },
    /// A byte that was written does not read back correctly.
    #[error("{address} holds 0x{found:02X} instead of 0x{expected:02X}")]
    Mismatch { address: Address, expected: u8, found: u8 },
    /// The range to read is not entirely in flash.
    #[error("{0} is not entirely in the device's flash")]
    OutOfRange(Span),
    /// A bug in cfdfu: the worker thread panicked.
    #[error("cfdfu crashed during the job: {0}")]
    WorkerDied(String),
}

impl FailureKind {
    /// Returns the failure for a device that could not be opened.
    pub(crate) fn cannot_open(id: Id, error: TransferError) -> FailureKind {
        match error {
            TransferError::Access => FailureKind::NoAccess(id),
            TransferError::Busy => FailureKind::Held,
            other => FailureKind::Open(other),
        }
    }

    /// Returns the transfer error, if a transfer failed.
    pub(crate) fn transfer(&self) -> Option<TransferError> {
        match self {
            FailureKind::Dfu(error) => error.transfer(),
            FailureKind::Open(error) | FailureKind::NotDfu(DeviceError::Transfer(error)) => Some(*error),
            _ => None,
        }
    }

    /// Returns the same failure with `Disconnected` as the cause, for a device that is no longer on the bus. Its other
    /// transfer errors were only symptoms.
    pub(crate) fn into_disconnect(self) -> FailureKind {
        let error = TransferError::Disconnected;
        match self {
            FailureKind::Dfu(DfuError::Transfer { request, .. }) => {
                DfuError::Transfer { request, error }.into()
            }
            FailureKind::Dfu(DfuError::Select(_)) => DfuError::Select(error).into(),
            FailureKind::Open(_) => FailureKind::Open(error),
            FailureKind::NotDfu(DeviceError::Transfer(_)) => DeviceError::Transfer(error).into(),
            other => other,
        }
    }
}

impl DroneState {
    /// Returns whether nothing was written or erased.
    pub fn is_unchanged(self) -> bool {
        matches!(self, DroneState::Untouched | DroneState::Stopped)
    }
}

impl Failure {
    /// Returns whether the drone was disconnected. The job can be run again once the drone is plugged in.
    pub fn is_lost(&self) -> bool {
        self.kind.transfer() == Some(TransferError::Disconnected)
    }

    /// Returns whether the drone was disconnected while it was being erased or written. The job can be resumed once the
    /// drone is plugged in.
    pub fn is_interruption(&self) -> bool {
        self.is_lost() && !self.drone.is_unchanged() && self.drone != DroneState::Flashed
    }
}

fn describe_missed_entry(tries: u32, limit: Duration, now: Option<Mode>) -> String {
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    match now {
        Some(_) => {
            format!("the Crazyflie was asked {times} to enter DFU mode, but is running its firmware again")
        }
        None => format!(
            "the Crazyflie restarted, but did not reappear on its port within {} s: it may be in DFU mode (only M2 is \
             lit) without this computer seeing it",
            limit.as_secs()
        ),
    }
}

fn join_names(others: &[Other]) -> String {
    others.iter().map(Other::to_string).collect::<Vec<_>>().join(", ")
}

fn join_numbers(sectors: &[usize]) -> String {
    sectors.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
