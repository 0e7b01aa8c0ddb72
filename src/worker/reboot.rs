//! Restarts the drone, from its firmware into DFU mode and back. The drone is tracked by its port, and its serial
//! number is checked after each re-enumeration. [`watch`] then checks the health of the drone.

use std::time::Duration;

use super::port::{device_at, open, require_same_drone, wait_for_permission};
use super::session::Session;
use super::timeline::Part;
use super::watch::{Watched, watch};
use super::{Ctx, RunState, Stop};
use crate::crazyflie::console::Health;
use crate::crazyflie::{self, Mode, RomVersion};
use crate::flash::{Address, Sector, Span, is_blank};
use crate::job::trial::{Appeared, Measurement};
use crate::job::{Boot, Device, FailureKind, Leave, LogEntry, WaitFor};
use crate::usb::{TransferError, descriptor};

/// Time limit for the request to enter DFU mode. The firmware resets at once and does not answer.
const ENTER_LIMIT: Duration = Duration::from_secs(1);
/// Time limit from the restart until 0483:df11 appears, unless the job's wait time is longer. The drone usually needs
/// less than one second, but more if a virtual machine takes over the device.
const DFU_APPEARS: Duration = Duration::from_secs(10);
/// How many times cfdfu asks a drone to enter DFU mode.
///
/// A single request is not reliable. When the ROM starts, it measures the external oscillator against its internal one.
/// If the ROM settles on a wrong frequency, it resets, and the firmware starts again. On other F405 boards, 0 to 50 %
/// of the requests reached the ROM (CircuitPython PR 11270: 5 of 12, and 12 of 12 with retries). The Crazyflie uses the
/// same ROM. With a success rate of 42 %, two attempts fail in 34 % of cases and eight in 1.3 %.
const ENTRY_TRIES: u32 = 8;
/// No new attempt starts after this time.
const ENTRY_LIMIT: Duration = Duration::from_secs(60);
/// How long a device may take to disconnect after a request to restart.
const GONE: Duration = Duration::from_secs(2);
/// How long to wait for the drone to appear after the leave request.
const APPEARS: Duration = Duration::from_secs(10);

/// The result of one attempt to enter DFU mode.
enum Entered {
    Dfu(Device),
    /// The firmware started again instead, or the request was lost.
    Missed(Device),
}

/// Asks a running Crazyflie to restart in its boot ROM and waits for DFU mode, with up to [`ENTRY_TRIES`] attempts.
pub(super) fn enter_dfu(ctx: &mut Ctx<'_>, running: &Device, wait: Duration) -> Result<Device, Stop> {
    let started = ctx.clock.now();
    let appears = DFU_APPEARS.max(wait);
    let mut drone = running.clone();
    let mut tries = 0;
    for attempt in 1..=ENTRY_TRIES {
        tries = attempt;
        ctx.log(LogEntry::Entering { attempt, tries: ENTRY_TRIES });
        let mut transport = open(ctx, &drone)?;
        // A different device may be plugged in by now. Send the request only to a confirmed Crazyflie.
        let names = descriptor::names(&mut *transport);
        ctx.check_cancelled()?;
        let names = names.map_err(|error| FailureKind::cannot_open(drone.id, error))?;
        if let Some(error) = names.lost {
            return Err(FailureKind::cannot_open(drone.id, error).into());
        }
        if Mode::of(drone.id, &names.strings) != Some(Mode::Firmware) {
            return Err(FailureKind::NoDevice.into());
        }
        let requested = ctx.clock.now();
        let answer = transport.control_out(crazyflie::ENTER_DFU, &[], ENTER_LIMIT);
        // Assume that the firmware stops now, even if the wait below is cancelled.
        ctx.run_state = RunState::Stopped;
        drop(transport);
        if answer.is_ok() {
            // The drone answered, so its firmware is either about to restart or too old to support the request.
            let gone = ctx.wait_for(WaitFor::Restart, GONE, |ctx| {
                let found = device_at(ctx.bus, &drone.location)?;
                Ok(found.is_none_or(|found| found.address != drone.address).then_some(()))
            })?;
            if gone.is_none() {
                ctx.run_state = RunState::Running;
                return Err(FailureKind::TooOld.into());
            }
        }
        let asked = ctx.clock.now();
        let result = ctx.wait_for(WaitFor::DfuMode, appears, |ctx| {
            let found = device_at(ctx.bus, &drone.location)?;
            // If the firmware has not restarted within `GONE`, the request was lost.
            let lost = ctx.clock.now().saturating_sub(asked) > GONE;
            Ok(found.and_then(|found| match found.mode {
                Mode::Dfu => Some(Entered::Dfu(found)),
                Mode::Firmware if lost || found.address != drone.address => Some(Entered::Missed(found)),
                Mode::Firmware => None,
            }))
        })?;
        match result {
            Some(Entered::Dfu(device)) => {
                let took = Some(ctx.clock.now().saturating_sub(requested));
                ctx.post_measurement(Measurement::Entered { requests: attempt, took });
                let device = wait_for_permission(ctx, device)?;
                require_same_drone(&running.strings.serial, &device)?;
                return Ok(device);
            }
            Some(Entered::Missed(device)) => {
                ctx.run_state = RunState::Running;
                drone = wait_for_permission(ctx, device)?;
                require_same_drone(&running.strings.serial, &drone)?;
            }
            None => break,
        }
        if ctx.clock.now().saturating_sub(started) > ENTRY_LIMIT {
            break;
        }
    }
    let now = device_at(ctx.bus, &drone.location)?.map(|found| found.mode);
    if now == Some(Mode::Firmware) {
        ctx.run_state = RunState::Running;
    }
    ctx.post_measurement(Measurement::Entered { requests: tries, took: None });
    Err(FailureKind::DidNotEnter { tries, limit: appears, now }.into())
}

/// Waits for the user to bring this drone into DFU mode, on the same port.
pub(super) fn wait_for_dfu_by_hand(
    ctx: &mut Ctx<'_>,
    drone: &Device,
    limit: Duration,
) -> Result<Option<Device>, Stop> {
    let mut has_warned = false;
    let found = ctx.wait_for(WaitFor::DfuByHand, limit, |ctx| {
        let found = device_at(ctx.bus, &drone.location)?.filter(|found| found.mode == Mode::Dfu);
        let Some(found) = found else { return Ok(None) };
        match require_same_drone(&drone.strings.serial, &found) {
            Ok(()) => Ok(Some(found)),
            Err(kind) => {
                if !std::mem::replace(&mut has_warned, true) {
                    ctx.log(LogEntry::LeftAlone(kind));
                }
                Ok(None)
            }
        }
    })?;
    let Some(found) = found else { return Ok(None) };
    let device = wait_for_permission(ctx, found)?;
    require_same_drone(&drone.strings.serial, &device)?;
    Ok(Some(device))
}

/// The state of a drone after the leave request.
enum Started {
    /// The drone is running. [`watch`] checks whether it keeps running.
    Running(Device),
    /// The drone is back in DFU mode. After manual entry, the radio chip makes every reset end in DFU mode.
    InDfu,
    /// The drone did not appear on USB, or a different drone is on its port.
    Missing,
}

/// Waits until the drone is running or back in DFU mode. `device` is the drone before the restart.
fn wait_for_start(ctx: &mut Ctx<'_>, device: &Device, limit: Duration) -> Result<Started, Stop> {
    let seen = ctx.wait_for(WaitFor::Start, limit, |ctx| {
        let found = device_at(ctx.bus, &device.location)?.filter(|found| found.address != device.address);
        // Opening a device that is still starting can fail with any error, so only persistent errors count.
        let answers = |device: &Device| device.open_error.is_none_or(persists);
        Ok(found.filter(answers))
    })?;
    let Some(seen) = seen else { return Ok(Started::Missing) };
    ctx.use_device(seen.clone());
    // A different drone on this port proves nothing about the flashed drone.
    if require_same_drone(&device.strings.serial, &seen).is_err() {
        ctx.log(LogEntry::OtherDroneThere(seen.location));
        return Ok(Started::Missing);
    }
    Ok(if seen.mode == Mode::Firmware { Started::Running(seen) } else { Started::InDfu })
}

/// The result of a restart.
pub(super) struct Restarted {
    pub(super) rom: Option<RomVersion>,
    pub(super) boot: Boot,
    /// The version that the firmware reports.
    pub(super) runs: Option<String>,
    pub(super) health: Health,
}

/// Leaves DFU mode and checks whether the drone starts and stays up. The ROM starts the program at `start`. With
/// [`Leave::Reset`], the leave request names a blank address, so that the ROM resets the chip. If no sector
/// ends in blank bytes, the ROM starts the program as usual.
pub(super) fn restart(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    device: &Device,
    leave: Leave,
    start: Address,
) -> Restarted {
    let blank = if leave == Leave::Reset { find_blank_place(ctx, session) } else { None };
    if leave == Leave::Reset && blank.is_none() {
        ctx.log(LogEntry::NoBlankPlace);
    }
    let (leave, address) = blank.map_or((Leave::Start, start), |blank| (Leave::Reset, blank));
    ctx.enter_part(Part::Restart);
    let rom = session.rom_version(ctx).unwrap_or(None);
    ctx.log(LogEntry::Rom(rom));
    let not_seen = Restarted { rom, boot: Boot::NotSeen, runs: None, health: Health::default() };
    let by_hand = ctx.report.by_hand;
    let result = session.leave(ctx, address);
    // The device is expected to disconnect now.
    ctx.at = None;
    match result {
        Err(Stop::Failed(FailureKind::Dfu(error), _)) if error.is_disconnect() => {}
        Err(Stop::Failed(kind, _)) => {
            ctx.log(LogEntry::NotLeft(kind));
            return not_seen;
        }
        Ok(()) | Err(Stop::Cancelled) => {}
    }
    // An earlier `Cancel` has already taken effect. A new `Cancel` ends the wait below.
    ctx.cancelled = false;
    let left_at = ctx.clock.now();
    let started = wait_for_start(ctx, device, APPEARS).unwrap_or(Started::Missing);
    let appeared = match started {
        Started::Running(_) => Appeared::Running,
        Started::InDfu => Appeared::InDfu,
        Started::Missing => Appeared::Nothing,
    };
    let took = ctx.clock.now().saturating_sub(left_at);
    let took = Some(took).filter(|_| appeared != Appeared::Nothing);
    ctx.post_measurement(Measurement::Left { leave, by_hand, rom, appeared, took });
    let Started::Running(running) = started else {
        // The job is done. The time spent waiting for a drone that does not start does not count toward the job.
        ctx.idle += ctx.clock.now().saturating_sub(left_at);
        return not_seen;
    };
    ctx.run_state = RunState::Running;
    let Watched { boot, runs, health } = watch(ctx, &running, &device.strings.serial);
    Restarted { rom, boot, runs, health }
}

/// Finds eight blank bytes at the end of a sector, and prefers the last sector. Reads the bytes from the device, after
/// all writes, to be certain that they are blank.
fn find_blank_place(ctx: &mut Ctx<'_>, session: &mut Session) -> Option<Address> {
    let sectors: Vec<Sector> = session.map().sectors().to_vec();
    sectors.into_iter().rev().find_map(|sector| {
        let end = Address(u32::try_from(sector.span.end()).ok()?);
        let word = Span::between(Address(end.0.checked_sub(8)?), sector.span.end())?;
        let actual = session.read(ctx, word).ok()?;
        is_blank(&actual).then_some(word.start())
    })
}

/// Returns whether an open error may persist once the device has settled. Other errors may be due to a device that is
/// appearing or disappearing.
fn persists(error: TransferError) -> bool {
    matches!(error, TransferError::Access | TransferError::Busy)
}
