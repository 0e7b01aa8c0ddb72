//! The boot ROM of the STM32F405 in DFU mode: the device side of AN3156 and of DFU 1.1 annex A.
//!
//! The first GETSTATUS after a DNLOAD starts the operation, and the next one waits until the operation is done. The
//! simulated ROM has no clock, so the caller passes the time with every call. Constants are repeated here on purpose,
//! not shared with the host's `dfu` modules.

use std::time::Duration;

use super::nor::{self, Nor, ProgramWidth};
use crate::usb::{Setup, TransferError};

/// wTransferSize, in bytes.
pub(crate) const TRANSFER_SIZE: usize = TRANSFER_LEN as usize;
const TRANSFER_LEN: u32 = 2048;
const OPTION_BYTES: u32 = 0x1FFF_C000;
const OTP: u32 = 0x1FFF_7800;
const SYSTEM_MEMORY: u32 = 0x1FFF_0000;
const VOLTAGE: u32 = 0xFFFF_0000;
const POLL_ERASE: u32 = 100;
const POLL_OTHER: u32 = 104;
/// The typical times of a mass erase with 8, 16 and 32 bits at a time, in seconds (DS8626 table 40).
const MASS_ERASE: [u64; 3] = [16, 11, 8];

/// How a device responds to a control transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RomAnswer {
    Data(Vec<u8>),
    Ack,
    Stall,
    /// No answer, because the device is no longer on the bus.
    Silence,
    /// Transfer errors, because the cable is working loose.
    Noise,
    /// No answer, and the device stays on the bus.
    Hang,
}

impl RomAnswer {
    /// Converts the answer to the result that the host receives.
    pub(crate) fn into_result(self) -> Result<Vec<u8>, TransferError> {
        match self {
            RomAnswer::Data(bytes) => Ok(bytes),
            RomAnswer::Ack => Ok(Vec::new()),
            RomAnswer::Stall => Err(TransferError::Stall),
            RomAnswer::Silence => Err(TransferError::Disconnected),
            RomAnswer::Noise => Err(TransferError::Io),
            RomAnswer::Hang => Err(TransferError::Timeout),
        }
    }
}

/// The chip's non-volatile memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// 1 MiB of flash.
    pub flash: Nor,
    /// The 16 option bytes. Byte 1 is the read protection, and bit n of bytes 8 and 9 is 0 if sector n is
    /// write-protected (RM0090 §3.7).
    pub options: [u8; 16],
    /// 512 bytes that can be programmed once, followed by 16 lock bytes.
    pub otp: [u8; 528],
    /// The byte at 0x1FFF77DE. 0 simulates a ROM that does not allow this byte to be read.
    pub rom_version: u8,
}

/// The factory settings: each halfword is followed by its complement, and each such pair is stored twice. The layout is
/// taken from an STM32F413 and adapted to the 12 sectors of the F405.
const FACTORY_OPTIONS: [u8; 16] =
    [0xEF, 0xAA, 0x10, 0x55, 0xEF, 0xAA, 0x10, 0x55, 0xFF, 0x0F, 0x00, 0xF0, 0xFF, 0x0F, 0x00, 0xF0];

impl Memory {
    /// Creates the memory of a factory-new chip that has this flash.
    pub(crate) fn new(flash: Nor) -> Memory {
        Memory { flash, options: FACTORY_OPTIONS, otp: [0xFF; 528], rom_version: 0x91 }
    }

    /// Whether read protection level 1 or 2 is active.
    pub(crate) fn read_protected(&self) -> bool {
        self.options[1] != 0xAA
    }

    fn is_write_protected(&self, sector: usize) -> bool {
        let mask = u16::from_le_bytes([self.options[8], self.options[9]]);
        mask >> sector & 1 == 0
    }

    fn read(&self, address: u32, len: usize, voltage: u8) -> Option<Vec<u8>> {
        let window = |start: u32, bytes: &[u8]| {
            let from = address.checked_sub(start)? as usize;
            bytes.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
        };
        self.flash
            .read(address, len)
            .map(<[u8]>::to_vec)
            .or_else(|| window(OPTION_BYTES, &self.options))
            .or_else(|| window(OTP, &self.otp))
            .or_else(|| window(VOLTAGE, &[voltage, 0xFF, 0xFF, 0xFF]))
            .or_else(|| window(SYSTEM_MEMORY, &self.system_memory()))
    }

    /// Sets the initial contents of a memory. If the bytes are not all in one simulated memory, they are ignored. Of
    /// the system memory, only the ROM version is kept.
    pub(crate) fn set_initial(&mut self, address: u32, bytes: &[u8]) {
        let set = |start: u32, memory: &mut [u8]| {
            let from = address.checked_sub(start).and_then(|from| usize::try_from(from).ok())?;
            memory.get_mut(from..from.checked_add(bytes.len())?)?.copy_from_slice(bytes);
            Some(())
        };
        let end = u32::try_from(bytes.len()).ok().and_then(|len| address.checked_add(len));
        if end.is_some_and(|end| Nor::sector_of(address).is_some() && Nor::sector_of(end - 1).is_some()) {
            self.flash.place(address, bytes);
        }
        let _ = set(OPTION_BYTES, &mut self.options).or_else(|| set(OTP, &mut self.otp));
        if !(SYSTEM_MEMORY..OTP).contains(&address) {
            return;
        }
        let mut rom = self.system_memory();
        if set(SYSTEM_MEMORY, &mut rom).is_some() {
            self.rom_version = rom[0x77DE];
        }
    }

    /// Returns the system memory, of which only the ROM version at 0x1FFF77DE is simulated.
    fn system_memory(&self) -> Vec<u8> {
        let mut rom = vec![0; 0x77E0];
        rom[0x77DE] = self.rom_version;
        rom
    }
}

/// Whether the ROM accepts a pointer to this address but then returns no bytes. A real ROM does so for addresses after
/// the OTP (seen at 0x1FFF7A10 of an F40x), and for addresses in its own code if that code is not readable.
fn is_empty(memory: &Memory, address: u32) -> bool {
    let hidden = memory.rom_version == 0 && (SYSTEM_MEMORY..OTP).contains(&address);
    hidden || (OTP + 528..OPTION_BYTES).contains(&address)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RomState {
    Idle = 2,
    DnloadSync = 3,
    Busy = 4,
    DnloadIdle = 5,
    ManifestSync = 6,
    Manifest = 7,
    UploadIdle = 9,
    Error = 10,
}

const OK: u8 = 0x00;
const ERR_TARGET: u8 = 0x01;
const ERR_WRITE: u8 = 0x03;
const ERR_FIRMWARE: u8 = 0x0A;
const ERR_VENDOR: u8 = 0x0B;
const ERR_STALLED: u8 = 0x0F;

/// An operation requested by a download. The next GETSTATUS starts the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RomWork {
    SetAddress(u32),
    Erase(u32),
    MassErase,
    ReadUnprotect,
    Write(u32, Vec<u8>),
}

#[derive(Clone, Debug)]
struct Busy {
    work: RomWork,
    from: Duration,
    until: Duration,
}

/// An effect of a request on the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RomEffect {
    None,
    /// Leaves DFU mode for the program whose vector table is at this address.
    Leave(u32),
    /// Resets after a change of the option bytes.
    Reset,
}

#[derive(Clone, Debug)]
pub(crate) struct Rom {
    state: RomState,
    status: u8,
    pointer: u32,
    voltage: u8,
    pending: Option<RomWork>,
    busy: Option<Busy>,
    /// How the ROM reacts to a change of the programming width.
    pub switch: Switch,
    /// Whether read protection is reported when bytes are read or written, not when the pointer is set.
    pub late_refusal: bool,
    /// Whether requests stall while an operation is in progress, instead of waiting until the operation is done.
    pub stalls_while_busy: bool,
}

/// The effect of selecting the programming width by writing a voltage range to 0xFFFF0000. No other host is known to
/// use this feature, so any of these effects is possible on a real chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// As described in AN2606.
    #[default]
    Works,
    Refused,
    /// Accepted and read back correctly, but programming is as slow as before.
    NoEffect,
    /// Accepted, but cannot be read back.
    WriteOnly,
    /// Accepted although the supply voltage is too low, so words are programmed incorrectly.
    LowSupply,
    /// Like [`Switch::LowSupply`], but only for single words.
    LowSupplyForWords,
}

impl Default for Rom {
    fn default() -> Rom {
        Rom::new()
    }
}

impl Rom {
    /// Creates a ROM in the state after a start: dfuERROR with errFIRMWARE, as in every public log of an STM32F405.
    pub(crate) fn new() -> Rom {
        Rom {
            state: RomState::Error,
            status: ERR_FIRMWARE,
            pointer: nor::START,
            voltage: 0,
            pending: None,
            busy: None,
            switch: Switch::Works,
            late_refusal: false,
            stalls_while_busy: false,
        }
    }

    /// Creates a ROM that starts in dfuIDLE, like the ROM of an STM32F469 (modm's log).
    pub(crate) fn idle() -> Rom {
        Rom { state: RomState::Idle, status: OK, ..Rom::new() }
    }

    /// Performs a class request to the DFU interface. Returns the answer, how long the chip kept the host waiting, and
    /// the effect on the chip. `len` is wLength.
    pub(crate) fn request(
        &mut self,
        memory: &mut Memory,
        setup: Setup,
        len: usize,
        data: &[u8],
        now: Duration,
    ) -> (RomAnswer, Duration, RomEffect) {
        if self.stalls_while_busy && self.busy.as_ref().is_some_and(|busy| now < busy.until) {
            return (RomAnswer::Stall, Duration::ZERO, RomEffect::None);
        }
        // The ROM runs operations in the foreground, so every request waits until the operation is done.
        let (waited, effect) = self.finish_work(memory, now);
        if effect != RomEffect::None {
            return (RomAnswer::Silence, waited, effect);
        }
        let (answer, effect) = match (setup.request_type, setup.request) {
            (0x21, 1) => (self.download(setup.value, data), RomEffect::None),
            (0xA1, 2) => (self.upload(memory, setup.value, len), RomEffect::None),
            (0xA1, 3) => self.get_status(memory, now + waited),
            (0x21, 4) => (self.clear_status(), RomEffect::None),
            (0xA1, 5) => (RomAnswer::Data(vec![self.state as u8]), RomEffect::None),
            (0x21, 6) => (self.abort(), RomEffect::None),
            _ => (self.refuse(ERR_STALLED), RomEffect::None),
        };
        (answer, waited, effect)
    }

    /// Continues from this status and state, as if the ROM had just reported them.
    pub(crate) fn adopt(&mut self, status: u8, state: u8) {
        let all = [
            RomState::Idle,
            RomState::DnloadSync,
            RomState::Busy,
            RomState::DnloadIdle,
            RomState::ManifestSync,
            RomState::Manifest,
            RomState::UploadIdle,
            RomState::Error,
        ];
        if let Some(state) = all.into_iter().find(|known| *known as u8 == state) {
            (self.status, self.state) = (status, state);
        }
        if self.state == RomState::Error {
            (self.pending, self.busy) = (None, None);
        }
    }

    /// Cuts the power. An operation in progress stays incomplete.
    pub(crate) fn cut(&mut self, memory: &mut Memory, now: Duration) {
        if let Some(Busy { work, from, until }) = self.busy.take() {
            let whole = until.saturating_sub(from).as_secs_f64();
            let share = if whole > 0.0 { now.saturating_sub(from).as_secs_f64() / whole } else { 1.0 };
            // An operation that the chip refuses has no partial effect.
            if self.check(memory, &work).is_ok() {
                Rom::carry_out(memory, &work, share.min(1.0));
            }
        }
    }

    fn finish_work(&mut self, memory: &mut Memory, now: Duration) -> (Duration, RomEffect) {
        let Some(Busy { work, until, .. }) = self.busy.take() else {
            return (Duration::ZERO, RomEffect::None);
        };
        let waited = until.saturating_sub(now);
        self.state = RomState::DnloadSync;
        self.status = OK;
        let mut effect = RomEffect::None;
        match self.check(memory, &work) {
            Err(status) => {
                self.state = RomState::Error;
                self.status = status;
            }
            Ok(()) => match work {
                RomWork::SetAddress(address) => self.pointer = address,
                RomWork::Write(VOLTAGE, bytes) => self.voltage = bytes[0],
                RomWork::Write(OPTION_BYTES, _) | RomWork::ReadUnprotect => {
                    Rom::carry_out(memory, &work, 1.0);
                    effect = RomEffect::Reset;
                }
                work => Rom::carry_out(memory, &self.apply_low_supply(work), 1.0),
            },
        }
        (waited, effect)
    }

    fn download(&mut self, block: u16, data: &[u8]) -> RomAnswer {
        if !matches!(self.state, RomState::Idle | RomState::DnloadIdle) || data.len() > TRANSFER_SIZE {
            return self.refuse(ERR_STALLED);
        }
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).ok();
        let work = match (block, data) {
            (_, []) => {
                self.state = RomState::ManifestSync;
                return RomAnswer::Ack;
            }
            (0, [0x21, address @ ..]) => number(address).map(RomWork::SetAddress),
            (0, [0x41]) => Some(RomWork::MassErase),
            (0, [0x41, address @ ..]) => number(address).map(RomWork::Erase),
            (0, [0x92]) => Some(RomWork::ReadUnprotect),
            (2.., data) => Some(RomWork::Write(self.address_of(block), data.to_vec())),
            _ => None,
        };
        let Some(work) = work else { return self.refuse(ERR_STALLED) };
        self.pending = Some(work);
        self.state = RomState::DnloadSync;
        RomAnswer::Ack
    }

    fn upload(&mut self, memory: &Memory, block: u16, len: usize) -> RomAnswer {
        if !matches!(self.state, RomState::Idle | RomState::UploadIdle) || len > TRANSFER_SIZE {
            return self.refuse(ERR_STALLED);
        }
        match block {
            0 => RomAnswer::Data(vec![0x00, 0x21, 0x41, 0x92]),
            1 => self.refuse(ERR_STALLED),
            // AN3156 §4 allows 2 to 2048 bytes. How a ROM reacts to 1 byte is not known.
            _ if len < 2 => self.refuse(ERR_STALLED),
            _ if self.pointer == VOLTAGE && self.switch == Switch::WriteOnly => self.refuse(ERR_TARGET),
            _ if is_empty(memory, self.pointer) => {
                self.state = RomState::Idle;
                RomAnswer::Data(Vec::new())
            }
            _ if memory.read_protected() => self.refuse(ERR_VENDOR),
            _ => match memory.read(self.address_of(block), len, self.voltage) {
                Some(bytes) => {
                    self.state = RomState::UploadIdle;
                    RomAnswer::Data(bytes)
                }
                None => self.refuse(ERR_TARGET),
            },
        }
    }

    fn get_status(&mut self, memory: &Memory, now: Duration) -> (RomAnswer, RomEffect) {
        let mut poll = 0;
        let mut effect = RomEffect::None;
        match (self.state, self.pending.take()) {
            (RomState::DnloadSync, Some(work)) => {
                poll = if matches!(work, RomWork::Erase(_) | RomWork::MassErase) {
                    POLL_ERASE
                } else {
                    POLL_OTHER
                };
                let time = self.time_of(memory, &work);
                self.busy = Some(Busy { work, from: now, until: now + time });
                self.state = RomState::Busy;
            }
            (RomState::DnloadSync, None) => self.state = RomState::DnloadIdle,
            (RomState::ManifestSync, _) => {
                self.state = RomState::Manifest;
                effect = RomEffect::Leave(self.pointer);
                poll = 1;
            }
            _ => {}
        }
        let [a, b, c, _] = poll.to_le_bytes();
        (RomAnswer::Data(vec![self.status, a, b, c, self.state as u8, 0]), effect)
    }

    /// Refuses CLRSTATUS in every state except dfuERROR. CubeProgrammer 2.2, which sends CLRSTATUS in other states,
    /// ends up in an endless loop on an F405 (docs/hardware.md, C11).
    fn clear_status(&mut self) -> RomAnswer {
        if self.state != RomState::Error {
            return self.refuse(ERR_STALLED);
        }
        self.status = OK;
        self.state = RomState::Idle;
        RomAnswer::Ack
    }

    fn abort(&mut self) -> RomAnswer {
        if self.state == RomState::Error {
            return RomAnswer::Stall;
        }
        self.pending = None;
        self.state = RomState::Idle;
        RomAnswer::Ack
    }

    fn refuse(&mut self, status: u8) -> RomAnswer {
        self.state = RomState::Error;
        self.status = status;
        RomAnswer::Stall
    }

    fn address_of(&self, block: u16) -> u32 {
        self.pointer.wrapping_add((u32::from(block) - 2) * TRANSFER_LEN)
    }

    fn width(&self) -> ProgramWidth {
        match self.voltage {
            _ if self.switch == Switch::NoEffect => ProgramWidth::Byte,
            0 => ProgramWidth::Byte,
            1 | 2 => ProgramWidth::Half,
            _ => ProgramWidth::Word,
        }
    }

    /// Replaces the data of a write with the bytes that are actually programmed. If the supply voltage is too low for
    /// the width, all bits of the first byte are cleared.
    fn apply_low_supply(&self, work: RomWork) -> RomWork {
        match work {
            RomWork::Write(address, mut bytes)
                if (self.switch == Switch::LowSupply
                    || self.switch == Switch::LowSupplyForWords && bytes.len() == 4)
                    && self.width() == ProgramWidth::Word
                    && Nor::sector_of(address).is_some() =>
            {
                bytes[0] = 0;
                RomWork::Write(address, bytes)
            }
            work => work,
        }
    }

    fn time_of(&self, memory: &Memory, work: &RomWork) -> Duration {
        let width = self.width();
        match work {
            _ if self.check(memory, work).is_err() => Duration::ZERO,
            RomWork::SetAddress(_) | RomWork::ReadUnprotect => Duration::from_micros(100),
            RomWork::Erase(address) => match Nor::sector_of(*address) {
                Some(sector) if !memory.is_write_protected(sector) => memory.flash.erase_time(sector, width),
                _ => Duration::ZERO,
            },
            RomWork::MassErase => Duration::from_secs(MASS_ERASE[width as usize]),
            RomWork::Write(address, data) if Nor::sector_of(*address).is_some() => {
                memory.flash.program_time(data.len(), width)
            }
            RomWork::Write(..) => Duration::from_micros(100),
        }
    }

    /// Checks whether the ROM accepts the operation. The error is the bStatus that the ROM then reports.
    fn check(&self, memory: &Memory, work: &RomWork) -> Result<(), u8> {
        let in_flash = |address: u32| Nor::sector_of(address).is_some();
        let last =
            |address: u32, len: usize| u32::try_from(len - 1).ok().and_then(|n| address.checked_add(n));
        match work {
            RomWork::SetAddress(_) if memory.read_protected() && !self.late_refusal => Err(ERR_VENDOR),
            RomWork::SetAddress(address) if is_empty(memory, *address) => Ok(()),
            RomWork::SetAddress(address) => {
                memory.read(*address, 1, self.voltage).map(drop).ok_or(ERR_TARGET)
            }
            RomWork::ReadUnprotect => Ok(()),
            _ if memory.read_protected() => Err(ERR_VENDOR),
            RomWork::MassErase => Ok(()),
            RomWork::Erase(address) => in_flash(*address).then_some(()).ok_or(ERR_TARGET),
            RomWork::Write(VOLTAGE, bytes) => {
                let is_valid = matches!(bytes[..], [0..=4] | [0..=4, 0xFF, 0xFF, 0xFF]);
                (is_valid && self.switch != Switch::Refused).then_some(()).ok_or(ERR_WRITE)
            }
            RomWork::Write(OPTION_BYTES, bytes) => (bytes.len() == 16).then_some(()).ok_or(ERR_TARGET),
            RomWork::Write(address, bytes) if in_flash(*address) => {
                // AN2606 table 7: in word mode, addresses and lengths must be multiples of 4.
                let is_aligned = address % 4 == 0 && bytes.len() % 4 == 0;
                let is_inside = last(*address, bytes.len()).is_some_and(in_flash);
                if !is_inside {
                    Err(ERR_TARGET)
                } else if self.width() == ProgramWidth::Word && !is_aligned {
                    Err(ERR_WRITE)
                } else {
                    Ok(())
                }
            }
            RomWork::Write(address, bytes) => {
                let end = last(*address, bytes.len());
                let is_in_otp = *address >= OTP && end.is_some_and(|end| end < OTP + 528);
                is_in_otp.then_some(()).ok_or(ERR_TARGET)
            }
        }
    }

    /// Applies the operation to the memory. `share` is the completed fraction of the operation.
    fn carry_out(memory: &mut Memory, work: &RomWork, share: f64) {
        match work {
            RomWork::Erase(address) => {
                if let Some(sector) = Nor::sector_of(*address).filter(|&n| !memory.is_write_protected(n)) {
                    memory.flash.erase(sector, share);
                }
            }
            RomWork::MassErase => (0..nor::SECTORS.len()).for_each(|n| memory.flash.erase(n, share)),
            RomWork::ReadUnprotect => {
                if memory.read_protected() {
                    (0..nor::SECTORS.len()).for_each(|n| memory.flash.erase(n, share));
                }
                memory.options = Memory::new(Nor::new(memory.flash.pace)).options;
            }
            RomWork::Write(OPTION_BYTES, bytes) if bytes.len() == 16 => memory.options.copy_from_slice(bytes),
            RomWork::Write(address, bytes) if Nor::sector_of(*address).is_some() => {
                let mask = u16::from_le_bytes([memory.options[8], memory.options[9]]);
                memory.flash.program(*address, bytes, share, |sector| mask >> sector & 1 == 0);
            }
            RomWork::Write(address, bytes) => {
                let from = address.saturating_sub(OTP) as usize;
                memory.otp.iter_mut().skip(from).zip(bytes).for_each(|(cell, byte)| *cell &= byte);
            }
            RomWork::SetAddress(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
