//! Compares the simulated ROM with AN3156 and DFU 1.1 annex A.

use super::*;
use crate::sim::nor::Pace;

struct Chip {
    rom: Rom,
    memory: Memory,
    now: Duration,
}

impl Chip {
    fn new() -> Chip {
        let mut chip =
            Chip { rom: Rom::new(), memory: Memory::new(Nor::new(Pace::Typical)), now: Duration::ZERO };
        assert_eq!(chip.out(4, 0, &[]), RomAnswer::Ack);
        chip
    }

    fn out(&mut self, request: u8, value: u16, data: &[u8]) -> RomAnswer {
        let setup = Setup { request_type: 0x21, request, value, index: 0 };
        let (answer, waited, _) = self.rom.request(&mut self.memory, setup, data.len(), data, self.now);
        self.now += waited;
        answer
    }

    fn input(&mut self, request: u8, value: u16, len: usize) -> (RomAnswer, Duration) {
        let setup = Setup { request_type: 0xA1, request, value, index: 0 };
        let (answer, waited, _) = self.rom.request(&mut self.memory, setup, len, &[], self.now);
        self.now += waited;
        (answer, waited)
    }

    fn status(&mut self) -> [u8; 3] {
        match self.input(3, 0, 6).0 {
            RomAnswer::Data(bytes) => [bytes[0], bytes[1], bytes[4]],
            other => panic!("{other:?}"),
        }
    }

    /// Performs a download and waits until it is done. Returns the last status and the duration.
    fn run(&mut self, block: u16, data: &[u8]) -> ([u8; 3], Duration) {
        let from = self.now;
        assert_eq!(self.out(1, block, data), RomAnswer::Ack);
        assert_eq!(self.status()[2], 4);
        (self.status(), self.now.saturating_sub(from))
    }

    fn point_to(&mut self, address: u32) {
        let (status, _) = self.run(0, &[&[0x21][..], &address.to_le_bytes()].concat());
        assert_eq!(status, [0, 0, 5]);
    }

    fn erase(&mut self, address: u32) -> ([u8; 3], Duration) {
        self.run(0, &[&[0x41][..], &address.to_le_bytes()].concat())
    }
}

#[test]
fn the_rom_starts_in_dfu_error_with_err_firmware() {
    let mut rom = Rom::new();
    let mut memory = Memory::new(Nor::new(Pace::Typical));
    let setup = Setup { request_type: 0xA1, request: 3, value: 0, index: 0 };
    let (answer, _, _) = rom.request(&mut memory, setup, 6, &[], Duration::ZERO);
    assert_eq!(answer, RomAnswer::Data(vec![10, 0, 0, 0, 10, 0]));
}

#[test]
fn the_second_get_status_waits_until_the_operation_is_done() {
    let mut chip = Chip::new();
    assert_eq!(chip.out(1, 0, &[0x41, 0, 0x40, 0, 8]), RomAnswer::Ack);
    assert_eq!(chip.status(), [0, 100, 4]);
    let (answer, waited) = chip.input(3, 0, 6);
    assert_eq!(answer, RomAnswer::Data(vec![0, 0, 0, 0, 5, 0]));
    assert_eq!(waited.as_millis(), 364);
    assert_eq!(chip.out(1, 2, &[1; 2048]), RomAnswer::Ack);
    assert_eq!(chip.status(), [0, 104, 4]);
}

#[test]
fn a_write_to_the_voltage_address_selects_word_mode_which_requires_whole_words() {
    let mut chip = Chip::new();
    chip.point_to(0xFFFF_0000);
    assert_eq!(chip.run(2, &[3, 0xFF, 0xFF, 0]).0, [ERR_WRITE, 0, 10]);
    chip.out(4, 0, &[]);
    chip.point_to(0xFFFF_0000);
    assert_eq!(chip.run(2, &[3, 0xFF, 0xFF, 0xFF]).0, [0, 0, 5]);
    chip.out(6, 0, &[]);
    assert_eq!(chip.input(2, 2, 4).0, RomAnswer::Data(vec![3, 0xFF, 0xFF, 0xFF]));
    chip.out(6, 0, &[]);
    assert_eq!(chip.erase(0x0800_4000).1.as_micros(), 227_500);
    chip.point_to(0x0800_4000);
    assert_eq!(chip.run(2, &[7; 2047]).0, [ERR_WRITE, 0, 10]);
}

#[test]
fn an_invalid_address_gives_err_target() {
    let mut chip = Chip::new();
    assert_eq!(chip.erase(0x2000_4000).0, [ERR_TARGET, 0, 10]);
    chip.out(4, 0, &[]);
    assert_eq!(chip.run(0, &[0x21, 0, 0, 0, 0]).0, [ERR_TARGET, 0, 10]);
    chip.out(4, 0, &[]);
    chip.point_to(0x080F_FC00);
    assert_eq!(chip.run(2, &[0; 2048]).0, [ERR_TARGET, 0, 10]);
}

#[test]
fn requests_in_the_wrong_state_and_malformed_downloads_are_stalled() {
    let mut chip = Chip::new();
    chip.point_to(0x0800_4000);
    assert_eq!(chip.input(2, 2, 64).0, RomAnswer::Stall);
    assert_eq!(chip.status(), [ERR_STALLED, 0, 10]);
    assert_eq!(chip.out(6, 0, &[]), RomAnswer::Stall);
    chip.out(4, 0, &[]);
    assert!(matches!(chip.input(2, 2, 64).0, RomAnswer::Data(_)));
    assert_eq!(chip.out(1, 2, &[0; 8]), RomAnswer::Stall);
    chip.out(4, 0, &[]);
    assert_eq!(chip.out(1, 1, &[0; 8]), RomAnswer::Stall);
    chip.out(4, 0, &[]);
    assert_eq!(chip.out(1, 2, &[0; 2049]), RomAnswer::Stall);
}

#[test]
fn a_write_protected_sector_stays_unchanged_without_an_error() {
    let mut chip = Chip::new();
    chip.memory.flash.place(0x0800_4000, &[0x12; 4]);
    chip.memory.options[8] = 0b1111_1101;
    assert_eq!(chip.erase(0x0800_4000), ([0, 0, 5], Duration::ZERO));
    chip.point_to(0x0800_4000);
    assert_eq!(chip.run(2, &[0; 64]).0, [0, 0, 5]);
    assert_eq!(chip.memory.flash.read(0x0800_4000, 4), Some(&[0x12; 4][..]));
}

#[test]
fn a_read_protected_chip_gives_err_vendor() {
    let mut chip = Chip::new();
    chip.memory.options[1] = 0x55;
    // The default ROM refuses Set Address, as Betaflight's configurator expects of every F405 board.
    chip.out(1, 0, &[0x21, 0x00, 0x40, 0x00, 0x08]);
    chip.status();
    assert_eq!(chip.status(), [ERR_VENDOR, 0, 10]);
    chip.out(4, 0, &[]);
    assert_eq!(chip.erase(0x0800_4000).0, [ERR_VENDOR, 0, 10]);
    // With `late_refusal`, the ROM refuses when bytes are read, not when the pointer is set.
    chip.out(4, 0, &[]);
    chip.rom.late_refusal = true;
    chip.point_to(0x0800_4000);
    chip.out(6, 0, &[]);
    assert_eq!(chip.input(2, 2, 64).0, RomAnswer::Stall);
    assert_eq!(chip.status(), [ERR_VENDOR, 0, 10]);
}

#[test]
fn a_power_cut_stops_an_operation_halfway() {
    let mut chip = Chip::new();
    chip.memory.flash.place(0x0800_4000, &[0x12; 0x4000]);
    chip.out(1, 0, &[0x41, 0, 0x40, 0, 8]);
    chip.status();
    chip.rom.cut(&mut chip.memory, chip.now + Duration::from_millis(182));
    let sector = chip.memory.flash.read(0x0800_4000, 0x4000).unwrap();
    assert_eq!(sector.iter().position(|&byte| byte == 0x12), Some(0x2000));
    assert!(sector[..0x2000].iter().all(|&byte| byte == 0xFF));
}
