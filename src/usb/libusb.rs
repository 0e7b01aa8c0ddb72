//! The real bus. This is the only file that uses `rusb`.
//!
//! [`Libusb`] creates its own libusb context because the global context panics on a kernel without USB. libusb prints
//! its own messages only if the user sets `LIBUSB_DEBUG`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use rusb::{Context, Device, DeviceHandle, Hotplug, HotplugBuilder, Registration, UsbContext};

use super::descriptor::{Strings, clean};
use super::{Bus, BusError, CRAZYFLIE, Found, Id, Location, Pipe, Setup, TransferError, Transport};

/// The longest [`Bus::wait`], for systems without hot-plug notifications.
const POLL: Duration = Duration::from_millis(250);

pub(crate) struct Libusb {
    context: Context,
    /// Keeps the hot-plug callback registered. Hot-plug events end a wait.
    _arrivals: Mutex<Option<Registration<Context>>>,
}

impl Libusb {
    /// Opens libusb and registers for hot-plug events if the system reports them.
    pub(crate) fn new() -> Result<Libusb, BusError> {
        let context = Context::new().map_err(|error| BusError::NoUsb(error.to_string()))?;
        let arrivals = if rusb::has_hotplug() {
            HotplugBuilder::new().register(&context, Box::new(HotplugCallback)).ok()
        } else {
            None
        };
        Ok(Libusb { context, _arrivals: Mutex::new(arrivals) })
    }

    fn devices(&self) -> Result<Vec<Device<Context>>, BusError> {
        let list = self.context.devices().map_err(|error| BusError::List(error.to_string()))?;
        Ok(list.iter().collect())
    }
}

/// The callbacks are empty, because every event makes `handle_events` return.
struct HotplugCallback;

impl Hotplug<Context> for HotplugCallback {
    fn device_arrived(&mut self, _: Device<Context>) {}
    fn device_left(&mut self, _: Device<Context>) {}
}

impl Bus for Libusb {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        // A device that disconnects during the scan is omitted.
        Ok(self.devices()?.iter().filter_map(describe).collect())
    }

    fn open(&self, wanted: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let devices = self.devices().map_err(|_| TransferError::Disconnected)?;
        let is_wanted = |device: &&Device<Context>| {
            let same = |it: Found| {
                (it.id, it.location, it.address) == (wanted.id, wanted.location.clone(), wanted.address)
            };
            describe(device).is_some_and(same)
        };
        let device = devices.iter().find(is_wanted);
        let handle = device.ok_or(TransferError::Disconnected)?.open().map_err(convert_error)?;
        Ok(Box::new(LibusbTransport { handle, claimed: None }))
    }

    fn wait(&self, limit: Duration) {
        // Return after POLL at the latest, because hot-plug notifications may be missing.
        let limit = limit.min(POLL);
        sleep_if_failed(self.context.handle_events(Some(limit)), limit);
    }
}

/// Sleeps for `limit` if libusb's wait failed. A failed wait returns at once, and a caller that waits in a loop would
/// spin.
fn sleep_if_failed(waited: rusb::Result<()>, limit: Duration) {
    if waited.is_err()
        && let Ok(guard) = Mutex::new(()).lock()
    {
        let _ = Condvar::new().wait_timeout(guard, limit);
    }
}

fn describe(device: &Device<Context>) -> Option<Found> {
    let descriptor = device.device_descriptor().ok()?;
    let release = descriptor.device_version();
    let id = Id { vendor: descriptor.vendor_id(), product: descriptor.product_id() };
    let location = Location { bus: device.bus_number(), ports: device.port_numbers().unwrap_or_default() };
    Some(Found {
        id,
        release: u16::from(release.major()) << 8
            | u16::from(release.minor()) << 4
            | u16::from(release.sub_minor()),
        names: if id == CRAZYFLIE { read_names(&location, device.address()) } else { None },
        location,
        address: device.address(),
        simulated: false,
    })
}

/// Returns the names that Linux recorded when the device was plugged in. Any user can read these names, even without
/// permission to open the device.
fn read_names(location: &Location, address: u8) -> Option<Strings> {
    const LONGEST: u64 = 1024;
    let folder = Path::new("/sys/bus/usb/devices").join(location.to_string());
    let read = |name: &str| {
        let mut text = Vec::new();
        File::open(folder.join(name)).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
        Some(clean(&String::from_utf8_lossy(&text)))
    };
    let (manufacturer, product) = (read("manufacturer")?, read("product")?);
    let strings = Strings { manufacturer, product, serial: read("serial").unwrap_or_default() };
    // Read devnum last: an unchanged devnum proves that the names belong to this enumeration.
    (read("devnum")?.parse() == Ok(address)).then_some(strings)
}

struct LibusbTransport {
    handle: DeviceHandle<Context>,
    claimed: Option<u8>,
}

impl Transport for LibusbTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let Setup { request_type, request, value, index } = setup;
        self.handle.read_control(request_type, request, value, index, buffer, limit).map_err(convert_error)
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let Setup { request_type, request, value, index } = setup;
        self.handle.write_control(request_type, request, value, index, data, limit).map_err(convert_error)
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        self.claim(interface)?;
        self.handle.set_alternate_setting(interface, alternate).map_err(convert_error)
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.claim(pipe.interface)?;
        self.handle.read_bulk(pipe.endpoint, buffer, limit).map_err(convert_error)
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.claim(pipe.interface)?;
        self.handle.write_bulk(pipe.endpoint, data, limit).map_err(convert_error)
    }
}

impl LibusbTransport {
    fn claim(&mut self, interface: u8) -> Result<(), TransferError> {
        if self.claimed != Some(interface) {
            self.handle.claim_interface(interface).map_err(convert_error)?;
            self.claimed = Some(interface);
        }
        Ok(())
    }
}

fn convert_error(error: rusb::Error) -> TransferError {
    match error {
        rusb::Error::Pipe => TransferError::Stall,
        rusb::Error::Timeout => TransferError::Timeout,
        rusb::Error::NoDevice => TransferError::Disconnected,
        rusb::Error::NotFound => TransferError::NotFound,
        rusb::Error::Access => TransferError::Access,
        rusb::Error::Busy => TransferError::Busy,
        rusb::Error::Io => TransferError::Io,
        rusb::Error::InvalidParam => TransferError::Other { code: -2 },
        rusb::Error::Overflow => TransferError::Other { code: -8 },
        rusb::Error::Interrupted => TransferError::Other { code: -10 },
        rusb::Error::NoMem => TransferError::Other { code: -11 },
        rusb::Error::NotSupported => TransferError::NotSupported,
        rusb::Error::BadDescriptor | rusb::Error::Other => TransferError::Other { code: -99 },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A failed wait must take the full time, or the caller's loop would spin.
    #[test]
    fn a_failed_wait_still_takes_its_full_time() {
        let limit = Duration::from_millis(30);
        for failure in [rusb::Error::Io, rusb::Error::Interrupted, rusb::Error::Other] {
            let started = Instant::now();
            // A condition variable may wake spuriously, but not three times in a row.
            (0..3).for_each(|_| sleep_if_failed(Err(failure), limit));
            assert!(started.elapsed() >= limit, "{failure}");
        }
        let started = Instant::now();
        sleep_if_failed(Ok(()), Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
