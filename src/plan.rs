//! What a job will do, as data, before it does any of it.
//!
//! [`Plan::new`] turns admitted segments and the device's memory map into sectors; [`Plan::work`] turns
//! the answer of the comparison into erases, writes and read-backs in the one order that is safe:
//!
//! 1. erase, the head sectors first: from then on nothing starts half a firmware;
//! 2. write and verify everything but the commit words;
//! 3. write and verify the commit words, the loader's before the firmware's.
//!
//! The bootloader starts whatever has a first word other than 0xFFFFFFFF at 0x08004000. That word is the
//! commit word of a firmware: until it is written, an interrupted job leaves a drone that waits for help.

use std::sync::Arc;

use thiserror::Error;

use crate::flash::map::MemoryMap;
use crate::flash::{Address, BLANK, FIRMWARE_BASE, LOADER_BASE, Sector, Segment, Span, is_blank};

pub mod admission;
pub mod undo;

use admission::{ApprovedImage, Purpose};

/// The chip programs words: lengths are multiples of this (AN2606, "Bootloader memory management").
const WORD: u32 = 4;

/// The sectors of one job with the bytes that belong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    purpose: Purpose,
    /// The image's own bytes, without padding.
    pub bytes: usize,
    /// Shared by all copies: events carry plans.
    pieces: Arc<[Segment]>,
    sectors: Vec<PlannedSector>,
    heads: Vec<Span>,
}

/// A sector that the image intersects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSector {
    pub sector: Sector,
    /// The parts of it that the image fills, ascending.
    pub filled: Vec<Span>,
}

/// What the comparison found of one planned sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// Does not, and holds something that must be erased first.
    Differs,
    /// Does not, but is blank from end to end.
    Blank,
}

/// What is left to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Sectors to erase, head sectors first.
    pub erase: Vec<Sector>,
    /// Blocks to write; those that are all 0xFF are left out, erasing wrote them.
    pub write: Vec<Span>,
    /// Everything in the rewritten sectors but the commit words, to read back.
    pub verify: Vec<Span>,
    /// The first word of each part, to write and then read back when all else is proven.
    pub commit: Vec<Span>,
}

impl Work {
    /// Whether the bootloader's sector is erased or written.
    pub(crate) fn writes_loader(&self) -> bool {
        let in_loader = |start: Address| start < FIRMWARE_BASE;
        self.erase.iter().any(|sector| in_loader(sector.span.start()))
            || self.write.iter().chain(&self.commit).any(|span| in_loader(span.start()))
    }

    /// Whether the flash already holds the image.
    pub fn is_nothing(&self) -> bool {
        self.erase.is_empty() && self.commit.is_empty()
    }

    /// The stretches that are rewritten, ascending, with the commit words in them: where the work really is, which may
    /// start far behind the start of the image.
    pub(crate) fn stretches(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.verify.iter().chain(&self.commit).copied().collect();
        spans.sort_by_key(|span| span.start());
        let mut stretches: Vec<Span> = Vec::new();
        for span in spans {
            match stretches.last_mut() {
                Some(last) if last.end() == span.start().wide() => {
                    *last = Span::between(last.start(), span.end()).unwrap_or(span);
                }
                _ => stretches.push(span),
            }
        }
        stretches
    }

    /// Bytes that will be written.
    pub(crate) fn bytes(&self) -> u64 {
        self.write.iter().chain(&self.commit).map(|block| u64::from(block.len())).sum()
    }
}

/// Why admitted segments cannot be flashed to this device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The image reaches where the device has nothing.
    #[error("{0} is outside the device's memory map")]
    OutsideMap(Span),
    /// The device does not let this sector be erased and written.
    #[error("the device does not allow sector {index} ({span}) to be erased and written")]
    NotWritable {
        index: usize,
        /// Its bytes.
        span: Span,
    },
    /// The device's sectors are laid out so that the image's erases would hit the bootloader.
    #[error("on this device, erasing for {0} would erase the bootloader too")]
    TouchesBootloader(Span),
    /// The segments share bytes.
    #[error("the image holds {0} twice")]
    Overlap(Address),
}

impl Plan {
    /// Lays the segments out on the device's sectors.
    pub fn new(admitted: &ApprovedImage, map: &MemoryMap) -> Result<Plan, PlanError> {
        let mut pieces: Vec<Segment> = admitted.segments().iter().map(padded).collect();
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
            if admitted.purpose() == Purpose::Flash && sector.span.start() < FIRMWARE_BASE {
                return Err(PlanError::TouchesBootloader(filled[0]));
            }
        }
        let heads = heads(&spans);
        Ok(Plan {
            purpose: admitted.purpose(),
            bytes: admitted.bytes(),
            pieces: pieces.into(),
            sectors,
            heads,
        })
    }

    /// Whether the bootloader's sector is meant.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The image in its place, padded to whole words.
    pub fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// The sectors that the image intersects, ascending.
    pub fn sectors(&self) -> &[PlannedSector] {
        &self.sectors
    }

    /// Where the image starts: the lowest address of it.
    pub(crate) fn start(&self) -> Address {
        self.pieces.first().map_or(FIRMWARE_BASE, |piece| piece.address)
    }

    /// The image's bytes at `span`, which lies in one of the filled parts.
    pub(crate) fn data(&self, span: Span) -> &[u8] {
        let piece = self.pieces.iter().rfind(|piece| piece.address <= span.start());
        piece.map_or(&[], |piece| {
            let from = (span.start().0 - piece.address.0) as usize;
            piece.data.get(from..from + span.size()).unwrap_or_default()
        })
    }

    /// What is left to do after the comparison; `found` has one answer for each of [`Plan::sectors`].
    ///
    /// If anything of a part must be written, its head sector is rewritten too, even where it is the same:
    /// else an interrupted job would leave an old head on a new body.
    pub fn work(&self, found: &[Comparison], block: u32) -> Work {
        let mut found = found.to_vec();
        found.resize(self.sectors.len(), Comparison::Differs);
        for head in &self.heads {
            let part: Vec<usize> = self.part_of(*head).collect();
            if part.iter().any(|&n| found[n] != Comparison::Same) {
                let at = part.iter().find(|&&n| self.sectors[n].sector.span.contains(head.start()));
                if let Some(&at) = at.filter(|&&at| found[at] == Comparison::Same) {
                    found[at] = Comparison::Differs;
                }
            }
        }
        let rewritten = |n: &usize| found[*n] != Comparison::Same;
        let sectors: Vec<usize> = (0..self.sectors.len()).filter(rewritten).collect();
        let is_head = |span: Span| self.heads.iter().any(|head| span.contains(head.start()));

        let mut erase: Vec<Sector> = sectors
            .iter()
            .filter(|&&n| found[n] == Comparison::Differs)
            .map(|&n| self.sectors[n].sector)
            .collect();
        // Heads first, the firmware's before the loader's; the rest ascending.
        erase.sort_by_key(|s| {
            if is_head(s.span) { (0, u32::MAX - s.span.start().0) } else { (1, s.span.start().0) }
        });

        let verify: Vec<Span> = sectors
            .iter()
            .flat_map(|&n| &self.sectors[n].filled)
            .flat_map(|filled| without(*filled, &self.heads))
            .collect();
        let blocks = verify.iter().flat_map(|span| span.blocks(block));
        let write = blocks.filter(|block| !is_blank(self.data(*block))).collect();
        let touched =
            |head: &&Span| sectors.iter().any(|&n| self.sectors[n].sector.span.contains(head.start()));
        let commit = self.heads.iter().filter(touched).copied().collect();
        Work { erase, write, verify, commit }
    }

    /// The sectors of the part that `head` starts: up to the next head.
    fn part_of(&self, head: Span) -> impl Iterator<Item = usize> {
        let end = self.heads.iter().map(|h| h.start()).filter(|&start| start > head.start()).min();
        let is_in =
            move |span: Span| span.end() > head.start().wide() && end.is_none_or(|end| span.start() < end);
        (0..self.sectors.len()).filter(move |&n| is_in(self.sectors[n].sector.span))
    }
}

/// A short tail padded with what erased flash reads as, so that whole words are programmed.
fn padded(segment: &Segment) -> Segment {
    let mut data = segment.data.clone();
    data.resize(data.len().next_multiple_of(WORD as usize), BLANK);
    Segment { address: segment.address, data }
}

fn span_of(segment: &Segment) -> Option<Span> {
    Span::new(segment.address, u32::try_from(segment.data.len()).ok()?)
}

/// The first words of what the chip may start: bootloader and firmware, where the image has them; of
/// anything else its lowest word. Ascending, so the loader is committed before the firmware.
fn heads(spans: &[Span]) -> Vec<Span> {
    let word = |at| Span::new(at, WORD);
    let known = [LOADER_BASE, FIRMWARE_BASE].into_iter().filter_map(word);
    let mut heads: Vec<Span> = known.filter(|head| spans.iter().any(|span| span.covers(*head))).collect();
    if heads.is_empty() {
        heads.extend(spans.first().and_then(|span| word(span.start())));
    }
    heads
}

/// `span` less the heads in it. Heads are ascending.
fn without(span: Span, heads: &[Span]) -> Vec<Span> {
    let mut rest = Vec::new();
    let mut from = span.start();
    for head in heads.iter().filter(|head| span.covers(**head)) {
        rest.extend(Span::between(from, head.start().wide()));
        from = head.start().checked_add(WORD).unwrap_or(from);
    }
    rest.extend(Span::between(from, span.end()));
    rest
}

#[cfg(test)]
mod tests;
