//! Queries a running Crazyflie for its version, its board, its health, and the radio address that is its name in a
//! swarm. A missing reply is not an error: the field stays `None`.

use std::time::Duration;

use super::Ctx;
use super::firmware_link::{FirmwareLink, Unopened};
use crate::crazyflie::console::{ConsoleLine, Health};
use crate::crazyflie::crtp::{self, CrtpQuestion, Radio};
use crate::job::{Device, LogEntry, Running};
use crate::usb::TransferError;

/// The maximum number of memories to query. The firmware has about ten, and the EEPROM is among the first.
const MEMORIES: u8 = 16;
/// How long the search for a parameter may take. The firmware has about four hundred parameters, and a query for each
/// takes two transfers.
const SEARCH_LIMIT: Duration = Duration::from_millis(900);
/// How long to wait for console text once all questions are answered. The firmware sends its buffered text without
/// pauses.
const CONSOLE_WAIT: Duration = Duration::from_millis(20);
/// The maximum number of console packets to read after the questions: as many as the firmware buffers (`crtp.c`).
const CONSOLE_PACKETS: usize = 200;

/// Queries everything that the running `device` reports about itself, retrying for up to `limit`: firmware that has
/// just started needs a moment.
pub(super) fn ask_all(ctx: &mut Ctx<'_>, device: &Device, limit: Duration) -> Running {
    let start = ctx.clock.now();
    let mut running = Running::default();
    let mut link = match FirmwareLink::open(ctx, device, &device.strings.serial, limit) {
        Ok(link) => link,
        Err(why) => {
            running.health.asked = why == Unopened::Silent;
            return running;
        }
    };
    // Opening the link may have used up the time limit. Ask for the version at least once anyway.
    while running.version.is_none() && ctx.check_cancelled().is_ok() {
        match version(ctx, &mut link) {
            Ok(version) => running.version = version,
            Err(error) => {
                ctx.log(LogEntry::NotAsked(error));
                break;
            }
        }
        if ctx.clock.now().saturating_sub(start) >= limit {
            break;
        }
    }
    if running.version.is_some() && ctx.check_cancelled().is_ok() {
        running.board = ask_question(ctx, &mut link, CrtpQuestion::BoardName).unwrap_or(None);
        running.radio = read_radio(ctx, &mut link).unwrap_or(None);
        // If the link is lost, keep the health that was read so far.
        let _ = read_health(ctx, &mut link);
    }
    running.health = link.health.clone();
    running.health.finish(running.version.as_deref());
    running
}

/// Reads the console text that the running `device` has buffered. Takes a few hundredths of a second and makes only one
/// attempt: a drone whose console cannot be read can still be flashed.
pub(super) fn read_printed_health(ctx: &Ctx<'_>, device: &Device) -> Health {
    let Ok(mut link) = FirmwareLink::try_open(ctx, device, &device.strings.serial) else {
        return Health::default();
    };
    // If the link is lost, the text that was read so far still counts.
    let _ = read_console(ctx, &mut link, drop);
    link.health.clone()
}

/// Asks for the version. If no answer arrives, switches the link to USB again: firmware that is starting switches the
/// link back to the radio.
pub(super) fn version(ctx: &Ctx<'_>, link: &mut FirmwareLink) -> Result<Option<String>, TransferError> {
    let version = ask_question(ctx, link, CrtpQuestion::Version)?;
    if version.is_none() {
        link.switch_to_usb()?;
    }
    Ok(version)
}

fn ask_question(
    ctx: &Ctx<'_>,
    link: &mut FirmwareLink,
    question: CrtpQuestion,
) -> Result<Option<String>, TransferError> {
    link.ask(ctx, &question.packet(), |packet| question.answer(packet))
}

/// Reads the console text that the firmware has buffered.
fn read_console(
    ctx: &Ctx<'_>,
    link: &mut FirmwareLink,
    mut each: impl FnMut(ConsoleLine),
) -> Result<(), TransferError> {
    for _ in 0..CONSOLE_PACKETS {
        let before = ctx.clock.now();
        link.listen(CONSOLE_WAIT)?.into_iter().for_each(&mut each);
        if ctx.clock.now().saturating_sub(before) >= CONSOLE_WAIT {
            break;
        }
    }
    Ok(())
}

/// Reads the console text that the firmware has buffered. If the text does not contain the verdict of the self-test,
/// reads the parameter that contains it.
fn read_health(ctx: &mut Ctx<'_>, link: &mut FirmwareLink) -> Result<(), TransferError> {
    read_console(ctx, link, |line| ctx.log(LogEntry::Console(line.text)))?;
    if link.health.self_test.is_none()
        && let Some(number) = find_self_test(ctx, link, SEARCH_LIMIT)?
        && let Some(passed) = read_self_test(ctx, link, number)?
    {
        link.health.apply_self_test_parameter(passed);
    }
    Ok(())
}

/// Finds the number of the parameter `system.selftestPassed`. Parameters have no fixed numbers, so this function
/// searches for the name, for up to `limit`. Returns `None` if the parameter is not found or the job is stopped.
pub(super) fn find_self_test(
    ctx: &mut Ctx<'_>,
    link: &mut FirmwareLink,
    limit: Duration,
) -> Result<Option<u16>, TransferError> {
    let start = ctx.clock.now();
    let Some(count) = link.ask_twice(ctx, &crtp::COUNT_PARAMETERS, crtp::parameter_count)? else {
        return Ok(None);
    };
    for number in 0..count {
        if ctx.clock.now().saturating_sub(start) >= limit || ctx.check_cancelled().is_err() {
            break;
        }
        let is_self_test = |packet: &[u8]| crtp::is_parameter(number, crtp::SELF_TEST_PASSED, packet);
        match link.ask_twice(ctx, &crtp::parameter_request(number), is_self_test)? {
            None => break,
            Some(false) => {}
            Some(true) => return Ok(Some(number)),
        }
    }
    Ok(None)
}

/// Reads the parameter that [`find_self_test`] found. Returns `None` if no answer arrives.
pub(super) fn read_self_test(
    ctx: &Ctx<'_>,
    link: &mut FirmwareLink,
    number: u16,
) -> Result<Option<bool>, TransferError> {
    let value = link.ask_twice(ctx, &crtp::parameter_value_request(number), |packet| {
        crtp::parameter_value(number, packet)
    })?;
    Ok(value.map(|value| value != 0))
}

/// Reads the radio settings from the EEPROM. Stops at the first missing reply.
fn read_radio(ctx: &Ctx<'_>, link: &mut FirmwareLink) -> Result<Option<Radio>, TransferError> {
    let Some(count) = link.ask(ctx, &crtp::COUNT_MEMORIES, crtp::memory_count)? else { return Ok(None) };
    for number in 0..count.min(MEMORIES) {
        match link.ask(ctx, &crtp::memory_request(number), |packet| crtp::is_eeprom(number, packet))? {
            None => return Ok(None),
            Some(false) => {}
            Some(true) => {
                let answer = |packet: &[u8]| crtp::parse_radio_block(number, packet);
                let block = link.ask(ctx, &crtp::radio_request(number), answer)?;
                return Ok(block.and_then(|block| Radio::of(&block)));
            }
        }
    }
    Ok(None)
}
