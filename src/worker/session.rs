//! A session with one device in DFU mode: performs the steps of the DFU [`Machine`] on the transport, waits where
//! required, logs the machine's notes, and retries operations that are safe to repeat.

use std::time::Duration;

use super::retry::PAUSES;
use super::timeline::{Part, Share};
use super::{Ctx, RunState, Stop, port};
use crate::crazyflie::Protection;
use crate::crazyflie::{self, Board, RomVersion};
use crate::dfu::DfuError;
use crate::dfu::device::{Alternate, DeviceError, DfuDevice};
use crate::dfu::machine::{Machine, Note, Operation, Step};
use crate::dfu::quirks::Quirks;
use crate::dfu::{Status, wire};
use crate::flash::map::MemoryMap;
use crate::flash::{Address, Span};
use crate::job::trial::Measurement;
use crate::job::{Device, FailureKind, LogEntry, Width};
use crate::usb::{TransferError, Transport, descriptor};

/// The time limit for an operation, whatever the device answers. The machine allows 10 s for erasing a sector.
const OPERATION: Duration = Duration::from_secs(45);
/// How long a device may stay silent before the job fails. This is longer than the longest sector erase (4 s, DS8626
/// table 40), and short enough for a job to end within 15 s if its device stops answering.
const SILENCE: Duration = Duration::from_secs(6);
/// The time limit for reading the names of all memories. Any names that remain are skipped.
const NAMES: Duration = Duration::from_secs(5);
/// The longest single sleep within a wait, so that [`Operation::TakeOver`] can check for a `Cancel` in between.
const SLICE: Duration = Duration::from_secs(1);
/// The virtual address that sets the programming width, and its values (AN2606, "Bootloader memory management",
/// table 4).
const WIDTH_SWITCH: Address = Address(0xFFFF_0000);
const EIGHT_BITS: [u8; 4] = [0x00, 0xFF, 0xFF, 0xFF];
const THIRTY_TWO_BITS: [u8; 4] = [0x03, 0xFF, 0xFF, 0xFF];
/// How long to wait for another program to release the device: see [`Session::claim`].
const HELD: Duration = Duration::from_secs(3);

/// An open device in DFU mode, either in dfuIDLE or partway through a run of blocks.
pub(super) struct Session {
    transport: Box<dyn Transport>,
    machine: Machine,
    device: DfuDevice,
    /// The selected alternate setting.
    alternate: u8,
    /// How long requests have gone unanswered, excluding the pauses between them.
    silence: Duration,
    /// The programming width, as set or assumed.
    pub(super) width: Programming,
    /// Whether the width was read back.
    pub(super) width_was_read: bool,
    pub(super) quirks: Quirks,
}

/// How many bits are programmed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programming {
    /// 8, the ROM's default.
    Bytes,
    /// 32, according to the ROM or assumed. Only the time per block can confirm this width.
    Words,
}

impl Session {
    /// Reads the device's descriptors, claims the device and brings it to dfuIDLE.
    pub(super) fn open(
        ctx: &mut Ctx<'_>,
        info: &Device,
        mut transport: Box<dyn Transport>,
    ) -> Result<Session, Stop> {
        ctx.enter_part(Part::Open);
        // Read the names again: the names that were read when the device had just appeared may be empty, and another
        // device may be plugged in by now. Only the selected drone may be used.
        let names = descriptor::names(&mut *transport);
        ctx.check_cancelled()?;
        let names = names.map_err(DeviceError::from).map_err(FailureKind::NotDfu)?;
        if let Some(error) = names.lost {
            ctx.log(LogEntry::NameUnread(error));
        }
        let current = Device { strings: names.strings.clone(), ..info.clone() };
        if !info.strings.serial.is_empty() {
            port::require_same_drone(&info.strings.serial, &current)?;
        } else if !current.strings.serial.is_empty() {
            // The serial number could not be read before. The number is needed for backups and to recognise a lost
            // drone.
            ctx.use_device(current);
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
        let mut session =
            Session { transport, machine, device, alternate, silence, width, width_was_read: false, quirks };
        ctx.log(LogEntry::Claiming);
        session.claim(ctx, alternate)?;
        ctx.log(LogEntry::AskingStatus);
        let taken = session.run(ctx, &Operation::TakeOver);
        ctx.check_cancelled()?;
        taken?;
        Ok(session)
    }

    /// Returns whether the time per block shows the device's own speed. This is not the case while bwPollTimeout is
    /// obeyed.
    pub(super) fn is_timed(&self) -> bool {
        self.machine.is_eager()
    }

    pub(super) fn map(&self) -> MemoryMap {
        self.device.flash().map_or_else(MemoryMap::stm32f405, |flash| flash.map.clone())
    }

    /// Returns the number of the flash's alternate setting.
    pub(super) fn flash_alternate(&self) -> u8 {
        self.device.flash().map_or(0, |flash| flash.number)
    }

    /// Returns the alternate setting of the memory that contains `address`.
    pub(super) fn alternate_at(&self, address: Address) -> Option<Alternate> {
        self.device.alternate_at(address).cloned()
    }

    /// Returns the contents of the descriptors as a measurement.
    pub(super) fn descriptors(&self) -> Measurement {
        Measurement::Descriptors {
            is_f405: self.quirks.width_switch,
            transfer_size: self.device.transfer_size,
            memories: self.device.alternates.len(),
        }
    }

    /// Returns the numbers of the alternate settings that describe a memory or whose names could not be read.
    pub(super) fn alternates(&self) -> Vec<u8> {
        let mut all: Vec<u8> = self.device.alternates.iter().map(|it| it.number).collect();
        all.extend(&self.device.unnamed);
        all
    }

    /// Selects an alternate setting and returns the answer. A refusal does not end the job.
    pub(super) fn try_select(
        &mut self,
        ctx: &mut Ctx<'_>,
        alternate: u8,
    ) -> Result<Result<(), TransferError>, Stop> {
        self.run(ctx, &Operation::Idle)?;
        let answer = self.transport.select(self.device.interface, alternate);
        if answer.is_err_and(|error| !error.is_transient()) || answer.is_err() && ctx.is_gone() {
            return Err(DfuError::Select(TransferError::Disconnected).into());
        }
        if answer.is_ok() {
            self.alternate = alternate;
            self.machine.forget_pointer();
        }
        Ok(answer)
    }

    /// Returns the length of the largest read or write in bytes, a multiple of 4.
    pub(super) fn block(&self) -> u32 {
        u32::from(self.device.transfer_size & !3)
    }

    /// Selects an alternate setting. Devices expect this request only in dfuIDLE.
    pub(super) fn select(&mut self, ctx: &mut Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        if alternate != self.alternate {
            self.run(ctx, &Operation::Idle)?;
            ctx.log(LogEntry::SelectingAlternate(alternate));
            self.select_now(ctx, alternate)?;
            self.machine.forget_pointer();
        }
        Ok(())
    }

    /// Selects `alternate`, which claims the interface.
    ///
    /// If another program has claimed the interface, this method waits for up to [`HELD`]. The other program may be
    /// another cfdfu, which takes about a second to identify each drone that appears. Without the wait, a flash started
    /// just after the drone is plugged in would fail. A program that holds the device for longer than three seconds is
    /// reported. An identify job does not wait.
    fn claim(&mut self, ctx: &mut Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        ctx.log(LogEntry::SelectingAlternate(alternate));
        let started = ctx.clock.now();
        let mut is_logged = false;
        loop {
            match self.select_now(ctx, alternate) {
                Err(Stop::Failed(FailureKind::Held, _))
                    if !ctx.quiet && ctx.clock.now().saturating_sub(started) < HELD =>
                {
                    if !std::mem::replace(&mut is_logged, true) {
                        ctx.log(LogEntry::Held);
                    }
                    ctx.check_cancelled()?;
                    ctx.clock.sleep(PAUSES[0]);
                }
                claimed => return claimed,
            }
        }
    }

    /// Selects an alternate setting. A refused SET_INTERFACE is only logged: the ROM has one address pointer for all
    /// its memories, so every memory can be reached through any setting.
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

    /// Runs an operation to completion. If the device refuses the operation or an answer is lost, this method pauses,
    /// brings the device back to dfuIDLE and retries the operation, at most three times ([`PAUSES`]), unless a retry
    /// cannot help ([`is_retryable`]).
    ///
    /// Repeating a read, an erase or a write is harmless: a repeated write programs the same bits again. Retries are
    /// worthwhile because individual blocks fail at random: on an F411, at 2, 12 and 13 % of the image in three
    /// attempts (dfu-util tickets 140 and 141).
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>, operation: &Operation) -> Result<Vec<u8>, FailureKind> {
        let first = match self.attempt(ctx, operation.clone()) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        if !is_retryable(first) || matches!(operation, Operation::Recover | Operation::TakeOver) {
            return Err(classify_error(ctx, first));
        }
        for pause in PAUSES {
            ctx.log(LogEntry::Repeating(first));
            ctx.clock.sleep(pause);
            let ready = self.attempt(ctx, Operation::Recover).map(drop);
            let ready = ready.and_then(|()| self.narrow_for(ctx, operation));
            match ready.and_then(|()| self.attempt(ctx, operation.clone())) {
                Ok(bytes) => return Ok(bytes),
                // An error that ends the session explains more than the first error.
                Err(error) if error.ends_session() => {
                    return Err(classify_error(ctx, error));
                }
                Err(error) if !is_retryable(error) => break,
                Err(_) => {}
            }
        }
        Err(classify_error(ctx, first))
    }

    /// Switches to 8 bits before a write to flash is retried: the supply voltage may be lower than declared.
    fn narrow_for(&mut self, ctx: &mut Ctx<'_>, operation: &Operation) -> Result<(), DfuError> {
        let flash = MemoryMap::stm32f405();
        let writes = matches!(operation, Operation::Write(at, _)
            if flash.sectors().iter().any(|sector| sector.span.contains(*at)));
        if writes { self.narrow(ctx) } else { Ok(()) }
    }

    /// Switches back to 8 bits after a failure, unless the width is already 8.
    pub(super) fn narrow(&mut self, ctx: &mut Ctx<'_>) -> Result<(), DfuError> {
        if self.width == Programming::Bytes {
            return Ok(());
        }
        ctx.log(LogEntry::Narrowed);
        self.attempt(ctx, Operation::Write(WIDTH_SWITCH, EIGHT_BITS.to_vec()))?;
        self.width = Programming::Bytes;
        Ok(())
    }

    /// Switches back to 8 bits where safety matters more than speed. If the ROM refuses, the width stays as it is.
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

    /// Runs an operation once, without retries.
    pub(super) fn attempt(&mut self, ctx: &mut Ctx<'_>, operation: Operation) -> Result<Vec<u8>, DfuError> {
        let mut buffer = [0; 4096];
        let mut took = Duration::ZERO;
        let is_take_over = operation == Operation::TakeOver;
        self.machine.begin(operation);
        loop {
            let asked = ctx.clock.now();
            let step = self.machine.step();
            // The machine limits its own waits. This check also limits the transfers between the waits.
            if took > OPERATION && !matches!(step, Step::Finished(_)) {
                return Err(DfuError::Busy(took));
            }
            let (error, limit) = match step {
                Step::Send(setup, data, limit) => {
                    let sent = ctx.spend(Share::Data, || self.transport.control_out(setup, data, limit));
                    // Treat a partial transfer as a failed one: the device has not accepted the block.
                    let sent =
                        sent.and_then(|n| if n == data.len() { Ok(()) } else { Err(TransferError::Short) });
                    self.machine.reply(sent.map(|()| &[][..]));
                    (sent.err(), limit)
                }
                Step::Fetch(setup, len, limit) => {
                    let len = len.min(buffer.len());
                    let share = if setup.request == wire::GETSTATUS { Share::Chip } else { Share::Data };
                    let result =
                        ctx.spend(share, || self.transport.control_in(setup, &mut buffer[..len], limit));
                    self.machine.reply(result.map(|n| &buffer[..n.min(len)]));
                    (result.err(), limit)
                }
                Step::Wait(time) => {
                    let mut remaining = time;
                    while !remaining.is_zero() {
                        // A `Cancel` does not have to wait for an operation from an earlier session.
                        if is_take_over && ctx.check_cancelled().is_err() {
                            return Err(DfuError::Busy(took));
                        }
                        let slice = remaining.min(SLICE);
                        ctx.spend(Share::Pause, || ctx.clock.sleep(slice));
                        remaining -= slice;
                    }
                    self.machine.finish_wait();
                    took += time;
                    continue;
                }
                Step::Finished(result) => {
                    self.log_notes(ctx, is_take_over);
                    return result;
                }
            };
            // Count only the time of the request, up to its limit: the process may have been suspended in the meantime
            // (Ctrl-Z).
            let spent = ctx.clock.now().saturating_sub(asked).min(limit + PAUSES[0]);
            took += spent;
            // A stall counts as an answer.
            if error.is_none_or(|error| error == TransferError::Stall) {
                self.silence = Duration::ZERO;
                continue;
            }
            self.silence += spent;
            if self.silence >= SILENCE && error != Some(TransferError::Disconnected) {
                self.log_notes(ctx, is_take_over);
                return Err(DfuError::Silent(self.silence));
            }
        }
    }

    fn log_notes(&mut self, ctx: &Ctx<'_>, is_take_over: bool) {
        for note in self.machine.take_notes() {
            match note {
                Note::Cleared(status) => {
                    if is_take_over {
                        let entered = ctx.run_state == RunState::Stopped;
                        ctx.post_measurement(Measurement::FirstStatus { status, entered });
                    }
                    ctx.log(LogEntry::InError(status));
                    ctx.log(LogEntry::ClearingStatus);
                }
                Note::Aborted(state) => ctx.log(LogEntry::Aborting(state)),
                Note::ObeyingPoll(why) => ctx.log(LogEntry::ObeyingPoll(why)),
            }
        }
    }

    /// Sets how many bits the chip programs at a time, by declaring its supply voltage to the ROM. Does nothing on a
    /// device without this switch.
    ///
    /// The ROM programs 8 bits at a time by default, because a low supply voltage allows no more. At 2.7 to 3.6 V, 32
    /// bits are allowed: programming is four times as fast, and an erase takes half as long (DS8626 table 40).
    /// Bitcraze's own bootloader uses that range for every radio update, so the range is safe on this board. The next
    /// reset undoes the setting.
    ///
    /// The switch is documented only in AN2606, and no other host is known to use it, so no job depends on it. If the
    /// ROM refuses, programming stays at 8 bits. If the ROM accepts, and the value reads back correctly or cannot be
    /// read, or if the answer is lost, 32 bits are assumed, and the time per block shows whether this is true
    /// (`WidthCheck` in `flash`). Data that was written at 32 bits and does not verify is rewritten at 8 bits.
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
                (self.width, self.width_was_read) = (Programming::Words, true);
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
                // If the answer was lost, the width is unknown. Assume 32 bits, so that a failed write switches back.
                if matches!(error, DfuError::Transfer { .. }) && width == Width::Fastest {
                    self.width = Programming::Words;
                }
                drop(refused(self, ctx)?);
            }
            (Ok(Ok(_)), _) => drop(refused(self, ctx)?),
        }
        self.select(ctx, before)
    }

    /// Calls `read` with the alternate setting of the memory that contains `address`, and then restores the previous
    /// setting. If the memory's setting is unknown, or `read` fails with it, calls `read` with the current setting
    /// instead: all memories share one address pointer. Returns `None` for an unknown chip, or if `read` also fails
    /// with the current setting.
    fn read_in_memory_of<T>(
        &mut self,
        ctx: &mut Ctx<'_>,
        address: Address,
        read: impl Fn(&mut Session, &mut Ctx<'_>) -> Result<T, FailureKind>,
    ) -> Result<Option<T>, Stop> {
        if !self.map().is_stm32f405() {
            return Ok(None);
        }
        let before = self.alternate;
        let memory = self.alternate_at(address).map_or(before, |memory| memory.number);
        self.select(ctx, memory)?;
        let mut seen = self.attempt_read(ctx, &read)?;
        self.select(ctx, before)?;
        if seen.is_none() && memory != before {
            seen = self.attempt_read(ctx, &read)?;
        }
        Ok(seen)
    }

    /// Calls `read` once. After a failure, brings the device back to dfuIDLE and returns `None`. Only a lost or silent
    /// device ends the job.
    fn attempt_read<T>(
        &mut self,
        ctx: &mut Ctx<'_>,
        read: &impl Fn(&mut Session, &mut Ctx<'_>) -> Result<T, FailureKind>,
    ) -> Result<Option<T>, Stop> {
        match read(self, ctx) {
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

    /// Reads the flash protection from the option bytes (RM0090 §3.7). Returns `None` if they could not be read.
    pub(super) fn protection(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Protection>, Stop> {
        const OPTIONS: Address = Address(0x1FFF_C000);
        let seen = self.read_in_memory_of(ctx, OPTIONS, |session, ctx| {
            match session.run(ctx, &Operation::Read(OPTIONS, 16)) {
                Ok(bytes) => Ok(Protection::parse(&bytes)),
                // Some ROMs report read protection in reply to Set Address, others in reply to the read.
                Err(FailureKind::Dfu(DfuError::Status(Status::VENDOR))) => {
                    session.run(ctx, &Operation::Recover)?;
                    Ok(Some(Protection { read: true, sectors: Vec::new() }))
                }
                Err(error) => Err(error),
            }
        });
        Ok(seen?.flatten())
    }

    /// Reads the board from the OTP. Returns `None` if the OTP could not be read or is in an unknown format.
    pub(super) fn board(&mut self, ctx: &mut Ctx<'_>) -> Result<Option<Board>, Stop> {
        const OTP: Address = Address(0x1FFF_7800);
        let read = Operation::Read(OTP, crazyflie::OTP_LEN);
        let otp = self.read_in_memory_of(ctx, OTP, |session, ctx| session.run(ctx, &read))?;
        Ok(otp.and_then(|bytes| crazyflie::parse_board(&bytes)))
    }

    /// Reads the ROM's version (AN2606: byte 0x1FFF77DE in system memory). Returns `None` on an unknown chip, or if the
    /// version could not be read. A read must be at least two bytes long, so this method reads the whole word.
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

    /// Leaves DFU mode and starts the program at `address`.
    pub(super) fn leave(&mut self, ctx: &mut Ctx<'_>, address: Address) -> Result<(), Stop> {
        let flash = self.flash_alternate();
        self.select(ctx, flash)?;
        ctx.log(LogEntry::Leaving);
        self.run(ctx, &Operation::Leave(address))?;
        Ok(())
    }

    /// Returns the device to dfuIDLE for the next session. Errors are ignored.
    pub(super) fn settle(&mut self, ctx: &mut Ctx<'_>) {
        let _ = self.attempt(ctx, Operation::Idle);
    }
}

/// Converts an error to a failure: a disconnect if the drone is lost, otherwise the error itself.
fn classify_error(ctx: &Ctx<'_>, error: DfuError) -> FailureKind {
    match ctx.reclassify(error.into()) {
        Stop::Failed(kind, _) => kind,
        Stop::Cancelled => error.into(),
    }
}

/// Returns whether a retry may help. A retry cannot help if the ROM refused the operation itself (because of read
/// protection or the address), if the operation's time limit has passed, or if the device is lost or silent.
fn is_retryable(error: DfuError) -> bool {
    match error {
        DfuError::Status(status) => !matches!(status, Status::VENDOR | Status::TARGET),
        DfuError::Busy(_) | DfuError::Silent(_) => false,
        DfuError::Transfer { error, .. } | DfuError::Select(error) => error.is_transient(),
        DfuError::State(_) | DfuError::Garbled | DfuError::Short { .. } => true,
    }
}
