//! Any sequence of flashes, restores and undos, each cut at any point, on a chip with small sectors: what an undo brings
//! back is what the user last had running, or it says why not.

use proptest::prelude::*;

use super::*;
use crate::flash::map::MemoryMap;
use crate::plan::admission::{self, Overrides};
use crate::plan::{Comparison, Plan, Work};

/// Sector 0 has its real size, the others hold a few words.
const MAP: &str = "@Flash /0x08000000/01*016Kg,03*064Bg,01*128Bg,02*256Bg";
const LEN: usize = 0x4000 + 3 * 64 + 128 + 2 * 256;
const BLOCK: u32 = 32;

#[derive(Clone, Debug)]
enum Deed {
    Flash {
        len: usize,
        seed: u8,
        keep: bool,
    },
    Restore {
        seed: u8,
        firmware: Option<usize>,
    },
    Undo,
    /// Another program writes a whole firmware.
    Other {
        len: usize,
        seed: u8,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let len = 8..LEN - 0x4000;
    prop_oneof![
        3 => (len.clone(), 1..250u8, prop::bool::weighted(0.9))
            .prop_map(|(len, seed, keep)| Deed::Flash { len, seed, keep }),
        1 => (len.clone(), 1..250u8).prop_map(|(len, seed)| Deed::Other { len, seed }),
        2 => (1..250u8, prop::option::of(len)).prop_map(|(seed, firmware)| Deed::Restore { seed, firmware }),
        4 => Just(Deed::Undo),
    ]
}

/// A deed, and after how many bytes of erasing and writing it is cut, if it is.
fn step() -> impl Strategy<Value = (Deed, Option<usize>)> {
    (deed(), prop::option::of(0..1500usize))
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    // No blank bytes: only the first word tells a whole image from a half one.
    (0..len).map(|n| seed.wrapping_add(u8::try_from(n * 7 % 251).unwrap()).min(0xFE)).collect()
}

struct ModelChip(Vec<u8>);

impl ModelChip {
    fn at(&mut self, address: Address, len: usize) -> &mut [u8] {
        let from = (address.0 - LOADER_BASE.0) as usize;
        &mut self.0[from..from + len]
    }

    fn compare(&mut self, plan: &Plan) -> Vec<Comparison> {
        let compare = |planned: &crate::plan::PlannedSector| {
            let span = planned.sector.span;
            if planned.filled.iter().all(|part| *self.at(part.start(), part.size()) == *plan.data(*part)) {
                Comparison::Same
            } else if is_blank(self.at(span.start(), span.size())) {
                Comparison::Blank
            } else {
                Comparison::Differs
            }
        };
        plan.sectors().iter().map(compare).collect()
    }

    /// Does the work in its order; `false` if it was cut. The effort of an erase is small, whatever it erases.
    fn perform(&mut self, plan: &Plan, work: &Work, cut: Option<usize>) -> bool {
        let mut effort = cut.unwrap_or(usize::MAX);
        for sector in &work.erase {
            let share = effort.min(64);
            let done = sector.span.size() * share / 64;
            self.at(sector.span.start(), done).fill(BLANK);
            if share < 64 {
                return false;
            }
            effort -= share;
        }
        for span in work.write.iter().chain(&work.commit) {
            // A word is written at once.
            let done = if span.size() == 4 { effort.min(4) / 4 * 4 } else { effort.min(span.size()) };
            let data = &plan.data(*span)[..done];
            self.at(span.start(), done).copy_from_slice(data);
            if done < span.size() {
                return false;
            }
            effort -= done;
        }
        true
    }
}

type Both<T> = [T; 2];

/// What must come back, by what happened and nothing else.
#[derive(Clone, Default)]
struct ModelMemory {
    /// What each part held before its last change, while it was whole; `None` if no copy was to be kept of it.
    before: Both<Option<Vec<u8>>>,
    /// What each part last held before a change that an earlier change had left just so, and whole.
    literal: Both<Option<Vec<u8>>>,
    /// Everything that a change has ever left whole.
    whole: Both<Vec<Vec<u8>>>,
    /// Which parts a change that was cut has left.
    broken: Both<bool>,
    /// Which parts the last change was to.
    changed: Both<bool>,
    /// Another program has written since.
    changed_since: bool,
    /// What an undo that was cut was to bring back.
    undoing: Option<Box<ModelMemory>>,
}

impl ModelMemory {
    /// These sectors are about to be changed.
    fn change(&mut self, sectors: Span, flash: &[u8], keep: bool) {
        self.changed = [sectors.start() < FIRMWARE_BASE, sectors.end() > FIRMWARE_BASE.wide()];
        if !keep {
            self.before = [None, None];
        }
        for n in (0..2).filter(|n| self.changed[*n]) {
            let there = parts(flash)[n];
            if keep && !self.broken[n] {
                self.before[n] = Some(there.to_vec());
            }
            if self.whole[n].iter().any(|it| it == there) {
                self.literal[n] = Some(there.to_vec());
            }
        }
        // A copy is whole or none.
        if (0..2).any(|n| self.changed[n] && self.before[n].is_none()) {
            self.before = [None, None];
        }
    }

    /// Nothing is known of a part that the last change was to.
    fn may_refuse(&self) -> bool {
        self.undoing.is_none() && (0..2).any(|n| self.changed[n] && self.before[n].is_none())
    }
}

fn parts(flash: &[u8]) -> Both<&[u8]> {
    let (loader, firmware) = flash.split_at(0x4000);
    [loader, firmware]
}

fn insist() -> Overrides {
    Overrides { allow_mismatch: true, ..Overrides::default() }
}

#[allow(clippy::too_many_lines, reason = "a model, deed by deed")]
fn run(deeds: Vec<(Deed, Option<usize>)>) {
    let map = MemoryMap::parse(MAP).unwrap();
    let mut chip = ModelChip(vec![BLANK; LEN]);
    chip.at(LOADER_BASE, 400).copy_from_slice(&bytes(9, 400));
    chip.at(FIRMWARE_BASE, 300).copy_from_slice(&bytes(11, 300));
    let whole = parts(&chip.0).map(|part| vec![part.to_vec()]);
    let (mut history, mut memory) = (History::default(), ModelMemory { whole, ..ModelMemory::default() });
    for (deed, cut) in deeds {
        let (copy, change, keep) = match &deed {
            Deed::Flash { len, seed, keep } => {
                (Segment { address: FIRMWARE_BASE, data: bytes(*seed, *len) }, Change::Flash, *keep)
            }
            Deed::Restore { seed, firmware } => {
                let mut data = bytes(*seed, 400);
                if let Some(len) = firmware {
                    data.resize(0x4000, 0x5A);
                    data.extend(bytes(seed.wrapping_add(1).max(1), *len));
                }
                (Segment { address: LOADER_BASE, data }, Change::Flash, true)
            }
            Deed::Undo => match history.target() {
                Ok(copy) => (copy.clone(), Change::Undo, true),
                // It says why not: then there is nothing that should have come back.
                Err(why) => {
                    assert!(memory.may_refuse() || why == NoCopy::NeverFlashed, "{history:?}");
                    continue;
                }
            },
            Deed::Other { len, seed } => {
                // Over a change that is unfinished it cannot be told from what that has left.
                if history.unfinished.is_none() {
                    chip.at(FIRMWARE_BASE, LEN - 0x4000).fill(BLANK);
                    chip.at(FIRMWARE_BASE, *len).copy_from_slice(&bytes(*seed, *len));
                    // No two images begin alike: one that another only goes on from counts as that one.
                    let [low, high, ..] = len.to_le_bytes();
                    chip.at(FIRMWARE_BASE, 4).copy_from_slice(&[0xFB, 0xFB, low, high]);
                    memory.whole[1].push(parts(&chip.0)[1].to_vec());
                    memory.changed_since = true;
                }
                continue;
            }
        };
        let plan = Plan::new(&admission::undo(copy, insist()).unwrap(), &map).unwrap();
        let found = chip.compare(&plan);
        let work = plan.work(&found, BLOCK);
        if work.is_nothing() {
            if change == Change::Undo {
                history = history.undone();
                memory.undoing = None;
            }
            continue;
        }
        let (first, last) = (plan.sectors()[0].sector.span, plan.sectors().last().unwrap().sector.span);
        let span = (first.start(), usize::try_from(last.end() - first.start().wide()).unwrap());
        let before = Segment { address: span.0, data: chip.at(span.0, span.1).to_vec() };
        let was = chip.0.clone();
        if change == Change::Undo {
            let is_refused = history.expected().iter().any(|piece| piece.is_in(&before) == Some(false));
            assert!(!is_refused || memory.changed_since, "the drone holds what was written last");
            if is_refused {
                continue;
            }
            // The other program may have written what was there, or the last change went elsewhere.
            let wrote = history.expected().iter().filter(|piece| piece.span.end() > FIRMWARE_BASE.wide());
            let same = wrote.clone().all(|piece| piece.is_in(&before) == Some(true));
            assert!(!memory.changed_since || !memory.changed[1] || same && wrote.count() > 0);
        }
        memory.changed_since = false;
        let goal = memory.undoing.take().map_or_else(|| memory.clone(), |goal| *goal);
        let sectors = Span::between(span.0, last.end()).unwrap();
        memory.change(sectors, &was, keep);
        history = history.begin(plan.pieces(), keep.then_some(&before), change);
        let whole = chip.perform(&plan, &work, cut);
        for n in (0..2).filter(|n| memory.changed[*n]) {
            memory.broken[n] = !whole;
        }
        if !whole {
            memory.undoing = (change == Change::Undo).then(|| Box::new(goal));
            continue;
        }
        history = history.end();
        for n in (0..2).filter(|n| memory.changed[*n]) {
            memory.whole[n].push(parts(&chip.0)[n].to_vec());
        }
        if change == Change::Undo {
            for n in 0..2 {
                let there = Some(parts(&chip.0)[n]);
                let is_back = goal.before[n].as_deref() == there || goal.literal[n].as_deref() == there;
                let is_left_alone = !goal.changed[n] && parts(&was)[n] == parts(&chip.0)[n];
                assert!(is_back || is_left_alone, "part {n}: something else came back");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]
    #[test]
    fn an_undo_brings_back_what_ran_last_or_says_why_not(deeds in prop::collection::vec(step(), 1..12)) {
        run(deeds);
    }
}
