//! USB types: devices, transfers, transfer errors, and the [`Bus`] and [`Transport`] traits that the real bus
//! ([`libusb`]) and the simulated bus implement.
//!
//! This file does not access any device. The traits are small, so that all code above the traits runs unchanged on the
//! simulator, and a test can inject a fault into any transfer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub mod descriptor;
pub(crate) mod libusb;
pub mod trace;

use descriptor::Strings;

/// A vendor ID and a product ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// idVendor.
    pub vendor: u16,
    /// idProduct.
    pub product: u16,
}

/// The time that udev may need to set the permissions of a new device.
pub(crate) const UDEV: Duration = Duration::from_secs(2);

/// The STM32's boot ROM in DFU mode. Every STM32 uses this ID.
pub const ROM_DFU: Id = Id { vendor: 0x0483, product: 0xDF11 };
/// A running Crazyflie. ST's generic virtual serial port uses the same ID.
pub const CRAZYFLIE: Id = Id { vendor: 0x0483, product: 0x5740 };

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

/// Where a device is plugged in. The location does not change when the device re-enumerates in another mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    pub bus: u8,
    /// Port numbers from the root hub to the device; empty for the root hub itself.
    pub ports: Vec<u8>,
}

impl Location {
    /// Returns the location of the hub that the device is plugged into; the root hub for a port of the computer.
    pub(crate) fn hub(&self) -> Location {
        let ports = self.ports.split_last().map_or(&[][..], |(_, hub)| hub);
        Location { bus: self.bus, ports: ports.to_vec() }
    }
}

/// Returns the approximate time to flash this many drones at once over one full-speed wire, as a multiple of the time
/// for one drone. Erases overlap, but transfers do not: from the fifth drone onwards, each drone adds a seventh of the
/// time for one drone (docs/speed.md). Returns `None` for fewer than five drones, which take barely longer than one.
pub(crate) fn times_on_one_wire(drones: usize) -> Option<f64> {
    let count = u32::try_from(drones).unwrap_or(u32::MAX);
    (drones >= 5).then(|| 0.46 + 0.1375 * f64::from(count))
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

    /// Parses `BUS-PORT[.PORT…]`, for example `1-1.2`.
    fn from_str(text: &str) -> Result<Location, ()> {
        let (bus, ports) = text.split_once('-').ok_or(())?;
        let ports: Result<Vec<u8>, _> = ports.split('.').map(str::parse::<u8>).collect();
        Ok(Location { bus: bus.parse().map_err(drop)?, ports: ports.map_err(drop)? })
    }
}

/// A device on the bus, described without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: Id,
    /// bcdDevice, for example 0x2200.
    pub release: u16,
    pub location: Location,
    /// The device address. The host assigns a new address in each enumeration.
    pub address: u8,
    /// The device's names, if the operating system provides them without opening the device.
    pub names: Option<Strings>,
    /// Simulated, not real hardware.
    pub simulated: bool,
}

/// The setup packet of a control transfer. wLength is omitted because it is the length of the buffer.
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

/// A bulk endpoint and its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipe {
    /// bInterfaceNumber.
    pub interface: u8,
    /// bEndpointAddress. Bit 7 is set for device to host.
    pub endpoint: u8,
}

/// The reason why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// The device refused the request. Its DFU status gives the reason.
    #[error("the device refused the request (stall)")]
    Stall,
    /// The device did not answer within the time limit.
    #[error("no answer in time")]
    Timeout,
    /// The device is no longer on the bus: it was unplugged, was reset, or started another program.
    #[error("the device disconnected")]
    Disconnected,
    /// The operating system denies this user access to the device.
    #[error("permission denied")]
    Access,
    /// Another program or driver has claimed the interface.
    #[error("another program is using the device")]
    Busy,
    /// The transfer failed on the wire: EPROTO, EIO and similar errors. When a device is unplugged, transfers fail this
    /// way for a moment before the system reports the disconnect (Linux, Documentation/driver-api/usb/error-codes.rst).
    #[error("the transfer failed on the wire")]
    Io,
    /// The device accepted fewer bytes than were sent, or sent less than its whole configuration descriptor.
    #[error("only part of the data was transferred")]
    Short,
    /// The device's driver does not support the transfer. On Windows, the device has a driver other than WinUSB.
    #[error("USB error -12")]
    NotSupported,
    /// The interface is not available to programs, usually for the same reason as [`TransferError::NotSupported`].
    #[error("USB error -5")]
    NotFound,
    /// Any other error, with libusb's error number.
    #[error("USB error {code}")]
    Other {
        /// A libusb error number, negative.
        code: i32,
    },
}

impl TransferError {
    /// Returns whether a retry may succeed. A retry is useless if the system denies access, another program is using
    /// the device, or the device has disconnected.
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

/// The reason why the bus itself failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BusError {
    /// No program can use USB on this computer.
    #[error("USB is not available on this computer ({0})")]
    NoUsb(String),
    #[error("cannot list the USB devices ({0})")]
    List(String),
}

/// An open device. Transfers are synchronous, and each has its own time limit.
pub trait Transport: Send {
    /// Performs a control transfer from the device. Returns the number of bytes read.
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError>;
    /// Performs a control transfer to the device. Returns the number of bytes written.
    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError>;
    /// Claims the interface and selects one of its alternate settings.
    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError>;
    /// Claims the interface and reads one packet of at most 64 bytes.
    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError>;
    /// Claims the interface and sends one packet.
    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError>;
}

pub trait Bus: Send + Sync {
    /// Lists the devices that are currently plugged in.
    fn list(&self) -> Result<Vec<Found>, BusError>;
    /// Opens a listed device.
    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError>;
    /// Waits until the list may have changed, for at most `limit`.
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
    fn a_location_can_be_parsed_from_its_text_and_other_text_is_rejected() {
        for text in ["1-1", "1-1.2", "3-4.1.7"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1-", "-1", "1-1.", "1-x", "1-256", "256-1", "316D336F3334"] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }
}
