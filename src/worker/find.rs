//! Choosing a device: what is on the bus, which one is meant, and the way of a running Crazyflie into DFU
//! mode and back. A drone is followed by the port that it is plugged into; its serial number is a check, since chips of
//! one batch may show the same one in DFU mode.

use std::time::Duration;

use super::timeline::Part;
use super::{Ctx, Stop, Was};
use crate::crazyflie::{self, HIDDEN_SERIAL, Mode, Relative};
use crate::job::{Boot, Device, Enter, Event, FailureKind, Job, LogEntry, Other, Selector, WaitFor};
use crate::usb::descriptor::{self, Strings};
use crate::usb::{Bus, BusError, CRAZYFLIE, Found, Location, ROM_DFU, TransferError, Transport};

/// The firmware resets at once; a device that still answers after this has not understood.
const ENTER_LIMIT: Duration = Duration::from_secs(1);
/// From the request until 0483:df11 is there: typically below one second, more where a virtual machine takes it over.
const DFU_APPEARS: Duration = Duration::from_secs(10);
/// On other F405 boards one request reaches the boot ROM in 0 to 50 % of cases: the ROM takes a wrong clock, resets, and
/// the firmware starts again (CircuitPython PR 11270: 5 of 12). Eight tries at 42 % miss 1.3 %.
const ENTRY_TRIES: u32 = 8;
const ENTRY: Duration = Duration::from_secs(60);
/// A drone that is seen running must still be there after this, with the same address: one whose firmware fails an
/// assertion restarts about every second.
const STAYS: Duration = Duration::from_secs(3);
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

/// What this is, `None` if it is not a Crazyflie; an error only if it has gone. Names that cannot be read hide nothing:
/// what has a Crazyflie's numbers is shown, and not used as one. A device that the system shows to be another is not opened.
fn look(bus: &dyn Bus, found: &Found) -> Result<Option<Device>, TransferError> {
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

/// A device with the numbers of a running Crazyflie that cannot be opened and does not tell its names: it may be any
/// board of ST's.
fn is_doubtful(device: &Device) -> bool {
    device.mode == Mode::Firmware && device.closed.is_some() && device.strings == Strings::default()
}

/// The device that the job means, as it is.
pub(super) fn device(ctx: &mut Ctx<'_>, job: &Job) -> Result<Device, Stop> {
    let mut closed_since = None;
    let mut other_drone = false;
    let device = ctx.wait_for(WaitFor::Crazyflie, job.wait, |ctx| match chosen(ctx.bus, job) {
        // The drone of this job may yet come back to its port.
        Err(kind @ FailureKind::OtherDrone { .. }) if !job.wait.is_zero() => {
            if !std::mem::replace(&mut other_drone, true) {
                ctx.log(LogEntry::LeftAlone(kind));
            }
            Ok(None)
        }
        // Somebody may plug one in, or unplug one, until the time is over.
        Err(FailureKind::NoDevice | FailureKind::OnlyOthers(_) | FailureKind::NoMatch(_)) => {
            closed_since = None;
            Ok(None)
        }
        // It may be another board, and the Crazyflie yet to come.
        Ok(device) if is_doubtful(&device) && !job.wait.is_zero() => Ok(None),
        Err(FailureKind::NoAccess(CRAZYFLIE)) if !job.wait.is_zero() => Ok(None),
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
        None => chosen(ctx.bus, job)?,
    };
    let device = with_permission(ctx, device)?;
    // A device that could not be opened before shows only now which drone it is.
    if let Some(serial) = &job.serial {
        require_same_drone(serial, &device)?;
    }
    ctx.post(Event::Device(device.clone()));
    match device.closed {
        Some(error) => Err(cannot_open(&device, error).into()),
        None => Ok(device),
    }
}

/// The device that the job means, in DFU mode and open; and whether it was brought there.
pub(super) fn dfu_device(ctx: &mut Ctx<'_>, job: &Job) -> Result<(Device, Box<dyn Transport>, bool), Stop> {
    let device = device(ctx, job)?;
    // An earlier job saw it running: only then has it shown its whole serial number.
    let known = job.serial.as_deref().and_then(crazyflie::dfu_serial).is_some();
    ctx.was = match device.mode {
        Mode::Firmware => Was::Running,
        Mode::Dfu if known => Was::Seen,
        Mode::Dfu => Was::InDfu,
    };
    if device.mode == Mode::Dfu {
        ctx.report.by_hand = true;
        let transport = open(ctx, &device)?;
        return Ok((device, transport, false));
    }
    let entered = match job.enter {
        Enter::IfRunning => enter_dfu(ctx, &device, job.wait),
        Enter::Never => Err(FailureKind::NotInDfu.into()),
        Enter::NotAllowed => Err(FailureKind::NoAccess(ROM_DFU).into()),
    };
    let (device, by_hand) = match entered {
        Ok(entered) => (entered, false),
        // Who waits may do by hand what the drone does not do by itself.
        Err(Stop::Failed(
            kind @ (FailureKind::NotInDfu | FailureKind::TooOld | FailureKind::DidNotEnter { .. }),
            _,
        )) if !job.wait.is_zero() => {
            if job.enter == Enter::IfRunning {
                ctx.log(LogEntry::EntryFailed(kind.clone()));
            }
            let came = appears_in_dfu(ctx, &device, job.wait)?;
            (came.ok_or(kind)?, true)
        }
        Err(stop) => return Err(stop),
    };
    ctx.report.by_hand = by_hand;
    ctx.post(Event::Device(device.clone()));
    if let Some(error) = device.closed {
        return Err(cannot_open(&device, error).into());
    }
    let transport = open(ctx, &device)?;
    Ok((device, transport, !by_hand))
}

/// The one device that this job is for: where an earlier job began, the very drone.
fn chosen(bus: &dyn Bus, job: &Job) -> Result<Device, FailureKind> {
    let device = choose(bus, &job.device)?;
    match &job.serial {
        Some(serial) => require_same_drone(serial, &device).map(|()| device),
        None => Ok(device),
    }
}

/// A read-protected chip hides its serial number: it is refused as such later. Any other that does not match, or cannot be
/// read, is another drone.
pub(super) fn require_same_drone(serial: &str, device: &Device) -> Result<(), FailureKind> {
    let shown = &device.strings.serial;
    // What cannot be opened is told by its own name.
    if device.closed.is_some() || shown == HIDDEN_SERIAL || crazyflie::is_same_serial(serial, shown) {
        return Ok(());
    }
    let found = Some(shown.clone()).filter(|shown| !shown.is_empty());
    Err(FailureKind::OtherDrone { port: device.location.clone(), found })
}

/// The one device that is meant, as it is now.
pub fn choose(bus: &dyn Bus, selector: &Selector) -> Result<Device, FailureKind> {
    let mut there = devices(bus)?;
    let none_at_all = there.is_empty();
    // One that cannot be opened does not tell its serial number: it may be the one that is meant.
    let closed = there.iter().find_map(|device| Some(cannot_open(device, device.closed?)));
    there.retain(|device| selector.matches(device));
    // What may be any board yields to what is a Crazyflie.
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
        let again = at(ctx.bus, &device.location)?.filter(|again| again.id == device.id);
        device = again.unwrap_or(device);
    }
    Ok(device)
}

/// Why a device could not be opened, as a kind of failure.
pub fn cannot_open(device: &Device, error: TransferError) -> FailureKind {
    match error {
        TransferError::Access => FailureKind::NoAccess(device.id),
        TransferError::Busy => FailureKind::Held,
        other => FailureKind::Open(other),
    }
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

/// What came of a request to enter DFU mode.
enum Entered {
    Dfu(Device),
    /// The firmware started again instead.
    Missed(Device),
}

/// Asks a running Crazyflie to restart in its boot ROM and waits for that, as often as it comes back in its firmware.
fn enter_dfu(ctx: &mut Ctx<'_>, running: &Device, wait: Duration) -> Result<Device, Stop> {
    ctx.enters(Part::Enter);
    let started = ctx.clock.now();
    let appears = DFU_APPEARS.max(wait);
    let mut drone = running.clone();
    let mut tries = 0;
    for attempt in 1..=ENTRY_TRIES {
        tries = attempt;
        ctx.log(LogEntry::Entering { attempt, tries: ENTRY_TRIES });
        let mut transport = open(ctx, &drone)?;
        // Whatever is plugged in there now: the request goes to a Crazyflie, and to nothing whose name is unknown.
        let names = descriptor::names(&mut *transport).map_err(|error| cannot_open(&drone, error))?;
        if let Some(error) = names.lost {
            return Err(cannot_open(&drone, error).into());
        }
        if Mode::of(drone.id, &names.strings) != Some(Mode::Firmware) {
            return Err(FailureKind::NoDevice.into());
        }
        let answer = transport.control_out(crazyflie::ENTER_DFU, &[], ENTER_LIMIT);
        // It leaves its firmware now, even if the wait for it is cancelled.
        ctx.was = Was::Stopped;
        drop(transport);
        if answer.is_ok() {
            // It answered: either it is going all the same, or it does not know the request.
            let gone = ctx.wait_for(WaitFor::Restart, GONE, |ctx| {
                let there = at(ctx.bus, &drone.location)?;
                Ok(there.is_none_or(|there| there.address != drone.address).then_some(()))
            })?;
            if gone.is_none() {
                ctx.was = Was::Running;
                return Err(FailureKind::TooOld.into());
            }
        }
        let asked = ctx.clock.now();
        let came = ctx.wait_for(WaitFor::DfuMode, appears, |ctx| {
            let there = at(ctx.bus, &drone.location)?;
            // Still the same run: the request was lost on its way.
            let lost = ctx.clock.now().saturating_sub(asked) > GONE;
            Ok(there.and_then(|there| match there.mode {
                Mode::Dfu => Some(Entered::Dfu(there)),
                Mode::Firmware if lost || there.address != drone.address => Some(Entered::Missed(there)),
                Mode::Firmware => None,
            }))
        })?;
        match came {
            Some(Entered::Dfu(device)) => {
                let device = with_permission(ctx, device)?;
                require_same_drone(&running.strings.serial, &device)?;
                return Ok(device);
            }
            Some(Entered::Missed(device)) => {
                ctx.was = Was::Running;
                drone = with_permission(ctx, device)?;
                require_same_drone(&running.strings.serial, &drone)?;
            }
            None => break,
        }
        if ctx.clock.now().saturating_sub(started) > ENTRY {
            break;
        }
    }
    let now = at(ctx.bus, &drone.location)?.map(|there| there.mode);
    if now == Some(Mode::Firmware) {
        ctx.was = Was::Running;
    }
    Err(FailureKind::DidNotEnter { tries, limit: appears, now }.into())
}

/// Waits until this drone is in DFU mode at its port.
fn appears_in_dfu(ctx: &mut Ctx<'_>, drone: &Device, limit: Duration) -> Result<Option<Device>, Stop> {
    let mut warned = false;
    let came = ctx.wait_for(WaitFor::DfuByHand, limit, |ctx| {
        let there = at(ctx.bus, &drone.location)?.filter(|there| there.mode == Mode::Dfu);
        let Some(there) = there else { return Ok(None) };
        match require_same_drone(&drone.strings.serial, &there) {
            Ok(()) => Ok(Some(there)),
            Err(kind) => {
                if !std::mem::replace(&mut warned, true) {
                    ctx.log(LogEntry::LeftAlone(kind));
                }
                Ok(None)
            }
        }
    })?;
    let Some(came) = came else { return Ok(None) };
    let device = with_permission(ctx, came)?;
    require_same_drone(&drone.strings.serial, &device)?;
    Ok(Some(device))
}

/// How a drone started after leave.
pub(super) enum Started {
    /// Seen running; [`stays`] tells whether it goes on.
    Running(Device),
    /// In DFU mode again: with its radio chip in the state that manual entry leaves it in, every reset ends there.
    InDfu,
    Dark,
}

/// Waits until the drone that was `device` is seen running, or back in DFU mode.
pub(super) fn starts(ctx: &mut Ctx<'_>, device: &Device, limit: Duration) -> Result<Started, Stop> {
    let seen = ctx.wait_for(WaitFor::Start, limit, |ctx| {
        let there = at(ctx.bus, &device.location)?.filter(|there| there.address != device.address);
        // One that is still coming up may fail in any way when it is asked.
        let answers = |device: &Device| device.closed.is_none_or(is_lasting);
        Ok(there.filter(answers))
    })?;
    let Some(seen) = seen else { return Ok(Started::Dark) };
    ctx.post(Event::Device(seen.clone()));
    // Another drone that was plugged in there says nothing of the one that was flashed.
    if require_same_drone(&device.strings.serial, &seen).is_err() {
        ctx.log(LogEntry::OtherDroneThere(seen.location));
        return Ok(Started::Dark);
    }
    Ok(if seen.mode == Mode::Firmware { Started::Running(seen) } else { Started::InDfu })
}

/// What a drone does that was seen running: it stays up if it is still there, in the same run, [`STAYS`] after `seen`. One
/// that comes back as anything else has restarted by itself: after a failed assertion the firmware may then sit in its
/// failed self-test, steady on USB, and after manual entry every reset ends in DFU mode.
pub(super) fn stays(ctx: &mut Ctx<'_>, device: &Device, seen: Duration) -> Result<Boot, Stop> {
    let mut gone_since = None;
    let boot = ctx.wait_for(WaitFor::StayUp, STAYS * 3, |ctx| {
        let now = ctx.clock.now();
        let list = ctx.bus.list()?;
        let there = list.iter().find(|found| found.location == device.location);
        Ok(match there {
            Some(there) if (there.id, there.address) == (device.id, device.address) => {
                (now.saturating_sub(seen) >= STAYS).then_some(Boot::StaysUp)
            }
            Some(there) if there.id == CRAZYFLIE || there.id == ROM_DFU => Some(Boot::Restarts),
            // Unplugged, it seems: a restart takes about a second.
            _ => (now.saturating_sub(*gone_since.get_or_insert(now)) >= STAYS).then_some(Boot::NotWatched),
        })
    })?;
    Ok(boot.unwrap_or(Boot::NotWatched))
}

/// What is plugged in at this port, if it may be a Crazyflie.
fn at(bus: &dyn Bus, port: &Location) -> Result<Option<Device>, Stop> {
    let ours = |found: &Found| found.location == *port && (found.id == ROM_DFU || found.id == CRAZYFLIE);
    let found = bus.list()?.into_iter().find(ours);
    Ok(found.and_then(|found| look(bus, &found).ok()?))
}
