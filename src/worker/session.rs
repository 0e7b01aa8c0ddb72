//! A conversation with one device in DFU mode: steps the machine over the transport, waits where it says
//! so, reports its notes to the log, and repeats where that is safe.

use std::time::Duration;

use super::patient::PAUSES;
use super::timeline::{Part, Share};
use super::{Ctx, Stop, port};
use crate::crazyflie::Protection;
use crate::crazyflie::{self, Board, RomVersion};
use crate::dfu::DfuError;
use crate::dfu::device::{Alternate, DeviceError, DfuDevice};
use crate::dfu::machine::{Machine, Note, Operation, Step};
use crate::dfu::quirks::Quirks;
use crate::dfu::{Status, wire};
use crate::flash::map::MemoryMap;
use crate::flash::{Address, Span};
use crate::job::{Device, FailureKind, LogEntry, Width};
use crate::usb::{TransferError, Transport, descriptor};

/// No operation takes longer, whatever the device answers: the erase of one sector may take 10 s.
const OPERATION: Duration = Duration::from_secs(45);
/// A device that has not answered anything for this long is given up: longer than the longest erase of a sector (4 s,
/// DS8626 table 40), and short enough that the whole job ends within 15 s.
const SILENCE: Duration = Duration::from_secs(6);
/// The names of all memories come within this, or are done without.
const NAMES: Duration = Duration::from_secs(5);
/// No longer pause goes by without a look for a cancel.
const SLICE: Duration = Duration::from_secs(1);
/// The virtual address that decides how many bits are programmed at a time, and what is written there (AN2606, "Bootloader
/// memory management", table 4).
const WIDTH_SWITCH: Address = Address(0xFFFF_0000);
const EIGHT_BITS: [u8; 4] = [0x00, 0xFF, 0xFF, 0xFF];
const THIRTY_TWO_BITS: [u8; 4] = [0x03, 0xFF, 0xFF, 0xFF];
/// Another program may hold the device for so long.
const HELD: Duration = Duration::from_secs(3);

/// An open device in DFU mode, in dfuIDLE or on the way of a run of blocks.
pub(super) struct Session {
    transport: Box<dyn Transport>,
    machine: Machine,
    device: DfuDevice,
    /// The alternate setting that is selected.
    alternate: u8,
    /// How long nothing was answered, of the time in which something was asked.
    silence: Duration,
    /// How wide it programs, as far as it can be known.
    pub(super) width: Programming,
    /// Everything that is known to be special about the device.
    pub(super) quirks: Quirks,
}

/// How many bits are programmed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programming {
    /// 8, as the ROM starts.
    Bytes,
    /// 32, as the ROM's answer has it. Only the clock can tell whether that is so.
    Words,
}

impl Session {
    /// Reads what the device is, claims it and brings it to dfuIDLE.
    pub(super) fn open(
        ctx: &mut Ctx<'_>,
        info: &Device,
        mut transport: Box<dyn Transport>,
    ) -> Result<Session, Stop> {
        ctx.enters(Part::Open);
        // Asked again: what was read when it had just come may be empty. And whatever is there now, only the drone that
        // was chosen is used.
        let names = descriptor::names(&mut *transport);
        ctx.check_cancelled()?;
        let names = names.map_err(DeviceError::from).map_err(FailureKind::NotDfu)?;
        if let Some(error) = names.lost {
            ctx.log(LogEntry::NameUnread(error));
        }
        let now = Device { strings: names.strings.clone(), ..info.clone() };
        if !info.strings.serial.is_empty() {
            port::require_same_drone(&info.strings.serial, &now)?;
        } else if !now.strings.serial.is_empty() {
            // Missed at first. Without it no copy can be kept, and a lost drone cannot be recognised.
            ctx.use_device(now);
        }
        let started = ctx.clock.now();
        let mut in_time = || ctx.check_cancelled().is_ok() && ctx.clock.now().saturating_sub(started) < NAMES;
        let device = DfuDevice::read(&mut *transport, &mut in_time);
        ctx.check_cancelled()?;
        let device = device.map_err(FailureKind::NotDfu)?;
        let quirks = Quirks::of(info.id, &names.strings.product, &device);
        ctx.log(LogEntry::Opened { id: info.id, quirks: quirks.name, transfer_size: device.transfer_size });
        let machine = Machine::new(device.interface, device.transfer_size, quirks);
        let alternate = device.flash().map_or(0, |flash| flash.number);
        let width = Programming::Bytes;
        let silence = Duration::ZERO;
        let mut session = Session { transport, machine, device, alternate, silence, width, quirks };
        ctx.log(LogEntry::Claiming);
        session.claim(ctx, alternate)?;
        ctx.log(LogEntry::AskingStatus);
        let taken = session.run(ctx, &Operation::TakeOver);
        ctx.check_cancelled()?;
        taken?;
        Ok(session)
    }

    /// Whether the times of its answers are its own: not so while it gets the pauses that it asks for.
    pub(super) fn is_timed(&self) -> bool {
        self.machine.is_eager()
    }

    pub(super) fn map(&self) -> MemoryMap {
        self.device.flash().map_or_else(MemoryMap::stm32f405, |flash| flash.map.clone())
    }

    /// The number of the flash's alternate setting.
    pub(super) fn flash_alternate(&self) -> u8 {
        self.device.flash().map_or(0, |flash| flash.number)
    }

    /// The memory that holds `address`.
    pub(super) fn alternate_at(&self, address: Address) -> Option<Alternate> {
        self.device.alternate_at(address).cloned()
    }

    /// The most bytes of one read or write: whole words.
    pub(super) fn block(&self) -> u32 {
        u32::from(self.device.transfer_size & !3)
    }

    /// Selects an alternate setting, from dfuIDLE as devices expect.
    pub(super) fn select(&mut self, ctx: &mut Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        if alternate != self.alternate {
            self.run(ctx, &Operation::Idle)?;
            ctx.log(LogEntry::SelectingAlternate(alternate));
            self.select_now(ctx, alternate)?;
            self.machine.alternate_changed();
        }
        Ok(())
    }

    /// Selects the first setting, which takes the device. Another program may hold it for a moment: a look at a drone that
    /// has just come, of another cfdfu, takes a second.
    fn claim(&mut self, ctx: &mut Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        ctx.log(LogEntry::SelectingAlternate(alternate));
        let started = ctx.clock.now();
        let mut waits = false;
        loop {
            match self.select_now(ctx, alternate) {
                Err(Stop::Failed(FailureKind::Held, _))
                    if !ctx.quiet && ctx.clock.now().saturating_sub(started) < HELD =>
                {
                    if !std::mem::replace(&mut waits, true) {
                        ctx.log(LogEntry::Held);
                    }
                    ctx.check_cancelled()?;
                    ctx.clock.sleep(PAUSES[0]);
                }
                claimed => return claimed,
            }
        }
    }

    /// A device that refuses SET_INTERFACE keeps what is selected: the ROM has one address pointer for all its
    /// memories, so every one of them can be reached from there.
    fn select_now(&mut self, ctx: &Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        match self.transport.select(self.device.interface, alternate) {
            Ok(()) => {}
            Err(TransferError::Busy) => return Err(FailureKind::Held.into()),
            Err(error) if error.is_transient() => {
                if ctx.is_gone() {
                    return Err(DfuError::Select(TransferError::Disconnected).into());
                }
                ctx.log(LogEntry::AlternateRefused { alternate, error });
            }
            Err(error) => return Err(FailureKind::Open(error).into()),
        }
        self.alternate = alternate;
        Ok(())
    }

    /// Reads `span`, which is at most [`Session::block`] long.
    pub(super) fn read(&mut self, ctx: &mut Ctx<'_>, span: Span) -> Result<Vec<u8>, Stop> {
        let len = u16::try_from(span.len()).unwrap_or(u16::MAX);
        Ok(self.run(ctx, &Operation::Read(span.start(), len))?)
    }

    /// Runs an operation to its end. If the device refuses it or an answer is lost, it is brought back to dfuIDLE and
    /// the operation repeated, after a pause, at most three times: each of them may be repeated without harm, even a
    /// write, which programs the same bits again. A block of an F411 was seen to fail by chance, at 2, 12 and 13 % of
    /// three attempts (dfu-util tickets 140 and 141).
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>, operation: &Operation) -> Result<Vec<u8>, FailureKind> {
        let first = match self.attempt(ctx, operation.clone()) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        if !may_be_repeated(first) || matches!(operation, Operation::Recover | Operation::TakeOver) {
            return Err(verdict(ctx, first));
        }
        for pause in PAUSES {
            ctx.log(LogEntry::Repeating(first));
            ctx.clock.sleep(pause);
            let ready = self.attempt(ctx, Operation::Recover).map(drop);
            let ready = ready.and_then(|()| self.narrow_for(ctx, operation));
            match ready.and_then(|()| self.attempt(ctx, operation.clone())) {
                Ok(bytes) => return Ok(bytes),
                // Gone, or silent, says more than what was seen before.
                Err(error) if error.ends_session() => {
                    return Err(verdict(ctx, error));
                }
                Err(error) if !may_be_repeated(error) => break,
                Err(_) => {}
            }
        }
        Err(verdict(ctx, first))
    }

    /// A write that failed at 32 bits is repeated at 8: the supply may be lower than was declared.
    fn narrow_for(&mut self, ctx: &mut Ctx<'_>, operation: &Operation) -> Result<(), DfuError> {
        let flash = MemoryMap::stm32f405();
        let writes = matches!(operation, Operation::Write(at, _)
            if flash.sectors().iter().any(|sector| sector.span.contains(*at)));
        if writes { self.narrow(ctx) } else { Ok(()) }
    }

    /// Back to 8 bits at a time, if it is not there, since something failed.
    pub(super) fn narrow(&mut self, ctx: &mut Ctx<'_>) -> Result<(), DfuError> {
        if self.width == Programming::Bytes {
            return Ok(());
        }
        ctx.log(LogEntry::Narrowed);
        self.attempt(ctx, Operation::Write(WIDTH_SWITCH, EIGHT_BITS.to_vec()))?;
        self.width = Programming::Bytes;
        Ok(())
    }

    /// Back to 8 bits at a time where that matters more than speed. A ROM that does not take it goes on as it is.
    pub(super) fn program_bytes(&mut self, ctx: &mut Ctx<'_>) -> Result<(), Stop> {
        if self.width == Programming::Bytes {
            return Ok(());
        }
        match self.run(ctx, &Operation::Write(WIDTH_SWITCH, EIGHT_BITS.to_vec())) {
            Ok(_) => self.width = Programming::Bytes,
            Err(FailureKind::Dfu(error)) if !error.ends_session() => {
                self.run(ctx, &Operation::Recover)?;
            }
            Err(kind) => return Err(kind.into()),
        }
        Ok(())
    }

    fn attempt(&mut self, ctx: &mut Ctx<'_>, operation: Operation) -> Result<Vec<u8>, DfuError> {
        let mut buffer = [0; 4096];
        let mut took = Duration::ZERO;
        let is_take_over = operation == Operation::TakeOver;
        self.machine.begin(operation);
        loop {
            let asked = ctx.clock.now();
            let step = self.machine.step();
            // The machine bounds its waits; this bounds what a device does with the transfers between them.
            if took > OPERATION && !matches!(step, Step::Finished(_)) {
                return Err(DfuError::Busy(took));
            }
            let (error, limit) = match step {
                Step::Send(setup, data, limit) => {
                    let sent = ctx.spend(Share::Data, || self.transport.control_out(setup, data, limit));
                    // Half a block is as good as none: the device has not taken it.
                    let sent =
                        sent.and_then(|n| if n == data.len() { Ok(()) } else { Err(TransferError::Short) });
                    self.machine.reply(sent.map(|()| &[][..]));
                    (sent.err(), limit)
                }
                Step::Fetch(setup, len, limit) => {
                    let len = len.min(buffer.len());
                    let share = if setup.request == wire::GETSTATUS { Share::Chip } else { Share::Data };
                    let came =
                        ctx.spend(share, || self.transport.control_in(setup, &mut buffer[..len], limit));
                    self.machine.reply(came.map(|n| &buffer[..n.min(len)]));
                    (came.err(), limit)
                }
                Step::Wait(time) => {
                    let mut left = time;
                    while !left.is_zero() {
                        // Before anything is begun a cancel need not wait for what another session began.
                        if is_take_over && ctx.check_cancelled().is_err() {
                            return Err(DfuError::Busy(took));
                        }
                        let slice = left.min(SLICE);
                        ctx.spend(Share::Pause, || ctx.clock.sleep(slice));
                        left -= slice;
                    }
                    self.machine.waited();
                    took += time;
                    continue;
                }
                Step::Finished(result) => {
                    self.tell_notes(ctx);
                    return result;
                }
            };
            // Only time in which something was asked counts, and no more than it may take: while this process is stopped
            // (Ctrl-Z) nothing is.
            let spent = ctx.clock.now().saturating_sub(asked).min(limit + PAUSES[0]);
            took += spent;
            // A stall is an answer, too.
            if error.is_none_or(|error| error == TransferError::Stall) {
                self.silence = Duration::ZERO;
                continue;
            }
            self.silence += spent;
            if self.silence >= SILENCE && error != Some(TransferError::Disconnected) {
                self.tell_notes(ctx);
                return Err(DfuError::Silent(self.silence));
            }
        }
    }

    fn tell_notes(&mut self, ctx: &Ctx<'_>) {
        for note in self.machine.take_notes() {
            match note {
                Note::Cleared(status) => {
                    ctx.log(LogEntry::InError(status));
                    ctx.log(LogEntry::ClearingStatus);
                }
                Note::Aborted(state) => ctx.log(LogEntry::Aborting(state)),
                Note::ObeyingPoll(why) => ctx.log(LogEntry::ObeyingPoll(why)),
            }
        }
    }

    /// Declares the supply voltage, which decides how many bits are programmed at a time: with 2.7 to 3.6 V
    /// words instead of bytes, four times as fast, and half the time for an erase. Bitcraze's own bootloader
    /// works in that range on every radio update. The setting is gone with the next reset.
    ///
    /// No host is known that uses this (AN2606 alone describes it), so nothing depends on it: not taken, the ROM goes on
    /// as it started; taken but not to be read back, or without effect, the times of the blocks tell (`flash`).
    pub(super) fn set_width(&mut self, ctx: &mut Ctx<'_>, width: Width) -> Result<(), Stop> {
        if !self.quirks.width_switch {
            return Ok(());
        }
        let range = match width {
            Width::Fastest => THIRTY_TWO_BITS,
            Width::Byte => EIGHT_BITS,
        };
        let before = self.alternate;
        if let Some(feature) = self.alternate_at(WIDTH_SWITCH) {
            self.select(ctx, feature.number)?;
        }
        let wrote = self.attempt(ctx, Operation::Write(WIDTH_SWITCH, range.to_vec()));
        let read = wrote.map(|_| self.attempt(ctx, Operation::Read(WIDTH_SWITCH, 4)));
        let refused = |session: &mut Session, ctx: &mut Ctx<'_>| {
            ctx.log(LogEntry::WidthRefused);
            session.run(ctx, &Operation::Recover)
        };
        match (read, width) {
            (Err(error) | Ok(Err(error)), _) if error.is_disconnect() => {
                return Err(FailureKind::from(error).into());
            }
            (Ok(Ok(bytes)), Width::Fastest) if bytes == range => {
                self.width = Programming::Words;
                ctx.log(LogEntry::WidthSet { words: true, assumed: false });
            }
            (Ok(Ok(bytes)), Width::Byte) if bytes == range => {
                ctx.log(LogEntry::WidthSet { words: false, assumed: false });
            }
            (Ok(Err(_)), Width::Fastest) => {
                self.width = Programming::Words;
                ctx.log(LogEntry::WidthSet { words: true, assumed: true });
                self.run(ctx, &Operation::Recover)?;
            }
            (Ok(Err(_)), Width::Byte) => drop(self.run(ctx, &Operation::Recover)?),
            (Err(error), _) => {
                // An answer that was lost leaves open what the ROM does: a write that fails sets 8 bits for certain.
                if matches!(error, DfuError::Transfer { .. }) && width == Width::Fastest {
                    self.width = Programming::Words;
                }
                drop(refused(self, ctx)?);
            }
            (Ok(Ok(_)), _) => drop(refused(self, ctx)?),
        }
        self.select(ctx, before)
    }

    /// Looks into the memory that holds `address`, through its own alternate setting, and comes back. Where that setting
    /// cannot be told or selected, through the one that is: the address pointer is one for all. `None` is unknown: a chip
    /// whose memories are not known, or a look that failed, all repeats included.
    fn elsewhere<T>(
        &mut self,
        ctx: &mut Ctx<'_>,
        address: Address,
        look: impl Fn(&mut Session, &mut Ctx<'_>) -> Result<T, FailureKind>,
    ) -> Result<Option<T>, Stop> {
        if !self.map().is_stm32f405() {
            return Ok(None);
        }
        let before = self.alternate;
        let memory = self.alternate_at(address).map_or(before, |memory| memory.number);
        self.select(ctx, memory)?;
        let mut seen = self.look(ctx, &look)?;
        self.select(ctx, before)?;
        if seen.is_none() && memory != before {
            seen = self.look(ctx, &look)?;
        }
        Ok(seen)
    }

    /// A look that failed leaves the device ready for the next one; only one that is gone or silent ends the job.
    fn look<T>(
        &mut self,
        ctx: &mut Ctx<'_>,
        look: &impl Fn(&mut Session, &mut Ctx<'_>) -> Result<T, FailureKind>,
    ) -> Result<Option<T>, Stop> {
        match look(self, ctx) {
            Ok(seen) => Ok(Some(seen)),
            Err(FailureKind::Dfu(error))
                if !error.is_disconnect() && !matches!(error, DfuError::Silent(_)) =>
            {
                self.run(ctx, &Operation::Recover)?;
                Ok(None)
            }
            Err(kind) => Err(kind.into()),
        }
    }

    /// Protection as the option bytes have it (RM0090 §3.7); `None` if it could not be read.
    pub(super) fn protection(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Protection>, Stop> {
        const OPTIONS: Address = Address(0x1FFF_C000);
        let seen = self.elsewhere(ctx, OPTIONS, |session, ctx| {
            match session.run(ctx, &Operation::Read(OPTIONS, 16)) {
                Ok(bytes) => Ok(Protection::parse(&bytes)),
                // At Set Address or at the read, as ROMs differ.
                Err(FailureKind::Dfu(DfuError::Status(Status::VENDOR))) => {
                    session.run(ctx, &Operation::Recover)?;
                    Ok(Some(Protection { read: true, sectors: Vec::new() }))
                }
                Err(error) => Err(error),
            }
        });
        Ok(seen?.flatten())
    }

    /// The board from the OTP; `None` if it could not be read, or is of no known form.
    pub(super) fn board(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Board>, Stop> {
        const OTP: Address = Address(0x1FFF_7800);
        let read = Operation::Read(OTP, crazyflie::OTP_LEN);
        let otp = self.elsewhere(ctx, OTP, |session, ctx| session.run(ctx, &read))?;
        Ok(otp.and_then(|bytes| crazyflie::board(&bytes)))
    }

    /// The ROM's version (AN2606: byte 0x1FFF77DE, in system memory); `None` on a chip that is not known, or
    /// where the ROM does not show it. The word around it is read: one byte alone is less than a ROM must give.
    pub(super) fn rom_version(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<RomVersion>, Stop> {
        let place = Span::new(Address(0x1FFF_77DC), 4).filter(|_| self.quirks.width_switch);
        let Some(place) = place else { return Ok(None) };
        let flash = self.flash_alternate();
        self.select(ctx, flash)?;
        match self.attempt(ctx, Operation::Read(place.start(), 4)) {
            Ok(bytes) => Ok(bytes.get(2).copied().and_then(RomVersion::of)),
            Err(error) if error.is_disconnect() => Err(FailureKind::from(error).into()),
            Err(_) => {
                self.run(ctx, &Operation::Recover)?;
                Ok(None)
            }
        }
    }

    /// Starts what is at `address`.
    pub(super) fn leave(&mut self, ctx: &mut Ctx<'_>, address: Address) -> Result<(), Stop> {
        let flash = self.flash_alternate();
        self.select(ctx, flash)?;
        ctx.log(LogEntry::Leaving);
        self.run(ctx, &Operation::Leave(address))?;
        Ok(())
    }

    /// Leaves the device as the next session likes to find it, as far as it still listens.
    pub(super) fn settle(&mut self, ctx: &mut Ctx<'_>) {
        let _ = self.attempt(ctx, Operation::Idle);
    }
}

/// What an error means in the end: see [`Ctx::verdict`].
fn verdict(ctx: &Ctx<'_>, error: DfuError) -> FailureKind {
    match ctx.verdict(error.into()) {
        Stop::Failed(kind, _) => kind,
        Stop::Cancelled => error.into(),
    }
}

/// Whether a repeat may help: not where the ROM has said for good what it does not do.
fn may_be_repeated(error: DfuError) -> bool {
    match error {
        DfuError::Status(status) => !matches!(status, Status::VENDOR | Status::TARGET),
        DfuError::Busy(_) | DfuError::Silent(_) => false,
        DfuError::Transfer { error, .. } | DfuError::Select(error) => error.is_transient(),
        DfuError::State(_) | DfuError::Garbled | DfuError::Short { .. } => true,
    }
}
