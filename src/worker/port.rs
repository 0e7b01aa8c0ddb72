//! Finds the device on a port, waits until udev permits access to the device, opens it, and checks that it is still the
//! same drone.

use std::time::Duration;

use super::{Ctx, Stop};
use crate::crazyflie::{self, HIDDEN_SERIAL};
use crate::job::{Device, FailureKind};
use crate::scan::inspect;
use crate::usb::{Bus, CRAZYFLIE, Found, Location, ROM_DFU, TransferError, Transport, UDEV};

/// Returns the device on this port, if the device may be a Crazyflie.
pub(super) fn device_at(bus: &dyn Bus, port: &Location) -> Result<Option<Device>, Stop> {
    let matches = |found: &Found| found.location == *port && (found.id == ROM_DFU || found.id == CRAZYFLIE);
    let found = bus.list()?.into_iter().find(matches);
    Ok(found.and_then(|found| inspect(bus, &found).ok()?))
}

/// Opens `device`. Fails if the device has re-enumerated since it was listed.
pub(super) fn open(ctx: &Ctx<'_>, device: &Device) -> Result<Box<dyn Transport>, Stop> {
    let is_same_device = |found: &Found| {
        (&found.location, found.id, found.address) == (&device.location, device.id, device.address)
    };
    let found = ctx.bus.list()?.into_iter().find(is_same_device);
    let opened = found.ok_or(TransferError::Disconnected).and_then(|found| ctx.bus.open(&found));
    Ok(opened.map_err(|error| FailureKind::cannot_open(device.id, error))?)
}

/// Fails unless `device` is the drone with this serial number. A missing serial number does not match. Two kinds of
/// device pass this check regardless of their serial number: a device that cannot be opened, and a read-protected chip,
/// which hides its serial number, but which no job can read or write.
pub(super) fn require_same_drone(serial: &str, device: &Device) -> Result<(), FailureKind> {
    let shown = &device.strings.serial;
    // The serial number of a device that cannot be opened is unknown. The job will report the open error instead.
    if device.open_error.is_some() || shown == HIDDEN_SERIAL || crazyflie::is_same_serial(serial, shown) {
        return Ok(());
    }
    let found = Some(shown.clone()).filter(|shown| !shown.is_empty());
    Err(FailureKind::OtherDrone { port: device.location.clone(), found })
}

/// Inspects a device repeatedly until it can be opened, for at most [`UDEV`]. A new device may not answer at first, and
/// udev sets the device's permissions a moment after the device appears. Does not wait for a device that another
/// program is using.
pub(super) fn wait_for_permission(ctx: &mut Ctx<'_>, mut device: Device) -> Result<Device, Stop> {
    let start = ctx.clock.now();
    while device.open_error.is_some_and(|error| error != TransferError::Busy)
        && ctx.clock.now().saturating_sub(start) < UDEV
    {
        ctx.clock.sleep(Duration::from_millis(50));
        let again = device_at(ctx.bus, &device.location)?.filter(|again| again.id == device.id);
        device = again.unwrap_or(device);
        ctx.check_cancelled()?;
    }
    Ok(device)
}
