//! The jobs that only read flash: `verify` compares the flash with an image, and `backup` returns the contents of the
//! flash.

use super::find::{self, InDfu};
use super::flash::require_in_flash;
use super::reboot::restart;
use super::session::Session;
use super::timeline::Part;
use super::{Ctx, Meter, Stop};
use crate::flash::{FIRMWARE_BASE, Segment, Span};
use crate::job::{FailureKind, Job, Leave, Outcome, Phase, Place};

pub(super) fn verify(ctx: &mut Ctx<'_>, job: &Job, segments: &[Segment]) -> Result<Outcome, Stop> {
    let span = |segment: &Segment| Span::between(segment.address, segment.end());
    let spans: Vec<Span> = segments.iter().filter_map(span).collect();
    let total = spans.iter().map(|span| u64::from(span.len())).sum();
    ctx.report.bytes = total;
    with_session(ctx, job, &spans, |ctx, session| {
        let mut meter = Meter::start(ctx, Phase::Verify, total);
        for (segment, span) in segments.iter().zip(&spans) {
            for block in span.blocks(session.block()) {
                ctx.check_cancelled()?;
                let from = (block.start().0 - segment.address.0) as usize;
                let expected = &segment.data[from..from + block.size()];
                require_in_flash(ctx, session, whole_words(session, block), expected)
                    .map_err(into_differs)?;
                meter.add(ctx, u64::from(block.len()));
            }
        }
        ctx.report.verified = true;
        Ok(Outcome::Unchanged)
    })
}

/// Rounds a block up to whole words. A read must be 2 to 2048 bytes long (AN3156 §4), so an image that ends on an odd
/// byte is read together with the bytes that follow it.
fn whole_words(session: &Session, block: Span) -> Span {
    let whole = Span::new(block.start(), block.len().next_multiple_of(4));
    whole.filter(|whole| session.map().covers(*whole)).unwrap_or(block)
}

pub(super) fn backup(ctx: &mut Ctx<'_>, job: &Job, span: Span) -> Result<Outcome, Stop> {
    ctx.report.bytes = u64::from(span.len());
    with_session(ctx, job, &[span], |ctx, session| {
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

/// Turns `Mismatch` into `Differs`: in a job that writes nothing, a difference is a result, not a failed write.
fn into_differs(stop: Stop) -> Stop {
    match stop {
        Stop::Failed(FailureKind::Mismatch { address, expected, found }, place) => {
            Stop::Failed(FailureKind::Differs { address, expected, found }, place)
        }
        other => other,
    }
}

/// Opens the device and calls `read`. Afterwards, restarts the drone if this job brought it into DFU mode.
fn with_session(
    ctx: &mut Ctx<'_>,
    job: &Job,
    spans: &[Span],
    read: impl FnOnce(&mut Ctx<'_>, &mut Session) -> Result<Outcome, Stop>,
) -> Result<Outcome, Stop> {
    let InDfu { device, transport, by_hand, .. } = find::open_in_dfu(ctx, job)?;
    ctx.report.by_hand = by_hand;
    let mut session = Session::open(ctx, &device, transport)?;
    ctx.enter_part(Part::Read);
    let outside = spans.iter().find(|span| !session.map().covers(**span));
    let outcome = match (outside, session.protection(ctx)) {
        (_, Err(stop)) => Err(stop),
        // Reading past the end of flash has crashed an ST ROM (dfu-util mailing list, October 2020).
        (Some(_), _) if !session.map().is_stm32f405() => Err(FailureKind::OtherChip.into()),
        (Some(span), _) => Err(FailureKind::OutOfRange(*span).into()),
        (None, Ok(Some(protection))) if protection.read => Err(FailureKind::ReadProtected.into()),
        (None, Ok(_)) => read(ctx, &mut session),
    };
    let outcome = outcome.map_err(|stop| ctx.reclassify(stop));
    let answers = outcome.as_ref().err().is_none_or(Stop::still_answers);
    if !by_hand && answers {
        let restarted = restart(ctx, &mut session, &device, Leave::Start, FIRMWARE_BASE);
        ctx.report_restart(restarted);
    } else if answers {
        session.settle(ctx);
    }
    match outcome {
        // The messages of these failures already name the place.
        Err(Stop::Failed(
            kind @ (FailureKind::OtherChip | FailureKind::OutOfRange(_) | FailureKind::Differs { .. }),
            _,
        )) => Err(Stop::Failed(kind, None)),
        other => other.map_err(|stop| stop.at(Place::Flash)),
    }
}
