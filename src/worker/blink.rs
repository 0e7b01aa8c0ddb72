//! Blinks the LEDs of a running drone, so that the user sees which one it is. Nothing else can tell drones apart that lie
//! in a heap; in DFU mode, a drone cannot be made to blink.

use std::time::Duration;

use super::firmware_link::FirmwareLink;
use super::{Ctx, Stop, find};
use crate::crazyflie::Mode;
use crate::crazyflie::crtp;
use crate::job::{FailureKind, Job, Outcome};

/// How long the LEDs stay on or off.
const HALF: Duration = Duration::from_millis(250);
/// All LEDs on, and all off, both under cfdfu's control (crazyflie-firmware, `led.c`).
const ON: u8 = 0xFF;
const OFF: u8 = 0x80;
/// The firmware controls the LEDs again.
const RELEASED: u8 = 0;
/// How long a drone may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

pub(super) fn blink(ctx: &mut Ctx<'_>, job: &Job, length: Duration) -> Result<Outcome, Stop> {
    let device = find::device(ctx, job)?;
    if device.mode == Mode::Dfu {
        return Err(FailureKind::CannotBlink.into());
    }
    let Some(mut link) = FirmwareLink::open(ctx, &device, ANSWER) else {
        return Err(FailureKind::NoReply.into());
    };
    let result = all(ctx, &mut link, length);
    // Even if a packet was lost or the user stopped it, the LEDs must not stay as they are.
    let _ = set(ctx, &mut link, RELEASED);
    link.close();
    result.map(|()| Outcome::Identified)
}

fn all(ctx: &mut Ctx<'_>, link: &mut FirmwareLink, length: Duration) -> Result<(), Stop> {
    let start = ctx.clock.now();
    while ctx.clock.now().saturating_sub(start) < length {
        for mask in [ON, OFF] {
            ctx.check_cancelled()?;
            set(ctx, link, mask)?;
            ctx.clock.sleep(HALF);
        }
    }
    Ok(())
}

fn set(ctx: &Ctx<'_>, link: &mut FirmwareLink, mask: u8) -> Result<(), Stop> {
    match link.ask(ctx, &crtp::set_leds(mask), crtp::leds_are_set) {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false) | None) => Err(FailureKind::NoReply.into()),
        Err(error) => Err(FailureKind::Open(error).into()),
    }
}
