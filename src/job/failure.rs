//! How a job can fail: what, where, and what state that leaves the drone in. What to do about it is in
//! `report`.

use std::time::Duration;

use thiserror::Error;

use super::{Device, Other};
use crate::crazyflie::{Board, Mode};
use crate::dfu::DfuError;
use crate::dfu::device::DeviceError;
use crate::flash::{Address, Sector, Span};
use crate::image::Loader;
use crate::plan::PlanError;
use crate::usb::{BusError, Id, Location, TransferError};

/// What happened, where, and what state that leaves the drone in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{kind}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
pub struct Failure {
    pub kind: FailureKind,
    pub place: Option<Place>,
    /// What the drone is left as.
    pub drone: DroneState,
}

/// What was being done when a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Place {
    #[error("reading the OTP")]
    Otp,
    #[error("reading the option bytes")]
    OptionBytes,
    #[error("looking whether it is a Crazyflie")]
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

/// What a drone is left as when a job ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroneState {
    Untouched,
    /// With what it had, but it was running before and is in DFU mode, or dark, now.
    Stopped,
    /// Without a complete firmware, and its bootloader knows: it waits for another try.
    WithoutFirmware,
    /// Without a complete bootloader: only DFU mode entered by hand reaches it.
    WithoutLoader,
    /// Part of the flash behind the start of the firmware is neither what it was nor what it was to be.
    Mixed,
    /// With the new image, complete.
    Flashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FailureKind {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("no Crazyflie and no device in DFU mode found")]
    NoDevice,
    /// Nothing there but relatives of the Crazyflie.
    #[error("no Crazyflie found, but {}", names(.0))]
    OnlyOthers(Vec<Other>),
    /// Something there, but not what was named.
    #[error("no device matches --device {0}")]
    NoMatch(String),
    /// A running Crazyflie, but it may not be asked to enter DFU mode.
    #[error("the Crazyflie is running, not in DFU mode")]
    NotInDfu,
    #[error("{} devices are there and none is named", .0.len())]
    Several(Vec<Device>),
    #[error("no permission to open {0}")]
    NoAccess(Id),
    #[error("another program holds the device")]
    Held,
    /// It could not be opened for another reason.
    #[error("the device cannot be opened: {0}")]
    Open(TransferError),
    /// Its firmware does not know the request.
    #[error("the Crazyflie's firmware is too old to enter DFU mode by itself (before 2022.03)")]
    TooOld,
    /// It restarted, but not in DFU mode.
    #[error("{}", did_not_enter(*tries, *limit, *now))]
    DidNotEnter {
        /// How often it was asked.
        tries: u32,
        /// How long DFU mode was waited for, the last time.
        limit: Duration,
        /// What it is now; `None` if it is not on USB.
        now: Option<Mode>,
    },
    /// It is no DfuSe device.
    #[error("the device cannot be flashed: {0}")]
    NotDfu(#[from] DeviceError),
    #[error("this is not a Crazyflie: its flash is laid out differently from an STM32F405's")]
    OtherChip,
    /// The image does not fit the device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Another drone where the one of this job was.
    #[error("another drone is on port {port} now{}", found.as_ref().map(|it| format!(" ({it})")).unwrap_or_default())]
    OtherDrone {
        port: Location,
        /// Its serial number; `None` if it cannot be read.
        found: Option<String>,
    },
    /// The board could not be read, and the image is for some boards only.
    #[error("the board of this drone could not be read, and the image is for {}", .boards.join(", "))]
    UnknownBoard { boards: Vec<String> },
    /// Another board with this chip, as it seems: what is on it would be lost.
    #[error(
        "nothing says that this is a Crazyflie: no board is named in its chip, and where the bootloader belongs is {}",
        loader.instead()
    )]
    NotACrazyflie { loader: Loader },
    /// An undo finds something else than the last change wrote.
    #[error("the drone was changed by another program after its last flash")]
    ChangedSince,
    /// A sector that was erased, where the option bytes could not be read, holds what it held.
    #[error("sector {0} did not change when it was erased: it seems to be write-protected")]
    NotErased(usize),
    /// The image is for other boards than the one that the OTP names.
    #[error("this drone's board is {board}, but the image is for {}", .boards.join(", "))]
    OtherBoard { board: Board, boards: Vec<String> },
    #[error("the chip is read-protected")]
    ReadProtected,
    #[error("write protection is set for sector{} {}", if .0.len() == 1 { "" } else { "s" }, numbers(.0))]
    WriteProtected(Vec<usize>),
    #[error(transparent)]
    Dfu(#[from] DfuError),
    /// The answer of a comparison.
    #[error("the drone does not hold this image: {address} holds 0x{found:02X} instead of 0x{expected:02X}")]
    Differs { address: Address, expected: u8, found: u8 },
    /// A byte that was written reads back wrong.
    #[error("{address} holds 0x{found:02X} instead of 0x{expected:02X}")]
    Mismatch { address: Address, expected: u8, found: u8 },
    /// The part to read is not all there.
    #[error("{0} is not all in the device's flash")]
    OutOfRange(Span),
    /// A defect of this program.
    #[error("the worker stopped unexpectedly: {0}")]
    WorkerDied(String),
}

impl FailureKind {
    /// The transfer that failed, if one did.
    pub(crate) fn transfer(&self) -> Option<TransferError> {
        match self {
            FailureKind::Dfu(error) => error.transfer(),
            FailureKind::Open(error) | FailureKind::NotDfu(DeviceError::Transfer(error)) => Some(*error),
            _ => None,
        }
    }

    /// The same of a device that turned out to be gone: what the wire showed before that means nothing.
    pub(crate) fn of_a_gone_device(self) -> FailureKind {
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
    /// Nothing was written or erased.
    pub fn is_unchanged(self) -> bool {
        matches!(self, DroneState::Untouched | DroneState::Stopped)
    }
}

impl Failure {
    /// Whether the drone was lost: plugged in again, the job can be done.
    pub fn is_lost(&self) -> bool {
        self.kind.transfer() == Some(TransferError::Disconnected)
    }

    /// Whether it was lost in the middle of the work: plugged in again, it can be gone on with.
    pub fn is_interruption(&self) -> bool {
        self.is_lost() && !self.drone.is_unchanged() && self.drone != DroneState::Flashed
    }
}

fn did_not_enter(tries: u32, limit: Duration, now: Option<Mode>) -> String {
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    match now {
        Some(_) => format!("the Crazyflie was asked {times} to enter DFU mode, and runs its firmware again"),
        None => format!(
            "the Crazyflie restarted, and nothing is on its port {} s later: it may be in DFU mode (M2 blinks fast) where \
             this computer does not see it",
            limit.as_secs()
        ),
    }
}

fn names(others: &[Other]) -> String {
    others.iter().map(Other::to_string).collect::<Vec<_>>().join(", ")
}

fn numbers(sectors: &[usize]) -> String {
    sectors.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
