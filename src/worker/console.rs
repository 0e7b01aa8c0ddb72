//! Reads the console of a running drone until the job is stopped. The drone may restart or be unplugged in the meantime.

use std::time::Duration;

use super::firmware_link::FirmwareLink;
use super::port::{at, require_same_drone};
use super::{Ctx, Stop, find};
use crate::crazyflie::Mode;
use crate::crazyflie::console::ConsoleLine;
use crate::job::{Device, Event, FailureKind, Job, LogEntry, Outcome, WaitFor};
use crate::usb::TransferError;

/// How long to retry opening the link.
const OPEN: Duration = Duration::from_secs(1);
/// How long to wait for a packet before the job may be stopped.
const LISTEN: Duration = Duration::from_millis(100);
/// How long a drone that comes back from DFU mode is left to the program that flashed it, which reads the console to see
/// whether the drone is well.
const LEFT_ALONE: Duration = Duration::from_secs(4);
/// The limit of a wait that only the user ends: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Posts each line as [`Event::Console`], for up to `limit`. Stopping the job is its normal end, too.
pub(super) fn console(ctx: &mut Ctx<'_>, job: &Job, limit: Option<Duration>) -> Result<Outcome, Stop> {
    let mut device = find::device(ctx, job)?;
    if device.mode == Mode::Dfu {
        return Err(FailureKind::NoConsole.into());
    }
    let Some(mut link) = FirmwareLink::open(ctx, &device, OPEN) else {
        return Err(FailureKind::NoReply.into());
    };
    ctx.log(LogEntry::Listening);
    let start = ctx.clock.now();
    let end = start + limit.unwrap_or(FOREVER);
    loop {
        let result = listen(ctx, &mut link, start, end);
        // A line without an end may be the last words of a firmware that crashed.
        post(ctx, start, link.last_line());
        link.close();
        let Err(error) = result else { return Ok(Outcome::Identified) };
        ctx.log(LogEntry::ConsoleLost(error));
        (device, link) = match returns(ctx, &device, end) {
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
    while ctx.check_cancelled().is_ok() && ctx.clock.now() < end {
        let lines = link.listen(LISTEN)?;
        post(ctx, start, lines);
    }
    Ok(())
}

fn post(ctx: &Ctx<'_>, start: Duration, lines: impl IntoIterator<Item = ConsoleLine>) {
    let at = ctx.clock.now().saturating_sub(start);
    lines.into_iter().for_each(|line| ctx.post(Event::Console { at, line }));
}

/// Waits until the same drone runs again, and opens its link. `None` if that takes longer than until `end`.
fn returns(
    ctx: &mut Ctx<'_>,
    device: &Device,
    end: Duration,
) -> Result<Option<(Device, FirmwareLink)>, Stop> {
    let mut was_in_dfu = false;
    loop {
        let left = end.saturating_sub(ctx.clock.now());
        let back = ctx.wait_for(WaitFor::Start, left, |ctx| {
            let found = at(ctx.bus, &device.location)?.filter(|found| found.open_error.is_none());
            was_in_dfu |= found.as_ref().is_some_and(|found| found.mode == Mode::Dfu);
            let is_it = |found: &Device| {
                found.mode == Mode::Firmware && require_same_drone(&device.strings.serial, found).is_ok()
            };
            Ok(found.filter(is_it))
        })?;
        let Some(back) = back else { return Ok(None) };
        if std::mem::take(&mut was_in_dfu) {
            let since = ctx.clock.now();
            while ctx.clock.now().saturating_sub(since) < LEFT_ALONE {
                ctx.check_cancelled()?;
                ctx.clock.sleep(LISTEN);
            }
        }
        if let Some(link) = FirmwareLink::open(ctx, &back, OPEN) {
            ctx.use_device(back.clone());
            return Ok(Some((back, link)));
        }
    }
}
