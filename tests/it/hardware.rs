//! The claims about the chip and the board that cfdfu depends on, each with its source, the behaviour of the simulator,
//! and the evidence from recordings of real chips. `UPDATE=1 cargo test --test it hardware` writes the table to
//! `docs/hardware.md`.
//!
//! Every value comes from a recording. For the simulator, [`rig`] sends single requests to a simulated drone and
//! records them. For real chips, this module reads the files in `tests/recordings`. [`evidence`] extracts the values
//! from both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cfdfu::recording::{self, Line, Recorded};
use cfdfu::sim::descriptors::OLD_ROM;
use cfdfu::usb::{CRAZYFLIE, ROM_DFU};

mod evidence;
mod rig;

use evidence::Shown;
use rig::{Chip, Rig};

/// A claim about the chip or the board.
struct Claim {
    id: &'static str,
    text: &'static str,
    source: &'static str,
    verdict: Verdict,
    /// The value to expect according to the source.
    expected: Expected,
    /// Sends a simulated drone the requests that show the behaviour.
    drive: fn() -> Vec<Line>,
    /// Extracts the value from a recording.
    show: fn(&[Line]) -> Option<Shown>,
}

/// The published evidence for or against a claim.
enum Verdict {
    /// A log or a listing of an STM32F405 or F407 shows the behaviour, or a widely used program relies on this
    /// behaviour on such a chip.
    Confirmed(&'static str),
    /// Only a document describes the behaviour, or only a related chip shows it, or nothing is known.
    Open(&'static str),
    /// Another board, chip or host behaves differently.
    Contradicted(&'static str, Variant),
}

/// A variant of the simulator with the contradicting behaviour.
struct Variant {
    name: &'static str,
    drive: fn() -> Vec<Line>,
    shows: &'static str,
}

enum Expected {
    Text(&'static str),
    OneOf(&'static [&'static str]),
    /// Every duration is in this range of milliseconds.
    Millis(u64, u64),
    /// The sources do not state a value.
    Unknown,
}

impl Expected {
    fn fits(&self, shown: &Shown) -> bool {
        match (self, shown) {
            (Text(expected), Shown::Text(text)) => text == expected,
            (OneOf(expected), Shown::Text(text)) => expected.contains(&&**text),
            (Millis(from, to), Shown::Times(times)) => {
                times.iter().all(|time| (u128::from(*from)..=u128::from(*to)).contains(&time.as_millis()))
            }
            (Unknown, _) => true,
            _ => false,
        }
    }
}

use Expected::{Millis, OneOf, Text, Unknown};
use Verdict::{Confirmed, Contradicted, Open};

const CLAIMS: &[Claim] = &[
    // ---- descriptors
    Claim {
        id: "C1",
        text: "bcdDevice of the boot ROM is 22.00.",
        source: "AN3156 §1",
        verdict: Contradicted(
            "22.00 in two listings of an F405 and an F407; 21.00 in dfu-util's listing of an early F407",
            Variant { name: "an early ROM", drive: read_old_descriptors, shows: "21.00" },
        ),
        expected: Text("22.00"),
        drive: read_rom_descriptors,
        show: evidence::release,
    },
    Claim {
        id: "C2",
        text: "wTransferSize is 2048 bytes.",
        source: "AN3156 §4: at most 2048 bytes",
        verdict: Confirmed("lsusb of an F407 (td-p/512170), and Bitcraze's dfu-util log"),
        expected: Text("2048"),
        drive: read_rom_descriptors,
        show: evidence::transfer_size,
    },
    Claim {
        id: "C3",
        text: "bcdDFUVersion is 011a, ST's number for DfuSe.",
        source: "DfuSe 1.1a",
        verdict: Confirmed("lsusb of an F407 (td-p/512170), and Bitcraze's dfu-util log"),
        expected: Text("011a"),
        drive: read_rom_descriptors,
        show: evidence::dfu_version,
    },
    Claim {
        id: "C4",
        text: "bmAttributes is 0x0b: download, upload, and detach by the device.",
        source: "DFU 1.1 §4.2.4",
        verdict: Confirmed("lsusb of an F407 (td-p/512170)"),
        expected: Text("0x0b"),
        drive: read_rom_descriptors,
        show: evidence::attributes,
    },
    Claim {
        id: "C5",
        text: "The names of the four alternate settings describe the memories; only the flash can be erased.",
        source: "AN2606 table 74",
        verdict: Contradicted(
            "the four names in dfu-util's listing of an F405 (ixox, forum t=1144); an early F407 has the letter `g` \
             for every memory",
            Variant {
                name: "an early ROM",
                drive: read_old_descriptors,
                shows: "`@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg`, \
                        `@Option Bytes  /0x1FFFC000/01*016 g`, `@OTP Memory /0x1FFF7800/01*512 g,01*016 g`, \
                        `@Device Feature/0xFFFF0000/01*004 g`",
            },
        ),
        expected: Text(
            "`@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg`, `@Option Bytes  /0x1FFFC000/01*016 e`, \
             `@OTP Memory /0x1FFF7800/01*512 e,01*016 e`, `@Device Feature/0xFFFF0000/01*004 e`",
        ),
        drive: read_rom_descriptors,
        show: evidence::alternate_names,
    },
    Claim {
        id: "C6",
        text: "The product string has two spaces.",
        source: "no document",
        verdict: Confirmed("lsusb of an F407 (dfu-util's `stm32f4discovery.lsusb`)"),
        expected: Text("`STM32  BOOTLOADER`, 2 spaces"),
        drive: read_rom_descriptors,
        show: evidence::product,
    },
    Claim {
        id: "C7",
        text: "The serial number in DFU mode is computed from the 96-bit unique ID: the sum of words 0 and 2, followed \
                by the upper half of word 1. The firmware reports the whole ID in 24 hexadecimal digits.",
        source: "RM0090 §39.1; `usbd_desc.c` of crazyflie-firmware",
        verdict: Confirmed("206437A1304E in both modes of a pyboard (F405) whose firmware uses this formula"),
        expected: Text("338133873034 is the number computed from 51004F000551343036333233"),
        drive: read_both_serials,
        show: evidence::serials,
    },
    Claim {
        id: "C8",
        text: "A read-protected chip reports the serial number FFFFFFFEFFFF, because its ROM cannot read the ID.",
        source: "the formula of C7, with all bits set",
        verdict: Open("one CubeProgrammer log shows the number"),
        expected: Text("FFFFFFFEFFFF"),
        drive: || read_protected_flash(false),
        show: evidence::protected_serial,
    },
    // ---- requests
    Claim {
        id: "C9",
        text: "The boot ROM starts in dfuERROR with errFIRMWARE.",
        source: "no document",
        verdict: Contradicted(
            "five logs of F405 and F407 chips show this state (the first is Bitcraze's); the log of an F469 (modm) \
             starts with dfuIDLE",
            Variant {
                name: "starts idle",
                drive: || clear_first_status(Rig::changed("dfu", |drone| drone.traits.starts_idle = true)),
                shows: "dfuIDLE",
            },
        ),
        expected: Text("dfuERROR with errFIRMWARE"),
        drive: || clear_first_status(Rig::new("dfu")),
        show: evidence::first_status,
    },
    Claim {
        id: "C10",
        text: "CLRSTATUS in dfuERROR leads to dfuIDLE.",
        source: "DFU 1.1 §6.1.3",
        verdict: Confirmed("Bitcraze's dfu-util log"),
        expected: Text("dfuIDLE"),
        drive: || clear_first_status(Rig::new("dfu")),
        show: evidence::clear_in_error,
    },
    Claim {
        id: "C11",
        text: "CLRSTATUS in any other state is refused.",
        source: "DFU 1.1 annex A",
        verdict: Confirmed(
            "CubeProgrammer 2.2 gets stuck on an F405 in an endless loop of refused CLRSTATUS requests (td-p/315451)",
        ),
        expected: Text("stall"),
        drive: || {
            rom("dfu", |chip| {
                chip.get_status();
                chip.clear_status();
            })
        },
        show: evidence::clear_elsewhere,
    },
    Claim {
        id: "C12",
        text: "ABORT leads from dfuDNLOAD-IDLE to dfuIDLE.",
        source: "DFU 1.1 §6.1.4",
        verdict: Confirmed("dfu-util and Betaflight's configurator send ABORT to F405 boards"),
        expected: Text("dfuIDLE"),
        drive: || {
            rom("dfu", |chip| {
                chip.set_address(0x0800_4000);
                chip.abort();
                chip.get_status();
            })
        },
        show: evidence::abort,
    },
    Claim {
        id: "C13",
        text: "GETSTATE does not start a pending command, and ABORT discards that command.",
        source: "DFU 1.1 §6.1.5",
        verdict: Open("no log"),
        expected: Text("dfuDNLOAD-SYNC, not erased after ABORT"),
        drive: || {
            rom("dfu", |chip| {
                chip.download(0, &[0x41, 0x00, 0x40, 0x00, 0x08]);
                chip.get_state();
                chip.abort();
                chip.read(0x0800_4000, 16);
            })
        },
        show: evidence::get_state,
    },
    Claim {
        id: "C14",
        text: "SET_INTERFACE is accepted for alternate settings 0 to 3.",
        source: "USB 2.0 §9.4.10",
        verdict: Contradicted(
            "dfu-util sends the request to every F405; macOS refuses the request for some devices (libusb #838, \
             #1011)",
            Variant {
                name: "refuses alternate settings",
                drive: || {
                    select_alternates(Rig::changed("dfu", |drone| drone.traits.refuses_alternates = true))
                },
                shows: "refused for 1, 2, 3",
            },
        ),
        expected: Text("accepted"),
        drive: || select_alternates(Rig::new("dfu")),
        show: evidence::selects,
    },
    Claim {
        id: "C15",
        text: "The first GETSTATUS after an erase command reports dfuDNBUSY and a bwPollTimeout of 100 ms.",
        source: "AN3156 §5.3",
        verdict: Open("the log of an F469 (modm)"),
        expected: Text("dfuDNBUSY, 100 ms"),
        drive: || rom("dfu", |chip| chip.erase(0x0800_4000)),
        show: evidence::erase_poll,
    },
    Claim {
        id: "C16",
        text: "After a block of data, the bwPollTimeout is 104 ms.",
        source: "AN3156 §5.1",
        verdict: Open("the log of an F469 (modm)"),
        expected: Text("dfuDNBUSY, 104 ms"),
        drive: || rom("erased", |chip| chip.write(2, &[0xFF; 64])),
        show: evidence::write_poll,
    },
    Claim {
        id: "C17",
        text: "After Set Address, the bwPollTimeout is 104 ms.",
        source: "AN3156 §5.2",
        verdict: Open("the log of an F469 (modm)"),
        expected: Text("dfuDNBUSY, 104 ms"),
        drive: || rom("dfu", |chip| chip.set_address(0x0800_4000)),
        show: evidence::address_poll,
    },
    Claim {
        id: "C18",
        text: "A GETSTATUS sent at once, without the requested pause, is answered when the work is done.",
        source: "RM0090 §3: the ROM cannot be read while the flash is erased or programmed",
        verdict: Contradicted(
            "MicroPython's `pydfu.py` has relied on this behaviour on the F405 since 2016; an STM32L43x refuses the \
             request (dfu-util ticket 40)",
            Variant {
                name: "stalls while busy",
                drive: || {
                    let rig = Rig::changed("dfu", |drone| drone.traits.stalls_while_busy = true);
                    rig.rom().erase(0x0800_4000);
                    rig.lines()
                },
                shows: "stall",
            },
        ),
        expected: Text("dfuDNLOAD-IDLE"),
        drive: || rom("dfu", |chip| chip.erase(0x0800_4000)),
        show: evidence::eager_status,
    },
    Claim {
        id: "C19",
        text: "UPLOAD in dfuDNLOAD-IDLE is refused.",
        source: "DFU 1.1 annex A",
        verdict: Confirmed("an F407 (td-p/512170)"),
        expected: Text("stall, then dfuERROR with errSTALLEDPKT"),
        drive: || {
            rom("dfu", |chip| {
                chip.set_address(0x0800_4000);
                chip.upload(2, 64);
                chip.get_status();
            })
        },
        show: evidence::upload_after_download,
    },
    Claim {
        id: "C20",
        text: "After an UPLOAD of less than 2048 bytes, the state is dfuUPLOAD-IDLE.",
        source: "AN3156 §4",
        verdict: Confirmed(
            "Betaflight's configurator checks for this state after 16 bytes on every F405 board",
        ),
        expected: Text("dfuUPLOAD-IDLE"),
        drive: || {
            rom("dfu", |chip| {
                chip.upload(2, 16);
                chip.get_status();
            })
        },
        show: evidence::short_upload,
    },
    Claim {
        id: "C21",
        text: "For address 0, Set Address first reports dfuDNBUSY and then fails with errTARGET.",
        source: "AN3156 §5.2",
        verdict: Confirmed("an F407 (td-p/341906)"),
        expected: Text("dfuDNBUSY, then dfuERROR with errTARGET"),
        drive: || rom("dfu", |chip| chip.set_address(0)),
        show: evidence::address_zero,
    },
    Claim {
        id: "C22",
        text: "A block of 2048 bytes is at address pointer + (block - 2) × 2048.",
        source: "AN3156 §5.1",
        verdict: Confirmed("Betaflight's configurator relies on it on F405 boards"),
        expected: Text("at pointer + (block - 2) × 2048"),
        drive: || write_block_3(&[0x5A; 2048]),
        show: evidence::full_blocks,
    },
    Claim {
        id: "C23",
        text: "The address of a short last block is computed with 2048, not with the length of the block.",
        source: "AN3156 §5.1, which is ambiguous",
        verdict: Confirmed("Betaflight's configurator relies on it on F405 boards"),
        expected: Text("at pointer + (block - 2) × 2048"),
        drive: || write_block_3(&[0x5A; 12]),
        show: evidence::short_blocks,
    },
    Claim {
        id: "C24",
        text: "A block of 12 bytes can be written.",
        source: "AN3156 §5.1: 2 to 2048 bytes",
        verdict: Open("the log of an F469 (modm)"),
        expected: Text("dfuDNBUSY, then dfuDNLOAD-IDLE"),
        drive: || write_block_3(&[0x5A; 12]),
        show: evidence::write_of_12,
    },
    Claim {
        id: "C25",
        text: "A block of 4 bytes can be written.",
        source: "AN3156 §5.1: 2 to 2048 bytes",
        verdict: Open("no log contains a data block this short"),
        expected: Text("dfuDNBUSY, then dfuDNLOAD-IDLE"),
        drive: || write_block_3(&[0x5A; 4]),
        show: evidence::write_of_4,
    },
    Claim {
        id: "C26",
        text: "Programming only clears bits: bytes written twice without an erase contain the AND of both values.",
        source: "RM0090 §3",
        verdict: Open(
            "a corrupt image after CubeProgrammer wrote to flash that was not blank (Arduino_Tools #98)",
        ),
        expected: Text("the AND of both"),
        drive: || {
            rom("erased", |chip| {
                chip.set_address(0x0800_4000);
                chip.write(2, &[0x0F; 16]);
                chip.write(2, &[0x3C; 16]);
                chip.read(0x0800_4000, 16);
            })
        },
        show: evidence::second_write,
    },
    // ---- memories
    Claim {
        id: "C27",
        text: "Writing 03FFFFFF to 0xFFFF0000 selects a programming width of 32 bits, and the value reads back.",
        source: "AN2606, \"Bootloader memory management\", table 4",
        verdict: Open("no other host is known to use this setting"),
        expected: Text("accepted, reads back 03ffffff"),
        drive: || {
            rom("dfu", |chip| {
                chip.select_32_bits();
                chip.read(0xFFFF_0000, 4);
            })
        },
        show: evidence::width,
    },
    Claim {
        id: "C28",
        text: "The OTP memory, 512 bytes, is readable through alternate setting 2.",
        source: "AN2606; the name of the alternate setting",
        verdict: Open("no log of a read; CubeProgrammer lists the memory on an F4"),
        expected: Text("512 bytes"),
        drive: || {
            rom("dfu", |chip| {
                chip.select(2);
                chip.read(0x1FFF_7800, 512);
            })
        },
        show: evidence::otp_alternate_2,
    },
    Claim {
        id: "C29",
        text: "The OTP memory is also readable through alternate setting 0, because all alternate settings share one \
               address pointer.",
        source: "no document",
        verdict: Open("follows from C30"),
        expected: Text("512 bytes"),
        drive: || rom("dfu", |chip| chip.read(0x1FFF_7800, 512)),
        show: evidence::otp_alternate_0,
    },
    Claim {
        id: "C30",
        text: "The 16 option bytes are readable through alternate setting 0.",
        source: "no document",
        verdict: Confirmed("Betaflight's configurator reads them this way on F405 boards"),
        expected: Text("16 bytes"),
        drive: || rom("dfu", |chip| chip.read(0x1FFF_C000, 16)),
        show: evidence::options_alternate_0,
    },
    Claim {
        id: "C31",
        text: "Each value in the option bytes is followed by its complement, and everything is stored twice.",
        source: "RM0090 §3.6.1",
        verdict: Open("16 bytes of an F413 in comma's panda"),
        expected: Text("with complements, twice"),
        drive: || rom("dfu", |chip| chip.read(0x1FFF_C000, 16)),
        show: evidence::option_bytes,
    },
    Claim {
        id: "C32",
        text: "With read protection, Set Address fails with errVENDOR.",
        source: "AN3156 §4.1",
        verdict: Contradicted(
            "Betaflight's configurator expects it on F405 boards; AN3156 §5.2 allows Set Address and refuses the read",
            Variant {
                name: "late refusal",
                drive: || read_protected_flash(true),
                shows: "UPLOAD: dfuERROR with errVENDOR",
            },
        ),
        expected: Text("Set Address: dfuERROR with errVENDOR"),
        drive: || read_protected_flash(false),
        show: evidence::protection,
    },
    Claim {
        id: "C33",
        text: "A read at 0x1FFF7A10, after the OTP memory, returns no bytes.",
        source: "no document",
        verdict: Confirmed("an F40x (td-p/536714)"),
        expected: Text("0 bytes"),
        drive: || rom("dfu", |chip| chip.read(0x1FFF_7A10, 12)),
        show: evidence::after_otp,
    },
    Claim {
        id: "C34",
        text: "The effect of a read past the end of the flash is not known. Only `cfdfu qualify` sends such a read.",
        source: "no document",
        verdict: Open("such a read crashed another ST ROM (dfu-util mailing list, October 2020)"),
        expected: Unknown,
        drive: || {
            rom("dfu", |chip| {
                chip.set_address(0x080F_FC00);
                chip.abort();
                chip.upload(2, 2048);
                chip.get_status();
            })
        },
        show: evidence::past_the_end,
    },
    Claim {
        id: "C35",
        text: "The byte at 0x1FFF77DE is the version of the ROM: 0x31, 0x90 or 0x91.",
        source: "AN2606 tables 3 and 226",
        verdict: Open("no log"),
        expected: OneOf(&["0x30", "0x31", "0x90", "0x91"]),
        drive: || rom("dfu", |chip| chip.read(0x1FFF_77DC, 4)),
        show: evidence::rom_version,
    },
    Claim {
        id: "C36",
        text: "Erasing and writing a write-protected sector reports no error and changes nothing.",
        source: "AN3156 §5.1 note 2 and §5.3",
        verdict: Open("an F401 (tinyuf2 #243)"),
        expected: Text("no error, unchanged"),
        drive: || {
            rom("write-protected", |chip| {
                chip.read(0x1FFF_C000, 16);
                chip.read(0x0800_8000, 16);
                chip.erase(0x0800_8000);
                chip.set_address(0x0800_8000);
                chip.write(2, &[0; 16]);
                chip.read(0x0800_8000, 16);
            })
        },
        show: evidence::write_protection,
    },
    // ---- times
    Claim {
        id: "C37",
        text: "Erasing 16 KiB at 8 bits typically takes 0.4 s, and 0.8 s at most.",
        source: "DS8626 table 40",
        verdict: Confirmed("0.364 s, computed from three CubeProgrammer logs of F405 boards"),
        expected: Millis(200, 800),
        drive: || erase_sector(0x0800_4000, false),
        show: evidence::erases::<16, false>,
    },
    Claim {
        id: "C38",
        text: "Erasing 64 KiB at 8 bits typically takes 1.2 s, and 2.4 s at most.",
        source: "DS8626 table 40",
        verdict: Confirmed("1.13 s, computed from the logs of C37"),
        expected: Millis(600, 2400),
        drive: || erase_sector(0x0801_0000, false),
        show: evidence::erases::<64, false>,
    },
    Claim {
        id: "C39",
        text: "Erasing 128 KiB at 8 bits typically takes 2 s, and 4 s at most.",
        source: "DS8626 table 40",
        verdict: Open("a CubeProgrammer log of an F412, with times in whole seconds, agrees"),
        expected: Millis(1000, 4000),
        drive: || erase_sector(0x0802_0000, false),
        show: evidence::erases::<128, false>,
    },
    Claim {
        id: "C40",
        text: "Erasing 16 KiB at 32 bits typically takes 0.25 s, and 0.5 s at most.",
        source: "DS8626 table 40",
        verdict: Open("no log"),
        expected: Millis(100, 500),
        drive: || erase_sector(0x0800_4000, true),
        show: evidence::erases::<16, true>,
    },
    Claim {
        id: "C41",
        text: "Erasing 64 KiB at 32 bits typically takes 0.55 s, and 1.1 s at most.",
        source: "DS8626 table 40",
        verdict: Open("no log"),
        expected: Millis(200, 1100),
        drive: || erase_sector(0x0801_0000, true),
        show: evidence::erases::<64, true>,
    },
    Claim {
        id: "C42",
        text: "Erasing 128 KiB at 32 bits typically takes 1 s, and 2 s at most.",
        source: "DS8626 table 40",
        verdict: Open("no log"),
        expected: Millis(400, 2000),
        drive: || erase_sector(0x0802_0000, true),
        show: evidence::erases::<128, true>,
    },
    Claim {
        id: "C43",
        text: "A block of 2048 bytes at 8 bits takes 33 ms to program and about 5 ms on the wire.",
        source: "DS8626 table 40: 16 µs per byte",
        verdict: Confirmed("37.7 ms, computed from three CubeProgrammer logs of F405 boards"),
        expected: Millis(34, 45),
        drive: || write_full_block(Rig::new("erased"), false),
        show: evidence::blocks::<false>,
    },
    Claim {
        id: "C44",
        text: "A block of 2048 bytes at 32 bits takes 8 ms to program and about 5 ms on the wire.",
        source: "DS8626 table 40: 16 µs per word",
        verdict: Open("no log; an F745 writes 1832 bytes in 12 ms (fwupd #1944)"),
        expected: Millis(9, 22),
        drive: || write_full_block(Rig::new("erased"), true),
        show: evidence::blocks::<true>,
    },
    Claim {
        id: "C45",
        text: "Reading a block of 2048 bytes takes about 4 ms.",
        source: "USB 2.0 §5.5: at least 1.8 ms",
        verdict: Confirmed("3.72 ms, computed from a CubeProgrammer log of an F405"),
        expected: Millis(1, 6),
        drive: || rom("dfu", |chip| chip.upload(2, 2048)),
        show: evidence::reads,
    },
    // ---- entering and leaving DFU mode
    Claim {
        id: "C46",
        text: "The firmware resets before it answers the request to enter DFU mode, so the request fails.",
        source: "`usb.c` of crazyflie-firmware",
        verdict: Confirmed("Bitcraze's `usb-bootloader.py` ignores the error"),
        expected: OneOf(&["disconnected", "io", "timeout", "stall", "not found"]),
        drive: || request_entry(Rig::new("healthy")),
        show: evidence::entry_answer,
    },
    Claim {
        id: "C47",
        text: "The boot ROM appears on USB less than 10 s after the request.",
        source: "AN2606 tables 227 and 229: 85 ms and 270 ms",
        verdict: Contradicted(
            "Bitcraze's script waits 1 s; a virtual machine may need 20 s to take over the device",
            Variant { name: "`--demo=late`", drive: || request_entry(Rig::new("late")), shows: "15.80 s" },
        ),
        expected: Millis(300, 10_000),
        drive: || request_entry(Rig::new("healthy")),
        show: evidence::entry_time,
    },
    Claim {
        id: "C48",
        text: "One request to enter DFU mode is enough.",
        source: "`usb-bootloader.py` of crazyflie-firmware",
        verdict: Contradicted(
            "5 of 12 requests succeed on a different F405 board with a 12 MHz clock (CircuitPython PR 11270)",
            Variant { name: "`--demo=missed`", drive: request_until_entered, shows: "5 requests" },
        ),
        expected: Text("1 request"),
        drive: || request_entry(Rig::new("healthy")),
        show: evidence::entry_requests,
    },
    Claim {
        id: "C49",
        text: "The drone is on the same port in both modes, with a new device address.",
        source: "USB 2.0 §9.1.2",
        verdict: Open("no log"),
        expected: Text("same port, new address"),
        drive: || request_entry(Rig::new("healthy")),
        show: evidence::entry_place,
    },
    Claim {
        id: "C50",
        text: "Firmware from before 2022.03 acknowledges the request and keeps running.",
        source: "crazyflie-firmware PR 1040",
        verdict: Open("no log"),
        expected: Text("acknowledged, no DFU mode"),
        drive: || request_entry(Rig::new("old")),
        show: evidence::ignored_entry,
    },
    Claim {
        id: "C51",
        text: "The last GETSTATUS of a request to leave is answered with dfuMANIFEST.",
        source: "AN3156 §5.5",
        verdict: Contradicted(
            "Bitcraze's dfu-util log shows this answer; many guides advise ignoring a failed GETSTATUS here",
            Variant {
                name: "leaves without an answer",
                drive: || {
                    let rig = Rig::changed("dfu", |drone| drone.traits.answers_leave = false);
                    rig.rom().leave(0x0800_4000);
                    rig.lines()
                },
                shows: "disconnected",
            },
        ),
        expected: Text("dfuMANIFEST"),
        drive: || rom("dfu", |chip| chip.leave(0x0800_4000)),
        show: evidence::leave_answer,
    },
    Claim {
        id: "C52",
        text: "Leaving for 0x08004000 starts the firmware.",
        source: "Bitcraze's `dfu.md`; AN2606 table 76 for ROM 9.1",
        verdict: Contradicted(
            "one of two F407s with the same part number stays dark (rusefi #4847); ROM 3.x and 9.0 leave the CCM \
             switched off (AN2606 tables 74 and 76)",
            Variant {
                name: "`--demo=dark`, ROM 3.1",
                drive: || enter_and_leave(Rig::new("dark"), 0x0800_4000),
                shows: "nothing on USB",
            },
        ),
        expected: Text("0483:5740"),
        drive: || enter_and_leave(Rig::new("healthy"), 0x0800_4000),
        show: start_of_known_rom,
    },
    Claim {
        id: "C53",
        text: "The firmware appears on USB less than 10 s after the request to leave.",
        source: "no document",
        verdict: Open("no log"),
        expected: Millis(100, 10_000),
        drive: || enter_and_leave(Rig::new("healthy"), 0x0800_4000),
        show: evidence::start_time,
    },
    Claim {
        id: "C54",
        text: "Leaving for a blank address resets the chip, and the firmware then starts, regardless of the ROM \
               version.",
        source: "AN2662, p. 80",
        verdict: Open("an F072 (td-p/446385)"),
        expected: Text("0483:5740"),
        drive: || enter_and_leave(Rig::new("dark"), 0x080F_0000),
        show: evidence::reset::<false>,
    },
    Claim {
        id: "C55",
        text: "Once DFU mode has been entered by hand, every reset starts the boot ROM until the power is cut.",
        source: "`bootpin.c` of crazyflie2-stm-bootloader",
        verdict: Open("Bitcraze's `dfu.md`: \"the only way to reset it is to disconnect the power\""),
        expected: Text("0483:df11"),
        drive: || {
            let rig = Rig::new("dfu");
            rig.rom().leave(0x080F_0000);
            rig.watch(Duration::from_secs(12));
            rig.lines()
        },
        show: evidence::reset::<true>,
    },
    Claim {
        id: "C56",
        text: "The bootloader does not start firmware whose first word is erased.",
        source: "`main.c` of crazyflie2-stm-bootloader",
        verdict: Open("no log"),
        expected: Text("nothing on USB"),
        drive: || {
            let rig = Rig::new("healthy");
            rig.request_dfu();
            let mut chip = rig.rom();
            chip.erase(0x0800_4000);
            chip.leave(0x080F_0000);
            rig.watch(Duration::from_secs(12));
            rig.lines()
        },
        show: evidence::reset_without_first_word,
    },
];

// ---- the requests to the simulated drone

/// Sends requests to a drone in DFU mode whose state is dfuIDLE, and returns the recording.
fn rom(scenario: &str, requests: impl FnOnce(&mut Chip)) -> Vec<Line> {
    let rig = Rig::new(scenario);
    requests(&mut rig.rom());
    rig.lines()
}

fn read_descriptors(rig: &Rig) -> Vec<Line> {
    rig.open(ROM_DFU).descriptors(&[1, 2, 3, 4, 5, 6, 7]);
    rig.lines()
}

fn read_rom_descriptors() -> Vec<Line> {
    read_descriptors(&Rig::new("dfu"))
}

fn read_old_descriptors() -> Vec<Line> {
    read_descriptors(&Rig::changed("dfu", |drone| drone.traits.face = Some(&OLD_ROM)))
}

fn read_both_serials() -> Vec<Line> {
    let rig = Rig::new("healthy");
    rig.open(CRAZYFLIE).descriptors(&[3]);
    rig.request_dfu();
    rig.open(ROM_DFU).descriptors(&[3]);
    rig.lines()
}

/// Tries to read a read-protected chip. With `late`, the chip refuses only the UPLOAD, so this function sends one.
fn read_protected_flash(late: bool) -> Vec<Line> {
    let rig = Rig::changed("read-protected", |drone| drone.traits.late_refusal = late);
    rig.open(ROM_DFU).descriptors(&[3]);
    let mut chip = rig.rom();
    chip.set_address(0x0800_4000);
    if late {
        chip.abort();
        chip.upload(2, 64);
        chip.get_status();
    }
    rig.lines()
}

#[allow(clippy::needless_pass_by_value, reason = "the callers create the rig in place")]
fn clear_first_status(rig: Rig) -> Vec<Line> {
    let mut chip = rig.open(ROM_DFU);
    chip.get_status();
    chip.clear_status();
    chip.get_status();
    rig.lines()
}

#[allow(clippy::needless_pass_by_value, reason = "the callers create the rig in place")]
fn select_alternates(rig: Rig) -> Vec<Line> {
    let mut chip = rig.rom();
    (0..4).for_each(|alternate| chip.select(alternate));
    rig.lines()
}

/// Writes `data` as block 3 to blank flash, and reads it back as block 2.
fn write_block_3(data: &[u8]) -> Vec<Line> {
    rom("erased", |chip| {
        chip.set_address(0x0801_0000);
        chip.write(3, data);
        chip.read(0x0801_0800, data.len());
    })
}

fn erase_sector(address: u32, wide: bool) -> Vec<Line> {
    rom("dfu", |chip| {
        if wide {
            chip.select_32_bits();
        }
        chip.erase(address);
    })
}

/// Writes a full block to blank flash.
#[allow(clippy::needless_pass_by_value, reason = "the callers create the rig in place")]
fn write_full_block(rig: Rig, wide: bool) -> Vec<Line> {
    let mut chip = rig.rom();
    if wide {
        chip.select_32_bits();
    }
    chip.set_address(0x0801_0000);
    chip.write(2, &[0x5A; 2048]);
    rig.lines()
}

/// Sends one request to enter DFU mode, and waits up to 20 s for the boot ROM.
#[allow(clippy::needless_pass_by_value, reason = "the callers create the rig in place")]
fn request_entry(rig: Rig) -> Vec<Line> {
    rig.request_dfu();
    rig.wait_for(ROM_DFU, Duration::from_secs(20));
    rig.lines()
}

/// Sends requests until the drone is in DFU mode, but at most eight.
fn request_until_entered() -> Vec<Line> {
    let rig = Rig::new("missed");
    for _ in 0..8 {
        rig.request_dfu();
        if rig.wait_for(ROM_DFU, Duration::from_secs(2)).is_some() {
            break;
        }
    }
    rig.lines()
}

/// Enters DFU mode by a request, reads the version of the ROM, and leaves for the given address.
#[allow(clippy::needless_pass_by_value, reason = "the callers create the rig in place")]
fn enter_and_leave(rig: Rig, address: u32) -> Vec<Line> {
    rig.request_dfu();
    let mut chip = rig.rom();
    chip.read(0x1FFF_77DC, 4);
    chip.leave(address);
    rig.watch(Duration::from_secs(12));
    rig.lines()
}

fn start_of_known_rom(lines: &[Line]) -> Option<Shown> {
    evidence::start::<0x91>(lines).or_else(|| evidence::start::<0x31>(lines))
}

// ---- the document

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Returns the path below `tests/recordings` and the lines of each recording of a real chip. Recordings of the
/// simulator are omitted, because they are not evidence.
fn recordings() -> Vec<(String, Vec<Line>)> {
    let mut files = Vec::new();
    for folder in ["", "published/"] {
        let entries = fs::read_dir(root().join("tests/recordings").join(folder)).into_iter().flatten();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let name = format!("{folder}{}", path.file_name().unwrap().to_str().unwrap());
                let lines = recording::parse(&fs::read_to_string(&path).unwrap());
                files.push((name, lines.unwrap_or_else(|error| panic!("{}: {error}", path.display()))));
            }
        }
    }
    files.retain(|(_, lines)| is_real(lines));
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    files
}

fn is_real(lines: &[Line]) -> bool {
    matches!(lines.first().map(|line| &line.what), Some(Recorded::Start(header)) if header.scenario.is_none())
}

fn shown_by(claim: &Claim, drive: fn() -> Vec<Line>) -> Shown {
    (claim.show)(&drive()).unwrap_or_else(|| panic!("{}: the simulator does not show a value", claim.id))
}

/// Formats the values that the recordings show, each with the first files that show the value.
fn recorded(claim: &Claim, recordings: &[(String, Vec<Line>)]) -> String {
    const FILES_MAX: usize = 3;
    let mut values: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, lines) in recordings {
        let Some(shown) = (claim.show)(lines) else { continue };
        let differs = if claim.expected.fits(&shown) { "" } else { " (**differs**)" };
        let value = format!("{shown}{differs}");
        match values.iter_mut().find(|(known, _)| *known == value) {
            Some((_, files)) => files.push(name),
            None => values.push((value, vec![name])),
        }
    }
    let row = |(value, files): &(String, Vec<&str>)| {
        let link = |name: &&str| format!("[{name}](../tests/recordings/{name})");
        let links: Vec<String> = files.iter().take(FILES_MAX).map(link).collect();
        let more = files.len().saturating_sub(FILES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}: {value}", links.join(", "))
    };
    let rows: Vec<String> = values.iter().map(row).collect();
    if rows.is_empty() { "none yet".to_owned() } else { rows.join("; ") }
}

fn table(claims: &[Claim], recordings: &[(String, Vec<Line>)]) -> String {
    let mut table =
        String::from("| | claim | source | evidence | simulated | recorded |\n|---|---|---|---|---|---|\n");
    for claim in claims {
        let simulated = shown_by(claim, claim.drive);
        let (evidence, variant) = match &claim.verdict {
            Confirmed(why) => (format!("**confirmed**: {why}"), String::new()),
            Open(why) => (format!("**open**: {why}"), String::new()),
            Contradicted(why, variant) => {
                let shown = shown_by(claim, variant.drive);
                (format!("**contradicted elsewhere**: {why}"), format!("; {}: {shown}", variant.name))
            }
        };
        let recorded = recorded(claim, recordings);
        let Claim { id, text, source, .. } = claim;
        writeln!(table, "| {id} | {text} | {source} | {evidence} | {simulated}{variant} | {recorded} |")
            .unwrap();
    }
    table
}

fn introduction() -> String {
    let count =
        |is_counted: fn(&Verdict) -> bool| CLAIMS.iter().filter(|claim| is_counted(&claim.verdict)).count();
    let confirmed = count(|verdict| matches!(verdict, Confirmed(_)));
    let open = count(|verdict| matches!(verdict, Open(_)));
    let contradicted = count(|verdict| matches!(verdict, Contradicted(..)));
    format!(
        "\
# What cfdfu assumes about the hardware

cfdfu was developed without a drone. This table lists what its code assumes about the boot ROM of the STM32F405 and
about the Crazyflie, with the source of each assumption. Of the {} claims, {confirmed} are confirmed, {open} are open,
and {contradicted} are contradicted by another board, chip or host.

- **evidence**: the evidence in published sources. *Confirmed*: a log or a listing of an STM32F405 or F407 shows the
  behaviour, or a widely used program relies on this behaviour on such a chip. *Open*: only a document describes the
  behaviour, or only a related chip shows it, or nothing is known. *Contradicted elsewhere*: another board, chip or host
  behaves differently. A Crazyflie may do the same, so the simulator has a variant with that behaviour.
- **simulated**: what the simulator does, measured by a test that sends requests to the simulator. No value in this
  column comes from a drone. The behaviour of the variant, if any, follows after a semicolon.
- **recorded**: what a recording of a real chip shows. Files in `published` were written by hand from published logs,
  some of them from related chips. The first line of each file states what its source contains and what was filled in.

You can add to the last column: run `cfdfu qualify` on your drone as described in [real-drone.md](real-drone.md), and
attach the report and the recording to an issue. A value that does not fit its claim is marked as differing. In that
case, the claim, the simulator, and perhaps cfdfu must change.

`UPDATE=1 cargo test --test it hardware` writes this file from [tests/it/hardware.rs](../tests/it/hardware.rs). AN3156,
AN2606 and AN2662 are application notes by ST. DS8626 is the data sheet of the chip, and RM0090 its reference manual.
DFU 1.1 and USB 2.0 are the standards. \"td-p/N\" is thread N of community.st.com.

",
        CLAIMS.len()
    )
}

#[test]
fn the_document_lists_every_claim_about_the_hardware() {
    let path = root().join("docs/hardware.md");
    let text = introduction() + &table(CLAIMS, &recordings());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "docs/hardware.md is out of date: run `UPDATE=1 cargo test --test it hardware`");
}

#[test]
fn the_text_above_the_table_fits_in_120_columns() {
    for line in introduction().lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn the_claims_are_numbered_without_gaps() {
    for (n, claim) in CLAIMS.iter().enumerate() {
        assert_eq!(claim.id, format!("C{}", n + 1));
        assert!(claim.text.ends_with('.'), "{}", claim.id);
    }
}

#[test]
fn the_simulator_behaves_as_each_claim_states() {
    for claim in CLAIMS {
        let shown = shown_by(claim, claim.drive);
        assert!(claim.expected.fits(&shown), "{}: {shown}", claim.id);
    }
}

/// A claim that is contradicted elsewhere may also be wrong for a Crazyflie.
#[test]
fn each_contradicted_claim_has_a_variant_of_the_simulator() {
    for claim in CLAIMS {
        if let Contradicted(_, variant) = &claim.verdict {
            let shown = shown_by(claim, variant.drive);
            assert_eq!(shown.to_string(), variant.shows, "{}: {}", claim.id, variant.name);
            assert!(!claim.expected.fits(&shown), "{}: the variant fits the claim", claim.id);
        }
    }
}
