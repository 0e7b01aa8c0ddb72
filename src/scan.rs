//! Who is on the bus: the devices that may be a Crazyflie, those that are taken for one, and which of them is selected.
//! Looks, and changes nothing. How a job gets at its drone is in `worker::find`.

use crate::crazyflie::{Mode, Relative};
use crate::job::{Device, FailureKind, Other, Selector};
use crate::usb::descriptor::{self, Strings};
use crate::usb::{Bus, BusError, CRAZYFLIE, Found, ROM_DFU, TransferError};

/// Everything on the bus that may be a Crazyflie. A device that cannot be opened is in the list, with the
/// reason, if its numbers are those of the boot ROM or of a running Crazyflie.
pub fn devices(bus: &dyn Bus) -> Result<Vec<Device>, BusError> {
    devices_while(bus, &mut || true)
}

/// The same, for whoever may lose interest while silent devices are asked: it ends early when `go_on` says no.
fn devices_while(bus: &dyn Bus, go_on: &mut dyn FnMut() -> bool) -> Result<Vec<Device>, BusError> {
    let known = |found: &Found| found.id == ROM_DFU || found.id == CRAZYFLIE;
    let asked = bus.list()?.into_iter().filter(known).take_while(|_| go_on());
    Ok(asked.filter_map(|found| look(bus, &found).ok()?).collect())
}

/// Everything on the bus that is not a Crazyflie, but belongs to one or is taken for one. A device is opened, and
/// asked for its names, only where its numbers are the Crazyflie's: the others may be busy with another tool.
pub fn others(bus: &dyn Bus) -> Result<Vec<Other>, BusError> {
    let named = |found: Found| {
        let names = || {
            let read = || bus.open(&found).and_then(|mut transport| descriptor::names(&mut *transport));
            found.names.clone().unwrap_or_else(|| read().unwrap_or_default().strings)
        };
        Some(Other { what: Relative::of(found.id, names)?, id: found.id, location: found.location })
    };
    Ok(bus.list()?.into_iter().filter_map(named).collect())
}

/// What is known of the devices on the bus, for whoever looks at it again and again: reading a device's name opens it, so
/// that is done once, and again only while it may not be opened (udev may be slower).
#[derive(Default)]
pub struct ScanCache {
    /// What each of them is; `None` for one that is no Crazyflie.
    devices: Vec<(Found, Option<Device>)>,
    others: Option<(Vec<Found>, Vec<Other>)>,
}

impl ScanCache {
    /// What [`devices`] and [`others`] would say.
    pub fn look(&mut self, bus: &dyn Bus) -> Result<(Vec<Device>, Vec<Other>), BusError> {
        let list = bus.list()?;
        let is_open = |device: &Option<Device>| device.as_ref().is_none_or(|device| device.closed.is_none());
        self.devices.retain(|(found, device)| list.contains(found) && is_open(device));
        let ours = |found: &&Found| found.id == ROM_DFU || found.id == CRAZYFLIE;
        for found in list.iter().filter(ours) {
            if self.devices.iter().all(|(known, _)| known != found)
                && let Ok(device) = look(bus, found)
            {
                self.devices.push((found.clone(), device));
            }
        }
        let place = |found: &Found| list.iter().position(|other| other == found);
        self.devices.sort_by_key(|(found, _)| place(found));
        let relatives: Vec<Found> =
            list.iter().filter(|found| Relative::is_possible(found.id)).cloned().collect();
        let others = match &self.others {
            Some((known, others)) if *known == relatives => others.clone(),
            _ => others(bus)?,
        };
        self.others = Some((relatives, others.clone()));
        Ok((self.devices.iter().filter_map(|(_, device)| device.clone()).collect(), others))
    }
}

/// What this is, `None` if it is not a Crazyflie; an error only if it has gone. Names that cannot be read hide nothing:
/// what has a Crazyflie's numbers is shown, and not used as one. A device that the system shows to be another is not opened.
pub(crate) fn look(bus: &dyn Bus, found: &Found) -> Result<Option<Device>, TransferError> {
    let mode_by_id = if found.id == ROM_DFU { Mode::Dfu } else { Mode::Firmware };
    if found.names.as_ref().is_some_and(|names| Mode::of(found.id, names).is_none()) {
        return Ok(None);
    }
    let known = || found.names.clone().unwrap_or_default();
    let names = bus.open(found).and_then(|mut transport| descriptor::names(&mut *transport));
    let (mode, strings, closed) = match names {
        Ok(names) => match (Mode::of(found.id, &names.strings), names.lost) {
            // The boot ROM is told by its numbers.
            (Some(mode @ Mode::Dfu), _) | (Some(mode), None) => (mode, names.strings, None),
            (_, Some(error)) => (mode_by_id, names.strings, Some(error)),
            (None, None) => return Ok(None),
        },
        Err(gone @ TransferError::Disconnected) => return Err(gone),
        Err(error) => (mode_by_id, known(), Some(error)),
    };
    let Found { id, location, address, simulated, .. } = found.clone();
    Ok(Some(Device { mode, id, location, address, strings, simulated, closed }))
}

/// The one device that is meant, as it is now.
pub fn choose(bus: &dyn Bus, selector: &Selector) -> Result<Device, FailureKind> {
    choose_while(bus, selector, &mut || true)
}

/// The same; when `go_on` says no, the answer is quick and means nothing.
pub(crate) fn choose_while(
    bus: &dyn Bus,
    selector: &Selector,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Device, FailureKind> {
    let mut there = devices_while(bus, go_on)?;
    if !go_on() {
        return Err(FailureKind::NoDevice);
    }
    let none_at_all = there.is_empty();
    // One that cannot be opened does not tell its serial number: it may be the one that is meant.
    let closed = there.iter().find_map(|device| Some(cannot_open(device, device.closed?)));
    there.retain(|device| selector.matches(device));
    // If any of them is certainly a Crazyflie, the doubtful ones are dropped.
    if there.iter().any(|device| !is_doubtful(device)) {
        there.retain(|device| !is_doubtful(device));
    }
    match there.len() {
        0 if none_at_all || *selector == Selector::Only => match others(bus)? {
            none if none.is_empty() => Err(FailureKind::NoDevice),
            others => Err(FailureKind::OnlyOthers(others)),
        },
        0 => match (selector, closed) {
            (Selector::Serial(_), Some(closed)) => Err(closed),
            _ => Err(FailureKind::NoMatch(selector.to_string())),
        },
        1 => Ok(there.remove(0)),
        _ => Err(FailureKind::Several(there)),
    }
}

/// Why a device could not be opened, as a kind of failure.
pub(crate) fn cannot_open(device: &Device, error: TransferError) -> FailureKind {
    match error {
        TransferError::Access => FailureKind::NoAccess(device.id),
        TransferError::Busy => FailureKind::Held,
        other => FailureKind::Open(other),
    }
}

/// A device with the numbers of a running Crazyflie that cannot be opened and does not tell its names: it may be any
/// board of ST's.
pub(crate) fn is_doubtful(device: &Device) -> bool {
    device.mode == Mode::Firmware && device.closed.is_some() && device.strings == Strings::default()
}
