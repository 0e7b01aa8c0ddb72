//! Queries the version and the board of a running Crazyflie with CRTP over USB. The CRTP link is switched from the
//! radio to USB first, and back afterwards. A missing reply is not an error: the field stays `None`.

use std::time::Duration;

use super::{Ctx, port};
use crate::crazyflie::{CRTP_IN, CRTP_MAX, CRTP_OUT, CrtpQuestion, LINK_TO_RADIO, LINK_TO_USB, Mode};
use crate::job::{Device, LogEntry, Running};
use crate::usb::descriptor::{self, Names};
use crate::usb::{TransferError, Transport};

/// Time limit for one packet. Switching the link takes no time, and the firmware sends a packet within one tick.
const PACKET: Duration = Duration::from_millis(100);
/// Time limit for the read that claims the interface. No packet arrives before the link is switched.
const CLAIM: Duration = Duration::from_millis(10);
/// How long to wait for an answer among the console's packets.
const ANSWER: Duration = Duration::from_millis(300);
/// The pause between attempts to open the device.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// Queries the running `device`, retrying for up to `limit`: firmware that has just started needs a moment.
pub(super) fn ask(ctx: &Ctx<'_>, device: &Device, limit: Duration) -> Running {
    let start = ctx.clock.now();
    let in_time = || ctx.clock.now().saturating_sub(start) < limit;
    let mut transport = loop {
        match port::open(ctx, device) {
            Ok(transport) => break transport,
            Err(_) if in_time() => ctx.clock.sleep(OPEN_PAUSE),
            Err(_) => return Running::default(),
        }
    };
    // A different device may be plugged in by now. Send the requests only to a confirmed Crazyflie.
    let names = descriptor::names(&mut *transport);
    let is_crazyflie =
        |names: Names| names.lost.is_none() && Mode::of(device.id, &names.strings) == Some(Mode::Firmware);
    if !names.is_ok_and(is_crazyflie) {
        return Running::default();
    }
    // Reading claims the interface. If another program, such as cfclient, holds it, that program's link must not be
    // switched.
    let mut packet = [0; CRTP_MAX];
    match transport.bulk_in(CRTP_IN, &mut packet, CLAIM) {
        Ok(_) | Err(TransferError::Timeout) => {}
        Err(error) => {
            ctx.log(LogEntry::NotAsked(error));
            return Running::default();
        }
    }
    let mut running = Running::default();
    if transport.control_out(LINK_TO_USB, &[], PACKET).is_ok() {
        while running.version.is_none() && in_time() {
            match question(ctx, &mut *transport, CrtpQuestion::Version) {
                Ok(version) => running.version = version,
                Err(error) => {
                    ctx.log(LogEntry::NotAsked(error));
                    break;
                }
            }
        }
        if running.version.is_some() {
            running.board = question(ctx, &mut *transport, CrtpQuestion::BoardName).unwrap_or(None);
        }
    }
    // Give the link back to the radio, even if there was no answer.
    let _ = transport.control_out(LINK_TO_RADIO, &[], PACKET);
    running
}

/// Sends one question and waits for its answer, ignoring other packets.
fn question(
    ctx: &Ctx<'_>,
    transport: &mut dyn Transport,
    question: CrtpQuestion,
) -> Result<Option<String>, TransferError> {
    let start = ctx.clock.now();
    match transport.bulk_out(CRTP_OUT, &question.packet(), PACKET) {
        Ok(_) => {}
        Err(TransferError::Timeout) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut packet = [0; CRTP_MAX];
    while ctx.clock.now().saturating_sub(start) < ANSWER {
        match transport.bulk_in(CRTP_IN, &mut packet, PACKET) {
            Ok(n) => {
                let answer = question.answer(packet.get(..n).unwrap_or_default());
                if answer.is_some() {
                    return Ok(answer);
                }
            }
            Err(TransferError::Timeout) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
