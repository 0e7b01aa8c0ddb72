//! Replays the behaviour of real STM32F405 and related chips, as reported in logs and forum threads. These sources are
//! numbered R1 to R16, as in `tests/recordings/README.md`, and the name of a test begins with the number of its source.
//! Some of these tests replay recorded transfers, and others run whole jobs on a simulated chip that behaves like the
//! real one. The remaining tests cover variants of the chip, faults and restarts without such a source.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, Faults, Script, faulty};
use cfdfu::clock::Clock;
use cfdfu::crazyflie::Protection;
use cfdfu::crazyflie::{self, RomVersion};
use cfdfu::dfu::device::DfuDevice;
use cfdfu::dfu::machine::{Machine, Operation, Step};
use cfdfu::dfu::quirks::{Polling, Quirks, STM32F405_ROM};
use cfdfu::dfu::{DfuError, Status};
use cfdfu::flash::{Address, FIRMWARE_BASE};
use cfdfu::job::{Boot, DroneState, Event, FailureKind, Job, Leave, Level, Outcome, Selector};
use cfdfu::sim::SimBus;
use cfdfu::sim::descriptors::{OLD_ROM, ROM};
use cfdfu::sim::drone::{SimDrone, SimFault};
use cfdfu::sim::nor::{Nor, Pace, ProgramWidth};
use cfdfu::sim::rom::Switch;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::{Bus, Found, ROM_DFU, TransferError};

use crate::bent::InterceptedUsb;
use crate::support::{Run, SEED_LEN, World, change_flash_task, firmware, flash_job, run};

/// A recorded answer to GETSTATUS (status, poll time in ms, state), UPLOAD or an OUT request, or a failed transfer.
#[derive(Clone, Copy)]
enum Reply {
    Status(u8, u8, u8),
    Bytes(&'static [u8]),
    Done,
    Lost(TransferError),
}

use Reply::{Bytes, Done, Lost, Status as St};

/// Runs an operation against recorded answers. Panics unless the operation requests exactly this many answers.
fn replay(machine: &mut Machine, operation: Operation, answers: &[Reply]) -> Result<Vec<u8>, DfuError> {
    let mut answers = answers.iter().copied();
    machine.begin(operation);
    loop {
        match machine.step() {
            Step::Wait(_) => {
                machine.finish_wait();
                continue;
            }
            Step::Finished(result) => {
                assert!(answers.next().is_none(), "not all recorded answers were requested");
                return result;
            }
            Step::Send(..) | Step::Fetch(..) => {}
        }
        match answers.next().expect("more answers were requested than recorded") {
            St(status, poll, state) => machine.reply(Ok(&[status, poll, 0, 0, state, 0])),
            Bytes(bytes) => machine.reply(Ok(bytes)),
            Done => machine.reply(Ok(&[])),
            Lost(error) => machine.reply(Err(error)),
        }
    }
}

/// R1, bitcraze dfu.md: the device starts in dfuERROR with errFIRMWARE, and CLRSTATUS changes its state to dfuIDLE.
/// After the leave request, the device is in dfuMANIFEST (state 7).
fn open_machine() -> Machine {
    let mut machine = Machine::new(0, 2048, STM32F405_ROM);
    let recovered = replay(&mut machine, Operation::Recover, &[St(0x0A, 0, 10), Done, St(0, 0, 2)]);
    assert_eq!(recovered, Ok(Vec::new()));
    machine
}

#[test]
fn r1_the_documented_session_succeeds() {
    let mut machine = open_machine();
    let leave = [Done, St(0, 104, 4), St(0, 0, 5), Done, St(0, 1, 7)];
    assert_eq!(replay(&mut machine, Operation::Leave(FIRMWARE_BASE), &leave), Ok(Vec::new()));
}

/// R2, log of an F469: the first poll time is 100 ms for an erase and 104 ms for a write of 2048 or 12 bytes; the
/// second poll time is 0.
#[test]
fn r2_the_device_is_busy_once_after_each_dnload() {
    let mut machine = open_machine();
    let erase = [Done, St(0, 100, 4), St(0, 0, 5)];
    assert_eq!(replay(&mut machine, Operation::Erase(FIRMWARE_BASE), &erase), Ok(Vec::new()));
    for len in [2048, 12] {
        let write = Operation::Write(FIRMWARE_BASE, vec![1; len]);
        let answers = [Done, St(0, 104, 4), St(0, 0, 5), Done, St(0, 104, 4), St(0, 0, 5)];
        assert_eq!(replay(&mut machine, write, &answers), Ok(Vec::new()));
    }
}

/// R3, ixox and forum t=1144: the names of four memories, and a serial number of six bytes.
/// R4, lsusb of an F407: bcdDevice 22.00, bcdUSB 1.00; a configuration of 0x36 bytes with bmAttributes 0xC0 and
/// bMaxPower 0x32; a DFU descriptor with bmAttributes 0x0B, wTransferSize 2048 and bcdDFUVersion 01.1A.
#[test]
fn r3_r4_the_descriptors_match_the_logs() {
    let world = World::new("dfu");
    let found = world.bus.list().unwrap().remove(0);
    let mut transport = world.bus.open(&found).unwrap();
    let device = DfuDevice::read(&mut *transport, || true).unwrap();
    assert_eq!((found.release, device.transfer_size, device.alternates.len()), (0x2200, 2048, 4));
    assert!(device.flash().unwrap().map.is_stm32f405());
    assert_eq!(Quirks::of(ROM_DFU, "STM32  BOOTLOADER", &device), STM32F405_ROM);
    assert_eq!(ROM.identity(), ((0x0483, 0xDF11), 0x2200));
    // The chip stalled UPLOAD in dfuDNLOAD-IDLE, so ABORT must be sent first.
    let mut machine = open_machine();
    let write = [Done, St(0, 104, 4), St(0, 0, 5), Done, St(0, 104, 4), St(0, 0, 5)];
    replay(&mut machine, Operation::Write(FIRMWARE_BASE, vec![1; 4]), &write).unwrap();
    let read = [Done, St(0, 104, 4), St(0, 0, 5), Done, Bytes(&[1, 2, 3, 4])];
    assert_eq!(replay(&mut machine, Operation::Read(FIRMWARE_BASE, 4), &read), Ok(vec![1, 2, 3, 4]));
}

/// R5, lsusb of an old stm32f4discovery: bcdDevice is 21.00, and every memory has the letter g, as if it could be
/// erased.
#[test]
fn r5_the_option_bytes_of_an_old_rom_are_not_mistaken_for_its_flash() {
    use cfdfu::dfu::device::Alternate;
    use cfdfu::flash::map::MemoryMap;
    let names = [
        "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
        "@Option Bytes  /0x1FFFC000/01*016 g",
        "@OTP Memory /0x1FFF7800/01*512 g,01*016 g",
        "@Device Feature/0xFFFF0000/01*004 g",
    ];
    let alternate = |(number, name): (usize, &&str)| Alternate {
        number: u8::try_from(number).unwrap(),
        map: MemoryMap::parse(name).unwrap(),
    };
    let alternates: Vec<Alternate> = names.iter().enumerate().map(alternate).collect();
    let mut device = DfuDevice { interface: 0, transfer_size: 2048, alternates, unnamed: Vec::new() };
    assert_eq!(device.flash().unwrap().number, 0);
    // Even if the flash has no readable name, the option bytes are not mistaken for the flash.
    device.alternates.remove(0);
    device.unnamed.push(0);
    assert_eq!(device.flash(), None);
}

/// One chip has the early ROM of R5; the other has the ROM of an F469, which starts in dfuIDLE (modm's log).
#[test]
fn r5_chips_with_an_early_rom_or_a_rom_that_starts_in_dfu_idle_are_flashed() {
    let early = prepare("dfu", |drone| drone.traits.face = Some(&OLD_ROM));
    let idle = prepare("dfu", |drone| drone.traits.starts_idle = true);
    for world in [early, idle] {
        assert_eq!(flash(&world).report.outcome, Outcome::Flashed);
        assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)));
    }
}

/// R13, an L43x: GETSTATUS is stalled while the chip is busy, in this test for up to a second per sector.
#[test]
fn r13_a_chip_that_stalls_while_it_is_busy_is_flashed() {
    let world = prepare("dfu", |drone| drone.traits.stalls_while_busy = true);
    let run = flash(&world);
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)));
}

/// R6, Betaflight's configurator: with read protection, Set Address fails with status 0x0B in dfuERROR.
/// R7, a thread about an F407: Set Address 0 first reports busy, then fails with errTARGET.
#[test]
fn r6_r7_a_refused_address_is_reported_with_its_reason() {
    for (code, status) in [(0x0B, Status::VENDOR), (0x01, Status::TARGET)] {
        let answers = [Done, St(0, 104, 4), St(code, 0, 10)];
        let read = replay(&mut open_machine(), Operation::Read(Address(0), 16), &answers);
        assert_eq!(read, Err(DfuError::Status(status)));
    }
    for late in [false, true] {
        let world = prepare("dfu", |drone| {
            drone.memory.options[1] = 0x55;
            drone.traits.late_refusal = late;
        });
        let Outcome::Failed(failure) = flash(&world).report.outcome else { panic!("the job did not fail") };
        assert_eq!((failure.kind, failure.drone), (FailureKind::ReadProtected, DroneState::Untouched));
    }
}

/// R8, comma's panda: each pair of option bytes is followed by its complement, and all four bytes are repeated.
#[test]
fn r8_option_bytes_are_parsed_with_their_complements() {
    let panda =
        [0xEF, 0xAA, 0x10, 0x55, 0xEF, 0xAA, 0x10, 0x55, 0xFF, 0x7F, 0x00, 0x80, 0xFF, 0x7F, 0x00, 0x80];
    assert_eq!(Protection::parse(&panda), Some(Protection::default()));
    let world = World::new("dfu");
    assert_eq!(
        world.bus.with(0, |drone, _| Protection::parse(&drone.memory.options)),
        Some(Some(Protection::default()))
    );
}

/// R9, dfu-util tickets 140 and 141: a DNLOAD is stalled once, at 2, 12 or 13 % of the image. Each run of this test
/// stalls one transfer, at one of these percentages of the job's transfers, or at 50 or 90 %.
#[test]
fn r9_a_block_that_fails_once_is_written_again() {
    let whole = flash_and_count(&World::new("dfu"), None).1;
    for percent in [2, 12, 13, 50, 90] {
        let at = whole * percent / 100;
        let (run, _, world) = flash_with_fault(Some(Script { at, fault: Fault::Stall }));
        assert_eq!(run.report.outcome, Outcome::Flashed, "at {percent} %");
        assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)), "at {percent} %");
    }
}

/// R10: the serial number of a pyboard, the same in both modes, and that of a running Crazyflie. The Crazyflie's number
/// in DFU mode is computed, and the number of a chip from the same batch is made up.
#[test]
fn r10_the_serial_numbers_of_both_modes_are_matched() {
    assert!(crazyflie::is_same_serial("206437A1304E", "206437a1304e"));
    assert!(crazyflie::is_same_serial("51004F000551343036333233", "338133873034"));
    assert!(!crazyflie::is_same_serial("51004F000551343036333233", "206437A1304E"));
    assert!(
        !crazyflie::is_same_serial("51004F000551343036333233", "51004F000651343036333233"),
        "different serial numbers of 24 digits do not match"
    );
    assert!(
        !crazyflie::is_same_serial("", "") && !crazyflie::is_same_serial("", "338133873034"),
        "an empty serial number matches nothing"
    );
}

/// R11, CircuitPython PR 11270: 5 of 12 attempts to enter DFU mode reach the ROM; the others reset into the
/// firmware.
#[test]
fn r11_a_failed_attempt_to_enter_dfu_mode_is_retried_at_once() {
    let world = prepare("healthy", |drone| drone.traits.missed_entries = 7);
    let report = flash(&world).report;
    assert_eq!((report.booted(), &report.outcome), (Some(true), &Outcome::Flashed));
    assert!(report.took < Duration::from_secs(25), "{:?}", report.took);
}

/// R12, a thread about an F40x: an address beyond the OTP is accepted, and UPLOAD returns nothing.
#[test]
fn r12_the_rom_version_stays_unknown_after_an_empty_read_and_the_job_succeeds() {
    let answers = [Done, St(0, 104, 4), St(0, 0, 5), Done, Bytes(&[])];
    let read = replay(&mut open_machine(), Operation::Read(Address(0x1FFF_7A10), 12), &answers);
    assert_eq!(read, Err(DfuError::Short { got: 0, wanted: 12 }));
    let world = prepare("dfu", |drone| drone.memory.rom_version = 0);
    let report = flash(&world).report;
    assert_eq!((report.rom, &report.outcome), (None, &Outcome::Flashed));
}

/// R13, dfu-util ticket 40 (an L43x): the chip stalls GETSTATUS while it is busy, and answers a later request.
#[test]
fn r13_after_a_stalled_getstatus_the_poll_time_is_obeyed() {
    assert_eq!(STM32F405_ROM.polling, Polling::Eager);
    let mut machine = open_machine();
    let answers = [Done, St(0, 100, 4), Lost(TransferError::Stall), St(0, 0, 5)];
    assert_eq!(replay(&mut machine, Operation::Erase(FIRMWARE_BASE), &answers), Ok(Vec::new()));
    assert_eq!(
        machine.take_notes().len(),
        2,
        "the first status was cleared, and the poll time is obeyed from now on"
    );
}

/// R14, CubeProgrammer on an F412: erasing sectors 0 to 4, 6 and 7 takes 6 s ± 1 s at 8 bits; reading 1024 bytes
/// takes 5 ms.
#[test]
fn r14_the_simulated_chip_is_as_fast_as_a_related_real_chip() {
    let nor = Nor::new(Pace::Typical);
    let erase: Duration =
        [0, 1, 2, 3, 4, 6, 7].into_iter().map(|sector| nor.erase_time(sector, ProgramWidth::Byte)).sum();
    assert!((5.0..=7.0).contains(&erase.as_secs_f64()), "{erase:?}");
    let world = World::new("dfu");
    let found = world.bus.list().unwrap().remove(0);
    let mut transport = world.bus.open(&found).unwrap();
    let before = world.clock.now();
    let clear = cfdfu::usb::Setup { request_type: 0x21, request: 4, value: 0, index: 0 };
    transport.control_out(clear, &[], Duration::from_secs(1)).unwrap();
    let upload = cfdfu::usb::Setup { request_type: 0xA1, request: 2, value: 2, index: 0 };
    transport.control_in(upload, &mut [0; 1024], Duration::from_secs(1)).unwrap();
    assert!(world.clock.now() - before < Duration::from_millis(5));
}

/// R15, rusefi 4847: the device answers with state 7 and never returns to the bus.
#[test]
fn r15_a_drone_that_does_not_start_after_leave_counts_as_flashed() {
    for (version, does_not_start) in [(0x31, true), (0x90, true), (0x91, false)] {
        assert_eq!(RomVersion::of(version).unwrap().starts_without_ccm(), does_not_start);
        let world = prepare("healthy", |drone| drone.memory.rom_version = version);
        let report = flash(&world).report;
        assert_eq!((report.verified, &report.outcome), (true, &Outcome::Flashed));
        assert_eq!(report.boot, if does_not_start { Boot::NotSeen } else { Boot::StaysUp }, "{version:#x}");
        // A leave request for an address in blank flash resets the chip. The firmware then starts, whatever the ROM
        // version is.
        let world = prepare("healthy", |drone| drone.memory.rom_version = version);
        let report = run_on(&world, change_flash_task(job(), |task| task.leave = Leave::Reset)).report;
        assert_eq!(report.boot, Boot::StaysUp, "{version:#x}, restarted by a reset");
    }
}

/// After manual entry, the pins of the radio chip float, so a reset ends in DFU mode again. The report must show that
/// the firmware did not start.
#[test]
fn r15_a_drone_reset_after_manual_entry_is_reported_as_not_booted() {
    let world = prepare("dfu", |drone| drone.memory.rom_version = 0x31);
    let report = run_on(&world, change_flash_task(job(), |task| task.leave = Leave::Reset)).report;
    assert_eq!((report.boot, report.by_hand), (Boot::NotSeen, true));
    assert_eq!(world.bus.list().unwrap()[0].id, ROM_DFU);
}

/// R16, dfu-util ticket 3: during a mass erase, the chip takes more than 5 s to answer GETSTATUS. Afterwards, the flash
/// is blank. In this test, erasing a sector takes up to 4 s.
#[test]
fn r16_the_job_waits_for_a_long_erase() {
    let world = prepare("slow", |_| {});
    let run = run_on(&world, change_flash_task(job(), |task| task.width = cfdfu::job::Width::Byte));
    assert_eq!(run.report.outcome, Outcome::Flashed);
}

// ---- the programming width

#[test]
fn a_width_setting_that_does_not_work_as_documented_is_logged_and_the_flash_succeeds() {
    for (switch, text) in [
        (Switch::NoEffect, "as slowly as with 8 bits"),
        (Switch::Refused, "does not support setting the programming width"),
        (Switch::WriteOnly, "does not report the setting"),
    ] {
        let world = prepare("dfu", |drone| drone.traits.switch = switch);
        let run = flash(&world);
        assert_eq!(run.report.outcome, Outcome::Flashed, "{switch:?}");
        assert!(is_logged(&run, text), "{switch:?}: {:#?}", run.events);
        assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)), "{switch:?}");
    }
    let plain = flash(&World::new("dfu"));
    assert!(!is_logged(&plain, "as slowly as"), "a chip that programs words causes no warning");
    let world = prepare("dfu", |drone| drone.traits.refuses_alternates = true);
    let run = flash(&world);
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert!(
        is_logged(&run, "Programming 32 bits at a time"),
        "the width can be set through alternate setting 0"
    );
}

/// All later writes also use 8 bits.
#[test]
fn a_write_that_failed_at_32_bits_is_repeated_at_8_bits() {
    let (_, whole, _) = flash_with_fault(None);
    let (run, _, world) = flash_with_fault(Some(Script { at: whole * 40 / 100, fault: Fault::Status(3) }));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert!(is_logged(&run, "Programming 8 bits at a time from now on"), "{:#?}", run.events);
    assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)));
}

/// The first word of the firmware is written last, on its own and at 8 bits, so [`Switch::LowSupplyForWords`] does not
/// affect the firmware.
#[test]
fn a_sector_that_reads_back_wrong_at_32_bits_is_written_again_at_8_bits() {
    for (switch, repeats) in [(Switch::LowSupply, true), (Switch::LowSupplyForWords, false)] {
        let world = prepare("dfu", |drone| drone.traits.switch = switch);
        let run = flash(&world);
        assert_eq!((&run.report.outcome, run.report.verified), (&Outcome::Flashed, true), "{switch:?}");
        assert_eq!(is_logged(&run, "writing it again, 8 bits at a time"), repeats, "{switch:?}");
        assert!(contains_image(&world, &firmware("2026.08", SEED_LEN)), "{switch:?}");
    }
}

/// The first word has a worn cell, so the job fails. The bootloader must not start this firmware.
#[test]
fn a_first_word_that_reads_back_wrong_is_erased() {
    let world = prepare("dfu", |drone| drone.memory.flash.worn = Some((FIRMWARE_BASE.0 + 2, 0x10)));
    let report = flash(&world).report;
    let Outcome::Failed(failure) = &report.outcome else { panic!("the job did not fail") };
    assert!(matches!(failure.kind, FailureKind::Mismatch { .. }), "{failure}");
    assert_eq!(failure.drone, DroneState::WithoutFirmware);
    let head = world.bus.with(0, |drone, _| drone.memory.flash.read(FIRMWARE_BASE.0, 4).map(<[u8]>::to_vec));
    assert_eq!(head.flatten(), Some(vec![0xFF; 4]));
}

// ---- the bus

/// A drone that is unplugged causes transfer errors before it disappears from the bus.
#[test]
fn transfer_errors_before_a_disconnect_count_as_an_interruption() {
    for at in [12, 20, 40, 80, 120, 145] {
        let world = prepare("dfu", |drone| drone.traits.fault = Some((at, SimFault::Loose)));
        let report = flash(&world).report;
        let Outcome::Failed(failure) = &report.outcome else { panic!("at {at}: the job did not fail") };
        let is_disconnect = matches!(&failure.kind, FailureKind::Dfu(error) if error.is_disconnect());
        assert!(is_disconnect, "at {at}: {failure}");
        assert_eq!(failure.is_interruption(), failure.drone == DroneState::WithoutFirmware, "at {at}");
    }
}

/// The drone stays on the bus but stops answering.
#[test]
fn a_drone_that_stops_answering_ends_the_job_within_15_seconds() {
    let moments = [0, 3, 6, 12, 20, 40, 80, 120, 145];
    for (scenario, at) in ["dfu", "healthy"].into_iter().flat_map(|name| moments.map(|at| (name, at))) {
        let world = prepare(scenario, |drone| drone.traits.fault = Some((at, SimFault::Hung)));
        let started = world.clock.now();
        // The time that the job needs to reach the request at which the drone hangs.
        let before = Duration::from_secs(if at <= 12 { 2 } else { 6 });
        let report = flash(&world).report;
        let took = world.clock.now() - started;
        assert!(took < before + Duration::from_secs(15), "{scenario} at {at}: {took:?}");
        let Outcome::Failed(failure) = &report.outcome else { panic!("at {at}: the job did not fail") };
        assert!(failure.to_string().contains("the device does not answer"), "at {at}: {failure}");
    }
}

/// The time that the user takes to read the plan must not count as time without an answer from the drone: if an
/// answer is lost soon after the confirmation, cfdfu requests it again.
#[test]
fn an_answer_lost_after_a_long_wait_for_confirmation_is_requested_again() {
    use cfdfu::job::{Command, Confirm};
    use cfdfu::worker::Worker;
    let flash = |script: Option<Script>| {
        let world = World::new("dfu");
        let faults = Faults::new(script, || {});
        let bus = faulty(world.bus.clone(), Arc::clone(&faults));
        let worker = Worker::spawn(Arc::new(bus), world.clock.clone());
        worker
            .commands
            .send(Command::Run(Box::new(change_flash_task(job(), |task| task.confirm = Confirm::Ask))))
            .unwrap();
        let mut before_plan = 0;
        loop {
            match worker.events.recv().unwrap() {
                Event::Ready(_) => {
                    before_plan = faults.count();
                    world.clock.sleep(Duration::from_secs(60));
                    worker.commands.send(Command::Proceed).unwrap();
                }
                Event::Finished(report) => return (report.outcome, before_plan),
                _ => {}
            }
        }
    };
    let (outcome, at) = flash(None);
    assert_eq!(outcome, Outcome::Flashed);
    for fault in [Fault::Timeout, Fault::LostAnswer] {
        for at in at..at + 20 {
            assert_eq!(flash(Some(Script { at, fault })).0, Outcome::Flashed, "{fault:?} at {at}");
        }
    }
}

#[test]
fn the_job_waits_for_a_rom_that_enumerates_late() {
    let world = prepare("healthy", |drone| drone.traits.late_rom = Duration::from_secs(5));
    assert_eq!(flash(&world).report.outcome, Outcome::Flashed);
    let world = prepare("healthy", |drone| drone.traits.late_rom = Duration::from_secs(20));
    let report = run_on(&world, Job { wait: Duration::from_secs(30), ..job() }).report;
    assert_eq!(
        report.outcome,
        Outcome::Flashed,
        "with --wait: a virtual machine may need 20 s to take over the device"
    );
}

// ---- the start of the firmware

/// Firmware that fails an assertion may restart again and again.
#[test]
fn a_drone_that_restarts_soon_after_booting_is_not_reported_as_booted() {
    // The self-test of the simulated drone ends after 1.7 s, and the drone is watched for a second longer.
    for after in [150, 700, 1500, 2000] {
        let world =
            prepare("healthy", |drone| drone.traits.crashes_after = Some(Duration::from_millis(after)));
        let report = flash(&world).report;
        assert_eq!((report.boot, &report.outcome), (Boot::Restarts, &Outcome::Flashed), "{after} ms");
        assert_eq!(report.booted(), Some(false));
        // After manual entry, every reset ends in DFU mode, which also shows that the drone did not stay up.
        let world = prepare("dfu", |drone| drone.traits.crashes_after = Some(Duration::from_millis(after)));
        let report = flash(&world).report;
        assert_eq!(
            (report.boot, &report.outcome),
            (Boot::Restarts, &Outcome::Flashed),
            "{after} ms, after manual entry"
        );
    }
}

/// Unplugging a drone that has just started must not look like a crash.
#[test]
fn a_drone_unplugged_just_after_booting_is_not_reported_as_restarting() {
    let world = World::new("healthy");
    let whole = flash(&world).report.took;
    let (clock, bus) =
        crate::cuts::PowerCutClock::at(whole + Duration::from_secs(1), "healthy", SimDrone::cut_power);
    let report = run(Arc::new(bus), clock, job()).report;
    assert_eq!((report.boot, report.outcome), (Boot::NotWatched, Outcome::Flashed));
}

#[test]
fn the_reported_time_of_a_job_does_not_include_watching_the_drone() {
    let world = World::new("healthy");
    let started = world.clock.now();
    let report = flash(&world).report;
    let waited = world.clock.now() - started;
    assert_eq!(report.boot, Boot::StaysUp);
    assert!(waited - report.took > Duration::from_secs(2), "{waited:?} {:?}", report.took);
}

// ---- twins

/// Two drones have the same serial number in DFU mode. Each may be in either mode.
#[test]
fn only_the_drone_on_the_selected_port_is_flashed_when_two_share_a_serial_number() {
    for (one, two) in [("dfu", "dfu"), ("healthy", "dfu"), ("dfu", "healthy"), ("healthy", "healthy")] {
        for port in [1_u8, 2] {
            let world = twins(one, two);
            let before = flash_contents(&world);
            let device = Selector::At(format!("1-{port}").parse().unwrap());
            let report = run_on(&world, Job { device, ..job() }).report;
            assert_eq!(report.outcome, Outcome::Flashed, "{one} {two} {port}");
            let after = flash_contents(&world);
            let (selected, other) = (usize::from(port) - 1, 2 - usize::from(port));
            assert!(
                after[selected][0x4000..].starts_with(&firmware("2026.08", SEED_LEN)),
                "{one} {two} {port}"
            );
            assert!(after[other] == before[other], "{one} {two} {port}: the other drone was written to");
            assert_eq!(report.booted(), Some(true), "{one} {two} {port}");
        }
    }
}

/// A different drone is plugged into the same port at various moments of the job. cfdfu recognises that drone by its
/// serial number or, if it is a twin, by its new USB address.
#[test]
fn a_drone_plugged_in_instead_of_the_selected_one_is_not_written_to() {
    use crate::cuts::PowerCutClock;
    let whole = flash(&World::new("healthy")).report.took;
    for moment in (1..40).map(|n| whole * n / 40) {
        let (clock, bus) = PowerCutClock::at(moment, "healthy", |drone, now| {
            let mut other = Scenario::by_name("dfu").unwrap().drones(now).remove(0);
            other.traits.uid[0] ^= 0x40;
            drone.swap_for(other);
        });
        let before = Scenario::by_name("dfu").unwrap().drones(Duration::ZERO).remove(0);
        let report = run(Arc::new(bus.clone()), clock, job()).report;
        let after = bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
        assert!(after == before.memory.flash.bytes(), "at {moment:?}: {:?}", report.outcome);
        assert_ne!(report.booted(), Some(true), "at {moment:?}");
    }
}

/// A job that was started on one drone must not be resumed on a different drone.
#[test]
fn a_job_for_one_drone_refuses_a_different_drone_on_the_same_port() {
    let world = World::new("dfu");
    let before = world.flash();
    let job = Job { serial: Some("206437A1304E".to_owned()), ..job() };
    let Outcome::Failed(failure) = run_on(&world, job).report.outcome else { panic!("the job did not fail") };
    assert!(
        matches!(&failure.kind, FailureKind::OtherDrone { found: Some(serial), .. } if serial == "338133873034")
    );
    assert!(world.flash() == before);
}

/// udev grants access only after a short delay, and until then the serial number is unknown.
#[test]
fn a_different_drone_that_cannot_be_opened_at_first_is_not_written_to() {
    for wait in [Duration::ZERO, Duration::from_secs(5)] {
        let world = World::new("dfu");
        let before = world.flash();
        let clock = world.clock.clone();
        let late = move |bus: &SimBus, found: &Found| {
            let closed = clock.now() < Duration::from_millis(100);
            if closed { Err(TransferError::Access) } else { bus.open(found) }
        };
        let bus = InterceptedUsb { bus: world.bus.clone(), open: late };
        let device = Selector::At("1-1".parse().unwrap());
        let job = Job { device, serial: Some("206437A1304E".to_owned()), wait, ..job() };
        let Outcome::Failed(failure) = run(Arc::new(bus), world.clock.clone(), job).report.outcome else {
            panic!("the job did not fail")
        };
        assert!(matches!(failure.kind, FailureKind::OtherDrone { .. }), "{failure}");
        assert!(world.flash() == before);
    }
}

// ---- helpers

fn job() -> Job {
    flash_job(&firmware("2026.08", SEED_LEN))
}

fn run_on(world: &World, job: Job) -> Run {
    world.run(job)
}

fn flash(world: &World) -> Run {
    world.run(job())
}

/// Creates the drones of a scenario, and applies `change` to the first drone before its ROM starts.
fn prepare(scenario: &str, change: impl FnOnce(&mut SimDrone)) -> World {
    let world = World::new(scenario);
    world.bus.with(0, |drone, now| {
        change(drone);
        // Some traits take effect only when the simulated ROM starts.
        if scenario != "healthy" {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        }
    });
    world
}

fn is_logged(run: &Run, text: &str) -> bool {
    let is_match = |event: &Event| matches!(event, Event::Log(Level::Info | Level::Warning, entry) if entry.to_string().contains(text));
    run.events.iter().any(is_match)
}

fn contains_image(world: &World, image: &[u8]) -> bool {
    world.flash()[0x4000..].starts_with(image)
}

/// Flashes a drone with this fault, if any. Returns the run, the number of transfers, and the drone.
fn flash_with_fault(script: Option<Script>) -> (Run, u64, World) {
    let world = World::new("dfu");
    let (run, count) = flash_and_count(&world, script);
    (run, count, world)
}

fn flash_and_count(world: &World, script: Option<Script>) -> (Run, u64) {
    let faults = Faults::new(script, || {});
    let bus = faulty(world.bus.clone(), Arc::clone(&faults));
    let run = run(Arc::new(bus), world.clock.clone(), job());
    (run, faults.count())
}

/// Creates two drones whose chips differ only in the wafer number, which the serial number in DFU mode does not
/// include.
fn twins(one: &str, two: &str) -> World {
    let clock = Arc::new(cfdfu::clock::FastClock::new());
    let mut drones = Scenario::by_name(one).unwrap().drones(clock.now());
    drones.extend(Scenario::by_name(two).unwrap().drones(clock.now()));
    drones[1].traits.uid[4] ^= 0x01;
    World { bus: SimBus::new(drones, clock.clone()), clock }
}

fn flash_contents(world: &World) -> Vec<Vec<u8>> {
    (0..2).map(|n| world.bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap()).collect()
}
