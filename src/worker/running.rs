//! What a running Crazyflie says of itself: its version and its board, by CRTP over USB. The link is turned
//! from the radio to USB for that, and given back. Silence is no error: it is told by what is missing.

use std::time::Duration;

use super::{Ctx, port};
use crate::crazyflie::{CRTP_IN, CRTP_MAX, CRTP_OUT, CrtpQuestion, LINK_TO_RADIO, LINK_TO_USB, Mode};
use crate::job::{Device, LogEntry, Running};
use crate::usb::descriptor::{self, Names};
use crate::usb::{TransferError, Transport};

/// Setting the link takes no time; a packet comes within a tick of the firmware.
const PACKET: Duration = Duration::from_millis(100);
/// Nothing comes before the link is turned: long enough to notice that the interface is ours.
const CLAIM: Duration = Duration::from_millis(10);
/// How long one question waits for its answer among the packets of the console.
const ANSWER: Duration = Duration::from_millis(300);
/// How long until a device that has just come can be opened.
const GLANCE: Duration = Duration::from_millis(50);

/// Asks `device`, which runs, for at most `limit`: a firmware that has just started needs a moment.
pub(super) fn ask(ctx: &Ctx<'_>, device: &Device, limit: Duration) -> Running {
    let start = ctx.clock.now();
    let in_time = || ctx.clock.now().saturating_sub(start) < limit;
    let mut transport = loop {
        match port::open(ctx, device) {
            Ok(transport) => break transport,
            Err(_) if in_time() => ctx.clock.sleep(GLANCE),
            Err(_) => return Running::default(),
        }
    };
    // Whatever is plugged in there now: this goes to a Crazyflie and to nothing else.
    let names = descriptor::names(&mut *transport);
    let is_crazyflie =
        |names: Names| names.lost.is_none() && Mode::of(device.id, &names.strings) == Some(Mode::Firmware);
    if !names.is_ok_and(is_crazyflie) {
        return Running::default();
    }
    // Reading claims the interface. Whoever has it, cfclient maybe, is not to lose the link.
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
    // Whoever flies it by radio wants the link back, also if nothing was answered.
    let _ = transport.control_out(LINK_TO_RADIO, &[], PACKET);
    running
}

/// One question and, between whatever else the firmware sends, its answer.
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
