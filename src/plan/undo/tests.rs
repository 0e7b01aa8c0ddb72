//! Tests random sequences of flashes, restores and undos on a chip with small sectors. Some of these changes are
//! interrupted at a random point. An undo must restore the image that last ran on the drone, or report why it cannot.

use proptest::prelude::*;

use super::*;
use crate::flash::map::MemoryMap;
use crate::plan::admission::{self, Overrides};
use crate::plan::{Comparison, Plan, Work};

/// Sector 0 has its real size; the other sectors have room for only a few words.
const MAP: &str = "@Flash /0x08000000/01*016Kg,03*064Bg,01*128Bg,02*256Bg";
const LEN: usize = 0x4000 + 3 * 64 + 128 + 2 * 256;
const BLOCK: u32 = 32;

#[derive(Clone, Debug)]
enum Action {
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
    /// Another program writes complete firmware.
    Other {
        len: usize,
        seed: u8,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let len = 8..LEN - 0x4000;
    prop_oneof![
        3 => (len.clone(), 1..250u8, prop::bool::weighted(0.9))
            .prop_map(|(len, seed, keep)| Action::Flash { len, seed, keep }),
        1 => (len.clone(), 1..250u8).prop_map(|(len, seed)| Action::Other { len, seed }),
        2 => (1..250u8, prop::option::of(len)).prop_map(|(seed, firmware)| Action::Restore { seed, firmware }),
        4 => Just(Action::Undo),
    ]
}

/// Generates an action and, if it is interrupted, the number of bytes erased and written before the interruption.
fn step() -> impl Strategy<Value = (Action, Option<usize>)> {
    (action(), prop::option::of(0..1500usize))
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    // No byte is blank, so only the first word distinguishes a complete image from an incomplete one.
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

    /// Performs the work in order, but at most `cut` bytes of it. Returns `false` if the work was interrupted. Every
    /// erase counts as 64 bytes.
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
            // A single word is never written partially.
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

/// What an undo must restore, derived only from the sequence of actions.
#[derive(Clone, Default)]
struct ModelMemory {
    /// The last complete content of each part before its last change. `None` if the change kept no copy.
    before: Both<Option<Vec<u8>>>,
    /// The content of each part before a change, if an earlier completed change had written exactly this content.
    rewritten: Both<Option<Vec<u8>>>,
    /// The content of each part after every change that completed.
    whole: Both<Vec<Vec<u8>>>,
    /// Which parts are incomplete after an interrupted change.
    broken: Both<bool>,
    /// Which parts the last change wrote to.
    changed: Both<bool>,
    /// Whether another program has written to the flash since the last change.
    changed_since: bool,
    /// What an interrupted undo had to restore.
    undoing: Option<Box<ModelMemory>>,
}

impl ModelMemory {
    /// Records that these sectors are about to be changed.
    fn record_change(&mut self, sectors: Span, flash: &[u8], keep: bool) {
        self.changed = [sectors.start() < FIRMWARE_BASE, sectors.end() > FIRMWARE_BASE.wide()];
        if !keep {
            self.before = [None, None];
        }
        for n in (0..2).filter(|n| self.changed[*n]) {
            let content = parts(flash)[n];
            if keep && !self.broken[n] {
                self.before[n] = Some(content.to_vec());
            }
            if self.whole[n].iter().any(|it| it == content) {
                self.rewritten[n] = Some(content.to_vec());
            }
        }
        // A copy is never partial.
        if (0..2).any(|n| self.changed[n] && self.before[n].is_none()) {
            self.before = [None, None];
        }
    }

    /// Returns whether an undo may be refused because there is no copy of a part that the last change wrote to.
    fn may_refuse(&self) -> bool {
        self.undoing.is_none() && (0..2).any(|n| self.changed[n] && self.before[n].is_none())
    }
}

fn parts(flash: &[u8]) -> Both<&[u8]> {
    let (loader, firmware) = flash.split_at(0x4000);
    [loader, firmware]
}

fn with_override() -> Overrides {
    Overrides { allow_mismatch: true, ..Overrides::default() }
}

#[allow(clippy::too_many_lines, reason = "a model with one arm per action")]
fn run(actions: Vec<(Action, Option<usize>)>) {
    let map = MemoryMap::parse(MAP).unwrap();
    let mut chip = ModelChip(vec![BLANK; LEN]);
    chip.at(LOADER_BASE, 400).copy_from_slice(&bytes(9, 400));
    chip.at(FIRMWARE_BASE, 300).copy_from_slice(&bytes(11, 300));
    let whole = parts(&chip.0).map(|part| vec![part.to_vec()]);
    let (mut history, mut memory) = (History::default(), ModelMemory { whole, ..ModelMemory::default() });
    for (action, cut) in actions {
        let (copy, change, keep) = match &action {
            Action::Flash { len, seed, keep } => {
                (Segment { address: FIRMWARE_BASE, data: bytes(*seed, *len) }, Change::Flash, *keep)
            }
            Action::Restore { seed, firmware } => {
                let mut data = bytes(*seed, 400);
                if let Some(len) = firmware {
                    data.resize(0x4000, 0x5A);
                    data.extend(bytes(seed.wrapping_add(1).max(1), *len));
                }
                (Segment { address: LOADER_BASE, data }, Change::Flash, true)
            }
            Action::Undo => match history.target() {
                Ok(copy) => (copy.clone(), Change::Undo, true),
                // A refusal is correct only if there is nothing to restore.
                Err(why) => {
                    assert!(memory.may_refuse() || why == NoCopy::NeverFlashed, "{history:?}");
                    continue;
                }
            },
            Action::Other { len, seed } => {
                // While a change is unfinished, another program's writes look like leftovers of that change.
                if history.unfinished.is_none() {
                    chip.at(FIRMWARE_BASE, LEN - 0x4000).fill(BLANK);
                    chip.at(FIRMWARE_BASE, *len).copy_from_slice(&bytes(*seed, *len));
                    // Every image starts with a different word, because an image that merely extends another image
                    // would count as the same image.
                    let [low, high, ..] = len.to_le_bytes();
                    chip.at(FIRMWARE_BASE, 4).copy_from_slice(&[0xFB, 0xFB, low, high]);
                    memory.whole[1].push(parts(&chip.0)[1].to_vec());
                    memory.changed_since = true;
                }
                continue;
            }
        };
        let plan = Plan::new(&admission::undo(copy, with_override()).unwrap(), &map).unwrap();
        let found = chip.compare(&plan);
        let work = plan.work(&found, BLOCK);
        if work.is_empty() {
            if change == Change::Undo {
                history = history.undone();
                memory.undoing = None;
            }
            continue;
        }
        let (first, last) = (plan.sectors()[0].sector.span, plan.sectors().last().unwrap().sector.span);
        let span = (first.start(), usize::try_from(last.end() - first.start().wide()).unwrap());
        let before = Segment { address: span.0, data: chip.at(span.0, span.1).to_vec() };
        let previous = chip.0.clone();
        if change == Change::Undo {
            let is_refused = history.expected().iter().any(|piece| piece.is_in(&before) == Some(false));
            assert!(
                !is_refused || memory.changed_since,
                "the undo was refused although the drone holds what was written last"
            );
            if is_refused {
                continue;
            }
            // The other program may have written the same content, or the last change may not have affected this part.
            let wrote = history.expected().iter().filter(|piece| piece.span.end() > FIRMWARE_BASE.wide());
            let same = wrote.clone().all(|piece| piece.is_in(&before) == Some(true));
            assert!(!memory.changed_since || !memory.changed[1] || same && wrote.count() > 0);
        }
        memory.changed_since = false;
        let goal = memory.undoing.take().map_or_else(|| memory.clone(), |goal| *goal);
        let sectors = Span::between(span.0, last.end()).unwrap();
        memory.record_change(sectors, &previous, keep);
        history = history.begin(plan.pieces(), keep.then_some(&before), change);
        let finished = chip.perform(&plan, &work, cut);
        for n in (0..2).filter(|n| memory.changed[*n]) {
            memory.broken[n] = !finished;
        }
        if !finished {
            memory.undoing = (change == Change::Undo).then(|| Box::new(goal));
            continue;
        }
        history = history.end();
        for n in (0..2).filter(|n| memory.changed[*n]) {
            memory.whole[n].push(parts(&chip.0)[n].to_vec());
        }
        if change == Change::Undo {
            for n in 0..2 {
                let now = Some(parts(&chip.0)[n]);
                let is_back = goal.before[n].as_deref() == now || goal.rewritten[n].as_deref() == now;
                let is_unchanged = !goal.changed[n] && parts(&previous)[n] == parts(&chip.0)[n];
                assert!(is_back || is_unchanged, "part {n}: the undo restored the wrong content");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]
    #[test]
    fn an_undo_either_fails_or_restores_the_image_that_last_ran(actions in prop::collection::vec(step(), 1..12)) {
        run(actions);
    }
}
