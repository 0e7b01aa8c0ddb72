//! The drone at its port: what is there now, whether it may be opened yet, and whether it is still the same drone.

use std::time::Duration;

use super::{Ctx, Stop};
use crate::crazyflie::{self, HIDDEN_SERIAL};
use crate::job::{Device, FailureKind};
use crate::scan::{cannot_open, look};
use crate::usb::{Bus, CRAZYFLIE, Found, Location, ROM_DFU, TransferError, Transport};

/// How long udev may take to set the permissions of a device that has just come.
pub(super) const UDEV: Duration = Duration::from_secs(2);

/// What is plugged in at this port, if it may be a Crazyflie.
pub(super) fn at(bus: &dyn Bus, port: &Location) -> Result<Option<Device>, Stop> {
    let ours = |found: &Found| found.location == *port && (found.id == ROM_DFU || found.id == CRAZYFLIE);
    let found = bus.list()?.into_iter().find(ours);
    Ok(found.and_then(|found| look(bus, &found).ok()?))
}

/// Opens the device that is where this one is, if it is still the same enumeration of it.
pub(super) fn open(ctx: &Ctx<'_>, device: &Device) -> Result<Box<dyn Transport>, Stop> {
    let is_it = |found: &Found| {
        (&found.location, found.id, found.address) == (&device.location, device.id, device.address)
    };
    let found = ctx.bus.list()?.into_iter().find(is_it);
    let opened = found.ok_or(TransferError::Disconnected).and_then(|found| ctx.bus.open(&found));
    Ok(opened.map_err(|error| cannot_open(device, error))?)
}

/// A read-protected chip hides its serial number: it is refused as such later. Any other that does not match, or cannot be
/// read, is another drone.
pub(super) fn require_same_drone(serial: &str, device: &Device) -> Result<(), FailureKind> {
    let shown = &device.strings.serial;
    // A device that cannot be opened shows no serial number: the error of opening it is what is reported.
    if device.closed.is_some() || shown == HIDDEN_SERIAL || crazyflie::is_same_serial(serial, shown) {
        return Ok(());
    }
    let found = Some(shown.clone()).filter(|shown| !shown.is_empty());
    Err(FailureKind::OtherDrone { port: device.location.clone(), found })
}

/// The device, looked at again until it can be opened: one that has just come has its permissions from udev
/// a moment later, and may not answer yet.
pub(super) fn with_permission(ctx: &mut Ctx<'_>, mut device: Device) -> Result<Device, Stop> {
    let start = ctx.clock.now();
    while device.closed.is_some_and(|error| error != TransferError::Busy)
        && ctx.clock.now().saturating_sub(start) < UDEV
    {
        ctx.clock.sleep(Duration::from_millis(50));
        let again = at(ctx.bus, &device.location)?.filter(|again| again.id == device.id);
        device = again.unwrap_or(device);
        ctx.check_cancelled()?;
    }
    Ok(device)
}
