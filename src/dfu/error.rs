//! The reasons why a DFU operation fails, for example a failed transfer, an error that the device reports, or an
//! invalid reply.

use std::time::Duration;

use thiserror::Error;

use super::wire::Request;
use super::{State, Status};
use crate::usb::TransferError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DfuError {
    #[error("{request}: {error}")]
    Transfer { request: Request, error: TransferError },
    #[error("SET_INTERFACE: {0}")]
    Select(TransferError),
    /// GETSTATUS returned an error status.
    #[error("the device reports {0}")]
    Status(Status),
    /// The device is in a state that the current operation cannot lead to.
    #[error("the device is in {0}, which is unexpected here")]
    State(State),
    /// GETSTATUS returned no valid status.
    #[error("the device returned an invalid status")]
    Garbled,
    /// The device transferred fewer bytes than requested.
    #[error("the device transferred {got} bytes instead of {wanted}")]
    Short { got: usize, wanted: usize },
    /// The device is on the bus but does not answer requests.
    #[error("the device does not answer: no reply for {}", format_seconds(.0))]
    Silent(Duration),
    /// The device was still busy when the time limit of the operation expired.
    #[error("the device is still busy after {}", format_seconds(.0))]
    Busy(Duration),
}

impl DfuError {
    /// Returns the transfer error, if a transfer failed.
    pub(crate) fn transfer(&self) -> Option<TransferError> {
        match self {
            DfuError::Transfer { error, .. } | DfuError::Select(error) => Some(*error),
            _ => None,
        }
    }

    /// Returns whether the device was disconnected.
    pub fn is_disconnect(&self) -> bool {
        self.transfer() == Some(TransferError::Disconnected)
    }

    /// Returns whether no further request can succeed: the device was disconnected or no longer answers.
    pub(crate) fn ends_session(&self) -> bool {
        self.is_disconnect() || matches!(self, DfuError::Silent(_))
    }
}

fn format_seconds(time: &Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
