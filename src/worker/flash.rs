//! The flash job: carries out the plan in order and verifies every change.
//!
//! `ctx.drone` is updated before each change, so once this job has changed something, it always holds the state that
//! the drone would be in if the job ended at that moment.

use std::collections::BTreeSet;
use std::time::Duration;

use super::find::{self, InDfu};
use super::identify::read_sector_0;
use super::reboot::{self, Restarted};
use super::session::{Programming, Session};
use super::timeline::Part;
use super::{Ctx, Meter, RunState, Stop, require_same};
use crate::crazyflie::console::RadioChip;
use crate::crazyflie::{Board, Protection};
use crate::dfu::machine::Operation;
use crate::flash::{Address, FIRMWARE_BASE, LOADER_BASE, Sector, Segment, Span, is_blank};
use crate::image::Loader;
use crate::image::{Content, Firmware};
use crate::job::{
    AddressRanges, BoardCheck, Compare, Confirm, Device, DroneState, Event, FailureKind, FlashTask, Job,
    Keep, Leave, LogEntry, Mismatch, Outcome, Phase, Place, PlatformChange, Preview, SectorState, Verify,
};
use crate::plan::admission::Purpose;
use crate::plan::undo::Change;
use crate::plan::{Comparison, Plan, PlannedSector, Work};

/// The largest backup in bytes: twice the flash of an STM32F405. Other devices may report sectors of up to 999 MiB.
const COPY_MAX: u64 = 2 * 1024 * 1024;

pub(super) fn flash(ctx: &mut Ctx<'_>, job: &Job, task: &FlashTask) -> Result<Outcome, Stop> {
    ctx.report.bytes = task.image.bytes() as u64;
    let InDfu { device, transport, by_hand, health } = find::open_in_dfu(ctx, job)?;
    ctx.report.by_hand = by_hand;
    ctx.left = task.left;
    let mut session = Session::open(ctx, &device, transport)?;
    let mut task = task.clone();
    let outcome = write(ctx, &mut session, &mut task, health.radio_chip).map_err(|stop| ctx.reclassify(stop));
    match &outcome {
        Ok(_) => {
            if let Some(restarted) = finish(ctx, &mut session, &device, &task) {
                ctx.report.runs_other = runs_other(ctx, &restarted, &task);
                ctx.report_restart(restarted);
            }
        }
        // Nothing has been changed, so restart the firmware that was running.
        Err(stop) if !by_hand && ctx.drone == DroneState::Untouched && stop.still_answers() => {
            let restarted = reboot::restart(ctx, &mut session, &device, Leave::Start, FIRMWARE_BASE);
            ctx.report_restart(restarted);
        }
        Err(Stop::Cancelled) => session.settle(ctx),
        Err(Stop::Failed(..)) => {}
    }
    outcome
}

/// Runs all steps from the checks to the verification. If `task` has several images, keeps only the image for the
/// drone's board.
fn write(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    task: &mut FlashTask,
    radio_chip: RadioChip,
) -> Result<Outcome, Stop> {
    ctx.enter_part(Part::Check);
    let map = session.map();
    if task.mismatch == Mismatch::Refuse && !map.is_stm32f405() {
        return Err(FailureKind::OtherChip.into());
    }
    let protection = session.protection(ctx).map_err(|stop| stop.at(Place::OptionBytes))?;
    if protection.as_ref().is_some_and(|protection| protection.read) {
        return Err(FailureKind::ReadProtected.into());
    }
    let found_board = session.board(ctx).map_err(|stop| stop.at(Place::Otp))?;
    (ctx.report.image, *task) = task.for_board(found_board.as_ref());
    ctx.report.bytes = task.image.bytes() as u64;
    let plan = Plan::new(&task.image, &map).map_err(FailureKind::Plan)?;
    let protection = refuse_protected(ctx, protection, &plan)?;
    let mut board = refuse_other_board(ctx, found_board.as_ref(), task)?;
    if let Some(loader) = find_foreign_loader(ctx, session, task, found_board.as_ref())? {
        if task.mismatch == Mismatch::Refuse {
            return Err(FailureKind::NotACrazyflie { loader }.into());
        }
        board = BoardCheck::MaybeNotACrazyflie;
    }
    ctx.post(Event::Planned(plan.clone()));
    let width_check = WidthCheck::default();
    let in_words = BTreeSet::new();
    Flashing { session, plan, writing: None, task, protection, board, width_check, in_words, radio_chip }
        .write_image(ctx)
}

/// Restarts the drone, unless it should stay in DFU mode. The drone may fail to start: some drones need a power
/// cycle after DFU mode was entered by hand. The report mentions this, but the job still succeeds.
fn finish(ctx: &mut Ctx<'_>, session: &mut Session, device: &Device, task: &FlashTask) -> Option<Restarted> {
    if task.leave == Leave::Stay {
        session.settle(ctx);
        return None;
    }
    let address = match task.image.purpose() {
        Purpose::Flash => FIRMWARE_BASE,
        Purpose::RestoreBootloader => LOADER_BASE,
    };
    Some(reboot::restart(ctx, session, device, task.leave, address))
}

/// Returns whether the version that the drone reports differs from the flashed version, and logs a difference.
fn runs_other(ctx: &Ctx<'_>, restarted: &Restarted, task: &FlashTask) -> bool {
    match (&restarted.runs, &task.version) {
        (Some(runs), Some(flashed)) if runs != flashed => {
            ctx.log(LogEntry::RunsOther { flashed: flashed.clone() });
            true
        }
        _ => false,
    }
}

/// Refuses a board that the image does not support, unless the user allows it: the firmware would halt at once, and the
/// drone would look dead. If the board could not be read, the result depends on [`FlashTask::mismatch`].
fn refuse_other_board(ctx: &Ctx<'_>, board: Option<&Board>, task: &FlashTask) -> Result<BoardCheck, Stop> {
    let named = |code: &String| Board::named(code).to_string();
    let boards = || task.boards.iter().map(named).collect();
    let Some(board) = board else {
        ctx.log(LogEntry::BoardUnread);
        return match task.mismatch {
            // The image names no boards, so there is nothing to check.
            _ if task.boards.is_empty() => Ok(BoardCheck::Passed),
            Mismatch::Refuse => Err(FailureKind::UnknownBoard { boards: boards() }.into()),
            Mismatch::Ask => Ok(BoardCheck::Unknown),
            Mismatch::Allow => {
                ctx.log(LogEntry::BoardNotChecked);
                Ok(BoardCheck::Passed)
            }
        };
    };
    ctx.log(LogEntry::Board(board.clone()));
    if task.boards.is_empty() || task.boards.contains(&board.code) {
        return Ok(BoardCheck::Passed);
    }
    if task.mismatch == Mismatch::Allow {
        ctx.log(LogEntry::OtherBoardAllowed(board.clone()));
        return Ok(BoardCheck::Passed);
    }
    Err(FailureKind::OtherBoard { board: board.clone(), boards: boards() }.into())
}

/// Looks for evidence that the device is a Crazyflie. Without such evidence, the device may be a different board with
/// the same chip, and the firmware of that board would be lost. In that case, returns the contents found in place of
/// the bootloader.
///
/// Evidence is a board in the OTP, firmware that was seen running, Bitcraze's bootloader, or the start of Crazyflie
/// firmware. No evidence is required if the user overrides the check, or if the job is a resumed job, an undo or the
/// restore of a missing bootloader.
fn find_foreign_loader(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    task: &FlashTask,
    board: Option<&Board>,
) -> Result<Option<Loader>, Stop> {
    let is_known = board.is_some_and(|board| !board.assumed) || ctx.run_state != RunState::InDfu;
    let is_allowed =
        task.mismatch == Mismatch::Allow || task.left != DroneState::Untouched || task.change == Change::Undo;
    if is_known || is_allowed {
        return Ok(None);
    }
    let reading = |stop: Stop| stop.at(Place::Evidence);
    let sector = read_sector_0(ctx, session, |_, _| {}).map_err(reading)?;
    let loader = Loader::of(&sector);
    let restores = task.image.purpose() == Purpose::RestoreBootloader;
    if matches!(loader, Loader::Bitcraze | Loader::Overwritten) || restores && is_blank(&sector[..4]) {
        return Ok(None);
    }
    let Some(head) = Span::new(FIRMWARE_BASE, 8) else { return Ok(Some(loader)) };
    let head = session.read(ctx, head).map_err(reading)?;
    Ok(Some(loader).filter(|_| Loader::of(&head) != Loader::Overwritten))
}

/// Refuses a plan that needs a write-protected sector: erasing or writing such a sector reports no error but has no
/// effect (AN3156 §5.1 note 2). If the option bytes could not be read, each erase is checked instead.
fn refuse_protected(
    ctx: &Ctx<'_>,
    protection: Option<Protection>,
    plan: &Plan,
) -> Result<ProtectionCheck, Stop> {
    let Some(protection) = protection else {
        ctx.log(LogEntry::ProtectionUnread);
        return Ok(ProtectionCheck::Unknown);
    };
    let needed = |sector: &usize| plan.sectors().iter().any(|planned| planned.sector.index == *sector);
    let blocked: Vec<usize> = protection.sectors.into_iter().filter(needed).collect();
    if blocked.is_empty() {
        Ok(ProtectionCheck::Passed)
    } else {
        Err(FailureKind::WriteProtected(blocked).into())
    }
}

/// The result of checking the protection in the option bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProtectionCheck {
    Passed,
    Unknown,
}

/// Measures whether the chip really programs 32 bits at a time.
///
/// The ROM's answers cannot prove the width: a ROM could accept the setting ([`Session::set_width`]) and not apply it.
/// The timing can prove the width: a full block takes about 13 ms at 32 bits and 38 ms at 8 bits, because it consists
/// of 512 or 2048 operations of 16 µs each (DS8626 table 40), plus the transfer. The average of the first eight full
/// blocks is compared with a limit between these two times. A slow chip only causes a warning, because the data is
/// still written correctly.
#[derive(Default)]
struct WidthCheck {
    blocks: u32,
    time: Duration,
    is_decided: bool,
}

impl WidthCheck {
    /// The length in bytes of a full block. Shorter blocks are not counted.
    const FULL: u32 = 2048;
    const BLOCKS: u32 = 8;
    const LIMIT: Duration = Duration::from_millis(22);

    /// Counts a written block. Returns the verdict once, when enough blocks have been counted: `true` for 32 bits.
    fn count_block(&mut self, len: u32, elapsed: Duration) -> Option<bool> {
        if len == WidthCheck::FULL && !self.is_decided {
            self.blocks += 1;
            self.time += elapsed;
        }
        if self.blocks < WidthCheck::BLOCKS || self.is_decided {
            return None;
        }
        self.is_decided = true;
        Some(self.time / self.blocks < WidthCheck::LIMIT)
    }
}

struct Flashing<'a> {
    session: &'a mut Session,
    plan: Plan,
    /// The sector being written.
    writing: Option<usize>,
    task: &'a FlashTask,
    protection: ProtectionCheck,
    board: BoardCheck,
    width_check: WidthCheck,
    /// Sectors that were written 32 bits at a time and have not been rewritten since.
    in_words: BTreeSet<usize>,
    radio_chip: RadioChip,
}

impl Flashing<'_> {
    fn write_image(&mut self, ctx: &mut Ctx<'_>) -> Result<Outcome, Stop> {
        let loader = self.check_loader(ctx)?;
        let work = self.prepare(ctx, loader)?;
        if work.is_empty() {
            ctx.report.verified = true;
            ctx.log(LogEntry::NothingToWrite);
            return Ok(Outcome::Unchanged);
        }
        ctx.enter_part(Part::Erase);
        self.session.set_width(ctx, self.task.width)?;
        for sector in &work.erase {
            ctx.post_sector(sector.index, SectorState::ToErase);
        }
        self.erase(ctx, &work)?;
        self.write(ctx, &work)?;
        ctx.drone = DroneState::Flashed;
        ctx.report.verified = self.task.verify == Verify::ReadBack;
        Ok(Outcome::Flashed)
    }

    /// Returns the contents of the bootloader's sector, unless the job writes that sector. Warns if the bootloader is
    /// missing, because without it no firmware starts when the drone is switched on.
    fn check_loader(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Loader>, Stop> {
        let head = Span::new(LOADER_BASE, 8).filter(|head| self.session.map().covers(*head));
        let Some(head) = head.filter(|_| self.plan.purpose() == Purpose::Flash) else { return Ok(None) };
        let bytes = self.session.read(ctx, head).map_err(|stop| stop.at(Place::Loader))?;
        let loader = Loader::of(&bytes);
        ctx.report.loader = Some(loader);
        if loader.is_missing() {
            ctx.log(LogEntry::LoaderGone(loader));
        }
        Ok(Some(loader))
    }

    /// Compares the flash with the image, reports the remaining work and waits for confirmation.
    fn prepare(&mut self, ctx: &mut Ctx<'_>, loader: Option<Loader>) -> Result<Work, Stop> {
        let (mut found, before) = match (self.task.compare, self.task.keep) {
            (Compare::Skip, Keep::No) => (vec![Comparison::Differs; self.plan.sectors().len()], None),
            (_, keep) => self.compare(ctx, keep)?,
        };
        if self.task.compare == Compare::Skip {
            found.fill(Comparison::Differs);
        }
        ctx.enter_part(Part::Plan);
        let work = self.plan.work(&found, self.session.block());
        let firmware = before.as_ref().and_then(firmware_in);
        let platform_change = self.platform_change(firmware.as_ref());
        let changed_since = self.is_changed_since(ctx, before.as_ref())?;
        let preview = Preview {
            plan: self.plan.clone(),
            found,
            work: work.clone(),
            before,
            firmware,
            platform_change,
            loader,
            board: self.board,
            changed_since,
            radio_chip: self.radio_chip.clone(),
            version: self.task.version.clone(),
        };
        ctx.check_cancelled()?;
        ctx.post(Event::Ready(Box::new(preview)));
        if self.task.confirm == Confirm::Ask && !work.is_empty() {
            ctx.wait_for_confirmation()?;
        }
        Ok(work)
    }

    /// Returns whether the user must confirm an undo because it would overwrite data that another program has written.
    /// Fails if the undo must be refused.
    fn is_changed_since(&self, ctx: &Ctx<'_>, before: Option<&Segment>) -> Result<bool, Stop> {
        let Some(before) = before else { return Ok(false) };
        if self.task.expected.iter().all(|piece| piece.is_in(before) != Some(false)) {
            return Ok(false);
        }
        match self.task.mismatch {
            Mismatch::Refuse => Err(FailureKind::ChangedSince.into()),
            Mismatch::Ask => Ok(true),
            Mismatch::Allow => {
                ctx.log(LogEntry::ChangedSinceAllowed);
                Ok(false)
            }
        }
    }

    /// Detects a change of platform if the image's firmware and the drone's firmware both name their platform.
    fn platform_change(&self, current: Option<&Content>) -> Option<PlatformChange> {
        let from = current.and_then(Content::firmware).and_then(Firmware::platform)?;
        self.task.platform.filter(|&to| to != from).map(|to| PlatformChange { from, to })
    }

    /// Compares each sector of the plan with the image. For a backup, each sector is read completely; otherwise, a
    /// sector is read only until the result is known.
    fn compare(&mut self, ctx: &mut Ctx<'_>, keep: Keep) -> Result<(Vec<Comparison>, Option<Segment>), Stop> {
        ctx.enter_part(Part::Compare);
        let sectors = self.plan.sectors().to_vec();
        let all: u64 = sectors.iter().map(|planned| u64::from(planned.sector.span.len())).sum();
        let keep = if all > COPY_MAX { Keep::No } else { keep };
        if keep == Keep::No && self.task.keep == Keep::Copy {
            ctx.log(LogEntry::NoCopyOfHugeSectors);
        }
        let size = |planned: &PlannedSector| match keep {
            Keep::Copy => u64::from(planned.sector.span.len()),
            Keep::No => planned.filled.iter().map(|span| u64::from(span.len())).sum(),
        };
        let mut meter = Meter::start(ctx, Phase::Compare, sectors.iter().map(size).sum());
        let mut found = Vec::new();
        let mut kept = Vec::new();
        for planned in &sectors {
            let compared = match keep {
                Keep::Copy => self.copy_sector(ctx, planned, &mut meter, &mut kept),
                Keep::No => self.compare_sector(ctx, planned),
            };
            let comparison = compared.map_err(|stop| stop.at(Place::Comparing(planned.sector)))?;
            let state = match comparison {
                Comparison::Same => SectorState::Same,
                Comparison::Differs => SectorState::ToErase,
                Comparison::Blank => SectorState::Erased,
            };
            ctx.post_sector(planned.sector.index, state);
            if keep == Keep::No {
                meter.add(ctx, size(planned));
            }
            found.push(comparison);
        }
        let same = found.iter().filter(|&&comparison| comparison == Comparison::Same).count();
        ctx.log(LogEntry::Compared { same, of: found.len() });
        let start = sectors.first().map(|planned| planned.sector.span.start());
        let before = start.filter(|_| !kept.is_empty()).map(|address| Segment { address, data: kept });
        Ok((found, before))
    }

    /// Reads a complete sector. First reads any preceding sectors that the image skips, because the backup must not
    /// have gaps: a restore would erase the skipped sectors.
    fn copy_sector(
        &mut self,
        ctx: &mut Ctx<'_>,
        planned: &PlannedSector,
        meter: &mut Meter,
        kept: &mut Vec<u8>,
    ) -> Result<Comparison, Stop> {
        let start = planned.sector.span.start();
        let first = self.plan.sectors().first().map_or(start, |first| first.sector.span.start());
        let size = self.session.block();
        let so_far = first.checked_add(u32::try_from(kept.len()).unwrap_or(u32::MAX)).unwrap_or(start);
        for block in Span::between(so_far, start.wide()).into_iter().flat_map(|gap| gap.blocks(size)) {
            ctx.check_cancelled()?;
            kept.extend(self.session.read(ctx, block)?);
        }
        let from = kept.len();
        for block in planned.sector.span.blocks(self.session.block()) {
            ctx.check_cancelled()?;
            kept.extend(self.session.read(ctx, block)?);
            meter.add(ctx, u64::from(block.len()));
        }
        let actual = &kept[from..];
        let matches = |span: &Span| {
            let offset = (span.start().0 - start.0) as usize;
            actual.get(offset..offset + span.size()) == Some(self.plan.data(*span))
        };
        Ok(match () {
            () if planned.filled.iter().all(matches) => Comparison::Same,
            () if is_blank(actual) => Comparison::Blank,
            () => Comparison::Differs,
        })
    }

    fn compare_sector(&mut self, ctx: &mut Ctx<'_>, planned: &PlannedSector) -> Result<Comparison, Stop> {
        let blocks: Vec<Span> =
            planned.filled.iter().flat_map(|span| span.blocks(self.session.block())).collect();
        for block in blocks {
            ctx.check_cancelled()?;
            let actual = self.session.read(ctx, block)?;
            if actual != self.plan.data(block) {
                // Reading a blank sector to its end takes only a quarter as long as the erase that it saves.
                let is_sector_blank = is_blank(&actual) && self.sector_is_blank(ctx, planned.sector)?;
                return Ok(if is_sector_blank { Comparison::Blank } else { Comparison::Differs });
            }
        }
        Ok(Comparison::Same)
    }

    fn sector_is_blank(&mut self, ctx: &mut Ctx<'_>, sector: Sector) -> Result<bool, Stop> {
        for block in sector.span.blocks(self.session.block()) {
            ctx.check_cancelled()?;
            if !is_blank(&self.session.read(ctx, block)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn erase(&mut self, ctx: &mut Ctx<'_>, work: &Work) -> Result<(), Stop> {
        let total = work.erase.iter().map(|sector| u64::from(sector.span.len())).sum();
        let mut meter = Meter::start(ctx, Phase::Erase, total);
        for sector in &work.erase {
            ctx.check_cancelled()?;
            let started = ctx.clock.now();
            let before = ctx.drone;
            self.record_change(ctx, sector.span.start());
            let erased = self.session.run(ctx, &Operation::Erase(sector.span.start()));
            erased.map_err(|error| Stop::from(error).at(Place::Erasing(*sector)))?;
            self.require_erased(ctx, sector, before)?;
            let took = ctx.clock.now().saturating_sub(started);
            ctx.log(LogEntry::Erased { sector: *sector, took });
            ctx.report.erased_sectors += 1;
            ctx.post_sector(sector.index, SectorState::Erased);
            meter.add(ctx, u64::from(sector.span.len()));
        }
        Ok(())
    }

    /// If the protection is unknown, checks in the sector's first block that the erase took effect. The sector that a
    /// program needs to start is erased first, so if that sector is protected, nothing is lost.
    fn require_erased(&mut self, ctx: &mut Ctx<'_>, sector: &Sector, before: DroneState) -> Result<(), Stop> {
        let Some(block) = sector.span.blocks(self.session.block()).next() else { return Ok(()) };
        if self.protection == ProtectionCheck::Passed {
            return Ok(());
        }
        let actual = self.session.read(ctx, block).map_err(|stop| stop.at(Place::CheckingErased(*sector)))?;
        if is_blank(&actual) {
            return Ok(());
        }
        ctx.drone = before;
        ctx.post_sector(sector.index, SectorState::Failed);
        Err(FailureKind::NotErased(sector.index).into())
    }

    /// Writes everything except the commit words, verifies the result, and then writes the commit words. A program can
    /// therefore start only after everything else has been written and, unless the user skips it, verified.
    fn write(&mut self, ctx: &mut Ctx<'_>, work: &Work) -> Result<(), Stop> {
        ctx.enter_part(Part::Write);
        let mut meter = Meter::start(ctx, Phase::Write, work.bytes());
        ctx.log(LogEntry::Download(rewritten_spans(work, &[&work.write, &work.commit])));
        let started = ctx.clock.now();
        for block in &work.write {
            self.write_block(ctx, *block, &mut meter)?;
        }
        self.writing.take().into_iter().for_each(|last| ctx.post_sector(last, SectorState::Written));
        ctx.log(LogEntry::Written(ctx.clock.now().saturating_sub(started)));
        ctx.enter_part(Part::Verify);
        let started = ctx.clock.now();
        if self.task.verify == Verify::ReadBack {
            self.verify(ctx, work)?;
        }
        for word in &work.commit {
            self.commit(ctx, *word, &mut meter)?;
        }
        if self.task.verify == Verify::ReadBack {
            let took = ctx.clock.now().saturating_sub(started);
            ctx.log(LogEntry::Verified(rewritten_spans(work, &[&work.verify, &work.commit]), took));
        }
        Ok(())
    }

    /// Writes a commit word, 8 bits at a time. At 32 bits, a supply voltage that is too low could produce a wrong word,
    /// and the firmware would start even with a wrong word.
    fn commit(&mut self, ctx: &mut Ctx<'_>, word: Span, meter: &mut Meter) -> Result<(), Stop> {
        self.session.program_bytes(ctx)?;
        self.write_block(ctx, word, meter)?;
        // Without this, the next commit word would mark the verified sector as only written.
        self.writing = None;
        if self.task.verify == Verify::Skip {
            return Ok(());
        }
        if let Err(stop) = self.verify_block(ctx, word) {
            self.erase_wrong_word(ctx, word, &stop);
            return Err(stop);
        }
        if let Some(sector) = self.sector_at(word.start()) {
            ctx.post_sector(sector.index, SectorState::Verified);
        }
        if word.start() == LOADER_BASE {
            ctx.drone = DroneState::WithoutFirmware;
        }
        Ok(())
    }

    /// Erases the sector of a commit word that does not verify, so that no program can start from it.
    fn erase_wrong_word(&mut self, ctx: &mut Ctx<'_>, word: Span, stop: &Stop) {
        let is_wrong = matches!(stop, Stop::Failed(FailureKind::Mismatch { .. }, _));
        let Some(sector) = self.sector_at(word.start()).filter(|_| is_wrong) else { return };
        match self.session.run(ctx, &Operation::Erase(sector.span.start())) {
            Ok(_) => {
                ctx.report.erased_sectors += 1;
                ctx.log(LogEntry::WrongWordErased(sector));
            }
            Err(error) => {
                ctx.log(LogEntry::WrongWordLeft(sector, error));
            }
        }
    }

    fn write_block(&mut self, ctx: &mut Ctx<'_>, block: Span, meter: &mut Meter) -> Result<(), Stop> {
        ctx.check_cancelled()?;
        let sector = self.sector_at(block.start()).map(|sector| sector.index);
        if sector != self.writing {
            // The previous sector is complete, except for its commit word.
            self.writing.into_iter().for_each(|previous| ctx.post_sector(previous, SectorState::Written));
            self.writing = sector;
        }
        self.record_change(ctx, block.start());
        let write = Operation::Write(block.start(), self.plan.data(block).to_vec());
        let started = ctx.clock.now();
        let written = self.session.run(ctx, &write);
        written.map_err(|error| Stop::from(error).at(Place::Writing(block.start())))?;
        let took = ctx.clock.now().saturating_sub(started);
        if let Some(sector) =
            self.sector_at(block.start()).filter(|_| self.session.width == Programming::Words)
        {
            self.in_words.insert(sector.index);
        }
        let is_measured = self.session.width == Programming::Words && self.session.is_timed();
        if is_measured && self.width_check.count_block(block.len(), took) == Some(false) {
            ctx.log(LogEntry::WordsAreSlow);
        }
        ctx.report.written += u64::from(block.len());
        meter.add(ctx, u64::from(block.len()));
        Ok(())
    }

    /// Reads back everything except the commit words.
    fn verify(&mut self, ctx: &mut Ctx<'_>, work: &Work) -> Result<(), Stop> {
        let total: u64 = work.verify.iter().map(|span| u64::from(span.len())).sum();
        let mut meter = Meter::start(ctx, Phase::Verify, total);
        for span in &work.verify {
            for block in span.blocks(self.session.block()) {
                ctx.check_cancelled()?;
                if let Err(stop) = self.verify_block(ctx, block) {
                    self.rewrite_in_bytes(ctx, work, block, stop)?;
                }
                meter.add(ctx, u64::from(block.len()));
                self.post_verified(ctx, block, span.end());
            }
        }
        Ok(())
    }

    /// If a block that was written 32 bits at a time does not verify, rewrites its sector 8 bits at a time: the supply
    /// voltage may be lower than declared (RM0090 §3). Each sector gets one such retry. The commit word is still
    /// written last.
    fn rewrite_in_bytes(
        &mut self,
        ctx: &mut Ctx<'_>,
        work: &Work,
        wrong: Span,
        stop: Stop,
    ) -> Result<(), Stop> {
        let is_wrong = matches!(stop, Stop::Failed(FailureKind::Mismatch { .. }, _));
        let sector = self.sector_at(wrong.start());
        let Some(sector) = sector.filter(|sector| is_wrong && self.in_words.remove(&sector.index)) else {
            return Err(stop);
        };
        ctx.log(LogEntry::RepeatedInBytes(sector));
        self.session.narrow(ctx)?;
        self.session.run(ctx, &Operation::Erase(sector.span.start()))?;
        ctx.report.erased_sectors += 1;
        for block in work.write.iter().filter(|block| sector.span.covers(**block)) {
            self.session.run(ctx, &Operation::Write(block.start(), self.plan.data(*block).to_vec()))?;
        }
        for span in work.verify.iter().filter(|span| sector.span.covers(**span)) {
            for block in span.blocks(self.session.block()) {
                ctx.check_cancelled()?;
                self.verify_block(ctx, block)?;
            }
        }
        Ok(())
    }

    /// Reports a sector as verified once the last block of a span in the sector is verified.
    fn post_verified(&self, ctx: &Ctx<'_>, block: Span, end: u64) {
        if let Some(sector) = self.sector_at(block.start())
            && (block.end() == end || block.end() == sector.span.end())
        {
            ctx.post_sector(sector.index, SectorState::Verified);
        }
    }

    fn sector_at(&self, address: Address) -> Option<Sector> {
        let planned = self.plan.sectors().iter().find(|planned| planned.sector.span.contains(address));
        planned.map(|planned| planned.sector)
    }

    /// Sets the state that the drone will be in after a change at `address`. Must be called before the change.
    fn record_change(&self, ctx: &mut Ctx<'_>, address: Address) {
        if address < FIRMWARE_BASE && address >= LOADER_BASE {
            ctx.drone = DroneState::WithoutLoader;
        } else if ctx.drone == DroneState::Untouched && self.task.left == DroneState::WithoutLoader {
            // An earlier attempt erased the bootloader, and this job has not written it yet.
            ctx.drone = DroneState::WithoutLoader;
        } else if ctx.drone == DroneState::Untouched {
            let starts_firmware = self.sector_at(FIRMWARE_BASE).is_some();
            ctx.drone = if starts_firmware { DroneState::WithoutFirmware } else { DroneState::Mixed };
        }
    }

    /// Reads back a block and marks its sector as failed if the block differs.
    fn verify_block(&mut self, ctx: &mut Ctx<'_>, block: Span) -> Result<(), Stop> {
        let checked = require_in_flash(ctx, self.session, block, self.plan.data(block));
        checked.map_err(|stop| {
            if let (Stop::Failed(FailureKind::Mismatch { .. }, _), Some(sector)) =
                (&stop, self.sector_at(block.start()))
            {
                ctx.post_sector(sector.index, SectorState::Failed);
                return stop.at(Place::Verifying);
            }
            stop.at(Place::ReadingBack(block.start()))
        })
    }
}

/// Reads a block and compares it with `expected`. A difference counts only if a second read confirms it, because the
/// first read may be wrong.
pub(super) fn require_in_flash(
    ctx: &mut Ctx<'_>,
    session: &mut Session,
    block: Span,
    expected: &[u8],
) -> Result<(), Stop> {
    let actual = session.read(ctx, block)?;
    if require_same(block.start(), &actual, expected).is_ok() {
        return Ok(());
    }
    let again = session.read(ctx, block)?;
    require_same(block.start(), &again, expected)?;
    ctx.log(LogEntry::ReadWrongOnce(block.start()));
    Ok(())
}

/// Recognises the firmware in a backup, if the backup includes the start of the firmware.
fn firmware_in(before: &Segment) -> Option<Content> {
    let from = FIRMWARE_BASE.0.checked_sub(before.address.0)? as usize;
    Content::in_flash(before.data.get(from..)?)
}

/// Returns the spans of flash that the work rewrites, each with the number of its bytes that are in `spans`, as in
/// `0x08000000 7256 bytes, 0x08008000 2048 bytes`.
fn rewritten_spans(work: &Work, spans: &[&[Span]]) -> AddressRanges {
    let bytes = |stretch: &Span| {
        let inside = spans.iter().copied().flatten().filter(|span| stretch.covers(**span));
        inside.map(|span| u64::from(span.len())).sum::<u64>()
    };
    AddressRanges(work.rewritten_spans().iter().map(|stretch| (stretch.start(), bytes(stretch))).collect())
}
