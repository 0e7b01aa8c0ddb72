//! Reads the console of a running drone until the job is stopped or its time is up. The drone may restart or be
//! unplugged in the meantime.

use std::time::Duration;

use super::firmware_link::FirmwareLink;
use super::port::{device_at, require_same_drone};
use super::{Ctx, Stop, find};
use crate::crazyflie::Mode;
use crate::crazyflie::console::ConsoleLine;
use crate::job::{Device, Event, FailureKind, Job, LogEntry, Outcome, WaitFor};
use crate::usb::{CRAZYFLIE, ROM_DFU, TransferError};

/// The time during which to retry opening the link.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
/// The time to wait for a packet. The job can be stopped only between two waits.
const LISTEN_TIME: Duration = Duration::from_millis(100);
/// The time to wait before opening a drone that was in DFU mode. The drone has to start first, and the program that
/// flashed the drone may then read the console to check the drone's health.
const AFTER_DFU: Duration = Duration::from_secs(6);
/// The pause between attempts to open the link of a drone that has returned.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The times at which to switch the link to USB again, counted from the opening of the link.
const SWITCH_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// The time limit of a job that only the user ends: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Posts each console line as [`Event::Console`], for up to `limit`. Once the console is open, stopping the job is not
/// an error.
pub(super) fn console(ctx: &mut Ctx<'_>, job: &Job, limit: Option<Duration>) -> Result<Outcome, Stop> {
    let mut device = find::find_device(ctx, job)?;
    if device.mode == Mode::Dfu {
        return Err(FailureKind::NoConsole.into());
    }
    let Ok(mut link) = FirmwareLink::open(ctx, &device, &device.strings.serial, OPEN_LIMIT) else {
        return Err(FailureKind::NoReply.into());
    };
    ctx.log(LogEntry::Listening);
    let start = ctx.clock.now();
    let end = start + limit.unwrap_or(FOREVER);
    loop {
        let result = listen(ctx, &mut link, start, end);
        // An incomplete line may be the last output of firmware that crashed.
        post_lines(ctx, start, link.last_line());
        drop(link);
        let Err(error) = result else { return Ok(Outcome::Identified) };
        ctx.log(LogEntry::ConsoleLost(error));
        (device, link) = match wait_for_return(ctx, &device, end) {
            Ok(Some(back)) => back,
            Ok(None) | Err(Stop::Cancelled) => return Ok(Outcome::Identified),
            Err(stop) => return Err(stop),
        };
    }
}

/// Posts lines until `end`, or until the job is stopped or the link is lost.
fn listen(
    ctx: &mut Ctx<'_>,
    link: &mut FirmwareLink,
    start: Duration,
    end: Duration,
) -> Result<(), TransferError> {
    let opened = ctx.clock.now();
    // The firmware may switch the link back to the radio while it is starting.
    let mut switches = SWITCH_AGAIN.into_iter().peekable();
    while ctx.check_cancelled().is_ok() && ctx.clock.now() < end {
        let lines = link.listen(LISTEN_TIME)?;
        if switches.next_if(|at| ctx.clock.now().saturating_sub(opened) >= *at).is_some() {
            link.switch_to_usb()?;
        }
        post_lines(ctx, start, lines);
    }
    Ok(())
}

fn post_lines(ctx: &Ctx<'_>, start: Duration, lines: impl IntoIterator<Item = ConsoleLine>) {
    let at = ctx.clock.now().saturating_sub(start);
    lines.into_iter().for_each(|line| ctx.post(Event::Console { at, line }));
}

/// Waits until the same drone is running again, and opens its link. Returns `None` if the drone is not running again
/// before `end`.
fn wait_for_return(
    ctx: &mut Ctx<'_>,
    device: &Device,
    end: Duration,
) -> Result<Option<(Device, FirmwareLink)>, Stop> {
    // The earliest time at which the link may be opened.
    let mut open_at = Duration::ZERO;
    let remaining = end.saturating_sub(ctx.clock.now());
    ctx.wait_for(WaitFor::Start, remaining, |ctx| {
        let now = ctx.clock.now();
        let list = ctx.bus.list()?;
        let found = list.into_iter().find(|found| found.location == device.location);
        // Never open a drone in DFU mode, because another program may be flashing the drone.
        if found.as_ref().is_some_and(|found| found.id == ROM_DFU) {
            open_at = now + AFTER_DFU;
        }
        if found.is_none_or(|found| found.id != CRAZYFLIE) || now < open_at {
            return Ok(None);
        }
        open_at = now + RETRY_PAUSE;
        let back = device_at(ctx.bus, &device.location)?.filter(|back| back.mode == Mode::Firmware);
        let is_same_drone = |back: &Device| require_same_drone(&device.strings.serial, back).is_ok();
        let Some(back) = back.filter(|back| back.open_error.is_none() && is_same_drone(back)) else {
            return Ok(None);
        };
        let Ok(link) = FirmwareLink::open(ctx, &back, &back.strings.serial, Duration::ZERO) else {
            return Ok(None);
        };
        ctx.use_device(back.clone());
        Ok(Some((back, link)))
    })
}
