//! The undo history of one drone: a copy of what the last change overwrote, and the records that keep it correct.
//!
//! An undo restores the image that last ran on the drone. This image is not always the previous content of the flash:
//! after an interruption, the flash holds a mixture of old and new bytes that never ran. Three rules keep the copy
//! correct. Without them, the undo of a flash that failed and was repeated would restore this mixture.
//!
//! - The leftovers of an interrupted job never replace the copy. [`Unfinished`] lists what the job had to write, so
//!   the next job recognises the leftovers and keeps the older copy for that part of the flash.
//! - The copy covers every sector that has changed since it was made: each retry adds the sectors that it changes.
//! - An interrupted undo keeps its target, and the next undo continues to restore that target.
//!
//! This module does no I/O: `record` stores the history in files, `supervise::copies` in memory.

use std::ops::Range;

use thiserror::Error;

use crate::flash::{Address, BLANK, FIRMWARE_BASE, FLASH_END, LOADER_BASE, Segment, Span, is_blank};
use crate::image::Content;

/// The undo history of one drone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What the last change overwrote.
    pub last: Last,
    /// A change that was started and is not known to have finished.
    pub unfinished: Option<Unfinished>,
    /// What the last change wrote, if it finished.
    pub wrote: Vec<Piece>,
}

/// What the last change overwrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    Copy(Segment),
    None(NoCopy),
}

/// Why there is no copy to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoCopy {
    /// No change to this drone is recorded.
    #[error("no saved firmware to restore")]
    NeverFlashed,
    /// The user passed `--no-undo`, or the copy could not be saved.
    #[error("the last flash did not save the previous firmware")]
    NotKept,
    #[error("the flash was blank before the last change")]
    WasBlank,
    /// For example, another program's flash was interrupted.
    #[error("the firmware before the last flash was incomplete")]
    WasIncomplete,
    /// The copy's file was modified or truncated.
    #[error("the saved previous firmware is damaged")]
    Damaged,
}

/// Why an undo is not possible.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoUndo {
    #[error(transparent)]
    NoCopy(NoCopy),
    /// Without a serial number, the drone cannot be distinguished from other drones that use the same port.
    #[error("the drone reports no serial number")]
    NoSerial,
    #[error("{0}")]
    Io(String),
}

impl Default for NoUndo {
    fn default() -> NoUndo {
        NoUndo::NoCopy(NoCopy::NeverFlashed)
    }
}

/// A change that was started and may not have finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The copy to restore, if the change is an undo.
    pub undoes: Option<Segment>,
    pub writes: Vec<Piece>,
    /// What earlier unfinished changes had to write.
    pub earlier: Vec<Piece>,
}

/// Bytes that a change writes: their location, and a checksum by which to recognise them later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub span: Span,
    /// The CRC-32 of the bytes.
    pub crc: u32,
}

impl Piece {
    /// Describes the bytes of a segment. Returns `None` if the segment is empty or exceeds the 32-bit address space.
    pub(crate) fn of(segment: &Segment) -> Option<Piece> {
        let span = Span::between(segment.address, segment.end())?;
        Some(Piece { span, crc: crc32fast::hash(&segment.data) })
    }

    /// Returns whether the first word of the piece, which is written last, is blank in `segment`.
    fn lacks_first_word_in(self, segment: &Segment) -> bool {
        let start = self.span.start().wide();
        within(segment, start..start + 4).is_some_and(|head| head.data.len() == 4 && is_blank(&head.data))
    }

    /// Returns whether `segment` holds these bytes, or `None` if the segment does not cover them.
    pub(crate) fn is_in(self, segment: &Segment) -> Option<bool> {
        let range = self.span.start().wide()..self.span.end();
        let found = within(segment, range).filter(|found| found.data.len() == self.span.size())?;
        Some(crc32fast::hash(&found.data) == self.crc)
    }
}

// The two parts of the flash: sector 0 and everything after it. Each begins with a commit word.
const LOADER: Range<u64> = LOADER_BASE.0 as u64..FIRMWARE_BASE.0 as u64;
const FIRMWARE: Range<u64> = FIRMWARE_BASE.0 as u64..FLASH_END;

fn has_part(pieces: &[Piece], part: &Range<u64>) -> bool {
    pieces.iter().any(|piece| piece.span.start().wide() < part.end && piece.span.end() > part.start)
}

/// The kind of change that a job makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Flash,
    /// Restores [`History::target`].
    Undo,
}

/// The history of one drone in this run, including the changes made by the running job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracked {
    history: History,
    /// The history before the running job, once the job has started to change the drone.
    before: Option<History>,
}

impl Tracked {
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// See [`History::begin`].
    pub(crate) fn begin(&mut self, writes: &[Segment], before: Option<&Segment>, change: Change) {
        let next = self.history.begin(writes, before, change);
        self.before = Some(std::mem::replace(&mut self.history, next));
    }

    /// Restores the previous history, after a job that changed nothing.
    pub(crate) fn revert(&mut self) {
        if let Some(before) = self.before.take() {
            self.history = before;
        }
    }

    /// See [`History::end`].
    pub(crate) fn end(&mut self) {
        self.before = None;
        self.history = std::mem::take(&mut self.history).end();
    }

    /// See [`History::undone`].
    pub(crate) fn undone(&mut self) {
        self.history = std::mem::take(&mut self.history).undone();
    }

    /// Keeps the change as unfinished, after a job that did not complete it.
    pub(crate) fn keep_unfinished(&mut self) {
        self.before = None;
    }
}

impl Default for Last {
    fn default() -> Last {
        Last::None(NoCopy::NeverFlashed)
    }
}

impl History {
    /// Returns the copy that an undo restores.
    pub fn target(&self) -> Result<&Segment, NoCopy> {
        match (self.unfinished.as_ref().and_then(|it| it.undoes.as_ref()), &self.last) {
            (Some(copy), _) | (None, Last::Copy(copy)) => Ok(copy),
            (None, Last::None(why)) => Err(*why),
        }
    }

    /// Returns the history once a job starts to write these segments. `before` is the previous content of their
    /// sectors, without gaps, or `None` if the content was not read.
    pub fn begin(&self, writes: &[Segment], before: Option<&Segment>, change: Change) -> History {
        let undoes = self.target().ok().filter(|_| change == Change::Undo).cloned();
        // The earlier change may have finished although cfdfu did not observe its end.
        let is_complete = |it: &Unfinished| {
            let is_written = |piece: &Piece| before.and_then(|before| piece.is_in(before)) == Some(true);
            it.writes.iter().all(is_written)
        };
        let past =
            if self.unfinished.as_ref().is_some_and(is_complete) { self.clone().end() } else { self.clone() };
        let last = before.map_or(Last::None(NoCopy::NotKept), |before| past.last_with(before));
        let earlier = past.unfinished.map(|it| [it.writes, it.earlier].concat()).unwrap_or_default();
        let writes = writes.iter().filter_map(Piece::of).collect();
        History { last, unfinished: Some(Unfinished { undoes, writes, earlier }), wrote: Vec::new() }
    }

    /// Returns the history once the job has written everything.
    pub fn end(self) -> History {
        let wrote = self.unfinished.as_ref().map_or(self.wrote, |it| it.writes.clone());
        let remaining = self.unfinished.map(|it| {
            let is_open = |part: &Range<u64>| !has_part(&it.writes, part);
            let earlier = it.earlier.iter().copied();
            let remaining = earlier.filter(|piece| {
                [LOADER, FIRMWARE].iter().any(|part| is_open(part) && has_part(&[*piece], part))
            });
            remaining.collect::<Vec<Piece>>()
        });
        let remaining = remaining.filter(|pieces| !pieces.is_empty());
        let unfinished = remaining.map(|writes| Unfinished { undoes: None, writes, earlier: Vec::new() });
        History { last: self.last, unfinished, wrote }
    }

    /// Returns the bytes that the flash must still hold for an undo to be correct. If the flash holds other bytes,
    /// another program has changed the flash since. Returns no bytes while a change is unfinished, because the flash
    /// may then hold anything.
    pub fn expected(&self) -> &[Piece] {
        if self.unfinished.is_some() { &[] } else { &self.wrote }
    }

    /// Returns the history after an undo that found nothing left to restore. Such an undo also finishes an interrupted
    /// undo.
    pub(crate) fn undone(self) -> History {
        if self.is_undoing() { self.end() } else { self }
    }

    /// Returns whether an undo is unfinished.
    pub(crate) fn is_undoing(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|it| it.undoes.is_some())
    }

    /// Returns the new [`History::last`] for a job that is about to overwrite `before`. Keeps the existing copy of any
    /// part of the flash that an interrupted job has left incomplete.
    fn last_with(&self, before: &Segment) -> Last {
        let open =
            self.unfinished.as_ref().map(|it| [&it.writes[..], &it.earlier[..]].concat()).unwrap_or_default();
        let (kept, none_kept) = match &self.last {
            Last::Copy(kept) => (Some(kept), NoCopy::WasIncomplete),
            Last::None(why) if self.unfinished.is_some() => (None, *why),
            Last::None(_) => (None, NoCopy::WasIncomplete),
        };
        // Leftovers are an incomplete program, a partly erased copy, or bytes that an interrupted job wrote.
        let is_leftover = |found: &Segment, kept: &Segment| {
            let is_own = |piece: &Piece| piece.is_in(found) == Some(true) || piece.lacks_first_word_in(found);
            is_incomplete(found) || is_partly_erased(found, kept) || open.iter().any(is_own)
        };
        let part = |which: Range<u64>| {
            let is_open = has_part(&open, &which);
            let found = within(before, which.clone());
            let kept = kept.and_then(|kept| within(kept, which)).filter(|_| is_open);
            match (found, kept) {
                (Some(found), Some(kept)) if is_leftover(&found, &kept) => merge(&kept, &found)
                    .filter(|whole| !is_incomplete(whole))
                    .map(Some)
                    .ok_or(NoCopy::WasIncomplete),
                (Some(_), None) if is_open => Err(none_kept),
                (Some(found), _) if is_incomplete(&found) => Err(none_kept),
                (Some(found), _) => Ok(Some(found)),
                (None, kept) => Ok(kept),
            }
        };
        let whole = match (part(LOADER), part(FIRMWARE)) {
            (Err(why), _) | (_, Err(why)) => return Last::None(why),
            (Ok(Some(loader)), Ok(Some(firmware))) => merge(&loader, &firmware),
            (Ok(loader), Ok(firmware)) => loader.or(firmware),
        };
        match whole {
            None => Last::None(NoCopy::WasIncomplete),
            Some(whole) if is_blank(&whole.data) => Last::None(NoCopy::WasBlank),
            Some(whole) => Last::Copy(whole),
        }
    }
}

/// Returns whether `found` equals `kept`, except for erased bytes.
fn is_partly_erased(found: &Segment, kept: &Segment) -> bool {
    let from = found.address.max(kept.address);
    let mut pairs = bytes_from(found, from).iter().zip(bytes_from(kept, from));
    pairs.all(|(&now, &then)| now == then || now == BLANK)
}

/// Returns whether the part holds a program that cannot have run: a program without its first word, which cfdfu writes
/// last, or truncated firmware, for example after an interrupted flash by another program.
fn is_incomplete(part: &Segment) -> bool {
    let starts = part.address == LOADER_BASE || part.address == FIRMWARE_BASE;
    let headless = part.data.iter().take(4).all(|&byte| byte == BLANK);
    starts && (headless && !is_blank(&part.data) || part.address == FIRMWARE_BASE && is_truncated(&part.data))
}

/// Returns whether the firmware is known to be truncated. Returns `false` if too few bytes were read to decide.
fn is_truncated(bytes: &[u8]) -> bool {
    let content = Content::in_flash(bytes);
    let firmware = content.as_ref().and_then(Content::firmware);
    firmware.is_some_and(|firmware| firmware.extent.complete() == Some(false))
}

/// Returns the part of the segment at these addresses, or `None` if the segment has no bytes there.
fn within(segment: &Segment, addresses: Range<u64>) -> Option<Segment> {
    let start = segment.address.wide().max(addresses.start);
    let len =
        usize::try_from(segment.end().min(addresses.end).checked_sub(start)?).ok().filter(|&len| len > 0)?;
    let address = Address(u32::try_from(start).ok()?);
    Some(Segment { address, data: bytes_from(segment, address).get(..len)?.to_vec() })
}

/// Returns `kept`, extended with the bytes of `found` before and after it, or `None` if there is a gap between the two
/// segments.
fn merge(kept: &Segment, found: &Segment) -> Option<Segment> {
    if found.end() < kept.address.wide() || kept.end() < found.address.wide() {
        return None;
    }
    let address = kept.address.min(found.address);
    let ahead = (kept.address.0 - address.0) as usize;
    let mut data = found.data.get(..ahead).unwrap_or_default().to_vec();
    data.extend(&kept.data);
    let behind = Address(u32::try_from(kept.end()).ok()?);
    data.extend(bytes_from(found, behind));
    Some(Segment { address, data })
}

/// Returns the bytes of the segment from this address on; none if the segment ends before this address.
fn bytes_from(segment: &Segment, start: Address) -> &[u8] {
    let from = start.0.saturating_sub(segment.address.0) as usize;
    segment.data.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
