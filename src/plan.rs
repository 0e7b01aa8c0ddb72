//! A job as data: which sectors to erase, which bytes to write and read back, and in which order.
//!
//! [`Plan::new`] maps an approved image onto the device's sectors, without any I/O. [`Plan::work`] accepts the result
//! of comparing these sectors with the image and returns the remaining [`Work`]. The order of the work makes a flash
//! safe to interrupt.

use std::sync::Arc;

use thiserror::Error;

use crate::flash::map::MemoryMap;
use crate::flash::{Address, BLANK, FIRMWARE_BASE, LOADER_BASE, Sector, Segment, Span, is_blank};

pub mod admission;
pub mod undo;

use admission::{ApprovedImage, Purpose};

/// In 32-bit mode, the ROM accepts only addresses and lengths that are multiples of this number (AN2606, "Bootloader
/// memory management").
const WORD: u32 = 4;

/// The sectors that one job may change, with the bytes that belong in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    purpose: Purpose,
    /// The size of the image in bytes, without padding.
    pub bytes: usize,
    /// The padded segments of the image, shared because events carry clones of the plan.
    pieces: Arc<[Segment]>,
    sectors: Vec<PlannedSector>,
    /// The commit words of the image, in ascending order: see [`Work`].
    commit_words: Vec<Span>,
}

/// A sector that the image intersects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSector {
    pub sector: Sector,
    /// The parts of the sector that the image fills, in ascending order.
    pub filled: Vec<Span>,
}

/// How a planned sector compares with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// The sector differs and must be erased before it is written.
    Differs,
    /// The sector differs but is entirely blank, so it does not need to be erased.
    Blank,
}

/// The remaining erases, writes and read-backs, in an order that is safe to interrupt.
///
/// Before the bootloader starts the firmware, it checks only that the word at 0x08004000 is not 0xFFFFFFFF
/// (crazyflie2-stm-bootloader, `main.c`). There is no checksum, so the bootloader would also start incomplete firmware.
/// The first word of each program therefore serves as its *commit word*, and the sector that contains the commit word
/// is the program's *head sector*:
///
/// 1. Erase, head sectors first. Once the head sectors are erased, the commit words are blank and the remains of the
///    old firmware cannot start.
/// 2. Write and verify everything except the commit words.
/// 3. Write and verify the commit words, the bootloader's before the firmware's.
///
/// In any other order, a disconnect at the wrong moment could make the drone start incomplete firmware and crash.
/// With this order, the bootloader finds no firmware and waits for an update instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Sectors to erase, head sectors first.
    pub erase: Vec<Sector>,
    /// Blocks to write. Blocks that contain only 0xFF are omitted, because erasing already produces them.
    pub write: Vec<Span>,
    /// Spans to read back: the image's bytes in the rewritten sectors, except the commit words.
    pub verify: Vec<Span>,
    /// Commit words, to be written and read back once everything else is verified.
    pub commit: Vec<Span>,
}

impl Work {
    /// Returns whether the bootloader's sector is erased or written.
    pub(crate) fn writes_loader(&self) -> bool {
        let in_loader = |start: Address| start < FIRMWARE_BASE;
        self.erase.iter().any(|sector| in_loader(sector.span.start()))
            || self.write.iter().chain(&self.commit).any(|span| in_loader(span.start()))
    }

    /// Returns whether the flash already contains the image.
    pub fn is_empty(&self) -> bool {
        self.erase.is_empty() && self.commit.is_empty()
    }

    /// Returns the rewritten spans, including the commit words, merged and in ascending order. The first span may start
    /// far beyond the start of the image.
    pub(crate) fn rewritten_spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.verify.iter().chain(&self.commit).copied().collect();
        spans.sort_by_key(|span| span.start());
        let mut rewritten_spans: Vec<Span> = Vec::new();
        for span in spans {
            match rewritten_spans.last_mut() {
                Some(last) if last.end() == span.start().wide() => {
                    *last = Span::between(last.start(), span.end()).unwrap_or(span);
                }
                _ => rewritten_spans.push(span),
            }
        }
        rewritten_spans
    }

    /// Returns the number of bytes to write.
    pub(crate) fn bytes(&self) -> u64 {
        self.write.iter().chain(&self.commit).map(|block| u64::from(block.len())).sum()
    }
}

/// Why an approved image cannot be flashed to this device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The image extends beyond the device's memory.
    #[error("{0} is outside the device's memory map")]
    OutsideMap(Span),
    /// The device does not allow this sector to be read, erased and written.
    #[error("the device does not allow sector {index} ({span}) to be read, erased and written")]
    NotWritable { index: usize, span: Span },
    /// A sector that the image needs also contains the bootloader.
    #[error("on this device, erasing {0} would also erase the bootloader")]
    TouchesBootloader(Span),
    /// Two segments overlap.
    #[error("two parts of the image overlap at {0}")]
    Overlap(Address),
}

impl Plan {
    /// Maps the image onto the device's sectors.
    pub fn new(approved: &ApprovedImage, map: &MemoryMap) -> Result<Plan, PlanError> {
        let mut pieces: Vec<Segment> = approved.segments().iter().map(pad_to_word).collect();
        pieces.sort_by_key(|piece| piece.address);
        let spans: Vec<Span> = pieces.iter().filter_map(span_of).collect();
        if let Some(pair) = spans.windows(2).find(|pair| pair[0].end() > pair[1].start().wide()) {
            return Err(PlanError::Overlap(pair[1].start()));
        }
        if let Some(outside) = spans.iter().find(|span| !map.covers(**span)) {
            return Err(PlanError::OutsideMap(*outside));
        }
        let sectors: Vec<PlannedSector> = map
            .sectors()
            .iter()
            .map(|sector| PlannedSector {
                sector: *sector,
                filled: spans.iter().filter_map(|span| span.intersection(sector.span)).collect(),
            })
            .filter(|planned| !planned.filled.is_empty())
            .collect();
        for PlannedSector { sector, filled } in &sectors {
            let access = sector.access;
            if !(access.readable && access.erasable && access.writable) {
                return Err(PlanError::NotWritable { index: sector.index, span: sector.span });
            }
            if approved.purpose() == Purpose::Flash && sector.span.start() < FIRMWARE_BASE {
                return Err(PlanError::TouchesBootloader(filled[0]));
            }
        }
        let commit_words = commit_words(&spans);
        Ok(Plan {
            purpose: approved.purpose(),
            bytes: approved.bytes(),
            pieces: pieces.into(),
            sectors,
            commit_words,
        })
    }

    /// Returns the purpose of the job: a restore may change the bootloader's sector, but a flash may not.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Returns the image's segments, padded to whole words.
    pub fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// Returns the sectors that the image intersects, in ascending order.
    pub fn sectors(&self) -> &[PlannedSector] {
        &self.sectors
    }

    /// Returns the lowest address of the image.
    pub(crate) fn start(&self) -> Address {
        self.pieces.first().map_or(FIRMWARE_BASE, |piece| piece.address)
    }

    /// Returns the image's bytes at `span`, which must be inside one of the filled parts.
    pub(crate) fn data(&self, span: Span) -> &[u8] {
        let piece = self.pieces.iter().rfind(|piece| piece.address <= span.start());
        piece.map_or(&[], |piece| {
            let from = (span.start().0 - piece.address.0) as usize;
            piece.data.get(from..from + span.size()).unwrap_or_default()
        })
    }

    /// Returns the work that remains after the comparison. `found` has one entry for each of [`Plan::sectors`].
    ///
    /// If any sector of a program differs, the program's head sector is also erased and rewritten, even if it matches.
    /// Flash is erased in whole sectors, so erasing the head sector is the only way to blank the commit word first. If
    /// a matching head sector were skipped, its commit word would stay valid during the job, and the bootloader would
    /// start a mixture of old and new firmware after an interruption.
    pub fn work(&self, found: &[Comparison], block: u32) -> Work {
        let mut found = found.to_vec();
        found.resize(self.sectors.len(), Comparison::Differs);
        for head in &self.commit_words {
            let part: Vec<usize> = self.program_sectors(*head).collect();
            if part.iter().any(|&n| found[n] != Comparison::Same) {
                let at = part.iter().find(|&&n| self.sectors[n].sector.span.contains(head.start()));
                if let Some(&at) = at.filter(|&&at| found[at] == Comparison::Same) {
                    found[at] = Comparison::Differs;
                }
            }
        }
        let rewritten = |n: &usize| found[*n] != Comparison::Same;
        let sectors: Vec<usize> = (0..self.sectors.len()).filter(rewritten).collect();
        let is_head = |span: Span| self.commit_words.iter().any(|head| span.contains(head.start()));

        let mut erase: Vec<Sector> = sectors
            .iter()
            .filter(|&&n| found[n] == Comparison::Differs)
            .map(|&n| self.sectors[n].sector)
            .collect();
        // Head sectors first, the firmware's before the bootloader's; then the rest in ascending order.
        erase.sort_by_key(|s| {
            if is_head(s.span) { (0, u32::MAX - s.span.start().0) } else { (1, s.span.start().0) }
        });

        let verify: Vec<Span> = sectors
            .iter()
            .flat_map(|&n| &self.sectors[n].filled)
            .flat_map(|filled| without_commit_words(*filled, &self.commit_words))
            .collect();
        let blocks = verify.iter().flat_map(|span| span.blocks(block));
        let write = blocks.filter(|block| !is_blank(self.data(*block))).collect();
        let touched =
            |head: &&Span| sectors.iter().any(|&n| self.sectors[n].sector.span.contains(head.start()));
        let commit = self.commit_words.iter().filter(touched).copied().collect();
        Work { erase, write, verify, commit }
    }

    /// Returns the indices of the sectors from the commit word `head` up to the next commit word.
    fn program_sectors(&self, head: Span) -> impl Iterator<Item = usize> {
        let end = self.commit_words.iter().map(|h| h.start()).filter(|&start| start > head.start()).min();
        let is_in =
            move |span: Span| span.end() > head.start().wide() && end.is_none_or(|end| span.start() < end);
        (0..self.sectors.len()).filter(move |&n| is_in(self.sectors[n].sector.span))
    }
}

/// Pads a short tail to a whole word with the value of erased flash.
fn pad_to_word(segment: &Segment) -> Segment {
    let mut data = segment.data.clone();
    data.resize(data.len().next_multiple_of(WORD as usize), BLANK);
    Segment { address: segment.address, data }
}

fn span_of(segment: &Segment) -> Option<Span> {
    Span::new(segment.address, u32::try_from(segment.data.len()).ok()?)
}

/// Returns the commit words: the first words of the bootloader and of the firmware if the image contains them, or else
/// the lowest word of the image. The order is ascending, so that the bootloader is committed before the firmware.
fn commit_words(spans: &[Span]) -> Vec<Span> {
    let word = |at| Span::new(at, WORD);
    let known = [LOADER_BASE, FIRMWARE_BASE].into_iter().filter_map(word);
    let mut commit_words: Vec<Span> =
        known.filter(|head| spans.iter().any(|span| span.covers(*head))).collect();
    if commit_words.is_empty() {
        commit_words.extend(spans.first().and_then(|span| word(span.start())));
    }
    commit_words
}

/// Returns the parts of `span` that remain without the commit words in it. `commit_words` must be in ascending order.
fn without_commit_words(span: Span, commit_words: &[Span]) -> Vec<Span> {
    let mut rest = Vec::new();
    let mut from = span.start();
    for head in commit_words.iter().filter(|head| span.covers(**head)) {
        rest.extend(Span::between(from, head.start().wide()));
        from = head.start().checked_add(WORD).unwrap_or(from);
    }
    rest.extend(Span::between(from, span.end()));
    rest
}

#[cfg(test)]
mod tests;
