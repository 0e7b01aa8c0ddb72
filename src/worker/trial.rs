//! Runs the trials of `cfdfu qualify`, which measure the behaviour that other jobs rely on. A trial that writes uses
//! only the last sector of the flash, and only if that sector is blank. Afterwards, the trial erases the sector again,
//! so the drone's firmware never changes.

use super::find::{self, InDfu};
use super::reboot::restart;
use super::session::{Programming, Session};
use super::{Ctx, Stop};
use crate::dfu::machine::Operation;
use crate::flash::{Address, FIRMWARE_BASE, FLASH_END, Sector, Span, is_blank};
use crate::job::trial::{Measurement, ReadPlace, Trial, WidthAnswer};
use crate::job::{DroneState, FailureKind, Job, Leave, Outcome, Width};

/// How many blocks are read or written for an average.
const BLOCKS: u32 = 16;
/// The length of a short last block in bytes: the shortest block in a public log of a related chip.
const SHORT: u32 = 12;

pub(super) fn trial(ctx: &mut Ctx<'_>, job: &Job, trial: Trial) -> Result<Outcome, Stop> {
    let InDfu { device, transport, by_hand, .. } = find::open_in_dfu(ctx, job)?;
    ctx.report.by_hand = by_hand;
    let mut session = Session::open(ctx, &device, transport)?;
    let result = match trial {
        Trial::Read => read(ctx, &mut session),
        Trial::Write => write(ctx, &mut session),
        Trial::Restart(_) => Ok(()),
    };
    let result = result.map_err(|stop| ctx.reclassify(stop));
    let answers = result.as_ref().err().is_none_or(Stop::still_answers);
    let leave = match trial {
        Trial::Restart(leave) => Some(leave),
        // A drone that entered DFU mode without this job stays in DFU mode.
        Trial::Read | Trial::Write => (!by_hand).then_some(Leave::Start),
    };
    match leave {
        _ if !answers => {}
        Some(leave) => {
            let restarted = restart(ctx, &mut session, &device, leave, FIRMWARE_BASE);
            ctx.report_restart(restarted);
        }
        None => session.settle(ctx),
    }
    result.map(|()| Outcome::Identified)
}

/// Takes all measurements that need no write. The reads that may crash the ROM are last.
fn read(ctx: &mut Ctx<'_>, session: &mut Session) -> Result<(), Stop> {
    ctx.post_measurement(session.descriptors());
    if !session.map().is_stm32f405() {
        return Err(FailureKind::OtherChip.into());
    }
    let before = session.flash_alternate();
    for alternate in session.alternates() {
        ctx.check_cancelled()?;
        let error = session.try_select(ctx, alternate)?.err();
        ctx.post_measurement(Measurement::Selected { alternate, error });
    }
    let _ = session.try_select(ctx, before)?;
    read_place(ctx, session, ReadPlace::OptionBytes, Address(0x1FFF_C000), 16)?;
    read_place(ctx, session, ReadPlace::Otp, Address(0x1FFF_7800), 512)?;
    read_place(ctx, session, ReadPlace::RomVersion, Address(0x1FFF_77DC), 4)?;
    let started = ctx.clock.now();
    let size = session.block();
    let span = Span::new(FIRMWARE_BASE, size * BLOCKS);
    for block in span.into_iter().flat_map(|span| span.blocks(size)) {
        ctx.check_cancelled()?;
        if session.read(ctx, block).is_err() {
            // A read-protected chip refuses every read.
            session.run(ctx, &Operation::Recover)?;
            return Ok(());
        }
    }
    ctx.post_measurement(Measurement::ReadBlock(ctx.clock.now().saturating_sub(started) / BLOCKS));
    read_place(ctx, session, ReadPlace::UniqueId, Address(0x1FFF_7A10), 12)?;
    let end = u32::try_from(FLASH_END).unwrap_or(u32::MAX);
    let past = read_place(ctx, session, ReadPlace::PastTheEnd, Address(end), 2048);
    let answers = past.and_then(|()| Ok(session.run(ctx, &Operation::Recover).map(drop)?));
    ctx.post_measurement(Measurement::AnswersAfterwards(answers.is_ok()));
    answers
}

/// Reads a place once, through the alternate setting of its memory. A refusal is a measurement, not a failure.
fn read_place(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    place: ReadPlace,
    address: Address,
    len: u16,
) -> Result<(), Stop> {
    ctx.check_cancelled()?;
    let memory = session.alternate_at(address).map_or(session.flash_alternate(), |memory| memory.number);
    session.select(ctx, memory)?;
    let result = session.attempt(ctx, Operation::Read(address, len));
    let error = result.as_ref().err().copied();
    ctx.post_measurement(Measurement::Read(place, result));
    match error {
        Some(error) if error.ends_session() => return Err(FailureKind::from(error).into()),
        Some(_) => drop(session.run(ctx, &Operation::Recover)?),
        None => {}
    }
    let flash = session.flash_alternate();
    session.select(ctx, flash)
}

/// Measures erases and writes in the last sector.
fn write(ctx: &mut Ctx<'_>, session: &mut Session) -> Result<(), Stop> {
    let Some(sector) = scratch_sector(ctx, session)? else {
        ctx.post_measurement(Measurement::NoScratchSector);
        return Ok(());
    };
    ctx.drone = DroneState::TestData;
    let result = measure_writes(ctx, session, sector);
    // Erase the sector even after a failure or a cancellation.
    let answers = result.as_ref().err().is_none_or(Stop::still_answers);
    if answers {
        let _ = session.attempt(ctx, Operation::Recover);
        session.program_bytes(ctx)?;
        session.run(ctx, &Operation::Erase(sector.span.start()))?;
        for block in test_blocks(session, sector) {
            if !is_blank(&session.read(ctx, block)?) {
                return Err(FailureKind::NotErased(sector.index).into());
            }
        }
        ctx.drone = DroneState::Untouched;
    }
    result
}

fn measure_writes(ctx: &mut Ctx<'_>, session: &mut Session, sector: Sector) -> Result<(), Stop> {
    let was_eager = session.is_timed();
    measure_width(ctx, session, sector)?;
    ctx.check_cancelled()?;
    session.set_width(ctx, Width::Fastest)?;
    let answer = match (session.width, session.width_was_read) {
        (Programming::Words, true) => WidthAnswer::Accepted,
        (Programming::Words, false) => WidthAnswer::NotReadBack,
        (Programming::Bytes, _) => WidthAnswer::Refused,
    };
    ctx.post_measurement(Measurement::Width(answer));
    if answer != WidthAnswer::Refused {
        measure_width(ctx, session, sector)?;
    }
    if was_eager {
        ctx.post_measurement(Measurement::EarlyStatus(session.is_timed()));
    }
    session.program_bytes(ctx)?;
    ctx.check_cancelled()?;
    // Write a short last block, and then a single word, such as the word that commits a flash.
    for (bytes, offset) in [(SHORT, 0), (4, 2048)] {
        let Some(span) = sector.span.start().checked_add(offset).and_then(|at| Span::new(at, bytes)) else {
            continue;
        };
        let same = match write_and_read(ctx, session, span) {
            Ok(same) => Some(same),
            Err(Stop::Failed(FailureKind::Dfu(error), _)) if !error.ends_session() => {
                session.run(ctx, &Operation::Recover)?;
                None
            }
            Err(stop) => return Err(stop),
        };
        ctx.post_measurement(Measurement::WrotePiece { bytes, same });
    }
    Ok(())
}

/// At the current width, writes [`BLOCKS`] blocks to the blank sector, reads them back and erases the sector. The times
/// count only if the width is still the same afterwards: a failed write is repeated at 8 bits.
fn measure_width(ctx: &mut Ctx<'_>, session: &mut Session, sector: Sector) -> Result<(), Stop> {
    let width = session.width;
    let words = width == Programming::Words;
    let blocks = test_blocks(session, sector);
    let started = ctx.clock.now();
    for block in &blocks {
        ctx.check_cancelled()?;
        session.run(ctx, &Operation::Write(block.start(), pattern(*block)))?;
    }
    let wrote = ctx.clock.now().saturating_sub(started) / BLOCKS;
    let mut same = true;
    for block in &blocks {
        ctx.check_cancelled()?;
        same &= session.read(ctx, *block)? == pattern(*block);
    }
    ctx.check_cancelled()?;
    let started = ctx.clock.now();
    session.run(ctx, &Operation::Erase(sector.span.start()))?;
    let erased = ctx.clock.now().saturating_sub(started);
    if session.width == width {
        let took = Some(wrote).filter(|_| session.is_timed());
        ctx.post_measurement(Measurement::WroteBlocks { words, took, same });
        ctx.post_measurement(Measurement::Erased { words, took: erased });
    }
    Ok(())
}

/// Returns the blocks of the sector that a trial writes.
fn test_blocks(session: &Session, sector: Sector) -> Vec<Span> {
    sector.span.blocks(session.block()).take(BLOCKS as usize).collect()
}

fn write_and_read(ctx: &mut Ctx<'_>, session: &mut Session, span: Span) -> Result<bool, Stop> {
    session.run(ctx, &Operation::Write(span.start(), pattern(span)))?;
    Ok(session.read(ctx, span)? == pattern(span))
}

/// Returns test data. Each block of 2048 bytes contains every byte value, but no word twice.
fn pattern(span: Span) -> Vec<u8> {
    let byte = |at: u32| (at.wrapping_mul(0x9E37_79B1) >> 24).to_le_bytes()[0];
    (span.start().0..).take(span.size()).map(byte).collect()
}

/// Returns the last sector if it may be written and is blank.
fn scratch_sector(ctx: &mut Ctx<'_>, session: &mut Session) -> Result<Option<Sector>, Stop> {
    let Some(sector) = session.map().sectors().last().copied().filter(|_| session.map().is_stm32f405())
    else {
        return Ok(None);
    };
    // If the protection is unknown, a failed write would prove nothing.
    let protection = session.protection(ctx)?;
    if protection.is_none_or(|it| it.read || it.sectors.contains(&sector.index)) {
        return Ok(None);
    }
    for block in sector.span.blocks(session.block()) {
        ctx.check_cancelled()?;
        if !is_blank(&session.read(ctx, block)?) {
            return Ok(None);
        }
    }
    Ok(Some(sector))
}
