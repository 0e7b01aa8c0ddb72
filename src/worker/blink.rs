//! Blinks the LEDs of a running drone, so that the user can see which drone is on which port. The boot ROM cannot
//! control the LEDs, so a drone in DFU mode cannot blink.

use std::time::Duration;

use super::firmware_link::FirmwareLink;
use super::{Ctx, Stop, find};
use crate::crazyflie::Mode;
use crate::crazyflie::crtp;
use crate::job::{FailureKind, Job, Outcome};
use crate::usb::TransferError;

/// How long the LEDs stay on or off.
const HALF_PERIOD: Duration = Duration::from_millis(250);
/// All LEDs on and all LEDs off, both under cfdfu's control (crazyflie-firmware, `led.c`).
const ON: u8 = 0xFF;
const OFF: u8 = 0x80;
/// The mask that returns control of the LEDs to the firmware.
const RELEASED: u8 = 0;
/// How long to retry opening the link.
const OPEN_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn blink(ctx: &mut Ctx<'_>, job: &Job, length: Duration) -> Result<Outcome, Stop> {
    let device = find::find_device(ctx, job)?;
    if device.mode == Mode::Dfu {
        return Err(FailureKind::CannotBlink.into());
    }
    let Ok(mut link) = FirmwareLink::open(ctx, &device, &device.strings.serial, OPEN_LIMIT) else {
        return Err(FailureKind::NoReply.into());
    };
    let result = blink_leds(ctx, &mut link, length);
    // Release the LEDs even if the job has failed or was stopped.
    let _ = set_leds(ctx, &mut link, RELEASED);
    result.map(|()| Outcome::Identified)
}

fn blink_leds(ctx: &mut Ctx<'_>, link: &mut FirmwareLink, length: Duration) -> Result<(), Stop> {
    let start = ctx.clock.now();
    while ctx.clock.now().saturating_sub(start) < length {
        for mask in [ON, OFF] {
            ctx.check_cancelled()?;
            set_leds(ctx, link, mask)?;
            ctx.clock.sleep(HALF_PERIOD);
        }
    }
    Ok(())
}

fn set_leds(ctx: &Ctx<'_>, link: &mut FirmwareLink, mask: u8) -> Result<(), Stop> {
    match link.ask(ctx, &crtp::leds_request(mask), crtp::leds_are_set) {
        Ok(Some(true)) => Ok(()),
        Err(error @ TransferError::Disconnected) => Err(FailureKind::Open(error).into()),
        Ok(Some(false) | None) | Err(_) => Err(FailureKind::NoReply.into()),
    }
}
