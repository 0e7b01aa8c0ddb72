//! USB in words: what a device is, what a transfer needs, how it can fail, and the seam behind which the
//! real bus ([`libusb`]) and the simulated one stand.
//!
//! Nothing here touches a device. The seam is as narrow as it can be, so that everything above it runs
//! unchanged on the simulator, and so that a fault can be put at any transfer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub mod descriptor;
pub(crate) mod libusb;
pub mod trace;

use descriptor::Strings;

/// A vendor and product number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// idVendor.
    pub vendor: u16,
    /// idProduct.
    pub product: u16,
}

/// The STM32's boot ROM in DFU mode. Every STM32 has this number.
pub const ROM_DFU: Id = Id { vendor: 0x0483, product: 0xDF11 };
/// A running Crazyflie; also ST's number for any virtual serial port.
pub const CRAZYFLIE: Id = Id { vendor: 0x0483, product: 0x5740 };

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

/// Where a device is plugged in: stays the same when it comes back as something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    pub bus: u8,
    /// Port numbers from the root hub to the device; empty for the root hub itself.
    pub ports: Vec<u8>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bus)?;
        for (n, port) in self.ports.iter().enumerate() {
            write!(f, "{}{port}", if n == 0 { '-' } else { '.' })?;
        }
        Ok(())
    }
}

impl FromStr for Location {
    type Err = ();

    /// `BUS-PORT[.PORT…]`, as in `1-1.2`.
    fn from_str(text: &str) -> Result<Location, ()> {
        let (bus, ports) = text.split_once('-').ok_or(())?;
        let ports: Result<Vec<u8>, _> = ports.split('.').map(str::parse::<u8>).collect();
        Ok(Location { bus: bus.parse().map_err(drop)?, ports: ports.map_err(drop)? })
    }
}

/// A device on the bus, as far as it is known without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: Id,
    /// bcdDevice, as in 0x2200.
    pub release: u16,
    /// Where it is plugged in.
    pub location: Location,
    /// The bus's number for this enumeration: changes when the device comes back.
    pub address: u8,
    /// Its names, where the system shows them without opening the device.
    pub names: Option<Strings>,
    /// Whether it is made of software.
    pub simulated: bool,
}

/// The eight bytes that start a control transfer, less the length, which the buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// bmRequestType: direction, type, recipient.
    pub request_type: u8,
    /// bRequest.
    pub request: u8,
    /// wValue.
    pub value: u16,
    /// wIndex.
    pub index: u16,
}

/// A bulk endpoint and the interface that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipe {
    /// bInterfaceNumber.
    pub interface: u8,
    /// bEndpointAddress: bit 7 set for data to the host.
    pub endpoint: u8,
}

/// How a transfer failed, with what that means in DFU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// The device refused the request; its DFU status says why.
    #[error("the device refused the request (stall)")]
    Stall,
    /// No answer within the time limit.
    #[error("no answer in time")]
    Timeout,
    /// The device is gone: unplugged, reset, or started something else.
    #[error("the device is gone")]
    Disconnected,
    /// The system does not let this user talk to the device.
    #[error("no permission")]
    Access,
    /// Another program or driver holds the interface.
    #[error("another program holds the device")]
    Busy,
    /// The transfer failed on the wire: EPROTO, EIO and their like. A burst of these comes before a pulled device is
    /// gone (Linux, Documentation/driver-api/usb/error-codes.rst).
    #[error("the transfer failed on the wire")]
    Io,
    /// Fewer bytes went than were sent.
    #[error("the device took only a part of the transfer")]
    Short,
    /// The system's driver for the device does not do this: in Windows it has another driver than WinUSB.
    #[error("USB error -12")]
    NotSupported,
    /// The interface is not there for programs, mostly for the same reason.
    #[error("USB error -5")]
    NotFound,
    /// Anything else, with libusb's number.
    #[error("USB error {code}")]
    Other {
        /// A libusb error number, negative.
        code: i32,
    },
}

impl TransferError {
    /// A repeat may succeed: the wire or the device had a moment's trouble. Not so where the system forbids it, another
    /// program is in the way, or the device is gone.
    pub(crate) fn is_transient(self) -> bool {
        match self {
            TransferError::Stall
            | TransferError::Timeout
            | TransferError::Io
            | TransferError::Short
            | TransferError::NotSupported
            | TransferError::NotFound
            | TransferError::Other { .. } => true,
            TransferError::Disconnected | TransferError::Access | TransferError::Busy => false,
        }
    }
}

/// How the bus itself failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BusError {
    /// This computer has no USB that a program could use.
    #[error("this computer offers no USB ({0})")]
    NoUsb(String),
    /// The list of devices could not be had.
    #[error("the USB devices could not be listed ({0})")]
    List(String),
}

/// A device that is open. Transfers are synchronous; each has its own time limit.
pub trait Transport: Send {
    /// A control transfer that reads; gives the number of bytes that came.
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError>;
    /// A control transfer that writes; gives the number of bytes that went.
    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError>;
    /// Claims the interface and selects one of its alternate settings.
    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError>;
    /// Reads one packet, at most 64 bytes, from an endpoint whose interface is claimed for it.
    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError>;
    /// Sends one packet to an endpoint whose interface is claimed for it.
    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError>;
}

pub trait Bus: Send + Sync {
    /// What is plugged in now.
    fn list(&self) -> Result<Vec<Found>, BusError>;
    /// Opens a device of that list.
    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError>;
    /// Waits until the list may have changed, at most for `limit`.
    fn wait(&self, limit: Duration);
}

impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        (**self).list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        (**self).open(found)
    }

    fn wait(&self, limit: Duration) {
        (**self).wait(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_reads_as_it_prints() {
        for text in ["1-1", "1-1.2", "3-4.1.7"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1-", "-1", "1-1.", "1-x", "1-256", "256-1", "316D336F3334"] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }
}
