//! The jobs that only read: compare flash with an image, and copy flash to a file.

use super::find;
use super::flash::restart;
use super::session::Session;
use super::{Ctx, Meter, Stop, require_same};
use crate::flash::check::Segment;
use crate::flash::{FIRMWARE_BASE, Span};
use crate::job::{FailureKind, Job, Outcome, Phase};

pub(super) fn verify(ctx: &mut Ctx<'_>, job: &Job, segment: &Segment) -> Result<Outcome, Stop> {
    ctx.report.bytes = segment.data.len() as u64;
    let len = u32::try_from(segment.data.len()).unwrap_or(u32::MAX);
    let Some(span) = Span::new(segment.address, len) else { return Ok(Outcome::Unchanged) };
    looking(ctx, job, span, |ctx, session| {
        let mut meter = Meter::start(ctx, Phase::Verify, u64::from(span.len()));
        for block in span.blocks(session.block()) {
            ctx.check_cancelled()?;
            let there = session.read(ctx, block)?;
            let from = (block.start().0 - segment.address.0) as usize;
            let expected = &segment.data[from..from + block.size()];
            require_same(block.start(), &there, expected)?;
            meter.add(ctx, u64::from(block.len()));
        }
        ctx.report.verified = true;
        Ok(Outcome::Unchanged)
    })
}

pub(super) fn backup(ctx: &mut Ctx<'_>, job: &Job, span: Span) -> Result<Outcome, Stop> {
    ctx.report.bytes = u64::from(span.len());
    looking(ctx, job, span, |ctx, session| {
        let mut meter = Meter::start(ctx, Phase::Read, u64::from(span.len()));
        let mut bytes = Vec::with_capacity(span.size());
        for block in span.blocks(session.block()) {
            ctx.check_cancelled()?;
            bytes.extend(session.read(ctx, block)?);
            meter.add(ctx, u64::from(block.len()));
        }
        Ok(Outcome::Read(bytes))
    })
}

/// Opens the device, looks, and leaves it as it was found: in DFU mode, or running.
fn looking(
    ctx: &mut Ctx<'_>,
    job: &Job,
    span: Span,
    look: impl FnOnce(&mut Ctx<'_>, &mut Session) -> Result<Outcome, Stop>,
) -> Result<Outcome, Stop> {
    let (device, transport, was_running) = find::dfu_device(ctx, job)?;
    let mut session = Session::open(ctx, &device, transport)?;
    let reading = || format!("reading {span}");
    let outcome = match session.protection(ctx) {
        // Past the end of its flash a ROM has been seen to crash.
        Ok(_) if !session.map().covers(span) => Err(FailureKind::OutOfRange(span).into()),
        Ok(Some(protection)) if protection.read => Err(FailureKind::ReadProtected.into()),
        Ok(_) => look(ctx, &mut session),
        Err(stop) => Err(stop),
    };
    if was_running {
        restart(ctx, &mut session, &device, FIRMWARE_BASE);
    } else {
        session.settle(ctx);
    }
    outcome.map_err(|stop| stop.at(reading))
}
