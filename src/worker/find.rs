//! Choosing a device: what is on the bus, which one is meant, and the way of a running Crazyflie into DFU
//! mode and back, followed by its place and its serial number.

use std::time::Duration;

use super::timeline::Part;
use super::{Ctx, Stop};
use crate::crazyflie::{self, Mode, Relative};
use crate::job::{A_CRAZYFLIE, Device, Enter, Event, FailureKind, Job, Other, Selector};
use crate::usb::descriptor::{self, Strings};
use crate::usb::{Bus, BusError, CRAZYFLIE, Found, ROM_DFU, TransferError, Transport};

/// The firmware resets at once; a device that still answers after this has not understood.
const ENTER_LIMIT: Duration = Duration::from_secs(1);
/// From the request until 0483:df11 is there.
const DFU_APPEARS: Duration = Duration::from_secs(10);
/// A device that was asked to restart is off the bus by then.
const GONE: Duration = Duration::from_secs(2);
/// How long udev may take to set the permissions of a device that has just come.
const UDEV: Duration = Duration::from_secs(2);

/// Everything on the bus that may be a Crazyflie. A device that cannot be opened is in the list, with the
/// reason, if its numbers are those of the boot ROM or of a running Crazyflie.
pub fn devices(bus: &dyn Bus) -> Result<Vec<Device>, BusError> {
    let known = |found: &Found| found.id == ROM_DFU || found.id == CRAZYFLIE;
    Ok(bus.list()?.into_iter().filter(known).filter_map(|found| look(bus, &found).ok()?).collect())
}

/// Everything on the bus that is not a Crazyflie, but belongs to one or is taken for one. A device is opened, and
/// asked for its names, only where its numbers are the Crazyflie's: the others may be busy with another tool.
pub fn others(bus: &dyn Bus) -> Result<Vec<Other>, BusError> {
    let named = |found: Found| {
        let names = || {
            let strings = bus.open(&found).and_then(|mut transport| descriptor::strings(&mut *transport));
            strings.unwrap_or_default()
        };
        Some(Other { what: Relative::of(found.id, names)?, id: found.id, location: found.location })
    };
    Ok(bus.list()?.into_iter().filter_map(named).collect())
}

/// What is known of the devices on the bus, for whoever looks at it again and again: reading a device's name opens it, so
/// that is done once, and again only while it may not be opened (udev may be slower).
#[derive(Default)]
pub struct Known {
    /// What each of them is; `None` for one that is no Crazyflie.
    devices: Vec<(Found, Option<Device>)>,
    others: Option<(Vec<Found>, Vec<Other>)>,
}

impl Known {
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

/// What this is, `None` if it is no Crazyflie; an error only if it has gone.
fn look(bus: &dyn Bus, found: &Found) -> Result<Option<Device>, TransferError> {
    let names = bus.open(found).and_then(|mut transport| descriptor::strings(&mut *transport));
    let (mode, strings, closed) = match names {
        Ok(strings) => match Mode::of(found.id, &strings) {
            Some(mode) => (mode, strings, None),
            None => return Ok(None),
        },
        Err(gone @ TransferError::Disconnected) => return Err(gone),
        Err(error) => {
            let mode = if found.id == ROM_DFU { Mode::Dfu } else { Mode::Firmware };
            (mode, Strings::default(), Some(error))
        }
    };
    let Found { id, location, simulated, .. } = found.clone();
    Ok(Some(Device { mode, id, location, strings, simulated, closed }))
}

/// The device that the job means, as it is.
pub(super) fn device(ctx: &mut Ctx<'_>, job: &Job) -> Result<Device, Stop> {
    let mut closed_since = None;
    let device = ctx.wait_for(A_CRAZYFLIE, job.wait, |ctx| match choose(ctx.bus, &job.device) {
        // Somebody may plug one in, or unplug one, until the time is over.
        Err(FailureKind::NoDevice | FailureKind::OnlyOthers(_) | FailureKind::NoMatch(_)) => Ok(None),
        // One that has just come may be opened a moment later.
        Err(kind @ (FailureKind::NoAccess(_) | FailureKind::Held | FailureKind::Open(_))) => {
            let now = ctx.clock.now();
            let waited = now.saturating_sub(*closed_since.get_or_insert(now));
            if waited < UDEV { Ok(None) } else { Err(kind.into()) }
        }
        other => Ok(Some(other?)),
    })?;
    // After the wait the question is asked once more, for the reason.
    let device = match device {
        Some(device) => device,
        None => choose(ctx.bus, &job.device)?,
    };
    let device = with_permission(ctx, device)?;
    ctx.post(Event::Device(device.clone()));
    match device.closed {
        Some(error) => Err(cannot_open(&device, error).into()),
        None => Ok(device),
    }
}

/// The device that the job means, in DFU mode and open; and whether it was brought there.
pub(super) fn dfu_device(ctx: &mut Ctx<'_>, job: &Job) -> Result<(Device, Box<dyn Transport>, bool), Stop> {
    let device = device(ctx, job)?;
    match (device.mode, job.enter) {
        (Mode::Dfu, _) => {
            ctx.report.by_hand = true;
            let transport = open(ctx, &device)?;
            Ok((device, transport, false))
        }
        (Mode::Firmware, Enter::Never) => Err(FailureKind::NotInDfu.into()),
        (Mode::Firmware, Enter::IfRunning) => {
            let device = enter_dfu(ctx, &device)?;
            ctx.post(Event::Device(device.clone()));
            if let Some(error) = device.closed {
                return Err(cannot_open(&device, error).into());
            }
            let transport = open(ctx, &device)?;
            Ok((device, transport, true))
        }
    }
}

/// The one device that is meant, as it is now.
pub fn choose(bus: &dyn Bus, selector: &Selector) -> Result<Device, FailureKind> {
    let mut there = devices(bus)?;
    let none_at_all = there.is_empty();
    // One that cannot be opened does not tell its serial number: it may be the one that is meant.
    let closed = there.iter().find_map(|device| Some(cannot_open(device, device.closed?)));
    there.retain(|device| selector.matches(device));
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

/// Whether it is more than a device's coming or going that keeps it from being opened.
fn is_lasting(error: TransferError) -> bool {
    matches!(error, TransferError::Access | TransferError::Busy)
}

/// The device, looked at again until it can be opened: one that has just come has its permissions from udev
/// a moment later, and may not answer yet.
fn with_permission(ctx: &Ctx<'_>, mut device: Device) -> Result<Device, Stop> {
    let start = ctx.clock.now();
    while device.closed.is_some_and(|error| error != TransferError::Busy)
        && ctx.clock.now().saturating_sub(start) < UDEV
    {
        ctx.clock.sleep(Duration::from_millis(50));
        let again =
            devices(ctx.bus)?.into_iter().find(|d| d.location == device.location && d.id == device.id);
        device = again.unwrap_or(device);
    }
    Ok(device)
}

/// Why a device could not be opened, as a kind of failure.
#[must_use]
pub fn cannot_open(device: &Device, error: TransferError) -> FailureKind {
    match error {
        TransferError::Access => FailureKind::NoAccess(device.id),
        TransferError::Busy => FailureKind::Held,
        other => FailureKind::Open(other),
    }
}

/// Opens the device that is where this one is.
pub(super) fn open(ctx: &Ctx<'_>, device: &Device) -> Result<Box<dyn Transport>, Stop> {
    let found = ctx.bus.list()?.into_iter().find(|f| f.location == device.location && f.id == device.id);
    let opened = found.ok_or(TransferError::Disconnected).and_then(|found| ctx.bus.open(&found));
    Ok(opened.map_err(|error| cannot_open(device, error))?)
}

/// Asks a running Crazyflie to restart in its boot ROM and waits for that. One repeat: the radio chip may
/// hold a pin at the wrong moment, which sends the restart elsewhere.
fn enter_dfu(ctx: &mut Ctx<'_>, running: &Device) -> Result<Device, Stop> {
    ctx.enters(Part::Enter);
    for attempt in 1..=2 {
        ctx.info(if attempt == 1 {
            "Asking the Crazyflie to enter DFU mode ..."
        } else {
            "Asking once more ..."
        });
        let mut transport = open(ctx, running)?;
        // Whatever is plugged in there now: the request goes to a Crazyflie and to nothing else.
        let names = descriptor::strings(&mut *transport).map_err(|error| cannot_open(running, error))?;
        if Mode::of(running.id, &names) != Some(Mode::Firmware) {
            return Err(FailureKind::NoDevice.into());
        }
        let answer = transport.control_out(crazyflie::ENTER_DFU, &[], ENTER_LIMIT);
        drop(transport);
        if answer.is_ok() {
            // It answered: either it is going all the same, or it does not know the request.
            let gone = ctx.wait_for("the Crazyflie to restart", GONE, |ctx| {
                Ok(here(ctx.bus, running)?.is_none_or(|device| device.mode != Mode::Firmware).then_some(()))
            })?;
            if gone.is_none() {
                return Err(FailureKind::TooOld.into());
            }
        }
        let came = ctx.wait_for("DFU mode", DFU_APPEARS, |ctx| {
            Ok(here(ctx.bus, running)?.filter(|device| device.mode == Mode::Dfu))
        })?;
        if let Some(device) = came {
            return with_permission(ctx, device);
        }
        // Nothing to ask a second time if it is not running.
        if here(ctx.bus, running)?.is_none() {
            break;
        }
    }
    Err(FailureKind::DidNotEnter(DFU_APPEARS).into())
}

/// Waits until the drone that was `device` is seen running, or back in DFU mode: with its radio chip in
/// the state that manual entry leaves it in, every reset ends there. The drone, if it runs.
pub(super) fn starts(ctx: &mut Ctx<'_>, device: &Device, limit: Duration) -> Result<Option<Device>, Stop> {
    let mut was_gone = false;
    let seen = ctx.wait_for("the Crazyflie to start", limit, |ctx| {
        let now = here(ctx.bus, device)?;
        was_gone |= now.is_none();
        // One that is on its way out may be listed for a moment longer, and fails in any way when it is asked.
        let answers = |device: &Device| device.closed.is_none_or(is_lasting);
        Ok(now.filter(answers).filter(|device| device.mode == Mode::Firmware || was_gone))
    })?;
    if let Some(device) = &seen {
        ctx.post(Event::Device(device.clone()));
    }
    Ok(seen.filter(|device| device.mode == Mode::Firmware))
}

/// The device that is the same drone as `device`, in whatever mode: by its serial number, which mode
/// changes fold but do not hide, or else by its place.
fn here(bus: &dyn Bus, device: &Device) -> Result<Option<Device>, Stop> {
    let serial = Selector::Serial(device.strings.serial.clone());
    let mut there = devices(bus)?;
    let by_serial = there.iter().position(|d| !device.strings.serial.is_empty() && serial.matches(d));
    let at = by_serial.or_else(|| there.iter().position(|d| d.location == device.location));
    Ok(at.map(|at| there.swap_remove(at)))
}
