//! Scans the bus for Crazyflies and related devices, and selects a drone. This module only reads descriptors; jobs open
//! their drone in `worker::find`.

use std::collections::HashSet;

use crate::crazyflie::{Mode, RelatedDevice};
use crate::job::{Device, FailureKind, Other, Selector};
use crate::usb::descriptor::{self, Names, Strings};
use crate::usb::{Bus, BusError, CRAZYFLIE, Found, Location, ROM_DFU, TransferError};

/// Lists the possible Crazyflies on the bus. A device with the USB IDs of the boot ROM or of a running Crazyflie is
/// listed even if it cannot be opened, together with the reason.
pub fn list_devices(bus: &dyn Bus) -> Result<Vec<Device>, BusError> {
    devices_while(bus, &mut || true)
}

/// Like [`list_devices`], but stops early once `keep_going` returns false: querying a device that does not answer takes
/// a long time.
fn devices_while(bus: &dyn Bus, keep_going: &mut dyn FnMut() -> bool) -> Result<Vec<Device>, BusError> {
    let candidates = bus.list()?.into_iter().filter(is_candidate).take_while(|_| keep_going());
    Ok(candidates.filter_map(|found| inspect(bus, &found).ok()?).collect())
}

/// Whether a device has the USB IDs of a Crazyflie in one of its modes.
fn is_candidate(found: &Found) -> bool {
    found.id == ROM_DFU || found.id == CRAZYFLIE
}

/// Lists the devices on the bus that are not Crazyflies but belong to one or could be mistaken for one. Only devices
/// with the Crazyflie's USB IDs are opened to read their names: another tool may be using the rest.
pub fn list_related_devices(bus: &dyn Bus) -> Result<Vec<Other>, BusError> {
    Ok(list_related(bus, &bus.list()?))
}

fn list_related(bus: &dyn Bus, list: &[Found]) -> Vec<Other> {
    list.iter().filter_map(|found| other(bus, found).ok()?).collect()
}

/// Returns the related device if `found` is one, or an error if the device's names cannot be read.
fn other(bus: &dyn Bus, found: &Found) -> Result<Option<Other>, TransferError> {
    let mut unread = None;
    let names = || match &found.names {
        Some(names) => names.clone(),
        None => match bus.open(found).and_then(|mut transport| descriptor::names(&mut *transport)) {
            Ok(names) => names.strings,
            Err(error) => {
                unread = Some(error);
                Strings::default()
            }
        },
    };
    let what = RelatedDevice::of(found.id, names);
    match unread {
        Some(error) => Err(error),
        None => Ok(what.map(|what| Other { what, id: found.id, location: found.location.clone() })),
    }
}

/// A cache for repeated scans. To read the names of a device, cfdfu must open it, so it reads them once per
/// device. It tries again only while the device cannot be opened (udev may not have granted access yet).
#[derive(Default)]
pub struct ScanCache {
    /// Each device with the USB IDs of a Crazyflie; `None` if its names show that it is not a Crazyflie.
    devices: Vec<(Found, Option<Device>)>,
    /// Each device that may be a related device; `None` if its names show that it is not related.
    others: Vec<(Found, Option<Other>)>,
}

impl ScanCache {
    /// Returns the results of [`list_devices`] and [`list_related_devices`] without the devices on busy ports. Those
    /// devices are not opened.
    pub fn refresh(
        &mut self,
        bus: &dyn Bus,
        busy: impl FnOnce() -> HashSet<Location>,
    ) -> Result<(Vec<Device>, Vec<Other>), BusError> {
        let list = list_except(bus, busy)?;
        self.update(bus, &list, &HashSet::new());
        self.update_others(bus, &list);
        let devices = self.devices.iter().filter_map(|(_, device)| device.clone()).collect();
        Ok((devices, self.others.iter().filter_map(|(_, other)| other.clone()).collect()))
    }

    /// Returns the drones, except those on busy ports. Drones on the `used` ports are in use by another instance of
    /// cfdfu and are returned as devices that cannot be opened. Devices on busy or used ports are not opened.
    pub(crate) fn drones(
        &mut self,
        bus: &dyn Bus,
        used: impl FnOnce() -> HashSet<Location>,
        busy: impl FnOnce() -> HashSet<Location>,
    ) -> Result<Vec<Device>, BusError> {
        let list = list_except(bus, busy)?;
        self.update(bus, &list, &used());
        Ok(self.devices.iter().filter_map(|(_, device)| device.clone()).collect())
    }

    /// Like [`ScanCache::update`], for related devices.
    fn update_others(&mut self, bus: &dyn Bus, list: &[Found]) {
        self.others.retain(|(found, _)| list.contains(found));
        let is_drone = |found: &Found| {
            let known = self.devices.iter().find(|(known, _)| known == found);
            known.is_some_and(|(_, device)| device.is_some())
        };
        for found in list.iter().filter(|found| RelatedDevice::is_possible(found.id) && !is_drone(found)) {
            if self.others.iter().all(|(known, _)| known != found)
                && let Ok(other) = other(bus, found)
            {
                self.others.push((found.clone(), other));
            }
        }
        let place = |found: &Found| list.iter().position(|other| other == found);
        self.others.sort_by_key(|(found, _)| place(found));
    }

    /// Identifies the new devices in this list, and drops the known devices that are not in the list.
    fn update(&mut self, bus: &dyn Bus, list: &[Found], used: &HashSet<Location>) {
        let is_open =
            |device: &Option<Device>| device.as_ref().is_none_or(|device| device.open_error.is_none());
        self.devices.retain(|(found, device)| list.contains(found) && is_open(device));
        for found in list.iter().filter(|found| is_candidate(found)) {
            let is_used = used.contains(&found.location);
            let identify =
                || if is_used { device(found, || Err(TransferError::Busy)) } else { inspect(bus, found) };
            if self.devices.iter().all(|(known, _)| known != found)
                && let Ok(device) = identify()
            {
                self.devices.push((found.clone(), device));
            }
        }
        let place = |found: &Found| list.iter().position(|other| other == found);
        self.devices.sort_by_key(|(found, _)| place(found));
    }
}

/// Lists the devices on the bus, except those on busy ports. The busy ports are read last, so they are certain to
/// include the port of a drone that has restarted since its job began.
fn list_except(bus: &dyn Bus, busy: impl FnOnce() -> HashSet<Location>) -> Result<Vec<Found>, BusError> {
    let mut list = bus.list()?;
    let busy = busy();
    list.retain(|found| !busy.contains(&found.location));
    Ok(list)
}

/// Identifies a device. Returns `None` if the device is not a Crazyflie, and an error only if it has disconnected.
///
/// A device that has a Crazyflie's USB IDs, but whose names cannot be read, is returned with the error: the device is
/// listed but not used. If the system already knows the names, and the names are not a Crazyflie's, the device is not
/// opened.
pub(crate) fn inspect(bus: &dyn Bus, found: &Found) -> Result<Option<Device>, TransferError> {
    device(found, || bus.open(found).and_then(|mut transport| descriptor::names(&mut *transport)))
}

/// Like [`inspect`], but gets the names from `read`.
fn device(
    found: &Found,
    read: impl FnOnce() -> Result<Names, TransferError>,
) -> Result<Option<Device>, TransferError> {
    let mode_by_id = if found.id == ROM_DFU { Mode::Dfu } else { Mode::Firmware };
    if found.names.as_ref().is_some_and(|names| Mode::of(found.id, names).is_none()) {
        return Ok(None);
    }
    let known = || found.names.clone().unwrap_or_default();
    let (mode, strings, open_error) = match read() {
        Ok(names) => match (Mode::of(found.id, &names.strings), names.lost) {
            // The boot ROM is recognised by its USB IDs alone.
            (Some(mode @ Mode::Dfu), _) | (Some(mode), None) => (mode, names.strings, None),
            (_, Some(error)) => (mode_by_id, names.strings, Some(error)),
            (None, None) => return Ok(None),
        },
        Err(error @ TransferError::Disconnected) => return Err(error),
        Err(error) => (mode_by_id, known(), Some(error)),
    };
    let Found { id, location, address, simulated, .. } = found.clone();
    Ok(Some(Device { mode, id, location, address, strings, simulated, open_error }))
}

/// Finds the selected device.
pub fn choose_device(bus: &dyn Bus, selector: &Selector) -> Result<Device, FailureKind> {
    choose_while(bus, selector, &mut || true)
}

/// Like [`choose_device`], but stops early once `keep_going` returns false. The result is then meaningless.
pub(crate) fn choose_while(
    bus: &dyn Bus,
    selector: &Selector,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Device, FailureKind> {
    // Do not open devices on other ports: another job may be using one of them, and the query would have to wait.
    if let Selector::At(port) = selector {
        let list = bus.list()?;
        let here: Vec<Found> = list.iter().filter(|found| found.location == *port).cloned().collect();
        let device =
            here.iter().find(|found| is_candidate(found)).and_then(|found| inspect(bus, found).ok()?);
        if let Some(device) = device {
            return Ok(device);
        }
        let others = list_related(bus, &here);
        return Err(match others.is_empty() {
            false => FailureKind::OnlyOthers(others),
            true if list.iter().any(is_candidate) => FailureKind::NoMatch(selector.to_string()),
            true => FailureKind::NoDevice,
        });
    }
    let mut present = devices_while(bus, keep_going)?;
    if !keep_going() {
        return Err(FailureKind::NoDevice);
    }
    let none_present = present.is_empty();
    // A device that cannot be opened does not report its serial number, so it may be the selected device.
    let open_error =
        present.iter().find_map(|device| Some(FailureKind::cannot_open(device.id, device.open_error?)));
    present.retain(|device| selector.matches(device));
    // Drop doubtful devices if at least one device is certainly a Crazyflie.
    if present.iter().any(|device| !device.is_doubtful()) {
        present.retain(|device| !device.is_doubtful());
    }
    match present.len() {
        0 if none_present || *selector == Selector::Only => match list_related_devices(bus)? {
            others if others.is_empty() => Err(FailureKind::NoDevice),
            others => Err(FailureKind::OnlyOthers(others)),
        },
        0 => match (selector, open_error) {
            (Selector::Serial(_), Some(open_error)) => Err(open_error),
            _ => Err(FailureKind::NoMatch(selector.to_string())),
        },
        1 => Ok(present.remove(0)),
        _ => Err(FailureKind::Several(present)),
    }
}
