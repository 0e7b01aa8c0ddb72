//! A drone that restarts: from its firmware into DFU mode, out of DFU mode into its firmware, and whether it stays up. It is
//! followed by its port, and each time it comes back its serial number is checked.

use std::time::Duration;

use super::port::{at, open, require_same_drone, with_permission};
use super::session::Session;
use super::timeline::Part;
use super::{Ctx, Stop, Was, running};
use crate::crazyflie::{self, Mode, RomVersion};
use crate::flash::Address;
use crate::job::{Boot, Device, FailureKind, LogEntry, WaitFor};
use crate::scan::cannot_open;
use crate::usb::{CRAZYFLIE, ROM_DFU, TransferError, descriptor};

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
/// After leave the drone is looked for at most this long.
const APPEARS: Duration = Duration::from_secs(10);
/// A drone that is seen running has this long to say what it runs.
const PROOF: Duration = Duration::from_secs(3);

/// What came of a request to enter DFU mode.
enum Entered {
    Dfu(Device),
    /// The firmware started again instead.
    Missed(Device),
}

/// Asks a running Crazyflie to restart in its boot ROM and waits for that, as often as it comes back in its firmware.
pub(super) fn enter_dfu(ctx: &mut Ctx<'_>, running: &Device, wait: Duration) -> Result<Device, Stop> {
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
        let names = descriptor::names(&mut *transport);
        ctx.check_cancelled()?;
        let names = names.map_err(|error| cannot_open(&drone, error))?;
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
pub(super) fn appears_in_dfu(
    ctx: &mut Ctx<'_>,
    drone: &Device,
    limit: Duration,
) -> Result<Option<Device>, Stop> {
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
enum Started {
    /// Seen running; [`stays`] tells whether it goes on.
    Running(Device),
    /// In DFU mode again: with its radio chip in the state that manual entry leaves it in, every reset ends there.
    InDfu,
    Dark,
}

/// Waits until the drone that was `device` is seen running, or back in DFU mode.
fn starts(ctx: &mut Ctx<'_>, device: &Device, limit: Duration) -> Result<Started, Stop> {
    let seen = ctx.wait_for(WaitFor::Start, limit, |ctx| {
        let there = at(ctx.bus, &device.location)?.filter(|there| there.address != device.address);
        // One that is still coming up may fail in any way when it is asked.
        let answers = |device: &Device| device.closed.is_none_or(is_lasting);
        Ok(there.filter(answers))
    })?;
    let Some(seen) = seen else { return Ok(Started::Dark) };
    ctx.use_device(seen.clone());
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
fn stays(ctx: &mut Ctx<'_>, device: &Device, seen: Duration) -> Result<Boot, Stop> {
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

/// What came of a restart.
pub(super) struct Restarted {
    pub(super) rom: Option<RomVersion>,
    pub(super) boot: Boot,
    /// The version that it says it runs.
    pub(super) runs: Option<String>,
}

/// Leaves DFU mode for the program at `address`, or with a reset if `address` is blank, and looks whether the drone comes
/// up and stays up.
pub(super) fn restart(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    device: &Device,
    address: Address,
) -> Restarted {
    ctx.enters(Part::Restart);
    let rom = session.rom_version(ctx).unwrap_or(None);
    ctx.log(LogEntry::Rom(rom));
    let dark = Restarted { rom, boot: Boot::NotSeen, runs: None };
    let left = session.leave(ctx, address);
    // It is expected to disconnect now.
    ctx.at = None;
    match left {
        Err(Stop::Failed(FailureKind::Dfu(error), _)) if error.is_disconnect() => {}
        Err(Stop::Failed(kind, _)) => {
            ctx.log(LogEntry::NotLeft(kind));
            return dark;
        }
        Ok(()) | Err(Stop::Cancelled) => {}
    }
    // A cancel brought us here or means nothing any more; one that comes now ends the wait.
    ctx.cancelled = false;
    let left = ctx.clock.now();
    let started = starts(ctx, device, APPEARS).unwrap_or(Started::Dark);
    let Started::Running(running) = started else {
        // The job was done; looking for a drone that stays dark is not its time.
        ctx.idle += ctx.clock.now().saturating_sub(left);
        return dark;
    };
    ctx.was = Was::Running;
    let seen = ctx.clock.now();
    // The version is optional: stop asking after PROOF.
    let runs = running::ask(ctx, &running, PROOF).version;
    if let Some(version) = &runs {
        ctx.log(LogEntry::Runs(version.clone()));
    }
    // The job is done: to watch whether the drone stays up is not its time.
    let watched = ctx.clock.now();
    // A cancel skips it.
    let boot = stays(ctx, &running, seen).unwrap_or(Boot::NotWatched);
    ctx.cancelled = false;
    ctx.idle += ctx.clock.now().saturating_sub(watched);
    Restarted { rom, boot, runs }
}

/// Whether it is more than a device's coming or going that keeps it from being opened.
fn is_lasting(error: TransferError) -> bool {
    matches!(error, TransferError::Access | TransferError::Busy)
}
