//! A conversation with one device in DFU mode: steps the machine over the transport, waits where it says
//! so, tells its notes to the log, and tries once more where that is safe.

use std::time::Duration;

use super::timeline::{Part, Share};
use super::{Ctx, Stop};
use crate::crazyflie::{self, Board};
use crate::dfu::DfuError;
use crate::dfu::device::{Alternate, DeviceError, DfuDevice};
use crate::dfu::machine::{Machine, Note, Operation, Step};
use crate::dfu::quirks::Quirks;
use crate::dfu::{State, Status, wire};
use crate::flash::map::MemoryMap;
use crate::flash::{Address, Span};
use crate::job::{Device, FailureKind, Protection, Width};
use crate::usb::{TransferError, Transport, descriptor};

/// No operation takes longer, whatever the device answers: the erase of one sector may take 10 s.
const OPERATION: Duration = Duration::from_secs(45);

/// An open device in DFU mode, in dfuIDLE or on the way of a run of blocks.
pub(super) struct Session {
    transport: Box<dyn Transport>,
    machine: Machine,
    device: DfuDevice,
    /// The alternate setting that is selected.
    alternate: u8,
    /// Everything that is known to be special about the device.
    pub(super) quirks: Quirks,
}

impl Session {
    /// Reads what the device is, claims it and brings it to dfuIDLE.
    pub(super) fn open(
        ctx: &Ctx<'_>,
        info: &Device,
        mut transport: Box<dyn Transport>,
    ) -> Result<Session, Stop> {
        ctx.enters(Part::Open);
        let device = DfuDevice::read(&mut *transport).map_err(FailureKind::NotDfu)?;
        // Asked again: what was read when it had just come may be empty.
        let names =
            descriptor::strings(&mut *transport).map_err(DeviceError::from).map_err(FailureKind::NotDfu)?;
        let quirks = Quirks::of(info.id, &names.product, &device);
        ctx.detail(format!("Device {}, {}, transfer size {}", info.id, quirks.name, device.transfer_size));
        let machine = Machine::new(device.interface, device.transfer_size, quirks);
        let alternate = device.flash().map_or(0, |flash| flash.number);
        let mut session = Session { transport, machine, device, alternate, quirks };
        ctx.info("Claiming USB DFU interface ...");
        session.select_now(ctx, alternate)?;
        ctx.info("Determining device status ...");
        session.run(ctx, &Operation::Recover)?;
        Ok(session)
    }

    /// The flash's memory map.
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
    pub(super) fn select(&mut self, ctx: &Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        if alternate != self.alternate {
            self.run(ctx, &Operation::Idle)?;
            self.select_now(ctx, alternate)?;
            self.machine.alternate_changed();
        }
        Ok(())
    }

    fn select_now(&mut self, ctx: &Ctx<'_>, alternate: u8) -> Result<(), Stop> {
        ctx.info(format!("Setting Alternate Interface #{alternate} ..."));
        self.transport.select(self.device.interface, alternate).map_err(|error| match error {
            TransferError::Busy => FailureKind::Held,
            other => FailureKind::Open(other),
        })?;
        self.alternate = alternate;
        Ok(())
    }

    /// Reads `span`, which is at most [`Session::block`] long.
    pub(super) fn read(&mut self, ctx: &Ctx<'_>, span: Span) -> Result<Vec<u8>, Stop> {
        let len = u16::try_from(span.len()).unwrap_or(u16::MAX);
        Ok(self.run(ctx, &Operation::Read(span.start(), len))?)
    }

    /// Runs an operation to its end. If the device refuses it or an answer is lost, it is brought back to
    /// dfuIDLE and the operation tried once more: each of them may be repeated without harm, even a write,
    /// which programs the same bits again.
    pub(super) fn run(&mut self, ctx: &Ctx<'_>, operation: &Operation) -> Result<Vec<u8>, FailureKind> {
        let error = match self.attempt(ctx, operation.clone()) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let hopeless = match error {
            DfuError::Status(status) => matches!(status, Status::VENDOR | Status::TARGET),
            DfuError::Busy(_) => true,
            _ => error.is_disconnect(),
        };
        if hopeless || *operation == Operation::Recover {
            return Err(error.into());
        }
        ctx.warn(format!("{error}; trying once more"));
        match self.attempt(ctx, Operation::Recover).and_then(|_| self.attempt(ctx, operation.clone())) {
            Ok(bytes) => Ok(bytes),
            // Gone says more than what was seen while it went.
            Err(gone) if gone.is_disconnect() => Err(gone.into()),
            Err(_) => Err(error.into()),
        }
    }

    fn attempt(&mut self, ctx: &Ctx<'_>, operation: Operation) -> Result<Vec<u8>, DfuError> {
        let mut buffer = [0; 4096];
        let started = ctx.clock.now();
        self.machine.begin(operation);
        loop {
            // The machine bounds its waits; this bounds what a device does with the transfers between them.
            let took = ctx.clock.now().saturating_sub(started);
            if took > OPERATION {
                return Err(DfuError::Busy(took));
            }
            match self.machine.step() {
                Step::Send(setup, data, limit) => {
                    let sent = ctx.spend(Share::Data, || self.transport.control_out(setup, data, limit));
                    let whole = sent.map(|n| n == data.len());
                    match whole {
                        Ok(true) => self.machine.reply(Ok(&[])),
                        // Half a block is as good as none: the device has not taken it.
                        Ok(false) => self.machine.reply(Err(TransferError::Other { code: 0 })),
                        Err(error) => self.machine.reply(Err(error)),
                    }
                }
                Step::Fetch(setup, len, limit) => {
                    let len = len.min(buffer.len());
                    let share = if setup.request == wire::GETSTATUS { Share::Chip } else { Share::Data };
                    let came =
                        ctx.spend(share, || self.transport.control_in(setup, &mut buffer[..len], limit));
                    self.machine.reply(came.map(|n| &buffer[..n.min(len)]));
                }
                Step::Wait(time) => {
                    ctx.spend(Share::Pause, || ctx.clock.sleep(time));
                    self.machine.waited();
                }
                Step::Finished(result) => {
                    self.tell_notes(ctx);
                    return result;
                }
            }
        }
    }

    fn tell_notes(&mut self, ctx: &Ctx<'_>) {
        for note in self.machine.take_notes() {
            match note {
                Note::Cleared(status) => {
                    ctx.info(format!("{}, status({}) = {status}", State::Error, status.0));
                    ctx.info("Clearing status");
                }
                Note::Aborted(state) => ctx.info(format!("Aborting what an earlier session left in {state}")),
                Note::ObeyingPoll(why) => {
                    ctx.warn(format!("{why}: from here on the device gets the time that it asks for"));
                }
            }
        }
    }

    /// Declares the supply voltage, which decides how many bits are programmed at a time: with 2.7 to 3.6 V
    /// words instead of bytes, four times as fast, and half the time for an erase. Bitcraze's own bootloader
    /// works in that range on every radio update. The setting is gone with the next reset. Not taken, or not
    /// read back: the log says so, and the ROM goes on as it started.
    pub(super) fn set_width(&mut self, ctx: &Ctx<'_>, width: Width) -> Result<(), Stop> {
        const SWITCH: Address = Address(0xFFFF_0000);
        let range = match width {
            Width::Fastest => [0x03, 0xFF, 0xFF, 0xFF],
            Width::Byte => [0x00, 0xFF, 0xFF, 0xFF],
        };
        let feature = self.alternate_at(SWITCH).filter(|_| self.quirks.width_switch);
        let Some(feature) = feature else { return Ok(()) };
        let before = self.alternate;
        self.select(ctx, feature.number)?;
        let write = self.attempt(ctx, Operation::Write(SWITCH, range.to_vec()));
        let read = write.and_then(|_| self.attempt(ctx, Operation::Read(SWITCH, 4)));
        match read {
            Ok(bytes) if bytes == range => match width {
                Width::Fastest => ctx.info("Programming 32 bits at a time"),
                Width::Byte => ctx.info("Programming 8 bits at a time"),
            },
            Err(error) if error.is_disconnect() => return Err(FailureKind::from(error).into()),
            Ok(_) | Err(_) => {
                ctx.warn(
                    "The boot ROM does not let the programming width be set: going on as it started, 8 bits",
                );
                self.run(ctx, &Operation::Recover)?;
            }
        }
        self.select(ctx, before)
    }

    /// Looks into the memory that holds `address`, through its own alternate setting, and comes back; `None` on
    /// a chip whose memories are not known, or that does not have this one.
    fn elsewhere<T>(
        &mut self,
        ctx: &Ctx<'_>,
        address: Address,
        look: impl FnOnce(&mut Session) -> Result<T, Stop>,
    ) -> Result<Option<T>, Stop> {
        let known = self.map().is_stm32f405();
        let Some(memory) = self.alternate_at(address).filter(|_| known) else { return Ok(None) };
        let before = self.alternate;
        self.select(ctx, memory.number)?;
        let seen = look(self)?;
        self.select(ctx, before)?;
        Ok(Some(seen))
    }

    /// Protection as the option bytes have it (RM0090 §3.7); `None` on a chip whose option bytes are not
    /// known.
    pub(super) fn protection(&mut self, ctx: &Ctx<'_>) -> Result<Option<Protection>, Stop> {
        const OPTIONS: Address = Address(0x1FFF_C000);
        let seen =
            self.elsewhere(ctx, OPTIONS, |session| match session.run(ctx, &Operation::Read(OPTIONS, 16)) {
                Ok(bytes) => Ok(Protection::parse(&bytes)),
                Err(FailureKind::Dfu(DfuError::Status(Status::VENDOR))) => {
                    session.run(ctx, &Operation::Recover)?;
                    Ok(Some(Protection { read: true, sectors: Vec::new() }))
                }
                Err(error) => Err(error.into()),
            });
        Ok(seen?.flatten())
    }

    /// The board from the OTP; `None` if the device has none or it says nothing.
    pub(super) fn board(&mut self, ctx: &Ctx<'_>) -> Result<Option<Board>, Stop> {
        const OTP: Address = Address(0x1FFF_7800);
        let read = Operation::Read(OTP, crazyflie::OTP_LEN);
        let otp = self.elsewhere(ctx, OTP, |session| Ok(session.run(ctx, &read)?))?;
        Ok(otp.and_then(|bytes| crazyflie::board(&bytes)))
    }

    /// The ROM's version (AN2606: byte 0x1FFF77DE, in system memory); `None` on a chip that is not known, or
    /// where the ROM does not show it. The word around it is read: one byte alone is less than a ROM must give.
    pub(super) fn rom_version(&mut self, ctx: &Ctx<'_>) -> Result<Option<String>, Stop> {
        let place = Span::new(Address(0x1FFF_77DC), 4).filter(|_| self.quirks.width_switch);
        let Some(place) = place else { return Ok(None) };
        let flash = self.flash_alternate();
        self.select(ctx, flash)?;
        match self.attempt(ctx, Operation::Read(place.start(), 4)) {
            Ok(bytes) => {
                let id = bytes.get(2).copied().filter(|id| !matches!(id, 0 | 0xFF));
                Ok(id.map(|id| format!("{}.{}", id >> 4, id & 0x0F)))
            }
            Err(error) if error.is_disconnect() => Err(FailureKind::from(error).into()),
            Err(_) => {
                self.run(ctx, &Operation::Recover)?;
                Ok(None)
            }
        }
    }

    /// Starts what is at `address`.
    pub(super) fn leave(&mut self, ctx: &Ctx<'_>, address: Address) -> Result<(), Stop> {
        let flash = self.flash_alternate();
        self.select(ctx, flash)?;
        ctx.info("Submitting leave request ...");
        self.run(ctx, &Operation::Leave(address))?;
        Ok(())
    }

    /// Leaves the device as the next session likes to find it, as far as it still listens.
    pub(super) fn settle(&mut self, ctx: &Ctx<'_>) {
        let _ = self.attempt(ctx, Operation::Idle);
    }
}

/// How long something took, for the log.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
