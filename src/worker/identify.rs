//! Identifies a device and its contents without changing anything: reads the memory of a drone in DFU mode, or queries
//! a running drone.

use std::time::Duration;

use super::session::Session;
use super::timeline::Part;
use super::{Ctx, Meter, Stop, find, port, query_firmware};
use crate::crazyflie::Mode;
use crate::flash::{Address, BLANK, FIRMWARE_BASE, FLASH_END, LOADER_BASE, LOADER_MAX, Span};
use crate::image::Content;
use crate::image::Loader;
use crate::job::{DeviceInfo, Event, FailureKind, Identity, Job, Outcome, Phase};

/// How long a running drone may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Identifies the selected device as a quiet job, which yields to any other job: see [`Ctx::quiet`].
pub(super) fn identify(ctx: &mut Ctx<'_>, job: &Job) -> Result<Outcome, Stop> {
    ctx.quiet = true;
    let device = find::find_device(ctx, job)?;
    let known = match device.mode {
        Mode::Firmware => {
            let running = query_firmware::ask_all(ctx, &device, ANSWER);
            ctx.check_cancelled()?;
            DeviceInfo::Running(running)
        }
        Mode::Dfu => {
            let transport = port::open(ctx, &device)?;
            let mut session = Session::open(ctx, &device, transport)?;
            let identity = read_identity(ctx, &mut session);
            session.settle(ctx);
            DeviceInfo::InDfu(identity?)
        }
    };
    ctx.post(Event::Known(Box::new(known)));
    Ok(Outcome::Identified)
}

fn read_identity(ctx: &mut Ctx<'_>, session: &mut Session) -> Result<Identity, Stop> {
    ctx.enter_part(Part::Read);
    if !session.map().is_stm32f405() {
        return Err(FailureKind::OtherChip.into());
    }
    let protection = session.protection(ctx)?;
    if protection.as_ref().is_some_and(|protection| protection.read) {
        // A read-protected chip refuses all further reads.
        return Ok(Identity { board: None, loader: None, firmware: None, protection, rom: None });
    }
    let board = session.board(ctx)?;
    let rom = session.rom_version(ctx)?;
    let mut meter = Meter::start(ctx, Phase::Read, FLASH_END - LOADER_BASE.wide());
    let loader = Some(Loader::of(&read_sector_0(ctx, session, |ctx, bytes| meter.add(ctx, bytes))?));
    let program =
        read_until_blank(ctx, session, FIRMWARE_BASE, FLASH_END, |ctx, bytes| meter.add(ctx, bytes))?;
    Ok(Identity { board, loader, firmware: Content::in_flash(&program), protection, rom })
}

/// Reads sector 0. Calls `progress` with the length of each block after reading the block.
pub(super) fn read_sector_0(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    progress: impl FnMut(&Ctx<'_>, u64),
) -> Result<Vec<u8>, Stop> {
    let mut sector = read_until_blank(ctx, session, LOADER_BASE, FIRMWARE_BASE.wide(), progress)?;
    sector.resize(LOADER_MAX, BLANK);
    Ok(sector)
}

/// A blank range of this many bytes marks the end of a program.
const HOLE: usize = 16 * 1024;

/// Reads from `start` until [`HOLE`] bytes in a row are blank, or until `end`.
fn read_until_blank(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    start: Address,
    end: u64,
    mut progress: impl FnMut(&Ctx<'_>, u64),
) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let size = session.block();
    for block in Span::between(start, end).into_iter().flat_map(|span| span.blocks(size)) {
        ctx.check_cancelled()?;
        let read = session.read(ctx, block)?;
        progress(ctx, u64::from(block.len()));
        bytes.extend(read);
        if bytes.iter().rev().take(HOLE).take_while(|&&byte| byte == BLANK).count() >= HOLE {
            break;
        }
    }
    Ok(bytes)
}
