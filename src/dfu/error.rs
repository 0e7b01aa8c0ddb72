//! Why a DFU operation failed: the transfer, what the device reports, or an answer that makes no sense.

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
    /// The device reports an error.
    #[error("the device reports {0}")]
    Status(Status),
    /// The device is in a state that makes no sense here.
    #[error("the device is in {0}, which makes no sense here")]
    State(State),
    /// GETSTATUS gave no valid answer.
    #[error("the device's status makes no sense")]
    Garbled,
    /// Fewer bytes than asked for.
    #[error("the device moved {got} bytes instead of {wanted}")]
    Short { got: usize, wanted: usize },
    /// On the bus, and no answer to anything.
    #[error("the device does not answer: nothing came for {}", seconds(.0))]
    Silent(Duration),
    /// Still busy after all patience.
    #[error("the device is still busy after {}", seconds(.0))]
    Busy(Duration),
}

impl DfuError {
    /// The transfer that failed, if one did.
    pub(crate) fn transfer(&self) -> Option<TransferError> {
        match self {
            DfuError::Transfer { error, .. } | DfuError::Select(error) => Some(*error),
            _ => None,
        }
    }

    /// Whether the device is gone for this session.
    pub fn is_disconnect(&self) -> bool {
        self.transfer() == Some(TransferError::Disconnected)
    }

    /// Whether nothing more can be asked of the device: it is gone, or on the bus without an answer.
    pub(crate) fn ends_session(&self) -> bool {
        self.is_disconnect() || matches!(self, DfuError::Silent(_))
    }
}

fn seconds(time: &Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
