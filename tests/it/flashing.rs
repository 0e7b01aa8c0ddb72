//! Tests complete jobs on the simulated chip: the resulting contents of the flash, the order of changes, the number of
//! transfers, and the time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::Clock;
use cfdfu::crazyflie::Board;
use cfdfu::flash::{Address, Segment, Span, is_blank};
use cfdfu::image::Content;
use cfdfu::job::{
    Command, Compare, Confirm, DroneState, Event, FailureKind, Job, Keep, Leave, LogEntry, Outcome, Preview,
    Report, SectorState, Task, Verify, Width,
};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::plan::undo::{Change, History, Last, NoCopy};
use cfdfu::sim::drone::SimFault;
use cfdfu::sim::images;
use cfdfu::usb::trace::{Traced, Transfer};
use cfdfu::worker::Worker;

use crate::support::{SEED_LEN, World, change_flash_task, firmware, flash_job, job, parse, restore_job, run};

/// Returns the offsets at which the flash has changed.
fn changed_offsets(before: &[u8], after: &[u8]) -> Vec<usize> {
    (0..before.len()).filter(|&at| before[at] != after[at]).collect()
}

#[test]
fn a_running_crazyflie_is_flashed_and_verified_and_runs_again() {
    let world = World::new("healthy");
    let image = firmware("2026.08", SEED_LEN);
    let run = world.run(flash_job(&image));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert_eq!((run.report.verified, run.report.booted()), (true, Some(true)));
    assert_eq!((run.report.written, run.report.erased_sectors), (SEED_LEN as u64, 5));
    assert_eq!(world.flash()[0x4000..0x4000 + SEED_LEN], image);
    assert_eq!(
        world.bus.with(0, |drone, _| drone.memory.flash.erases),
        Some([0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    );
}

#[test]
fn flashing_the_same_image_again_writes_nothing_unless_compare_is_skipped() {
    let world = World::new("dfu");
    let job =
        || change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.leave = Leave::Stay);
    assert_eq!(world.run(job()).report.outcome, Outcome::Flashed);
    let again = world.run(job()).report;
    println!("{:.3} s of the simulated chip's time for the same image again", again.took.as_secs_f64());
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert_eq!((again.written, again.erased_sectors, again.verified), (0, 0, true));
    let full = world.run(change_flash_task(job(), |task| task.compare = Compare::Skip)).report;
    assert_eq!(full.outcome, Outcome::Flashed);
    assert_eq!((full.written, full.erased_sectors), (SEED_LEN as u64, 5));
}

#[test]
fn a_change_in_the_last_sector_rewrites_only_the_first_and_last_sectors() {
    let world = World::new("dfu");
    let mut image = firmware("2026.08", SEED_LEN);
    let stay = |image: &[u8]| change_flash_task(flash_job(image), |task| task.leave = Leave::Stay);
    world.run(stay(&image));
    image[SEED_LEN - 1] ^= 0x10;
    let report = world.run(stay(&image)).report;
    assert_eq!((report.outcome, report.erased_sectors), (Outcome::Flashed, 2));
    assert_eq!(world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// Only a bootloader restore, or the undo of one, may change sector 0.
#[test]
fn a_flash_never_touches_the_bootloader() {
    for scenario in ["healthy", "dfu", "erased", "overwritten", "slow", "byte-mode"] {
        for len in [images::FIRMWARE_MIN, 16 * 1024, 120_000, 253_952, 1_032_192] {
            for compare in [Compare::First, Compare::Skip] {
                let world = World::new(scenario);
                let before = world.flash();
                let job =
                    change_flash_task(flash_job(&firmware("2026.08", len)), |task| task.compare = compare);
                assert_eq!(world.run(job).report.outcome, Outcome::Flashed, "{scenario} {len}");
                assert_eq!(world.flash()[..0x4000], before[..0x4000], "{scenario} {len}");
                assert_eq!(world.bus.with(0, |drone, _| drone.memory.flash.erases[0]), Some(0));
            }
        }
    }
}

#[test]
fn an_overwritten_bootloader_is_restored_together_with_the_firmware() {
    let world = World::new("overwritten");
    let (loader, image) = (images::loader(), firmware("2026.08", SEED_LEN));
    let run = world.run(restore_job(&loader, Some(&image)));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    // After manual entry into DFU mode, every reset ends in DFU mode until the power is cut.
    assert_eq!(run.report.booted(), Some(false));
    assert_eq!(world.flash()[..loader.len()], loader);
    assert_eq!(world.flash()[0x4000..0x4000 + SEED_LEN], image);
    world.bus.with(0, |drone, now| {
        drone.cut_power(now);
        drone.power_on(now);
    });
    world.clock.sleep(Duration::from_secs(3));
    assert_eq!(world.bus.with(0, |drone, _| drone.identity().unwrap().0.1), Some(0x5740));
}

/// The bootloader and the firmware each have a word that is written last. Writing the second of these words must not
/// mark the sector of the first one as unverified.
#[test]
fn after_a_restore_every_written_sector_is_shown_as_verified() {
    let world = World::new("overwritten");
    let run = world.run(restore_job(&images::loader(), Some(&firmware("2026.08", SEED_LEN))));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    let mut states = [SectorState::Failed; 12];
    for event in &run.events {
        if let Event::Sector { index, state } = event {
            states[*index] = *state;
        }
    }
    assert_eq!(states[..6], [SectorState::Verified; 6]);
}

#[test]
fn a_restore_of_the_bootloader_alone_does_not_change_the_firmware() {
    let world = World::new("overwritten");
    let before = world.flash();
    let run = world.run(restore_job(&images::loader(), None));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert!(changed_offsets(&before, &world.flash()).iter().all(|&at| at < 0x4000));
}

/// Runs a job. Returns its transfers, in order, and its outcome.
fn record_transfers(world: &World, job: Job) -> (Vec<Transfer>, Outcome) {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&recorded);
    let bus = Traced::new(
        world.bus.clone(),
        Arc::new(move |t: &Transfer| listener.lock().unwrap().push(t.clone())),
    );
    let run = run(Arc::new(bus), world.clock.clone(), job);
    let transfers = recorded.lock().unwrap().clone();
    (transfers, run.report.outcome)
}

#[test]
fn a_block_takes_three_transfers_to_write_and_one_to_read() {
    let count = |len: usize| {
        let world = World::new("dfu");
        let (transfers, outcome) = record_transfers(&world, flash_job(&firmware("2026.08", len)));
        assert_eq!(outcome, Outcome::Flashed);
        transfers.len()
    };
    // Both images cover the same five sectors, but one has sixty more blocks.
    let (few, many) = (count(0x1_C000 + 2048), count(0x1_C000 + 61 * 2048));
    assert_eq!(many - few, 60 * (3 + 1));
    // The usual firmware has 119 blocks; the job has at most 230 other transfers. Five of these read the version of the
    // boot ROM before `leave`, six switch back to 8 bits for the first word, and about sixty read what the drone prints
    // when it starts.
    let usual = count(SEED_LEN);
    assert!(usual <= 119 * 4 + 230, "{usual} transfers");
    println!("{usual} transfers for {SEED_LEN} bytes, verified");
}

#[test]
fn the_poll_time_is_ignored_on_a_recognised_rom() {
    let world = World::new("dfu");
    let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.leave = Leave::Stay);
    let from = world.clock.now();
    assert_eq!(world.run(job).report.outcome, Outcome::Flashed);
    let took = world.clock.now() - from;
    // The flash and the USB transfers alone take 4.13 s; waiting for bwPollTimeout after each block would add 12 s.
    assert!(took < Duration::from_millis(4300), "{took:?}");
    println!("{:.3} s of the simulated chip's time for {SEED_LEN} bytes", took.as_secs_f64());
}

#[test]
fn byte_mode_and_a_worn_chip_take_longer_but_succeed() {
    let seconds = |scenario: &str, width: Width| {
        let world = World::new(scenario);
        let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
            task.width = width;
            task.leave = Leave::Stay;
        });
        let report = world.run(job).report;
        assert_eq!(report.outcome, Outcome::Flashed);
        report.took.as_secs_f64()
    };
    let byte = seconds("dfu", Width::Byte);
    println!("{byte:.3} s of the simulated chip's time byte by byte");
    assert!((8.9..9.3).contains(&byte), "{byte}");
    assert!((seconds("byte-mode", Width::Fastest) - byte).abs() < 0.1);
    assert!(seconds("slow", Width::Byte) > 30.0);
}

/// The chip keeps the programming width after a session ends, so byte mode must be set explicitly.
#[test]
fn byte_mode_is_used_even_after_a_session_in_word_mode() {
    let world = World::new("dfu");
    let seconds = |version: &str, width: Width| {
        let job = change_flash_task(flash_job(&firmware(version, SEED_LEN)), |task| {
            task.width = width;
            task.leave = Leave::Stay;
        });
        world.run(job).report.took.as_secs_f64()
    };
    assert!(seconds("2026.04", Width::Fastest) < 4.3);
    assert!(seconds("2026.08", Width::Byte) > 8.9);
}

#[test]
fn unsuitable_drones_are_refused_before_anything_is_changed() {
    let refusal = |scenario: &str| {
        let world = World::new(scenario);
        let before = world.flash();
        let report = world.run(flash_job(&firmware("2026.08", SEED_LEN))).report;
        assert_eq!(world.flash(), before);
        match report.outcome {
            Outcome::Failed(failure) => {
                assert_eq!(failure.drone, DroneState::Untouched);
                failure.kind
            }
            other => panic!("{scenario}: {other:?}"),
        }
    };
    assert_eq!(refusal("write-protected"), FailureKind::WriteProtected(vec![2]));
    assert_eq!(refusal("read-protected"), FailureKind::ReadProtected);
    let boards = vec!["CF20 (Crazyflie 2.0)".to_owned(), "CF21 (Crazyflie 2.1)".to_owned()];
    let board = Board { revision: Some("A".to_owned()), ..Board::named("CB10") };
    assert_eq!(refusal("wrong-board"), FailureKind::OtherBoard { board, boards });
    assert_eq!(refusal("old"), FailureKind::TooOld);
    assert_eq!(refusal("none"), FailureKind::NoDevice);
    assert!(matches!(refusal("two"), FailureKind::Several(devices) if devices.len() == 2));
}

#[test]
fn a_sector_that_silently_keeps_its_contents_is_detected_by_reading_back() {
    let world = World::new("dfu");
    // Sector 3 becomes protected only after sector 1 is erased, long after the option bytes have been read.
    let bus = world.bus.clone();
    let listener = move |_: &Transfer| {
        bus.with(0, |drone, _| {
            if drone.memory.flash.erases[1] > 0 {
                drone.memory.options[8] &= !(1 << 3);
            }
        });
    };
    let bus = Traced::new(world.bus.clone(), Arc::new(listener));
    let run = run(Arc::new(bus), world.clock.clone(), flash_job(&firmware("2026.08", SEED_LEN)));
    match run.report.outcome {
        Outcome::Failed(failure) => {
            assert!(matches!(
                failure.kind,
                FailureKind::Mismatch { address: Address(0x0800_C000..=0x0800_FFFF), .. }
            ));
            assert_eq!(failure.drone, DroneState::WithoutFirmware);
        }
        other => panic!("{other:?}"),
    }
    assert!(!run.report.verified);
    assert_eq!(world.flash()[0x4000..0x4004], [0xFF; 4], "unverified firmware must not boot");
}

#[test]
fn verify_and_backup_change_nothing_and_restart_the_drone() {
    let world = World::new("healthy");
    let flash = world.flash();
    let task = |task| Job { task, ..flash_job(&firmware("2026.08", SEED_LEN)) };
    let span = Span::new(Address(0x0800_0000), 1024 * 1024).unwrap();
    let backup = world.run(task(Task::Backup(span))).report;
    assert_eq!(backup.outcome, Outcome::Read(flash.clone()));
    assert_eq!(backup.booted(), Some(true));

    let mut segment = Segment { address: Address(0x0800_4000), data: flash[0x4000..0x4000 + 5000].to_vec() };
    let verified = world.run(task(Task::Verify(vec![segment.clone()]))).report;
    assert_eq!((verified.outcome, verified.verified), (Outcome::Unchanged, true));
    segment.data[4321] ^= 1;
    let report = world.run(task(Task::Verify(vec![segment]))).report;
    let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
    assert!(matches!(failure.kind, FailureKind::Differs { address: Address(0x0800_50E1), .. }));
    assert_eq!(world.flash(), flash);
}

#[test]
fn a_flash_without_verification_is_not_reported_as_verified() {
    let world = World::new("dfu");
    let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.verify = Verify::Skip);
    let report = world.run(job).report;
    assert_eq!((report.outcome, report.verified), (Outcome::Flashed, false));
}

#[test]
fn each_of_several_flashes_in_a_row_starts_at_zero_progress() {
    let world = World::new("healthy");
    for version in ["2026.04", "2026.08", "2026.04"] {
        let image = firmware(version, SEED_LEN);
        let run = world.run(flash_job(&image));
        assert_eq!((run.report.booted(), run.report.outcome), (Some(true), Outcome::Flashed));
        assert_eq!(world.flash()[0x4000..0x4000 + SEED_LEN], image);
        let first = run.events.iter().find(|event| matches!(event, Event::Progress { .. }));
        assert!(matches!(first, Some(Event::Progress { done: 0, .. })));
    }
}

/// Runs a flash that asks for confirmation, and replies with `answer`. Returns the preview and the report.
fn flash_and_answer(world: &World, answer: &Command) -> (Preview, Report) {
    let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
        task.keep = Keep::Copy;
        task.confirm = Confirm::Ask;
    });
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker.commands.send(Command::Run(Box::new(job))).unwrap();
    let mut preview = None;
    for event in &worker.events {
        match event {
            Event::Ready(ready) => {
                preview = Some(*ready);
                worker.commands.send(answer.clone()).unwrap();
            }
            Event::Finished(report) => return (preview.unwrap(), report),
            _ => {}
        }
    }
    panic!("the worker ended without a report");
}

#[test]
fn nothing_is_changed_until_the_plan_is_confirmed() {
    let world = World::new("healthy");
    let before = world.flash();
    let (preview, report) = flash_and_answer(&world, &Command::Cancel);
    assert_eq!(report.outcome, Outcome::Cancelled(DroneState::Untouched));
    assert_eq!(report.booted(), Some(true), "the drone runs its old firmware again");
    assert_eq!(world.flash(), before);
    assert_eq!(preview.work.erase.len(), 5);
    let Some(Content::Firmware(firmware)) = preview.firmware else {
        panic!("the previous firmware was not recognised")
    };
    assert_eq!(firmware.version.as_deref(), Some("2025.02"));
    let kept = preview.before.unwrap();
    assert_eq!((kept.address, &kept.data[..]), (Address(0x0800_4000), &before[0x4000..0x4_0000]));

    let (_, report) = flash_and_answer(&world, &Command::Proceed);
    assert_eq!(report.outcome, Outcome::Flashed);
}

/// Covers firmware longer than its replacement, incomplete firmware, and bytes between the parts of an image.
#[test]
fn undo_puts_back_every_overwritten_byte() {
    let noise = |at: u32, len: usize| Segment { address: Address(at), data: images::firmware("x", &[], len) };
    let parts = |segments: Vec<Segment>| {
        let mut hex = Vec::new();
        for Segment { address, data } in segments {
            hex.push(ihex::Record::ExtendedLinearAddress((address.0 >> 16) as u16));
            let lines = data.chunks(32).enumerate();
            hex.extend(lines.map(|(n, line)| ihex::Record::Data {
                offset: (address.0 as u16).wrapping_add(n as u16 * 32),
                value: line.to_vec(),
            }));
        }
        hex.push(ihex::Record::EndOfFile);
        let image = parse(ihex::create_object_file_representation(&hex).unwrap().as_bytes());
        admission::flash(&image, Overrides { allow_mismatch: true, ..Overrides::default() }).unwrap()
    };
    let short = admission::flash(&parse(&firmware("2026.08", 20_000)), Overrides::default()).unwrap();
    let scattered = parts(vec![noise(0x0800_8000, 5000), noise(0x0802_0000, 6000)]);
    let loader = admission::restore(&parse(&images::loader()), None, Overrides::default()).unwrap();
    let overrides = Overrides { allow_mismatch: true, ..Overrides::default() };
    for (scenario, image) in
        [("dfu", short.clone()), ("overwritten", short), ("dfu", scattered), ("overwritten", loader)]
    {
        let world = World::new(scenario);
        let before = world.flash();
        let run = world.run(change_flash_task(job(image), |task| task.keep = Keep::Copy));
        assert_eq!(run.report.outcome, Outcome::Flashed);
        assert_ne!(world.flash(), before);
        let kept = run.events.iter().find_map(|event| match event {
            Event::Ready(preview) => preview.before.clone(),
            _ => None,
        });
        world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        let report = world.run(job(admission::undo(kept.unwrap(), overrides).unwrap())).report;
        assert_eq!(report.outcome, Outcome::Flashed);
        assert!(world.flash() == before, "{scenario}: the flash differs");
    }
}

/// The copy of working firmware is not replaced by a copy of the incomplete firmware that an interrupted flash leaves.
#[test]
fn incomplete_firmware_and_a_blank_flash_are_not_kept_for_undo() {
    let image = firmware("2026.08", SEED_LEN);
    let flash_and_keep = |world: &World, history: &mut History| {
        let run = world.run(change_flash_task(flash_job(&image), |task| task.keep = Keep::Copy));
        let previews = run.events.iter().filter_map(|event| match event {
            Event::Ready(preview) => Some(preview),
            _ => None,
        });
        for preview in previews {
            *history = history.begin(preview.plan.pieces(), preview.before.as_ref(), Change::Flash);
        }
        history.last.clone()
    };
    assert_eq!(flash_and_keep(&World::new("erased"), &mut History::default()), Last::None(NoCopy::WasBlank));
    let (world, mut history) = (World::new("unplugged"), History::default());
    let before = flash_and_keep(&world, &mut history);
    assert!(matches!(&before, Last::Copy(copy) if !is_blank(&copy.data[..4])));
    world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    assert_eq!(
        flash_and_keep(&world, &mut history),
        before,
        "the first attempt's incomplete firmware was kept"
    );
}

#[test]
fn a_drone_that_runs_a_version_other_than_the_flashed_one_is_reported() {
    let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
        task.version = Some("2026.09".to_owned());
    });
    let report = World::new("healthy").run(job).report;
    assert!(report.runs_other && report.runs.as_deref() == Some("2026.08"));
    assert!(!World::new("healthy").run(flash_job(&firmware("2026.08", SEED_LEN))).report.runs_other);
}

/// A cancel command that is sent right after a job applies to that job, not to the background identify that the job
/// interrupts.
#[test]
fn a_cancel_stops_only_the_job_it_was_sent_to() {
    let world = World::new("dfu");
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    let identify = Job::new(Task::Identify);
    let asking =
        change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.confirm = Confirm::Ask);
    for command in [Command::Run(Box::new(identify)), Command::Run(Box::new(asking)), Command::Cancel] {
        worker.commands.send(command).unwrap();
    }
    let ended = |event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    };
    let ends: Vec<Outcome> = worker.events.iter().filter_map(ended).take(2).collect();
    assert_eq!(ends[1], Outcome::Cancelled(DroneState::Untouched));
}

#[test]
fn a_background_identify_yields_to_a_flash() {
    let world = World::new("dfu");
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    let identify = Job::new(Task::Identify);
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    worker.commands.send(Command::Run(Box::new(identify))).unwrap();
    worker.commands.send(Command::Run(Box::new(flash_job(&image)))).unwrap();
    let ends: Vec<Outcome> = worker
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Finished(report) => Some(report.outcome),
            _ => None,
        })
        .take(2)
        .collect();
    // The background identify may have ended before the second command.
    assert!(matches!(ends[0], Outcome::Cancelled(DroneState::Untouched) | Outcome::Identified));
    assert_eq!(ends[1], Outcome::Flashed);
}

/// The confirmation may arrive before the worker waits for it.
#[test]
fn a_confirmation_is_not_lost_however_early_it_arrives() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    for _ in 0..300 {
        let world = World::new("erased");
        let job = change_flash_task(flash_job(&image), |task| task.confirm = Confirm::Ask);
        let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
        worker.commands.send(Command::Run(Box::new(job))).unwrap();
        let report = loop {
            match worker.events.recv_timeout(Duration::from_secs(20)).expect("the worker did not finish") {
                Event::Ready(_) => worker.commands.send(Command::Proceed).unwrap(),
                Event::Finished(report) => break report,
                _ => {}
            }
        };
        assert_eq!(report.outcome, Outcome::Flashed);
    }
}

#[test]
fn flashing_a_drone_without_a_bootloader_logs_a_warning() {
    let warned = |scenario: &str| {
        let run = World::new(scenario).run(flash_job(&firmware("2026.08", SEED_LEN)));
        let is_warning = |event: &Event| matches!(event, Event::Log(_, LogEntry::LoaderGone(_)));
        run.events.iter().any(is_warning)
    };
    assert_eq!((warned("dfu"), warned("overwritten")), (false, true));
}

#[test]
fn a_flash_interrupted_by_unplugging_is_reported_and_completes_when_run_again() {
    let world = World::new("unplugged");
    let image = firmware("2026.08", SEED_LEN);
    let Outcome::Failed(failure) = world.run(flash_job(&image)).report.outcome else {
        panic!("the flash was not interrupted")
    };
    assert_eq!(failure.drone, DroneState::WithoutFirmware);
    assert_eq!(world.flash()[0x4000..0x4004], [0xFF; 4]);
    world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    assert_eq!(world.run(flash_job(&image)).report.outcome, Outcome::Flashed);
}

/// A resumed job that fails before it writes anything still reports the drone's state after the first attempt.
#[test]
fn a_resumed_job_that_finds_no_drone_reports_the_state_after_the_first_attempt() {
    let world = World::new("dfu");
    world.bus.with(0, |drone, now| drone.cut_power(now));
    let resumed = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
        *task = task.clone().resumed(DroneState::WithoutFirmware);
    });
    let Outcome::Failed(failure) = world.run(resumed.clone()).report.outcome else {
        panic!("the job did not fail")
    };
    assert_eq!((failure.kind, failure.drone), (FailureKind::NoDevice, DroneState::WithoutFirmware));
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker
        .commands
        .send(Command::Run(Box::new(Job { wait: Duration::from_secs(3_000_000), ..resumed })))
        .unwrap();
    worker.commands.send(Command::Cancel).unwrap();
    let report = worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report),
        _ => None,
    });
    assert_eq!(report.unwrap().outcome, Outcome::Cancelled(DroneState::WithoutFirmware));
}

/// If the first attempt erased the bootloader, the second attempt must still report that the bootloader is missing.
#[test]
fn a_restore_interrupted_twice_reports_that_the_bootloader_is_missing() {
    let restore = restore_job(&images::loader(), Some(&firmware("2026.08", images::FIRMWARE_MIN)));
    let mut missing = 0;
    for (first, second) in (4..30).flat_map(|first| (4..24).map(move |second| (first, second))) {
        let world = World::new("overwritten");
        let mut state = DroneState::Untouched;
        for at in [first, second] {
            world.bus.with(0, |drone, now| {
                drone.power_on_by_hand(now);
                drone.traits.fault = Some((at, SimFault::Unplugged));
            });
            let job = change_flash_task(restore.clone(), |task| *task = task.clone().resumed(state));
            let Outcome::Failed(failure) = world.run(job).report.outcome else { continue };
            state = failure.drone;
            if world.flash()[..4] == [0xFF; 4] {
                assert_eq!(state, DroneState::WithoutLoader, "{first}, then {second}");
                missing += 1;
            }
        }
    }
    assert!(missing > 100, "{missing}");
}
