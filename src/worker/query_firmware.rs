//! Queries a running Crazyflie: its version, its board, and the radio address that is its name in a swarm. A missing
//! reply is not an error: the field stays `None`.

use std::time::Duration;

use super::Ctx;
use super::firmware_link::FirmwareLink;
use crate::crazyflie::crtp::{self, CrtpQuestion, Radio};
use crate::job::{Device, LogEntry, Running};
use crate::usb::TransferError;

/// The most memories to query. The firmware has about ten, and the EEPROM is among the first.
const MEMORIES: u8 = 16;

/// Queries the version and the board of the running `device`, retrying for up to `limit`: firmware that has just started
/// needs a moment.
pub(super) fn ask(ctx: &Ctx<'_>, device: &Device, limit: Duration) -> Running {
    query(ctx, device, limit, |_| None)
}

/// Like [`ask`], but also reads the radio settings.
pub(super) fn ask_all(ctx: &Ctx<'_>, device: &Device, limit: Duration) -> Running {
    query(ctx, device, limit, |link| radio(ctx, link).unwrap_or(None))
}

fn query(
    ctx: &Ctx<'_>,
    device: &Device,
    limit: Duration,
    radio: impl Fn(&mut FirmwareLink) -> Option<Radio>,
) -> Running {
    let start = ctx.clock.now();
    let in_time = || ctx.clock.now().saturating_sub(start) < limit;
    let mut running = Running::default();
    let Some(mut link) = FirmwareLink::open(ctx, device, limit) else { return running };
    while running.version.is_none() && in_time() {
        match question(ctx, &mut link, CrtpQuestion::Version) {
            Ok(version) => running.version = version,
            Err(error) => {
                ctx.log(LogEntry::NotAsked(error));
                break;
            }
        }
    }
    if running.version.is_some() {
        running.board = question(ctx, &mut link, CrtpQuestion::BoardName).unwrap_or(None);
        running.radio = radio(&mut link);
    }
    link.close();
    running
}

fn question(
    ctx: &Ctx<'_>,
    link: &mut FirmwareLink,
    question: CrtpQuestion,
) -> Result<Option<String>, TransferError> {
    link.ask(ctx, &question.packet(), |packet| question.answer(packet))
}

/// Reads the radio settings from the EEPROM. Stops at the first missing reply.
fn radio(ctx: &Ctx<'_>, link: &mut FirmwareLink) -> Result<Option<Radio>, TransferError> {
    let Some(count) = link.ask(ctx, &crtp::COUNT_MEMORIES, crtp::memories)? else { return Ok(None) };
    for number in 0..count.min(MEMORIES) {
        match link.ask(ctx, &crtp::ask_memory(number), |packet| crtp::is_eeprom(number, packet))? {
            None => return Ok(None),
            Some(false) => {}
            Some(true) => {
                let answer = |packet: &[u8]| crtp::radio_block(number, packet);
                let block = link.ask(ctx, &crtp::read_radio(number), answer)?;
                return Ok(block.and_then(|block| Radio::of(&block)));
            }
        }
    }
    Ok(None)
}
