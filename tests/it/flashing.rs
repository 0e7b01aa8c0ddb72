//! Whole jobs on the simulated chip: the flash afterwards, the order of changes, transfers and time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::Clock;
use cfdfu::crazyflie::Board;
use cfdfu::flash::{Address, Segment, Span, is_blank};
use cfdfu::image::Content;
use cfdfu::job::{
    Command, Compare, Confirm, DroneState, Event, FailureKind, Job, Keep, Leave, LogEntry, Outcome, Preview,
    Report, Task, Verify, Width,
};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::plan::undo::{Change, History, Last, NoCopy};
use cfdfu::sim::drone::Mishap;
use cfdfu::sim::images;
use cfdfu::usb::trace::{Traced, Transfer};
use cfdfu::worker::Worker;

use crate::support::{SEED_LEN, World, firmware, flash_job, job, parse, restore_job, run, with};

/// Addresses at which the flash changed, as offsets from its start.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    (0..before.len()).filter(|&at| before[at] != after[at]).collect()
}

#[test]
fn a_running_crazyflie_is_flashed_verified_and_seen_running_again() {
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
fn the_same_image_again_writes_nothing_unless_everything_is_asked_for() {
    let world = World::new("dfu");
    let job = || with(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.leave = Leave::Stay);
    assert_eq!(world.run(job()).report.outcome, Outcome::Flashed);
    let again = world.run(job()).report;
    println!("{:.3} s of the simulated chip's time for the same image again", again.took.as_secs_f64());
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert_eq!((again.written, again.erased_sectors, again.verified), (0, 0, true));
    let full = world.run(with(job(), |task| task.compare = Compare::Skip)).report;
    assert_eq!(full.outcome, Outcome::Flashed);
    assert_eq!((full.written, full.erased_sectors), (SEED_LEN as u64, 5));
}

#[test]
fn a_change_in_the_last_sector_rewrites_that_and_the_first() {
    let world = World::new("dfu");
    let mut image = firmware("2026.08", SEED_LEN);
    let stay = |image: &[u8]| with(flash_job(image), |task| task.leave = Leave::Stay);
    world.run(stay(&image));
    image[SEED_LEN - 1] ^= 0x10;
    let report = world.run(stay(&image)).report;
    assert_eq!((report.outcome, report.erased_sectors), (Outcome::Flashed, 2));
    assert_eq!(world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// Rule 2 of the design: sector 0 belongs to a bootloader restore.
#[test]
fn nothing_but_a_restore_touches_the_bootloader() {
    for scenario in ["healthy", "dfu", "erased", "overwritten", "slow", "byte-mode"] {
        for len in [images::FIRMWARE_MIN, 16 * 1024, 120_000, 253_952, 1_032_192] {
            for compare in [Compare::First, Compare::Skip] {
                let world = World::new(scenario);
                let before = world.flash();
                let job = with(flash_job(&firmware("2026.08", len)), |task| task.compare = compare);
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
    // Entered by hand, every reset ends in DFU mode until the power is cut.
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

#[test]
fn a_restore_of_the_bootloader_alone_leaves_the_firmware() {
    let world = World::new("overwritten");
    let before = world.flash();
    let run = world.run(restore_job(&images::loader(), None));
    assert_eq!(run.report.outcome, Outcome::Flashed);
    assert!(changed(&before, &world.flash()).iter().all(|&at| at < 0x4000));
}

/// What goes over the wire, in the order in which it does.
fn overhear(world: &World, job: Job) -> (Vec<Transfer>, Outcome) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let bus = Traced::new(
        world.bus.clone(),
        Arc::new(move |t: &Transfer| listener.lock().unwrap().push(t.clone())),
    );
    let run = run(Arc::new(bus), world.clock.clone(), job);
    let transfers = heard.lock().unwrap().clone();
    (transfers, run.report.outcome)
}

#[test]
fn a_block_costs_three_transfers_to_write_and_one_to_read() {
    let count = |len: usize| {
        let world = World::new("dfu");
        let (transfers, outcome) = overhear(&world, flash_job(&firmware("2026.08", len)));
        assert_eq!(outcome, Outcome::Flashed);
        transfers.len()
    };
    // Of the same five sectors, sixty blocks more: nothing else differs.
    let (few, many) = (count(0x1_C000 + 2048), count(0x1_C000 + 61 * 2048));
    assert_eq!(many - few, 60 * (3 + 1));
    // And the constant for the whole job is small: 119 blocks of the seed file. The last five of it read the version of
    // the boot ROM before leave, six more go back to 8 bits for the first word.
    let seed = count(SEED_LEN);
    assert!(seed <= 119 * 4 + 171, "{seed} transfers");
    println!("{seed} control transfers for {SEED_LEN} bytes, verified");
}

#[test]
fn the_recognised_rom_is_never_slept_on() {
    let world = World::new("dfu");
    let job = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.leave = Leave::Stay);
    let from = world.clock.now();
    assert_eq!(world.run(job).report.outcome, Outcome::Flashed);
    let took = world.clock.now() - from;
    // Flash and wire alone take 4.13 s; one bwPollTimeout a block would add 12 s.
    assert!(took < Duration::from_millis(4300), "{took:?}");
    println!("{:.3} s of the simulated chip's time for {SEED_LEN} bytes", took.as_secs_f64());
}

#[test]
fn byte_mode_and_a_worn_chip_take_longer_and_arrive() {
    let seconds = |scenario: &str, width: Width| {
        let world = World::new(scenario);
        let job = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
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

/// The setting outlives a session: whoever asks for bytes gets them, whatever was asked for before.
#[test]
fn byte_mode_is_set_even_after_word_mode() {
    let world = World::new("dfu");
    let seconds = |version: &str, width: Width| {
        let job = with(flash_job(&firmware(version, SEED_LEN)), |task| {
            task.width = width;
            task.leave = Leave::Stay;
        });
        world.run(job).report.took.as_secs_f64()
    };
    assert!(seconds("2026.04", Width::Fastest) < 4.3);
    assert!(seconds("2026.08", Width::Byte) > 8.9);
}

#[test]
fn protected_chips_are_refused_before_anything_is_changed() {
    let refuse = |scenario: &str| {
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
    assert_eq!(refuse("write-protected"), FailureKind::WriteProtected(vec![2]));
    assert_eq!(refuse("read-protected"), FailureKind::ReadProtected);
    let boards = vec!["CF20 (Crazyflie 2.0)".to_owned(), "CF21 (Crazyflie 2.1)".to_owned()];
    let board = Board { revision: Some("A".to_owned()), ..Board::named("CB10") };
    assert_eq!(refuse("wrong-board"), FailureKind::OtherBoard { board, boards });
    assert_eq!(refuse("old"), FailureKind::TooOld);
    assert_eq!(refuse("none"), FailureKind::NoDevice);
    assert!(matches!(refuse("two"), FailureKind::Several(devices) if devices.len() == 2));
}

/// Should the option bytes not tell, the comparison does.
#[test]
fn a_sector_that_silently_keeps_its_content_is_found_by_reading_back() {
    let world = World::new("dfu");
    // Protected only once the first sector is erased, long after the option bytes were read.
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
    assert_eq!(world.flash()[0x4000..0x4004], [0xFF; 4], "what is not proven must not start");
}

#[test]
fn verify_and_backup_read_the_flash_and_start_the_drone_again() {
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
fn without_verify_the_report_does_not_claim_it() {
    let world = World::new("dfu");
    let job = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.verify = Verify::Skip);
    let report = world.run(job).report;
    assert_eq!((report.outcome, report.verified), (Outcome::Flashed, false));
}

#[test]
fn two_flashes_in_a_row_each_start_afresh() {
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

/// A job that asks first, and what it is told when it does.
fn asked(world: &World, answer: &Command) -> (Preview, Report) {
    let job = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
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
    panic!("no last event");
}

#[test]
fn nothing_is_changed_until_somebody_says_so() {
    let world = World::new("healthy");
    let before = world.flash();
    let (preview, report) = asked(&world, &Command::Cancel);
    assert_eq!(report.outcome, Outcome::Cancelled(DroneState::Untouched));
    assert_eq!(report.booted(), Some(true), "it goes on with what it did");
    assert_eq!(world.flash(), before);
    assert_eq!(preview.work.erase.len(), 5);
    let Some(Content::Firmware(there)) = preview.firmware else { panic!("not recognised") };
    assert_eq!(there.version.as_deref(), Some("2025.02"));
    let kept = preview.before.unwrap();
    assert_eq!((kept.address, &kept.data[..]), (Address(0x0800_4000), &before[0x4000..0x4_0000]));

    let (_, report) = asked(&world, &Command::Proceed);
    assert_eq!(report.outcome, Outcome::Flashed);
}

/// Whatever was there comes back byte by byte: also a firmware that is longer than the one that replaced it,
/// half a firmware, and what lies between the parts of an image.
#[test]
fn what_was_overwritten_can_be_put_back_exactly() {
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
    let strewn = parts(vec![noise(0x0800_8000, 5000), noise(0x0802_0000, 6000)]);
    let loader = admission::restore(&parse(&images::loader()), None, Overrides::default()).unwrap();
    let insist = Overrides { allow_mismatch: true, ..Overrides::default() };
    for (scenario, image) in
        [("dfu", short.clone()), ("overwritten", short), ("dfu", strewn), ("overwritten", loader)]
    {
        let world = World::new(scenario);
        let before = world.flash();
        let run = world.run(with(job(image), |task| task.keep = Keep::Copy));
        assert_eq!(run.report.outcome, Outcome::Flashed);
        assert_ne!(world.flash(), before);
        let kept = run.events.iter().find_map(|event| match event {
            Event::Ready(preview) => preview.before.clone(),
            _ => None,
        });
        world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        let report = world.run(job(admission::undo(kept.unwrap(), insist).unwrap())).report;
        assert_eq!(report.outcome, Outcome::Flashed);
        assert!(world.flash() == before, "{scenario}: it is as it was");
    }
}

/// The copy of what worked is not pushed out by one of what an interruption left, and the start of a blank chip is none.
#[test]
fn half_a_firmware_and_nothing_at_all_are_not_kept() {
    let image = firmware("2026.08", SEED_LEN);
    let keeps = |world: &World, history: &mut History| {
        let run = world.run(with(flash_job(&image), |task| task.keep = Keep::Copy));
        let previews = run.events.iter().filter_map(|event| match event {
            Event::Ready(preview) => Some(preview),
            _ => None,
        });
        for preview in previews {
            *history = history.begin(preview.plan.pieces(), preview.before.as_ref(), Change::Flash);
        }
        history.last.clone()
    };
    assert_eq!(keeps(&World::new("erased"), &mut History::default()), Last::None(NoCopy::WasBlank));
    let (world, mut history) = (World::new("unplugged"), History::default());
    let before = keeps(&world, &mut history);
    assert!(matches!(&before, Last::Copy(copy) if !is_blank(&copy.data[..4])));
    world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    assert_eq!(keeps(&world, &mut history), before, "what the first try left");
}

#[test]
fn another_version_than_was_flashed_is_no_proof() {
    let job =
        with(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.version = Some("2026.09".to_owned()));
    let report = World::new("healthy").run(job).report;
    assert!(report.runs_other && report.runs.as_deref() == Some("2026.08"));
    assert!(!World::new("healthy").run(flash_job(&firmware("2026.08", SEED_LEN))).report.runs_other);
}

/// A cancel that comes right behind a job is for that job, not for the look that made way for it.
#[test]
fn a_cancel_is_for_the_job_that_it_was_said_to() {
    let world = World::new("dfu");
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    let look = Job::new(Task::Identify);
    let asking = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| task.confirm = Confirm::Ask);
    for command in [Command::Run(Box::new(look)), Command::Run(Box::new(asking)), Command::Cancel] {
        worker.commands.send(command).unwrap();
    }
    let ended = |event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    };
    let ends: Vec<Outcome> = worker.events.iter().filter_map(ended).take(2).collect();
    assert_eq!(ends[1], Outcome::Cancelled(DroneState::Untouched));
}

/// Whoever wants to flash does not wait for a look in passing to end.
#[test]
fn a_look_makes_way_for_a_job() {
    let world = World::new("dfu");
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    let look = Job::new(Task::Identify);
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    worker.commands.send(Command::Run(Box::new(look))).unwrap();
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
    // It may have been quicker than the second command.
    assert!(matches!(ends[0], Outcome::Cancelled(DroneState::Untouched) | Outcome::Identified));
    assert_eq!(ends[1], Outcome::Flashed);
}

/// The answer may be there before anybody waits for it.
#[test]
fn leave_to_write_is_not_lost_however_fast_it_comes() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    for _ in 0..300 {
        let world = World::new("erased");
        let job = with(flash_job(&image), |task| task.confirm = Confirm::Ask);
        let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
        worker.commands.send(Command::Run(Box::new(job))).unwrap();
        let report = loop {
            match worker.events.recv_timeout(Duration::from_secs(20)).expect("the worker waits for ever") {
                Event::Ready(_) => worker.commands.send(Command::Proceed).unwrap(),
                Event::Finished(report) => break report,
                _ => {}
            }
        };
        assert_eq!(report.outcome, Outcome::Flashed);
    }
}

#[test]
fn a_firmware_without_its_bootloader_is_not_flashed_without_a_word() {
    let warned = |scenario: &str| {
        let run = World::new(scenario).run(flash_job(&firmware("2026.08", SEED_LEN)));
        let is_warning = |event: &Event| matches!(event, Event::Log(_, LogEntry::LoaderGone(_)));
        run.events.iter().any(is_warning)
    };
    assert_eq!((warned("dfu"), warned("overwritten")), (false, true));
}

#[test]
fn a_cable_that_comes_off_half_way_is_told_and_the_job_done_again_completes() {
    let world = World::new("unplugged");
    let image = firmware("2026.08", SEED_LEN);
    let Outcome::Failed(failure) = world.run(flash_job(&image)).report.outcome else {
        panic!("nothing came off")
    };
    assert_eq!(failure.drone, DroneState::WithoutFirmware);
    assert_eq!(world.flash()[0x4000..0x4004], [0xFF; 4]);
    world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    assert_eq!(world.run(flash_job(&image)).report.outcome, Outcome::Flashed);
}

/// What an earlier try left is not forgotten by one that comes to nothing.
#[test]
fn a_job_that_goes_on_with_another_says_what_that_left() {
    let world = World::new("dfu");
    world.bus.with(0, |drone, now| drone.cut_power(now));
    let resumed = with(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
        *task = task.clone().resumed(DroneState::WithoutFirmware);
    });
    let Outcome::Failed(failure) = world.run(resumed.clone()).report.outcome else {
        panic!("flashed nothing")
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

/// A restore that is cut twice: the bootloader that the first try erased is not forgotten by the second.
#[test]
fn a_restore_that_is_cut_twice_says_that_the_bootloader_is_missing() {
    let restore = restore_job(&images::loader(), Some(&firmware("2026.08", images::FIRMWARE_MIN)));
    let mut missing = 0;
    for (first, second) in (4..30).flat_map(|first| (4..24).map(move |second| (first, second))) {
        let world = World::new("overwritten");
        let mut left = DroneState::Untouched;
        for at in [first, second] {
            world.bus.with(0, |drone, now| {
                drone.power_on_by_hand(now);
                drone.traits.mishap = Some((at, Mishap::Unplugged));
            });
            let job = with(restore.clone(), |task| *task = task.clone().resumed(left));
            let Outcome::Failed(failure) = world.run(job).report.outcome else { continue };
            left = failure.drone;
            if world.flash()[..4] == [0xFF; 4] {
                assert_eq!(left, DroneState::WithoutLoader, "{first}, then {second}");
                missing += 1;
            }
        }
    }
    assert!(missing > 100, "{missing}");
}
